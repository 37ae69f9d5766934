//! The acks that this node's sockets owe.
//!
//! Owns the ack ids of one namespace on one node, and who was asked under each. An ack counts only from a socket that
//! was asked, and once; a socket that leaves ends its acks. What the answers mean is the sink's business, which is
//! called outside the lock.

use std::sync::Arc;

use parking_lot::Mutex;
use roomcast_protocol::socketio::{AckId, Args};
use rustc_hash::{FxHashMap, FxHashSet};

use crate::counters::Counters;
use crate::id::SocketId;

/// Answers that may be awaited at once in one namespace: sockets asked, summed over all emits.
pub(crate) const MAX_AWAITED_ACKS: usize = 1_000_000;

/// Where the answers to one emit go.
pub(crate) trait AckSink: Send + Sync {
    /// These sockets of this node are asked. Called once, before any of the others.
    fn asked(&self, ids: Vec<SocketId>);
    /// A socket answered.
    fn ack(&self, id: SocketId, args: Args);
    /// A socket left before it answered.
    fn gone(&self, id: SocketId);
    /// Nobody was asked: too many acks are awaited.
    fn refused(&self);
}

struct Ask {
    open: FxHashSet<SocketId>,
    sink: Arc<dyn AckSink>,
}

#[derive(Default)]
struct Inner {
    next: u32,
    asks: FxHashMap<u32, Ask>,
    by_socket: FxHashMap<SocketId, Vec<u32>>,
    awaited: usize,
}

/// The table of pending acks.
pub(crate) struct AckTable {
    inner: Mutex<Inner>,
    max_awaited: usize,
    counters: Arc<Counters>,
}

impl AckTable {
    pub(crate) fn new(max_awaited: usize, counters: Arc<Counters>) -> Self {
        Self { inner: Mutex::default(), max_awaited, counters }
    }

    /// Takes an id under which `count` sockets will be asked. `None` when too many acks are awaited already.
    pub(crate) fn reserve(&self, count: usize) -> Option<u32> {
        let mut inner = self.inner.lock();
        if inner.awaited + count > self.max_awaited {
            return None;
        }
        inner.awaited += count;
        self.counters.acks_awaited.up(count as u64);
        // After 2^32 emits the counter comes round to ids that may be pending still.
        while inner.asks.contains_key(&inner.next) {
            inner.next = inner.next.wrapping_add(1);
        }
        let id = inner.next;
        inner.next = inner.next.wrapping_add(1);
        Some(id)
    }

    /// Begins to take the answers of the sockets that an id was reserved for: as many, and each once.
    pub(crate) fn open(&self, id: u32, sockets: Vec<SocketId>, sink: Arc<dyn AckSink>) {
        let mut inner = self.inner.lock();
        for socket in &sockets {
            inner.by_socket.entry(*socket).or_default().push(id);
        }
        inner.asks.insert(id, Ask { open: sockets.into_iter().collect(), sink });
    }

    /// A socket answered. Ignored unless it was asked and has not answered yet.
    pub(crate) fn ack(&self, socket: SocketId, id: AckId, args: Args) {
        let Some(id) = id.as_u64().and_then(|id| u32::try_from(id).ok()) else { return };
        let sink = self.inner.lock().settle(socket, id);
        if let Some(sink) = sink {
            self.counters.acks_awaited.down(1);
            sink.ack(socket, args);
        }
    }

    /// A socket left: every answer that it owes ends.
    pub(crate) fn gone(&self, socket: SocketId) {
        let sinks: Vec<_> = {
            let mut inner = self.inner.lock();
            let owed = inner.by_socket.get(&socket).cloned().unwrap_or_default();
            owed.into_iter().filter_map(|id| inner.settle(socket, id)).collect()
        };
        self.counters.acks_awaited.down(sinks.len() as u64);
        sinks.iter().for_each(|sink| sink.gone(socket));
    }

    /// Whether an answer of this socket is awaited.
    pub(crate) fn owes(&self, socket: SocketId) -> bool {
        self.inner.lock().by_socket.contains_key(&socket)
    }

