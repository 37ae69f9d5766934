//! The directory: who is in which room, over the whole cluster, without asking all.
//!
//! A state machine without a clock or a bus. Each node tells the owners of a key what it has of it itself; the owners add
//! up. A key is a room, or a socket by its id: being there is one mechanism for both. `ring` says who owns, `stream` what
//! has yet to be told, `records` what was told, `events` what is announced; `turn` connects it with the node.

mod dirty;
mod events;
mod handover;
mod listing;
mod records;
mod ring;
mod stream;
#[cfg(test)]
mod tests;
mod turn;
mod update;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

pub(crate) use dirty::Dirty;
pub(crate) use ring::Slot;
pub(crate) use stream::Frame;
pub(crate) use turn::{Cursor, Shell};
pub(crate) use update::{Announced, Entry, Known, Listed, Part, Query, Update};

use self::events::Announcer;
use self::handover::Departed;
pub(crate) use self::records::Receipt;
use self::records::Records;
use self::ring::{Ring, Slots};
use self::stream::Stream;
use super::message::Identity;
use crate::id::NodeTag;
use crate::presence::PresenceEvent;
use crate::selector::Room;

/// Rooms with longer names are not kept: to count one, all nodes are asked.
pub(crate) const MAX_NAME: usize = 4_096;

/// How far the number of an occupation may be ahead of all that this node has heard of. Numbers begin with the time at
/// which a node started, in 2^-20 ms: this is 70 years, so that no wrong clock is refused, and no number is the last.
pub(crate) const MAX_AHEAD: u64 = 1 << 61;

/// Times, in milliseconds of the node's own time.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Times {
    /// A member that said nothing for this long is not known to be there.
    pub(crate) expiry: u64,
    /// After this long a node goes by what it knows, however little; and lets go of what is not its own.
    pub(crate) lease: u64,
    pub(crate) vacate_after: u64,
    /// How long the members have been the same before this node announces: others may still be about to join. Members
    /// that said nothing for as long may have left this node out. Longer than the time between two updates.
    pub(crate) settle: u64,
}

#[derive(Debug)]
pub(crate) struct Directory {
    me: Identity,
    times: Times,
    ring: Ring,
    /// When the ring became this one.
    since: u64,
    /// When a member last began anew. It may have had this node for dead meanwhile, and others too, who then begin anew
    /// soon: what they said before of having said everything is worth nothing.
    begun_at: u64,
    /// When every member was last known to have said everything.
    complete_at: u64,
    /// This node knows enough to announce.
    is_settled: bool,
    /// The highest number of an occupation that was heard of.
    clock: u64,
    last_session: u64,
    streams: BTreeMap<NodeTag, Stream>,
    /// When each slot became this node's last, or another's.
    moved_at: Box<[u64]>,
    /// Slots that became this node's: what it has of them itself is recorded with the next walk.
    own: Slots,
    /// This node's slots, and those that were until everything handed over was taken: should an owner of today be gone
    /// before it has, the next one gets it.
    held: Slots,
    holds_more: bool,
    /// Names the walk over all rooms and sockets of this node. Another one begins anew.
    walk: u64,
    records: Records,
    announcer: Announcer,
    departed: Vec<Departed>,
    /// Members that fell silent, whose records the owners of today may not have: one that became an owner after they had
    /// died was never told by them.
    silent: Vec<Identity>,
    swept: bool,
}

impl Directory {
    pub(crate) fn new(me: Identity, times: Times) -> Self {
        Self {
            me,
            times,
            ring: Ring::new(Vec::new()),
            since: 0,
            begun_at: 0,
            complete_at: 0,
            is_settled: false,
            clock: me.generation,
            last_session: 0,
            streams: BTreeMap::new(),
            moved_at: vec![0; ring::SLOTS].into(),
            own: Slots::none(),
            held: Slots::none(),
            holds_more: false,
            walk: 0,
            records: Records::default(),
            announcer: Announcer::default(),
            departed: Vec::new(),
            silent: Vec::new(),
            swept: true,
        }
    }

    /// An owner lost something of this stream: it is told everything anew.
    pub(crate) fn resync(&mut self, from: Identity, session: u64) {
        if self.streams.get(&from.tag).is_some_and(|stream| stream.to == from && stream.session() == session)
        {
            self.restart(from);
        }
    }

