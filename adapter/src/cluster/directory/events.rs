//! What is announced: rooms that became occupied or vacated, and sockets that are gone with their node.
//!
//! Owns when to tell, and what to tell again should the node that had to tell it have died. Who tells is the ring's.

use std::collections::VecDeque;
use std::num::NonZeroU64;
use std::sync::Arc;

use indexmap::IndexSet;
use rustc_hash::FxBuildHasher;

use super::Times;
use super::records::{Records, Touched};
use super::ring::{Ring, Slot};
use super::update::{Announced, Entry};
use crate::cluster::message::Identity;
use crate::id::SocketId;
use crate::presence::PresenceEvent;
use crate::selector::Room;

/// Events of other primaries that are kept. The oldest are let go first.
const MAX_RECENT: usize = 65_536;

/// Rooms that were vacated and are remembered. The oldest are forgotten first.
const MAX_VACATED: usize = 65_536;

/// An event that another node has to tell.
#[derive(Debug)]
struct Recent {
    at: u64,
    primary: Identity,
    event: PresenceEvent,
}

#[derive(Debug, Default)]
pub(super) struct Announcer {
    /// Rooms to look at. Empty while all have to be looked at.
    touched: IndexSet<Touched, FxBuildHasher>,
    /// All rooms have to be looked at: who owns them, or what is known of them, has changed as a whole.
    rescan: bool,
    /// When to look at a room that became empty.
    vacating: VecDeque<(u64, Touched)>,
    /// Until when to remember that a room was vacated, and by which announcement: for as long as a node can be left out and
    /// come back, to which it may still be occupied.
    vacated: VecDeque<(u64, Touched, Announced)>,
    recent: VecDeque<Recent>,
    events: Vec<PresenceEvent>,
}

impl Announcer {
    pub(super) fn touch(&mut self, touched: Option<Touched>) {
        if !self.rescan {
            self.touched.extend(touched);
        }
    }

    pub(super) fn rescan(&mut self) {
        self.rescan = true;
        self.touched.clear();
    }

    /// Looks at what has changed. The announcements, for the other owners.
    pub(super) fn announce(
        &mut self,
        records: &mut Records,
        clock: &mut u64,
        primary: impl Fn(Slot) -> bool,
        (now, times): (u64, Times),
    ) -> Vec<(Arc<str>, Entry)> {
        let mut announcements = Vec::new();
        if std::mem::take(&mut self.rescan) {
            let all = records.all().map(|(namespace, room, _)| (Arc::clone(namespace), Arc::clone(room)));
            self.touched = all.collect();
        }
        for (namespace, room) in std::mem::take(&mut self.touched) {
            if !primary(Slot::of(&namespace, &room)) {
                records.tidy(&namespace, &room);
                continue;
            }
            let Some(record) = records.get_mut(&namespace, &room) else { continue };
            if record.is_empty() {
                if record.announced.occupied && record.vacate_at.is_none() {
                    let at = now.saturating_add(times.vacate_after).max(1);
                    record.vacate_at = NonZeroU64::new(at);
                    if !std::mem::replace(&mut record.queued, true) {
                        self.vacating.push_back((at, (Arc::clone(&namespace), Arc::clone(&room))));
                    }
                }
                records.tidy(&namespace, &room);
                continue;
            }
            record.vacate_at = None;
            if !record.announced.occupied {
                *clock = clock.saturating_add(1);
                record.announced = Announced { number: *clock, occupied: true };
                self.tell(&namespace, &room, record.announced, &mut announcements);
            }
        }
        self.vacate(records, primary, (now, times), &mut announcements);
        announcements
    }

    fn vacate(
        &mut self,
        records: &mut Records,
        primary: impl Fn(Slot) -> bool,
        (now, times): (u64, Times),
        announcements: &mut Vec<(Arc<str>, Entry)>,
    ) {
        while self.vacating.front().is_some_and(|(at, _)| *at <= now) {
            let Some((_, (namespace, room))) = self.vacating.pop_front() else { break };
            let Some(record) = records.get_mut(&namespace, &room) else { continue };
            record.queued = false;
            let Some(at) = record.vacate_at.map(NonZeroU64::get) else { continue };
            if at > now {
                // It was occupied and empty again meanwhile.
                record.queued = true;
                self.vacating.push_back((at, (namespace, room)));
                continue;
            }
            record.vacate_at = None;
            if primary(Slot::of(&namespace, &room)) && record.is_empty() && record.announced.occupied {
                record.announced.occupied = false;
                let announced = record.announced;
                self.tell(&namespace, &room, announced, announcements);
                self.remember_vacated((namespace, room), announced, now.saturating_add(times.lease));
            }
        }
    }