    /// Nobody waits for these answers any more.
    pub(crate) fn cancel(&self, id: u32) {
        let mut guard = self.inner.lock();
        let inner = &mut *guard;
        let Some(ask) = inner.asks.remove(&id) else { return };
        inner.awaited -= ask.open.len();
        self.counters.acks_awaited.down(ask.open.len() as u64);
        ask.open.into_iter().for_each(|socket| inner.unlink(socket, id));
    }

    /// Answers that are awaited.
    #[cfg(test)]
    pub(crate) fn awaited(&self) -> usize {
        let inner = self.inner.lock();
        assert_eq!(inner.by_socket.values().map(Vec::len).sum::<usize>(), inner.awaited);
        assert_eq!(inner.asks.values().map(|ask| ask.open.len()).sum::<usize>(), inner.awaited);
        inner.awaited
    }
}

impl Inner {
    /// Ends what `socket` owes under `id`; the sink if it owed anything.
    fn settle(&mut self, socket: SocketId, id: u32) -> Option<Arc<dyn AckSink>> {
        let ask = self.asks.get_mut(&id)?;
        if !ask.open.remove(&socket) {
            return None;
        }
        let sink = Arc::clone(&ask.sink);
        if ask.open.is_empty() {
            self.asks.remove(&id);
        }
        self.awaited -= 1;
        self.unlink(socket, id);
        Some(sink)
    }

    fn unlink(&mut self, socket: SocketId, id: u32) {
        if let Some(owed) = self.by_socket.get_mut(&socket) {
            owed.retain(|owed| *owed != id);
            if owed.is_empty() {
                self.by_socket.remove(&socket);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Default)]
    struct Log(Mutex<Vec<String>>);

    impl AckSink for Log {
        fn asked(&self, _: Vec<SocketId>) {}
        fn ack(&self, id: SocketId, _: Args) {
            self.0.lock().push(format!("ack {}", &id.as_str()[..1]));
        }
        fn gone(&self, id: SocketId) {
            self.0.lock().push(format!("gone {}", &id.as_str()[..1]));
        }
        fn refused(&self) {}
    }

    fn open(table: &AckTable, sockets: &[&str], sink: &Arc<dyn AckSink>) -> Option<u32> {
        let ack = table.reserve(sockets.len())?;
        table.open(ack, sockets.iter().map(|letter| id(letter)).collect(), Arc::clone(sink));
        Some(ack)
    }

    fn id(letter: &str) -> SocketId {
        letter.repeat(20).parse().unwrap()
    }

    #[test]
    fn an_ack_counts_once_and_only_from_those_asked() {
        let (table, log) = (AckTable::new(3, Arc::default()), Arc::new(Log::default()));
        let sink: Arc<dyn AckSink> = log.clone();
        let first = open(&table, &["a", "b"], &sink).unwrap();
        let second = open(&table, &["a"], &sink).unwrap();
        assert_eq!(open(&table, &["c"], &sink), None);
        for (socket, ack) in [("c", first), ("b", second), ("a", 77), ("a", first), ("a", first)] {
            table.ack(id(socket), AckId::from(ack), Args::none());
        }
        assert_eq!(table.awaited(), 2);
        table.gone(id("a"));
        table.gone(id("b"));
        table.gone(id("b"));
        assert_eq!(*log.0.lock(), ["ack a", "gone a", "gone b"]);
        assert_eq!(table.awaited(), 0);
    }

    #[test]
    fn what_is_cancelled_is_forgotten() {
        let (table, log) = (AckTable::new(9, Arc::default()), Arc::new(Log::default()));
        let sink: Arc<dyn AckSink> = log.clone();
        let ask = open(&table, &["a", "b"], &sink).unwrap();
        table.cancel(ask);
        table.ack(id("a"), AckId::from(ask), Args::none());
        assert!(log.0.lock().is_empty());
        assert_eq!(table.awaited(), 0);
    }

    #[test]
    fn ids_that_are_pending_are_not_given_out_again() {
        let (table, log) = (AckTable::new(9, Arc::default()), Arc::new(Log::default()));
        let sink: Arc<dyn AckSink> = log.clone();
        table.inner.lock().next = u32::MAX;
        assert_eq!(open(&table, &["a"], &sink), Some(u32::MAX));
        assert_eq!(open(&table, &["a"], &sink), Some(0));
        table.inner.lock().next = u32::MAX;
        assert_eq!(open(&table, &["a"], &sink), Some(1));
    }
}
