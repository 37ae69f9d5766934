//! A look at what goes through a node, for people who search for a fault.
//!
//! Owns who looks, and a bounded queue for them: a look never slows the node down, and whoever is too slow is told how
//! much was left out. While nobody looks it costs one read of a number.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::SystemTime;

use roomcast_protocol::socketio::Args;
use tokio::sync::broadcast;
use tokio::sync::broadcast::error::RecvError;

use crate::id::SocketId;
use crate::mailbox::Outgoing;
use crate::selector::Selector;

/// What may wait for somebody who looks. Older sightings make room for newer ones.
const CAPACITY: usize = 1_024;

/// Something that went through the node.
#[derive(Debug, Clone)]
pub struct Sighting {
    /// When.
    pub at: SystemTime,
    /// The namespace.
    pub namespace: Arc<str>,
    /// What it was.
    pub what: Sighted,
}

/// What was seen.
#[derive(Debug, Clone)]
pub enum Sighted {
    /// An emit to sockets of this node, from wherever in the cluster it came.
    Emit {
        /// Whom it meant.
        selector: Selector,
        /// The packet.
        outgoing: Arc<Outgoing>,
    },
    /// An event of a client of this node.
    Event {
        /// The client.
        socket: SocketId,
        /// The event.
        name: Arc<str>,
        /// Its arguments.
        args: Args,
    },
}

/// Where one can look.
#[derive(Debug)]
pub struct Tap {
    looking: AtomicUsize,
    sightings: broadcast::Sender<Sighting>,
}

impl Default for Tap {
    fn default() -> Self {
        Self { looking: AtomicUsize::new(0), sightings: broadcast::Sender::new(CAPACITY) }
    }
}

impl Tap {
    /// Begins to look.
    pub fn look(self: &Arc<Self>) -> Look {
        let sightings = self.sightings.subscribe();
        self.looking.fetch_add(1, Ordering::Relaxed);
        Look { tap: Arc::clone(self), sightings }
    }

    /// Shows something, if anybody looks.
    pub fn show(&self, namespace: &Arc<str>, what: impl FnOnce() -> Sighted) {
        if self.looking.load(Ordering::Relaxed) > 0 {
            let namespace = Arc::clone(namespace);
            // An error says that nobody looks any more.
            let _ = self.sightings.send(Sighting { at: SystemTime::now(), namespace, what: what() });
        }
    }
}

/// A look, for as long as it is kept.
#[derive(Debug)]
pub struct Look {
    tap: Arc<Tap>,
    sightings: broadcast::Receiver<Sighting>,
}

impl Look {
    /// The next sighting, or how many were left out because this look was too slow.
    pub async fn next(&mut self) -> Result<Sighting, u64> {
        match self.sightings.recv().await {
            Ok(sighting) => Ok(sighting),
            Err(RecvError::Lagged(count)) => Err(count),
            // The sender is held by the tap.
            Err(RecvError::Closed) => std::future::pending().await,
        }
    }
}

impl Drop for Look {
    fn drop(&mut self) {
        self.tap.looking.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use roomcast_protocol::socketio::EncodedPacket;

    use super::*;

    fn emit() -> Sighted {
        let outgoing = Outgoing::new(EncodedPacket::event("/", None, "e", &Args::none()));
        Sighted::Emit { selector: Selector::all(), outgoing }
    }

    #[tokio::test]
    async fn nothing_is_made_while_nobody_looks() {
        let tap = Arc::new(Tap::default());
        tap.show(&"/".into(), || panic!("nobody looks"));
        let mut look = tap.look();
        tap.show(&"/".into(), emit);
        assert!(matches!(look.next().await.unwrap().what, Sighted::Emit { .. }));
        drop(look);
        tap.show(&"/".into(), || panic!("nobody looks"));
    }

    #[tokio::test]
    async fn who_is_too_slow_is_told_what_was_left_out() {
        let tap = Arc::new(Tap::default());
        let mut look = tap.look();
        for _ in 0..CAPACITY + 10 {
            tap.show(&"/".into(), emit);
        }
        assert_eq!(look.next().await.unwrap_err(), 10);
        assert!(look.next().await.is_ok());
    }
}