    /// The broker is away: what cannot be told is not kept. Nothing is done about it until `resume`.
    pub(crate) fn suspend(&mut self) {
        self.streams.values_mut().filter(|stream| !stream.is_idle()).for_each(Stream::park);
    }

    /// The broker is back: streams that could not tell something begin anew.
    pub(crate) fn resume(&mut self) {
        let parked = self.streams.values().filter(|stream| stream.is_parked()).map(|stream| stream.to);
        for to in parked.collect::<Vec<_>>() {
            self.restart(to);
        }
    }

    /// The walk that is to be done over what this node has, if there is one and there is room for it.
    pub(crate) fn walk(&self) -> Option<u64> {
        let is_wanted = !self.own.is_empty() || self.streams.values().any(|stream| !stream.todo.is_empty());
        (is_wanted && !self.streams.values().any(Stream::is_full)).then_some(self.walk)
    }

    /// A step of a walk: so many sockets are in a room, or a socket is there.
    pub(crate) fn walked(&mut self, walk: u64, namespace: &Arc<str>, entries: Vec<Entry>) {
        if walk != self.walk {
            return;
        }
        for entry in entries {
            let Some(slot) = slot_of(namespace, &entry) else { continue };
            for owner in self.ring.owners(slot) {
                if owner == self.me && self.own.contains(slot) {
                    self.announcer.touch(self.records.put(self.me, namespace, entry.clone()));
                } else if let Some(stream) =
                    self.streams.get_mut(&owner.tag).filter(|stream| stream.todo.contains(slot))
                {
                    stream.push(namespace, entry.clone());
                }
            }
        }
    }

    /// A walk has seen everything.
    pub(crate) fn walk_done(&mut self, walk: u64) {
        if walk == self.walk {
            self.own.clear();
            self.streams.values_mut().for_each(|stream| stream.todo.clear());
        }
    }

    /// What this node has of its own changed.
    pub(crate) fn changed(&mut self, namespace: &Arc<str>, entry: &Entry) {
        let Some(slot) = slot_of(namespace, entry) else { return };
        for owner in self.ring.owners(slot) {
            if owner == self.me {
                self.announcer.touch(self.records.put(self.me, namespace, entry.clone()));
            } else if let Some(stream) = self.streams.get_mut(&owner.tag) {
                stream.push(namespace, entry.clone());
            }
        }
    }

    /// The other nodes that keep the directory.
    pub(crate) fn others(&self) -> Vec<NodeTag> {
        self.streams.keys().copied().collect()
    }

    /// The next update for a node, if it is due.
    pub(crate) fn next_update(
        &mut self,
        to: NodeTag,
        now: u64,
        max_bytes: usize,
        heartbeat: u64,
    ) -> Option<Update> {
        let stream = self.streams.get(&to)?;
        if stream.has_too_much() {
            let to = stream.to;
            self.restart(to);
        }
        let frame = Frame { ring: self.ring.hash(), clock: self.clock, max_bytes, heartbeat };
        self.streams.get_mut(&to)?.next(&frame, now, self.records.taken(to))
    }

    /// An update was queued for the broker, or was not.
    pub(crate) fn done(&mut self, to: NodeTag, update: Update, sent: bool, now: u64) {
        let Some(stream) = self.streams.get_mut(&to) else { return };
        match sent {
            true => stream.sent(update.session, update.ring, now),
            false => stream.unsent(update),
        }
    }

