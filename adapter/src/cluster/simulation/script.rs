//! What happens in a run: sockets that come and go, emits, requests, and faults, as chance has it.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::FutureExt;
use roomcast_protocol::socketio::{Args, EncodedPacket};

use super::Ms;
use super::machine::{Machine, NAMESPACE, Nobody, Outcome, Serving, all_acks};
use super::mark::{self, Number};
use super::model::{Joined, Kind, Op, Socket};
use super::world::World;
use crate::adapter::{AdapterFactory, Collected, LocalSocket};
use crate::id::{NodeTag, SocketId};
use crate::mailbox::{Mailbox, MailboxLimits, Outgoing};
use crate::selector::{Room, Selector, Target};

const ROOMS: [&str; 8] = ["a", "b", "c", "d", "e", "f", "g", "h"];
/// Sockets of one node, at most.
const MAX_SOCKETS: usize = 8;
/// What a request may take beyond its timeout: a window, and a turn of the node.
const SLACK: Ms = 1_000;

impl World {
    /// A few operations, somewhere.
    pub(super) fn act(&mut self) {
        while self.random.chance(self.profile.busy_permille) {
            let nodes = self.serving();
            let Some(node) = self.random.pick(&nodes).copied() else { return };
            let Some(machine) = self.machines[node].take() else { continue };
            self.act_on(&machine, node);
            self.machines[node] = Some(machine);
        }
    }

    fn act_on(&mut self, machine: &Machine, node: usize) {
        let Some(serving) = machine.serving.clone() else { return };
        self.mail(machine, node, self.now, None, true);
        match self.random.below(100) {
            0..12 => self.add_socket(machine, &serving, node),
            12..18 => self.remove_socket(machine, &serving, node),
            18..28 => self.join(machine, &serving, node),
            28..34 => self.leave(machine, &serving, node),
            34..64 => self.operate(machine, &serving, node, Kind::Emit),
            64..70 => self.operate(machine, &serving, node, Kind::Confirmed),
            70..77 => self.operate(machine, &serving, node, Kind::Ask),
            77..82 => self.operate(machine, &serving, node, Kind::Fetch),
            82..88 => self.operate(machine, &serving, node, Kind::Count),
            88..91 => self.operate(machine, &serving, node, Kind::JoinAll),
            91..93 => self.operate(machine, &serving, node, Kind::LeaveAll),
            93..94 => self.operate(machine, &serving, node, Kind::DisconnectAll),
            94..97 => self.operate(machine, &serving, node, Kind::Shout),
            _ => self.operate(machine, &serving, node, Kind::Poll),
        }
    }

    fn add_socket(&mut self, machine: &Machine, serving: &Serving, node: usize) {
        if self.model.sockets_of(node).count() >= MAX_SOCKETS {
            return;
        }
        let random = [self.random.next().to_be_bytes(), self.random.next().to_be_bytes()].concat();
        let Some(Ok(random)) = random.get(..12).map(TryInto::try_into) else { return };
        let id = SocketId::new(machine.tag, random);
        let mailbox = Mailbox::new(MailboxLimits::default());
        let writable = self.random.chance(800);
        mailbox.set_writable(writable);
        let here = Joined { by: self.next_number, at: self.now, confirmed: false };
        let socket = Socket {
            node,
            mailbox: Arc::clone(&mailbox),
            answers: self.random.chance(700),
            writable,
            here,
            rooms: Default::default(),
            closed: false,
            got: Default::default(),
            latest: Default::default(),
        };
        machine.within(|| serving.adapter.add(LocalSocket { id, mailbox, describe: Arc::new(Nobody) }));
        self.model.sockets.insert(id, socket);
        self.join_socket(machine, serving, node, id);
    }

    fn any_socket_of(&mut self, node: usize) -> Option<SocketId> {
        let ids: Vec<_> = self.model.sockets_of(node).map(|(id, _)| *id).collect();
        self.random.pick(&ids).copied()
    }

    fn remove_socket(&mut self, machine: &Machine, serving: &Serving, node: usize) {
        let Some(id) = self.any_socket_of(node) else { return };
        machine.within(|| serving.adapter.remove(id));
        self.model.remove(id, self.now);
        self.trace.note(self.now, node, "removes", [id.as_str().as_bytes()[19].into(), 0]);
    }

