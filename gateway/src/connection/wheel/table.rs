//! The wheel itself: what is due, in slots of one tick each. Must not know time, nor who turns it.

use std::num::NonZeroU32;
use std::task::Waker;

use arrayvec::ArrayVec;
use slab::Slab;

/// A record that is due further ahead waits in the last slot, and is put into another one when its tick comes.
pub(super) const SLOTS: usize = 4096;

/// A record, by the index of its link: those of the slots come first. One for each connection, so that 32 bits are enough
/// for all that fit into memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Record(NonZeroU32);

impl Record {
    fn new(key: usize) -> Self {
        Self(NonZeroU32::MIN.saturating_add((key + SLOTS - 1) as u32))
    }

    fn node(self) -> u32 {
        self.0.get()
    }

    /// Its place among the entries.
    fn key(self) -> usize {
        self.0.get() as usize - SLOTS
    }
}

#[derive(Debug)]
struct Entry {
    waker: Waker,
    due: u64,
}

/// Neighbours in a ring. Each slot is a member of its own ring; alone, it is empty. A record alone is in no slot.
#[derive(Debug, Clone, Copy)]
struct Link {
    next: u32,
    previous: u32,
}

#[derive(Debug)]
pub(super) struct Table {
    entries: Slab<Entry>,
    /// Of the slots, then of the records.
    links: Vec<Link>,
    linked: usize,
    /// The tick up to which everything has been woken.
    passed: u64,
    /// When whoever turns the wheel comes again. Nothing: nobody does.
    pub(super) wakes_at: Option<u64>,
}

impl Default for Table {
    fn default() -> Self {
        let links = (0..SLOTS as u32).map(|slot| Link { next: slot, previous: slot }).collect();
        Self { entries: Slab::new(), links, linked: 0, passed: 0, wakes_at: None }
    }
}

impl Table {
    /// Somebody begins to turn the wheel, which is empty: what has passed meanwhile need not be gone through.
    pub(super) fn begin(&mut self, now: u64) {
        debug_assert_eq!(self.linked, 0, "the wheel is turned while something is set");
        self.passed = self.passed.max(now);
    }

    /// Puts a record, which is made if there is none, into the slot of its tick. Returns the waker that it had, if that was
    /// another task's.
    pub(super) fn set(&mut self, record: &mut Option<Record>, due: u64, waker: &Waker) -> Option<Waker> {
        let Some(record) = *record else {
            let made = Record::new(self.entries.insert(Entry { waker: waker.clone(), due }));
            let node = made.node();
            if node as usize == self.links.len() {
                self.links.push(Link { next: node, previous: node });
            }
            self.link(node, due);
            *record = Some(made);
            return None;
        };
        let entry = &mut self.entries[record.key()];
        entry.due = due;
        let replaced =
            (!entry.waker.will_wake(waker)).then(|| std::mem::replace(&mut entry.waker, waker.clone()));
        self.unlink(record.node());
        self.link(record.node(), due);
        replaced
    }

    pub(super) fn remove(&mut self, record: Record) -> Waker {
        self.unlink(record.node());
        self.entries.remove(record.key()).waker
    }

    /// Takes what is due out of the slots. False after as many records as `due` has room for: there may be more.
    pub(super) fn advance<const N: usize>(&mut self, now: u64, due: &mut ArrayVec<Waker, N>) -> bool {
        let mut looks = N;
        while self.passed < now && self.linked > 0 {
            let tick = self.passed + 1;
            let slot = slot(tick);
            while self.links[slot as usize].next != slot {
                if looks == 0 {
                    return false;
                }
                looks -= 1;
                let node = self.links[slot as usize].next;
                self.unlink(node);
                let entry = &self.entries[node as usize - SLOTS];
                if entry.due <= tick {
                    due.push(entry.waker.clone());
                } else {
                    self.link(node, entry.due);
                }
            }
            self.passed = tick;
        }
        self.passed = self.passed.max(now);
        true
    }

    /// The next tick at which there is something to look at.
    pub(super) fn next(&self) -> Option<u64> {
        let is_filled = |tick: &u64| self.links[slot(*tick) as usize].next != slot(*tick);
        (self.linked > 0).then(|| (self.passed + 1..).take(SLOTS).find(is_filled)).flatten()
    }

    /// Empties all slots: who is to be woken for it.
    pub(super) fn clear(&mut self) -> Vec<Waker> {
        let mut lost = Vec::new();
        for (key, entry) in &self.entries {
            let node = Record::new(key).node();
            if self.links[node as usize].next != node {
                lost.push(entry.waker.clone());
            }
            self.links[node as usize] = Link { next: node, previous: node };
        }
        (0..SLOTS as u32).for_each(|slot| self.links[slot as usize] = Link { next: slot, previous: slot });
        self.linked = 0;
        lost
    }

    fn link(&mut self, node: u32, due: u64) {
        let slot = slot(due.clamp(self.passed + 1, self.passed + SLOTS as u64));
        let last = self.links[slot as usize].previous;
        self.links[node as usize] = Link { next: slot, previous: last };
        self.links[last as usize].next = node;
        self.links[slot as usize].previous = node;
        self.linked += 1;
    }

    fn unlink(&mut self, node: u32) {
        let Link { next, previous } = self.links[node as usize];
        if next != node {
            self.links[previous as usize].next = next;
            self.links[next as usize].previous = previous;
            self.links[node as usize] = Link { next: node, previous: node };
            self.linked -= 1;
        }
    }
}

fn slot(tick: u64) -> u32 {
    (tick % SLOTS as u64) as u32
}
