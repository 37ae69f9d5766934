//! Everything of one run: the processes, the network between them, the model beside them, and what is to be done when.
//!
//! Owns the turns: all processes run for one window, then what they sent travels, then the script may act. Compares what
//! sockets got with what the model says, at once.

use std::collections::{BTreeMap, BTreeSet};

use roomcast_protocol::socketio::{AckId, Args};

use super::machine::{Machine, Serving};
use super::mark::{self, Number};
use super::model::{Kind, Model, NodeModel};
use super::network::{HOP, Inbound, Network, Notice, WINDOW};
use super::random::Random;
use super::trace::Trace;
use super::{Ms, Profile};
use crate::adapter::ServerReply;
use crate::cluster::Backlog;
use crate::id::SocketId;
use crate::mailbox::{CloseCause, Item};
use crate::selector::Room;

/// What is to be done at a later time.
pub(super) enum Todo {
    Answer {
        socket: SocketId,
        ack: u32,
        number: Number,
    },
    Reply {
        node: usize,
        number: Number,
        reply: ServerReply,
    },
    Remove {
        socket: SocketId,
    },
    Start,
    /// Emit to a room, from anywhere.
    Emit {
        room: Room,
    },
}

pub(super) struct World {
    pub(super) now: Ms,
    pub(super) machines: Vec<Option<Machine>>,
    pub(super) network: Network,
    pub(super) model: Model,
    pub(super) trace: Trace,
    pub(super) random: Random,
    pub(super) profile: Profile,
    /// Operations that have not ended.
    pub(super) pending: BTreeSet<Number>,
    pub(super) next_number: Number,
    agenda: BTreeMap<(Ms, u64), Todo>,
    next_todo: u64,
}

impl World {
    pub(super) fn new(seed: u64, profile: Profile, trace: Trace) -> Self {
        let mut random = Random::new(seed);
        let network = Network::new(random.fork(), profile.clone());
        Self {
            now: 0,
            machines: Vec::new(),
            network,
            model: Model::default(),
            trace,
            random,
            profile,
            pending: BTreeSet::new(),
            next_number: 1,
            agenda: BTreeMap::new(),
            next_todo: 0,
        }
    }

    pub(super) fn start(&mut self) {
        let node = self.network.add_client();
        let machine = Machine::start(self.now, node, self.profile.config.clone());
        let tag = machine.tag;
        self.machines.push(Some(machine));
        self.model.nodes.push(NodeModel { tag, dead_since: None, sound_since: None, disturbed_at: None });
        self.trace.note(self.now, node, "starts", [0; 2]);
    }

    /// A process is to start, or to end.
    pub(super) fn somebody_starts(&self) -> bool {
        let starts = self.agenda.values().any(|todo| matches!(todo, Todo::Start));
        starts || self.machines.iter().flatten().any(|machine| machine.serving.is_none())
    }

    pub(super) fn later(&mut self, at: Ms, todo: Todo) {
        self.next_todo += 1;
        self.agenda.insert((at, self.next_todo), todo);
    }

    /// The nodes that run, have entered the cluster and may be asked for something.
    pub(super) fn serving(&self) -> Vec<usize> {
        let runs = |machine: &Machine| {
            machine.serving.is_some() && machine.paused_until.is_none() && !machine.leaving
        };
        let all = self.machines.iter().enumerate();
        all.filter(|(_, machine)| machine.as_ref().is_some_and(runs)).map(|(node, _)| node).collect()
    }

    pub(super) fn alive(&self) -> usize {
        self.machines.iter().flatten().filter(|machine| !machine.leaving).count()
    }

    /// A process ends, without a word.
    pub(super) fn kill(&mut self, node: usize, how: &'static str) {
        self.trace.note(self.now, node, how, [0; 2]);
        self.machines[node] = None;
        self.model.died(node, self.now);
        self.pending.retain(|number| self.model.ops.get(number).is_some_and(|op| op.node != node));
    }

