//! Nodes that go over to buckets of rooms and back, over a broker in memory, in virtual time. Emits run through every
//! step: whoever's join was confirmed gets each of them once, and those of a node in order.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Waker};
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use parking_lot::Mutex;
use roomcast_protocol::socketio::{Args, EncodedPacket};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep};

use super::memory_bus::{MemoryBus, MemoryHub};
use super::routing::DWELL;
use super::tests::{Quiet, TestNode, count, packet};
use super::{Backlog, Bus, BusError, BusSink, BusState, ClusterConfig, ClusterFactory, Publication, Subject};
use crate::adapter::{AdapterFactory, Status};
use crate::id::SocketId;
use crate::mailbox::{Item, Mailbox, Outgoing};
use crate::selector::{Room, Selector};

const LIMIT: usize = 20;
/// Time between the emits of a node.
const EVERY: Duration = Duration::from_millis(25);

fn config() -> ClusterConfig {
    ClusterConfig { max_room_subjects: LIMIT, hashed_subjects: 16, ..ClusterConfig::default() }
}

/// A bus whose operations and messages take their time, each node another one. The order of messages stays.
struct SlowBus {
    inner: Arc<MemoryBus>,
    delay: Duration,
    faults: Arc<Faults>,
}

/// What goes wrong on the way of one node.
#[derive(Default)]
struct Faults {
    /// Nothing that it publishes arrives.
    mute: AtomicBool,
    /// Its subscriptions to buckets wait.
    hold_buckets: AtomicBool,
}

struct SlowEar {
    inner: Arc<dyn BusSink>,
    queue: mpsc::UnboundedSender<(Instant, Subject, Bytes)>,
    delay: Duration,
}

impl BusSink for SlowEar {
    fn message(&self, subject: &str, payload: Bytes, _: Backlog) {
        let _ = self.queue.send((Instant::now() + self.delay, subject.into(), payload));
    }
    fn state(&self, state: BusState) {
        self.inner.state(state);
    }
}

impl Bus for SlowBus {
    fn start(&self, sink: Arc<dyn BusSink>) -> BoxFuture<'_, Result<(), BusError>> {
        let (queue, mut messages) = mpsc::unbounded_channel::<(Instant, Subject, Bytes)>();
        let inner = Arc::clone(&sink);
        tokio::spawn(async move {
            while let Some((at, subject, payload)) = messages.recv().await {
                tokio::time::sleep_until(at).await;
                inner.message(&subject, payload, Backlog::default());
            }
        });
        self.inner.start(Arc::new(SlowEar { inner: sink, queue, delay: self.delay }))
    }
    fn publish(&self, batch: Vec<Publication>) -> BoxFuture<'_, Result<(), BusError>> {
        let batch = if self.faults.mute.load(Ordering::Relaxed) { Vec::new() } else { batch };
        Box::pin(async move {
            sleep(self.delay / 2).await;
            self.inner.publish(batch).await
        })
    }
    fn subscribe(&self, subjects: Vec<Subject>) -> BoxFuture<'_, Result<(), BusError>> {
        Box::pin(async move {
            sleep(2 * self.delay).await;
            let buckets = subjects.iter().any(|subject| subject.starts_with("hash/"));
            while buckets && self.faults.hold_buckets.load(Ordering::Relaxed) {
                sleep(EVERY).await;
            }
            self.inner.subscribe(subjects).await
        })
    }
    fn unsubscribe(&self, subjects: Vec<Subject>) -> BoxFuture<'_, Result<(), BusError>> {
        Box::pin(async move {
            self.inner.unsubscribe(subjects).await?;
            sleep(self.delay).await;
            Ok(())
        })
    }
    fn max_payload(&self) -> usize {
        self.inner.max_payload()
    }
    fn ping(&self) -> BoxFuture<'_, Result<(), BusError>> {
        self.inner.ping()
    }
    fn close(&self) -> BoxFuture<'_, ()> {
        self.inner.close()
    }
}

async fn node(hub: &MemoryHub, config: ClusterConfig, delay: Duration) -> (Arc<TestNode>, Arc<Faults>) {
    let (bus, faults) = (hub.bus(), Arc::<Faults>::default());
    let slow = SlowBus { inner: bus.clone(), delay, faults: faults.clone() };
    let factory = ClusterFactory::start(Arc::new(slow), config).await.unwrap();
    (Arc::new(TestNode { adapter: factory.namespace("/", Arc::new(Quiet)), bus, factory }), faults)
}

