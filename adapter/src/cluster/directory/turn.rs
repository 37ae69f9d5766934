//! The directory on a node: its task, its messages, its questions, and whoever listens to what happens.
//!
//! The lock of the directory is a leaf: what this node has itself is looked up before it is taken.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures_util::future::join_all;
use parking_lot::Mutex;
use tokio::sync::{Notify, mpsc, oneshot};
use tokio::time::{Instant, sleep, sleep_until, timeout};

use super::dirty::Marks;
use super::{Directory, Entry, Known, Query, Receipt, Times, Update};
use crate::adapter::{AdapterError, Collected, RemoteSocket};
use crate::cluster::adapter::{ClusterAdapter, Forget};
use crate::cluster::membership::Member;
use crate::cluster::message::{Answer, Identity, Message};
use crate::cluster::node::{Namespace, Node};
use crate::cluster::{ClusterConfig, subject};
use crate::host::NodeState;
use crate::id::{NodeTag, SocketId};
use crate::local::SHARDS;
use crate::presence::{PresenceEvent, RoomCount};
use crate::selector::Room;

/// Events that may wait for whoever listens.
const MAX_EVENTS: usize = 65_536;
/// Bytes of one update, at most, also where the broker takes more.
const MAX_UPDATE: usize = 256 * 1024;
/// Rooms and sockets that are walked over in one turn, about.
const STEP: usize = 32_768;

/// Bytes of updates in one turn, about; no more either while the queue to the broker is half full. The rest is for later
/// turns, and the other half for what users send.
const TURN_BYTES: usize = 4 * 1024 * 1024;

/// What a node has of the directory.
pub(crate) struct Shell {
    pub(crate) state: Mutex<Directory>,
    /// Rings when something is marked.
    pub(crate) bell: Arc<Notify>,
    listener: Mutex<Option<mpsc::Sender<PresenceEvent>>>,
    /// What is left to tell is to be told now.
    is_ending: AtomicBool,
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

impl Shell {
    pub(crate) fn new(me: Identity, config: &ClusterConfig) -> Self {
        let times = Times {
            expiry: millis(config.expiry),
            lease: millis(config.lease),
            vacate_after: millis(config.vacate_after),
            settle: millis(config.heartbeat * 2 + config.directory_interval),
        };
        Self {
            state: Mutex::new(Directory::new(me, times)),
            bell: Arc::default(),
            listener: Mutex::default(),
            is_ending: AtomicBool::new(false),
        }
    }

    /// The events of this node go to the receiver from now on.
    pub(crate) fn listen(&self) -> mpsc::Receiver<PresenceEvent> {
        let (sender, receiver) = mpsc::channel(MAX_EVENTS);
        *self.listener.lock() = Some(sender);
        receiver
    }

    /// The receiver ends, with what is left to tell if nobody else will.
    pub(crate) fn end(&self) {
        self.is_ending.store(true, Ordering::Release);
        self.bell.notify_one();
    }

    /// The receiver ends. The other owners tell what would have gone to it, once they hear that this node is gone.
    pub(crate) fn stop_listening(&self) {
        *self.listener.lock() = None;
    }
}

/// How far the walk over what this node has itself has come.
#[derive(Debug, Default)]
pub(crate) struct Cursor {
    walk: u64,
    part: usize,
    spare: Marks,
    /// To whom the last turn had more to tell than it might.
    rest: Option<NodeTag>,
}

impl Node {
    /// The task of the directory. Never ends.
    pub(crate) async fn run_directory(self: Arc<Self>) {
        let (interval, bell) = (self.config.directory_interval, Arc::clone(&self.directory.bell));
        let (mut cursor, mut told_at) = (Cursor::default(), None);
        loop {
            let is_ending = self.directory.is_ending.swap(false, Ordering::AcqRel);
            self.directory_turn(&mut cursor).await;
            if is_ending {
                self.end_presence(&mut cursor).await;
            }
            // What changes after a quiet time is told at once, what changes soon after that together with the rest.
            let changed = async {
                bell.notified().await;
                sleep_until(told_at.map_or_else(Instant::now, |told_at: Instant| told_at + interval)).await;
            };
            tokio::select! {
                biased;
                () = changed => told_at = Some(Instant::now()),
                () = sleep(interval) => {}
            }
        }
    }

