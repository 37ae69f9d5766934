//! Which sockets an operation means: a union of rooms minus a union of rooms.

use std::sync::Arc;

use crate::id::SocketId;

/// A room. Every socket is also in a room named by its id.
pub type Room = Arc<str>;

/// The sockets of one namespace that an operation reaches.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Selector {
    /// Who is meant.
    pub to: Target,
    /// Rooms whose members are left out.
    pub except: Vec<Room>,
    /// Only sockets of this node.
    pub local: bool,
}

/// The positive half of a selector. "All" is said, never implied by an empty list: a bug must not reach everybody.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// Every socket of the namespace.
    All,
    /// The members of any of these rooms, each once.
    Rooms(Vec<Room>),
    /// This socket and nobody else, where the room of its id may have been joined by others too.
    Socket(SocketId),
}

impl Selector {
    /// Every socket of the namespace.
    pub fn all() -> Self {
        Self { to: Target::All, except: Vec::new(), local: false }
    }

    /// One socket of this node.
    pub fn local_socket(id: SocketId) -> Self {
        Self { to: Target::Socket(id), except: Vec::new(), local: true }
    }

    /// The members of some rooms.
    pub fn rooms<R: Into<Room>>(rooms: impl IntoIterator<Item = R>) -> Self {
        Self {
            to: Target::Rooms(rooms.into_iter().map(Into::into).collect()),
            except: Vec::new(),
            local: false,
        }
    }
}
