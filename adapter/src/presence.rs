//! Counts of rooms, and what happens to rooms and sockets in the whole cluster. Owns the words only.

use std::sync::Arc;
use std::time::Duration;

use crate::adapter::Collected;
use crate::id::{NodeTag, SocketId};
use crate::selector::Room;

/// How many sockets of the whole cluster are in a room, as the node that keeps its count knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RoomCount {
    /// The sockets.
    pub sockets: usize,
    /// Every live node's share is in it, as of `age` ago.
    pub exact: bool,
    /// How long ago the node whose share is the oldest said that there was nothing newer.
    pub age: Duration,
    /// The live nodes whose share is not known to be in it.
    pub missing: Vec<NodeTag>,
}

/// A page of the rooms of a namespace, in the order of their names.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RoomPage {
    /// The rooms, with their sockets in the whole cluster.
    pub rooms: Vec<(Room, usize)>,
    /// Every live node's share is in it, as of `age` ago.
    pub exact: bool,
    /// How long ago the node whose share is the oldest said that there was nothing newer.
    pub age: Duration,
    /// The live nodes whose share, or whose part of the list, is not known to be in it.
    pub missing: Vec<NodeTag>,
}

impl From<Collected<usize>> for RoomCount {
    /// A count for which everybody was asked just now.
    fn from(counted: Collected<usize>) -> Self {
        let Collected { value: sockets, missing } = counted;
        Self { sockets, exact: missing.is_empty(), age: Duration::ZERO, missing }
    }
}

/// Something that happened in the cluster, told once by one of its nodes. When that node dies meanwhile another one may
/// tell it again, with the same id: at least once, and exactly one for each id.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum PresenceEvent {
    /// A room got its first member in the whole cluster.
    RoomOccupied {
        /// The namespace.
        namespace: Arc<str>,
        /// The room. Never that of a single socket.
        room: Room,
        /// Rises with every time that the room is occupied.
        number: u64,
    },
    /// A room has had no member for a while.
    RoomVacated {
        /// The namespace.
        namespace: Arc<str>,
        /// The room.
        room: Room,
        /// As when it was occupied.
        number: u64,
    },
    /// A socket is gone because its node is. What becomes of the sockets of a living node that node tells itself.
    SocketGone {
        /// The namespace.
        namespace: Arc<str>,
        /// The socket.
        socket: SocketId,
        /// The node.
        node: NodeTag,
    },
}

impl PresenceEvent {
    /// The same for every telling of one event, and of no other. A socket's is that of its one disconnection.
    pub fn id(&self) -> String {
        match self {
            Self::RoomOccupied { namespace, room, number } => {
                format!("occupied-{number}-{}-{namespace}{room}", namespace.len())
            }
            Self::RoomVacated { namespace, room, number } => {
                format!("vacated-{number}-{}-{namespace}{room}", namespace.len())
            }
            Self::SocketGone { namespace, socket, .. } => format!("disconnected-{socket}-{namespace}"),
        }
    }
}
