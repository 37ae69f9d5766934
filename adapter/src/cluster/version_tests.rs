//! Nodes of two versions side by side.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;

use super::memory_bus::{MemoryBus, MemoryHub};
use super::message::{Identity, Listening, Message, Vitals};
use super::tests::{Quiet, TestNode, count, packet};
use super::wire;
use super::{Backlog, Bus, BusError, BusSink, BusState, ClusterConfig, ClusterFactory, Publication, Subject};
use crate::adapter::AdapterFactory;
use crate::adapter::Status;
use crate::host::{DrainError, DrainOrder, NodeState, Standing};
use crate::selector::Selector;

/// A node of an earlier version: it neither says nor hears what that did not know.
struct OldBus(Arc<MemoryBus>, u8);

struct OldEar(Arc<dyn BusSink>, u8);

fn is_known(payload: &Bytes, version: u8) -> bool {
    payload[2] <= version
}

impl BusSink for OldEar {
    fn message(&self, subject: &str, payload: Bytes, backlog: Backlog) {
        if is_known(&payload, self.1) {
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
        batch.retain(|publication| is_known(&publication.payload, self.1));
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
    let bus = hub.bus();
    let old =
        ClusterFactory::start(Arc::new(OldBus(bus.clone(), 1)), ClusterConfig::default()).await.unwrap();
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
