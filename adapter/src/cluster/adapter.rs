//! One namespace of a cluster as an [`Adapter`]: the local one, and the other nodes through the broker.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::{BoxFuture, FutureExt, ready};
use futures_util::stream::StreamExt;
use roomcast_protocol::socketio::{AckId, Args};
use tokio::sync::oneshot;

use super::directory::MAX_NAME;
use super::journey::Journey;
use super::message::{Answer, Broadcast, Message, Op};
use super::node::{Namespace, Node};
use super::outbox::Confirm;
use super::requests::Outcome;
use super::{Subject, subject};
use crate::adapter::{AckStream, Adapter, AdapterError, Collected, LocalSocket, RemoteSocket};
use crate::id::SocketId;
use crate::local::{Acks, Collector, deadline_of};
use crate::mailbox::Outgoing;
use crate::presence::{RoomCount, RoomPage};
use crate::selector::{Room, Selector};
use crate::trace::TraceContext;

/// One namespace on one node of a cluster.
pub struct ClusterAdapter {
    node: Arc<Node>,
    namespace: Arc<Namespace>,
}

/// Forgets a request when nobody waits for it any more.
pub(super) struct Forget(pub(super) Arc<Node>, pub(super) u64);

impl Drop for Forget {
    fn drop(&mut self) {
        self.0.requests.finish(self.1);
    }
}

impl ClusterAdapter {
    pub(super) fn new(node: Arc<Node>, namespace: Arc<Namespace>) -> Self {
        Self { node, namespace }
    }

    fn publish_broadcast(
        &self,
        selector: &Selector,
        outgoing: &Outgoing,
        confirm: Option<Confirm>,
    ) -> Result<(), AdapterError> {
        let subjects = self.node.subjects_of(&self.namespace, selector);
        let broadcast = Broadcast {
            namespace: Arc::clone(&self.namespace.name),
            id: self.node.broadcast_id(),
            selector: selector.clone(),
            volatile: outgoing.volatile,
            compress: outgoing.compress,
            journey: self.node.tells_journeys().then_some(Journey {
                age: Duration::ZERO,
                trace: outgoing.trace.filter(|trace| trace.is_sampled()),
            }),
            frames: outgoing.packet.frames().clone(),
        };
        let emitted_at = broadcast.journey.map(|_| outgoing.emitted_at);
        self.node.publish_emitted(subjects, &Message::Broadcast(broadcast), emitted_at, confirm)
    }

    fn request_message(&self, id: u64, op: Op) -> (Vec<Subject>, Message) {
        let namespace = Arc::clone(&self.namespace.name);
        (vec![subject::all()], Message::Request { id, namespace, op })
    }

    /// Asks the other nodes. The future is ready when all have answered or died, or the time is over. When the broker
    /// is away it is ready at once, and everybody is missing.
    fn request(
        &self,
        op: Op,
        timeout: Duration,
    ) -> (Result<(), AdapterError>, impl Future<Output = Outcome> + Send + use<>) {
        let node = Arc::clone(&self.node);
        let (id, members) = (node.requests.next_id(), node.members());
        let done = node.requests.begin(id, members.iter().copied());
        let slot = node.slot();
        let sent = slot.as_ref().map_or_else(
            |error| Err(*error),
            |_| {
                let (subjects, message) = self.request_message(id, op);
                node.publish(subjects, &message, None)
            },
        );
        node.lost_of(&members).into_iter().for_each(|lost| node.requests.node_lost(lost));
        let (deadline, forget) = (deadline_of(timeout), Forget(Arc::clone(&node), id));
        let wait = async move {
            if sent.is_ok() {
                // Either way: what has come, and who is missing.
                let _ = tokio::time::timeout_at(deadline, done).await;
            }
            let outcome = node.requests.finish(id);
            drop((forget, slot));
            node.counters.requests_incomplete.add(u64::from(!outcome.missing.is_empty()));
            outcome
        };
        (sent, wait)
    }

    /// A request that changes sockets. Here it was done already; an error says that it was done only here.
    fn change(&self, local: bool, op: Op) -> BoxFuture<'static, Result<Collected<()>, AdapterError>> {
        if local {
            return ready(Ok(Collected { value: (), missing: Vec::new() })).boxed();
        }
        let (sent, wait) = self.request(op, self.node.config.request_timeout);
        match sent {
            Ok(()) => wait.map(|outcome| Ok(Collected { value: (), missing: outcome.missing })).boxed(),
            Err(error) => ready(Err(error)).boxed(),
        }
    }

    /// The sockets that a node sent. What is not valid is counted and left out.
    pub(super) fn parse_sockets(node: &Node, answers: Vec<Answer>, sockets: &mut Vec<RemoteSocket>) {
        for answer in answers {
            let Answer::Sockets(answer) = answer else { continue };
            for json in answer {
                match serde_json::from_slice(&json) {
                    Ok(socket) => sockets.push(socket),
                    Err(_) => node.counters.malformed_invalid.add(1),
                }
            }
        }
    }
}

