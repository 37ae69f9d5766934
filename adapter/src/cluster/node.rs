//! A node of the cluster: what its namespaces and its tasks share.
//!
//! Owns the identity, the members, the subscriptions, the requests and the way to the broker. What a message does is in
//! `receive`, what runs by itself is in `tasks`.
//!
//! Locks here are leaves: none is held while another one is taken, except the state of a relay under the list of relays.
//! The lock of `interests` is taken under the lock of a room shard, and that of `membership` under the one of `audience`.

use std::collections::HashMap;
use std::hash::RandomState;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant as StdInstant};

use parking_lot::{Mutex, RwLock};
use rustc_hash::FxHashMap;
use tokio::runtime::Handle;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::Instant;

use super::directory::{Dirty, Shell};
use super::interest::{Interest, Wait};
use super::journey::Travel;
use super::membership::{Change, Membership};
use super::message::{Answer, Identity, Message, Vitals};
use super::once::Kept;
use super::outbox::{Confirm, Outbox};
use super::overload::Overload;
use super::probe::Probe;
use super::recent::Recent;
use super::relay::Relay;
use super::requests::Requests;
use super::room_subjects::bucket_of;
use super::routing::{Audience, Routing};
use super::{Bus, ClusterConfig, Subject, subject, wire};
use crate::adapter::{AdapterError, NamespaceEvents, Status};
use crate::counters::Counters;
use crate::host::HostSlot;
use crate::id::{NodeTag, SocketId};
use crate::local::{Collector, LocalAdapter, RoomObserver};
use crate::reach::Reach;
use crate::selector::{Room, Selector, Target};
use crate::tap::Tap;

/// Nodes that may wait for an answer to what they said; they are answered within a turn of the cluster task.
pub(crate) const MAX_GREETERS: usize = 4_096;
/// Numbers of the last requests that are remembered of each sender.
const RECENT_REQUESTS: usize = 8_192;

/// A namespace on this node.
pub(crate) struct Namespace {
    pub(crate) name: Arc<str>,
    pub(crate) subject: Subject,
    pub(crate) local: Arc<LocalAdapter>,
    pub(crate) dirty: Arc<Dirty>,
    pub(crate) events: Arc<dyn NamespaceEvents>,
}

/// The subscriptions, and a bell for the task that works on them.
pub(crate) struct Interests {
    pub(crate) state: Mutex<Interest>,
    pub(crate) wake: Notify,
}

impl Interests {
    pub(crate) fn want(&self, subject: &Subject) {
        if self.state.lock().want(subject) {
            self.wake.notify_one();
        }
    }
}

/// Tells the subscriptions which rooms of a namespace have members here, and the directory what changed.
struct RoomInterest {
    namespace: Arc<str>,
    dirty: Arc<Dirty>,
    interests: Arc<Interests>,
}

impl RoomObserver for RoomInterest {
    fn occupied(&self, room: &Room) {
        if self.interests.state.lock().occupied(&self.namespace, room) {
            self.interests.wake.notify_one();
        }
    }

    fn vacated(&self, room: &Room) {
        let now = Instant::now().into_std();
        if self.interests.state.lock().vacated(&self.namespace, room, now) {
            self.interests.wake.notify_one();
        }
    }

    fn changed(&self, room: &Room) {
        self.dirty.room(room);
    }

    fn socket_changed(&self, id: SocketId) {
        self.dirty.socket(id);
    }
}

