//! What an owner knows: who has how many sockets in which room, and which sockets each node has.
//!
//! Owns the records and the streams that fill them, by sender. Knows neither what is to be announced nor who asks.
//! Everything is ordered, so that it is the same in every run, can be read in pages, and never grows by rebuilding.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::sync::Arc;

use super::ring::{Ring, Slot, Slots};
use super::update::{Announced, Entry, Update};
use crate::cluster::message::Identity;
use crate::id::{NodeTag, SocketId};
use crate::selector::Room;

pub(super) type Sockets = BTreeMap<Arc<str>, BTreeSet<SocketId>>;
type Rooms = BTreeMap<Room, Record>;

/// How many sockets each node has in a room. Most rooms live on one node.
#[expect(
    clippy::box_collection,
    reason = "a record is smaller by the length of a vector, and there are many"
)]
#[derive(Debug, Default, PartialEq)]
enum Shares {
    #[default]
    None,
    One(NodeTag, u32),
    Many(Box<Vec<(NodeTag, u32)>>),
}

impl Shares {
    fn set(&mut self, node: NodeTag, sockets: u32) {
        match self {
            Self::None if sockets > 0 => *self = Self::One(node, sockets),
            Self::None => {}
            Self::One(of, own) if *of == node => *own = sockets,
            Self::One(..) if sockets == 0 => {}
            Self::One(of, own) => *self = Self::Many(Box::new(vec![(*of, *own), (node, sockets)])),
            Self::Many(all) => {
                all.retain(|(of, _)| *of != node);
                if sockets > 0 {
                    all.push((node, sockets));
                }
                if let [(of, own)] = ***all {
                    *self = Self::One(of, own);
                }
            }
        }
        if matches!(self, Self::One(_, 0)) {
            *self = Self::None;
        }
    }

    fn iter(&self) -> impl Iterator<Item = (NodeTag, u32)> + '_ {
        let (one, many) = match self {
            Self::None => (None, &[][..]),
            Self::One(node, sockets) => (Some((*node, *sockets)), &[][..]),
            Self::Many(all) => (None, all.as_slice()),
        };
        one.into_iter().chain(many.iter().copied())
    }
}

/// One room.
#[derive(Debug, Default)]
pub(super) struct Record {
    shares: Shares,
    pub(super) announced: Announced,
    /// When to announce that it is empty, if it still is.
    pub(super) vacate_at: Option<std::num::NonZeroU64>,
    /// Is in the queue of those that will be vacated, once however often it was empty.
    pub(super) queued: bool,
}

impl Record {
    /// True if no node has a socket in it, the silent ones among them.
    pub(super) fn is_empty(&self) -> bool {
        self.shares == Shares::None
    }

    /// True if there is nothing to know of it.
    fn is_void(&self) -> bool {
        self.is_empty() && self.announced == Announced::default()
    }

    /// Forgets what was announced: others have the say, or it was long ago.
    pub(super) fn disclaim(&mut self) {
        self.announced = Announced::default();
    }
}

/// A node that has said something.
#[derive(Debug, Default)]
struct Sender {
    generation: u64,
    session: u64,
    /// The number of the next update.
    next: u64,
    /// The ring for which it has said everything.
    ring: u64,
    /// When it last had, in milliseconds of this node.
    heard_at: u64,
    /// When it last had for the ring of this node.
    complete_at: u64,
    sockets: Sockets,
    /// Sockets that it has not named again since it began anew. They count as its own until it is done.
    stale: Sockets,
    /// Others said what they had kept of it since it began.
    was_kept: bool,
    /// That may be older than what it had said itself: it has to begin anew.
    is_doubted: bool,
}

/// What became of an update.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Receipt {
    Taken,
    /// Late, or a copy.
    Ignored,
    /// Something before it got lost: the sender has to begin anew.
    Gap,
    /// It says what no node says.
    Malformed,
}

/// A room that may have become occupied or empty.
pub(super) type Touched = (Arc<str>, Room);

