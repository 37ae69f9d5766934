//! The node as backends reach it. Owns the seam between the ways in and the running gateway: who serves a call knows
//! nothing else of the node, and no connection.

use std::sync::Arc;

use roomcast_adapter::{Adapter, AdapterFactory, Status};
use roomcast_protocol::socketio::Args;

use super::{DeadLetters, Revocations};
use crate::metrics::Metrics;
use crate::trace::Tracer;

/// The node, as backends see it.
pub trait Node: Send + Sync + 'static {
    /// The adapter of a namespace that exists on this node.
    fn adapter(&self, namespace: &str) -> Option<Arc<dyn Adapter>>;

    /// An event for the servers, from outside of the cluster, for the listeners on this node.
    fn server_side_event(&self, namespace: &str, name: &str, args: Args);

    /// The node's place in the cluster.
    fn factory(&self) -> &Arc<dyn AdapterFactory>;

    /// The events that could not be delivered to backends, if the node has backends.
    fn dead_letters(&self) -> Option<&Arc<DeadLetters>> {
        None
    }

    /// Whether clients are taken, as far as that is up to this process.
    fn phase(&self) -> Phase;

    /// Its open connections.
    fn connections(&self) -> usize;

    /// What the node counts.
    fn metrics(&self) -> &Arc<Metrics>;

    /// What records traces.
    fn tracer(&self) -> Tracer {
        Tracer::default()
    }

    /// Figures for people.
    fn stats(&self) -> NodeStats;

    /// The tokens that were revoked, where clients have any.
    fn revocations(&self) -> Option<&Revocations> {
        None
    }

    /// Why the node is not ready, if it is not.
    fn unready(&self) -> Option<&'static str> {
        match self.phase() {
            Phase::Starting => Some("not_serving"),
            Phase::Draining => Some("draining"),
            Phase::Serving | Phase::Full if self.is_cut_off() => Some("broker_unavailable"),
            Phase::Full => Some("full"),
            Phase::Serving => None,
        }
    }

    /// Whether the broker is away.
    fn is_cut_off(&self) -> bool {
        *self.factory().status().borrow() == Status::Unavailable
    }
}

/// Whether a node takes clients.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// The listeners do not stand yet.
    Starting,
    /// It does.
    Serving,
    /// It has as much as it takes, and other nodes take clients.
    Full,
    /// It sends its clients away and ends.
    Draining,
}

/// Figures of a node that no metric holds.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NodeStats {
    /// The kind of adapter: "memory", "redis", "nats".
    pub adapter: &'static str,
    /// Rooms with members on this node, those of single sockets not counted.
    pub rooms: usize,
    /// The namespaces, with their sockets on this node.
    pub namespaces: Vec<(String, usize)>,
}
