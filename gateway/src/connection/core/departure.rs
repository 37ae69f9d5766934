//! A connection that was told to go. Owns how long it may stay; whether something is under way is told it.

use std::time::{Duration, Instant};

use crate::handler::DisconnectReason;

/// How often a connection that is to go looks whether its client owes acks still.
const LOOK: Duration = Duration::from_millis(50);

/// A connection that was told to go ends as soon as nothing is under way. Events that it reads from then on are not heard:
/// while there are always new ones it would never end. By default nothing was told.
#[derive(Default)]
pub(super) struct Departure(Option<Box<Told>>);

struct Told {
    reason: DisconnectReason,
    /// Then it ends, whatever is under way. Each has a time of its own, so that those who wait go one after the other, too.
    by: Option<Instant>,
    /// When to look again whether the client owes acks still: whoever waits for them may give up without a word.
    look: Option<Instant>,
}

impl Departure {
    /// The connection is to go, within the grace.
    pub(super) fn begin(&mut self, reason: DisconnectReason, grace: Duration, now: Instant) {
        self.0 = Some(Box::new(Told { reason, by: now.checked_add(grace), look: None }));
    }

    pub(super) fn has_begun(&self) -> bool {
        self.0.is_some()
    }

    /// The next time at which something is due.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.0.as_ref().and_then(|told| told.look.into_iter().chain(told.by).min())
    }

    /// Why the connection has to end now, if its grace is over.
    pub(super) fn handle_timeout(&mut self, now: Instant) -> Option<DisconnectReason> {
        if let Some(told) = self.0.take_if(|told| told.by.is_some_and(|by| by <= now)) {
            return Some(told.reason);
        }
        if let Some(told) = &mut self.0 {
            told.look.take_if(|look| *look <= now);
        }
        None
    }

    /// Nothing is under way on this side. Why the connection ends now, unless its client owes acks.
    pub(super) fn settle(&mut self, owes_acks: bool, now: Instant) -> Option<DisconnectReason> {
        let told = self.0.take_if(|told| {
            told.look = owes_acks.then(|| now + LOOK);
            !owes_acks
        });
        told.map(|told| told.reason)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const REASON: DisconnectReason = DisconnectReason::Rebalanced;
    const GRACE: Duration = Duration::from_secs(5);

    fn told(now: Instant) -> Departure {
        let mut departure = Departure::default();
        departure.begin(REASON, GRACE, now);
        departure
    }

    #[test]
    fn who_was_not_told_stays() {
        let now = Instant::now();
        let mut departure = Departure::default();
        assert!(!departure.has_begun());
        assert_eq!(departure.deadline(), None);
        assert_eq!(departure.settle(false, now), None);
        assert_eq!(departure.handle_timeout(now), None);
    }

    #[test]
    fn with_nothing_under_way_it_goes_at_once_and_once() {
        let now = Instant::now();
        let mut departure = told(now);
        assert!(departure.has_begun());
        assert_eq!(departure.settle(false, now), Some(REASON));
        assert!(!departure.has_begun());
        assert_eq!(departure.settle(false, now), None);
    }

    #[test]
    fn it_looks_for_acks_again_and_again_and_goes_when_its_grace_is_over() {
        let now = Instant::now();
        let mut departure = told(now);
        assert_eq!(departure.deadline(), Some(now + GRACE));
        assert_eq!(departure.settle(true, now), None);
        assert_eq!(departure.deadline(), Some(now + LOOK));
        assert_eq!(departure.handle_timeout(now + LOOK), None);
        assert_eq!(departure.deadline(), Some(now + GRACE), "a look is due once");
        assert_eq!(departure.settle(true, now + LOOK), None);
        assert_eq!(departure.deadline(), Some(now + LOOK * 2));
        assert_eq!(departure.handle_timeout(now + GRACE), Some(REASON));
        assert_eq!(departure.deadline(), None);
    }
}
