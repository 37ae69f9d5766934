//! What happens when the members change: slots move, and what was told of them goes on to their new owners.
//!
//! Owns who tells whom what only others said before. Whoever has it keeps it, and says it again whenever a stream begins
//! anew, until the owner is known to have taken it. Said twice is said once; not said is lost.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::Directory;
use super::records::Sockets;
use super::ring::{Ring, Slot, Slots};
use super::stream::Stream;
use super::update::Entry;
use crate::cluster::message::Identity;
use crate::id::{NodeTag, SocketId};

/// A node whose life is over, and its sockets, which have yet to be told of.
#[derive(Debug)]
pub(super) struct Departed {
    pub(super) node: Identity,
    pub(super) sockets: Sockets,
    /// When it said last that it had told everything to the owners of the day.
    told_at: u64,
    /// What this node had of it was handed over to the owners of the day.
    was_handed: bool,
}

impl Directory {
    /// The live nodes are these, in the order of their tags. A new life of this node knows nothing.
    pub(crate) fn set_members(&mut self, me: Identity, members: Vec<Identity>, now: u64) {
        if me != self.me {
            *self =
                Self { walk: self.walk + 1, last_session: self.last_session, ..Self::new(me, self.times) };
        }
        if members == self.ring.members() {
            return;
        }
        self.records.admit(me);
        let before = std::mem::replace(&mut self.ring, Ring::new(members));
        (self.since, self.swept, self.holds_more) = (now, false, true);
        self.silent.extend(before.members().iter().filter(|member| **member != me));
        self.silent.retain(|member| !self.ring.contains(*member));
        self.streams.retain(|_, stream| self.ring.contains(stream.to));
        for member in self.ring.members().iter().filter(|member| **member != me) {
            self.streams.entry(member.tag).or_insert_with(|| {
                self.last_session += 1;
                Stream::new(*member, self.last_session, now)
            });
        }
        for member in self.ring.members().iter().filter(|member| !before.contains(**member)) {
            self.records.returned(*member);
        }
        let gained = self.move_slots(&before, now);
        self.records.forget_own(me, &self.own);
        self.hand_over(&gained);
        self.walk += 1;
        self.announcer.rescan();
        self.announcer.take_over(&self.ring, now, self.times.expiry.saturating_mul(2));
    }

    /// Finds the new owners. What each gets from this node.
    fn move_slots(&mut self, before: &Ring, now: u64) -> BTreeMap<NodeTag, Slots> {
        let me = self.me;
        // Who does not know enough has no say: what it knows only adds to what others do.
        let claim = std::mem::take(&mut self.is_settled).then_some(self.clock);
        let mut gained: BTreeMap<NodeTag, Slots> = BTreeMap::new();
        for slot in Slot::all() {
            // Both owners before hand over, for the other may be dead already. The first that is left has the say.
            let heir = before.owners(slot).find(|owner| self.ring.contains(*owner));
            let claim = claim.filter(|_| heir == Some(me));
            let (was_mine, is_mine) = (before.owns(me, slot), self.ring.owns(me, slot));
            if was_mine != is_mine {
                self.moved_at[usize::from(slot.number())] = now;
            }
            if is_mine && !was_mine {
                self.own.insert(slot);
            }
            let newcomers = self.ring.owners(slot).filter(|owner| *owner != me && !before.owns(*owner, slot));
            for owner in newcomers {
                let Some(stream) = self.streams.get_mut(&owner.tag) else { continue };
                stream.gain(slot);
                if self.held.contains(slot) {
                    stream.hand_over(slot, claim);
                }
                gained.entry(owner.tag).or_insert_with(Slots::none).insert(slot);
            }
            if is_mine {
                self.held.insert(slot);
            }
        }
        gained
    }

    /// True if what this node has of a silent one may be all that there is: it is an owner, or the silent one never said
    /// that it had told the owners that came after this node.
    fn vouches(&self, of: Identity, slot: Slot) -> bool {
        self.ring.owns(self.me, slot) || !self.records.has_told(of, self.moved_at[usize::from(slot.number())])
    }

    /// Tells owners what this node was told of their new slots and has announced in them.
    fn hand_over(&mut self, gained: &BTreeMap<NodeTag, Slots>) {
        let is_meant = |slot| gained.values().any(|slots| slots.contains(slot));
        let mut entries = Vec::new();
        for (namespace, room, record) in self.records.all().filter(|(.., record)| record.announced.number > 0)
        {
            let slot = Slot::of(namespace, room);
            if self.held.contains(slot) && is_meant(slot) {
                let announced = record.announced;
                let entry = Entry::Announced { room: Arc::clone(room), announced, fresh: false };
                entries.push((slot, Arc::clone(namespace), entry));
            }
        }
        entries.extend(self.of_the_silent(|_, slot| is_meant(slot)));
        for (slot, namespace, entry) in entries {
            for (to, _) in gained.iter().filter(|(_, slots)| slots.contains(slot)) {
                let Some(stream) = self.streams.get_mut(to) else { continue };
                stream.keep(slot);
                stream.push_handed(&namespace, entry.clone());
            }
        }
    }

