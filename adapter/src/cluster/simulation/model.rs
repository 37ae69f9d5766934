//! The reference: which sockets there are, in which rooms, and what each operation means for them.
//!
//! Owns what must, may and must not happen. It is told when an operation begins and when a node gets to hear of it; what
//! it means there it works out by itself, from plain sets. Knows no broker and no adapter.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::Ms;
use super::mark::Number;
use crate::id::{NodeTag, SocketId};
use crate::mailbox::Mailbox;
use crate::selector::{Room, Selector, Target};

/// How long after a disturbance its traces may show: an expiry, a request, and the way there and back.
const AFTERMATH: Ms = 20_000;

/// What the script asks of a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Join,
    Emit,
    Confirmed,
    Ask,
    Fetch,
    Count,
    JoinAll,
    LeaveAll,
    DisconnectAll,
    Shout,
    Poll,
}

/// One operation.
#[derive(Debug)]
pub(super) struct Op {
    pub(super) kind: Kind,
    pub(super) node: usize,
    pub(super) at: Ms,
    pub(super) selector: Selector,
    pub(super) rooms: Vec<Room>,
    pub(super) volatile: bool,
    /// Whom the node knew when it began.
    pub(super) known: Vec<NodeTag>,
    /// The nodes that got to hear of it, and what it meant there then.
    pub(super) meant: BTreeMap<usize, BTreeSet<SocketId>>,
    /// The nodes that have to get to hear of it, and the sockets for whose sake.
    pub(super) owed: BTreeMap<usize, BTreeSet<SocketId>>,
    /// Those of them that were starting, and may act on a copy.
    pub(super) starting: BTreeSet<usize>,
    pub(super) taken: bool,
    pub(super) lost: bool,
    /// When which socket answered.
    pub(super) answered: BTreeMap<SocketId, Ms>,
    /// When which node answered.
    pub(super) replied: BTreeMap<usize, Ms>,
    /// When it must have ended.
    pub(super) ends_by: Option<Ms>,
}

impl Op {
    /// Whether it concerns other nodes.
    pub(super) fn goes_out(&self) -> bool {
        match &self.selector.to {
            _ if !matches!(self.kind, Kind::Emit | Kind::Confirmed) => true,
            Target::All => true,
            Target::Rooms(rooms) => !rooms.is_empty(),
            Target::Socket(id) => self.known.contains(&id.node()),
        }
    }
}

/// A membership.
#[derive(Debug, Clone, Copy)]
pub(super) struct Joined {
    pub(super) by: Number,
    pub(super) at: Ms,
    /// The node said that it stands: what is emitted from now on arrives.
    pub(super) confirmed: bool,
}

#[derive(Debug)]
pub(super) struct Socket {
    pub(super) node: usize,
    pub(super) mailbox: Arc<Mailbox>,
    /// Answers when it is asked for an ack.
    pub(super) answers: bool,
    pub(super) writable: bool,
    /// Membership of the namespace itself.
    pub(super) here: Joined,
    pub(super) rooms: BTreeMap<Room, Joined>,
    /// Its connection was told to end.
    pub(super) closed: bool,
    pub(super) got: BTreeSet<Number>,
    /// The latest that came, by node and by what has an order.
    pub(super) latest: BTreeMap<(usize, String), Number>,
}

#[derive(Debug)]
pub(super) struct NodeModel {
    pub(super) tag: NodeTag,
    pub(super) dead_since: Option<Ms>,
    /// Connected, ready and running without a break since then.
    pub(super) sound_since: Option<Ms>,
    pub(super) disturbed_at: Option<Ms>,
}

#[derive(Debug, Default)]
pub(super) struct Model {
    pub(super) nodes: Vec<NodeModel>,
    pub(super) sockets: BTreeMap<SocketId, Socket>,
    pub(super) ops: BTreeMap<Number, Op>,
    /// Operations that some node has to get to hear of.
    pub(super) open: BTreeSet<Number>,
    pub(super) left: BTreeMap<SocketId, Ms>,
    /// The first thing that went wrong.
    pub(super) failure: Option<String>,
}

impl Model {
    pub(super) fn fail(&mut self, at: Ms, what: impl FnOnce() -> String) {
        if self.failure.is_none() {
            self.failure = Some(format!("at {at} ms: {}", what()));
        }
    }

    pub(super) fn is_sound(&self, node: usize) -> bool {
        self.nodes.get(node).is_some_and(|node| node.sound_since.is_some())
    }