#[derive(Debug, Default)]
pub(super) struct Records {
    senders: BTreeMap<NodeTag, Sender>,
    rooms: BTreeMap<Arc<str>, Rooms>,
}

impl Records {
    /// True if the update is the next of its stream. Its entries follow one by one.
    pub(super) fn open(&mut self, from: Identity, update: &Update) -> Receipt {
        let sender = self.senders.entry(from.tag).or_default();
        if sender.session == 0 {
            sender.generation = sender.generation.max(from.generation);
        }
        let is_new = update.session > sender.session;
        if sender.generation != from.generation || update.session < sender.session {
            return Receipt::Ignored;
        }
        if is_new && update.number == 0 {
            (sender.session, sender.next, sender.ring) = (update.session, 0, 0);
            (sender.was_kept, sender.is_doubted) = (false, false);
            let sockets = std::mem::take(&mut sender.sockets);
            keep_stale(&mut sender.stale, sockets, |_| true);
            self.forget_shares(from.tag, |_| true);
        } else if is_new || sender.is_doubted || update.number > sender.next {
            sender.ring = 0;
            return Receipt::Gap;
        } else if update.number < sender.next {
            return Receipt::Ignored;
        }
        if let Some(sender) = self.senders.get_mut(&from.tag) {
            sender.next += 1;
        }
        self.reset(from.tag, &update.reset);
        Receipt::Taken
    }

    fn reset(&mut self, tag: NodeTag, slots: &[Slot]) {
        if slots.is_empty() {
            return;
        }
        let mut set = Slots::none();
        slots.iter().for_each(|slot| set.insert(*slot));
        if let Some(sender) = self.senders.get_mut(&tag) {
            let sockets = std::mem::take(&mut sender.sockets);
            sender.sockets = keep_stale(&mut sender.stale, sockets, |slot| set.contains(slot));
        }
        self.forget_shares(tag, |slot| set.contains(slot));
    }

    /// This node walks over what it has of these slots: what is recorded of it there may be from before it lost them.
    pub(super) fn forget_own(&mut self, me: Identity, slots: &Slots) {
        if slots.is_empty() {
            return;
        }
        if let Some(sender) = self.senders.get_mut(&me.tag) {
            for (namespace, ids) in &mut sender.sockets {
                ids.retain(|id| !slots.contains(Slot::of(namespace, id.as_str())));
            }
        }
        self.forget_shares(me.tag, |slot| slots.contains(slot));
    }

    /// How far the stream of a node was taken.
    pub(super) fn taken(&self, tag: NodeTag) -> (u64, u64) {
        self.senders.get(&tag).map_or((0, 0), |sender| (sender.session, sender.next))
    }

    /// An update was taken in whole.
    pub(super) fn close(&mut self, from: Identity, said: u64, ring: &Ring, now: u64) {
        let Some(sender) = self.senders.get_mut(&from.tag) else { return };
        sender.ring = said;
        if said != 0 {
            sender.heard_at = now;
        }
        if said == ring.hash() {
            sender.complete_at = now;
            sender.stale.clear();
        }
    }

    /// When a node had said everything itself for the ring of this one, last. 0: never.
    pub(super) fn told_at(&self, of: Identity) -> u64 {
        let sender = self.senders.get(&of.tag).filter(|sender| sender.generation == of.generation);
        sender.map_or(0, |sender| sender.complete_at)
    }

    /// True if it has since then.
    pub(super) fn has_told(&self, of: Identity, since: u64) -> bool {
        self.told_at(of) > since
    }

