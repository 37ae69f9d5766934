//! The node as its HTTP API sees it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use roomcast_adapter::{Adapter, AdapterFactory};
use roomcast_protocol::socketio::Args;

use super::Io;
use crate::backend::clients::Clients;
use crate::backend::{DeadLetters, Node, NodeStats, Revocations};
use crate::config::{AdapterKind, Config};
use crate::metrics::Metrics;
use crate::trace::Tracer;

/// A running gateway.
pub(super) struct GatewayNode {
    io: Io,
    adapter: AdapterKind,
    clients: Arc<Clients>,
    serving: AtomicBool,
    dead_letters: Arc<DeadLetters>,
    tracer: Tracer,
}

impl GatewayNode {
    pub(super) fn new(
        io: Io,
        adapter: AdapterKind,
        clients: Arc<Clients>,
        dead_letters: Arc<DeadLetters>,
        tracer: Tracer,
    ) -> Arc<Self> {
        Arc::new(Self { io, adapter, clients, serving: AtomicBool::new(false), dead_letters, tracer })
    }

    /// Keys of tokens and limits of another configuration hold from now on.
    pub(super) fn reload(&self, config: &Config) {
        self.clients.reload(config);
        self.io.reload(config);
    }

    /// Whether clients are taken: what readiness says first.
    pub(super) fn set_serving(&self, serving: bool) {
        self.serving.store(serving, Ordering::Release);
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

    fn is_serving(&self) -> bool {
        self.serving.load(Ordering::Acquire)
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
