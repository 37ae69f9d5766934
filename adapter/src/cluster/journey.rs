//! How long an emit has been on its way when a node gets it, without comparing the clocks of two nodes.
//!
//! The sender tells how old the emit was when it gave it to the broker, and adds half of the way that its own messages
//! take to the broker and back; the receiver adds the half of its own. What is estimated is that both directions take
//! the same time, and that this emit took about as long as the last signs of life did.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use crate::trace::TraceContext;

/// How far a new round trip moves the mean: one part in so many.
const WEIGHT: u64 = 4;

/// What an emit brings along of its way so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Journey {
    /// From the emit until the broker had it.
    pub(crate) age: Duration,
    pub(crate) trace: Option<TraceContext>,
}

/// Learns what a node measures of its cluster. Called on the thread that delivers messages: must not block.
pub trait ClusterObserver: Send + Sync + 'static {
    /// What this node said to all came back from the broker after so long.
    fn round_trip(&self, took: Duration);

    /// An emit of another node that belongs to a trace was put into the mailboxes of this one.
    fn delivered(&self, delivery: &RemoteDelivery<'_>);
}

/// An emit of another node, and what became of it here.
#[derive(Debug, Clone, Copy)]
pub struct RemoteDelivery<'a> {
    /// The span of the emit.
    pub trace: TraceContext,
    /// The namespace.
    pub namespace: &'a str,
    /// Sockets that got it.
    pub sockets: usize,
    /// How long it was on its way until this node read it, as far as that can be told: not of emits with acks.
    pub travelled: Option<Duration>,
    /// How long it took from there until it was in the mailboxes.
    pub took: Duration,
}

/// The way to the broker and back, and who wants to know of it.
#[derive(Default)]
pub(crate) struct Travel {
    /// The mean of the last ones, in microseconds; 0 before the first.
    round_trip: AtomicU64,
    observer: OnceLock<Arc<dyn ClusterObserver>>,
}

impl Travel {
    /// The first observer stays.
    pub(crate) fn observe(&self, observer: Arc<dyn ClusterObserver>) {
        let _ = self.observer.set(observer);
    }

    pub(crate) fn observer(&self) -> Option<&Arc<dyn ClusterObserver>> {
        self.observer.get()
    }

    /// What this node said has come back.
    pub(crate) fn came_back(&self, took: Duration) {
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX).max(1);
        let before = self.round_trip.load(Ordering::Relaxed);
        let mean = if before == 0 { micros } else { before - before / WEIGHT + micros / WEIGHT };
        self.round_trip.store(mean.max(1), Ordering::Relaxed);
        if let Some(observer) = self.observer() {
            observer.round_trip(took);
        }
    }

    /// About as long as a message takes from here to the broker, or back.
    pub(crate) fn one_way(&self) -> Duration {
        Duration::from_micros(self.round_trip.load(Ordering::Relaxed) / 2)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mean_follows_slowly() {
        let travel = Travel::default();
        assert_eq!(travel.one_way(), Duration::ZERO);
        travel.came_back(Duration::from_millis(8));
        assert_eq!(travel.one_way(), Duration::from_millis(4));
        travel.came_back(Duration::from_millis(16));
        assert_eq!(travel.one_way(), Duration::from_millis(5));
        for _ in 0..100 {
            travel.came_back(Duration::from_millis(16));
        }
        assert!((Duration::from_micros(7_990)..=Duration::from_millis(8)).contains(&travel.one_way()));
    }
}