    /// A room was vacated, by this node or another one.
    pub(super) fn remember_vacated(&mut self, room: Touched, announced: Announced, until: u64) {
        self.vacated.push_back((until, room, announced));
    }

    /// Forgets the rooms that were vacated long enough ago, and the oldest of too many.
    pub(super) fn forget_vacated(&mut self, records: &mut Records, now: u64) {
        while self.vacated.len() > MAX_VACATED
            || self.vacated.front().is_some_and(|(until, ..)| *until <= now)
        {
            let Some((_, (namespace, room), announced)) = self.vacated.pop_front() else { break };
            if let Some(record) =
                records.get_mut(&namespace, &room).filter(|record| record.announced == announced)
            {
                record.disclaim();
            }
            records.tidy(&namespace, &room);
        }
    }

    /// Nobody stays who would tell it later: rooms that are empty are vacated now. Of those that this node owns, as the primary
    /// may have ended already.
    pub(super) fn vacate_now(
        &mut self,
        records: &mut Records,
        owns: impl Fn(Slot) -> bool,
    ) -> Vec<(Arc<str>, Entry)> {
        let mut announcements = Vec::new();
        for (namespace, room, record) in records.all_mut() {
            if record.is_empty() && record.announced.occupied && owns(Slot::of(namespace, room)) {
                record.announced.occupied = false;
                self.tell(namespace, room, record.announced, &mut announcements);
            }
        }
        announcements
    }

    fn tell(
        &mut self,
        namespace: &Arc<str>,
        room: &Room,
        announced: Announced,
        announcements: &mut Vec<(Arc<str>, Entry)>,
    ) {
        self.events.push(event_of(namespace, room, announced));
        let entry = Entry::Announced { room: Arc::clone(room), announced, fresh: true };
        announcements.push((Arc::clone(namespace), entry));
    }

    /// Another owner announced something.
    pub(super) fn heard(
        &mut self,
        (namespace, room): (&Arc<str>, &Room),
        announced: Announced,
        primary: Identity,
        now: u64,
    ) {
        self.remember(Recent { at: now, primary, event: event_of(namespace, room, announced) });
    }

    fn remember(&mut self, recent: Recent) {
        if self.recent.len() == MAX_RECENT {
            self.recent.pop_front();
        }
        self.recent.push_back(recent);
    }

    /// A socket is gone with its node. Another node may tell it; should that die, an owner does.
    pub(super) fn socket_gone(
        &mut self,
        (namespace, socket): (Arc<str>, SocketId),
        is_owner: bool,
        teller: Option<Identity>,
        now: u64,
    ) {
        let event = PresenceEvent::SocketGone { namespace, socket, node: socket.node() };
        match teller {
            None => self.events.push(event),
            Some(primary) if is_owner => self.remember(Recent { at: now, primary, event }),
            Some(_) => {}
        }
    }

    /// The ring changed: tells again what those may not have told who are not in it any more. Forgets what is older than
    /// `window`.
    pub(super) fn take_over(&mut self, ring: &Ring, now: u64, window: u64) {
        self.forget_old(now, window);
        let events = &mut self.events;
        self.recent.retain(|recent| {
            let has_told = ring.contains(recent.primary);
            if !has_told {
                events.push(recent.event.clone());
            }
            has_told
        });
    }

    pub(super) fn forget_old(&mut self, now: u64, window: u64) {
        while self.recent.front().is_some_and(|recent| now.saturating_sub(recent.at) > window) {
            self.recent.pop_front();
        }
        if self.recent.is_empty() && self.recent.capacity() > 1_024 {
            self.recent = VecDeque::new();
        }
    }

    /// What there is to tell.
    pub(super) fn events(&mut self) -> Vec<PresenceEvent> {
        std::mem::take(&mut self.events)
    }
}

fn event_of(namespace: &Arc<str>, room: &Room, Announced { number, occupied }: Announced) -> PresenceEvent {
    let (namespace, room) = (Arc::clone(namespace), Arc::clone(room));
    match occupied {
        true => PresenceEvent::RoomOccupied { namespace, room, number },
        false => PresenceEvent::RoomVacated { namespace, room, number },
    }
}
