//! The door through which behaviour comes in: a namespace asks its handler, and knows nothing else.
//!
//! Embedded code, the built-in rooms and, later, webhooks and NATS routes are all handlers.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use roomcast_adapter::ServerReply;
use roomcast_protocol::socketio::Args;

use crate::namespace::{Event, Namespace, Socket};

/// A future that a handler waits for.
pub type BoxFuture<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// What a handler did: all of it, or it has to wait for something.
#[must_use]
pub enum Step<T> {
    /// Done in place.
    Done(T),
    /// Has to wait. It was polled once already.
    Wait(BoxFuture<T>),
}

impl<T> Step<T> {
    /// Starts a future: polls it once in place, so that handlers start in the order of their events, and keeps it only
    /// if it has to wait.
    pub fn start(future: impl Future<Output = T> + Send + 'static, cx: &mut Context<'_>) -> Self {
        let mut future: BoxFuture<T> = Box::pin(future);
        match future.as_mut().poll(cx) {
            Poll::Ready(value) => Self::Done(value),
            Poll::Pending => Self::Wait(future),
        }
    }
}

/// Why a client may not join a namespace, or an event is not let through.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// What the client reads in `connect_error`: `err.message`.
    pub message: String,
    /// What it reads in `err.data`, if anything.
    pub data: Option<serde_json::Value>,
}

impl Refusal {
    /// A refusal with a message only.
    pub fn new(message: impl Into<String>) -> Self {
        Self { message: message.into(), data: None }
    }

    /// Adds data for the client.
    #[must_use]
    pub fn with_data(mut self, data: impl serde::Serialize) -> Self {
        self.data = serde_json::to_value(data).ok();
        self
    }

    /// `{"message":…,"data":…}`, the payload of CONNECT_ERROR.
    pub(crate) fn to_json(&self) -> String {
        let mut object = serde_json::json!({ "message": self.message });
        if let Some(data) = &self.data {
            object["data"] = data.clone();
        }
        object.to_string()
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Refusal {}

impl From<&str> for Refusal {
    fn from(message: &str) -> Self {
        Self::new(message)
    }
}

impl From<String> for Refusal {
    fn from(message: String) -> Self {
        Self::new(message)
    }
}

/// Why a socket was disconnected, as the reference names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum DisconnectReason {
    /// "transport error": the transport failed, or the client broke its rules.
    TransportError,
    /// "transport close": the client went away.
    TransportClose,
    /// "forced close": the client broke the rules of Socket.IO.
    ForcedClose,
    /// "ping timeout": the client did not answer a heartbeat.
    PingTimeout,
    /// "parse error": the client sent what is no packet.
    ParseError,
    /// "server shutting down".
    ServerShuttingDown,
    /// "forced server close": the client joined no namespace in time.
    ForcedServerClose,
    /// "client namespace disconnect": `socket.disconnect()` at the client.
    ClientNamespaceDisconnect,
    /// "server namespace disconnect": `socket.disconnect()` here.
    ServerNamespaceDisconnect,
    /// "transport close" as well: the client read too slowly and its mailbox was full.
    SlowConsumer,
    /// "transport close" as well: the cluster took this node for dead, and its sockets with it.
    NodeFenced,
    /// "transport close" as well: the node had more than its share of the connections.
    Rebalanced,
}

impl DisconnectReason {
    /// Every reason.
    pub const ALL: [Self; 12] = [
        Self::TransportError,
        Self::TransportClose,
        Self::ForcedClose,
        Self::PingTimeout,
        Self::ParseError,
        Self::ServerShuttingDown,
        Self::ForcedServerClose,
        Self::ClientNamespaceDisconnect,
        Self::ServerNamespaceDisconnect,
        Self::SlowConsumer,
        Self::NodeFenced,
        Self::Rebalanced,
    ];

