//! What all connections of a node have in common.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use roomcast_adapter::{AdapterFactory, Mailbox, MailboxLimits};
use roomcast_protocol::engineio::{SessionConfig, Transport};
use roomcast_protocol::socketio::ClientLimits;
use roomcast_protocol::websocket::DeflateConfig;

use super::farewell::Lingering;
use super::sessions::Sessions;
use super::wheel::Wheel;
use super::{Admission, ConnectionShared, EngineHandler, Limits, Place, SessionId};
use crate::config::{self, Config};
use crate::metrics::Metrics;
use crate::namespace::{Handshake, Registry};

/// Settings, tables and counters, shared by every connection.
pub(crate) struct Engine {
    pub(crate) session: Arc<SessionConfig>,
    pub(crate) client_limits: ClientLimits,
    pub(crate) connect_timeout: Duration,
    pub(crate) max_pending_handlers: usize,
    pub(crate) max_fragments: u32,
    pub(crate) deflate: Option<DeflateConfig>,
    mailbox_limits: MailboxLimits,
    pub(crate) config: Config,
    pub(crate) registry: Registry,
    pub(crate) sessions: Sessions,
    pub(crate) limits: Limits,
    pub(crate) admission: Admission,
    pub(crate) metrics: Arc<Metrics>,
    /// Set for a server that speaks Engine.IO only.
    pub(crate) raw: Option<Arc<dyn EngineHandler>>,
    /// In milliseconds; it may change.
    grace: AtomicU64,
    /// No new session is taken.
    pub(super) closing: AtomicBool,
    pub(super) lingering: Lingering,
    pub(super) wheel: Arc<Wheel>,
}

impl Engine {
    pub(crate) fn new(
        config: Config,
        factory: Arc<dyn AdapterFactory>,
        metrics: Arc<Metrics>,
        raw: Option<Arc<dyn EngineHandler>>,
    ) -> Arc<Self> {
        let engine = &config.engine;
        let session = SessionConfig {
            ping_interval: engine.ping_interval,
            ping_timeout: engine.ping_timeout,
            upgrade_timeout: engine.upgrade_timeout,
            polling_close_timeout: engine.polling_close_timeout,
            max_payload: engine.max_payload,
            allow_upgrades: engine.allow_upgrades,
            transports: engine.transports.iter().copied().map(protocol_transport).collect(),
        };
        let client_limits = ClientLimits {
            max_attachments: engine.max_attachments,
            max_attachment_bytes: engine.max_attachments.saturating_mul(engine.max_payload),
            max_namespaces: engine.max_namespaces_per_connection,
            ..ClientLimits::default()
        };
        let deflate = engine.per_message_deflate.enabled.then(|| DeflateConfig {
            threshold: engine.per_message_deflate.threshold,
            level: u32::from(engine.per_message_deflate.level),
            ..DeflateConfig::default()
        });
        Arc::new(Self {
            session: Arc::new(session),
            client_limits,
            connect_timeout: engine.connect_timeout,
            max_pending_handlers: engine.max_pending_handlers,
            max_fragments: engine.max_fragments,
            deflate,
            mailbox_limits: MailboxLimits {
                max_items: config.mailbox.max_items,
                max_bytes: config.mailbox.max_bytes,
            },
            registry: Registry::new(factory, Arc::clone(&metrics), engine.max_rooms_per_socket),
            sessions: Sessions::new(),
            limits: Limits::new(config.limits.clone()),
            admission: Admission::new(config.admission.clone()),
            metrics,
            raw,
            grace: AtomicU64::new(millis(config.drain.grace)),
            closing: AtomicBool::new(false),
            lingering: Lingering::default(),
            wheel: Wheel::new(),
            config,
        })
    }

    /// The shared half of a new connection.
    pub(crate) fn shared(
        &self,
        handshake: Handshake,
        transport: Transport,
        place: Option<Place>,
    ) -> Arc<ConnectionShared> {
        let id = SessionId::generate(self.registry.factory().node());
        ConnectionShared::new(id, Mailbox::new(self.mailbox_limits), handshake, transport, place)
    }

    /// How long a connection that was told to go may wait for what is under way.
    pub(crate) fn grace(&self) -> Duration {
        Duration::from_millis(self.grace.load(Ordering::Relaxed))
    }

    pub(crate) fn set_grace(&self, grace: Duration) {
        self.grace.store(millis(grace), Ordering::Relaxed);
    }

    pub(crate) fn is_closing(&self) -> bool {
        self.closing.load(Ordering::Relaxed)
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

pub(crate) fn protocol_transport(transport: config::Transport) -> Transport {
    match transport {
        config::Transport::Polling => Transport::Polling,
        config::Transport::Websocket => Transport::WebSocket,
    }
}

pub(crate) fn metrics_transport(transport: Transport) -> config::Transport {
    match transport {
        Transport::Polling => config::Transport::Polling,
        Transport::WebSocket => config::Transport::Websocket,
    }
}
