//! Nodes of two versions side by side.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use parking_lot::Mutex;
use roomcast_protocol::socketio::Args;

use super::memory_bus::{MemoryBus, MemoryHub};
use super::message::{Identity, Listening, Message, Vitals};
use super::tests::{Quiet, TestNode, count, packet};
use super::wire;
use super::{
    Backlog, Bus, BusError, BusSink, BusState, ClusterConfig, ClusterFactory, ClusterObserver, Publication,
    RemoteDelivery, Subject,
};
use crate::adapter::{AckReport, AdapterFactory, Status};
use crate::host::{DrainError, DrainOrder, NodeState, Standing};
use crate::mailbox::{Item, Mailbox};
use crate::selector::Selector;
use crate::trace::TraceContext;

/// A node of an earlier version: it neither says nor hears what that did not know.
struct OldBus(Arc<MemoryBus>, u8);

struct OldEar(Arc<dyn BusSink>, u8);

/// Where the version of a message stands, its kind, and the version that a node says it understands.
const VERSION: usize = 2;
const KIND: usize = 3;
const UNDERSTOOD: usize = 20;
const VITALS: u8 = 7;

/// What an old node says of itself.
fn aged(payload: &Bytes, version: u8) -> Bytes {
    let mut payload = payload.to_vec();
    if payload[KIND] == VITALS {
        payload[UNDERSTOOD] = version;
    }
    payload.into()
}

impl BusSink for OldEar {
    fn message(&self, subject: &str, payload: Bytes, backlog: Backlog) {
        if payload[VERSION] <= self.1 {
            self.0.message(subject, payload, backlog);
        }
    }

    fn state(&self, state: BusState) {
        self.0.state(state);
    }
}

impl Bus for OldBus {
    fn start(&self, sink: Arc<dyn BusSink>) -> BoxFuture<'_, Result<(), BusError>> {
        self.0.start(Arc::new(OldEar(sink, self.1)))
    }
    fn publish(&self, mut batch: Vec<Publication>) -> BoxFuture<'_, Result<(), BusError>> {
        batch.retain(|publication| publication.payload[VERSION] <= self.1);
        for publication in &mut batch {
            publication.payload = aged(&publication.payload, self.1);
        }
        self.0.publish(batch)
    }
    fn subscribe(&self, subjects: Vec<Subject>) -> BoxFuture<'_, Result<(), BusError>> {
        self.0.subscribe(subjects)
    }
    fn unsubscribe(&self, subjects: Vec<Subject>) -> BoxFuture<'_, Result<(), BusError>> {
        self.0.unsubscribe(subjects)
    }
    fn max_payload(&self) -> usize {
        self.0.max_payload()
    }
    fn ping(&self) -> BoxFuture<'_, Result<(), BusError>> {
        self.0.ping()
    }
    fn close(&self) -> BoxFuture<'_, ()> {
        self.0.close()
    }
}

pub(super) async fn old_node(hub: &MemoryHub) -> TestNode {
    node_of(hub, 1).await
}

async fn node_of(hub: &MemoryHub, version: u8) -> TestNode {
    let (bus, config) = (hub.bus(), ClusterConfig::default());
    let old = ClusterFactory::start(Arc::new(OldBus(bus.clone(), version)), config).await.unwrap();
    TestNode { bus, adapter: old.namespace("/", Arc::new(Quiet)), factory: old }
}

#[tokio::test(start_paused = true)]
async fn nodes_of_two_versions_are_one_cluster() {
    let hub = MemoryHub::new();
    let new = TestNode::start(&hub).await;
    let old = old_node(&hub).await;
    let newer = TestNode::start(&hub).await;
    for node in [&new, &old, &newer] {
        assert_eq!(node.factory.nodes().len(), 3);
        node.status(Status::Ready).await;
    }
    let (_, at_old) = old.socket(1, &["x"]).await;
    let (_, at_new) = new.socket(1, &["x", "y"]).await;
    for node in [&new, &old, &newer] {
        for selector in [Selector::all(), Selector::rooms(["x"]), Selector::rooms(["x", "y"])] {
            node.adapter.broadcast_confirmed(&selector, &packet("e")).await.unwrap();
        }
        let counted = node.adapter.count_sockets(&Selector::all()).await;
        assert_eq!((counted.value, counted.missing), (2, vec![]));
        assert_eq!((count(&at_old), count(&at_new)), (3, 3));
    }
    let infos = new.factory.node_infos();
    let known: Vec<_> = infos.iter().filter(|info| info.sockets.is_some()).map(|info| info.tag).collect();
    assert!(!known.contains(&old.factory.node()) && known.len() == 2);
    old.bus.set_up(false);
    tokio::time::sleep(Duration::from_secs(20)).await;
    assert_eq!(new.factory.nodes().len(), 2);
}