pub(crate) struct Node {
    pub(crate) bus: Arc<dyn Bus>,
    pub(crate) config: ClusterConfig,
    pub(crate) counters: Arc<Counters>,
    pub(crate) tap: Arc<Tap>,
    /// The process that this node is.
    pub(crate) host: HostSlot,
    /// The tag changes only while the node starts, the generation when it begins a new life.
    pub(crate) identity: RwLock<Identity>,
    /// The beginning of the node's own time.
    pub(crate) epoch: Instant,
    /// When the heartbeat was due last, in milliseconds of the node's own time: how it knows that it hung.
    pub(crate) beat_at: AtomicU64,
    /// Another node has the tag that this one would like to have.
    pub(crate) conflict: AtomicBool,
    /// The tag is this node's for good.
    pub(crate) claimed: AtomicBool,
    /// Whoever is there has had the time to say so.
    pub(crate) members_known: AtomicBool,
    pub(crate) stopped: AtomicBool,
    pub(crate) membership: Mutex<Membership>,
    /// Nodes that said hello and have not been answered; bounded by who is answered at once.
    pub(crate) greeters: Mutex<Vec<NodeTag>>,
    /// Nodes that are gone for good and do not know it; they are told at once, too.
    pub(crate) revenants: Mutex<Vec<Identity>>,
    /// Where this node is reached past the broker, if it is.
    pub(crate) reach: Mutex<Option<Reach>>,
    /// Somebody spoke up who may not know it.
    pub(crate) reach_asked: AtomicBool,
    /// Rings when another node said where it is reached.
    pub(crate) reach_news: Notify,
    pub(crate) interests: Arc<Interests>,
    /// Whether this node listens to rooms or to buckets of them.
    pub(crate) routing: Mutex<Routing>,
    /// Where the others listen, by `membership`.
    pub(crate) audience: RwLock<Audience>,
    /// Whoever is there has had several heartbeats' time to say where it listens.
    pub(crate) audience_known: AtomicBool,
    /// Counts and presence over the whole cluster.
    pub(crate) directory: Shell,
    /// Calls that are carried out once.
    pub(crate) once: Kept,
    pub(crate) requests: Requests,
    /// Emits with acks that wait for other nodes.
    pub(crate) collectors: Mutex<FxHashMap<u64, Arc<Collector>>>,
    /// Relays that have something to send.
    pub(crate) ready_relays: Mutex<Vec<Arc<Relay>>>,
    /// All relays, until their time is over.
    pub(crate) relays: Mutex<Vec<Arc<Relay>>>,
    pub(crate) outbox: Outbox,
    /// How long messages take to the broker and back.
    pub(crate) travel: Travel,
    /// Broadcasts that were acted on.
    pub(crate) recent: Mutex<Recent>,
    /// Which broadcasts are shed.
    pub(crate) overload: Mutex<Overload>,
    pub(crate) probe: Probe,
    /// Room names are the users' own, hence a keyed hash.
    pub(crate) room_hasher: RandomState,
    /// Requests that were acted on.
    pub(crate) recent_requests: Mutex<Recent>,
    pub(crate) namespaces: RwLock<HashMap<Arc<str>, Arc<Namespace>>>,
    pub(crate) status: watch::Sender<Status>,
    /// Rings for the cluster task.
    pub(crate) wake: Notify,
    /// The broker came back and the subscriptions stand: say hello.
    pub(crate) resynced: AtomicBool,
    /// Bounds the requests of this node that wait for others.
    pub(crate) slots: Arc<Semaphore>,
    /// Bounds the requests of others that wait for subscriptions.
    pub(crate) jobs: Arc<Semaphore>,
    /// Where jobs run: messages come on the driver's task, which may belong to no runtime.
    pub(crate) runtime: Handle,
    next_broadcast: AtomicU64,
    /// Lives that are over. Each raised the generation by one.
    past_lives: AtomicU64,
}

fn semaphore(permits: usize) -> Arc<Semaphore> {
    Arc::new(Semaphore::new(permits.min(Semaphore::MAX_PERMITS)))
}

