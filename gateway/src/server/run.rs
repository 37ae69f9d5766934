//! The life of the binary: what starts after what, and how it ends.
//!
//! A node takes clients last: its adapter stands, its API answers, and only then is it ready. It goes in the other order:
//! not ready first, no new clients, then the connections (`drain`), then the backends and the cluster.

use std::future::Future;
use std::net::SocketAddr;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use roomcast_adapter::cluster::BusError;
use roomcast_adapter::{AdapterFactory, Host};
use tokio::net::TcpListener;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;

use super::adapters::start_adapter;
use super::certificates;
use super::drain::{drain, with_grace};
use super::ingest::{connect_nats, start_ingest};
use super::lifecycle::{Lifecycle, Stop, signals};
use super::listener::{self, serve_api, serve_clients};
use super::logs::init_logs;
use super::namespaces::Namespaces;
use super::node::GatewayNode;
use super::observe::{export_mailboxes, export_runtime, watch_lag};
use super::outages::export_outages;
use super::peer::{Peers, PeersError};
use super::rebalance::rebalance;
use super::reload::{Target, apply, watch_sources};
use super::{Io, IoBuilder};
use crate::backend::calls::Calls;
use crate::backend::clients::Clients;
use crate::backend::events::Events;
use crate::backend::http_api::{self, Settings};
use crate::backend::{DeadLetters, Node, SetupError};
use crate::config::{AdapterKind, Config, Loaded, Sources};
use crate::metrics::{Listener, Metrics};
use crate::tls::TlsError;
use crate::trace::{self, TraceError};

/// Where the console's own sockets connect, on the api listener.
const CONSOLE_PATH: &str = "/console/socket.io/";

/// How long answers of the API that are under way may take at the end: a client that keeps its connection open must not keep
/// the node alive.
const API_TIMEOUT: Duration = Duration::from_secs(1);

/// How long the last spans may take to be sent.
const TRACE_TIMEOUT: Duration = Duration::from_secs(3);

/// How long all of what follows the clients and the backends may take, such as the goodbye to a broker that does not answer.
const GOODBYE_TIMEOUT: Duration = Duration::from_secs(5);

