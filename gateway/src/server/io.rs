//! The server as embedders see it.

use std::convert::Infallible;
use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::ConnectInfo;
use axum::routing::any_service;
use futures_util::future::BoxFuture;
use http::{Request, Response};
use roomcast_adapter::{AdapterError, AdapterFactory, Collected, LocalFactory, RemoteSocket};

use super::peer::{Link, Peers};
use crate::config::{Config, Public, Transport};
use crate::connection::{Engine, EngineHandler};
use crate::handler::Refusal;
use crate::metrics::Metrics;
use crate::namespace::{Broadcast, EmitError, IntoArgs, IntoRooms, Namespace, ParentNamespace, Socket};
use crate::transport::{Answering, Mount, Peer, handle};

/// How long [`Io::close`] waits for its connections to end.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(10);

/// A Socket.IO server. Cloning is cheap, and all clones are the same server.
///
/// # Example
///
/// ```no_run
/// use roomcast::{Io, Socket};
///
/// # async fn example() -> std::io::Result<()> {
/// let io = Io::new();
/// io.of("/chat").on_connect(|socket: Socket| async move {
///     socket.on("message", |socket: Socket, text: String| async move {
///         let _ = socket.to("lobby").emit("message", text);
///         "delivered" // the ack
///     });
///     let _ = socket.join("lobby").await;
/// });
///
/// let app = axum::Router::new().merge(io.router());
/// let listener = tokio::net::TcpListener::bind("127.0.0.1:3000").await?;
/// axum::serve(listener, app).await
/// # }
/// ```
#[derive(Clone)]
pub struct Io {
    engine: Arc<Engine>,
    mount: Mount,
    /// The tie to the other nodes of the cluster.
    link: Option<Arc<Link>>,
}

impl Default for Io {
    fn default() -> Self {
        Self::new()
    }
}

impl Io {
    /// A server with the defaults of Socket.IO, on this node alone.
    pub fn new() -> Self {
        Self::builder().build()
    }

    /// A server with settings of your own.
    pub fn builder() -> IoBuilder {
        IoBuilder {
            config: Config::default(),
            factory: None,
            metrics: None,
            raw: None,
            peers: None,
            only_configured: false,
        }
    }

    /// A namespace, made if it is not there.
    pub fn of(&self, name: &str) -> Namespace {
        self.engine.registry.of(name)
    }

    /// A namespace that is there.
    pub fn get(&self, name: &str) -> Option<Namespace> {
        self.engine.registry.get(name)
    }

    /// The names of the namespaces of this node.
    pub fn namespaces(&self) -> Vec<Arc<str>> {
        self.engine.registry.names()
    }

    /// Namespaces whose whole name matches a regular expression, made when a client asks for one.
    pub fn of_pattern(&self, pattern: &str) -> Result<ParentNamespace, regex::Error> {
        let pattern = regex::Regex::new(&format!("^(?:{pattern})$"))?;
        Ok(self.of_fn(move |name, _| pattern.is_match(name)))
    }

    /// Namespaces that a function lets a client have: it gets the name and the auth payload (a JSON object).
    pub fn of_fn(&self, allow: impl Fn(&str, &str) -> bool + Send + Sync + 'static) -> ParentNamespace {
        self.engine.registry.add_parent(Arc::new(allow))
    }

    /// Called when a pattern or a function has made a namespace.
    pub fn on_new_namespace(&self, listener: impl Fn(&Namespace) + Send + Sync + 'static) -> &Self {
        self.engine.registry.on_new(listener);
        self
    }

    /// [`Namespace::on_connect`] of `/`.
    pub fn on_connect<F, Fut>(&self, listener: F) -> &Self
    where
        F: Fn(Socket) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = ()> + Send + 'static,
    {
        self.of("/").on_connect(listener);
        self
    }

    /// [`Namespace::use_middleware`] of `/`.
    pub fn use_middleware<F, Fut>(&self, middleware: F) -> &Self
    where
        F: Fn(Socket) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<(), Refusal>> + Send + 'static,
    {
        self.of("/").use_middleware(middleware);
        self
    }

