//! What the simulated broker carries, counted by what the messages say.
//!
//! Owns the numbers only. Whether anybody counts is the network's matter: decoding every message costs time.

use std::collections::BTreeMap;

use bytes::Bytes;

use crate::cluster::directory::Entry;
use crate::cluster::message::Message;
use crate::cluster::wire;

/// What a message is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// A node lives.
    Heartbeat,
    /// How it is, beside each heartbeat.
    Vitals,
    /// Where it is reached past the broker, beside each heartbeat.
    Reach,
    /// What a node has of the directory, told to an owner.
    Update,
    /// An emit.
    Broadcast,
    /// A question to all nodes.
    Request,
    /// An answer to one.
    Response,
    /// Anything else.
    Other,
}

impl Kind {
    fn of(message: &Message) -> Self {
        match message {
            Message::Heartbeat => Self::Heartbeat,
            Message::Vitals(_) => Self::Vitals,
            Message::Reach(_) => Self::Reach,
            Message::Update(_) => Self::Update,
            Message::Broadcast(_) => Self::Broadcast,
            Message::Request { .. } => Self::Request,
            Message::Response { .. } => Self::Response,
            _ => Self::Other,
        }
    }
}

/// Messages of one kind.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Carried {
    /// Those that the broker took.
    pub published: u64,
    /// Their bytes, without the names of subjects.
    pub bytes: u64,
    /// Those that it sent to each node, the sender among them.
    pub delivered: Vec<u64>,
}

/// Everything that the broker did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Traffic {
    kinds: BTreeMap<Kind, Carried>,
    /// Subjects that were subscribed.
    pub subscribed: u64,
    /// Subjects that were let go.
    pub unsubscribed: u64,
    /// Sockets and rooms in updates: what nodes say of what they have themselves.
    pub entries: u64,
    /// Rooms in updates that were said to be occupied, or vacated.
    pub announcements: u64,
}

impl Traffic {
    /// What was carried of one kind.
    pub fn of(&self, kind: Kind) -> Carried {
        self.kinds.get(&kind).cloned().unwrap_or_default()
    }

    /// The broker took a message and sent it to these nodes.
    pub(super) fn count(&mut self, payload: &Bytes, to: &[usize]) {
        let message = wire::decode(payload.clone()).map(|envelope| envelope.message);
        if let Ok(Message::Update(update)) = &message {
            for entry in update.parts.iter().flat_map(|part| &part.entries) {
                match entry {
                    Entry::Count { .. } | Entry::Socket { .. } => self.entries += 1,
                    Entry::Announced { .. } => self.announcements += 1,
                    Entry::KeptCount { .. } | Entry::KeptSocket { .. } => {}
                }
            }
        }
        let kind = message.map_or(Kind::Other, |message| Kind::of(&message));
        let carried = self.kinds.entry(kind).or_default();
        carried.published += 1;
        carried.bytes += payload.len() as u64;
        let nodes = to.iter().map(|node| node + 1).max().unwrap_or_default();
        if carried.delivered.len() < nodes {
            carried.delivered.resize(nodes, 0);
        }
        to.iter().for_each(|node| carried.delivered[*node] += 1);
    }
}

impl Carried {
    /// Those that it sent to all nodes together.
    pub fn delivered(&self) -> u64 {
        self.delivered.iter().sum()
    }
}
