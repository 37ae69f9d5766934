//! What goes from the gateway to backends: the events of the contract, whoever carries them.
//!
//! Owns which backend is told or asked what, and what is done with a reply. How an event travels is the transport's
//! ([`Backend`]); who may do what is decided in `clients`.

mod act;
mod backends;
mod dead_letters;
mod event;
mod presence;
mod reply;
mod share;

use std::collections::HashMap;
use std::sync::{Arc, Weak};
use std::time::Duration;

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use roomcast_adapter::{AdapterFactory, TraceContext};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::calls::Calls;
use super::nats::NatsLink;
use crate::config::{self, Config};
use crate::handler::{BoxFuture, DisconnectReason};
use crate::metrics::Metrics;
use crate::namespace::{Event, Socket};
use crate::trace::{self, BACKEND, Tracer};

use self::backends::Backends;
use self::share::Checks;

pub use dead_letters::DeadLetters;
pub(crate) use dead_letters::{DeadLetter, Reason};
pub(crate) use event::{CloudEvent, Kind, trace_of};
pub(crate) use reply::{BackendError, Refusal, Reply};

/// A way to one backend service.
///
/// Events of one subject (a socket, a room) arrive in the order in which `call` and `notify` were called; the place of a
/// call in that order is taken when `call` is called, not when its future is polled. Different subjects do not wait for
/// each other. Both return at once, and what they queue is bounded.
pub(crate) trait Backend: Send + Sync + 'static {
    /// Asks, and waits for the reply, for as long as the configuration says at most.
    fn call(&self, event: CloudEvent) -> BoxFuture<Result<Reply, BackendError>>;

    /// Tells, at least once. What was taken and cannot be delivered goes to the dead letters. An error says that it was
    /// not taken.
    fn notify(&self, event: CloudEvent) -> Result<(), BackendError>;

    /// Goes by other settings from now on; what waits goes by them too. With an error nothing has changed.
    fn reload(&self, settings: &config::Backend) -> Result<(), SetupError>;

    /// Ready when everything that was taken is delivered, or there is no way to. Nothing more is taken.
    fn drain(&self) -> BoxFuture<()>;
}

/// Why a backend cannot be used as it is configured.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SetupError {
    /// Its certificates cannot be read.
    #[error("backend.{backend}: {error}")]
    Tls {
        /// The backend.
        backend: String,
        /// What is wrong.
        error: String,
    },
    /// This node has no way to it.
    #[error("backend.{0}: there is no NATS to reach it by")]
    NoNats(String),
}

impl SetupError {
    /// A stable name for logs.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Tls { .. } => "backend_tls",
            Self::NoNats(_) => "backend_no_nats",
        }
    }
}

/// Which backends are told what, and whether connects may share an answer.
#[derive(Default)]
struct Names {
    namespaces: HashMap<String, config::Namespace>,
    only: Option<String>,
    /// Backends with the headers that they want to see, and for how long their answers hold.
    connects: HashMap<String, (Vec<String>, Duration)>,
}

impl Names {
    fn of(config: &Config) -> Self {
        let namespaces = config.namespaces.iter().map(|one| (one.name.clone(), one.clone())).collect();
        let connects = config.backends.iter();
        let connects = connects.map(|(name, one)| (name.clone(), (one.headers.clone(), one.share_connects)));
        Self { namespaces, only: config.only_backend().map(str::to_owned), connects: connects.collect() }
    }
}

/// The adapter, and the task that takes what happens in the cluster from it.
type Watching = (Weak<dyn AdapterFactory>, JoinHandle<()>);

/// The events of one node.
pub(crate) struct Events {
    backends: Arc<Backends>,
    names: ArcSwap<Names>,
    calls: Arc<Calls>,
    checks: Checks,
    tracer: Tracer,
    watching: Mutex<Option<Watching>>,
}

/// What a backend said to a client that asks to be let in.
type Admission = Result<(), crate::Refusal>;

impl Events {
    /// Makes the backends of a configuration.
    pub(crate) fn new(
        config: &Config,
        calls: Arc<Calls>,
        nats: Option<NatsLink>,
        metrics: &Arc<Metrics>,
        dead_letters: &Arc<DeadLetters>,
    ) -> Result<Arc<Self>, SetupError> {
        let backends = Arc::new(Backends::new(nats, metrics, dead_letters));
        dead_letters.set_backends(&backends);
        backends.reload(&config.backends)?;
        let names = ArcSwap::from_pointee(Names::of(config));
        let tracer = calls.tracer().clone();
        Ok(Arc::new(Self {
            backends,
            names,
            calls,
            checks: Checks::default(),
            tracer,
            watching: Mutex::default(),
        }))
    }

    /// Goes by another configuration. When a backend cannot be used as it says, none changes, and the log says why.
    pub(crate) fn reload(&self, config: &Config) {
        match self.backends.reload(&config.backends) {
            Ok(()) => self.names.store(Arc::new(Names::of(config))),
            Err(error) => tracing::error!(%error, code = error.code(), "the backends stay as they were"),
        }
    }

    /// Asks the backend of the namespace, if it has one, whether a client is let in. What the reply says is done.
    pub(crate) async fn connect(
        self: Arc<Self>,
        backend: String,
        socket: Socket,
        trace: Option<TraceContext>,
    ) -> Admission {
        let names = self.names.load_full();
        let (headers, share) = names.connects.get(&backend).cloned().unwrap_or_default();
        let asking = event::Asking::of(&socket, &headers);
        let key = (!share.is_zero()).then(|| share::key(&backend, &socket, &asking));
        let ask = || self.ask(&backend, trace, |trace| CloudEvent::connect(&socket, asking, trace));
        let reply = match key {
            Some(key) => self.checks.ask(key, share, Instant::now(), ask).await,
            None => ask().await.map(Arc::new),
        };
        match reply {
            Ok(reply) => self.admit(&socket, &reply, trace).await,
            Err(error) => Err(act::refusal(&error)),
        }
    }

