//! A namespace of this node.

use std::future::Future;
use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::RwLock;
use roomcast_adapter::{
    Adapter, AdapterError, AdapterFactory, Collected, NamespaceEvents, RemoteSocket, ServerReply,
};
use roomcast_protocol::socketio::{Args, ArgsError};

use super::broadcast::{Broadcast, IntoRooms};
use super::code::{Code, CodeHandler};
use super::emit::{EmitError, IntoArgs};
use super::listeners::Listeners;
use super::socket::Socket;
use crate::handler::{NamespaceHandler, Refusal};
use crate::metrics::Metrics;

pub(crate) struct NamespaceInner {
    name: Arc<str>,
    adapter: Arc<dyn Adapter>,
    handler: RwLock<Arc<dyn NamespaceHandler>>,
    code: Arc<Code>,
    max_rooms_per_socket: usize,
    pub(crate) sockets_gauge: prometheus::IntGauge,
}

/// What the adapter knows of a namespace: not enough to keep it alive.
struct Events(Weak<NamespaceInner>);

impl NamespaceEvents for Events {
    fn server_side_event(&self, name: &str, args: Args, reply: Option<ServerReply>) {
        if let Some(inner) = self.0.upgrade() {
            let handler = inner.handler();
            handler.server_event(&Namespace { inner }, name, args, reply);
        }
    }
}

impl NamespaceInner {
    pub(crate) fn new(
        name: &str,
        factory: &dyn AdapterFactory,
        code: Arc<Code>,
        max_rooms_per_socket: usize,
        metrics: &Metrics,
    ) -> Arc<Self> {
        Arc::new_cyclic(|weak| Self {
            name: name.into(),
            adapter: factory.namespace(name, Arc::new(Events(Weak::clone(weak)))),
            handler: RwLock::new(Arc::new(CodeHandler(Arc::clone(&code)))),
            code,
            max_rooms_per_socket,
            sockets_gauge: metrics.sockets(name),
        })
    }

    pub(crate) fn name(&self) -> &Arc<str> {
        &self.name
    }

    pub(crate) fn adapter(&self) -> &Arc<dyn Adapter> {
        &self.adapter
    }

    pub(crate) fn handler(&self) -> Arc<dyn NamespaceHandler> {
        Arc::clone(&self.handler.read())
    }

    pub(crate) fn max_rooms_per_socket(&self) -> usize {
        self.max_rooms_per_socket
    }
}

/// A namespace: `io.of("/chat")`. Cloning is cheap.
#[derive(Clone)]
pub struct Namespace {
    inner: Arc<NamespaceInner>,
}

impl Namespace {
    pub(crate) fn from_inner(inner: Arc<NamespaceInner>) -> Self {
        Self { inner }
    }

    /// The name, `/` for the main namespace.
    pub fn name(&self) -> &str {
        &self.inner.name
    }

    /// Called for each socket that joins. The client learns that it is connected when this is done, so it must end:
    /// spawn what goes on. (If it waits for an ack of the socket, the client is told before.)
    pub fn on_connect<F, Fut>(&self, listener: F) -> &Self
    where
        F: Fn(Socket) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = ()> + Send + 'static,
    {
        self.inner.code.add_on_connect(listener);
        self
    }

    /// Adds a middleware: may this socket join? The error is what the client gets in `connect_error`.
    pub fn use_middleware<F, Fut>(&self, middleware: F) -> &Self
    where
        F: Fn(Socket) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<(), Refusal>> + Send + 'static,
    {
        self.inner.code.add_middleware(middleware);
        self
    }

    /// An event for the servers that came to this one alone, as from a Redis emitter.
    pub(crate) fn server_side_event(&self, name: &str, args: Args) {
        self.inner.handler().server_event(self, name, args, None);
    }