impl Node {
    pub(crate) fn new(bus: Arc<dyn Bus>, config: ClusterConfig, identity: Identity) -> Arc<Self> {
        let counters = Arc::new(Counters::default());
        let buckets = config.hashed_subjects.max(1);
        let interest = Interest::new(config.linger, buckets);
        let routing = Routing::new(config.max_room_subjects, buckets, config.linger, config.heartbeat);
        Arc::new(Self {
            bus,
            identity: RwLock::new(identity),
            epoch: Instant::now(),
            beat_at: AtomicU64::new(0),
            conflict: AtomicBool::new(false),
            claimed: AtomicBool::new(false),
            members_known: AtomicBool::new(false),
            stopped: AtomicBool::new(false),
            membership: Mutex::new(Membership::new(config.expiry, config.lease)),
            greeters: Mutex::default(),
            revenants: Mutex::default(),
            reach: Mutex::default(),
            reach_asked: AtomicBool::new(false),
            reach_news: Notify::new(),
            interests: Arc::new(Interests { state: Mutex::new(interest), wake: Notify::new() }),
            routing: Mutex::new(routing),
            audience: RwLock::new(Audience::of(std::iter::empty(), buckets, false)),
            audience_known: AtomicBool::new(false),
            directory: Shell::new(identity, &config),
            once: Kept::new(Arc::clone(&counters)),
            requests: Requests::default(),
            collectors: Mutex::default(),
            ready_relays: Mutex::default(),
            relays: Mutex::default(),
            outbox: Outbox::new(config.outbox_items, config.outbox_bytes, Arc::clone(&counters)),
            travel: Travel::default(),
            recent: Mutex::new(Recent::new(config.recent_ids)),
            overload: Mutex::new(Overload::new(config.max_lag)),
            probe: Probe::default(),
            room_hasher: RandomState::new(),
            recent_requests: Mutex::new(Recent::new(RECENT_REQUESTS)),
            namespaces: RwLock::default(),
            status: watch::Sender::new(Status::Unavailable),
            wake: Notify::new(),
            resynced: AtomicBool::new(false),
            slots: semaphore(config.max_requests),
            jobs: semaphore(config.max_jobs),
            runtime: Handle::current(),
            next_broadcast: AtomicU64::new(1),
            past_lives: AtomicU64::new(0),
            counters,
            tap: Arc::default(),
            host: HostSlot::default(),
            config,
        })
    }

    pub(crate) fn me(&self) -> Identity {
        *self.identity.read()
    }

    /// True if it was this node in an earlier life.
    pub(crate) fn was(&self, other: Identity) -> bool {
        let me = self.me();
        let age = me.generation.wrapping_sub(other.generation);
        other.tag == me.tag && (1..=self.past_lives.load(Ordering::Acquire)).contains(&age)
    }

    pub(crate) fn is_claimed(&self) -> bool {
        self.claimed.load(Ordering::Acquire)
    }

    /// The other nodes that live.
    pub(crate) fn members(&self) -> Vec<NodeTag> {
        self.membership.lock().tags()
    }

    /// The namespace of a name, made if there is none.
    pub(crate) fn namespace(&self, name: &str, events: Arc<dyn NamespaceEvents>) -> Arc<Namespace> {
        let mut namespaces = self.namespaces.write();
        if let Some(namespace) = namespaces.get(name) {
            return Arc::clone(namespace);
        }
        let name: Arc<str> = name.into();
        let dirty = Arc::new(Dirty::new(Arc::clone(&self.directory.bell)));
        let interests = Arc::clone(&self.interests);
        let observer = RoomInterest { namespace: Arc::clone(&name), dirty: Arc::clone(&dirty), interests };
        let counters = Arc::clone(&self.counters);
        let tap = Arc::clone(&self.tap);
        let local = LocalAdapter::observed(self.me().tag, &name, counters, tap, Some(Arc::new(observer)));
        let namespace = Arc::new(Namespace {
            subject: subject::namespace(&name),
            name: Arc::clone(&name),
            local: Arc::new(local),
            dirty,
            events,
        });
        namespaces.insert(name, Arc::clone(&namespace));
        drop(namespaces);
        self.interests.want(&namespace.subject);
        namespace
    }

    /// Encodes a message and queues it.
    pub(crate) fn publish(
        &self,
        subjects: Vec<Subject>,
        message: &Message,
        confirm: Option<Confirm>,
    ) -> Result<(), AdapterError> {
        self.publish_emitted(subjects, message, None, confirm)
    }

    /// The same for what tells how old it is.
    pub(crate) fn publish_emitted(
        &self,
        subjects: Vec<Subject>,
        message: &Message,
        emitted_at: Option<StdInstant>,
        confirm: Option<Confirm>,
    ) -> Result<(), AdapterError> {
        let payload = wire::encode(self.me(), message);
        if self.hung_for() >= self.config.expiry {
            // The others may have given this node up: it says nothing before it has asked.
            self.counters.publish_refused.add(subjects.len() as u64);
            self.wake.notify_one();
            return Err(AdapterError::BrokerUnavailable);
        }
        if payload.len() > self.bus.max_payload() {
            self.counters.publish_too_large.add(1);
            return Err(AdapterError::TooLarge);
        }
        self.outbox.push(subjects, payload, emitted_at, confirm)
    }