    fn join(&mut self, machine: &Machine, serving: &Serving, node: usize) {
        if let Some(id) = self.any_socket_of(node) {
            self.join_socket(machine, serving, node, id);
        }
    }

    fn join_socket(&mut self, machine: &Machine, serving: &Serving, node: usize, id: SocketId) {
        let count = self.random.below(3);
        let rooms = self.some_rooms(count);
        let selector = Selector::rooms([id.as_str()]);
        let number = self.number();
        let joined = Joined { by: number, at: self.now, confirmed: false };
        if let Some(socket) = self.model.sockets.get_mut(&id) {
            for room in &rooms {
                socket.rooms.entry(Arc::clone(room)).or_insert(joined);
            }
        }
        let join = machine.within(|| serving.adapter.join(id, &rooms));
        let timeout = self.millis(|config| config.subscribe_timeout);
        let op = self.op(node, serving, Kind::Join, selector, rooms, Some(timeout));
        self.model.begin(number, op, false);
        // Some do not wait.
        if self.random.chance(800) {
            self.pending.insert(number);
            machine.wait(number, join.map(Outcome::Joined).boxed());
        }
    }

    fn leave(&mut self, machine: &Machine, serving: &Serving, node: usize) {
        let Some(id) = self.any_socket_of(node) else { return };
        let Some(socket) = self.model.sockets.get(&id) else { return };
        let rooms: Vec<Room> = socket.rooms.keys().cloned().collect();
        let Some(room) = self.random.pick(&rooms).cloned() else { return };
        machine.within(|| serving.adapter.leave(id, &room));
        if let Some(socket) = self.model.sockets.get_mut(&id) {
            socket.rooms.remove(&room);
        }
        self.model.release(id);
        self.trace.note(self.now, node, "leaves", [room.as_bytes()[0].into(), 0]);
    }

    fn some_rooms(&mut self, count: usize) -> Vec<Room> {
        (0..count).map(|_| ROOMS[self.random.below(ROOMS.len())].into()).collect()
    }

    fn any_socket(&mut self) -> Option<SocketId> {
        let ids: Vec<_> = self.model.sockets.keys().copied().collect();
        self.random.pick(&ids).copied()
    }

    fn selector(&mut self) -> Selector {
        let to = match self.random.below(10) {
            0..2 => Target::All,
            2..6 => Target::Rooms(self.some_rooms(1)),
            6..8 => {
                let count = self.random.below(5);
                Target::Rooms(self.some_rooms(count))
            }
            kind => match (self.any_socket(), kind) {
                (Some(id), 8) => Target::Socket(id),
                (Some(id), _) => Target::Rooms(vec![id.as_str().into()]),
                (None, _) => Target::All,
            },
        };
        let except = match self.random.below(8) {
            0 => self.some_rooms(1),
            1 => self.any_socket().map(|id| id.as_str().into()).into_iter().collect(),
            _ => Vec::new(),
        };
        Selector { to, except, local: false }
    }

    fn number(&mut self) -> Number {
        self.next_number += 1;
        self.next_number - 1
    }

    fn millis(&self, of: impl FnOnce(&crate::cluster::ClusterConfig) -> Duration) -> Ms {
        of(&self.profile.config).as_millis() as Ms
    }

    fn op(
        &self,
        node: usize,
        serving: &Serving,
        kind: Kind,
        selector: Selector,
        rooms: Vec<Room>,
        timeout: Option<Ms>,
    ) -> Op {
        let me = serving.factory.node();
        Op {
            kind,
            node,
            at: self.now,
            selector,
            rooms,
            volatile: false,
            known: serving.factory.nodes().into_iter().filter(|tag| *tag != me).collect(),
            meant: Default::default(),
            owed: Default::default(),
            starting: Default::default(),
            taken: false,
            lost: false,
            answered: Default::default(),
            replied: Default::default(),
            ends_by: timeout.map(|timeout| self.now + timeout + SLACK),
        }
    }

