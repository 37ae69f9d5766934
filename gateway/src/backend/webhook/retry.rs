//! When a delivery is tried again. Owns the schedule of the contract; sends nothing.

use std::time::{Duration, SystemTime};

/// The pause before each further attempt.
const SCHEDULE: [Duration; 5] = [
    Duration::ZERO,
    Duration::from_secs(1),
    Duration::from_secs(5),
    Duration::from_secs(30),
    Duration::from_secs(120),
];
/// After this long an event is a dead letter, whatever the backend asks for.
pub(super) const GIVE_UP_AFTER: Duration = Duration::from_secs(300);
/// Of a pause so much more, at most, so that nodes that failed together do not come back together.
const JITTER: f64 = 0.2;
/// At most so much where there is no pause.
const LEAST_JITTER: Duration = Duration::from_millis(50);

/// How long to wait after this many attempts, of which the first was `age` ago; `None` is to give up. `random` is from 0
/// to 1; `asked` is what the backend said in Retry-After.
pub(super) fn pause(attempts: u32, age: Duration, asked: Option<Duration>, random: f64) -> Option<Duration> {
    let place = usize::try_from(attempts.checked_sub(1)?).ok()?;
    let pause = *SCHEDULE.get(place)?;
    let jitter = pause.mul_f64(JITTER).max(LEAST_JITTER).mul_f64(random.clamp(0.0, 1.0));
    let pause = (pause + jitter).max(asked.unwrap_or_default());
    (age.saturating_add(pause) <= GIVE_UP_AFTER).then_some(pause)
}

/// Reads Retry-After: seconds, or a date (RFC 9110, section 10.2.3).
pub(super) fn retry_after(value: &str, now: SystemTime) -> Option<Duration> {
    if let Ok(seconds) = value.trim().parse() {
        return Some(Duration::from_secs(seconds));
    }
    let at = httpdate::parse_http_date(value.trim()).ok()?;
    Some(at.duration_since(now).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn the_schedule_is_that_of_the_contract() {
        let pauses: Vec<_> = (1..=6).map(|attempts| pause(attempts, Duration::ZERO, None, 0.0)).collect();
        let expected = [0, 1, 5, 30, 120].map(|seconds| Some(SECOND * seconds));
        assert_eq!(pauses[..5], expected);
        assert_eq!(pauses[5], None);
        assert_eq!(pause(0, Duration::ZERO, None, 0.0), None);
    }

    #[test]
    fn jitter_only_lengthens_and_little() {
        assert_eq!(pause(4, SECOND, None, 1.0), Some(SECOND * 36));
        assert_eq!(pause(1, SECOND, None, 1.0), Some(LEAST_JITTER));
    }

    #[test]
    fn the_backend_may_ask_for_longer_but_not_for_shorter_nor_for_ever() {
        assert_eq!(pause(2, SECOND, Some(SECOND * 60), 0.0), Some(SECOND * 60));
        assert_eq!(pause(4, SECOND, Some(SECOND), 0.0), Some(SECOND * 30));
        assert_eq!(pause(2, SECOND, Some(SECOND * 300), 0.0), None);
        assert_eq!(pause(5, SECOND * 200, None, 0.0), None);
    }

    #[test]
    fn retry_after_is_seconds_or_a_date() {
        let now = SystemTime::UNIX_EPOCH + SECOND * 784_111_777;
        assert_eq!(retry_after(" 7 ", now), Some(SECOND * 7));
        assert_eq!(retry_after("Sun, 06 Nov 1994 08:49:47 GMT", now), Some(SECOND * 10));
        assert_eq!(retry_after("Sun, 06 Nov 1994 08:49:27 GMT", now), Some(Duration::ZERO));
        assert_eq!(retry_after("soon", now), None);
    }
}