    /// Answers a request. When it cannot be sent, the other node will miss it.
    pub(crate) fn respond(&self, to: NodeTag, id: u64, last: bool, answer: Answer) {
        // A refusal is counted where it happens.
        let _ = self.publish(vec![subject::node(to)], &Message::Response { id, last, answer }, None);
    }

    /// Bytes of contents that one message may have.
    pub(crate) fn room_for_contents(&self) -> usize {
        self.bus.max_payload().saturating_sub(wire::OVERHEAD).max(1)
    }

    /// The subjects on which the nodes listen that a selector concerns.
    pub(crate) fn subjects_of(&self, namespace: &Namespace, selector: &Selector) -> Vec<Subject> {
        let rooms = match &selector.to {
            Target::All => return vec![namespace.subject.clone()],
            Target::Rooms(rooms) if rooms.len() > self.config.max_rooms_per_emit => {
                return vec![namespace.subject.clone()];
            }
            Target::Rooms(rooms) => rooms,
            Target::Socket(id) => {
                return self.other_owner(id.as_str()).map(subject::node).into_iter().collect();
            }
        };
        let mut subjects: Vec<Subject> = Vec::with_capacity(rooms.len());
        let audience = self.audience.read();
        if audience.everywhere {
            return vec![namespace.subject.clone()];
        }
        for (_, room) in rooms.iter().enumerate().filter(|(at, room)| !rooms[..*at].contains(room)) {
            // The socket of that id is with its node. Others may have joined a room of that name.
            if let Some(owner) = self.other_owner(room) {
                let subject = subject::node(owner);
                if !subjects.contains(&subject) {
                    subjects.push(subject);
                }
            }
            if audience.exact {
                subjects.push(subject::room(&namespace.name, room));
            }
            for buckets in &audience.buckets {
                let bucket = bucket_of(&namespace.name, room, *buckets);
                let subject = subject::bucket(*buckets, bucket);
                if !subjects.contains(&subject) {
                    subjects.push(subject);
                }
            }
        }
        subjects
    }

    /// The other live node whose socket a room is named after.
    fn other_owner(&self, room: &str) -> Option<NodeTag> {
        let owner = room.parse::<crate::id::SocketId>().ok()?.node();
        (owner != self.me().tag && self.membership.lock().contains(owner)).then_some(owner)
    }

    /// A number for a broadcast.
    pub(crate) fn broadcast_id(&self) -> u64 {
        self.next_broadcast.fetch_add(1, Ordering::Relaxed)
    }