    /// The reason in Socket.IO's words.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::TransportError => "transport error",
            Self::TransportClose | Self::SlowConsumer | Self::NodeFenced | Self::Rebalanced => {
                "transport close"
            }
            Self::ForcedClose => "forced close",
            Self::PingTimeout => "ping timeout",
            Self::ParseError => "parse error",
            Self::ServerShuttingDown => "server shutting down",
            Self::ForcedServerClose => "forced server close",
            Self::ClientNamespaceDisconnect => "client namespace disconnect",
            Self::ServerNamespaceDisconnect => "server namespace disconnect",
        }
    }

    /// The reason as a metric label.
    pub fn code(self) -> &'static str {
        match self {
            Self::TransportError => "transport_error",
            Self::TransportClose => "transport_close",
            Self::ForcedClose => "forced_close",
            Self::PingTimeout => "ping_timeout",
            Self::ParseError => "parse_error",
            Self::ServerShuttingDown => "server_shutting_down",
            Self::ForcedServerClose => "forced_server_close",
            Self::ClientNamespaceDisconnect => "client_namespace_disconnect",
            Self::ServerNamespaceDisconnect => "server_namespace_disconnect",
            Self::SlowConsumer => "slow_consumer",
            Self::NodeFenced => "node_fenced",
            Self::Rebalanced => "rebalanced",
        }
    }
}

impl fmt::Display for DisconnectReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The behaviour of a namespace.
///
/// Methods run on the connection's own task and must not block; whatever waits returns [`Step::Wait`]. For one socket
/// they begin in the order of what happened, and events are not handed out before `connected` is done.
pub trait NamespaceHandler: Send + Sync + 'static {
    /// May this socket join? Runs before it is in any room. The reference's namespace middlewares.
    fn admit(&self, socket: &Socket, cx: &mut Context<'_>) -> Step<Result<(), Refusal>> {
        let _ = (socket, cx);
        Step::Done(Ok(()))
    }

    /// The socket has joined. The client is told when this is done, so rooms that are joined here stand before it knows.
    fn connected(&self, socket: &Socket, cx: &mut Context<'_>) -> Step<()> {
        let _ = (socket, cx);
        Step::Done(())
    }

    /// The client sent an event.
    fn event(&self, socket: &Socket, event: Event, cx: &mut Context<'_>) -> Step<()>;

    /// The socket is about to leave: it is still in its rooms.
    fn disconnecting(&self, socket: &Socket, reason: DisconnectReason, cx: &mut Context<'_>) -> Step<()> {
        let _ = (socket, reason, cx);
        Step::Done(())
    }

    /// The socket has left.
    fn disconnected(&self, socket: &Socket, reason: DisconnectReason, cx: &mut Context<'_>) -> Step<()> {
        let _ = (socket, reason, cx);
        Step::Done(())
    }

    /// Another server of the cluster emitted an event to the servers (`server_side_emit`). A reply that is dropped is
    /// an empty answer.
    fn server_event(&self, namespace: &Namespace, name: &str, args: Args, reply: Option<ServerReply>) {
        let _ = (namespace, name, args, reply);
    }
}

impl From<roomcast_protocol::engineio::CloseReason> for DisconnectReason {
    fn from(reason: roomcast_protocol::engineio::CloseReason) -> Self {
        use roomcast_protocol::engineio::CloseReason;
        match reason {
            CloseReason::TransportError => Self::TransportError,
            CloseReason::TransportClose => Self::TransportClose,
            CloseReason::ForcedClose => Self::ForcedClose,
            CloseReason::PingTimeout => Self::PingTimeout,
            CloseReason::ParseError => Self::ParseError,
        }
    }
}

impl From<DisconnectReason> for crate::metrics::CloseReason {
    fn from(reason: DisconnectReason) -> Self {
        match reason {
            DisconnectReason::TransportError => Self::TransportError,
            DisconnectReason::TransportClose => Self::TransportClose,
            DisconnectReason::ForcedClose => Self::ForcedClose,
            DisconnectReason::PingTimeout => Self::PingTimeout,
            DisconnectReason::ParseError => Self::ParseError,
            DisconnectReason::ServerShuttingDown => Self::ServerShuttingDown,
            DisconnectReason::ForcedServerClose => Self::ForcedServerClose,
            DisconnectReason::ClientNamespaceDisconnect => Self::ClientNamespaceDisconnect,
            DisconnectReason::ServerNamespaceDisconnect => Self::ServerNamespaceDisconnect,
            DisconnectReason::SlowConsumer => Self::SlowConsumer,
            DisconnectReason::NodeFenced => Self::NodeFenced,
            DisconnectReason::Rebalanced => Self::Rebalanced,
        }
    }
}