/// Three nodes that know each other, and for long enough.
async fn three(config: ClusterConfig) -> (MemoryHub, [Arc<TestNode>; 3]) {
    let hub = MemoryHub::new();
    let mut nodes = Vec::new();
    for delay in [1, 7, 23] {
        nodes.push(node(&hub, config.clone(), Duration::from_millis(delay)).await.0);
    }
    sleep(Duration::from_secs(10)).await;
    assert!(nodes.iter().all(|node| node.factory.nodes().len() == 3));
    (hub, nodes.try_into().unwrap_or_else(|_| panic!()))
}

fn hashed(node: &TestNode) -> bool {
    node.factory.counters().hashed.get() == 1
}

async fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !condition() {
        assert!(begun.elapsed() < Duration::from_secs(300), "{what}");
        sleep(EVERY).await;
    }
}

fn names(rooms: std::ops::Range<usize>) -> Vec<Room> {
    rooms.map(|number| format!("room {number}").into()).collect()
}

/// Joins, and waits for the confirmation.
async fn join(node: &TestNode, id: SocketId, rooms: std::ops::Range<usize>) {
    for room in names(rooms) {
        assert_eq!(node.adapter.join(id, &[room]).await, Ok(true));
    }
}

fn leave(node: &TestNode, id: SocketId, rooms: std::ops::Range<usize>) {
    names(rooms).iter().for_each(|room| node.adapter.leave(id, room));
}

/// Emits numbered packets to a room, from all nodes in turn, and says what must have come.
struct Emitter {
    stop: Arc<AtomicBool>,
    sent: Arc<AtomicU64>,
    task: tokio::task::JoinHandle<()>,
}

fn numbered(node: usize, number: u64) -> Arc<Outgoing> {
    let args = Args::from_json_array(&format!("[{node},{number}]"), Vec::new()).unwrap();
    Outgoing::new(EncodedPacket::event("/", None, "n", &args))
}

impl Emitter {
    fn start(nodes: &[Arc<TestNode>], rooms: &[&str], every: Duration) -> Self {
        let (stop, sent) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let (stopped, counted) = (Arc::clone(&stop), Arc::clone(&sent));
        let (nodes, selector) = (nodes.to_vec(), Selector::rooms(rooms.iter().copied()));
        let task = tokio::spawn(async move {
            while !stopped.load(Ordering::Relaxed) {
                let number = counted.fetch_add(1, Ordering::Relaxed);
                for (at, node) in nodes.iter().enumerate() {
                    node.adapter.broadcast(&selector, &numbered(at, number)).unwrap();
                }
                sleep(every).await;
            }
        });
        Self { stop, sent, task }
    }

    /// The number of emits of each node.
    async fn stop(self) -> u64 {
        self.stop.store(true, Ordering::Relaxed);
        self.task.await.unwrap();
        sleep(Duration::from_secs(1)).await;
        self.sent.load(Ordering::Relaxed)
    }
}

/// What came, by emitting node, in the order in which it came.
#[derive(Default)]
struct Received(Arc<Mutex<HashMap<usize, Vec<u64>>>>);

impl Received {
    /// Empties a mailbox as long as the test runs.
    fn of(mailbox: &Arc<Mailbox>) -> Self {
        let (received, mailbox) = (Self::default(), Arc::clone(mailbox));
        let into = Arc::clone(&received.0);
        tokio::spawn(async move {
            loop {
                let mut batch = VecDeque::new();
                let _ = mailbox.poll_take(&mut Context::from_waker(Waker::noop()), &mut batch);
                for item in batch {
                    let Item::Packet(outgoing) = item else { continue };
                    let frames = String::from_utf8_lossy(outgoing.packet.frames()).into_owned();
                    let Some((_, rest)) = frames.split_once("[\"n\",") else { continue };
                    let (node, number) = rest.trim_end_matches(']').split_once(',').unwrap();
                    into.lock().entry(node.parse().unwrap()).or_default().push(number.parse().unwrap());
                }
                sleep(2 * EVERY).await;
            }
        });
        received
    }

