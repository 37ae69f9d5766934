//! Sending clients away so that they come back, here or elsewhere: the transport closes, and no DISCONNECT packet is sent.
//!
//! Owns the pace and the order; why, and who, is the server's. A connection that is told goes by itself once the acks of its
//! events are written.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use rand::seq::SliceRandom as _;
use roomcast_adapter::CloseCause;
use tokio::time::Instant;

use super::pace::Pace;
use super::{ConnectionShared, Engine};
use crate::metrics::SentAway;

/// Connections that are looked at for each one that is sent away.
const CHOICE: usize = 4;

/// Counts WebSockets whose session has ended and that still write what is left.
#[derive(Debug, Default)]
pub(crate) struct Lingering(AtomicUsize);

/// One of them.
pub(crate) struct Linger(Arc<Engine>);

impl Linger {
    pub(crate) fn new(engine: &Arc<Engine>) -> Self {
        engine.lingering.0.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(engine))
    }
}

impl Drop for Linger {
    fn drop(&mut self) {
        self.0.lingering.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Connections that are to be sent away, in random order.
pub(crate) struct Leaving {
    waiting: Vec<Arc<ConnectionShared>>,
    why: SentAway,
}

impl Leaving {
    /// All connections of the node.
    pub(crate) fn all(engine: &Engine, why: SentAway) -> Self {
        let mut waiting = Vec::with_capacity(engine.sessions.count());
        engine.sessions.for_each(|session| waiting.push(Arc::clone(&session.shared)));
        waiting.shuffle(&mut rand::rng());
        Self { waiting, why }
    }

    /// Some of the node's connections, those first for which nothing waits to be written.
    pub(crate) fn some(engine: &Engine, count: usize, why: SentAway) -> Self {
        let Self { mut waiting, why } = Self::all(engine, why);
        waiting.retain(|shared| !shared.is_sent_away());
        waiting.truncate(count.saturating_mul(CHOICE));
        // Stable: among those that are alike, the order stays random.
        waiting.sort_by_cached_key(|shared| shared.mailbox.depth().1);
        waiting.truncate(count);
        Self { waiting, why }
    }

    pub(crate) fn len(&self) -> usize {
        self.waiting.len()
    }

    /// Tells one after the other. What was told stays told when this is dropped, and another call goes on with the rest.
    pub(crate) async fn go(&mut self, engine: &Engine, rate: Option<u32>, period: Duration) {
        let (start, mut pace) = (Instant::now(), Pace::new(self.len(), rate, period));
        let cause = match self.why {
            SentAway::Drain => CloseCause::Draining,
            SentAway::Rebalance => CloseCause::Rebalanced,
        };
        while !self.waiting.is_empty() {
            tokio::time::sleep_until(start + pace.next(rand::random())).await;
            let Some(shared) = self.waiting.pop() else { break };
            if shared.send_away(cause) {
                engine.metrics.sent_away.inc(self.why);
            }
        }
    }
}

impl Engine {
    /// Takes no new sessions from now on.
    pub(crate) fn refuse_new(&self) {
        self.closing.store(true, Ordering::Relaxed);
    }

    /// Ends every connection at once, whatever it waits for.
    pub(crate) fn close(&self) {
        self.refuse_new();
        self.sessions.for_each(|session| session.shared.mailbox.close(CloseCause::ServerShutdown));
    }

    /// True when no connection is open and nothing is left to be written.
    pub(crate) fn is_deserted(&self) -> bool {
        self.sessions.count() == 0 && self.lingering.0.load(Ordering::Relaxed) == 0
    }
}
