//! The adapter: what a namespace calls.
//!
//! One adapter per namespace and node. [`LocalAdapter`](crate::LocalAdapter) is the memory adapter;
//! [`ClusterAdapter`](crate::cluster::ClusterAdapter) adds the other nodes over a [`Bus`](crate::cluster::Bus).
//! A property of one adapter is a property of all: the conformance suite holds it, or it does not exist.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::{BoxFuture, FutureExt as _, ready};
use roomcast_protocol::socketio::{AckId, Args};
use serde::{Deserialize, Serialize};

use crate::host::{DrainError, DrainOrder, Drains, Host, Standing};
use crate::id::{NodeTag, SocketId};
use crate::mailbox::{Mailbox, Outgoing};
use crate::once::{Once, OnceKey};
use crate::presence::{PresenceEvent, RoomCount, RoomPage};
use crate::reach::Reach;
use crate::selector::{Room, Selector};
use crate::tap::Tap;
use crate::trace::TraceContext;

/// Why an adapter could not do what it was asked to do in the whole cluster. What concerns this node was done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
#[non_exhaustive]
pub enum AdapterError {
    /// The broker is away, or the bounded queue to it is full.
    #[error("the broker is unavailable: only sockets of this node were reached")]
    BrokerUnavailable,
    /// The message is larger than the broker takes.
    #[error("the message is larger than the broker takes")]
    TooLarge,
    /// Too many requests wait for the other nodes already.
    #[error("too many requests wait for the other nodes: only this one was reached")]
    Overloaded,
}

impl AdapterError {
    /// The stable code, as the HTTP API gives it.
    pub fn code(&self) -> &'static str {
        match self {
            Self::BrokerUnavailable => "broker_unavailable",
            Self::TooLarge => "payload_too_large",
            Self::Overloaded => "overloaded",
        }
    }
}

/// A socket as the adapter sees it.
#[derive(Clone)]
pub struct LocalSocket {
    /// Its id, which is also the name of a room of its own.
    pub id: SocketId,
    /// Where its packets go.
    pub mailbox: Arc<Mailbox>,
    /// Answers what others ask about it.
    pub describe: Arc<dyn Describe>,
}

/// Tells other nodes about a socket.
pub trait Describe: Send + Sync {
    /// The handshake object, in the shape of Socket.IO.
    fn handshake(&self) -> serde_json::Value;
    /// The data attached to the socket, `{}` when there is none.
    fn data(&self) -> serde_json::Value;
}

/// A socket of any node, as `fetch_sockets` gives it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RemoteSocket {
    /// Its id.
    pub id: SocketId,
    /// Its handshake object.
    pub handshake: serde_json::Value,
    /// Its rooms, its id among them.
    pub rooms: Vec<Room>,
    /// The data attached to it.
    pub data: serde_json::Value,
}

/// An answer that was collected from the nodes of the cluster. A node that did not answer in time, or died, is named;
/// it is never an error that hides what the others said.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Collected<T> {
    /// What the nodes said that answered.
    pub value: T,
    /// The nodes that did not.
    pub missing: Vec<NodeTag>,
}

/// One thing that happens while acks are awaited.
#[derive(Debug, Clone, PartialEq)]
pub enum AckEvent {
    /// These sockets of one node were asked.
    Asked(Vec<SocketId>),
    /// A socket answered.
    Ack(SocketId, Args),
    /// A socket left before it answered.
    Gone(SocketId),
    /// A node died, or did not say in time whom it asked.
    LostNode(NodeTag),
}

/// The acks of an emit, summed up when all have come or the time is over.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct AckReport {
    /// The answers, in the order in which they came.
    pub acks: Vec<(SocketId, Args)>,
    /// The number of sockets that were asked.
    pub expected: usize,
    /// The sockets that were asked and did not answer.
    pub timed_out: Vec<SocketId>,
    /// The nodes that died or did not answer.
    pub lost_nodes: Vec<NodeTag>,
}

/// A bounded stream of [`AckEvent`]s that ends when every ack has come or at the deadline.
pub type AckStream = futures_util::stream::BoxStream<'static, AckEvent>;

/// Answers a server-side emit that asked for an ack. The first call counts.
pub type ServerReply = Box<dyn FnOnce(Args) + Send>;