    /// An emit to one room, from a node that has it from hearsay.
    pub(super) fn emit(&mut self, room: &Room) {
        let nodes = self.serving();
        let Some(node) = self.random.pick(&nodes).copied() else { return };
        let Some(machine) = self.machines[node].take() else { return };
        if let Some(serving) = machine.serving.clone() {
            self.mail(&machine, node, self.now, None, true);
            let selector = Selector::rooms([Arc::clone(room)]);
            self.operate_on(&machine, &serving, node, Kind::Emit, &selector, &[]);
        }
        self.machines[node] = Some(machine);
    }

    fn operate(&mut self, machine: &Machine, serving: &Serving, node: usize, kind: Kind) {
        let selector = self.selector();
        let count = 1 + self.random.below(2);
        let rooms = match kind {
            Kind::JoinAll | Kind::LeaveAll => self.some_rooms(count),
            _ => Vec::new(),
        };
        self.operate_on(machine, serving, node, kind, &selector, &rooms);
    }

    pub(super) fn operate_on(
        &mut self,
        machine: &Machine,
        serving: &Serving,
        node: usize,
        kind: Kind,
        selector: &Selector,
        rooms: &[Room],
    ) {
        let number = self.number();
        let timeout = match kind {
            Kind::Emit | Kind::Shout => None,
            // A connection that hangs is noticed within some seconds, and the next batch may hang again.
            Kind::Confirmed => Some(15_000),
            // Some wait for long, and must not, when those they wait for are dead.
            Kind::Poll if self.random.chance(300) => Some(25_000),
            Kind::Ask | Kind::Poll => Some(self.random.between(3_000, 6_000)),
            _ => Some(self.millis(|config| config.request_timeout.max(config.subscribe_timeout))),
        };
        let mut op = self.op(node, serving, kind, selector.clone(), rooms.to_vec(), timeout);
        op.volatile = kind == Kind::Emit && self.random.chance(100);
        let volatile = op.volatile;
        let mut marked = selector.clone();
        if !matches!(kind, Kind::Emit | Kind::Confirmed | Kind::Ask) {
            marked.except.push(mark::room(number));
        }
        let name = mark::mark(number);
        let patience = Duration::from_millis(timeout.unwrap_or_default());
        let (adapter, none) = (&serving.adapter, Args::none());
        let accepted = machine.bus.session().is_some();
        let (sent, outcome) = machine.within(|| match kind {
            Kind::Emit => (adapter.broadcast(&marked, &packet(&name, volatile)), None),
            Kind::Confirmed => {
                let sent = adapter.broadcast_confirmed(&marked, &packet(&name, false));
                (Ok(()), Some(sent.map(Outcome::Sent).boxed()))
            }
            Kind::Ask => {
                let acks = adapter.broadcast_with_ack(&marked, &name, &none, patience, None);
                (Ok(()), Some(all_acks(acks).boxed()))
            }
            Kind::Fetch => {
                let ids = |fetched: Collected<Vec<crate::adapter::RemoteSocket>>| {
                    let value = fetched.value.iter().map(|socket| socket.id).collect();
                    Outcome::Fetched(Collected { value, missing: fetched.missing })
                };
                (Ok(()), Some(adapter.fetch_sockets(&marked).map(ids).boxed()))
            }
            Kind::Count => (Ok(()), Some(adapter.count_sockets(&marked).map(Outcome::Count).boxed())),
            Kind::JoinAll => {
                (Ok(()), Some(adapter.sockets_join(&marked, rooms).map(Outcome::Changed).boxed()))
            }
            Kind::LeaveAll => {
                (Ok(()), Some(adapter.sockets_leave(&marked, rooms).map(Outcome::Changed).boxed()))
            }
            Kind::DisconnectAll => {
                let ended = adapter.disconnect_sockets(&marked, false);
                (Ok(()), Some(ended.map(Outcome::Changed).boxed()))
            }
            Kind::Shout => (adapter.server_side_emit(&name, &none), None),
            Kind::Poll => {
                let tags = |replies: Collected<Vec<Args>>| {
                    let tags = replies.value.iter().filter_map(|args| args.get::<NodeTag>(0).ok());
                    Outcome::Replies(Collected { value: tags.collect(), missing: replies.missing })
                };
                (Ok(()), Some(adapter.server_side_emit_with_ack(&name, &none, patience).map(tags).boxed()))
            }
            Kind::Join => (Ok(()), None),
        });
        let now = self.now;
        self.trace.note(now, node, "does", [number.into(), kind as u64]);
        op.lost = !accepted;
        // A node that has just gone on refuses until it has found out.
        let refuses = sent.is_err() && !self.model.is_sound(node);
        let fits = outcome.is_some() || refuses || sent.is_ok() == (accepted || !op.goes_out());
        self.model.begin(number, op, sent.is_ok() && accepted);
        if !fits {
            self.model.fail(now, || format!("{kind:?} @{number}; of node {node}: {sent:?}"));
        }
        if !matches!(kind, Kind::Shout | Kind::Poll) {
            self.heard(machine, node, now, number, true);
        }
        let Some(outcome) = outcome else { return };
        let wait = machine.wait(number, outcome);
        self.pending.insert(number);
        // Some lose interest.
        if self.random.chance(50) {
            self.pending.remove(&number);
            wait.abort();
        }
    }