    pub(super) fn number_of(&self, tag: NodeTag) -> Option<usize> {
        self.nodes.iter().position(|node| node.tag == tag)
    }

    pub(super) fn sockets_of(&self, node: usize) -> impl Iterator<Item = (&SocketId, &Socket)> {
        // An id begins with the tag of its node, and goes on from the least of characters.
        let first =
            self.nodes.get(node).and_then(|node| format!("{}----------------", node.tag).parse().ok());
        let from = first.map(|first: SocketId| self.sockets.range(first..));
        from.into_iter().flatten().take_while(move |(_, socket)| socket.node == node)
    }

    /// The sockets of a node that a selector means.
    pub(super) fn meant(&self, node: usize, selector: &Selector) -> BTreeSet<SocketId> {
        let of_node = self.sockets_of(node).filter(|(id, socket)| {
            let is_in = |room: &Room| **room == *id.as_str() || socket.rooms.contains_key(room);
            let targeted = match &selector.to {
                Target::All => true,
                Target::Rooms(rooms) => rooms.iter().any(is_in),
                Target::Socket(target) => target == *id,
            };
            targeted && !selector.except.iter().any(is_in)
        });
        of_node.map(|(id, _)| *id).collect()
    }

    /// An operation begins. Who has to get to hear of it is settled now.
    pub(super) fn begin(&mut self, number: Number, mut op: Op, accepted: bool) {
        if accepted && matches!(op.kind, Kind::Emit | Kind::Confirmed) {
            op.owed = self.owed(&op);
            if !op.owed.is_empty() {
                self.open.insert(number);
            }
        }
        self.ops.insert(number, op);
    }

    fn owed(&self, op: &Op) -> BTreeMap<usize, BTreeSet<SocketId>> {
        let mut owed: BTreeMap<usize, BTreeSet<SocketId>> = BTreeMap::new();
        for (id, socket) in &self.sockets {
            let reaches = |room: &Room| match room.parse::<SocketId>() {
                Ok(own) if own == *id => op.known.contains(&id.node()),
                _ => socket.rooms.get(room).is_some_and(|joined| joined.confirmed),
            };
            let certain = match &op.selector.to {
                Target::All => socket.here.confirmed,
                Target::Rooms(rooms) => rooms.iter().any(reaches),
                Target::Socket(target) => target == id && op.known.contains(&id.node()),
            };
            if certain && socket.node != op.node && self.is_sound(socket.node) {
                owed.entry(socket.node).or_default().insert(*id);
            }
        }
        owed
    }

    /// A node gets to hear of an operation, or is the one where it began: what it means there. `None` if it has heard
    /// of it already.
    pub(super) fn heard(&mut self, number: Number, node: usize, now: Ms) -> Option<BTreeSet<SocketId>> {
        self.settle(number, node);
        let op = self.ops.get_mut(&number)?;
        if op.meant.contains_key(&node) && !op.starting.remove(&node) {
            return None;
        }
        let (kind, rooms, volatile) = (op.kind, op.rooms.clone(), op.volatile);
        let selector = op.selector.clone();
        let mut meant = self.meant(node, &selector);
        for id in &meant {
            let Some(socket) = self.sockets.get_mut(id) else { continue };
            match kind {
                Kind::JoinAll => {
                    let joined = Joined { by: number, at: now, confirmed: false };
                    for room in rooms.iter().filter(|room| ***room != *id.as_str()) {
                        socket.rooms.entry(Arc::clone(room)).or_insert(joined);
                    }
                }
                Kind::LeaveAll => socket.rooms.retain(|room, _| !rooms.contains(room)),
                _ => {}
            }
        }
        if kind == Kind::LeaveAll {
            meant.clone().into_iter().for_each(|id| self.release(id));
        }
        if volatile {
            meant.retain(|id| self.sockets.get(id).is_some_and(|socket| socket.writable));
        }
        if let Some(op) = self.ops.get_mut(&number) {
            op.meant.insert(node, meant.clone());
        }
        Some(meant)
    }

    /// A socket left rooms, or is gone: nobody owes it more than what its other memberships are owed.
    pub(super) fn release(&mut self, id: SocketId) {
        let mut settled = Vec::new();
        for number in &self.open {
            let Some(op) = self.ops.get_mut(number) else { continue };
            op.owed.retain(|_, for_whom| {
                for_whom.remove(&id);
                !for_whom.is_empty()
            });
            if op.owed.is_empty() {
                settled.push(*number);
            }
        }
        self.open.retain(|number| !settled.contains(number));
    }