    /// One turn.
    pub(super) fn turn(&mut self) {
        let until = self.now + WINDOW;
        for node in 0..self.machines.len() {
            let Some(mut machine) = self.machines[node].take() else { continue };
            if self.is_paused(node, &mut machine) {
                self.machines[node] = Some(machine);
                continue;
            }
            let inbox = self.network.take_inbox(node, until);
            let timers_first = self.random.chance(500);
            // Nothing comes without a cause, but for the end of a life.
            let look_for_mail = !inbox.is_empty() || self.now.is_multiple_of(400);
            machine.run(inbox, until, timers_first, |machine, at, inbound| {
                self.inbound(machine, node, at, inbound);
            });
            let entered = machine.look();
            if look_for_mail {
                self.mail(&machine, node, until, None, true);
            }
            self.look_for_a_new_life(&mut machine, node, until);
            for (number, at, outcome) in machine.take_ended() {
                self.pending.remove(&number);
                self.judge(number, at, outcome);
            }
            for call in machine.bus.take_calls() {
                self.network.submit(node, call);
            }
            self.machines[node] = Some(machine);
            if !entered {
                self.kill(node, "ends");
                self.network.crash(node);
            }
        }
        self.network.advance(until + HOP);
        self.now = until;
        self.take_notices();
        (0..self.machines.len()).for_each(|node| self.watch(node));
        self.do_what_is_due();
        self.look_for_what_is_late();
    }

    fn is_paused(&mut self, node: usize, machine: &mut Machine) -> bool {
        match machine.paused_until {
            Some(until) if until > self.now => true,
            Some(_) => {
                machine.paused_until = None;
                let lost = self.now - machine.paused_at;
                self.model.starved(node, self.now);
                let ops = self.pending.iter().copied().collect::<Vec<_>>();
                for number in ops {
                    let op = self.model.ops.get_mut(&number).filter(|op| op.node == node);
                    if let Some(ends_by) = op.and_then(|op| op.ends_by.as_mut()) {
                        *ends_by += lost;
                    }
                }
                self.trace.note(self.now, node, "goes on", [lost, 0]);
                false
            }
            None => false,
        }
    }

    /// With a life of a node its connections end.
    fn look_for_a_new_life(&mut self, machine: &mut Machine, node: usize, at: Ms) {
        let Some(generation) = machine.serving.as_ref().map(Serving::generation) else { return };
        if std::mem::replace(&mut machine.generation, generation) == generation {
            return;
        }
        self.trace.note(at, node, "begins a new life", [generation, 0]);
        self.mail(machine, node, at, None, true);
        let ghost = self.model.sockets_of(node).find(|(_, socket)| !socket.closed).map(|(id, _)| *id);
        if let Some(id) = ghost {
            self.model.fail(at, || format!("socket {id} survived a life of node {node}"));
        }
    }

    fn inbound(&mut self, machine: &mut Machine, node: usize, at: Ms, inbound: Inbound) {
        match inbound {
            Inbound::Message { subject, payload, session, .. } => {
                let Some(sink) = machine.bus.sink().filter(|_| machine.bus.session() == Some(session)) else {
                    return;
                };
                let number = mark::find(&payload);
                let details = [payload.len() as u64, number.unwrap_or_default().into()];
                self.trace.note(at, node, "hears", details);
                sink.message(&subject, payload, Backlog::default());
                match number {
                    Some(number) => self.heard(machine, node, at, number, false),
                    None => self.mail(machine, node, at, None, true),
                }
            }
            Inbound::Up { session } => {
                self.trace.note(at, node, "is connected", [session.into(), 0]);
                machine.up_at = at;
                machine.bus.set_session(Some(session));
            }
            Inbound::Down => {
                self.trace.note(at, node, "is cut off", [0; 2]);
                let orphans = self.network.take_orphans(node);
                self.model.disturbed(node, at);
                machine.bus.set_session(None);
                drop(orphans);
            }
            Inbound::Reply { reply, .. } => {
                // The node may have given up.
                let _ = reply.send(Ok(()));
            }
        }
    }

