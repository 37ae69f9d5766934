//! What nodes say to each other. Owns the meaning; the bytes are `wire`'s.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use roomcast_protocol::socketio::Args;

use super::directory::{Known, Listed, Query, Update};
use super::journey::Journey;
use crate::host::{DrainOrder, Drains, Standing};
use crate::id::{NodeTag, SocketId};
use crate::once::{OnceKey, Record, Verdict};
use crate::reach::Reach;
use crate::selector::{Room, Selector};
use crate::trace::TraceContext;

/// A life of a node. A tag that comes again with a later generation is another node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Identity {
    pub(crate) tag: NodeTag,
    pub(crate) generation: u64,
}

/// A message and who sent it.
#[derive(Debug, PartialEq)]
pub(crate) struct Envelope {
    pub(crate) from: Identity,
    pub(crate) message: Message,
}

#[derive(Debug, PartialEq)]
pub(crate) enum Message {
    /// A node wants to know who is there. Everybody answers with a heartbeat to it.
    Hello,
    /// The node lives.
    Heartbeat,
    /// The node leaves.
    Goodbye,
    /// How the node is; goes with a heartbeat. Comes back to its sender, too.
    Vitals(Vitals),
    /// To a node that was silent for longer than its lease: this life of it counts as over.
    Buried {
        generation: u64,
    },
    /// Nobody waits any more for the answers to a request of the sender's.
    Cancel {
        id: u64,
    },
    /// From now on the node listens so for rooms. Who publishes accordingly says `Heard`.
    Listens {
        number: u64,
        listening: Listening,
    },
    /// To a node that said `Listens`: what is published from now on goes where it listens.
    Heard {
        number: u64,
    },
    Broadcast(Broadcast),
    /// A server-side emit that wants no answer.
    ServerEvent {
        namespace: Arc<str>,
        name: Arc<str>,
        args: Args,
    },
    /// Every node answers to the sender's own subject.
    Request {
        id: u64,
        namespace: Arc<str>,
        op: Op,
    },
    /// `last` says that this node has no more to say, except for the acks.
    Response {
        id: u64,
        last: bool,
        answer: Answer,
    },
    /// What the sender has of what the receiver owns.
    Update(Update),
    /// Something of a stream of updates got lost: it has to begin anew.
    Resync {
        session: u64,
    },
    /// A question to one node, answered to the sender's own subject.
    Query {
        id: u64,
        query: Query,
    },
    /// Nothing, when the node is the wrong one to ask.
    Found {
        id: u64,
        known: Option<Known>,
    },
    /// May the sender carry this call out? Asks one who keeps it.
    Claim {
        id: u64,
        key: OnceKey,
    },
    /// The answer.
    Claimed {
        id: u64,
        verdict: Verdict,
    },
    /// What became of calls that the receiver keeps.
    Settled(Vec<Record>),
    /// Where the sender is reached past the broker.
    Reach(Reach),
    /// The receiver is to drain.
    Drain {
        id: u64,
        order: DrainOrder,
    },
    /// The answer.
    Draining {
        id: u64,
        drains: Drains,
    },
}

/// What a node says of itself with every heartbeat.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Vitals {
    /// The latest version of the wire format that the node understands.
    pub(crate) version: u8,
    /// When this was said, in a unit of the sender's own.
    pub(crate) said_at: u64,
    /// Sockets on the node, over all namespaces.
    pub(crate) sockets: u64,
    /// Rooms with members on the node, over all namespaces.
    pub(crate) rooms: u64,
    /// Where the node listens for rooms; nothing when it is of a build that knows only the rooms' own subjects.
    pub(crate) listening: Option<Listening>,
    /// How the process behind the node is; nothing when it does not say. Comes with `listening` only.
    pub(crate) standing: Option<Standing>,
}

/// Where a node listens for the rooms that have members on it. At least one of the two.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Listening {
    /// On the subject of each room.
    pub(crate) exact: bool,
    /// On the subjects of their buckets.
    pub(crate) hashed: bool,
    /// The number of buckets that the node knows.
    pub(crate) buckets: u32,
}

/// A packet for the sockets that a selector means.
#[derive(Debug, PartialEq)]
pub(crate) struct Broadcast {
    pub(crate) namespace: Arc<str>,
    /// Counts up from 1 on each sender: a node acts on the first copy. 0 when there is only one.
    pub(crate) id: u64,
    pub(crate) selector: Selector,
    pub(crate) volatile: bool,
    pub(crate) compress: bool,
    /// Nothing when a node is there, or the sender is one, that knows no ages.
    pub(crate) journey: Option<Journey>,
    /// `EncodedPacket::frames`, as they are.
    pub(crate) frames: Bytes,
}

#[derive(Debug, PartialEq)]
pub(crate) enum Op {
    Count(Selector),
    Fetch(Selector),
    Join(Selector, Vec<Room>),
    Leave(Selector, Vec<Room>),
    Disconnect(Selector, bool),
    ServerEvent {
        name: Arc<str>,
        args: Args,
    },
    /// The trace is told to nodes of version 4 only.
    Ask {
        selector: Selector,
        name: Arc<str>,
        args: Args,
        timeout: Duration,
        trace: Option<TraceContext>,
    },
}

#[derive(Debug, PartialEq)]
pub(crate) enum Answer {
    /// Done, or nothing to say.
    Nothing,
    Count(u64),
    /// Each a `RemoteSocket` as JSON.
    Sockets(Vec<Bytes>),
    /// The ack of a server-side emit.
    Reply(Args),
    /// These sockets were asked for an ack.
    Asked(Vec<SocketId>),
    /// Sockets answered, or left when there are no arguments.
    Settled(Vec<(SocketId, Option<Args>)>),
    /// What an owner knows of a room. Comes as `Message::Found`.
    Known(Known),
    /// Rooms that a node owns.
    Listed(Listed),
    /// What a keeper knows of a call. Comes as `Message::Claimed`.
    Verdict(Verdict),
    /// Comes as `Message::Draining`.
    Drains(Drains),
    /// The node could not do it.
    Refused,
}
