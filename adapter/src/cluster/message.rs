//! What nodes say to each other. Owns the meaning; the bytes are `wire`'s.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use roomcast_protocol::socketio::Args;

use crate::id::{NodeTag, SocketId};
use crate::selector::{Room, Selector};

/// A life of a node. A tag that comes again with a later generation is another node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
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
}

/// A packet for the sockets that a selector means.
#[derive(Debug, PartialEq)]
pub(crate) struct Broadcast {
    pub(crate) namespace: Arc<str>,
    /// Not 0 when the message is published to several subjects: a node acts on the first copy.
    pub(crate) id: u64,
    pub(crate) selector: Selector,
    pub(crate) volatile: bool,
    pub(crate) compress: bool,
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
    ServerEvent { name: Arc<str>, args: Args },
    Ask { selector: Selector, name: Arc<str>, args: Args, timeout: Duration },
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
    /// The node could not do it.
    Refused,
}