    /// A node has got to hear of an operation, or began it itself: `own`.
    pub(super) fn heard(&mut self, machine: &Machine, node: usize, at: Ms, number: Number, own: bool) {
        if !own && self.model.ops.get(&number).is_some_and(|op| op.node == node) {
            // Its own words, which come back to it as to everybody.
            return self.mail(machine, node, at, None, true);
        }
        let was_starting = self.model.ops.get(&number).is_some_and(|op| op.starting.contains(&node));
        let strict = own || (self.model.is_sound(node) && !was_starting);
        let first = self.model.heard(number, node, at);
        let Some(serving) = machine.serving.clone() else {
            if let Some(op) = self.model.ops.get_mut(&number) {
                op.starting.insert(node);
            }
            return;
        };
        let Some(kind) = self.model.ops.get(&number).map(|op| op.kind) else { return };
        self.mail(machine, node, at, Some((number, first.clone())), strict);
        match kind {
            Kind::Shout | Kind::Poll => self.shouted(&serving, node, at, number, strict && first.is_some()),
            Kind::JoinAll | Kind::LeaveAll if strict => self.compare_rooms(&serving, node, at),
            Kind::JoinAll | Kind::LeaveAll => self.adopt_rooms(&serving, node, at),
            _ => {}
        }
    }

    /// A server-side emit reached a node.
    fn shouted(&mut self, serving: &Serving, node: usize, at: Ms, number: Number, strict: bool) {
        let heard = serving.heard.take();
        let numbers: Vec<_> = heard.iter().map(|(number, _)| *number).collect();
        let expected = if strict { vec![Some(number)] } else { numbers.clone() };
        if numbers != expected || numbers.len() > 1 {
            self.model.fail(at, || format!("node {node} heard {numbers:?} at the message of @{number};"));
        }
        for reply in heard.into_iter().filter_map(|(_, reply)| reply) {
            let delay = self.random.between(0, 300);
            self.later(at + delay, Todo::Reply { node, number, reply });
        }
    }

    /// Takes the mail of a node's sockets and compares it with what an operation means for them: with nothing, when
    /// there is none.
    pub(super) fn mail(
        &mut self,
        machine: &Machine,
        node: usize,
        at: Ms,
        cause: Option<(Number, Option<BTreeSet<SocketId>>)>,
        strict: bool,
    ) {
        if machine.serving.is_none() {
            return;
        }
        let mut items = Vec::new();
        for (id, socket) in self.model.sockets_of(node) {
            items.extend(socket.mailbox.drain().into_iter().map(|item| (*id, item)));
        }
        let (number, expected) = cause.unzip();
        let kind = number.and_then(|number| self.model.ops.get(&number)).map(|op| op.kind);
        let reaches = matches!(kind, Some(Kind::Emit | Kind::Confirmed | Kind::Ask | Kind::DisconnectAll));
        let expected = expected.flatten().filter(|_| reaches).unwrap_or_default();
        let (mut got, mut fenced) = (BTreeSet::new(), false);
        for (id, item) in items {
            let fits = match &item {
                Item::Packet(outgoing) => self.packet(node, at, id, &outgoing.packet, number),
                Item::Disconnect { socket, .. } => {
                    let delay = self.random.between(0, 500);
                    self.later(at + delay, Todo::Remove { socket: id });
                    *socket == id && kind == Some(Kind::DisconnectAll)
                }
                Item::Close(cause) => {
                    let delay = self.random.between(0, 500);
                    self.later(at + delay, Todo::Remove { socket: id });
                    fenced = true;
                    if let Some(socket) = self.model.sockets.get_mut(&id) {
                        socket.closed = true;
                    }
                    *cause == CloseCause::Fenced && self.model.may_be_fenced(node, at)
                }
            };
            let is_new = matches!(item, Item::Close(_)) || got.insert(id);
            if !fits || !is_new {
                self.model.fail(at, || format!("socket {id} of node {node} got {item:?} at {number:?}"));
            }
        }
        if fenced {
            return self.model.disturbed(node, at);
        }
        let fits = if strict { got == expected } else { got.is_subset(&expected) };
        if !fits {
            self.model
                .fail(at, || format!("{number:?} means {expected:?} on node {node}, and reached {got:?}"));
        }
    }

