//! The node as its HTTP API sees it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use roomcast_adapter::{Adapter, AdapterFactory, DrainOrder, Drains, Host, NodeState, Standing};
use roomcast_protocol::socketio::Args;

use super::Io;
use super::capacity::Full;
use super::lifecycle::Lifecycle;
use crate::backend::clients::Clients;
use crate::backend::{DeadLetters, Node, NodeStats, Phase, Revocations};
use crate::config::{AdapterKind, Config};
use crate::metrics::Metrics;
use crate::trace::Tracer;

/// A running gateway.
pub(super) struct GatewayNode {
    io: Io,
    adapter: AdapterKind,
    clients: Arc<Clients>,
    serving: AtomicBool,
    lifecycle: Arc<Lifecycle>,
    full: Arc<Full>,
    dead_letters: Arc<DeadLetters>,
    tracer: Tracer,
}

impl GatewayNode {
    pub(super) fn new(
        io: Io,
        adapter: AdapterKind,
        clients: Arc<Clients>,
        lifecycle: Arc<Lifecycle>,
        dead_letters: Arc<DeadLetters>,
        tracer: Tracer,
    ) -> Arc<Self> {
        let (serving, full) = (AtomicBool::new(false), Arc::default());
        Arc::new(Self { io, adapter, clients, serving, lifecycle, full, dead_letters, tracer })
    }

    /// Whether it has as much as it takes.
    pub(super) fn full(&self) -> &Arc<Full> {
        &self.full
    }

    /// Keys of tokens and limits of another configuration hold from now on.
    pub(super) fn reload(&self, config: &Config) {
        self.clients.reload(config);
        self.io.reload(config);
    }

    /// The listeners stand.
    pub(super) fn set_serving(&self) {
        self.serving.store(true, Ordering::Release);
    }
}

impl Host for GatewayNode {
    fn standing(&self) -> Standing {
        let state = match (self.phase(), self.unready()) {
            (Phase::Draining, _) => NodeState::Draining,
            (_, Some(_)) => NodeState::Unready,
            (_, None) => NodeState::Ready,
        };
        Standing { state, connections: self.connections() as u64 }
    }

    fn drain(&self, order: DrainOrder) -> Drains {
        let already = !self.lifecycle.order(order);
        Drains { already, connections: self.connections() as u64 }
    }
}

impl Node for GatewayNode {
    fn adapter(&self, namespace: &str) -> Option<Arc<dyn Adapter>> {
        self.io.get(namespace).map(|namespace| Arc::clone(namespace.adapter()))
    }

    fn server_side_event(&self, namespace: &str, name: &str, args: Args) {
        if let Some(namespace) = self.io.get(namespace) {
            namespace.server_side_event(name, args);
        }
    }

    fn factory(&self) -> &Arc<dyn AdapterFactory> {
        self.io.factory()
    }

    fn dead_letters(&self) -> Option<&Arc<DeadLetters>> {
        Some(&self.dead_letters)
    }

    fn phase(&self) -> Phase {
        if self.lifecycle.is_ending() {
            Phase::Draining
        } else if !self.serving.load(Ordering::Acquire) {
            Phase::Starting
        } else if self.full.is_unready() {
            Phase::Full
        } else {
            Phase::Serving
        }
    }

    fn connections(&self) -> usize {
        self.io.connection_count()
    }

    fn metrics(&self) -> &Arc<Metrics> {
        self.io.metrics()
    }

    fn tracer(&self) -> Tracer {
        self.tracer.clone()
    }

    fn revocations(&self) -> Option<&Revocations> {
        Some(self.clients.revocations())
    }

    fn stats(&self) -> NodeStats {
        let known: Vec<_> = self.io.namespaces().iter().filter_map(|name| self.io.get(name)).collect();
        let rooms = known.iter().map(|namespace| namespace.adapter().local_room_count()).sum();
        let mut namespaces: Vec<_> =
            known.iter().map(|namespace| (namespace.name().to_owned(), namespace.local_count())).collect();
        namespaces.sort();
        NodeStats { adapter: self.adapter.as_str(), rooms, namespaces }
    }
}
