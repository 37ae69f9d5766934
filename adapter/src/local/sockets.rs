//! The sockets of one namespace and node, in shards.
//!
//! Owns who is here and which rooms each has joined. A socket's own room, the one named by its id, is stored nowhere:
//! being in this table is being in it.
//!
//! Lock order: socket shards before room shards, and within each kind ascending. Whoever changes a membership holds the
//! write lock of the socket's shard all the while, so a join that races a remove leaves no ghost in a room.

use std::hash::BuildHasher;
use std::sync::Arc;

use parking_lot::{RwLock, RwLockReadGuard, RwLockWriteGuard};
use rustc_hash::{FxBuildHasher, FxHashMap};

use super::room_set::RoomSet;
use crate::adapter::{Describe, LocalSocket};
use crate::id::SocketId;
use crate::mailbox::Mailbox;

/// The number of shards of the socket table, and of the room index. A set of shards fits a `u32`.
pub(crate) const SHARDS: usize = 32;

/// A socket and its rooms.
pub(crate) struct Entry {
    pub(crate) mailbox: Arc<Mailbox>,
    pub(crate) describe: Arc<dyn Describe>,
    pub(crate) rooms: RoomSet,
}

pub(crate) type Shard = FxHashMap<SocketId, Entry>;

pub(crate) struct Sockets {
    shards: [RwLock<Shard>; SHARDS],
}

impl Sockets {
    pub(crate) fn new() -> Self {
        Self { shards: std::array::from_fn(|_| RwLock::default()) }
    }

    fn shard_of(id: SocketId) -> usize {
        // Bits that the table of the shard does not use: it takes the lowest and the seven highest.
        (FxBuildHasher.hash_one(id) >> 40) as usize % SHARDS
    }

    pub(crate) fn write(&self, id: SocketId) -> RwLockWriteGuard<'_, Shard> {
        self.shards[Self::shard_of(id)].write()
    }

    pub(crate) fn read(&self, id: SocketId) -> RwLockReadGuard<'_, Shard> {
        self.shards[Self::shard_of(id)].read()
    }

    /// All shards, one after the other.
    pub(crate) fn shards(&self) -> impl Iterator<Item = RwLockReadGuard<'_, Shard>> {
        self.shards.iter().map(|shard| shard.read())
    }

    /// Locks the shards of some ids, ascending, each once.
    pub(crate) fn read_all(&self, ids: impl Iterator<Item = SocketId>) -> SocketGuards<'_> {
        let set = ids.fold(0_u32, |set, id| set | 1 << Self::shard_of(id));
        SocketGuards(guards(&self.shards, set))
    }

    pub(crate) fn insert(&self, socket: LocalSocket) {
        let LocalSocket { id, mailbox, describe } = socket;
        self.write(id).insert(id, Entry { mailbox, describe, rooms: RoomSet::default() });
    }

    pub(crate) fn contains(&self, id: SocketId) -> bool {
        self.read(id).contains_key(&id)
    }

    /// The sockets of one shard.
    pub(crate) fn shard(&self, shard: usize) -> Vec<SocketId> {
        let Some(shard) = self.shards.get(shard) else { return Vec::new() };
        shard.read().keys().copied().collect()
    }

    pub(crate) fn len(&self) -> usize {
        self.shards().map(|shard| shard.len()).sum()
    }
}

/// Read locks of some shards of the socket table.
pub(crate) struct SocketGuards<'a>(Vec<(usize, RwLockReadGuard<'a, Shard>)>);

impl SocketGuards<'_> {
    pub(crate) fn get(&self, id: SocketId) -> Option<&Entry> {
        find(&self.0, Sockets::shard_of(id))?.get(&id)
    }
}

/// Locks the shards of a set, ascending, each once: to read-lock one twice could wait for a writer between.
pub(super) fn guards<T>(shards: &[RwLock<T>; SHARDS], set: u32) -> Vec<(usize, RwLockReadGuard<'_, T>)> {
    let mut guards = Vec::with_capacity(set.count_ones() as usize);
    guards.extend(
        shards.iter().enumerate().filter(|(at, _)| set & 1 << at != 0).map(|(at, shard)| (at, shard.read())),
    );
    guards
}

pub(super) fn find<'g, T>(guards: &'g [(usize, RwLockReadGuard<'_, T>)], shard: usize) -> Option<&'g T> {
    guards.iter().find(|(at, _)| *at == shard).map(|(_, guard)| &**guard)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_spread_over_the_shards() {
        let node = crate::id::NodeTag::from_random([1, 2, 3]);
        let mut shards = [0; SHARDS];
        for number in 0..6_400_u32 {
            // Not random at all: the worst that there could be.
            let mut random = [0; 12];
            random[8..].copy_from_slice(&number.to_be_bytes());
            shards[Sockets::shard_of(SocketId::new(node, random))] += 1;
        }
        assert!(shards.iter().all(|count| (100..400).contains(count)), "{shards:?}");
    }
}