    /// A packet came: once, and not after a later one of the same node.
    fn packet(
        &mut self,
        node: usize,
        at: Ms,
        id: SocketId,
        packet: &roomcast_protocol::socketio::EncodedPacket,
        cause: Option<Number>,
    ) -> bool {
        let Some((number, ack)) = mark::of_packet(packet) else { return false };
        self.trace.note(at, node, "delivers", [number.into(), u64::from(id.as_str().as_bytes()[19])]);
        let Some(op) = self.model.ops.get(&number) else { return false };
        let lane =
            Model::lane(op, self.profile.shards > 1, self.profile.hashes()).map(|lane| (op.node, lane));
        let Some(socket) = self.model.sockets.get_mut(&id) else { return false };
        let again = !socket.got.insert(number);
        let latest = lane.map(|lane| std::mem::replace(socket.latest.entry(lane).or_default(), number));
        let answers = socket.answers;
        if again {
            self.model.fail(at, || format!("socket {id} got @{number}; twice"));
        }
        if let Some(latest) = latest.filter(|latest| *latest > number) {
            self.model.fail(at, || format!("socket {id} got @{number}; after @{latest}; of the same node"));
        }
        if let Some(ack) = ack.filter(|_| answers) {
            let delay = self.random.between(0, 400);
            self.later(at + delay, Todo::Answer { socket: id, ack, number });
        }
        cause == Some(number)
    }

    pub(super) fn compare_rooms(&mut self, serving: &Serving, node: usize, at: Ms) {
        let expected: Vec<_> =
            self.model.sockets_of(node).map(|(id, socket)| (*id, rooms_of(socket))).collect();
        for (id, expected) in expected {
            let rooms: BTreeSet<_> = serving.adapter.rooms_of(id).into_iter().skip(1).collect();
            if rooms != expected {
                self.model.fail(at, || format!("socket {id} is in {rooms:?} instead of {expected:?}"));
            }
        }
    }

    /// A node that is not to be relied on may have ignored an operation.
    fn adopt_rooms(&mut self, serving: &Serving, node: usize, at: Ms) {
        let ids: Vec<_> = self.model.sockets_of(node).map(|(id, _)| *id).collect();
        for id in ids {
            let rooms = serving.adapter.rooms_of(id);
            let Some(socket) = self.model.sockets.get_mut(&id) else { continue };
            socket.rooms.retain(|room, _| rooms.contains(room));
            for room in rooms.into_iter().skip(1) {
                let joined = super::model::Joined { by: 0, at, confirmed: false };
                socket.rooms.entry(room).or_insert(joined);
            }
        }
    }

    fn take_notices(&mut self) {
        for notice in self.network.take_notices() {
            match notice {
                Notice::Taken(number) => {
                    if let Some(op) = self.model.ops.get_mut(&number) {
                        op.taken = true;
                    }
                }
                Notice::Lost(number) => self.model.lost(number),
                Notice::LostAt(number, node) => {
                    self.model.settle(number, node);
                    self.model.starved(node, self.now);
                }
                Notice::Starved(node) => self.model.starved(node, self.now),
                Notice::Cut(node) => {
                    self.trace.note(self.now, node, "loses the broker", [0; 2]);
                    self.model.disturbed(node, self.now);
                }
            }
        }
    }

    /// Looks whether a node is to be relied on.
    fn watch(&mut self, node: usize) {
        let Some(machine) = &mut self.machines[node] else { return };
        let Some(serving) = &machine.serving else { return };
        let ready = serving.is_ready();
        if ready != machine.was_ready {
            machine.was_ready = ready;
            self.trace.note(self.now, node, if ready { "is ready" } else { "is not ready" }, [0; 2]);
            if ready {
                self.model.resynced(node, machine.up_at);
            }
        }
        let session = machine.bus.session();
        let long_paused =
            machine.paused_until.is_some_and(|until| until > machine.paused_at + super::SHORT_PAUSE);
        // It may not have noticed yet that it did not run, and says nothing until it does.
        let hangs = machine.within(|| serving.hangs(self.profile.config.expiry));
        let connected = session.is_some() && session == self.network.session(node);
        let sound = ready && connected && !long_paused && !hangs;
        if !sound && self.model.is_sound(node) {
            self.model.disturbed(node, self.now);
        }
        if sound && !self.model.is_sound(node) {
            self.model.nodes[node].sound_since = Some(self.now);
        }
    }