    /// Replaces the handler: code that was attached with `on_connect` and `on` is not called any more.
    pub fn set_handler(&self, handler: Arc<dyn NamespaceHandler>) -> &Self {
        *self.inner.handler.write() = handler;
        self
    }

    pub(crate) fn with_listeners<R>(&self, change: impl FnOnce(&mut Listeners) -> R) -> R {
        self.inner.code.with_listeners(change)
    }

    /// Everybody in the namespace.
    pub fn broadcast(&self) -> Broadcast {
        Broadcast::new(Arc::clone(&self.inner.adapter), Arc::clone(&self.inner.name))
    }

    /// The members of a room, or of several.
    pub fn to(&self, rooms: impl IntoRooms) -> Broadcast {
        self.broadcast().to(rooms)
    }

    /// The same as [`Namespace::to`].
    pub fn within(&self, rooms: impl IntoRooms) -> Broadcast {
        self.to(rooms)
    }

    /// Everybody but the members of a room, or of several.
    pub fn except(&self, rooms: impl IntoRooms) -> Broadcast {
        self.broadcast().except(rooms)
    }

    /// Everybody on this node.
    pub fn local(&self) -> Broadcast {
        self.broadcast().local()
    }

    /// A broadcast that may be lost for clients that cannot be written to right now.
    pub fn volatile(&self) -> Broadcast {
        self.broadcast().volatile()
    }

    /// A broadcast whose acks are awaited for this long.
    pub fn timeout(&self, timeout: Duration) -> Broadcast {
        self.broadcast().timeout(timeout)
    }

    /// Emits to everybody in the namespace.
    pub fn emit<M>(&self, name: &str, args: impl IntoArgs<M>) -> Result<(), EmitError> {
        self.broadcast().emit(name, args)
    }

    /// All sockets of the namespace in the cluster.
    pub async fn fetch_sockets(&self) -> Collected<Vec<RemoteSocket>> {
        self.broadcast().fetch_sockets().await
    }

    /// Makes all sockets join rooms.
    pub async fn sockets_join(&self, rooms: impl IntoRooms) -> Result<Collected<()>, AdapterError> {
        self.broadcast().sockets_join(rooms).await
    }

    /// Makes all sockets leave rooms.
    pub async fn sockets_leave(&self, rooms: impl IntoRooms) -> Result<Collected<()>, AdapterError> {
        self.broadcast().sockets_leave(rooms).await
    }

    /// Disconnects all sockets; with `close`, ends their connections.
    pub async fn disconnect_sockets(&self, close: bool) -> Result<Collected<()>, AdapterError> {
        self.broadcast().disconnect_sockets(close).await
    }

    /// Emits an event to the other servers of the cluster.
    pub fn server_side_emit<M>(&self, name: &str, args: impl IntoArgs<M>) -> Result<(), EmitError> {
        Ok(self.inner.adapter.server_side_emit(name, &args.into_args()?)?)
    }

    /// Emits an event to the other servers and collects one answer each, for 5 seconds at most.
    pub async fn server_side_emit_with_ack<M>(
        &self,
        name: &str,
        args: impl IntoArgs<M>,
    ) -> Result<Collected<Vec<Args>>, ArgsError> {
        let args = args.into_args()?;
        Ok(self.inner.adapter.server_side_emit_with_ack(name, &args, Duration::from_secs(5)).await)
    }

    /// Listens to what other servers emit to the servers. The reply is there when the sender wants an ack; the first
    /// listener gets it.
    pub fn on_server_event(
        &self,
        listener: impl Fn(&Namespace, &str, Args, Option<ServerReply>) + Send + Sync + 'static,
    ) -> &Self {
        self.inner.code.add_server_listener(listener);
        self
    }

    /// The sockets of the namespace on this node.
    pub fn local_count(&self) -> usize {
        self.inner.adapter.local_count()
    }

    /// The adapter of the namespace.
    pub fn adapter(&self) -> &Arc<dyn Adapter> {
        &self.inner.adapter
    }
}