    /// [`Namespace::emit`] of `/`.
    pub fn emit<M>(&self, name: &str, args: impl IntoArgs<M>) -> Result<(), EmitError> {
        self.of("/").emit(name, args)
    }

    /// [`Namespace::to`] of `/`.
    pub fn to(&self, rooms: impl IntoRooms) -> Broadcast {
        self.of("/").to(rooms)
    }

    /// [`Namespace::except`] of `/`.
    pub fn except(&self, rooms: impl IntoRooms) -> Broadcast {
        self.of("/").except(rooms)
    }

    /// [`Namespace::local`] of `/`.
    pub fn local(&self) -> Broadcast {
        self.of("/").local()
    }

    /// [`Namespace::volatile`] of `/`.
    pub fn volatile(&self) -> Broadcast {
        self.of("/").volatile()
    }

    /// [`Namespace::timeout`] of `/`.
    pub fn timeout(&self, timeout: Duration) -> Broadcast {
        self.of("/").timeout(timeout)
    }

    /// [`Namespace::sockets_join`] of `/`.
    pub async fn sockets_join(&self, rooms: impl IntoRooms) -> Result<Collected<()>, AdapterError> {
        self.of("/").sockets_join(rooms).await
    }

    /// [`Namespace::sockets_leave`] of `/`.
    pub async fn sockets_leave(&self, rooms: impl IntoRooms) -> Result<Collected<()>, AdapterError> {
        self.of("/").sockets_leave(rooms).await
    }

    /// [`Namespace::disconnect_sockets`] of `/`.
    pub async fn disconnect_sockets(&self, close: bool) -> Result<Collected<()>, AdapterError> {
        self.of("/").disconnect_sockets(close).await
    }

    /// [`Namespace::server_side_emit`] of `/`.
    pub fn server_side_emit<M>(&self, name: &str, args: impl IntoArgs<M>) -> Result<(), EmitError> {
        self.of("/").server_side_emit(name, args)
    }

    /// [`Namespace::fetch_sockets`] of `/`.
    pub async fn fetch_sockets(&self) -> Collected<Vec<RemoteSocket>> {
        self.of("/").fetch_sockets().await
    }

    /// The open connections of this node.
    pub fn connection_count(&self) -> usize {
        self.engine.sessions.count()
    }

    /// What the server counts.
    pub fn metrics(&self) -> &Arc<Metrics> {
        &self.engine.metrics
    }

    /// The node's place in the cluster.
    pub fn factory(&self) -> &Arc<dyn AdapterFactory> {
        self.engine.registry.factory()
    }

