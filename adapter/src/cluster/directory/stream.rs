//! What this node still has to tell one owner: a queue, and the slots of which it has to tell everything.
//!
//! Owns the order and the numbers of one stream. A stream that lost something, or has too much to say, begins anew.

use std::collections::VecDeque;
use std::sync::Arc;

use super::ring::{Slot, Slots};
use super::update::{Entry, Part, Update};
use crate::cluster::message::Identity;

/// Entries that may wait beside what was handed over; with more, the stream begins anew, at the pace of the walk.
pub(super) const MAX_QUEUE: usize = 262_144;
/// No walk goes on while more entries wait.
const PAUSE_AT: usize = 16_384;
/// Bytes of an update that are no entries: numbers and a namespace.
const FRAME: usize = 64;

#[derive(Debug)]
pub(super) struct Stream {
    pub(super) to: Identity,
    /// When the owner became a member.
    pub(super) since: u64,
    session: u64,
    number: u64,
    queue: VecDeque<(Arc<str>, Entry)>,
    /// Entries that were handed over. Beginning anew would only bring them again.
    handed: usize,
    reset: Vec<Slot>,
    authority: Vec<Slot>,
    /// The slots that were handed over. Until the owner has taken it all, it is told again when the stream begins anew.
    pending: Slots,
    /// Those among them in which the owner is to forget what it has, up to this number of an occupation.
    claims: Slots,
    handover: u64,
    /// The update with which all is told that was handed over.
    told_with: Option<u64>,
    /// The slots that are being walked for it.
    pub(super) todo: Slots,
    /// The ring for which the owner was told that it has everything.
    said: u64,
    sent_at: u64,
    /// It has something to tell that it does not keep, for it will begin anew.
    parked: bool,
}

impl Stream {
    /// A stream that has nothing to tell yet.
    pub(super) fn new(to: Identity, session: u64, since: u64) -> Self {
        Self {
            to,
            since,
            session,
            number: 0,
            queue: VecDeque::new(),
            handed: 0,
            reset: Vec::new(),
            authority: Vec::new(),
            pending: Slots::none(),
            claims: Slots::none(),
            handover: 0,
            told_with: None,
            todo: Slots::none(),
            said: 0,
            sent_at: 0,
            parked: false,
        }
    }

    pub(super) fn session(&self) -> u64 {
        self.session
    }

    /// How far it was told: its session, and the number of the next update.
    #[cfg(test)]
    pub(super) fn told(&self) -> (u64, u64) {
        (self.session, self.number)
    }

    pub(super) fn push(&mut self, namespace: &Arc<str>, entry: Entry) {
        if !self.parked {
            self.queue.push_back((Arc::clone(namespace), entry));
        }
    }

    /// Like `push`, of what this node was told or has announced: no walk brings it.
    pub(super) fn push_handed(&mut self, namespace: &Arc<str>, entry: Entry) {
        self.handed += usize::from(!self.parked);
        self.push(namespace, entry);
    }

    /// Begins anew under another session.
    pub(super) fn restarted(&self, session: u64) -> Self {
        let (pending, claims) = (self.pending.clone(), self.claims.clone());
        Self { pending, claims, handover: self.handover, ..Self::new(self.to, session, self.since) }
    }

    /// It will begin anew, but not yet: forgets what that brings again, and takes no more until then.
    pub(super) fn park(&mut self) {
        self.parked = true;
        (self.queue, self.handed) = (VecDeque::new(), 0);
        (self.reset, self.authority) = (Vec::new(), Vec::new());
        self.todo.clear();
    }

    pub(super) fn is_parked(&self) -> bool {
        self.parked
    }

    /// The owner gets a slot: everything of it will be told.
    pub(super) fn gain(&mut self, slot: Slot) {
        self.told_with = None;
        if !self.parked {
            self.todo.insert(slot);
            self.reset.push(slot);
        }
    }

    /// What this node was told of a slot is told to the owner. With a number the owner is to forget what was announced up
    /// to it: this node knows better.
    pub(super) fn hand_over(&mut self, slot: Slot, claim: Option<u64>) {
        self.keep(slot);
        if let Some(number) = claim {
            self.handover = if self.claims.is_empty() { number } else { self.handover.min(number) };
            self.claims.insert(slot);
        }
        if self.claims.contains(slot) && !self.parked {
            self.authority.push(slot);
        }
    }