    /// Each number once and in order.
    fn is_complete(&self, nodes: usize, numbers: u64) {
        assert!(numbers > 100, "{numbers} emits");
        let received = self.0.lock();
        for node in 0..nodes {
            let got = received.get(&node).cloned().unwrap_or_default();
            let expected: Vec<_> = (0..numbers).collect();
            let wrong = got.iter().zip(&expected).position(|(a, b)| a != b);
            assert!(
                got == expected,
                "of node {node}: {} of {numbers}, wrong from {wrong:?}, last {:?}",
                got.len(),
                got.last()
            );
        }
    }
}

#[tokio::test(start_paused = true)]
async fn no_emit_is_lost_or_doubled_or_overtaken_on_the_way_there_and_back() {
    let (hub, nodes) = three(config()).await;
    let (id, mailbox) = nodes[2].socket(1, &["here"]).await;
    let (_, other) = nodes[0].socket(1, &["here"]).await;
    let received = [Received::of(&mailbox), Received::of(&other)];
    let emitter = Emitter::start(&nodes, &["here"], EVERY);
    let mut joined = 1_u64;
    for turn in 1..=2_u64 {
        // Many joins while it goes over, each of which must mean the same as ever.
        for room in 0..=LIMIT {
            join(&nodes[2], id, room..room + 1).await;
            let late = nodes[2].socket(100 + room as u8, &["late"]).await;
            let name = format!("room {room}");
            for node in &nodes {
                node.adapter.broadcast(&Selector::rooms(["late", &*name]), &packet("e")).unwrap();
            }
            joined += 1;
            sleep(Duration::from_millis(300)).await;
            assert_eq!(count(&late.1), 3, "room {room}");
            nodes[2].adapter.remove(late.0);
        }
        until("hashed", || hashed(&nodes[2])).await;
        let counters = nodes[2].factory.counters();
        assert_eq!(counters.routing_switches.get(), 2 * turn - 1);
        sleep(Duration::from_secs(10)).await;
        assert_eq!((counters.subscribed_rooms.get(), hub.subscribers("room//\0room 1")), (0, 0));
        assert!((1..=16).contains(&counters.subscribed_buckets.get()));
        assert!(!hashed(&nodes[0]) && hub.subscribers("room//\0here") == 1);
        sleep(DWELL).await;
        leave(&nodes[2], id, 0..LIMIT + 1);
        until("exact", || !hashed(&nodes[2])).await;
        sleep(Duration::from_secs(10)).await;
        assert_eq!((counters.subscribed_rooms.get(), counters.subscribed_buckets.get()), (1, 0));
        assert_eq!(counters.routing_switches.get(), 2 * turn);
        sleep(DWELL).await;
    }
    let sent = emitter.stop().await;
    assert!(sent > 5_000 && joined > 40);
    received.iter().for_each(|received| received.is_complete(3, sent));
    assert_eq!(nodes[2].factory.counters().routing_refused.get(), 0);
}

#[tokio::test(start_paused = true)]
async fn what_is_emitted_after_a_join_arrives_in_every_phase() {
    let (_hub, nodes) = three(config()).await;
    let (id, _) = nodes[1].socket(1, &[]).await;
    join(&nodes[1], id, 0..LIMIT + 1).await;
    // Every few milliseconds of the way over another socket joins a room of its own, and one that is there already.
    let (mut number, mut switched_at) = (0_usize, None);
    while switched_at.is_none_or(|at: Instant| at.elapsed() < Duration::from_secs(1)) {
        let own = format!("own {number}");
        let (_, mailbox) = nodes[1].socket((number % 200) as u8 + 2, &[&own, "room 3"]).await;
        let phase = nodes[1].factory.counters().routing_switches.get();
        for (at, room) in [own.as_str(), "room 3"].into_iter().enumerate() {
            nodes[at * 2].adapter.broadcast(&Selector::rooms([room]), &packet("e")).unwrap();
        }
        sleep(Duration::from_millis(40)).await;
        assert_eq!(count(&mailbox), 2, "join {number}, after {phase} switches");
        let socket = SocketId::new(nodes[1].factory.node(), [(number % 200) as u8 + 2; 12]);
        nodes[1].adapter.remove(socket);
        number += 1;
        if hashed(&nodes[1]) && switched_at.is_none() {
            switched_at = Some(Instant::now());
        }
    }
    assert!(number > 50, "{number} joins");
}

