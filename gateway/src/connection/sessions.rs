//! The sessions of this node by id: how a request finds its connection.

use std::collections::hash_map::RandomState;
use std::fmt;
use std::hash::BuildHasher as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use hashbrown::HashTable;
use parking_lot::RwLock;
use roomcast_adapter::{NodeTag, SocketId};
use tokio::sync::mpsc;

use super::ConnectionShared;
use crate::transport::Command;

const SHARDS: usize = 16;

/// The id of an Engine.IO session. Whoever knows it can take the session over, so it is never printed.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct SessionId(SocketId);

impl SessionId {
    pub(crate) fn generate(node: NodeTag) -> Self {
        Self(random_id(node))
    }

    pub(crate) fn as_str(&self) -> &str {
        self.0.as_str()
    }

    /// The node that gave it out.
    pub(crate) fn node(&self) -> NodeTag {
        self.0.node()
    }

    pub(crate) fn parse(text: &str) -> Option<Self> {
        text.parse().ok().map(Self)
    }
}

impl fmt::Debug for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("<session>")
    }
}

/// An id of 96 bits from a cryptographic generator.
pub(crate) fn random_id(node: NodeTag) -> SocketId {
    let mut random = [0; 12];
    rand::Rng::fill(&mut rand::rng(), &mut random);
    SocketId::new(node, random)
}

/// An entry of the table.
#[derive(Clone)]
pub(crate) struct Session {
    pub(crate) shared: Arc<ConnectionShared>,
    /// Where requests go; none for a session that began as a WebSocket.
    pub(crate) commands: Option<mpsc::Sender<Command>>,
}

impl Session {
    /// Has the poll that is held answered, if there is one. A task that has enough to do is not asked: it will answer soon.
    pub(crate) fn release_poll(&self) {
        if let Some(commands) = &self.commands {
            let _ = commands.try_send(Command::Release);
        }
    }
}

/// All sessions of the node.
pub(crate) struct Sessions {
    /// A session is its own key: each id is kept once.
    shards: [RwLock<HashTable<Session>>; SHARDS],
    hasher: RandomState,
    count: AtomicUsize,
}

impl Sessions {
    pub(crate) fn new() -> Self {
        Self {
            shards: std::array::from_fn(|_| RwLock::default()),
            hasher: RandomState::new(),
            count: AtomicUsize::new(0),
        }
    }

    /// The shard of an id, and the hash to find it there by.
    fn shard(&self, id: SessionId) -> (&RwLock<HashTable<Session>>, u64) {
        let hash = self.hasher.hash_one(id);
        // Bits that the table does not use: it takes the lowest and the seven highest.
        (&self.shards[(hash >> 40) as usize % SHARDS], hash)
    }

    /// Takes a place, if fewer than `max` are taken. It is given back by `remove` or `release`.
    pub(crate) fn reserve(&self, max: usize) -> bool {
        let reserved = self
            .count
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |count| (count < max).then_some(count + 1));
        reserved.is_ok()
    }

    /// Gives back a place that no session took.
    pub(crate) fn release(&self) {
        self.count.fetch_sub(1, Ordering::Relaxed);
    }

    /// Enters a session, in a place that was reserved, or instead of the entry that it has.
    pub(crate) fn insert(&self, session: Session) {
        let id = session.shared.id;
        let (shard, hash) = self.shard(id);
        let mut shard = shard.write();
        match shard.find_mut(hash, |entry| entry.shared.id == id) {
            Some(entry) => *entry = session,
            None => {
                shard.insert_unique(hash, session, |entry| self.hasher.hash_one(entry.shared.id));
            }
        }
    }

    pub(crate) fn get(&self, id: SessionId) -> Option<Session> {
        let (shard, hash) = self.shard(id);
        shard.read().find(hash, |entry| entry.shared.id == id).cloned()
    }

    pub(crate) fn remove(&self, id: SessionId) {
        let (shard, hash) = self.shard(id);
        let mut shard = shard.write();
        if let Ok(entry) = shard.find_entry(hash, |entry| entry.shared.id == id) {
            entry.remove();
            self.release();
        }
        // Memory that a peak needed is given back when it is over.
        if shard.capacity() > 64 && shard.len() < shard.capacity() / 8 {
            shard.shrink_to_fit(|entry| self.hasher.hash_one(entry.shared.id));
        }
    }

    pub(crate) fn count(&self) -> usize {
        self.count.load(Ordering::Relaxed)
    }

    /// Calls `each` for every session.
    pub(crate) fn for_each(&self, mut each: impl FnMut(&Session)) {
        for shard in &self.shards {
            shard.read().iter().for_each(&mut each);
        }
    }
}
