//! Rooms and fan-out of one node: the memory adapter, and the local half of the cluster's.
//!
//! Owns which sockets of this node are in which rooms, and the acks that they owe. Knows no other node.

mod acks;
mod adapter;
mod collector;
mod factory;
mod fanout;
mod presence;
mod room_set;
mod rooms;
mod sockets;
#[cfg(test)]
mod tests;

use std::collections::BinaryHeap;
use std::sync::Arc;

pub(crate) use acks::AckSink;
pub(crate) use collector::{Acks, Collector, deadline_of};
pub use factory::LocalFactory;
use roomcast_protocol::socketio::{AckId, Args, EncodedPacket};
pub(crate) use rooms::RoomObserver;
pub(crate) use sockets::SHARDS;

use self::acks::{AckTable, MAX_AWAITED_ACKS};
use self::fanout::Tally;
use self::rooms::Rooms;
use self::sockets::Sockets;
use crate::adapter::RemoteSocket;
use crate::counters::Counters;
use crate::id::{NodeTag, SocketId};
use crate::mailbox::{CloseCause, Mailbox, Outgoing};
use crate::selector::{Room, Selector, Target};
use crate::tap::{Sighted, Tap};

/// Of an emit to more rooms than this only the first ones are looked at to tell how much work it is.
const BUSIEST_OF: usize = 64;

/// One namespace of one node. As an [`Adapter`](crate::Adapter) it is the whole of a cluster of one: nothing is awaited
/// and nothing fails.
pub struct LocalAdapter {
    node: NodeTag,
    namespace: Arc<str>,
    sockets: Sockets,
    rooms: Rooms,
    acks: Arc<AckTable>,
    counters: Arc<Counters>,
    tap: Arc<Tap>,
}

impl LocalAdapter {
    /// An empty namespace on the node with this tag.
    pub fn new(node: NodeTag, namespace: &str, counters: Arc<Counters>) -> Self {
        Self::observed(node, namespace, counters, Arc::default(), None)
    }

    /// An empty namespace that shows what goes through it, and tells which rooms have members.
    pub(crate) fn observed(
        node: NodeTag,
        namespace: &str,
        counters: Arc<Counters>,
        tap: Arc<Tap>,
        observer: Option<Arc<dyn RoomObserver>>,
    ) -> Self {
        Self {
            node,
            namespace: namespace.into(),
            sockets: Sockets::new(),
            rooms: Rooms::new(observer),
            acks: Arc::new(AckTable::new(MAX_AWAITED_ACKS, Arc::clone(&counters))),
            counters,
            tap,
        }
    }

    /// Delivers to the sockets of this node that a selector means. How many took it.
    pub(crate) fn deliver(&self, selector: &Selector, outgoing: &Arc<Outgoing>) -> usize {
        self.show(selector, outgoing);
        let mut tally = Tally::default();
        fanout::visit(&self.sockets, &self.rooms, selector, |_, mailbox| tally.push(mailbox, outgoing));
        tally.count_in(&self.counters);
        tally.delivered()
    }

    fn show(&self, selector: &Selector, outgoing: &Arc<Outgoing>) {
        let seen = || Sighted::Emit { selector: selector.clone(), outgoing: Arc::clone(outgoing) };
        self.tap.show(&self.namespace, seen);
    }

