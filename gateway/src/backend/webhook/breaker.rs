//! The circuit breaker: a backend that fails again and again is left alone for a while, and then tried by one request.
//!
//! A state machine without a clock.

use std::time::Duration;

use tokio::time::Instant;

/// Where a breaker is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    /// Requests are sent.
    Closed,
    /// One request is on its way to find out.
    HalfOpen,
    /// None is sent.
    Open,
}

impl State {
    /// The figure in the metrics.
    pub(super) fn figure(self) -> i64 {
        match self {
            Self::Closed => 0,
            Self::HalfOpen => 1,
            Self::Open => 2,
        }
    }
}

#[derive(Debug)]
pub(super) struct Breaker {
    failures: u32,
    /// Until when nothing is sent.
    until: Option<Instant>,
    is_probing: bool,
}

impl Breaker {
    pub(super) fn new() -> Self {
        Self { failures: 0, until: None, is_probing: false }
    }

    pub(super) fn state(&self) -> State {
        match (self.until, self.is_probing) {
            (None, _) => State::Closed,
            (Some(_), true) => State::HalfOpen,
            (Some(_), false) => State::Open,
        }
    }

    /// Whether a request may be sent now.
    pub(super) fn allows(&self, now: Instant) -> bool {
        match self.until {
            None => true,
            Some(until) => !self.is_probing && until <= now,
        }
    }

    /// A request is sent.
    pub(super) fn sent(&mut self) {
        self.is_probing |= self.until.is_some();
    }

    /// When a request may be sent again, if none may now.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.until.filter(|_| !self.is_probing)
    }

    /// The backend answered, whatever it said.
    pub(super) fn succeeded(&mut self) {
        *self = Self::new();
    }

    /// The backend did not answer, or has a fault.
    pub(super) fn failed(&mut self, now: Instant, threshold: u32, pause: Duration) {
        self.failures = self.failures.saturating_add(1);
        // What was on its way when it opened says nothing new.
        if self.failures >= threshold && (self.until.is_none() || self.is_probing) {
            self.until = Some(now + pause);
            self.is_probing = false;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAUSE: Duration = Duration::from_secs(5);

    #[test]
    fn opens_after_failures_in_a_row_and_tries_one_request() {
        let (mut breaker, start) = (Breaker::new(), Instant::now());
        breaker.failed(start, 3, PAUSE);
        breaker.failed(start, 3, PAUSE);
        breaker.succeeded();
        breaker.failed(start, 3, PAUSE);
        breaker.failed(start, 3, PAUSE);
        assert!(breaker.allows(start) && breaker.state() == State::Closed);
        breaker.failed(start, 3, PAUSE);
        assert!(!breaker.allows(start) && breaker.state() == State::Open);
        assert_eq!(breaker.deadline(), Some(start + PAUSE));
        // One that was on its way fails late: the pause is not longer for it.
        breaker.failed(start + PAUSE / 2, 3, PAUSE);
        assert_eq!(breaker.deadline(), Some(start + PAUSE));

        let later = start + PAUSE;
        assert!(breaker.allows(later));
        breaker.sent();
        assert!(!breaker.allows(later) && breaker.state() == State::HalfOpen);
        breaker.failed(later, 3, PAUSE);
        assert!(!breaker.allows(later) && breaker.allows(later + PAUSE));
        breaker.sent();
        breaker.succeeded();
        assert!(breaker.allows(later) && breaker.state() == State::Closed);
    }
}
