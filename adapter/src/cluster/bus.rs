//! The bus: what the cluster needs of a broker, and nothing more.
//!
//! A driver moves bytes between subjects and keeps its connections up. What the subjects and bytes mean, what is
//! subscribed, what is queued and what is given up belongs to the cluster, once for every broker.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;

/// The name of a channel. Any text: a driver encodes it for its broker and adds the configured prefix.
pub type Subject = Arc<str>;

/// One message to publish.
#[derive(Debug, Clone)]
pub struct Publication {
    /// Where to.
    pub subject: Subject,
    /// What.
    pub payload: Bytes,
}

/// Why a bus did not do what it was asked to do.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BusError {
    /// The broker cannot be reached. The text says what the client library said.
    #[error("broker unreachable: {0}")]
    Unavailable(String),
    /// The broker answered with a refusal, such as a failed authentication.
    #[error("broker refused: {0}")]
    Refused(String),
    /// The URL or another setting is wrong.
    #[error("broker configuration: {0}")]
    Configuration(String),
}

impl BusError {
    /// A stable name for logs and metrics.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Unavailable(_) => "broker_unavailable",
            Self::Refused(_) => "broker_refused",
            Self::Configuration(_) => "broker_configuration",
        }
    }
}

/// Whether the broker is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum BusState {
    /// Connections stand. After `Down`, the cluster subscribes to everything again: a driver may have lost it all.
    Up,
    /// A connection is lost; the driver is reconnecting.
    Down,
}

/// How far the delivery of messages is behind their arrival.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Backlog {
    /// How long the message has waited on this node.
    pub waited: Duration,
    /// How much of what may wait does, from 0 to 1.
    pub fill: f64,
}

/// Receives what a bus brings. Called on a thread of the driver's own, in the order of arrival: it must not block, and
/// what it does per message is the node's fan-out.
pub trait BusSink: Send + Sync + 'static {
    /// A message came on a subscribed subject. The payload is untrusted.
    fn message(&self, subject: &str, payload: Bytes, backlog: Backlog);

    /// The broker went away or came back. Also called once when `Bus::start` has connected.
    fn state(&self, state: BusState);
}

/// A broker's publish and subscribe.
///
/// Order: what one bus publishes to a subject, in the order of the calls and within a batch, arrives in that order at
/// each bus that is subscribed. A bus that has one stream also keeps the order across subjects: of two publications to
/// different subjects the earlier one arrives first. One that spreads subjects over several servers does not, such as
/// Redis Cluster by sharded publish/subscribe. Nothing is delivered twice.
pub trait Bus: Send + Sync + 'static {
    /// Connects and begins to deliver to `sink`. A broker that cannot be reached at start-up is an error, within a
    /// bounded time. Afterwards the driver reconnects by itself, without end.
    fn start(&self, sink: Arc<dyn BusSink>) -> BoxFuture<'_, Result<(), BusError>>;

    /// Publishes a batch in order, pipelined. Ready when the broker has taken it. Fails at once while the broker is
    /// known to be away, and within a bounded time when it hangs; it does not queue for later.
    fn publish(&self, batch: Vec<Publication>) -> BoxFuture<'_, Result<(), BusError>>;

    /// Subscribes to subjects, in few round trips. Ready when the subscriptions stand: what anybody publishes after
    /// that arrives. To subscribe twice is harmless and does not deliver twice.
    fn subscribe(&self, subjects: Vec<Subject>) -> BoxFuture<'_, Result<(), BusError>>;

    /// Lets subjects go.
    fn unsubscribe(&self, subjects: Vec<Subject>) -> BoxFuture<'_, Result<(), BusError>>;

    /// The longest payload that the broker takes, in bytes.
    fn max_payload(&self) -> usize;

    /// A round trip to the broker.
    fn ping(&self) -> BoxFuture<'_, Result<(), BusError>>;

    /// Closes the connections. The bus is not used afterwards.
    fn close(&self) -> BoxFuture<'_, ()>;
}