    /// Looks at who is there and at what changed, tells the owners, and tells what happened.
    pub(crate) async fn directory_turn(&self, cursor: &mut Cursor) {
        let (me, now) = (self.me(), self.now_ms());
        let members = self.directory_members(me);
        self.directory.state.lock().set_members(me, members, now);
        let mut namespaces: Vec<_> = self.namespaces.read().values().cloned().collect();
        namespaces.sort_unstable_by(|one, other| one.name.cmp(&other.name));
        for namespace in &namespaces {
            self.take_marks(namespace, &mut cursor.spare);
        }
        let is_up = self.interests.state.lock().is_ready();
        if is_up {
            self.directory.state.lock().resume();
            self.walk(&namespaces, cursor);
        } else {
            self.directory.state.lock().suspend();
        }
        let is_ready = is_up && self.members_known.load(Ordering::Acquire);
        let turn = self.directory.state.lock().turn(now, is_ready);
        self.counters.directory_records.set(turn.records as u64);
        self.counters.sockets_reaped.add(turn.reaped);
        let taken = if is_up { self.tell_owners(cursor, now, !turn.events.is_empty()) } else { Vec::new() };
        if !turn.events.is_empty() {
            // The other owners know of it before anybody else does: should this node die, they do not tell it anew under
            // another number. That they may not have got it is no reason not to tell.
            let _ = timeout(self.config.heartbeat, join_all(taken)).await;
            self.tell_listener(turn.events);
        }
    }

    /// The sockets of this node are gone, and so is the node soon. The others tell when their rooms are vacated; if none of
    /// them stays either, this node does, without the wait.
    async fn end_presence(&self, cursor: &mut Cursor) {
        if self.is_last() {
            // The sockets of others that drain may have left at the same moment.
            sleep(self.config.directory_interval * 2).await;
            self.directory_turn(cursor).await;
            let now = self.now_ms();
            let events = self.directory.state.lock().vacate_now(now);
            // They are not to tell it as well.
            let taken = self.tell_owners(cursor, now, true);
            let _ = timeout(self.config.heartbeat, join_all(taken)).await;
            self.counters.presence_events.add(events.len() as u64);
            let listener = self.directory.listener.lock().take();
            for event in events {
                tracing::debug!(?event, "presence");
                let Some(listener) = &listener else { break };
                let _ = listener.send(event).await;
            }
        }
        self.directory.stop_listening();
    }

    /// Whether this node knows the cluster, and all others in it drain.
    fn is_last(&self) -> bool {
        let is_up = self.interests.state.lock().is_ready() && self.members_known.load(Ordering::Acquire);
        let is_draining = |member: &Member| {
            let standing = member.vitals.and_then(|vitals| vitals.standing);
            standing.is_some_and(|standing| standing.state == NodeState::Draining)
        };
        is_up && self.membership.lock().live().all(|(_, member)| is_draining(member))
    }

    /// The live nodes that keep the directory, this one among them.
    fn directory_members(&self, me: Identity) -> Vec<Identity> {
        let membership = self.membership.lock();
        let others = membership.live().filter(|(_, member)| member.vitals.is_some());
        let mut members: Vec<_> =
            others.map(|(tag, member)| Identity { tag, generation: member.generation }).collect();
        drop(membership);
        members.push(me);
        members.sort_unstable_by_key(|member| member.tag);
        members
    }

    fn take_marks(&self, namespace: &Namespace, spare: &mut Marks) {
        namespace.dirty.take(spare);
        if spare.rooms.is_empty() && spare.sockets.is_empty() {
            return;
        }
        let rooms = spare.rooms.iter().map(|room| count_of(namespace, room));
        let sockets =
            spare.sockets.iter().map(|id| Entry::Socket { id: *id, here: namespace.local.contains(*id) });
        let entries: Vec<_> = rooms.chain(sockets).collect();
        let mut directory = self.directory.state.lock();
        entries.iter().for_each(|entry| directory.changed(&namespace.name, entry));
    }

    /// Goes on with the walk, if there is one.
    fn walk(&self, namespaces: &[Arc<Namespace>], cursor: &mut Cursor) {
        let mut seen = 0;
        while seen < STEP {
            let Some(walk) = self.directory.state.lock().walk() else { return };
            if cursor.walk != walk {
                (cursor.walk, cursor.part) = (walk, 0);
            }
            let Some(namespace) = namespaces.get(cursor.part / SHARDS) else {
                self.directory.state.lock().walk_done(walk);
                continue;
            };
            let (rooms, sockets) = namespace.local.part(cursor.part % SHARDS);
            let rooms =
                rooms.into_iter().map(|(room, sockets)| Entry::Count { room, sockets: as_u32(sockets) });
            let sockets = sockets.into_iter().map(|id| Entry::Socket { id, here: true });
            let entries: Vec<_> = rooms.chain(sockets).collect();
            seen += entries.len();
            self.directory.state.lock().walked(walk, &namespace.name, entries);
            cursor.part += 1;
        }
    }

