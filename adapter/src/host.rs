//! The process behind a node: what it says of itself to the other nodes, and what they may ask of it.
//!
//! Owns the words only. How a process drains is its own business; how the question reaches it is the adapter's.

use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::RwLock;

/// Whether a node takes new clients.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum NodeState {
    /// It does.
    Ready,
    /// Not now: it has not started yet, has no broker, or has all that it can take.
    #[default]
    Unready,
    /// Not any more: it sends its clients away and ends.
    Draining,
}

impl NodeState {
    /// The state as the HTTP API names it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ready => "ready",
            Self::Unready => "unready",
            Self::Draining => "draining",
        }
    }
}

/// How a process is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Standing {
    /// Whether it takes new clients.
    pub state: NodeState,
    /// Its open connections. One may have sockets in several namespaces, or none yet.
    pub connections: u64,
}

/// How a node is to drain. What is not said is as it is configured there.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct DrainOrder {
    /// How long it still takes clients, so that balancers hear of it first.
    pub delay: Option<Duration>,
    /// Over how long it closes its connections.
    pub period: Option<Duration>,
}

/// What a node says to an order to drain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Drains {
    /// It was draining already, and goes on as it did.
    pub already: bool,
    /// Its open connections.
    pub connections: u64,
}

/// Why a node was not told to drain.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
#[non_exhaustive]
pub enum DrainError {
    /// No live node has this tag.
    #[error("there is no such node")]
    UnknownNode,
    /// The node is of a version that cannot be told.
    #[error("the node is of a version that cannot be told to drain")]
    TooOld,
    /// It did not answer. It may drain all the same.
    #[error("the node did not answer")]
    NoAnswer,
    /// The broker is away, or too many requests wait already.
    #[error("the node cannot be reached: the broker is unavailable")]
    Unreachable,
}

impl DrainError {
    /// A stable name for logs and tests.
    pub fn code(self) -> &'static str {
        match self {
            Self::UnknownNode => "unknown_node",
            Self::TooOld => "too_old",
            Self::NoAnswer => "no_answer",
            Self::Unreachable => "unreachable",
        }
    }
}

/// The process behind a node.
pub trait Host: Send + Sync {
    /// How it is now. Asked with every heartbeat, so it must not block.
    fn standing(&self) -> Standing;

    /// Tells it to drain, and to end then. Returns at once.
    fn drain(&self, order: DrainOrder) -> Drains;
}

/// Where a process makes itself known to its node. Weak: the process holds the node.
#[derive(Default)]
pub(crate) struct HostSlot(RwLock<Option<Weak<dyn Host>>>);

impl HostSlot {
    pub(crate) fn set(&self, host: &Arc<dyn Host>) {
        *self.0.write() = Some(Arc::downgrade(host));
    }

    pub(crate) fn get(&self) -> Option<Arc<dyn Host>> {
        self.0.read().as_ref().and_then(Weak::upgrade)
    }

    pub(crate) fn standing(&self) -> Option<Standing> {
        self.get().map(|host| host.standing())
    }

    /// Tells the process behind this node.
    pub(crate) fn drain(&self, order: DrainOrder) -> Result<Drains, DrainError> {
        self.get().map(|host| host.drain(order)).ok_or(DrainError::NoAnswer)
    }
}
