//! The room index of one namespace and node, in shards: room name to the mailboxes of its members.
//!
//! Owns the members of rooms that were joined explicitly; a room that is empty does not exist. Must be changed only
//! under the write lock of the socket's shard (see `sockets`), which is taken before any lock of this index.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::hash::BuildHasher;
use std::sync::Arc;

use indexmap::IndexMap;
use parking_lot::{RwLock, RwLockReadGuard};
use rustc_hash::FxBuildHasher;

use super::sockets::{self, SHARDS};
use crate::id::SocketId;
use crate::mailbox::Mailbox;
use crate::selector::Room;

/// A map that is this much larger than its contents gives memory back.
const SHRINK_AT: usize = 4;
/// Smaller maps are left alone.
const SHRINK_MIN: usize = 32;

/// Learns which rooms have local members, and which rooms and sockets changed.
///
/// What concerns a room is called under the write lock of its shard, so that the calls for one room come in the order of
/// the changes. An implementation must return at once and must not call the adapter.
pub(crate) trait RoomObserver: Send + Sync {
    /// The room got its first local member.
    fn occupied(&self, room: &Room);
    /// The room lost its last local member.
    fn vacated(&self, room: &Room);
    /// The room got or lost a local member; also with the first and the last.
    fn changed(&self, room: &Room);
    /// The socket came or went.
    fn socket_changed(&self, id: SocketId);
}

pub(crate) type Members = IndexMap<SocketId, Arc<Mailbox>, FxBuildHasher>;
/// Room names are the users' own, hence a keyed hash.
#[cfg(not(feature = "simulation"))]
type Keyed = std::hash::RandomState;
/// The simulation replays a story: rooms are walked in the same order each time.
#[cfg(feature = "simulation")]
type Keyed = std::hash::BuildHasherDefault<std::hash::DefaultHasher>;

type Shard = HashMap<Room, Members, Keyed>;

pub(crate) struct Rooms {
    shards: [RwLock<Shard>; SHARDS],
    hasher: Keyed,
    observer: Option<Arc<dyn RoomObserver>>,
}

impl Rooms {
    pub(crate) fn observer(&self) -> Option<&Arc<dyn RoomObserver>> {
        self.observer.as_ref()
    }

    pub(crate) fn new(observer: Option<Arc<dyn RoomObserver>>) -> Self {
        Self { shards: std::array::from_fn(|_| RwLock::default()), hasher: Keyed::default(), observer }
    }

    fn shard_of(&self, room: &str) -> usize {
        self.hasher.hash_one(room) as usize % SHARDS
    }

    /// Adds a member. The name that is returned is the one that all members share: each keeps no copy of its own.
    pub(crate) fn insert(&self, room: &Room, id: SocketId, mailbox: &Arc<Mailbox>) -> Room {
        let mut shard = self.shards[self.shard_of(room)].write();
        match shard.entry(Arc::clone(room)) {
            Entry::Occupied(mut entry) => {
                entry.get_mut().insert(id, Arc::clone(mailbox));
                if let Some(observer) = &self.observer {
                    observer.changed(entry.key());
                }
                Arc::clone(entry.key())
            }
            Entry::Vacant(entry) => {
                let mut members = Members::with_capacity_and_hasher(1, FxBuildHasher);
                members.insert(id, Arc::clone(mailbox));
                entry.insert(members);
                if let Some(observer) = &self.observer {
                    observer.occupied(room);
                    observer.changed(room);
                }
                Arc::clone(room)
            }
        }
    }

    /// Takes a member out, and the room away with its last one.
    pub(crate) fn remove(&self, room: &Room, id: SocketId) {
        let mut shard = self.shards[self.shard_of(room)].write();
        let Some(members) = shard.get_mut(room) else { return };
        if members.swap_remove(&id).is_none() {
            return;
        }
        if let Some(observer) = &self.observer {
            observer.changed(room);
        }
        if !members.is_empty() {
            if members.capacity() > SHRINK_MIN && members.len() * SHRINK_AT < members.capacity() {
                members.shrink_to(members.len() * 2);
            }
            return;
        }
        shard.remove(room);
        if shard.capacity() > SHRINK_MIN && shard.len() * SHRINK_AT < shard.capacity() {
            let target = shard.len() * 2;
            shard.shrink_to(target);
        }
        if let Some(observer) = &self.observer {
            observer.vacated(room);
        }
    }

    /// Locks the shards of some rooms, ascending, each once.
    pub(crate) fn read_all<'r>(&self, rooms: impl Iterator<Item = &'r Room>) -> RoomGuards<'_> {
        let set = rooms.fold(0_u32, |set, room| set | 1 << self.shard_of(room));
        RoomGuards { rooms: self, guards: sockets::guards(&self.shards, set) }
    }

    /// Visits all rooms, those of a shard under its lock. Like an observer, `visit` must return at once.
    pub(crate) fn for_each(&self, mut visit: impl FnMut(&Room)) {
        self.shards.iter().for_each(|shard| shard.read().keys().for_each(&mut visit));
    }

    /// The number of explicit members of a room.
    pub(crate) fn members(&self, room: &str) -> usize {
        self.shards[self.shard_of(room)].read().get(room).map_or(0, Members::len)
    }

    /// The rooms of one shard, with the number of their explicit members.
    pub(crate) fn shard(&self, shard: usize) -> Vec<(Room, usize)> {
        let Some(shard) = self.shards.get(shard) else { return Vec::new() };
        shard.read().iter().map(|(room, members)| (Arc::clone(room), members.len())).collect()
    }

    /// The number of rooms.
    pub(crate) fn len(&self) -> usize {
        self.shards.iter().map(|shard| shard.read().len()).sum()
    }

    /// Room for this many rooms is held.
    #[cfg(test)]
    pub(crate) fn capacity(&self) -> usize {
        self.shards.iter().map(|shard| shard.read().capacity()).sum()
    }
}

/// Read locks of some shards of the index.
pub(crate) struct RoomGuards<'a> {
    rooms: &'a Rooms,
    guards: Vec<(usize, RwLockReadGuard<'a, Shard>)>,
}

impl RoomGuards<'_> {
    /// The explicit members of a room whose shard is locked.
    pub(crate) fn get(&self, room: &str) -> Option<&Members> {
        sockets::find(&self.guards, self.rooms.shard_of(room))?.get(room)
    }
}