    /// An update came. `known` are the nodes that were not given up for good; others are not believed.
    pub(crate) fn receive(
        &mut self,
        from: Identity,
        update: Update,
        known: &[Identity],
        now: u64,
    ) -> Receipt {
        let me = self.me;
        let is_known = |node: Identity| node == me || known.contains(&node);
        if !is_known(from) {
            return Receipt::Ignored;
        }
        if update.latest() > self.clock.saturating_add(MAX_AHEAD) {
            return Receipt::Malformed;
        }
        let before = self.records.identity(from.tag).filter(|before| before.generation < from.generation);
        if let Some(before) = before {
            self.gone(before);
        }
        match self.records.open(from, &update) {
            Receipt::Taken => {}
            receipt => return receipt,
        }
        if update.number == 0 {
            (self.begun_at, self.is_settled) = (now, false);
        }
        if !update.reset.is_empty() {
            // Rooms that are not named again became empty without a word.
            self.announcer.rescan();
        }
        self.clock = self.clock.max(update.clock);
        if let Some(stream) = self.streams.get_mut(&from.tag).filter(|stream| stream.to == from) {
            stream.taken(update.taken);
        }
        self.yield_to(&update);
        for Part { namespace, entries } in update.parts {
            for entry in entries {
                match entry {
                    Entry::Announced { room, announced, fresh } => {
                        self.take_announced(from, (&namespace, room), announced, fresh, now);
                    }
                    Entry::KeptCount { of, .. } | Entry::KeptSocket { of, .. } => {
                        // A member tells an owner itself, and what it said last is newer than what others have of it.
                        let is_told = slot_of(&namespace, &entry).is_none_or(|slot| {
                            let since = self.moved_at[usize::from(slot.number())];
                            self.ring.owns(me, slot)
                                && (self.ring.contains(of) || self.records.has_told(of, since))
                        });
                        if !is_told && of != me {
                            self.take_kept(&namespace, of, entry, is_known(of));
                        }
                    }
                    // A node speaks for its own sockets only.
                    Entry::Socket { id, .. } if id.node() != from.tag => {}
                    entry => self.announcer.touch(self.records.put(from, &namespace, entry)),
                }
            }
        }
        self.records.close(from, update.ring, &self.ring, now);
        Receipt::Taken
    }

    /// Another owner has the say about what was announced in these slots. What it does not name was forgotten.
    fn yield_to(&mut self, update: &Update) {
        if update.authority.is_empty() {
            return;
        }
        let mut slots = Slots::none();
        update.authority.iter().for_each(|slot| slots.insert(*slot));
        for (namespace, room, record) in self.records.all_mut() {
            if record.announced.number <= update.handover && slots.contains(Slot::of(namespace, room)) {
                record.disclaim();
            }
        }
    }

    fn take_announced(
        &mut self,
        from: Identity,
        (namespace, room): (&Arc<str>, Room),
        announced: Announced,
        fresh: bool,
        now: u64,
    ) {
        self.clock = self.clock.max(announced.number);
        let record = self.records.record(namespace, &room);
        if announced.is_after(record.announced) {
            record.announced = announced;
            if !announced.occupied {
                let until = now.saturating_add(self.times.lease);
                self.announcer.remember_vacated((Arc::clone(namespace), Arc::clone(&room)), announced, until);
            }
            if fresh {
                self.announcer.heard((namespace, &room), announced, from, now);
            }
        }
        self.announcer.touch(Some((Arc::clone(namespace), room)));
    }

    fn take_kept(&mut self, namespace: &Arc<str>, of: Identity, entry: Entry, is_known: bool) {
        if is_known {
            self.announcer.touch(self.records.keep(namespace, entry));
        } else if let Entry::KeptSocket { id, .. } = entry {
            self.gone_with(of, namespace, id);
        }
    }

    /// What has become due. Without `is_ready` this node does not know the cluster, and announces nothing.
    pub(crate) fn turn(&mut self, now: u64, is_ready: bool) -> Turn {
        self.tell_of_the_silent(now);
        let reaped = self.reap(now);
        self.announce(now, is_ready);
        self.announcer.forget_old(now, self.times.expiry.saturating_mul(2));
        self.announcer.forget_vacated(&mut self.records, now);
        Turn { events: self.announcer.events(), reaped, records: self.records.len() }
    }

