//! Nodes of two versions side by side.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;

use super::memory_bus::{MemoryBus, MemoryHub};
use super::tests::{Quiet, TestNode, count, packet};
use super::{Backlog, Bus, BusError, BusSink, BusState, ClusterConfig, ClusterFactory, Publication, Subject};
use crate::adapter::AdapterFactory;
use crate::adapter::Status;
use crate::selector::Selector;

/// A node of the first version: it neither says nor hears what that did not know.
struct OldBus(Arc<MemoryBus>);

struct OldEar(Arc<dyn BusSink>);

fn is_old(payload: &Bytes) -> bool {
    payload[2] == 1
}

impl BusSink for OldEar {
    fn message(&self, subject: &str, payload: Bytes, backlog: Backlog) {
        if is_old(&payload) {
            self.0.message(subject, payload, backlog);
        }
    }

    fn state(&self, state: BusState) {
        self.0.state(state);
    }
}

impl Bus for OldBus {
    fn start(&self, sink: Arc<dyn BusSink>) -> BoxFuture<'_, Result<(), BusError>> {
        self.0.start(Arc::new(OldEar(sink)))
    }
    fn publish(&self, mut batch: Vec<Publication>) -> BoxFuture<'_, Result<(), BusError>> {
        batch.retain(|publication| is_old(&publication.payload));
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
    let old = ClusterFactory::start(Arc::new(OldBus(bus.clone())), ClusterConfig::default()).await.unwrap();
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