#[tokio::test(start_paused = true)]
async fn nobody_is_left_behind_by_a_lost_answer() {
    let (hub, nodes) = three(config()).await;
    let (id, mailbox) = nodes[2].socket(1, &["here"]).await;
    let received = Received::of(&mailbox);
    let to = format!("node/{}", nodes[2].factory.node());
    let (lost, losing) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(true)));
    let (counted, loses) = (Arc::clone(&lost), Arc::clone(&losing));
    hub.lose(move |publication| {
        let heard = *publication.subject == *to && publication.payload[3] == 21;
        let loses = heard && loses.load(Ordering::Relaxed);
        counted.fetch_add(u64::from(loses), Ordering::Relaxed);
        loses
    });
    let emitter = Emitter::start(&nodes, &["here"], EVERY);
    join(&nodes[2], id, 0..LIMIT + 1).await;
    sleep(Duration::from_secs(60)).await;
    // It goes on asking and does not go over.
    assert!(!hashed(&nodes[2]) && lost.load(Ordering::Relaxed) > 50);
    losing.store(false, Ordering::Relaxed);
    until("hashed", || hashed(&nodes[2])).await;
    sleep(Duration::from_secs(10)).await;
    received.is_complete(3, emitter.stop().await);
}

#[tokio::test(start_paused = true)]
async fn a_node_that_does_not_answer_is_waited_for_until_it_is_gone() {
    let (hub, nodes) = three(config()).await;
    let (deaf, faults) = node(&hub, config(), Duration::from_millis(3)).await;
    sleep(Duration::from_secs(10)).await;
    let (id, _) = nodes[2].socket(1, &[]).await;
    faults.mute.store(true, Ordering::Relaxed);
    join(&nodes[2], id, 0..LIMIT + 1).await;
    let begun = Instant::now();
    until("hashed", || hashed(&nodes[2])).await;
    // Its lease, and the time for what is under way.
    assert!(
        (Duration::from_secs(15)..Duration::from_secs(25)).contains(&begun.elapsed()),
        "{:?}",
        begun.elapsed()
    );
    assert_eq!(nodes[2].factory.counters().members_gone.get(), 1);
    // When it is heard again it is told that it was given up, and what it emits in its new life arrives.
    faults.mute.store(false, Ordering::Relaxed);
    until("fenced", || deaf.factory.counters().fenced.get() == 1).await;
    let (_, mailbox) = nodes[2].socket(2, &["there"]).await;
    for _ in 0..2 {
        until("ready", || *deaf.factory.status().borrow() == Status::Ready).await;
        deaf.adapter.broadcast(&Selector::rooms(["there"]), &packet("e")).unwrap();
        sleep(Duration::from_secs(10)).await;
        assert_eq!(count(&mailbox), 1);
    }
}