    /// Takes what a node says of its own sockets. The room, if it became occupied or empty by that.
    pub(super) fn put(&mut self, from: Identity, namespace: &Arc<str>, entry: Entry) -> Option<Touched> {
        match entry {
            Entry::Count { room, sockets } => self.set_share(from.tag, namespace, room, sockets),
            Entry::Socket { id, here } => {
                let sender = self.senders.entry(from.tag).or_default();
                sender.generation = sender.generation.max(from.generation);
                if let Some(stale) = sender.stale.get_mut(namespace) {
                    stale.remove(&id);
                }
                if here {
                    sender.sockets.entry(Arc::clone(namespace)).or_default().insert(id);
                } else if let Some(sockets) = sender.sockets.get_mut(namespace) {
                    sockets.remove(&id);
                }
                None
            }
            Entry::Announced { .. } | Entry::KeptCount { .. } | Entry::KeptSocket { .. } => None,
        }
    }

    /// Takes what another owner kept of a silent node.
    pub(super) fn keep(&mut self, namespace: &Arc<str>, entry: Entry) -> Option<Touched> {
        let (Entry::KeptCount { of, .. } | Entry::KeptSocket { of, .. }) = entry else { return None };
        let sender = self.senders.entry(of.tag).or_default();
        if sender.generation > of.generation {
            return None;
        }
        sender.generation = of.generation;
        match entry {
            Entry::KeptCount { room, sockets, .. } => {
                sender.was_kept = true;
                self.set_share(of.tag, namespace, room, sockets)
            }
            Entry::KeptSocket { id, .. } => {
                sender.stale.entry(Arc::clone(namespace)).or_default().insert(id);
                None
            }
            _ => None,
        }
    }

    fn set_share(&mut self, tag: NodeTag, namespace: &Arc<str>, room: Room, sockets: u32) -> Option<Touched> {
        if sockets == 0 {
            let record = self.get_mut(namespace, &room)?;
            let was_empty = record.is_empty();
            record.shares.set(tag, 0);
            return (!was_empty && record.is_empty()).then(|| (Arc::clone(namespace), room));
        }
        let record =
            self.rooms.entry(Arc::clone(namespace)).or_default().entry(Arc::clone(&room)).or_default();
        let was_empty = record.is_empty();
        record.shares.set(tag, sockets);
        was_empty.then(|| (Arc::clone(namespace), room))
    }

    fn forget_shares(&mut self, tag: NodeTag, slots: impl Fn(Slot) -> bool) {
        for (namespace, rooms) in &mut self.rooms {
            rooms.retain(|room, record| {
                if slots(Slot::of(namespace, room)) {
                    record.shares.set(tag, 0);
                }
                !record.is_void()
            });
        }
    }

    /// A life of a node is over. Its sockets; its shares remain until `forget`.
    pub(super) fn depart(&mut self, node: Identity) -> Option<Sockets> {
        self.senders.get(&node.tag).filter(|sender| sender.generation <= node.generation)?;
        let Sender { mut sockets, stale, .. } = self.senders.remove(&node.tag)?;
        for (namespace, ids) in stale {
            sockets.entry(namespace).or_default().extend(ids);
        }
        Some(sockets)
    }

    /// Forgets the shares of a node, unless it has said something since it departed: then they are its new ones.
    pub(super) fn forget(&mut self, tag: NodeTag) {
        if !self.senders.contains_key(&tag) {
            self.forget_shares(tag, |_| true);
        }
    }

    /// The life of a node that is known.
    pub(super) fn identity(&self, tag: NodeTag) -> Option<Identity> {
        self.senders.get(&tag).map(|sender| Identity { tag, generation: sender.generation })
    }

    pub(super) fn get(&self, namespace: &str, room: &str) -> Option<&Record> {
        self.rooms.get(namespace)?.get(room)
    }

    pub(super) fn get_mut(&mut self, namespace: &str, room: &str) -> Option<&mut Record> {
        self.rooms.get_mut(namespace)?.get_mut(room)
    }

    /// The record of a room, made if there is none.
    pub(super) fn record(&mut self, namespace: &Arc<str>, room: &Room) -> &mut Record {
        self.rooms.entry(Arc::clone(namespace)).or_default().entry(Arc::clone(room)).or_default()
    }