    /// Publishes what there is to tell, as much as one turn may. With `confirm`, who says when the broker has taken it.
    fn tell_owners(
        &self,
        cursor: &mut Cursor,
        now: u64,
        confirm: bool,
    ) -> Vec<oneshot::Receiver<Result<(), AdapterError>>> {
        let (max_bytes, heartbeat) =
            (self.room_for_contents().min(MAX_UPDATE), millis(self.config.heartbeat));
        let mut others = self.directory.state.lock().others();
        // The one that has waited goes first.
        let first = cursor.rest.take().map_or(0, |rest| others.partition_point(|to| *to < rest));
        others.rotate_left(first);
        let (mut taken, mut bytes) = (Vec::new(), 0);
        for to in others {
            loop {
                if bytes >= TURN_BYTES || self.outbox.is_half_full() {
                    cursor.rest = Some(to);
                    return taken;
                }
                let update = self.directory.state.lock().next_update(to, now, max_bytes, heartbeat);
                let Some(update) = update else { break };
                bytes += update.size();
                let (sender, receiver) = oneshot::channel();
                let message = Message::Update(update);
                let sent = self.publish(vec![subject::node(to)], &message, confirm.then_some(sender)).is_ok();
                let Message::Update(update) = message else { break };
                self.directory.state.lock().done(to, update, sent, now);
                if !sent {
                    break;
                }
                self.counters.directory_sent.add(1);
                taken.push(receiver);
            }
        }
        taken
    }

    fn tell_listener(&self, events: Vec<PresenceEvent>) {
        self.counters.presence_events.add(events.len() as u64);
        let mut listener = self.directory.listener.lock();
        for event in events {
            tracing::debug!(?event, "presence");
            match listener.as_ref().map(|listener| listener.try_send(event)) {
                None | Some(Ok(())) => {}
                Some(Err(mpsc::error::TrySendError::Full(_))) => self.counters.presence_dropped.add(1),
                Some(Err(mpsc::error::TrySendError::Closed(_))) => *listener = None,
            }
        }
    }

    pub(crate) fn directory_update(&self, from: Identity, update: Update) {
        let known = self.membership.lock().known();
        let session = update.session;
        let now = self.now_ms();
        let receipt = self.directory.state.lock().receive(from, update, &known, now);
        match receipt {
            Receipt::Taken | Receipt::Ignored => self.counters.directory_received.add(1),
            Receipt::Malformed => self.counters.malformed_invalid.add(1),
            Receipt::Gap => {
                self.counters.directory_gaps.add(1);
                // Should this get lost, the next update asks again.
                let _ = self.publish(vec![subject::node(from.tag)], &Message::Resync { session }, None);
            }
        }
    }

    pub(crate) fn directory_query(&self, from: NodeTag, id: u64, query: &Query) {
        match query {
            Query::Room { namespace, room } => {
                let known = self.known(namespace, room, from);
                // Should this get lost, whoever asks goes to the next owner.
                let _ = self.publish(vec![subject::node(from)], &Message::Found { id, known }, None);
            }
            Query::Sockets { namespace, room, after, limit } => {
                let local = self.namespaces.read().get(namespace).map(|known| Arc::clone(&known.local));
                let limit = usize::try_from(*limit).unwrap_or(usize::MAX);
                let page = local.map_or_else(Vec::new, |local| local.page(room, *after, limit));
                self.respond_remote(from, id, &page);
            }
            Query::Rooms { namespace, after, limit } => {
                let limit = usize::try_from(*limit).unwrap_or(usize::MAX);
                self.respond_rooms(from, id, self.listed(namespace, after.as_ref(), limit));
            }
        }
    }

