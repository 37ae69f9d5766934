//! How long a task of this node waits for its turn. What is in mailboxes is written by the tasks of connections: when
//! there is more to write than the node can, its messages are taken in time and nevertheless written late.
//!
//! Owns one bell that is rung when messages come, and a task that hears it. Between the two lies what every task waits.

use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::sync::Notify;

/// The bell is not rung more often.
const EVERY: Duration = Duration::from_millis(20);
/// What was found so long ago says nothing.
const FRESH: Duration = Duration::from_secs(1);

#[derive(Debug, Default)]
pub(crate) struct Probe {
    bell: Notify,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    rung_at: Option<Instant>,
    /// It was not heard yet.
    pending: bool,
    /// From the bell before that was heard.
    lag: Duration,
}

impl Probe {
    /// How long tasks wait. Rings the bell.
    pub(crate) fn lag(&self, now: Instant) -> Duration {
        let mut state = self.state.lock();
        let since = state.rung_at.map(|rung_at| now.saturating_duration_since(rung_at));
        let lag = match since {
            Some(since) if state.pending => state.lag.max(since),
            Some(since) if since < FRESH => state.lag,
            _ => Duration::ZERO,
        };
        if !state.pending && since.is_none_or(|since| since >= EVERY) {
            state.rung_at = Some(now);
            state.pending = true;
            drop(state);
            self.bell.notify_one();
        }
        lag
    }

    /// The task. Never ends.
    pub(crate) async fn run(&self) {
        loop {
            self.bell.notified().await;
            self.hear(tokio::time::Instant::now().into_std());
        }
    }

    fn hear(&self, now: Instant) {
        let mut state = self.state.lock();
        state.pending = false;
        state.lag = state.rung_at.map(|rung_at| now.saturating_duration_since(rung_at)).unwrap_or_default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bell_that_is_not_heard_tells_as_well() {
        let (probe, begin) = (Probe::default(), Instant::now());
        let at = |millis| begin + Duration::from_millis(millis);
        assert_eq!(probe.lag(at(0)), Duration::ZERO);
        assert_eq!(probe.lag(at(30)), Duration::from_millis(30));
        probe.hear(at(40));
        assert_eq!(probe.lag(at(50)), Duration::from_millis(40));
        // Rung again; the last answer counts until it is heard, or later than that.
        assert_eq!(probe.lag(at(60)), Duration::from_millis(40));
        probe.hear(at(61));
        assert_eq!(probe.lag(at(62)), Duration::from_millis(11));
        assert_eq!(probe.lag(at(5_000)), Duration::ZERO);
    }

    #[tokio::test]
    async fn the_task_hears_the_bell() {
        let probe = std::sync::Arc::new(Probe::default());
        let hears = std::sync::Arc::clone(&probe);
        tokio::spawn(async move { hears.run().await });
        probe.lag(Instant::now());
        while probe.state.lock().pending {
            tokio::task::yield_now().await;
        }
    }
}
