//! What a link tells its owner: messages, losses, and that it is lost itself.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use bytes::Bytes;
use tokio::sync::{Notify, watch};

use super::delivery::Queue;

/// Counters of one bus, over all its links.
#[derive(Debug, Default)]
pub(super) struct Counters {
    pub(super) read: AtomicU64,
    pub(super) received: AtomicU64,
    pub(super) lost: AtomicU64,
    pub(super) gaps: AtomicU64,
    pub(super) outages: AtomicU64,
    pub(super) refused: AtomicU64,
    pub(super) slow_consumer: AtomicU64,
    pub(super) uncovered: AtomicU64,
}

/// Takes the messages of one link, until it is over.
#[derive(Clone)]
pub(crate) struct Inbound {
    inner: Arc<Inner>,
}

struct Inner {
    queue: Arc<Queue>,
    counters: Arc<Counters>,
    losses: Notify,
}

impl Inbound {
    pub(super) fn new(queue: Arc<Queue>, counters: Arc<Counters>) -> Self {
        Self { inner: Arc::new(Inner { queue, counters, losses: Notify::new() }) }
    }

    /// Takes a message, to be delivered on another thread; waits when too much is to be. False says that the link is
    /// over and that the caller should stop.
    pub(crate) fn message(&self, subject: &str, payload: Bytes) -> bool {
        let counted = &self.inner.counters.read;
        counted.fetch_add(1, Ordering::Relaxed);
        let taken = self.inner.queue.push(subject, payload);
        if !taken {
            counted.fetch_sub(1, Ordering::Relaxed);
        }
        taken
    }

    /// Reports that the client dropped messages of subjects that are subscribed.
    #[cfg_attr(not(feature = "nats"), allow(dead_code, reason = "our own client drops nothing"))]
    pub(crate) fn lost(&self, messages: u64) {
        self.inner.counters.lost.fetch_add(messages, Ordering::Relaxed);
        self.inner.losses.notify_one();
    }

    /// Reports that a message was dropped because this node is slow.
    #[cfg(any(feature = "nats", test))]
    pub(crate) fn slow_consumer(&self) {
        self.inner.counters.slow_consumer.fetch_add(1, Ordering::Relaxed);
        self.lost(1);
    }

    /// Counts servers of the broker's cluster that subscriptions no longer wait for.
    #[cfg(feature = "nats")]
    pub(crate) fn uncovered(&self, servers: u64) {
        self.inner.counters.uncovered.fetch_add(servers, Ordering::Relaxed);
    }

    /// Reports that subscriptions were interrupted, so that messages may have passed them by. They stand again.
    #[cfg_attr(not(feature = "redis"), allow(dead_code, reason = "only slots of Redis move"))]
    pub(crate) fn gap(&self) {
        self.inner.counters.gaps.fetch_add(1, Ordering::Relaxed);
        self.inner.losses.notify_one();
    }

    /// Waits for a loss that was not waited for yet.
    pub(super) async fn loss(&self) {
        self.inner.losses.notified().await;
    }

    /// How many messages were read, delivered or not.
    pub(super) fn read(&self) -> u64 {
        self.inner.counters.read.load(Ordering::Relaxed)
    }
}

/// Tells that a link is lost. The first reason counts.
#[derive(Clone)]
pub(crate) struct Fault {
    reason: Arc<watch::Sender<Option<String>>>,
}

impl Fault {
    pub(crate) fn new() -> Self {
        Self { reason: Arc::new(watch::Sender::new(None)) }
    }

    /// Gives the link up.
    pub(crate) fn raise(&self, why: impl Into<String>) {
        self.reason.send_if_modified(|reason| {
            let first = reason.is_none();
            if first {
                *reason = Some(why.into());
            }
            first
        });
    }

    /// Gives the link up when what is returned is dropped by a panic.
    pub(crate) fn raised_by_panic(self) -> impl Drop + Send {
        RaisedByPanic(self)
    }

    /// The reason, if the link is lost.
    pub(super) fn raised(&self) -> Option<String> {
        self.reason.borrow().clone()
    }

    /// Waits until the link is lost.
    pub(crate) async fn wait(&self) -> String {
        let mut reason = self.reason.subscribe();
        let raised = reason.wait_for(Option::is_some).await;
        raised.ok().and_then(|reason| reason.clone()).unwrap_or_default()
    }
}

struct RaisedByPanic(Fault);

impl Drop for RaisedByPanic {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.raise("the delivery of a message panicked");
        }
    }
}