impl Adapter for ClusterAdapter {
    fn add(&self, socket: LocalSocket) {
        self.namespace.local.add(socket);
    }

    fn remove(&self, id: SocketId) -> Vec<Room> {
        self.namespace.local.remove(id)
    }

    fn join(&self, id: SocketId, rooms: &[Room]) -> BoxFuture<'static, Result<bool, AdapterError>> {
        if !self.namespace.local.join_local(id, rooms) {
            return ready(Ok(false)).boxed();
        }
        self.node.subscribed(&self.namespace, rooms).map(|subscribed| subscribed.map(|()| true)).boxed()
    }

    fn leave(&self, id: SocketId, room: &str) {
        self.namespace.local.leave_local(id, room);
    }

    fn rooms_of(&self, id: SocketId) -> Vec<Room> {
        self.namespace.local.rooms_of(id)
    }

    fn is_member(&self, id: SocketId, room: &str) -> bool {
        self.namespace.local.is_member(id, room)
    }

    fn local_count(&self) -> usize {
        self.namespace.local.local_count()
    }

    fn local_room_count(&self) -> usize {
        self.namespace.local.local_room_count()
    }

    fn broadcast(&self, selector: &Selector, outgoing: &Arc<Outgoing>) -> Result<(), AdapterError> {
        // Published first, which only queues: what this node's sockets do upon the packet comes after it everywhere.
        let published =
            if selector.local { Ok(()) } else { self.publish_broadcast(selector, outgoing, None) };
        self.namespace.local.deliver(selector, outgoing);
        published
    }

    fn broadcast_confirmed(
        &self,
        selector: &Selector,
        outgoing: &Arc<Outgoing>,
    ) -> BoxFuture<'static, Result<(), AdapterError>> {
        if selector.local {
            self.namespace.local.deliver(selector, outgoing);
            return ready(Ok(())).boxed();
        }
        let (confirm, confirmed) = oneshot::channel();
        let published = self.publish_broadcast(selector, outgoing, Some(confirm));
        self.namespace.local.deliver(selector, outgoing);
        match published {
            // The sender is dropped with the node.
            Ok(()) => confirmed.map(|taken| taken.unwrap_or(Err(AdapterError::BrokerUnavailable))).boxed(),
            Err(error) => ready(Err(error)).boxed(),
        }
    }

    fn broadcast_with_ack(
        &self,
        selector: &Selector,
        name: &str,
        args: &Args,
        timeout: Duration,
        trace: Option<TraceContext>,
    ) -> AckStream {
        let (node, local) = (&self.node, &self.namespace.local);
        let (me, deadline) = (node.me().tag, deadline_of(timeout));
        if selector.local {
            return local.broadcast_with_ack(selector, name, args, timeout, trace);
        }
        let others = node.members();
        let collector = Collector::new(me, std::iter::once(me).chain(others.iter().copied()));
        let (id, slot) = (node.requests.next_id(), node.slot());
        node.collectors.lock().insert(id, Arc::clone(&collector));
        let trace = trace.filter(|trace| trace.is_sampled() && node.tells_traced_asks());
        let op =
            Op::Ask { selector: selector.clone(), name: name.into(), args: args.clone(), timeout, trace };
        let (subjects, message) = self.request_message(id, op);
        let asked = slot.is_ok() && node.publish(subjects, &message, None).is_ok();
        let lost = if asked { node.lost_of(&others) } else { others };
        lost.into_iter().for_each(|other| collector.node_lost(other));
        let ack = local.ask(selector, name, args, Arc::clone(&collector) as _);
        let (node, local, waits_for) = (Arc::clone(node), Arc::clone(local), Arc::clone(&collector));
        let cancel = move || {
            node.collectors.lock().remove(&id);
            drop(slot);
            local.cancel(ack);
            // Those who answered, or whose time is over, have forgotten it.
            if asked && waits_for.is_waiting() {
                let _ = node.publish(vec![subject::all()], &Message::Cancel { id }, None);
            }
        };
        Acks::new(collector, deadline, cancel).boxed()
    }

    fn ack(&self, id: SocketId, ack: AckId, args: Args) {
        self.namespace.local.ack(id, ack, args);
    }

    fn owes_acks(&self, id: SocketId) -> bool {
        self.namespace.local.owes_acks(id)
    }

    fn fetch_sockets(&self, selector: &Selector) -> BoxFuture<'static, Collected<Vec<RemoteSocket>>> {
        let mut sockets = self.namespace.local.fetch(selector);
        if selector.local {
            return ready(Collected { value: sockets, missing: Vec::new() }).boxed();
        }
        let (_, wait) = self.request(Op::Fetch(selector.clone()), self.node.config.request_timeout);
        let node = Arc::clone(&self.node);
        wait.map(move |outcome| {
            Self::parse_sockets(&node, outcome.answers, &mut sockets);
            Collected { value: sockets, missing: outcome.missing }
        })
        .boxed()
    }

    fn count_sockets(&self, selector: &Selector) -> BoxFuture<'static, Collected<usize>> {
        let here = self.namespace.local.count(selector);
        if selector.local {
            return ready(Collected { value: here, missing: Vec::new() }).boxed();
        }
        let (_, wait) = self.request(Op::Count(selector.clone()), self.node.config.request_timeout);
        wait.map(move |outcome| {
            let counts = outcome.answers.iter().map(|answer| match answer {
                Answer::Count(count) => usize::try_from(*count).unwrap_or(usize::MAX),
                _ => 0,
            });
            Collected { value: counts.fold(here, usize::saturating_add), missing: outcome.missing }
        })
        .boxed()
    }

    fn room_count(&self, room: &str) -> BoxFuture<'static, RoomCount> {
        if room.len() > MAX_NAME {
            let counted = self.count_sockets(&Selector::rooms([room]));
            return counted.map(RoomCount::from).boxed();
        }
        Arc::clone(&self.node).room_count(Arc::clone(&self.namespace), room.into()).boxed()
    }

    fn rooms(&self, after: Option<&str>, limit: usize) -> BoxFuture<'static, RoomPage> {
        let namespace = Arc::clone(&self.namespace);
        Arc::clone(&self.node).rooms(namespace, after.map(Room::from), limit).boxed()
    }

    fn room_sockets(
        &self,
        room: &str,
        after: Option<SocketId>,
        limit: usize,
    ) -> BoxFuture<'static, Collected<Vec<RemoteSocket>>> {
        let namespace = Arc::clone(&self.namespace);
        Arc::clone(&self.node).room_sockets(namespace, room.into(), after, limit).boxed()
    }

    fn sockets_join(
        &self,
        selector: &Selector,
        rooms: &[Room],
    ) -> BoxFuture<'static, Result<Collected<()>, AdapterError>> {
        self.namespace.local.join_selected(selector, rooms);
        let here = self.node.subscribed(&self.namespace, rooms);
        let there = self.change(selector.local, Op::Join(selector.clone(), rooms.to_vec()));
        async move {
            let (here, there) = tokio::join!(here, there);
            here?;
            there
        }
        .boxed()
    }

    fn sockets_leave(
        &self,
        selector: &Selector,
        rooms: &[Room],
    ) -> BoxFuture<'static, Result<Collected<()>, AdapterError>> {
        self.namespace.local.leave_selected(selector, rooms);
        self.change(selector.local, Op::Leave(selector.clone(), rooms.to_vec()))
    }

    fn disconnect_sockets(
        &self,
        selector: &Selector,
        close: bool,
    ) -> BoxFuture<'static, Result<Collected<()>, AdapterError>> {
        self.namespace.local.disconnect_selected(selector, close);
        self.change(selector.local, Op::Disconnect(selector.clone(), close))
    }

    fn server_side_emit(&self, name: &str, args: &Args) -> Result<(), AdapterError> {
        let namespace = Arc::clone(&self.namespace.name);
        let message = Message::ServerEvent { namespace, name: name.into(), args: args.clone() };
        self.node.publish(vec![subject::all()], &message, None)
    }

    fn server_side_emit_with_ack(
        &self,
        name: &str,
        args: &Args,
        timeout: Duration,
    ) -> BoxFuture<'static, Collected<Vec<Args>>> {
        let op = Op::ServerEvent { name: name.into(), args: args.clone() };
        let (_, wait) = self.request(op, timeout);
        wait.map(|outcome| {
            let replies = outcome.answers.into_iter().filter_map(|answer| match answer {
                Answer::Reply(args) => Some(args),
                _ => None,
            });
            Collected { value: replies.collect(), missing: outcome.missing }
        })
        .boxed()
    }
}