    /// Nothing more is owed to a node for an operation.
    pub(super) fn settle(&mut self, number: Number, node: usize) {
        let Some(op) = self.ops.get_mut(&number) else { return };
        if op.owed.remove(&node).is_some() && op.owed.is_empty() {
            self.open.remove(&number);
        }
    }

    /// An operation got lost on its way to the broker.
    pub(super) fn lost(&mut self, number: Number) {
        if let Some(op) = self.ops.get_mut(&number) {
            op.lost = true;
            op.owed.clear();
            self.open.remove(&number);
        }
    }

    /// A node is not to be relied on: nothing is owed to it, until it is sound again.
    pub(super) fn disturbed(&mut self, node: usize, now: Ms) {
        self.nodes[node].sound_since = None;
        self.nodes[node].disturbed_at = Some(now);
        for number in self.open.clone() {
            self.settle(number, node);
        }
    }

    /// A message to a node, or from it, got lost or late: what waits for it may miss it.
    pub(super) fn starved(&mut self, node: usize, now: Ms) {
        self.nodes[node].disturbed_at = Some(now);
    }

    /// A node is no more, and its sockets with it.
    pub(super) fn died(&mut self, node: usize, now: Ms) {
        self.disturbed(node, now);
        self.nodes[node].dead_since = Some(now);
        let ids: Vec<_> = self.sockets_of(node).map(|(id, _)| *id).collect();
        ids.into_iter().for_each(|id| self.remove(id, now));
        // What it had not handed over died with it.
        let unsent = self.open.iter().filter(|number| self.ops.get(number).is_some_and(|op| op.node == node));
        unsent.copied().collect::<Vec<_>>().into_iter().for_each(|number| self.lost(number));
        self.ops.values_mut().filter(|op| op.node == node).for_each(|op| op.ends_by = None);
    }

    pub(super) fn remove(&mut self, id: SocketId, now: Ms) {
        self.sockets.remove(&id);
        self.left.insert(id, now);
        self.release(id);
    }

    /// A node was ready again: what had been joined before its broker came back is subscribed.
    pub(super) fn resynced(&mut self, node: usize, up_at: Ms) {
        for socket in self.sockets.values_mut().filter(|socket| socket.node == node) {
            let joined = socket.rooms.values_mut().chain([&mut socket.here]);
            joined.filter(|joined| joined.at < up_at).for_each(|joined| joined.confirmed = true);
        }
    }

    /// The memberships that an operation made are confirmed, on some nodes.
    pub(super) fn confirm(&mut self, number: Number, nodes: &[usize]) {
        for socket in self.sockets.values_mut().filter(|socket| nodes.contains(&socket.node)) {
            let joined = socket.rooms.values_mut().chain([&mut socket.here]);
            joined.filter(|joined| joined.by == number).for_each(|joined| joined.confirmed = true);
        }
    }

    /// Whether something happened to a node that explains that it was missing in what began at `since`.
    pub(super) fn excuse(&self, node: usize, since: Ms) -> bool {
        let Some(node) = self.nodes.get(node) else { return true };
        node.dead_since.is_some() || node.disturbed_at.is_some_and(|at| at + AFTERMATH >= since)
    }

    /// Whether the others may have taken a node for dead. What it says then ends all its connections.
    pub(super) fn may_be_fenced(&self, node: usize, now: Ms) -> bool {
        self.nodes.get(node).and_then(|node| node.disturbed_at).is_some_and(|at| at + AFTERMATH >= now)
    }

    /// What has an order among the emits of a node: all of them, or those to one subject where a broker of several
    /// shards carries them. Where rooms may be `hashed`, a room has more than one subject.
    pub(super) fn lane(op: &Op, sharded: bool, hashed: bool) -> Option<String> {
        if !sharded {
            return Some(String::new());
        }
        match (&op.selector.to, op.kind) {
            (_, Kind::Ask) => Some("*ask".into()),
            (Target::All, _) => Some("*all".into()),
            _ if hashed => None,
            (Target::Rooms(rooms), _) if rooms.len() == 1 && rooms[0].parse::<SocketId>().is_err() => {
                Some(rooms[0].to_string())
            }
            _ => None,
        }
    }
}
