//! What a message from the broker does. Runs on the driver's task: decodes, acts on this node, queues the answer.

use std::hash::BuildHasher;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant as StdInstant};

use bytes::Bytes;
use roomcast_protocol::socketio::{Args, EncodedPacket};
use tokio::time::Instant;

use super::journey::RemoteDelivery;
use super::message::{Answer, Broadcast, Envelope, Identity, Listening, Message, Op};
use super::node::{MAX_GREETERS, Namespace, Node};
use super::overload::{Verdict, Work};
use super::relay::{Relay, chunks};
use super::wire::{self, WireError};
use super::{Backlog, BusSink, BusState, subject};
use crate::adapter::{RemoteSocket, ServerReply};
use crate::id::NodeTag;
use crate::local::deadline_of;
use crate::mailbox::Outgoing;
use crate::selector::Selector;

/// The node's ear. Weak, because the node holds the bus and the bus holds this.
pub(crate) struct Ear(pub(crate) Weak<Node>);

impl BusSink for Ear {
    fn message(&self, _subject: &str, payload: Bytes, backlog: Backlog) {
        if let Some(node) = self.0.upgrade() {
            node.receive(payload, backlog);
        }
    }

    fn state(&self, state: BusState) {
        let Some(node) = self.0.upgrade() else { return };
        match state {
            BusState::Up => node.broker_up(),
            BusState::Down => node.broker_down(),
        }
    }
}

impl Node {
    fn broker_up(&self) {
        self.membership.lock().hear(Instant::now().into_std());
        self.forget_audience();
        self.interests.state.lock().up();
        self.outbox.set_up(true);
        self.interests.wake.notify_one();
    }

    fn broker_down(&self) {
        self.outbox.set_up(false);
        self.members_known.store(false, Ordering::Release);
        self.interests.state.lock().down();
        self.counters.broker_down.add(1);
        tracing::warn!("the broker is away");
        self.update_status();
    }

    pub(crate) fn receive(self: &Arc<Self>, payload: Bytes, backlog: Backlog) {
        let len = payload.len() as u64;
        let envelope = match wire::decode(payload) {
            Ok(envelope) => envelope,
            Err(error) => return self.count_malformed(error),
        };
        let me = self.me();
        if envelope.from == me {
            if let Message::Vitals(vitals) = envelope.message {
                self.echo(vitals.said_at, backlog);
            }
            return;
        }
        self.counters.received.add(1);
        self.counters.received_bytes.add(len);
        if envelope.from.tag == me.tag {
            return self.same_tag(&envelope);
        }
        match envelope.message {
            Message::Hello | Message::Heartbeat | Message::Goodbye | Message::Vitals(_) => {
                self.member(&envelope);
            }
            Message::Buried { generation } => {
                if generation == me.generation && self.is_claimed() {
                    self.fence();
                }
            }
            Message::Reach(reach) => self.learn_reach(envelope.from, reach),
            Message::Listens { number, listening } => self.listens(envelope.from, number, listening),
            // Until the tag is certain this node has promised nothing to anybody.
            _ if !self.is_claimed() => {}
            Message::Cancel { id } => {
                self.end_relays(|relay| relay.origin() == envelope.from.tag && relay.request() == id);
            }
            Message::Broadcast(broadcast) => self.broadcast(envelope.from, broadcast, backlog),
            Message::ServerEvent { namespace, name, args } => {
                if let Some(namespace) = self.find(&namespace) {
                    namespace.events.server_side_event(&name, args, None);
                }
            }
            Message::Request { id, namespace, op } => {
                if self.recent_requests.lock().is_new(envelope.from, id) {
                    self.request(envelope.from.tag, id, self.find(&namespace), op);
                } else {
                    self.counters.duplicate.add(1);
                }
            }
            Message::Heard { number } => {
                // Answers are kept: those of nobody who was asked are not.
                let is_known = self.membership.lock().is_known(envelope.from);
                if is_known && self.routing.lock().heard(envelope.from, number) {
                    self.wake.notify_one();
                }
            }
            Message::Response { id, last, answer } => self.response(envelope.from.tag, id, last, answer),
            Message::Update(update) => self.directory_update(envelope.from, update),
            Message::Resync { session } => self.directory.state.lock().resync(envelope.from, session),
            Message::Query { id, query } => self.directory_query(envelope.from.tag, id, &query),
            Message::Claim { id, key } => self.claimed_by(envelope.from.tag, id, key),
            Message::Claimed { id, verdict } => {
                self.requests.answer(id, envelope.from.tag, true, Answer::Verdict(verdict));
            }
            Message::Settled(records) => self.settled_elsewhere(records),
            Message::Drain { id, order } => self.drained_by(envelope.from.tag, id, order),
            Message::Draining { id, drains } => {
                self.answered(id, envelope.from.tag, true, Answer::Drains(drains));
            }
            Message::Found { id, known } => {
                let answer = known.map_or(Answer::Refused, Answer::Known);
                self.answered(id, envelope.from.tag, true, answer);
            }
        }
    }