    /// What silent nodes said to this one, as far as it may be needed.
    fn of_the_silent(&self, is_meant: impl Fn(Identity, Slot) -> bool) -> Vec<(Slot, Arc<str>, Entry)> {
        let mut kept = Vec::new();
        let is_meant = |of, slot| is_meant(of, slot) && self.vouches(of, slot);
        for (namespace, room, record) in self.records.all() {
            for (of, sockets) in self.records.silent_shares(&self.ring, record) {
                let slot = Slot::of(namespace, room);
                if is_meant(of, slot) {
                    let entry = Entry::KeptCount { of, room: Arc::clone(room), sockets };
                    kept.push((slot, Arc::clone(namespace), entry));
                }
            }
        }
        for (of, namespace, id) in self.records.silent_sockets(&self.ring) {
            let slot = Slot::of(namespace, id.as_str());
            if is_meant(of, slot) {
                kept.push((slot, Arc::clone(namespace), Entry::KeptSocket { of, id }));
            }
        }
        kept
    }

    /// Tells the owners of today what this node has of those who fell silent. Some time after that, when the others have
    /// noticed it too: of a member they go by what it says itself.
    pub(super) fn tell_of_the_silent(&mut self, now: u64) {
        let patience = self.times.settle.min(self.times.lease.saturating_sub(self.times.expiry) / 2);
        let cannot_tell = self.streams.values().any(Stream::is_parked);
        if self.silent.is_empty() || cannot_tell || now.saturating_sub(self.since) < patience {
            return;
        }
        let silent = std::mem::take(&mut self.silent);
        for (slot, namespace, entry) in self.of_the_silent(|of, _| silent.contains(&of)) {
            for owner in self.ring.owners(slot).filter(|owner| *owner != self.me) {
                if let Some(stream) = self.streams.get_mut(&owner.tag) {
                    stream.keep(slot);
                    stream.push_handed(&namespace, entry.clone());
                }
            }
        }
    }

    /// A stream begins anew: everything that the owner has to have, and what others said that it may not have taken.
    pub(super) fn restart(&mut self, to: Identity) {
        let Some(stream) = self.streams.get(&to.tag) else { return };
        self.last_session += 1;
        let mut stream = stream.restarted(self.last_session);
        let (mut shared, hands_over) = (Slots::none(), stream.has_pending());
        for slot in Slot::all().filter(|slot| self.ring.owns(to, *slot)) {
            stream.gain(slot);
            // A primary that knows everything has the say, unless it has handed something over that may not have come.
            let is_primary = self.is_settled && !hands_over && self.ring.primary(slot) == Some(self.me);
            if stream.is_pending(slot) || self.ring.owns(self.me, slot) {
                stream.hand_over(slot, is_primary.then_some(self.clock));
                shared.insert(slot);
            }
        }
        self.streams.insert(to.tag, stream);
        self.hand_over(&BTreeMap::from([(to.tag, shared)]));
        self.walk += 1;
    }

    /// A life of a node is over.
    pub(crate) fn gone(&mut self, node: Identity) {
        let told_at = self.records.told_at(node);
        let was_handed = !self.ring.contains(node) && !self.silent.contains(&node);
        if let Some(sockets) = self.records.depart(node) {
            self.departed.push(Departed { node, sockets, told_at, was_handed });
        }
    }

    /// Another node still had a socket of one that is over for this one.
    pub(super) fn gone_with(&mut self, node: Identity, namespace: &Arc<str>, id: SocketId) {
        if self.departed.last().is_none_or(|departed| departed.node != node || departed.told_at > 0) {
            let sockets = Sockets::new();
            self.departed.push(Departed { node, sockets, told_at: 0, was_handed: false });
        }
        if let Some(Departed { sockets, .. }) = self.departed.last_mut() {
            sockets.entry(Arc::clone(namespace)).or_default().insert(id);
        }
    }

    /// Tells that the sockets of those whose life is over are gone, unless it is known that another node does. How many.
    pub(super) fn reap(&mut self, now: u64) -> u64 {
        let mut reaped = 0;
        for Departed { node, sockets, told_at, was_handed } in std::mem::take(&mut self.departed) {
            self.records.forget(node.tag);
            self.announcer.rescan();
            let ids = sockets
                .into_iter()
                .flat_map(|(namespace, ids)| ids.into_iter().map(move |id| (Arc::clone(&namespace), id)));
            for (namespace, id) in ids {
                let slot = Slot::of(&namespace, id.as_str());
                // Of the owners before this node the first that knows: one whose life has only begun does not.
                let before = self.ring.owners(slot).take_while(|owner| *owner != self.me);
                let mut streams = before.filter_map(|owner| self.streams.get(&owner.tag));
                let knows = streams.find(|stream| {
                    let moved_at = self.moved_at[usize::from(slot.number())].max(stream.since);
                    told_at > moved_at || was_handed && !stream.is_pending(slot)
                });
                let teller = knows.map(|stream| stream.to);
                reaped += u64::from(teller.is_none());
                let is_owner = self.ring.owns(self.me, slot);
                self.announcer.socket_gone((namespace, id), is_owner, teller, now);
            }
        }
        reaped
    }
}