    /// What this node knows of a room, if it is an owner, without the sockets of whoever asks.
    fn known(&self, namespace: &str, room: &str, asker: NodeTag) -> Option<Known> {
        let mut known = self.directory.state.lock().known(namespace, room, asker, self.now_ms())?;
        if asker != self.me().tag {
            let local = self.namespaces.read().get(namespace).map(|namespace| Arc::clone(&namespace.local));
            known.sockets += local.map_or(0, |local| local.members(room)) as u64;
        }
        let membership = self.membership.lock();
        known.missing.extend(membership.live().filter(|(_, of)| of.vitals.is_none()).map(|(tag, _)| tag));
        drop(membership);
        known.missing.sort_unstable();
        Some(known)
    }

    /// Asks the owners of a room for its count, one after the other.
    pub(crate) async fn room_count(self: Arc<Self>, namespace: Arc<Namespace>, room: Room) -> RoomCount {
        let owners = self.directory.state.lock().owners(&namespace.name, &room);
        let me = self.me().tag;
        for owner in owners {
            let known = match owner == me {
                true => self.known(&namespace.name, &room, me).filter(|_| self.is_connected()),
                false => self.ask_owner(owner, &namespace, &room).await,
            };
            if let Some(Known { sockets, age, missing }) = known {
                let others = usize::try_from(sockets).unwrap_or(usize::MAX);
                let sockets = others.saturating_add(namespace.local.members(&room));
                return RoomCount { sockets, exact: missing.is_empty(), age, missing };
            }
        }
        let (sockets, missing) = (namespace.local.members(&room), self.members());
        RoomCount { sockets, exact: false, age: Duration::ZERO, missing }
    }

    /// A page of the sockets in a room, in the order of their ids: those of each node together.
    pub(crate) async fn room_sockets(
        self: Arc<Self>,
        namespace: Arc<Namespace>,
        room: Room,
        after: Option<SocketId>,
        limit: usize,
    ) -> Collected<Vec<RemoteSocket>> {
        // The ids of nodes before have been seen.
        let is_ahead = |tag: NodeTag| after.is_none_or(|after| tag >= after.node());
        let mut sockets = namespace.local.page(&room, after, limit);
        let (asked, silent): (Vec<_>, Vec<_>) = {
            let membership = self.membership.lock();
            let ahead = membership.live().filter(|(tag, _)| is_ahead(*tag));
            ahead
                .map(|(tag, member)| (tag, member.vitals.is_some()))
                .partition(|(_, understands)| *understands)
        };
        let slot = self.slot();
        let id = self.requests.next_id();
        let done = self.requests.begin(id, asked.iter().map(|(tag, _)| *tag));
        let forget = Forget(Arc::clone(&self), id);
        let query =
            Query::Sockets { namespace: Arc::clone(&namespace.name), room, after, limit: as_u32(limit) };
        let asked: Vec<_> = asked.into_iter().map(|(tag, _)| tag).collect();
        let subjects = asked.iter().copied().map(subject::node).collect();
        if slot.is_ok() && self.publish(subjects, &Message::Query { id, query }, None).is_ok() {
            self.lost_of(&asked).into_iter().for_each(|lost| self.requests.node_lost(lost));
            // Either way: what has come, and who is missing.
            let _ = timeout(self.config.request_timeout, done).await;
        }
        let mut outcome = self.requests.finish(id);
        drop((forget, slot));
        ClusterAdapter::parse_sockets(&self, outcome.answers, &mut sockets);
        sockets.sort_unstable_by_key(|socket| socket.id);
        sockets.truncate(limit);
        outcome.missing.extend(silent.into_iter().map(|(tag, _)| tag));
        outcome.missing.sort_unstable();
        self.counters.requests_incomplete.add(u64::from(!outcome.missing.is_empty()));
        Collected { value: sockets, missing: outcome.missing }
    }

    pub(super) fn is_connected(&self) -> bool {
        self.interests.state.lock().is_ready()
    }

    async fn ask_owner(
        self: &Arc<Self>,
        owner: NodeTag,
        namespace: &Namespace,
        room: &Room,
    ) -> Option<Known> {
        let id = self.requests.next_id();
        let query = Query::Room { namespace: Arc::clone(&namespace.name), room: Arc::clone(room) };
        match self.ask(owner, id, &Message::Query { id, query }, self.config.heartbeat).await {
            Ok(Some(Answer::Known(known))) => Some(known),
            _ => None,
        }
    }
}

fn as_u32(sockets: usize) -> u32 {
    u32::try_from(sockets).unwrap_or(u32::MAX)
}

fn count_of(namespace: &Namespace, room: &Room) -> Entry {
    Entry::Count { room: Arc::clone(room), sockets: as_u32(namespace.local.joined(room)) }
}