    fn count_malformed(&self, error: WireError) {
        let counter = match error {
            WireError::Foreign => &self.counters.malformed_foreign,
            WireError::Version => &self.counters.malformed_version,
            WireError::Truncated => &self.counters.malformed_truncated,
            WireError::Invalid => &self.counters.malformed_invalid,
        };
        counter.add(1);
    }

    fn find(&self, namespace: &str) -> Option<Arc<Namespace>> {
        self.namespaces.read().get(namespace).map(Arc::clone)
    }

    /// Another node has the tag of this one. Ids that were given out cannot be taken back: whoever is still starting
    /// gives way.
    fn same_tag(&self, envelope: &Envelope) {
        if !self.is_claimed() {
            self.conflict.store(true, Ordering::Release);
            return;
        }
        match envelope.message {
            // Of an earlier life of this node.
            _ if self.was(envelope.from) => {}
            // The answer comes on the subject of the tag, where both listen.
            Message::Hello => self.greet(envelope.from.tag),
            _ => {
                self.counters.tag_conflicts.add(1);
                tracing::error!(node = %envelope.from.tag, "another node has the tag of this one");
            }
        }
    }

    fn member(&self, envelope: &Envelope) {
        let changes = match envelope.message {
            Message::Heartbeat => self.membership.lock().heartbeat(envelope.from, Instant::now().into_std()),
            Message::Goodbye => self.membership.lock().goodbye(envelope.from),
            Message::Vitals(vitals) => {
                self.membership.lock().vitals(envelope.from, vitals);
                Vec::new()
            }
            _ => {
                self.greet(envelope.from.tag);
                Vec::new()
            }
        };
        self.refresh_audience();
        self.apply(changes);
    }

    /// Another node asks to be published to where it listens. The answer is queued behind what was published before.
    fn listens(&self, from: Identity, number: u64, listening: Listening) {
        let known = self.membership.lock().listens(from, listening);
        self.refresh_audience();
        if known && self.is_claimed() {
            // When it is refused, the other node asks again.
            let _ = self.publish(vec![subject::node(from.tag)], &Message::Heard { number }, None);
        }
    }

    /// What this node said to all at this time of its own has come back. A copy that was sent to one node does too.
    fn echo(&self, said_at: u64, backlog: Backlog) {
        let now = self.now_us();
        if said_at > now {
            // It was not this node that said so.
            return self.count_malformed(WireError::Invalid);
        }
        self.travel.came_back(Duration::from_micros(now - said_at).saturating_sub(backlog.waited));
        let echo = self.epoch + Duration::from_micros(said_at);
        let changes = self.membership.lock().echo(echo.into_std());
        self.refresh_audience();
        self.apply(changes);
    }

    /// Queues an answer to a hello.
    fn greet(&self, tag: NodeTag) {
        if !self.is_claimed() {
            return;
        }
        let mut greeters = self.greeters.lock();
        if greeters.len() < MAX_GREETERS && !greeters.contains(&tag) {
            greeters.push(tag);
        }
        drop(greeters);
        self.wake.notify_one();
    }

