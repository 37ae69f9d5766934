//! What the namespaces of a node share about their clients: keys, sessions, revocations. Owns putting them together and
//! replacing them when the configuration changes.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use arc_swap::{ArcSwap, ArcSwapOption};
use roomcast_adapter::{AdapterFactory, NodeTag};

use super::member::Member;
use super::revocations::Revocations;
use super::sessions::Sessions;
use crate::auth::{KeyError, Verifier};
use crate::config::{Auth, Config};
use crate::metrics::{Metrics, SessionEnd, Source, SourceKind};
use crate::namespace::Socket;

/// The clients of a node.
pub(crate) struct Clients {
    /// None: every client is anonymous.
    verifier: ArcSwapOption<Verifier>,
    pub(super) settings: ArcSwap<Auth>,
    pub(super) sessions: Arc<Sessions>,
    revocations: Arc<Revocations>,
    pub(super) metrics: Arc<Metrics>,
    pub(super) factory: Arc<dyn AdapterFactory>,
    /// It was told that tokens live longer than revocations.
    pub(super) warned: AtomicBool,
}

impl Clients {
    /// Starts what looks after sessions and revocations, on the runtime that this is called on.
    pub(crate) fn start(
        config: &Config,
        factory: &Arc<dyn AdapterFactory>,
        metrics: &Arc<Metrics>,
    ) -> Result<Arc<Self>, KeyError> {
        let verifier = Verifier::new(&config.auth.jwt, None, metrics)?;
        let per_user = config.limits.sockets_per_user;
        let sessions = Sessions::new(config.auth.clone(), per_user, Arc::clone(metrics));
        tokio::spawn(Sessions::watch(Arc::downgrade(&sessions)));
        let revocations = Revocations::start(factory, &sessions, &config.auth);
        revocations.export(metrics);
        export_sessions(metrics, &sessions);
        Ok(Arc::new(Self {
            verifier: ArcSwapOption::from_pointee(verifier),
            settings: ArcSwap::from_pointee(config.auth.clone()),
            sessions,
            revocations,
            metrics: Arc::clone(metrics),
            factory: Arc::clone(factory),
            warned: AtomicBool::new(false),
        }))
    }

    /// Whether a node is in the cluster, as far as this one knows.
    pub(super) fn is_live(&self, node: NodeTag) -> bool {
        self.factory.node() == node || self.factory.nodes().contains(&node)
    }

    /// The tokens that were revoked.
    pub(crate) fn revocations(&self) -> &Arc<Revocations> {
        &self.revocations
    }

    /// Keys and limits of another configuration hold from now on. It was checked; if a key cannot be used all the same,
    /// nothing changes.
    pub(crate) fn reload(&self, config: &Config) {
        let before = self.verifier.load_full();
        let verifier = match Verifier::new(&config.auth.jwt, before.as_deref(), &self.metrics) {
            Ok(verifier) => verifier,
            Err(error) => {
                tracing::error!(%error, "the keys of tokens are not taken, and nothing changes");
                return;
            }
        };
        self.verifier.store(verifier.map(Arc::new));
        self.settings.store(config.auth.clone().into());
        self.sessions.reload(config.auth.clone(), config.limits.sockets_per_user);
        self.revocations.reload(&config.auth);
    }

    pub(super) fn verifier(&self) -> Option<Arc<Verifier>> {
        self.verifier.load_full()
    }

    /// The verifier, if this is the event by which sessions are extended.
    pub(super) fn refreshed_by(&self, event: &str) -> Option<Arc<Verifier>> {
        // The name first: every event of every client is asked.
        if event == self.settings.load().refresh_event { self.verifier() } else { None }
    }

    /// A known client has joined its namespace, or has another token.
    pub(super) fn enter(&self, socket: &Socket, member: &Member) {
        self.sessions.enter(socket, member);
        // Its token may have been revoked while it was on its way in.
        if self.revocations.has(member) {
            self.sessions.end(socket, SessionEnd::Revoked);
        }
    }

    /// A known client has left its namespace.
    pub(super) fn leave(&self, socket: &Socket) {
        self.sessions.leave(socket);
        // Somebody may keep the socket; its place among those of its user is free all the same.
        socket.remove::<Member>();
    }
}

fn export_sessions(metrics: &Metrics, sessions: &Arc<Sessions>) {
    let sessions = Arc::downgrade(sessions);
    let source = Source {
        kind: SourceKind::Gauge,
        name: "sessions",
        help: "Sockets of clients that have said who they are.",
        labels: &[],
        read: Box::new(move || sessions.upgrade().map_or(0.0, |sessions| sessions.len() as f64)),
    };
    if let Err(error) = metrics.register_source(source) {
        tracing::warn!(%error, "the number of sessions is not exported");
    }
}
