//! What nodes tell each other about rooms and sockets. Owns the meaning; the bytes are in `wire_directory.rs`.

use std::sync::Arc;
use std::time::Duration;

use super::ring::Slot;
use crate::cluster::message::Identity;
use crate::id::{NodeTag, SocketId};
use crate::selector::Room;

/// One message of the stream from a node to an owner.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Update {
    /// The stream. A later one takes the place of an earlier one, and begins with everything.
    pub(crate) session: u64,
    /// Counts up from 0 in the session, so that the owner notices what got lost.
    pub(crate) number: u64,
    /// With this the owner has everything that it has to have of the sender while the ring is this one. 0: not yet.
    pub(crate) ring: u64,
    /// The sender's number of occupations, see `Announced`.
    pub(crate) clock: u64,
    /// What the sender said of these slots is void; it says it anew.
    pub(crate) reset: Vec<Slot>,
    /// What was announced in these slots up to the number `handover`, the sender knows best; it follows.
    pub(crate) authority: Vec<Slot>,
    pub(crate) handover: u64,
    /// How far the sender has taken the stream that comes the other way: its session, and the number of the next update.
    pub(crate) taken: (u64, u64),
    pub(crate) parts: Vec<Part>,
}

impl Update {
    /// The highest number of an occupation in it.
    pub(crate) fn latest(&self) -> u64 {
        let numbers = self.parts.iter().flat_map(|part| &part.entries).filter_map(|entry| match entry {
            Entry::Announced { announced, .. } => Some(announced.number),
            _ => None,
        });
        numbers.chain([self.clock, self.handover]).max().unwrap_or_default()
    }

    /// Bytes on the wire, about.
    pub(crate) fn size(&self) -> usize {
        let entries = self.parts.iter().flat_map(|part| &part.entries);
        96 + 2 * (self.reset.len() + self.authority.len()) + entries.map(Entry::size).sum::<usize>()
    }
}

/// What concerns one namespace.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Part {
    pub(crate) namespace: Arc<str>,
    pub(crate) entries: Vec<Entry>,
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Entry {
    /// So many sockets of the sender have joined a room.
    Count {
        room: Room,
        sockets: u32,
    },
    /// A socket of the sender is there, or is not.
    Socket {
        id: SocketId,
        here: bool,
    },
    /// What was announced of a room last. `fresh` when that was just now.
    Announced {
        room: Room,
        announced: Announced,
        fresh: bool,
    },
    /// What a silent node had said to the sender.
    KeptCount {
        of: Identity,
        room: Room,
        sockets: u32,
    },
    KeptSocket {
        of: Identity,
        id: SocketId,
    },
}

impl Entry {
    /// Bytes on the wire, about.
    pub(crate) fn size(&self) -> usize {
        match self {
            Self::Count { room, .. } => room.len() + 9,
            Self::Socket { .. } => SocketId::LEN + 2,
            Self::Announced { room, .. } => room.len() + 15,
            Self::KeptCount { room, .. } => room.len() + 21,
            Self::KeptSocket { .. } => SocketId::LEN + 13,
        }
    }
}

/// What was announced of a room last, to whoever listens to presence.
///
/// The numbers are a Lamport clock: an occupation gets one that is higher than all that its primary has heard of. So it
/// is another one each time, also when everything about the room had been forgotten between.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Announced {
    /// 0 when nothing was announced.
    pub(crate) number: u64,
    pub(crate) occupied: bool,
}

impl Announced {
    /// True if this was announced after the other.
    pub(crate) fn is_after(self, other: Self) -> bool {
        (self.number, !self.occupied) > (other.number, !other.occupied)
    }
}

/// A question to one node, or some.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Query {
    /// How many sockets are in a room? To an owner.
    Room { namespace: Arc<str>, room: Room },
    /// Which sockets of the node itself are in a room? The first in the order of their ids, behind `after`.
    Sockets { namespace: Arc<str>, room: Room, after: Option<SocketId>, limit: u32 },
    /// Which rooms does the node own that have sockets? The first in the order of their names, behind `after`.
    Rooms { namespace: Arc<str>, after: Option<Room>, limit: u32 },
}

/// A part of a page of rooms, as an owner knows it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Listed {
    pub(crate) rooms: Vec<(Room, u64)>,
    pub(crate) age: Duration,
    /// The live nodes whose share may not be in it.
    pub(crate) missing: Vec<NodeTag>,
}

/// What an owner knows of a room.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Known {
    /// Without those of whoever asked.
    pub(crate) sockets: u64,
    pub(crate) age: Duration,
    /// The live nodes whose share may not be in it.
    pub(crate) missing: Vec<NodeTag>,
}