/// The namespace's side of an adapter: what other nodes ask of it.
pub trait NamespaceEvents: Send + Sync {
    /// Another server emitted this with `server_side_emit`. `reply` is there when it wants an ack.
    fn server_side_event(&self, name: &str, args: Args, reply: Option<ServerReply>);
}

/// Rooms and fan-out of one namespace. Object-safe: which adapter it is, is a choice at run time.
///
/// What changes or reaches local sockets is done when a method returns, without waiting for the broker. What is
/// returned as a future is about the rest of the cluster.
pub trait Adapter: Send + Sync + 'static {
    /// A socket joined the namespace: it is from now on in the room of its id.
    fn add(&self, socket: LocalSocket);

    /// A socket left the namespace: it leaves all its rooms, which are returned, and the acks that it owes end.
    fn remove(&self, id: SocketId) -> Vec<Room>;

    /// A local socket joins rooms; `false` if it is not here. The future is ready once the subscriptions stand: what
    /// any node emits to the rooms after that arrives.
    fn join(&self, id: SocketId, rooms: &[Room]) -> BoxFuture<'static, Result<bool, AdapterError>>;

    /// A local socket leaves a room.
    fn leave(&self, id: SocketId, room: &str);

    /// The rooms of a local socket, its id first; empty if it is not here.
    fn rooms_of(&self, id: SocketId) -> Vec<Room>;

    /// True if a local socket is in the room.
    fn is_member(&self, id: SocketId, room: &str) -> bool;

    /// Local sockets of the namespace.
    fn local_count(&self) -> usize;

    /// Rooms with local members, those of single sockets not counted.
    fn local_room_count(&self) -> usize;

    /// Emits to a selector: at once to this node's sockets, and through the broker to the others'. An error says that
    /// only this node was reached.
    fn broadcast(&self, selector: &Selector, outgoing: &Arc<Outgoing>) -> Result<(), AdapterError>;

    /// Like `broadcast`, and the future is ready when the broker has taken the message (at once when no broker is
    /// needed).
    fn broadcast_confirmed(
        &self,
        selector: &Selector,
        outgoing: &Arc<Outgoing>,
    ) -> BoxFuture<'static, Result<(), AdapterError>>;

    /// Emits an event to a selector and collects acks until all have come or `timeout` is over. `trace` is what the emit is a
    /// part of.
    fn broadcast_with_ack(
        &self,
        selector: &Selector,
        name: &str,
        args: &Args,
        timeout: Duration,
        trace: Option<TraceContext>,
    ) -> AckStream;

    /// An ack came from a local socket. An unknown id is ignored, as in the reference.
    fn ack(&self, id: SocketId, ack: AckId, args: Args);

    /// True while somebody waits for an ack of a local socket.
    fn owes_acks(&self, id: SocketId) -> bool;

    /// The sockets that a selector means, in the whole cluster.
    fn fetch_sockets(&self, selector: &Selector) -> BoxFuture<'static, Collected<Vec<RemoteSocket>>>;

    /// The number of sockets that a selector means, in the whole cluster.
    fn count_sockets(&self, selector: &Selector) -> BoxFuture<'static, Collected<usize>>;

    /// The number of sockets in a room, in the whole cluster, as the node knows that keeps its count: nobody else is
    /// asked. What a node did a moment ago may be missing; `age` says how long that is.
    fn room_count(&self, room: &str) -> BoxFuture<'static, RoomCount>;

    /// The first rooms behind `after` that have sockets in the whole cluster, in the order of their names, those of single
    /// sockets not counted. What a node did a moment ago may be missing, as may rooms whose names are longer than 4 KiB.
    fn rooms(&self, after: Option<&str>, limit: usize) -> BoxFuture<'static, RoomPage>;

    /// The first sockets of a room behind `after`, in the whole cluster and in the order of their ids.
    fn room_sockets(
        &self,
        room: &str,
        after: Option<SocketId>,
        limit: usize,
    ) -> BoxFuture<'static, Collected<Vec<RemoteSocket>>>;

    /// Makes sockets join rooms. Ready when every node has confirmed that the subscriptions stand: what is emitted to
    /// the rooms after that arrives.
    fn sockets_join(
        &self,
        selector: &Selector,
        rooms: &[Room],
    ) -> BoxFuture<'static, Result<Collected<()>, AdapterError>>;

    /// Makes sockets leave rooms. Ready when every node has done it.
    fn sockets_leave(
        &self,
        selector: &Selector,
        rooms: &[Room],
    ) -> BoxFuture<'static, Result<Collected<()>, AdapterError>>;

    /// Disconnects sockets from the namespace; with `close`, ends their connections. Ready when every node has begun.
    fn disconnect_sockets(
        &self,
        selector: &Selector,
        close: bool,
    ) -> BoxFuture<'static, Result<Collected<()>, AdapterError>>;

    /// Emits an event to the other servers of the cluster, not to this one.
    fn server_side_emit(&self, name: &str, args: &Args) -> Result<(), AdapterError>;

    /// Emits to the other servers and collects one answer each, within `timeout`.
    fn server_side_emit_with_ack(
        &self,
        name: &str,
        args: &Args,
        timeout: Duration,
    ) -> BoxFuture<'static, Collected<Vec<Args>>>;
}

