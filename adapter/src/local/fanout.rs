//! From a selector to mailboxes.
//!
//! Owns who is meant, each once. A socket in several target rooms is served by the first of them that it is in, which
//! can be told from the room index alone: no set is built per emit, unless it names a great many rooms. All shards of the rooms concerned are read-locked
//! during one fan-out, so that a socket that moves between two of them is not served twice.

use std::sync::Arc;

use rustc_hash::FxHashSet;

use super::rooms::{Members, Rooms};
use super::sockets::{Entry, Sockets};
use crate::counters::Counters;
use crate::id::SocketId;
use crate::mailbox::{Mailbox, Outgoing, Push};
use crate::selector::{Room, Selector, Target};

/// With more target rooms than this on one node, a set of the sockets served is cheaper than to look each up in all
/// earlier rooms.
const MANY_ROOMS: usize = 16;

/// A room with what it means on this node: its explicit members, and the socket whose id is its name.
struct Resolved<'a> {
    members: Option<&'a Members>,
    own: Option<(SocketId, &'a Entry)>,
}

impl Resolved<'_> {
    fn contains(&self, id: SocketId) -> bool {
        self.own.is_some_and(|(own, _)| own == id)
            || self.members.is_some_and(|members| members.contains_key(&id))
    }

    fn is_empty(&self) -> bool {
        self.members.is_none() && self.own.is_none()
    }
}

/// Calls `each` for every socket that the selector means, once. It is called under read locks: it must not come back to
/// the adapter.
pub(crate) fn visit(
    sockets: &Sockets,
    rooms: &Rooms,
    selector: &Selector,
    mut each: impl FnMut(SocketId, &Arc<Mailbox>),
) {
    match &selector.to {
        Target::All => {
            for shard in sockets.shards() {
                for (id, entry) in shard.iter().filter(|(id, entry)| !excluded(&selector.except, **id, entry))
                {
                    each(*id, &entry.mailbox);
                }
            }
        }
        Target::Rooms(targets) => visit_rooms(sockets, rooms, targets, &selector.except, each),
        Target::Socket(id) => {
            let guards = sockets.read_all(std::iter::once(*id));
            if let Some(entry) = guards.get(*id).filter(|entry| !excluded(&selector.except, *id, entry)) {
                each(*id, &entry.mailbox);
            }
        }
    }
}

fn excluded(except: &[Room], id: SocketId, entry: &Entry) -> bool {
    except.iter().any(|room| **room == *id.as_str() || entry.rooms.contains(room))
}

fn visit_rooms(
    sockets: &Sockets,
    rooms: &Rooms,
    targets: &[Room],
    except: &[Room],
    mut each: impl FnMut(SocketId, &Arc<Mailbox>),
) {
    let named = || targets.iter().chain(except);
    let socket_guards = sockets.read_all(named().filter_map(|room| room.parse().ok()));
    let room_guards = rooms.read_all(named());
    let resolve = |room: &Room| {
        let own = room.parse::<SocketId>().ok();
        let own = own.and_then(|id| Some((id, socket_guards.get(id)?)));
        Resolved { members: room_guards.get(room), own }
    };
    let resolve_all = |rooms: &[Room]| -> Vec<Resolved<'_>> {
        rooms.iter().map(resolve).filter(|room| !room.is_empty()).collect()
    };
    let (targets, except) = (resolve_all(targets), resolve_all(except));
    let mut served = (targets.len() > MANY_ROOMS).then(FxHashSet::<SocketId>::default);
    for (at, target) in targets.iter().enumerate() {
        let earlier = &targets[..at];
        let mut skip = |id| match &mut served {
            Some(served) => except.iter().any(|room| room.contains(id)) || !served.insert(id),
            None => earlier.iter().chain(&except).any(|room| room.contains(id)),
        };
        for (id, mailbox) in target.members.into_iter().flatten() {
            if !skip(*id) {
                each(*id, mailbox);
            }
        }
        // The socket that the room is named after cannot be among the explicit members: it joins its own room by being
        // here.
        if let Some((id, entry)) = target.own.filter(|(id, _)| !skip(*id)) {
            each(id, &entry.mailbox);
        }
    }
}

/// What became of the pushes of one fan-out, counted once at its end.
#[derive(Default)]
pub(crate) struct Tally {
    queued: u64,
    volatile_dropped: u64,
    overflowed: u64,
    closed: u64,
}

impl Tally {
    pub(crate) fn push(&mut self, mailbox: &Mailbox, outgoing: &Arc<Outgoing>) {
        match mailbox.push(outgoing) {
            Push::Queued => self.queued += 1,
            Push::DroppedVolatile => self.volatile_dropped += 1,
            Push::Overflowed => self.overflowed += 1,
            Push::Closed => self.closed += 1,
        }
    }

    /// Mailboxes that took the packet.
    pub(crate) fn delivered(&self) -> usize {
        usize::try_from(self.queued).unwrap_or(usize::MAX)
    }

    pub(crate) fn count_in(&self, counters: &Counters) {
        counters.deliveries.add(self.queued);
        counters.volatile_dropped.add(self.volatile_dropped);
        counters.overflowed.add(self.overflowed);
        counters.closed.add(self.closed);
    }
}