    fn broadcast(&self, from: Identity, broadcast: Broadcast, backlog: Backlog) {
        // First, so that what cannot be read does not take its number from what can.
        let Ok(packet) = EncodedPacket::from_frames(broadcast.frames) else {
            return self.count_malformed(WireError::Invalid);
        };
        if broadcast.id != 0 && !self.recent.lock().is_new(from, broadcast.id) {
            self.counters.duplicate.add(1);
            return;
        }
        let Some(namespace) = self.find(&broadcast.namespace) else { return };
        if self.sheds(&namespace, &broadcast.selector, packet.frames().len(), backlog) {
            return;
        }
        let now = StdInstant::now();
        let travelled = broadcast.journey.map(|journey| journey.age + self.travel.one_way());
        let trace = broadcast.journey.and_then(|journey| journey.trace);
        let outgoing = Arc::new(Outgoing {
            packet,
            emitted_at: now.checked_sub(backlog.waited).unwrap_or(now),
            travelled,
            trace,
            volatile: broadcast.volatile,
            compress: broadcast.compress,
        });
        let sockets = namespace.local.deliver(&broadcast.selector, &outgoing);
        let observed = trace.zip(travelled).zip(self.travel.observer());
        if let Some(((trace, travelled), observer)) = observed {
            let (namespace, took) = (&namespace.name, outgoing.emitted_at.elapsed());
            let travelled = Some(travelled);
            observer.delivered(&RemoteDelivery { trace, namespace, sockets, travelled, took });
        }
    }

    /// True if a broadcast is dropped, because this node is behind with delivering.
    fn sheds(&self, namespace: &Namespace, selector: &Selector, bytes: usize, backlog: Backlog) -> bool {
        let (room, recipients) = namespace.local.busiest(selector);
        let work = Work { room: self.room_hasher.hash_one((&namespace.name, room)), recipients, bytes };
        let now = Instant::now().into_std();
        let turn = self.probe.lag(now);
        let (verdict, begins, warns) = {
            let mut overload = self.overload.lock();
            let before = overload.is_behind();
            let verdict = overload.judge(work, backlog, turn, now);
            let begins = !before && overload.is_behind();
            (verdict, begins, begins && overload.warns(now))
        };
        self.counters.overloads.add(begins.into());
        if warns {
            let (millis, namespace) = (backlog.waited.max(turn).as_millis(), &namespace.name);
            tracing::warn!(millis, %namespace, "behind with delivering: shedding what goes to the busiest rooms");
        }
        let counter = match verdict {
            Verdict::Deliver => return false,
            Verdict::ShedRoom => &self.counters.room_overload,
            Verdict::ShedAny => &self.counters.node_overload,
        };
        counter.add(recipients as u64);
        self.counters.shed.add(1);
        true
    }