    fn do_what_is_due(&mut self) {
        while let Some(entry) = self.agenda.first_entry().filter(|entry| entry.key().0 <= self.now) {
            let todo = entry.remove();
            let node = match &todo {
                Todo::Answer { socket, .. } | Todo::Remove { socket } => {
                    self.model.sockets.get(socket).map(|socket| socket.node)
                }
                Todo::Reply { node, .. } => Some(*node),
                Todo::Start => {
                    self.start();
                    continue;
                }
                Todo::Emit { room } => {
                    self.emit(room);
                    continue;
                }
            };
            let Some(node) = node else { continue };
            let Some(machine) = self.machines[node].take() else { continue };
            match machine.paused_until {
                Some(until) => self.later(until.max(self.now + 1), todo),
                None => self.carry_out(&machine, node, todo),
            }
            self.machines[node] = Some(machine);
        }
    }

    fn carry_out(&mut self, machine: &Machine, node: usize, todo: Todo) {
        let Some(serving) = &machine.serving else { return };
        match todo {
            Todo::Answer { socket, ack, number } => {
                self.trace.note(self.now, node, "answers", [number.into(), ack.into()]);
                machine.within(|| serving.adapter.ack(socket, AckId::from(ack), Args::none()));
                if let Some(op) = self.model.ops.get_mut(&number) {
                    op.answered.entry(socket).or_insert(self.now);
                }
            }
            Todo::Reply { number, reply, .. } => {
                let tag = Args::from_serialize(&(machine.tag,)).unwrap_or_default();
                machine.within(|| reply(tag));
                if let Some(op) = self.model.ops.get_mut(&number) {
                    op.replied.insert(node, self.now);
                }
            }
            Todo::Remove { socket } => {
                self.mail(machine, node, self.now, None, true);
                machine.within(|| serving.adapter.remove(socket));
                self.model.remove(socket, self.now);
                self.trace.note(self.now, node, "removes", [socket.as_str().as_bytes()[19].into(), 0]);
            }
            Todo::Start | Todo::Emit { .. } => {}
        }
    }

    fn look_for_what_is_late(&mut self) {
        for number in &self.pending {
            let Some(op) = self.model.ops.get(number) else { continue };
            let runs = self.machines[op.node].as_ref().is_some_and(|machine| machine.paused_until.is_none());
            if op.ends_by.is_some_and(|ends_by| ends_by < self.now) && runs {
                let (kind, node, now) = (op.kind, op.node, self.now);
                return self.model.fail(now, || format!("{kind:?} @{number}; of node {node} does not end"));
            }
        }
        let long_ago = self.now.saturating_sub(super::LONGEST_WAY);
        let late = self
            .model
            .open
            .iter()
            .next()
            .filter(|number| self.model.ops.get(number).is_some_and(|op| op.at < long_ago));
        if let Some(number) = late.copied() {
            self.fail_open(number);
        }
        super::judge::members(self);
        super::judge::waiting(self);
    }

    /// Something that some nodes had to get to hear of did not reach them.
    pub(super) fn fail_open(&mut self, number: Number) {
        let op = &self.model.ops[&number];
        // A node that is stopped has the time that it needs.
        let late = op.owed.iter().find(|(node, _)| {
            self.machines[**node].as_ref().is_some_and(|machine| machine.paused_until.is_none())
        });
        if let Some((to, for_whom)) = late {
            let what = format!(
                "{:?} @{number}; of node {} never reached node {to} for {for_whom:?}",
                op.kind, op.node
            );
            self.model.fail(self.now, || what);
        }
    }
}

pub(super) fn rooms_of(socket: &super::model::Socket) -> BTreeSet<crate::selector::Room> {
    socket.rooms.keys().cloned().collect()
}
