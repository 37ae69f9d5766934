//! When each of many connections is closed, so that their clients come back one after the other. Owns the arithmetic only.

use std::time::Duration;

/// A close in every slot of time, at a random moment of it. So within any time there is one more than its slots at most,
/// and clients that were closed together do not stay together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Pace {
    slot: Duration,
    begun: u32,
}

impl Pace {
    /// For so many connections: spread over `period`, or `rate` per second where that is sooner done.
    pub(crate) fn new(count: usize, rate: Option<u32>, period: Duration) -> Self {
        let count = u32::try_from(count).unwrap_or(u32::MAX).max(1);
        let by_rate = rate.map(|rate| Duration::from_secs(1) / rate.max(1));
        let slot = by_rate.unwrap_or(Duration::MAX).min(period / count);
        Self { slot, begun: 0 }
    }

    /// When the next one is due, counted from the beginning. `jitter` is from 0 to 1.
    pub(crate) fn next(&mut self, jitter: f64) -> Duration {
        let due = self.slot * self.begun + self.slot.mul_f64(jitter.clamp(0.0, 1.0));
        self.begun = self.begun.saturating_add(1);
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn times(count: usize, rate: u32, period: Duration) -> Vec<Duration> {
        let mut pace = Pace::new(count, Some(rate), period);
        (0..count).map(|_| pace.next(rand::random())).collect()
    }

    /// The most that fall into any window of a second.
    fn peak(times: &[Duration]) -> usize {
        let within =
            |start: &Duration| times.iter().filter(|time| (*start..*start + SECOND).contains(*time)).count();
        times.iter().map(within).max().unwrap_or_default()
    }

    #[test]
    fn few_connections_go_by_the_rate_and_many_within_the_period() {
        let few = times(50, 20, 60 * SECOND);
        assert!(peak(&few) <= 21 && few[49] < 3 * SECOND, "{few:?}");
        let many = times(3_000, 20, 10 * SECOND);
        assert!(peak(&many) <= 301 && many[2_999] < 10 * SECOND);
    }

    #[test]
    fn each_has_a_slot_of_its_own_and_a_moment_of_its_own() {
        let times = times(1_000, 10, 100 * SECOND);
        for (number, time) in (0_u32..).zip(&times) {
            let slot = SECOND / 10;
            assert!((slot * number..slot * (number + 1)).contains(time), "{number}: {time:?}");
        }
        let offsets = times.iter().map(|time| time.subsec_millis() % 100);
        assert!(offsets.collect::<std::collections::HashSet<_>>().len() > 50);
    }

    #[test]
    fn no_time_is_at_once() {
        assert!(times(1_000, 1, Duration::ZERO).iter().all(Duration::is_zero));
        assert_eq!(Pace::new(0, Some(0), SECOND).next(0.0), Duration::ZERO);
    }

    #[test]
    fn without_a_rate_few_connections_take_the_whole_period() {
        let mut pace = Pace::new(10, None, 60 * SECOND);
        let times: Vec<_> = (0..10).map(|_| pace.next(0.5)).collect();
        assert_eq!((times[0], times[9]), (3 * SECOND, 57 * SECOND));
    }
}