    /// Milliseconds of the node's own time.
    pub(crate) fn now_ms(&self) -> u64 {
        u64::try_from(self.epoch.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// Microseconds of the node's own time.
    pub(crate) fn now_us(&self) -> u64 {
        u64::try_from(self.epoch.elapsed().as_micros()).unwrap_or(u64::MAX)
    }

    /// How long ago the heartbeat was due last. More than one heartbeat says that this node did not run meanwhile.
    pub(crate) fn hung_for(&self) -> Duration {
        Duration::from_millis(self.now_ms().saturating_sub(self.beat_at.load(Ordering::Acquire)))
    }

    /// What this node says of itself.
    pub(crate) fn vitals(&self) -> Vitals {
        let namespaces: Vec<_> = self.namespaces.read().values().map(Arc::clone).collect();
        let sum = |count: fn(&LocalAdapter) -> usize| {
            namespaces.iter().map(|namespace| count(&namespace.local) as u64).sum()
        };
        Vitals {
            version: wire::VERSION,
            said_at: self.now_us(),
            sockets: sum(LocalAdapter::socket_count),
            rooms: sum(LocalAdapter::room_count),
            listening: Some(self.routing.lock().listening()),
            standing: self.host.standing(),
        }
    }

    /// This life is over: the others take it for dead. Its sockets count as disconnected, so they are; what comes next is
    /// a new life of the node.
    pub(crate) fn fence(&self) {
        self.members_known.store(false, Ordering::Release);
        self.past_lives.fetch_add(1, Ordering::AcqRel);
        self.identity.write().generation += 1;
        self.counters.fenced.add(1);
        tracing::error!(node = %self.me().tag, "the cluster took this node for dead: disconnecting its sockets");
        let namespaces: Vec<_> = self.namespaces.read().values().map(Arc::clone).collect();
        namespaces.iter().for_each(|namespace| namespace.local.fence());
        self.routing.lock().reborn(Instant::now().into_std());
        self.update_status();
        self.resynced.store(true, Ordering::Release);
        self.wake.notify_one();
    }

    /// Ready when the subscriptions to these rooms, and to the namespace, stand.
    pub(crate) fn subscribed(
        self: &Arc<Self>,
        namespace: &Namespace,
        rooms: &[Room],
    ) -> impl Future<Output = Result<(), AdapterError>> + Send + use<> {
        let wait = self.interests.state.lock().wait_for_rooms(&namespace.subject, &namespace.name, rooms);
        let timeout = self.config.subscribe_timeout;
        async move {
            match wait {
                Wait::Standing => Ok(()),
                Wait::Down => Err(AdapterError::BrokerUnavailable),
                Wait::Pending(receiver) => match tokio::time::timeout(timeout, receiver).await {
                    Ok(Ok(())) => Ok(()),
                    _ => Err(AdapterError::BrokerUnavailable),
                },
            }
        }
    }

    /// Tells everything that waits for nodes what became of them.
    pub(crate) fn apply(&self, changes: Vec<Change>) {
        if changes.iter().any(|change| matches!(change, Change::Joined(_) | Change::Left(_))) {
            self.once.members_changed();
            self.wake.notify_one();
        }
        for change in changes {
            match change {
                Change::Joined(tag) => {
                    self.counters.members_joined.add(1);
                    tracing::info!(node = %tag, "node joined");
                }
                Change::Left(tag) => {
                    self.counters.members_left.add(1);
                    tracing::info!(node = %tag, "node left");
                    self.requests.node_lost(tag);
                    let collectors: Vec<_> = self.collectors.lock().values().cloned().collect();
                    collectors.iter().for_each(|collector| collector.node_lost(tag));
                    self.end_relays(|relay| relay.origin() == tag);
                }
                Change::Gone(identity) => {
                    self.counters.members_gone.add(1);
                    tracing::info!(node = %identity.tag, "node is gone for good");
                    self.recent.lock().forget(identity);
                    self.recent_requests.lock().forget(identity);
                    self.directory.state.lock().gone(identity);
                }
                Change::Refused(tag) => {
                    self.counters.members_refused.add(1);
                    tracing::debug!(node = %tag, "too many nodes: this one is not heard");
                }
                Change::Revenant(identity) => {
                    let mut revenants = self.revenants.lock();
                    if revenants.len() < MAX_GREETERS && !revenants.contains(&identity) {
                        revenants.push(identity);
                    }
                    drop(revenants);
                    self.wake.notify_one();
                }
            }
        }
    }

    /// A place among the requests that wait.
    pub(crate) fn slot(&self) -> Result<OwnedSemaphorePermit, AdapterError> {
        self.counters.requests.add(1);
        self.place()
    }

    /// The same for a question to one node, which is not counted among those to all.
    pub(crate) fn place(&self) -> Result<OwnedSemaphorePermit, AdapterError> {
        Arc::clone(&self.slots).try_acquire_owned().map_err(|_| {
            self.counters.requests_overflowed.add(1);
            AdapterError::Overloaded
        })
    }

    /// Those of some nodes that live no more. Whoever registers to wait for nodes asks this afterwards: one may have died
    /// since they were listed.
    pub(crate) fn lost_of(&self, nodes: &[NodeTag]) -> Vec<NodeTag> {
        let membership = self.membership.lock();
        nodes.iter().copied().filter(|tag| !membership.contains(*tag)).collect()
    }

    /// Finds out whether the node is one with its cluster.
    pub(crate) fn update_status(&self) {
        let ready = self.members_known.load(Ordering::Acquire)
            && !self.stopped.load(Ordering::Acquire)
            && self.interests.state.lock().is_ready();
        let status = if ready { Status::Ready } else { Status::Unavailable };
        self.status.send_if_modified(|current| std::mem::replace(current, status) != status);
    }
}