    /// What is told of a slot next is told again when the stream begins anew, until the owner has taken it.
    pub(super) fn keep(&mut self, slot: Slot) {
        self.told_with = None;
        self.pending.insert(slot);
    }

    /// True until the owner is known to have what was handed over of a slot.
    pub(super) fn is_pending(&self, slot: Slot) -> bool {
        self.pending.contains(slot)
    }

    pub(super) fn has_pending(&self) -> bool {
        !self.pending.is_empty()
    }

    /// The owner has taken so many updates of a session.
    pub(super) fn taken(&mut self, (session, next): (u64, u64)) {
        if session == self.session && self.told_with.is_some_and(|number| next > number) {
            self.pending.clear();
            self.claims.clear();
        }
    }

    pub(super) fn has_too_much(&self) -> bool {
        self.queue.len() > MAX_QUEUE + self.handed
    }

    /// True while it should not be given more of a walk.
    pub(super) fn is_full(&self) -> bool {
        self.queue.len() > PAUSE_AT
    }

    pub(super) fn is_idle(&self) -> bool {
        self.queue.is_empty() && self.reset.is_empty()
    }

    /// The next update, if there is something to say or nothing was said for `heartbeat`. The queue is empty again, or
    /// the update is about as long as it may be.
    pub(super) fn next(&mut self, frame: &Frame, now: u64, taken: (u64, u64)) -> Option<Update> {
        if self.parked {
            return None;
        }
        let walked = self.todo.is_empty();
        let is_news = self.queue.is_empty() && walked && self.said != frame.ring;
        let is_due = self.number == 0 || now.saturating_sub(self.sent_at) >= frame.heartbeat;
        if self.is_idle() && !is_news && !is_due {
            return None;
        }
        let (reset, authority) = (std::mem::take(&mut self.reset), std::mem::take(&mut self.authority));
        let mut parts: Vec<Part> = Vec::new();
        let mut size = FRAME + 2 * (reset.len() + authority.len());
        while let Some((namespace, entry)) = self.queue.front() {
            let is_same = parts.last().is_some_and(|part| part.namespace == *namespace);
            size += entry.size() + if is_same { 0 } else { namespace.len() + 8 };
            if size > frame.max_bytes && !parts.is_empty() {
                break;
            }
            let Some((namespace, entry)) = self.queue.pop_front() else { break };
            match parts.last_mut().filter(|_| is_same) {
                Some(part) => part.entries.push(entry),
                None => parts.push(Part { namespace, entries: vec![entry] }),
            }
        }
        if self.queue.is_empty() && self.queue.capacity() > PAUSE_AT {
            self.queue = VecDeque::new();
        }
        if self.queue.is_empty() {
            self.handed = 0;
        }
        let ring = if self.queue.is_empty() && walked { frame.ring } else { 0 };
        let (session, number, clock) = (self.session, self.number, frame.clock);
        let handover = self.handover;
        Some(Update { session, number, ring, clock, reset, authority, handover, taken, parts })
    }

    /// An update is on its way.
    pub(super) fn sent(&mut self, session: u64, ring: u64, now: u64) {
        if session != self.session {
            return;
        }
        if ring != 0 && self.told_with.is_none() {
            self.told_with = Some(self.number);
        }
        self.number += 1;
        (self.said, self.sent_at) = (ring, now);
    }

    /// An update could not be sent: what it said comes first next time.
    pub(super) fn unsent(&mut self, update: Update) {
        if update.session != self.session || self.parked {
            return;
        }
        for Part { namespace, entries } in update.parts.into_iter().rev() {
            for entry in entries.into_iter().rev() {
                self.queue.push_front((Arc::clone(&namespace), entry));
            }
        }
        (self.reset, self.authority) = (update.reset, update.authority);
    }
}

/// What is the same for all streams at a time.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Frame {
    pub(crate) ring: u64,
    pub(crate) clock: u64,
    pub(crate) max_bytes: usize,
    /// In milliseconds.
    pub(crate) heartbeat: u64,
}