    fn request(self: &Arc<Self>, from: NodeTag, id: u64, namespace: Option<Arc<Namespace>>, op: Op) {
        let Some(namespace) = namespace else {
            let answer = match op {
                Op::Ask { .. } => Answer::Asked(Vec::new()),
                _ => Answer::Nothing,
            };
            return self.respond(from, id, true, answer);
        };
        let local = &namespace.local;
        match op {
            Op::Count(selector) => {
                self.respond(from, id, true, Answer::Count(local.count(&selector) as u64));
            }
            Op::Fetch(selector) => {
                self.respond_remote(from, id, &local.fetch(&selector));
            }
            Op::Join(selector, rooms) => {
                local.join_selected(&selector, &rooms);
                self.respond_when_subscribed(from, id, &namespace, &rooms);
            }
            Op::Leave(selector, rooms) => {
                local.leave_selected(&selector, &rooms);
                self.respond(from, id, true, Answer::Nothing);
            }
            Op::Disconnect(selector, close) => {
                local.disconnect_selected(&selector, close);
                self.respond(from, id, true, Answer::Nothing);
            }
            Op::ServerEvent { name, args } => {
                let reply = self.server_reply(from, id);
                namespace.events.server_side_event(&name, args, Some(reply));
            }
            // Before anybody is asked: there would be nobody to take the answers.
            Op::Ask { .. } if self.relays.lock().len() >= self.config.max_relays => {
                self.counters.requests_refused.add(1);
                self.respond(from, id, true, Answer::Refused);
            }
            Op::Ask { selector, name, args, timeout, trace } => {
                let began = StdInstant::now();
                let deadline = deadline_of(timeout);
                let relay = Relay::new(self, Arc::clone(&namespace), from, id, deadline);
                let ack = local.ask(&selector, &name, &args, Arc::clone(&relay) as _);
                relay.set_ack(ack);
                if let Some((trace, observer)) = trace.zip(self.travel.observer()) {
                    let (namespace, sockets) = (&namespace.name, relay.asked_count());
                    let (travelled, took) = (None, began.elapsed());
                    observer.delivered(&RemoteDelivery { trace, namespace, sockets, travelled, took });
                }
                if ack.is_some() {
                    self.relays.lock().push(relay);
                }
            }
        }
    }

    pub(crate) fn respond_remote(&self, to: NodeTag, id: u64, sockets: &[RemoteSocket]) {
        // What serializes to nothing that JSON knows is left out; serde_json values always do.
        let sockets = sockets.iter().filter_map(|socket| serde_json::to_vec(socket).ok());
        let sockets = sockets.map(Bytes::from).collect();
        let chunks = chunks(sockets, |socket| socket.len() + 4, self.room_for_contents());
        let count = chunks.len();
        for (at, chunk) in chunks.into_iter().enumerate() {
            self.respond(to, id, at + 1 == count, Answer::Sockets(chunk));
        }
    }

    fn respond_when_subscribed(
        self: &Arc<Self>,
        from: NodeTag,
        id: u64,
        namespace: &Namespace,
        rooms: &[crate::selector::Room],
    ) {
        let Ok(permit) = Arc::clone(&self.jobs).try_acquire_owned() else {
            self.counters.requests_refused.add(1);
            return self.respond(from, id, true, Answer::Refused);
        };
        let subscribed = self.subscribed(namespace, rooms);
        let node = Arc::clone(self);
        let job = async move {
            let answer = if subscribed.await.is_ok() { Answer::Nothing } else { Answer::Refused };
            node.respond(from, id, true, answer);
            drop(permit);
        };
        self.runtime.spawn(job);
    }

    fn server_reply(self: &Arc<Self>, from: NodeTag, id: u64) -> ServerReply {
        let node = Arc::downgrade(self);
        Box::new(move |args: Args| {
            if let Some(node) = node.upgrade() {
                node.respond(from, id, true, Answer::Reply(args));
            }
        })
    }

    fn answered(&self, id: u64, from: NodeTag, last: bool, answer: Answer) {
        if !self.requests.answer(id, from, last, answer) {
            self.counters.answers_refused.add(1);
        }
    }

    fn response(&self, from: NodeTag, id: u64, last: bool, answer: Answer) {
        let collector = self.collectors.lock().get(&id).map(Arc::clone);
        let Some(collector) = collector else {
            return self.answered(id, from, last, answer);
        };
        match answer {
            Answer::Asked(ids) => {
                if !collector.asked_by(from, ids, !last) {
                    self.counters.answers_refused.add(1);
                }
            }
            Answer::Settled(settled) => {
                // A node speaks for its own sockets only.
                for (socket, answer) in settled.into_iter().filter(|(socket, _)| socket.node() == from) {
                    collector.settled(socket, answer);
                }
            }
            Answer::Refused => collector.node_lost(from),
            Answer::Nothing
            | Answer::Count(_)
            | Answer::Sockets(_)
            | Answer::Reply(_)
            | Answer::Known(_)
            | Answer::Listed(_)
            | Answer::Verdict(_)
            | Answer::Drains(_) => {}
        }
    }
}