#[tokio::test(start_paused = true)]
async fn an_outage_in_any_phase_does_no_harm() {
    for after in [0, 40, 100, 1_000, 6_000] {
        for who in [0, 2] {
            let (hub, nodes) = three(config()).await;
            let (id, mailbox) = nodes[2].socket(1, &["here"]).await;
            let ids: Vec<_> = names(0..LIMIT + 1);
            let join = nodes[2].adapter.join(id, &ids);
            sleep(Duration::from_millis(after)).await;
            nodes[who].bus.set_up(false);
            let _ = join.await;
            sleep(Duration::from_secs(3)).await;
            nodes[who].bus.set_up(true);
            for node in &nodes {
                until("ready", || *node.factory.status().borrow() == Status::Ready).await;
            }
            let _ = count(&mailbox);
            let received = Received::of(&mailbox);
            let emitter = Emitter::start(&nodes, &["here", "room 7"], EVERY);
            until("hashed", || hashed(&nodes[2])).await;
            sleep(Duration::from_secs(10)).await;
            assert_eq!(hub.subscribers("room//\0room 7"), 0);
            let sent = emitter.stop().await;
            received.is_complete(3, sent);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_node_that_starts_while_others_hash_is_heard_from_its_first_emit() {
    let (hub, nodes) = three(ClusterConfig { max_room_subjects: 0, ..config() }).await;
    until("hashed", || nodes.iter().all(|node| hashed(node))).await;
    sleep(Duration::from_secs(10)).await;
    let (_, mailbox) = nodes[2].socket(1, &["here"]).await;
    let (newcomer, _) = node(&hub, config(), Duration::from_millis(2)).await;
    let received = Received::of(&mailbox);
    let emitter = Emitter::start(&[Arc::clone(&newcomer)], &["here"], EVERY);
    sleep(Duration::from_secs(20)).await;
    received.is_complete(1, emitter.stop().await);
}

#[tokio::test(start_paused = true)]
async fn two_rooms_of_one_bucket_are_one_publication() {
    let everything = ClusterConfig { max_room_subjects: 0, hashed_subjects: 1, ..config() };
    let (_hub, nodes) = three(everything).await;
    until("hashed", || nodes.iter().all(|node| hashed(node))).await;
    sleep(Duration::from_secs(10)).await;
    let (_, mailbox) = nodes[2].socket(1, &["a", "b"]).await;
    let before = nodes[0].factory.counters().published.get();
    nodes[0].adapter.broadcast_confirmed(&Selector::rooms(["a", "b", "c"]), &packet("e")).await.unwrap();
    assert_eq!(nodes[0].factory.counters().published.get() - before, 1);
    sleep(Duration::from_secs(1)).await;
    assert_eq!((count(&mailbox), nodes[2].factory.counters().duplicate.get()), (1, 0));
    assert_eq!(nodes[2].factory.counters().subscribed_buckets.get(), 1);
}

#[tokio::test(start_paused = true)]
async fn nodes_that_count_buckets_differently_understand_each_other_and_do_not_go_over() {
    let hub = MemoryHub::new();
    let (a, _) = node(&hub, config(), Duration::from_millis(1)).await;
    sleep(Duration::from_secs(10)).await;
    let (id, mailbox) = a.socket(1, &["here"]).await;
    join(&a, id, 0..LIMIT + 1).await;
    until("hashed", || hashed(&a)).await;
    let other = ClusterConfig { hashed_subjects: 5, ..config() };
    let (b, _) = node(&hub, other, Duration::from_millis(1)).await;
    sleep(Duration::from_secs(10)).await;
    let (id, _) = b.socket(1, &[]).await;
    join(&b, id, 0..LIMIT + 1).await;
    sleep(Duration::from_secs(60)).await;
    assert!(hashed(&a) && !hashed(&b));
    assert_eq!(b.factory.counters().routing_refused.get(), 1);
    b.adapter.broadcast(&Selector::rooms(["here"]), &packet("e")).unwrap();
    sleep(Duration::from_secs(1)).await;
    assert_eq!(count(&mailbox), 1);
}

#[tokio::test(start_paused = true)]
async fn nothing_is_announced_before_it_stands() {
    let slow = ClusterConfig { subscribe_timeout: Duration::from_secs(60), ..config() };
    let (hub, nodes) = three(slow.clone()).await;
    let (there, faults) = node(&hub, slow, Duration::from_millis(5)).await;
    sleep(Duration::from_secs(10)).await;
    let (id, mailbox) = there.socket(1, &["here"]).await;
    let received = Received::of(&mailbox);
    let emitter = Emitter::start(&nodes, &["here"], EVERY);
    faults.hold_buckets.store(true, Ordering::Relaxed);
    join(&there, id, 0..LIMIT + 1).await;
    sleep(Duration::from_secs(30)).await;
    assert!(!hashed(&there));
    faults.hold_buckets.store(false, Ordering::Relaxed);
    until("hashed", || hashed(&there)).await;
    sleep(Duration::from_secs(10)).await;
    received.is_complete(3, emitter.stop().await);
}

#[tokio::test(start_paused = true)]
async fn who_comes_back_reaches_those_that_came_meanwhile() {
    let (hub, nodes) = three(config()).await;
    nodes[0].bus.set_up(false);
    let buckets = ClusterConfig { max_room_subjects: 0, ..config() };
    let (newcomer, _) = node(&hub, buckets, Duration::from_millis(2)).await;
    until("hashed", || hashed(&newcomer)).await;
    let (_, mailbox) = newcomer.socket(1, &["here"]).await;
    sleep(Duration::from_secs(5)).await;
    assert_eq!(newcomer.factory.counters().subscribed_rooms.get(), 0);
    nodes[0].bus.set_up(true);
    // Before it has heard of anybody.
    nodes[0].adapter.broadcast(&Selector::rooms(["here"]), &packet("e")).unwrap();
    sleep(Duration::from_secs(1)).await;
    assert_eq!(count(&mailbox), 1);
}