    /// A socket is in its namespace.
    pub(crate) fn connected(&self, rules: &config::Namespace, socket: &Socket) {
        if let Some(backend) = &rules.connected {
            self.tell(backend, CloudEvent::connected(socket, self.handshake_trace(socket)));
        }
    }

    /// A socket is about to leave.
    pub(crate) fn disconnected(&self, rules: &config::Namespace, socket: &Socket, reason: DisconnectReason) {
        if let Some(backend) = &rules.disconnected {
            self.tell(backend, CloudEvent::disconnected(socket, reason, self.handshake_trace(socket)));
        }
    }

    /// Asks a backend whether a client may join a room. What the reply says is done; its ack, if it has one, is returned.
    pub(crate) async fn join(
        self: Arc<Self>,
        backend: String,
        socket: Socket,
        room: Arc<str>,
        trace: Option<TraceContext>,
    ) -> Result<Arc<Reply>, BackendError> {
        let reply = self.ask(&backend, trace, |trace| CloudEvent::join(&socket, &room, trace)).await?;
        self.act(&socket, &reply, trace).await;
        Ok(Arc::new(reply))
    }

    /// Asks a backend what to do with an event. What the reply says is done, and the client gets its ack.
    pub(crate) async fn call(
        self: Arc<Self>,
        backend: String,
        socket: Socket,
        event: Event,
        trace: Option<TraceContext>,
    ) {
        let wants_ack = event.ack.is_wanted();
        let of = |trace| CloudEvent::event(&socket, &event.name, &event.args, wants_ack, trace);
        match self.ask(&backend, trace, of).await {
            Ok(reply) => {
                // The ack goes out behind what the reply emits, and before the socket ends.
                let ending = self.act_but_end(&socket, &reply, trace).await;
                act::acknowledge(&event.ack, reply.ack.as_deref());
                act::end(&socket, ending);
            }
            Err(error) => {
                tracing::debug!(code = error.code(), backend, "a client's event was not answered");
                let _ = event.ack.refuse(error.code(), error.status());
            }
        }
    }

    /// Tells a backend of an event.
    pub(crate) fn notify(
        &self,
        backend: &str,
        socket: &Socket,
        event: &Event,
        trace: Option<TraceContext>,
    ) -> Result<(), BackendError> {
        let mut span =
            self.tracer.child(trace::Kind::Producer, "tell backend", trace).text(BACKEND, || backend);
        let wants_ack = event.ack.is_wanted();
        let of = CloudEvent::event(socket, &event.name, &event.args, wants_ack, span.context());
        let told =
            self.backends.get(backend).ok_or(BackendError::Unknown).and_then(|backend| backend.notify(of));
        told.inspect_err(|error| span.failed(error.kind()))
    }

    /// The trace that a client came with, as far as it is believed.
    fn handshake_trace(&self, socket: &Socket) -> Option<TraceContext> {
        trace_of(socket).and_then(|trace| self.tracer.of_client(trace))
    }

    /// What records traces.
    pub(crate) fn tracer(&self) -> &Tracer {
        &self.tracer
    }

    /// The backend that is meant where none is named.
    pub(crate) fn only(&self) -> Option<String> {
        self.names.load().only.clone()
    }

    /// Tells backends what happens in the cluster, until the adapter ends.
    pub(crate) fn watch(self: &Arc<Self>, factory: &Arc<dyn AdapterFactory>) {
        let task = tokio::spawn(presence::run(Arc::clone(self), factory.presence()));
        *self.watching.lock() = Some((Arc::downgrade(factory), task));
    }

    /// The node ends, and has no sockets any more. Waits until everything is delivered: also that their rooms are vacated.
    pub(crate) async fn drain(&self) {
        let watching = self.watching.lock().take();
        if let Some((factory, task)) = watching {
            if let Some(factory) = factory.upgrade() {
                factory.end_presence();
            }
            let _ = task.await;
        }
        self.backends.drain().await;
    }

    /// Asks a backend, as a part of a trace that it is told to go on with.
    fn ask(
        &self,
        name: &str,
        trace: Option<TraceContext>,
        event: impl FnOnce(Option<TraceContext>) -> CloudEvent,
    ) -> BoxFuture<Result<Reply, BackendError>> {
        let mut span = self.tracer.child(trace::Kind::Client, "ask backend", trace).text(BACKEND, || name);
        let reply = match self.backends.get(name) {
            Some(backend) => backend.call(event(span.context())),
            None => Box::pin(std::future::ready(Err(BackendError::Unknown))),
        };
        if !span.is_recording() {
            return reply;
        }
        Box::pin(async move { reply.await.inspect_err(|error| span.failed(error.kind())) })
    }

    /// Tells what nobody waits for. What is not taken is a dead letter, so that it can be told later.
    fn tell(&self, name: &str, event: CloudEvent) {
        let taken = match self.backends.get(name) {
            Some(backend) => backend.notify(event.clone()),
            None => Err(BackendError::Unknown),
        };
        if taken.is_err() {
            self.backends.bury(name, event);
        }
    }
}