/// How long the packets were on their way that came.
fn travelled(mailbox: &Mailbox) -> Vec<Option<Duration>> {
    let of = |item: &Item| match item {
        Item::Packet(outgoing) => outgoing.travelled,
        _ => panic!("no packet"),
    };
    mailbox.drain().iter().map(of).collect()
}

#[tokio::test(start_paused = true)]
async fn emits_tell_of_their_way_once_everybody_understands_it() {
    let hub = MemoryHub::new();
    let [sender, receiver] = [TestNode::start(&hub).await, TestNode::start(&hub).await];
    let old = node_of(&hub, 2).await;
    let (_, here) = sender.socket(1, &["x"]).await;
    let (_, there) = receiver.socket(1, &["x"]).await;
    let (_, at_old) = old.socket(1, &["x"]).await;
    let settled = || tokio::time::sleep(Duration::from_secs(20));
    settled().await;
    let mut told = packet("e");
    let emitted_at = std::time::Instant::now().checked_sub(Duration::from_secs(3));
    let trace = TraceContext::new(7, 8, true);
    let outgoing = Arc::get_mut(&mut told).unwrap();
    (outgoing.emitted_at, outgoing.trace) = (emitted_at.unwrap(), trace);
    let emit = || sender.adapter.broadcast_confirmed(&Selector::rooms(["x"]), &told);
    emit().await.unwrap();
    assert_eq!([travelled(&here), travelled(&there), travelled(&at_old)], [[None], [None], [None]]);
    old.factory.shutdown().await;
    settled().await;
    emit().await.unwrap();
    assert_eq!(travelled(&here), [None]);
    let Some(Item::Packet(came)) = there.drain().pop_front() else { panic!("nothing came") };
    assert!(came.travelled.unwrap() >= Duration::from_secs(3), "{came:?}");
    assert_eq!(came.trace, trace);
    // One that comes is not told what it cannot read.
    let old = node_of(&hub, 2).await;
    let (_, at_old) = old.socket(2, &["x"]).await;
    emit().await.unwrap();
    assert_eq!([travelled(&there), travelled(&at_old)], [[None], [None]]);
    assert_eq!(old.factory.counters().malformed_version.get(), 0);
}

/// Remembers what was delivered for other nodes, in which traces.
#[derive(Default)]
struct Deliveries(Mutex<Vec<(TraceContext, usize, bool)>>);

impl ClusterObserver for Deliveries {
    fn round_trip(&self, _: Duration) {}

    fn delivered(&self, delivery: &RemoteDelivery<'_>) {
        self.0.lock().push((delivery.trace, delivery.sockets, delivery.travelled.is_some()));
    }
}