/// Makes the adapters of a node's namespaces, and stands for the node in the cluster.
pub trait AdapterFactory: Send + Sync + 'static {
    /// This node's tag: ids that this node gives out begin with it.
    fn node(&self) -> NodeTag;

    /// The adapter of a namespace, made once. `events` gets what other nodes send to the namespace.
    fn namespace(&self, name: &str, events: Arc<dyn NamespaceEvents>) -> Arc<dyn Adapter>;

    /// Whether emits reach the whole cluster now. The receiver changes with it.
    fn status(&self) -> tokio::sync::watch::Receiver<Status>;

    /// The live nodes, this one among them.
    fn nodes(&self) -> Vec<NodeTag>;

    /// The live nodes with what they last said of themselves, this one among them, in the order of their tags.
    fn node_infos(&self) -> Vec<NodeInfo>;

    /// What happens to rooms and sockets in the whole cluster, of which this node has to tell. Every node has to listen,
    /// for each tells of its part. What is not taken in time is dropped and counted. A later listener takes the place of
    /// an earlier one. A node that is alone tells of rooms only: it dies with its sockets.
    fn presence(&self) -> tokio::sync::mpsc::Receiver<PresenceEvent>;

    /// The node ends, and its sockets are gone: what is left for it to tell comes now, without a wait, and then the receiver of
    /// [`Self::presence`] ends. In a cluster the other nodes tell what would have come later, unless all of them drain, too.
    fn end_presence(&self);

    /// Where one can look at what goes through this node.
    fn tap(&self) -> &Arc<Tap>;

    /// Asks whether a call is new in the whole cluster. If so it is in hand until [`First`](crate::First) is done or
    /// dropped. An error says that nobody could tell: nothing was done.
    fn once(&self, key: OnceKey) -> BoxFuture<'static, Result<Once, AdapterError>>;

    /// Tells the other nodes where this one is reached past the broker, from now on. Ready when those that are there have
    /// had the time to say the same of themselves. A node that is alone tells nobody.
    fn announce_reach(&self, reach: Reach) -> BoxFuture<'static, ()> {
        let _ = reach;
        ready(()).boxed()
    }

    /// Where another node is reached past the broker, if it said so and is not gone for good.
    fn reach_of(&self, node: NodeTag) -> Option<Reach> {
        let _ = node;
        None
    }

    /// Makes the process behind this node known: it says how it is with every heartbeat, and may be told to drain. It is
    /// held weakly. A later one takes the place of an earlier one.
    fn set_host(&self, host: &Arc<dyn Host>);

    /// Tells a live node to drain, this one or another.
    fn drain(&self, node: NodeTag, order: DrainOrder) -> BoxFuture<'static, Result<Drains, DrainError>>;

    /// Leaves the cluster: says goodbye to the others and lets the broker's connections go.
    fn shutdown(&self) -> BoxFuture<'static, ()>;
}

/// A live node, as it described itself with its last sign of life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NodeInfo {
    /// Its tag.
    pub tag: NodeTag,
    /// Its sockets, over all namespaces. Unknown of a node of an older version.
    pub sockets: Option<u64>,
    /// The rooms with members on it, over all namespaces. Unknown of a node of an older version.
    pub rooms: Option<u64>,
    /// How the process behind it is. Unknown of a node of an older version, and of one without a process of its own.
    pub standing: Option<Standing>,
    /// How old this is.
    pub age: Duration,
}

/// Whether a node is one with its cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Status {
    /// The broker is there, all subscriptions stand, and the members are known. Always so on the memory adapter.
    Ready,
    /// Not yet, or no more.
    Unavailable,
}