/// Why the gateway did not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RunError {
    /// A listener's address cannot be bound.
    #[error("cannot listen on {address} ({listener}.listen): {error}")]
    Listen {
        /// The section of the configuration.
        listener: &'static str,
        /// The address.
        address: SocketAddr,
        /// What the system says.
        error: std::io::Error,
    },
    /// The other nodes could not reach this one.
    #[error(transparent)]
    Peers(#[from] PeersError),
    /// The files of a listener's TLS cannot be used.
    #[error("{listener}.tls: {error}")]
    Tls {
        /// The section of the configuration.
        listener: &'static str,
        /// What is wrong with which file.
        error: TlsError,
    },
    /// A key of `auth.jwt` cannot be used.
    #[error("auth.jwt: {0}")]
    Keys(String),
    /// The broker cannot be reached, or refuses. There is no fall-back to memory.
    #[error("the {} adapter cannot start: {error}", kind.as_str())]
    Adapter {
        /// The kind of adapter.
        kind: AdapterKind,
        /// What is wrong.
        error: Box<dyn std::error::Error + Send + Sync>,
    },
    /// Traces cannot be sent as they are configured.
    #[error(transparent)]
    Trace(#[from] TraceError),
    /// A backend cannot be used as it is configured.
    #[error(transparent)]
    Backend(#[from] SetupError),
    /// The settings of a way in over a broker cannot be used.
    #[error("the section `ingest` cannot be used: {error}")]
    Ingest {
        /// What is wrong.
        error: Box<dyn std::error::Error + Send + Sync>,
    },
}

/// How a node that had started ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ended {
    /// All in good order.
    Drained,
    /// It was told to end at once.
    Cut,
}

/// Serves a configuration until SIGINT or SIGTERM, or until the API says that it is to drain: the binary's main job. Some of
/// it may change meanwhile ([`Reload`]), and a second signal ends it at once. Logs go to standard error.
///
/// [`Reload`]: crate::config::Reload
pub async fn serve_configured(loaded: Loaded, sources: Sources) -> ExitCode {
    let set_level = init_logs(&loaded.config);
    // First of all: the first process of a container hears no signal that it has not asked for.
    let stops = signals();
    tracing::info!("{}", crate::cli::summary(&loaded));
    let metrics = Arc::new(Metrics::new());
    let (current, changes) = watch::channel(Arc::new(loaded.config));
    tokio::spawn(watch_sources(sources, current, Arc::clone(&metrics)));
    match run_changing(changes, metrics, vec![set_level], stops).await {
        Ok(Ended::Drained) => ExitCode::SUCCESS,
        Ok(Ended::Cut) => {
            tracing::error!("ended at once: what was under way is lost");
            ExitCode::FAILURE
        }
        Err(error) => {
            tracing::error!(%error, "the gateway did not start");
            ExitCode::FAILURE
        }
    }
}

/// Runs a gateway until `shutdown` is ready, or the API says so. Then it drains as it is configured. Where there is TLS, its
/// files are looked at again meanwhile, also at SIGHUP.
pub async fn run(config: Config, shutdown: impl Future<Output = ()>) -> Result<(), RunError> {
    let (_, changes) = watch::channel(Arc::new(config));
    let (tell, stops) = mpsc::channel(1);
    let stop = async move {
        shutdown.await;
        let _ = tell.send(Stop::Terminate).await;
        std::future::pending::<()>().await;
    };
    tokio::select! {
        ended = run_changing(changes, Arc::new(Metrics::new()), Vec::new(), stops) => ended.map(drop),
        () = stop => Ok(()),
    }
}

/// Runs a gateway whose settings may change, until it is told to stop, from its start on. `targets` take them up beside the
/// gateway.
pub(super) async fn run_changing(
    changes: watch::Receiver<Arc<Config>>,
    metrics: Arc<Metrics>,
    targets: Vec<Target>,
    mut stops: mpsc::Receiver<Stop>,
) -> Result<Ended, RunError> {
    let lifecycle = Arc::new(Lifecycle::new(changes.clone()));
    // It is started once, and large: who awaits it need not hold all of it.
    let node = Box::pin(run_node(changes, metrics, targets, Arc::clone(&lifecycle)));
    tokio::select! {
        ended = node => ended,
        () = lifecycle.obey(&mut stops) => Ok(Ended::Cut),
    }
}

/// Starts a node and runs it until it has ended as `lifecycle` says.
async fn run_node(
    changes: watch::Receiver<Arc<Config>>,
    metrics: Arc<Metrics>,
    mut targets: Vec<Target>,
    lifecycle: Arc<Lifecycle>,
) -> Result<Ended, RunError> {
    let config = Arc::clone(&changes.borrow());
    let public_tls = certificates::load(Listener::Public, &config.public.tls, &metrics)?;
    let api_tls = certificates::load(Listener::Api, &config.api.tls, &metrics)?;
    let public = bind("public", config.public.listen)?;
    let api = bind("api", config.api.listen)?;
    let certificates = Background(certificates::watch_all([&public_tls, &api_tls], &changes, &metrics));
    let tracing = trace::start(&config.trace, &metrics)?;
    let tracer = tracing.tracer.clone();
    let starting = lifecycle.unless_ending(start_adapter(&config, &metrics, &tracer));
    let Some(factory) = starting.await.transpose()? else { return Ok(ended_early()) };
    export_outages(&metrics, factory.status());
    let clients =
        Clients::start(&config, &factory, &metrics).map_err(|error| RunError::Keys(error.to_string()))?;
    let peers = bind_peers(&config, &factory).await?;
    let io = Io::builder().config(Config::clone(&config)).adapter(Arc::clone(&factory)).metrics(metrics);
    let io = peers.into_iter().fold(io, IoBuilder::peers).only_configured_namespaces().build();
    let dead_letters = DeadLetters::new(io.metrics());
    export_runtime(io.metrics());
    export_mailboxes(io.metrics(), io.engine());
    let node = GatewayNode::new(
        io.clone(),
        config.adapter.kind,
        Arc::clone(&clients),
        Arc::clone(&lifecycle),
        Arc::clone(&dead_letters),
        tracer,
    );
    factory.set_host(&(Arc::clone(&node) as Arc<dyn Host>));
    let calls = Calls::new(Arc::clone(&node) as Arc<dyn Node>, config.engine.max_attachments);
    let calls = Arc::new(calls);
    let ingest_failed = |error: BusError| RunError::Ingest { error: error.into() };
    let connecting = lifecycle.unless_ending(connect_nats(&config, io.metrics()));
    let Some(nats) = connecting.await.transpose().map_err(ingest_failed)? else {
        factory.shutdown().await;
        return Ok(ended_early());
    };
    let events = Events::new(&config, Arc::clone(&calls), nats.clone(), io.metrics(), &dead_letters)?;
    events.watch(&factory);
    let namespaces = Namespaces::new(io.clone(), Arc::clone(&clients), Arc::clone(&events));
    namespaces.reload(&config);
    // Keys, limits and backends before the rules that go by them.
    let backends = Arc::clone(&events);
    targets.push(Box::new(move |config| backends.reload(config)));
    targets.push(Box::new({
        let node = Arc::clone(&node);
        move |config| node.reload(config)
    }));
    targets.push(Box::new(move |config| namespaces.reload(config)));
    // A token that was revoked before this node was there is not let in.
    clients.revocations().learn().await;
    let callers = http_api::Callers::new(&config.api, node.metrics());
    targets.push(Box::new({
        let callers = Arc::clone(&callers);
        move |config| callers.reload(&config.api)
    }));
    let routes = routes(&io, Arc::clone(&node) as Arc<dyn Node>, &config, callers);
    let background = Background(vec![
        tokio::spawn(apply(changes.clone(), targets)),
        tokio::spawn({
            let (full, io, changes) = (Arc::clone(node.full()), io.clone(), changes.clone());
            async move { full.watch(io, changes).await }
        }),
        tokio::spawn(watch_lag(Arc::clone(io.metrics()))),
        tokio::spawn(rebalance(io.clone(), Arc::clone(&node) as Arc<dyn Node>, changes)),
    ]);
    let (stop_api, api_stopped) = oneshot::channel::<()>();
    let api_address = api.local_addr().unwrap_or(config.api.listen);
    let api_task = tokio::spawn({
        let (config, metrics) = (Arc::clone(&config), Arc::clone(io.metrics()));
        async move {
            let stopped = async {
                let _ = api_stopped.await;
            };
            serve_api(routes, api, &config.api, api_tls, metrics, stopped).await;
        }
    });
    tracing::info!(
        public = %public.local_addr().unwrap_or(config.public.listen),
        api = %api_address,
        adapter = config.adapter.kind.as_str(),
        node = %factory.node(),
        "ready: {}://{api_address}/console shows what happens",
        config.api.tls.scheme()
    );
    let ingest = start_ingest(&config, &(Arc::clone(&node) as Arc<dyn Node>), &calls, nats);
    let ingest = ingest.map_err(ingest_failed)?;
    // The others know where to find the sessions of this node before it has any.
    io.serve_peers().await;
    node.set_serving();
    // While the clients go, the listeners go on: for the polls of those who are still there, and for who looks on.
    let (close_door, door_closed) = oneshot::channel::<()>();
    let accepting = serve_clients(io.clone(), public, public_tls, async {
        let _ = door_closed.await;
    });
    let end = async {
        let mut plans = lifecycle.plan();
        drain(&io, &mut plans).await;
        drop((close_door, background, certificates));
        let told = async {
            ingest.stop().await;
            events.drain().await;
        };
        if !with_grace(&mut plans, told).await {
            tracing::warn!("events for backends were not delivered before the end");
        }
        let goodbye = async {
            factory.shutdown().await;
            io.leave_peers();
            let _ = stop_api.send(());
            let _ = tokio::time::timeout(API_TIMEOUT, api_task).await;
            tracing.end(TRACE_TIMEOUT).await;
        };
        if tokio::time::timeout(GOODBYE_TIMEOUT, goodbye).await.is_err() {
            tracing::warn!("the end of the node was not told everywhere");
        }
        if lifecycle.is_cut() { Ended::Cut } else { Ended::Drained }
    };
    let ((), ended) = futures_util::future::join(accepting, end).await;
    Ok(ended)
}

/// Nobody was connected yet: there is nothing to wait for.
fn ended_early() -> Ended {
    tracing::info!("told to end before it had started");
    Ended::Drained
}

/// Tasks that end when this is dropped.
struct Background(Vec<JoinHandle<()>>);

impl Drop for Background {
    fn drop(&mut self) {
        self.0.iter().for_each(JoinHandle::abort);
    }
}

/// The API, with the console and its own way in for sockets.
fn routes(io: &Io, node: Arc<dyn Node>, config: &Config, callers: Arc<http_api::Callers>) -> axum::Router {
    let own_page = axum::middleware::from_fn_with_state(Arc::clone(&callers), http_api::own_page_only);
    let console = io.mounted_at(CONSOLE_PATH).router().layer(own_page);
    http_api::router(node, Settings::new(config, callers)).merge(console)
}

fn bind(listener: &'static str, address: SocketAddr) -> Result<TcpListener, RunError> {
    listener::bind(address).map_err(|error| RunError::Listen { listener, address, error })
}

/// The listener for the other nodes of a cluster. Without one a node serves, as long as clients stick to it: only an address
/// that somebody has chosen is worth not to start for.
async fn bind_peers(config: &Config, factory: &Arc<dyn AdapterFactory>) -> Result<Option<Peers>, PeersError> {
    if !config.peer.enabled || config.adapter.kind == AdapterKind::Memory {
        return Ok(None);
    }
    match Peers::bind(config, factory).await {
        Ok(peers) => Ok(Some(peers)),
        Err(error) if config.peer.listen.is_some() => Err(error),
        Err(error) => {
            tracing::warn!(%error, "other nodes do not reach this one: long-polling needs a load balancer that sticks");
            Ok(None)
        }
    }
}