    /// A router that serves Socket.IO, to be merged into an application. It needs an accept loop that allows upgrades,
    /// such as [`axum::serve()`]; with `into_make_service_with_connect_info::<SocketAddr>()` sockets know their peer's
    /// address.
    pub fn router<S: Clone + Send + Sync + 'static>(&self) -> Router<S> {
        let path = self.mount.path.trim_end_matches('/');
        let service = EngineService { io: self.clone() };
        let mut router = Router::new();
        if !self.mount.path.ends_with('/') {
            router = router.route_service(path, any_service(service.clone()));
        }
        router
            .route_service(&format!("{path}/"), any_service(service.clone()))
            .route_service(&format!("{path}/{{*rest}}"), any_service(service))
    }

    /// The settings of the listener.
    pub(crate) fn public(&self) -> &Public {
        &self.engine.config.public
    }

    /// What the connections of the node have in common.
    pub(super) fn engine(&self) -> &Arc<Engine> {
        &self.engine
    }

    /// Limits of another configuration hold from now on.
    pub(crate) fn reload(&self, config: &Config) {
        self.engine.limits.reload(config.limits.clone());
        self.engine.admission.reload(config.admission.clone());
        self.engine.set_grace(config.drain.grace);
    }

    /// The same server at another path, for the node's own console: the check of `public.origins` does not concern it.
    pub(crate) fn mounted_at(&self, path: &str) -> Self {
        let mount = Mount { path: path.into(), check_origin: false, forward: None };
        Self { engine: Arc::clone(&self.engine), mount, link: None }
    }

    /// The same server, which passes nothing on to other nodes.
    pub(super) fn without_forward(&self) -> Self {
        let mount = Mount { forward: None, ..self.mount.clone() };
        Self { engine: Arc::clone(&self.engine), mount, link: None }
    }

    /// Takes requests that other nodes pass on ([`IoBuilder::peers`]), and tells these where, from now on and until the
    /// server is dropped. Ready when those that are there have had the time to tell the same of themselves.
    pub async fn serve_peers(&self) {
        if let Some(link) = &self.link {
            // It is begun once, and large.
            Box::pin(link.begin(self)).await;
        }
    }

    /// Requests and WebSockets that are being passed on to other nodes.
    pub(super) fn passed_on(&self) -> usize {
        self.link.as_ref().map_or(0, |link| link.passed_on())
    }

    /// Ends the WebSockets that are passed on to other nodes, spread over some time: those whose sessions are here are ended
    /// by [`Self::close`].
    pub(super) fn release_peers(&self, within: Duration) {
        if let Some(link) = &self.link {
            link.release(within);
        }
    }

    /// Takes no more requests of other nodes, and lets go of those that are being passed on to them.
    pub(super) fn leave_peers(&self) {
        if let Some(link) = &self.link {
            link.end();
        }
    }

    /// Answers a request under the server's path; 404 for others.
    pub(crate) fn handle(&self, request: Request<Body>, peer: Peer) -> Answering {
        handle(&self.engine, &self.mount, request, peer)
    }

    /// Ends every connection ("server shutting down"; stock clients reconnect by themselves), takes no new ones, and
    /// waits until they have ended, for 10 seconds at most.
    pub async fn close(&self) {
        self.engine.close();
        let ended = async {
            while !self.engine.is_deserted() {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        if tokio::time::timeout(CLOSE_TIMEOUT, ended).await.is_err() {
            tracing::warn!(connections = self.connection_count(), "connections are cut off");
        }
    }
}

/// The server as a tower service.
#[derive(Clone)]
struct EngineService {
    io: Io,
}

impl tower::Service<Request<Body>> for EngineService {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Response<Body>, Infallible>>;

    fn poll_ready(&mut self, _: &mut std::task::Context<'_>) -> std::task::Poll<Result<(), Infallible>> {
        std::task::Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let extensions = request.extensions();
        // What our own listener knows, or the one of an application.
        let peer = extensions.get::<Peer>().cloned().unwrap_or_else(|| {
            Peer::new(extensions.get::<ConnectInfo<SocketAddr>>().map(|info| info.0), false)
        });
        let io = self.io.clone();
        // Not before it is polled: layers of an application may drop it, or call outside of a runtime.
        Box::pin(async move { Ok(io.handle(request, peer).await) })
    }
}

/// Settings of a server.
#[must_use]
pub struct IoBuilder {
    config: Config,
    factory: Option<Arc<dyn AdapterFactory>>,
    metrics: Option<Arc<Metrics>>,
    raw: Option<Arc<dyn EngineHandler>>,
    peers: Option<Peers>,
    /// The gateway has the namespaces of its configuration and no other; code always has `/`.
    only_configured: bool,
}

impl IoBuilder {
    /// Leaves `/` out, unless somebody makes it.
    pub(crate) fn only_configured_namespaces(mut self) -> Self {
        self.only_configured = true;
        self
    }

    /// All settings at once, as the binary reads them. Those of the adapter, and addresses and TLS of listeners, do not
    /// concern an embedded server; its connections go by the others of `public` under [`serve`](crate::serve), and its
    /// requests by `public.trusted_proxies` under any accept loop.
    pub fn config(mut self, config: Config) -> Self {
        self.config = config;
        self
    }

    /// Changes settings that have no method of their own here.
    pub fn configure(mut self, change: impl FnOnce(&mut Config)) -> Self {
        change(&mut self.config);
        self
    }

    /// The path, `/socket.io/` by default.
    pub fn path(self, path: impl Into<String>) -> Self {
        self.configure(|config| config.public.path = path.into())
    }

    /// How long after a pong the server pings; 25 seconds by default.
    pub fn ping_interval(self, interval: Duration) -> Self {
        self.configure(|config| config.engine.ping_interval = interval)
    }

    /// How long a ping may go unanswered; 20 seconds by default.
    pub fn ping_timeout(self, timeout: Duration) -> Self {
        self.configure(|config| config.engine.ping_timeout = timeout)
    }

    /// How long an upgrade may take; 10 seconds by default.
    pub fn upgrade_timeout(self, timeout: Duration) -> Self {
        self.configure(|config| config.engine.upgrade_timeout = timeout)
    }

    /// How long a connection may be in no namespace; 45 seconds by default.
    pub fn connect_timeout(self, timeout: Duration) -> Self {
        self.configure(|config| config.engine.connect_timeout = timeout)
    }

    /// The longest message in bytes; 1,000,000 by default.
    pub fn max_payload(self, bytes: usize) -> Self {
        self.configure(|config| config.engine.max_payload = bytes)
    }

    /// The transports; both by default.
    pub fn transports(self, transports: impl IntoIterator<Item = Transport>) -> Self {
        self.configure(|config| config.engine.transports = transports.into_iter().collect())
    }

    /// The origins whose pages may read polling answers, `"*"` for all; none by default.
    pub fn cors_origins(self, origins: impl IntoIterator<Item = impl Into<String>>) -> Self {
        self.configure(|config| config.cors.origins = origins.into_iter().map(Into::into).collect())
    }

    /// The adapter: the memory adapter by default.
    pub fn adapter(mut self, factory: Arc<dyn AdapterFactory>) -> Self {
        self.factory = Some(factory);
        self
    }

    /// Counts into metrics that are already there.
    pub fn metrics(mut self, metrics: Arc<Metrics>) -> Self {
        self.metrics = Some(metrics);
        self
    }

    /// Passes requests for sessions of other nodes on to these; see [`Io::serve_peers`].
    pub fn peers(mut self, peers: Peers) -> Self {
        self.peers = Some(peers);
        self
    }

    /// Makes a server that speaks Engine.IO only: messages go to this handler, and there are no namespaces.
    pub fn engine_handler(mut self, handler: Arc<dyn EngineHandler>) -> Self {
        self.raw = Some(handler);
        self
    }

    /// The server.
    ///
    /// # Panics
    ///
    /// If the operating system gives no randomness.
    pub fn build(self) -> Io {
        let factory = self.factory.unwrap_or_else(|| {
            LocalFactory::with_random_tag().expect("the operating system gives randomness")
        });
        let metrics = self.metrics.unwrap_or_default();
        let (forward, link) = self.peers.map(|peers| peers.split(&metrics)).unzip();
        let mount = Mount { path: mount_path(&self.config).into(), check_origin: true, forward };
        let has_main_namespace = self.raw.is_none() && !self.only_configured;
        let engine = Engine::new(self.config, factory, metrics, self.raw);
        if has_main_namespace {
            engine.registry.of("/");
        }
        Io { engine, mount, link: link.map(Arc::new) }
    }
}

/// The prefix under which requests are taken (`path` and `addTrailingSlash` of the reference).
fn mount_path(config: &Config) -> String {
    let path = config.public.path.trim_end_matches('/');
    if config.public.add_trailing_slash { format!("{path}/") } else { path.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_path_ends_as_configured() {
        let path = |path: &str, slash| {
            let mut config = Config::default();
            config.public.path = path.to_owned();
            config.public.add_trailing_slash = slash;
            mount_path(&config)
        };
        assert_eq!(path("/socket.io", true), "/socket.io/");
        assert_eq!(path("/socket.io/", true), "/socket.io/");
        assert_eq!(path("/socket.io/", false), "/socket.io");
    }
}

#[cfg(test)]
#[path = "io_foreign_tests.rs"]
mod foreign_tests;