#[tokio::test(start_paused = true)]
async fn emits_with_acks_tell_of_their_trace_once_everybody_understands_it() {
    let hub = MemoryHub::new();
    let [sender, receiver] = [TestNode::start(&hub).await, TestNode::start(&hub).await];
    let deliveries = Arc::new(Deliveries::default());
    receiver.factory.observe(deliveries.clone());
    let old = node_of(&hub, 3).await;
    for node in [&receiver, &old] {
        node.socket(1, &["x"]).await;
    }
    let trace = TraceContext::new(7, 8, true);
    // Nobody answers: whom the nodes asked is what counts.
    let ask = async |trace| {
        let (to, second) = (Selector::rooms(["x"]), Duration::from_secs(1));
        let acks = sender.adapter.broadcast_with_ack(&to, "e", &Args::none(), second, trace);
        let report = AckReport::collect(acks).await;
        assert_eq!(report.lost_nodes, []);
        report.timed_out.len()
    };
    let settled = || tokio::time::sleep(Duration::from_secs(20));
    settled().await;
    assert_eq!((ask(trace).await, deliveries.0.lock().len()), (2, 0));
    old.factory.shutdown().await;
    settled().await;
    assert_eq!(ask(trace).await, 1);
    assert_eq!(*deliveries.0.lock(), [(trace.unwrap(), 1, false)]);
    // What is not recorded costs nobody anything.
    for unrecorded in [None, TraceContext::new(7, 8, false)] {
        assert_eq!(ask(unrecorded).await, 1);
    }
    assert_eq!(deliveries.0.lock().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn nobody_listens_to_buckets_beside_the_first_version() {
    let hub = MemoryHub::new();
    let mut new = Vec::new();
    for _ in 0..2 {
        let config = ClusterConfig { max_room_subjects: 0, ..ClusterConfig::default() };
        let bus = hub.bus();
        let factory = ClusterFactory::start(bus.clone(), config).await.unwrap();
        new.push(TestNode { bus, adapter: factory.namespace("/", Arc::new(Quiet)), factory });
    }
    let hashed = |node: &TestNode| node.factory.counters().hashed.get() == 1;
    tokio::time::sleep(Duration::from_secs(20)).await;
    assert!(new.iter().all(hashed));
    let (_, mailbox) = new[0].socket(1, &["x"]).await;
    let old = old_node(&hub).await;
    let (_, at_old) = old.socket(1, &["x"]).await;
    new[1].adapter.broadcast_confirmed(&Selector::rooms(["x"]), &packet("e")).await.unwrap();
    assert_eq!((count(&mailbox), count(&at_old)), (1, 1));
    // Back, whatever the number of rooms and however short the stay; and there again when it has gone.
    tokio::time::sleep(Duration::from_secs(10)).await;
    for round in 0..40 {
        assert!(!new.iter().any(hashed), "round {round}");
        old.adapter.broadcast_confirmed(&Selector::rooms(["x"]), &packet("e")).await.unwrap();
        assert_eq!((count(&mailbox), count(&at_old)), (1, 1));
        tokio::time::sleep(Duration::from_secs(2)).await;
    }
    assert_eq!(new[0].factory.counters().routing_refused.get(), 1);
    old.factory.shutdown().await;
    tokio::time::sleep(Duration::from_secs(20)).await;
    assert!(new.iter().all(hashed));
}

#[tokio::test(start_paused = true)]
async fn a_node_of_version_2_is_not_told_to_drain() {
    let hub = MemoryHub::new();
    let new = TestNode::start(&hub).await;
    let old = Identity { tag: "old-".parse().unwrap(), generation: 1 };
    let vitals = Vitals { version: 2, ..Vitals::default() };
    for message in [Message::Heartbeat, Message::Vitals(vitals)] {
        hub.publish("all", wire::encode(old, &message));
    }
    let published = new.factory.counters().published.get();
    let told = new.factory.drain(old.tag, DrainOrder::default()).await;
    assert_eq!((told, new.factory.counters().published.get()), (Err(DrainError::TooOld), published));
}

/// What version 3 says of itself with its heartbeat, version 2 reads as far as it knows it.
#[test]
fn vitals_of_version_3_are_vitals_of_version_2_with_more_behind() {
    let of = Identity { tag: "new-".parse().unwrap(), generation: 1 };
    let listening = Some(Listening { exact: true, hashed: false, buckets: 7 });
    let standing = Some(Standing { state: NodeState::Draining, connections: 9 });
    let vitals = Vitals { version: 3, listening, ..Vitals::default() };
    let known = wire::encode(of, &Message::Vitals(vitals));
    let said = wire::encode(of, &Message::Vitals(Vitals { standing, ..vitals }));
    // Behind the head and the length.
    assert_eq!((said[2], &said[..16]), (2, &known[..16]));
    assert!(said[20..].starts_with(&known[20..]));
}