    /// For how many sockets of this node a selector asks, about: exceptions are not looked at, nor who is in several
    /// rooms. And the room with most of them, unless it asks for all.
    pub(crate) fn busiest<'s>(&self, selector: &'s Selector) -> (Option<&'s Room>, usize) {
        match &selector.to {
            Target::All => (None, self.socket_count()),
            Target::Rooms(rooms) => {
                let counted = rooms.iter().take(BUSIEST_OF).map(|room| (self.members(room), room));
                let (mut sum, mut most, mut busiest) = (0_usize, 0, rooms.first());
                for (members, room) in counted {
                    sum = sum.saturating_add(members);
                    if members > most {
                        (most, busiest) = (members, Some(room));
                    }
                }
                (busiest, sum)
            }
            Target::Socket(_) => (None, 1),
        }
    }

    /// The sockets of this node that a selector means.
    pub(crate) fn select(&self, selector: &Selector) -> Vec<(SocketId, Arc<Mailbox>)> {
        let mut selected = Vec::new();
        fanout::visit(&self.sockets, &self.rooms, selector, |id, mailbox| {
            selected.push((id, Arc::clone(mailbox)));
        });
        selected
    }

    /// The number of sockets of this node that a selector means.
    pub(crate) fn count(&self, selector: &Selector) -> usize {
        let mut count = 0;
        fanout::visit(&self.sockets, &self.rooms, selector, |_, _| count += 1);
        count
    }

    /// True if the socket was here: it is now in the rooms.
    pub(crate) fn join_local(&self, id: SocketId, rooms: &[Room]) -> bool {
        let mut shard = self.sockets.write(id);
        let Some(entry) = shard.get_mut(&id) else { return false };
        for room in rooms {
            // A socket is in the room of its id by being here.
            if **room != *id.as_str() && !entry.rooms.contains(room) {
                entry.rooms.push(self.rooms.insert(room, id, &entry.mailbox));
            }
        }
        true
    }

    /// Takes a socket out of a room. From the room of its own id it goes only with [`Adapter::remove`](crate::Adapter).
    pub(crate) fn leave_local(&self, id: SocketId, room: &str) {
        let mut shard = self.sockets.write(id);
        if let Some(room) = shard.get_mut(&id).and_then(|entry| entry.rooms.take(room)) {
            self.rooms.remove(&room, id);
        }
    }

    /// Makes the sockets that a selector means join rooms.
    pub(crate) fn join_selected(&self, selector: &Selector, rooms: &[Room]) {
        for (id, _) in self.select(selector) {
            self.join_local(id, rooms);
        }
    }

    /// Makes the sockets that a selector means leave rooms.
    pub(crate) fn leave_selected(&self, selector: &Selector, rooms: &[Room]) {
        for (id, _) in self.select(selector) {
            rooms.iter().for_each(|room| self.leave_local(id, room));
        }
    }

    /// Begins to disconnect the sockets that a selector means.
    pub(crate) fn disconnect_selected(&self, selector: &Selector, close: bool) {
        for (id, mailbox) in self.select(selector) {
            mailbox.disconnect(id, close);
        }
    }

    /// Ends the connections of all sockets: the cluster counts them as disconnected.
    pub(crate) fn fence(&self) {
        for (_, mailbox) in self.select(&Selector::all()) {
            mailbox.close(CloseCause::Fenced);
        }
    }

    fn observe_socket(&self, id: SocketId) {
        if let Some(observer) = self.rooms.observer() {
            observer.socket_changed(id);
        }
    }

    /// The number of sockets that have joined a room, that of its name not counted.
    pub(crate) fn joined(&self, room: &str) -> usize {
        self.rooms.members(room)
    }

    /// True if the socket is here.
    pub(crate) fn contains(&self, id: SocketId) -> bool {
        self.sockets.contains(id)
    }

    /// The number of sockets in a room.
    pub(crate) fn members(&self, room: &str) -> usize {
        self.joined(room) + usize::from(room.parse().is_ok_and(|id| self.contains(id)))
    }

    /// A part of the rooms that were joined, with the number of those who did, and a part of the sockets. There are
    /// `SHARDS` parts.
    pub(crate) fn part(&self, part: usize) -> (Vec<(Room, usize)>, Vec<SocketId>) {
        (self.rooms.shard(part), self.sockets.shard(part))
    }

    /// The number of sockets.
    pub(crate) fn socket_count(&self) -> usize {
        self.sockets.len()
    }

    /// The number of rooms that were joined.
    pub(crate) fn room_count(&self) -> usize {
        self.rooms.len()
    }

    /// Visits the rooms that were joined. Changes of a room wait meanwhile, so `visit` must return at once.
    pub(crate) fn for_each_room(&self, visit: impl FnMut(&Room)) {
        self.rooms.for_each(visit);
    }

    /// The first rooms behind `after` that were joined, in the order of their names, with the number of those who did.
    /// All names are looked at, and no more than the page is kept.
    pub(crate) fn room_page(&self, after: Option<&str>, limit: usize) -> Vec<(Room, usize)> {
        let mut first: BinaryHeap<Room> = BinaryHeap::new();
        self.rooms.for_each(|room| {
            if after.is_some_and(|after| **room <= *after) {
                return;
            }
            if first.len() < limit {
                first.push(Arc::clone(room));
            } else if let Some(mut last) = first.peek_mut()
                && *room < *last
            {
                *last = Arc::clone(room);
            }
        });
        let rooms = first.into_sorted_vec();
        rooms.into_iter().map(|room| (Arc::clone(&room), self.joined(&room))).collect()
    }

    /// Describes the sockets of this node that a selector means.
    pub(crate) fn fetch(&self, selector: &Selector) -> Vec<RemoteSocket> {
        let selected = self.select(selector);
        selected.into_iter().filter_map(|(id, _)| self.describe(id)).collect()
    }

    /// Describes the first sockets of a room behind `after`, in the order of their ids.
    pub(crate) fn page(&self, room: &str, after: Option<SocketId>, limit: usize) -> Vec<RemoteSocket> {
        let mut ids = Vec::new();
        fanout::visit(&self.sockets, &self.rooms, &Selector::rooms([room]), |id, _| {
            if after.is_none_or(|after| id > after) {
                ids.push(id);
            }
        });
        ids.sort_unstable();
        // Those that have left meanwhile take no place: a page that is not full is the last one.
        ids.into_iter().filter_map(|id| self.describe(id)).take(limit).collect()
    }

    fn describe(&self, id: SocketId) -> Option<RemoteSocket> {
        let (describe, rooms) = {
            let shard = self.sockets.read(id);
            let entry = shard.get(&id)?;
            (Arc::clone(&entry.describe), rooms_of(id, entry))
        };
        Some(RemoteSocket { id, handshake: describe.handshake(), rooms, data: describe.data() })
    }

    /// Emits an event to the sockets of this node that a selector means, and lets `sink` have what they answer. The id
    /// under which the answers are awaited, for [`LocalAdapter::cancel`].
    pub(crate) fn ask(
        &self,
        selector: &Selector,
        name: &str,
        args: &Args,
        sink: Arc<dyn AckSink>,
    ) -> Option<u32> {
        let selected = self.select(selector);
        if selected.is_empty() {
            sink.asked(Vec::new());
            return None;
        }
        let Some(ack) = self.acks.reserve(selected.len()) else {
            self.counters.acks_refused.add(1);
            sink.refused();
            return None;
        };
        let ids: Vec<_> = selected.iter().map(|(id, _)| *id).collect();
        sink.asked(ids.clone());
        self.acks.open(ack, ids, sink);
        let packet = EncodedPacket::event(&self.namespace, Some(AckId::from(ack)), name, args);
        let outgoing = Outgoing::new(packet);
        self.show(selector, &outgoing);
        let mut tally = Tally::default();
        for (id, mailbox) in selected {
            tally.push(&mailbox, &outgoing);
            // It may have left before its ack was in the table, where leaving would have ended it.
            if !self.sockets.contains(id) {
                self.acks.gone(id);
            }
        }
        tally.count_in(&self.counters);
        Some(ack)
    }

    /// Nobody waits for the answers to an emit any more.
    pub(crate) fn cancel(&self, ack: Option<u32>) {
        if let Some(ack) = ack {
            self.acks.cancel(ack);
        }
    }
}

/// The rooms of a socket, its own first.
fn rooms_of(id: SocketId, entry: &sockets::Entry) -> Vec<Room> {
    std::iter::once(Room::from(id.as_str())).chain(entry.rooms.iter().map(Arc::clone)).collect()
}
