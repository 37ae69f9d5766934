//! Rooms, fan-out and the cluster of Roomcast.
//!
//! A namespace calls an [`Adapter`]; the adapter delivers to the [`Mailbox`]es of local connections and, in a cluster,
//! publishes on a [`Bus`](cluster::Bus). Nothing here knows a transport, a handler or an HTTP request.

mod ack_report;
mod adapter;
#[cfg(any(feature = "redis", feature = "nats"))]
mod broker;
pub mod cluster;
#[cfg(feature = "conformance")]
pub mod conformance;
mod counters;
mod host;
mod id;
mod local;
mod mailbox;
#[cfg(feature = "nats")]
pub mod nats;
mod once;
mod presence;
mod reach;
#[cfg(feature = "redis")]
pub mod redis;
mod selector;
mod tap;
mod trace;

pub use adapter::{
    AckEvent, AckReport, AckStream, Adapter, AdapterError, AdapterFactory, Collected, Describe, LocalSocket,
    NamespaceEvents, NodeInfo, RemoteSocket, ServerReply, Status,
};
#[cfg(any(feature = "redis", feature = "nats"))]
pub use broker::{LinkConfig, LinkStats, TlsFiles};
pub use counters::{Counter, Counters, Gauge};
pub use host::{DrainError, DrainOrder, Drains, Host, NodeState, Standing};
pub use id::{NodeTag, ParseIdError, SocketId};
pub use local::{LocalAdapter, LocalFactory};
pub use mailbox::{CloseCause, Item, Mailbox, MailboxLimits, Outgoing, Push};
pub use once::{First, MAX_ANSWER, Once, OnceKey, REMEMBERED};
pub use presence::{PresenceEvent, RoomCount, RoomPage};
pub use reach::{Reach, ReachKey};
pub use roomcast_protocol as protocol;
pub use selector::{Room, Selector, Target};
pub use tap::{Look, Sighted, Sighting, Tap};
pub use trace::TraceContext;