    /// Forgets a room of which there is nothing to know.
    pub(super) fn tidy(&mut self, namespace: &str, room: &str) {
        if let Some(rooms) = self.rooms.get_mut(namespace)
            && rooms.get(room).is_some_and(Record::is_void)
        {
            rooms.remove(room);
        }
    }

    /// All rooms with their namespaces.
    pub(super) fn all(&self) -> impl Iterator<Item = (&Arc<str>, &Room, &Record)> {
        self.rooms
            .iter()
            .flat_map(|(namespace, rooms)| rooms.iter().map(move |(room, record)| (namespace, room, record)))
    }

    pub(super) fn all_mut(&mut self) -> impl Iterator<Item = (&Arc<str>, &Room, &mut Record)> {
        self.rooms.iter_mut().flat_map(|(namespace, rooms)| {
            rooms.iter_mut().map(move |(room, record)| (namespace, room, record))
        })
    }

    /// The shares of the nodes that are not of the ring: they are silent, and may come back.
    pub(super) fn silent_shares<'r>(
        &'r self,
        ring: &'r Ring,
        record: &'r Record,
    ) -> impl Iterator<Item = (Identity, u32)> + 'r {
        let shares = record.shares.iter().filter_map(|(tag, sockets)| Some((self.identity(tag)?, sockets)));
        shares.filter(|(node, _)| !ring.contains(*node))
    }

    /// The sockets of the nodes that are not of the ring.
    pub(super) fn silent_sockets<'r>(
        &'r self,
        ring: &'r Ring,
    ) -> impl Iterator<Item = (Identity, &'r Arc<str>, SocketId)> + 'r {
        let senders = self.senders.iter().filter_map(|(tag, sender)| Some((self.identity(*tag)?, sender)));
        senders.filter(|(node, _)| !ring.contains(*node)).flat_map(|(node, sender)| {
            let spaces = sender.sockets.iter().chain(&sender.stale);
            spaces.flat_map(move |(namespace, ids)| ids.iter().map(move |id| (node, namespace, *id)))
        })
    }

    /// This node speaks for itself.
    pub(super) fn admit(&mut self, me: Identity) {
        self.senders.entry(me.tag).or_default().generation = me.generation;
    }

    /// A silent node is a member again. It may have gone on telling this node, which it never left out, and have said before
    /// that a room is empty what others say now to be occupied: it will not say so again.
    pub(super) fn returned(&mut self, node: Identity) {
        let sender = self.senders.get_mut(&node.tag).filter(|sender| sender.generation == node.generation);
        if let Some(sender) = sender.filter(|sender| sender.was_kept) {
            (sender.is_doubted, sender.ring) = (true, 0);
        }
    }

    /// The sockets of live nodes in a room, those of `me` not counted.
    pub(super) fn count_others(&self, ring: &Ring, not: [NodeTag; 2], namespace: &str, room: &str) -> u64 {
        let is_live = |tag: NodeTag| {
            !not.contains(&tag) && self.identity(tag).is_some_and(|identity| ring.contains(identity))
        };
        let shares = self.get(namespace, room).into_iter().flat_map(|record| record.shares.iter());
        let joined: u64 =
            shares.filter(|(tag, _)| is_live(*tag)).map(|(_, sockets)| u64::from(sockets)).sum();
        // The socket of that name is in it by being there.
        let own = room.parse::<SocketId>().ok().filter(|id| {
            let sender = self.senders.get(&id.node()).filter(|_| is_live(id.node()));
            let spaces = sender.into_iter().flat_map(|sender| [&sender.sockets, &sender.stale]);
            spaces.into_iter().any(|space| space.get(namespace).is_some_and(|ids| ids.contains(id)))
        });
        joined + u64::from(own.is_some())
    }

    /// The first rooms behind `after` in which live nodes have sockets, among those of some slots.
    pub(super) fn page(
        &self,
        ring: &Ring,
        (namespace, after): (&str, Option<&Room>),
        limit: usize,
        mine: impl Fn(Slot) -> bool,
    ) -> Vec<(Room, u64)> {
        let is_live = |tag| self.identity(tag).is_some_and(|identity| ring.contains(identity));
        let begin = after.map_or(Bound::Unbounded, Bound::Excluded);
        let rooms = self.rooms.get(namespace).into_iter();
        let rooms = rooms.flat_map(|rooms| rooms.range::<Room, _>((begin, Bound::Unbounded)));
        let counted = rooms.filter(|(room, _)| mine(Slot::of(namespace, room))).map(|(room, record)| {
            let live = record.shares.iter().filter(|(tag, _)| is_live(*tag));
            (Arc::clone(room), live.map(|(_, sockets)| u64::from(sockets)).sum())
        });
        counted.filter(|(_, sockets)| *sockets > 0).take(limit).collect()
    }

    /// How old what the other members said is, and who has not said everything or not for `patience`.
    pub(super) fn completeness(
        &self,
        ring: &Ring,
        me: NodeTag,
        now: u64,
        patience: u64,
    ) -> (u64, Vec<NodeTag>) {
        let (mut age, mut missing) = (0, Vec::new());
        for member in ring.members().iter().filter(|member| member.tag != me) {
            let sender =
                self.senders.get(&member.tag).filter(|sender| sender.generation == member.generation);
            let silence = sender.map_or(0, |sender| now.saturating_sub(sender.heard_at));
            match sender {
                Some(sender) if sender.ring == ring.hash() && silence < patience => age = age.max(silence),
                _ => missing.push(member.tag),
            }
        }
        (age, missing)
    }

    /// Forgets what was announced in other slots than these. To who gets them back later it would be old.
    pub(super) fn forget_announced(&mut self, but: &Slots) {
        for (namespace, rooms) in &mut self.rooms {
            rooms.retain(|room, record| {
                if !but.contains(Slot::of(namespace, room)) {
                    record.disclaim();
                }
                !record.is_void()
            });
        }
    }

    /// Lets go of what this node does not own and every member knows that it does not.
    pub(super) fn sweep(&mut self, ring: &Ring, mine: impl Fn(Slot) -> bool) {
        let live: BTreeSet<_> = self
            .senders
            .iter()
            .filter(|(tag, sender)| ring.contains(Identity { tag: **tag, generation: sender.generation }))
            .map(|(tag, _)| *tag)
            .collect();
        for (namespace, rooms) in &mut self.rooms {
            rooms.retain(|room, record| {
                if !mine(Slot::of(namespace, room)) {
                    live.iter().for_each(|tag| record.shares.set(*tag, 0));
                    record.disclaim();
                }
                !record.is_void()
            });
        }
        for (_, sender) in self.senders.iter_mut().filter(|(tag, _)| live.contains(tag)) {
            for (namespace, ids) in sender.sockets.iter_mut().chain(&mut sender.stale) {
                ids.retain(|id| mine(Slot::of(namespace, id.as_str())));
            }
        }
    }

    /// The number of rooms and sockets that are recorded.
    pub(super) fn len(&self) -> usize {
        let sockets = self.senders.values().flat_map(|sender| sender.sockets.values());
        self.rooms.values().map(BTreeMap::len).sum::<usize>() + sockets.map(BTreeSet::len).sum::<usize>()
    }
}

/// Moves the sockets in some slots to those that were not named again. The others.
fn keep_stale(stale: &mut Sockets, sockets: Sockets, slots: impl Fn(Slot) -> bool) -> Sockets {
    let mut others = Sockets::new();
    for (namespace, ids) in sockets {
        let (void, kept): (BTreeSet<_>, _) =
            ids.into_iter().partition(|id| slots(Slot::of(&namespace, id.as_str())));
        stale.entry(Arc::clone(&namespace)).or_default().extend(void);
        others.insert(namespace, kept);
    }
    others
}