    fn announce(&mut self, now: u64, is_ready: bool) {
        // Members that have this node for dead announce without it `settle` after they said something last.
        let Times { expiry, lease, settle, .. } = self.times;
        let (_, missing) = self.records.completeness(&self.ring, self.me.tag, now, settle.min(expiry));
        let is_complete =
            missing.is_empty() && self.own.is_empty() && now.saturating_sub(self.begun_at) >= settle;
        if is_complete {
            self.complete_at = now;
        }
        let waited = now.saturating_sub(self.since.max(self.complete_at));
        self.is_settled =
            is_ready && now.saturating_sub(self.since) >= settle && (is_complete || waited >= lease);
        if !self.is_settled {
            return self.announcer.rescan();
        }
        let (ring, me) = (&self.ring, self.me);
        let is_primary = |slot| ring.primary(slot) == Some(me);
        let times = (now, self.times);
        let announced = self.announcer.announce(&mut self.records, &mut self.clock, is_primary, times);
        self.tell_owners(announced);
        let is_told = !self.streams.values().any(Stream::has_pending);
        if is_told && std::mem::take(&mut self.holds_more) {
            // What was handed over is the new owners'.
            self.held = self.ring.slots_of(self.me);
            self.records.forget_announced(&self.held);
        }
        if missing.is_empty() && is_told && !self.swept && now.saturating_sub(self.since) >= self.times.lease
        {
            self.swept = true;
            let (ring, me) = (&self.ring, self.me);
            self.records.sweep(ring, |slot| ring.owns(me, slot));
        }
    }

    /// No node stays that would tell it later: what is empty now is vacated. Nothing, as long as this node does not know what
    /// the others have.
    pub(crate) fn vacate_now(&mut self, now: u64) -> Vec<PresenceEvent> {
        let (_, missing) = self.records.completeness(&self.ring, self.me.tag, now, self.times.expiry);
        if !missing.is_empty() {
            return Vec::new();
        }
        let (ring, me) = (&self.ring, self.me);
        let announced = self.announcer.vacate_now(&mut self.records, |slot| ring.owns(me, slot));
        self.tell_owners(announced);
        self.announcer.events()
    }

    fn tell_owners(&mut self, announced: Vec<(Arc<str>, Entry)>) {
        for (namespace, entry) in announced {
            let Some(slot) = slot_of(&namespace, &entry) else { continue };
            for owner in self.ring.owners(slot) {
                if let Some(stream) = self.streams.get_mut(&owner.tag) {
                    stream.push(&namespace, entry.clone());
                }
            }
        }
    }

    /// The owners of a room, the primary first.
    pub(crate) fn owners(&self, namespace: &str, room: &str) -> Vec<NodeTag> {
        self.ring.owners(Slot::of(namespace, room)).map(|owner| owner.tag).collect()
    }

    /// What this node knows of a room, if it is an owner. Its own sockets, and those of whoever asks, are not counted:
    /// each knows its own better.
    pub(crate) fn known(&self, namespace: &str, room: &str, asker: NodeTag, now: u64) -> Option<Known> {
        let me = self.me;
        if !self.ring.owns(me, Slot::of(namespace, room)) {
            return None;
        }
        let (age, mut missing) = self.records.completeness(&self.ring, me.tag, now, self.times.expiry);
        missing.retain(|tag| *tag != asker);
        let sockets = self.records.count_others(&self.ring, [me.tag, asker], namespace, room);
        Some(Known { sockets, age: Duration::from_millis(age), missing })
    }

    /// A page of the rooms of which this node is the primary owner. Another node may speak for what it has itself: so
    /// whoever asks is among the missing, if it has not said everything.
    pub(crate) fn listed(&self, namespace: &str, after: Option<&Room>, limit: usize, now: u64) -> Listed {
        let (age, missing) = self.records.completeness(&self.ring, self.me.tag, now, self.times.expiry);
        let mine = |slot| self.ring.primary(slot) == Some(self.me);
        let rooms = self.records.page(&self.ring, (namespace, after), limit, mine);
        Listed { rooms, age: Duration::from_millis(age), missing }
    }
}

/// What came of a turn.
#[derive(Debug)]
pub(crate) struct Turn {
    pub(crate) events: Vec<PresenceEvent>,
    /// Sockets of dead nodes that this one tells of.
    pub(crate) reaped: u64,
    /// Rooms and sockets that are recorded here.
    pub(crate) records: usize,
}

/// The slot of what an entry says, unless the name is too long to be kept.
fn slot_of(namespace: &str, entry: &Entry) -> Option<Slot> {
    match entry {
        Entry::Socket { id, .. } | Entry::KeptSocket { id, .. } => Some(Slot::of(namespace, id.as_str())),
        Entry::Count { room, .. } | Entry::Announced { room, .. } | Entry::KeptCount { room, .. } => {
            (room.len() <= MAX_NAME).then(|| Slot::of(namespace, room))
        }
    }
}