    /// At times, something breaks.
    pub(super) fn break_something(&mut self) {
        if !self.random.chance(self.profile.fault_permille) {
            return;
        }
        let running: Vec<usize> = self.serving();
        let Some(node) = self.random.pick(&running).copied() else { return };
        let alive = self.alive();
        match self.random.below(12) {
            0..4 => self.cut(&[node]),
            4 => {
                // A part of the cluster, or all of it.
                let some: Vec<_> = running.iter().copied().filter(|_| self.random.chance(600)).collect();
                self.cut(&some);
            }
            5 => {
                let until = self.now + self.random.between(100, 3_000);
                self.network.stall(node, until);
                self.model.starved(node, self.now);
                self.trace.note(self.now, node, "is held up", [until, 0]);
            }
            6..8 => self.pause(node, 100, super::SHORT_PAUSE),
            8 => self.pause(node, super::SHORT_PAUSE, 25_000),
            9 if alive > 3 => {
                self.network.crash(node);
                self.kill(node, "dies");
                let again = self.now + self.random.between(0, 10_000);
                self.later(again, super::world::Todo::Start);
            }
            10 if alive > 3 => self.leave_cluster(node),
            11 if alive < 7 => self.start(),
            _ => {}
        }
    }

    fn cut(&mut self, nodes: &[usize]) {
        let told_within = self.random.pick(&[0, 200, 4_000]).copied().unwrap_or_default();
        let away_for = self.random.pick(&[50, 1_000, 10_000, 20_000]).copied().unwrap_or_default();
        nodes.iter().for_each(|node| self.network.cut(*node, told_within, away_for));
    }

    fn pause(&mut self, node: usize, from: Ms, to: Ms) {
        let until = self.now + self.random.between(from, to);
        self.trace.note(self.now, node, "stops", [until, 0]);
        self.model.starved(node, self.now);
        if let Some(machine) = &mut self.machines[node] {
            machine.paused_at = self.now;
            machine.paused_until = Some(until);
        }
    }

    fn leave_cluster(&mut self, node: usize) {
        let Some(mut machine) = self.machines[node].take() else { return };
        if let Some(serving) = machine.serving.clone() {
            self.mail(&machine, node, self.now, None, true);
            let ids: Vec<_> = self.model.sockets_of(node).map(|(id, _)| *id).collect();
            for id in ids {
                machine.within(|| serving.adapter.remove(id));
                self.model.remove(id, self.now);
            }
        }
        self.trace.note(self.now, node, "leaves", [0; 2]);
        self.model.disturbed(node, self.now);
        machine.leave();
        self.machines[node] = Some(machine);
    }
}

fn packet(name: &str, volatile: bool) -> Arc<Outgoing> {
    let packet = EncodedPacket::event(NAMESPACE, None, name, &Args::none());
    Arc::new(Outgoing { volatile, compress: false, ..Outgoing::now(packet) })
}
