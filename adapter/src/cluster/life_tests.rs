//! The lives of nodes: silence, lease, new lives, copies of messages.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::future::{BoxFuture, FutureExt, pending};
use roomcast_protocol::socketio::Args;

use super::memory_bus::{MemoryBus, MemoryHub};
use super::message::{Identity, Listening, Message, Vitals};
use super::tests::{Quiet, TestNode, count, is_closed, packet, three};
use super::{Bus, BusError, BusSink, ClusterConfig, ClusterFactory, Publication, Subject, subject, wire};
use crate::adapter::{AckEvent, AdapterError, AdapterFactory, Status};
use crate::id::NodeTag;
use crate::mailbox::CloseCause;
use crate::selector::Selector;

#[tokio::test(start_paused = true)]
async fn a_node_that_was_away_for_less_than_its_lease_keeps_its_sockets() {
    let (_hub, [a, b, _c]) = three().await;
    let (_, mailbox) = b.socket(1, &["x"]).await;
    b.bus.set_up(false);
    tokio::time::sleep(Duration::from_secs(10)).await;
    assert_eq!(a.factory.nodes().len(), 2);
    b.bus.set_up(true);
    b.status(Status::Ready).await;
    assert_eq!(a.factory.nodes().len(), 3);
    assert_eq!(a.adapter.count_sockets(&Selector::all()).await.value, 1);
    assert!(!is_closed(&mailbox, CloseCause::Fenced));
    assert_eq!(a.factory.counters().members_gone.get(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_node_that_was_away_for_longer_than_its_lease_begins_a_new_life() {
    let (_hub, [a, b, c]) = three().await;
    let (id, mailbox) = b.socket(1, &["x"]).await;
    b.bus.set_up(false);
    tokio::time::sleep(Duration::from_secs(20)).await;
    assert_eq!((a.factory.counters().members_gone.get(), c.factory.counters().members_gone.get()), (1, 1));
    assert!(!is_closed(&mailbox, CloseCause::Fenced));
    b.bus.set_up(true);
    b.status(Status::Ready).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    b.status(Status::Ready).await;
    assert!(is_closed(&mailbox, CloseCause::Fenced));
    assert_eq!(b.factory.counters().fenced.get(), 1);
    b.adapter.remove(id);
    // It is one of three again, under its old tag, and what it says arrives.
    b.socket(2, &["x"]).await;
    assert_eq!((a.factory.nodes().len(), b.factory.nodes().len(), c.factory.nodes().len()), (3, 3, 3));
    assert_eq!(a.adapter.count_sockets(&Selector::all()).await.value, 1);
    let (_, listener) = a.socket(3, &["y"]).await;
    b.adapter.broadcast_confirmed(&Selector::rooms(["y"]), &packet("e")).await.unwrap();
    assert_eq!(count(&listener), 1);
    assert_eq!(b.factory.counters().fenced.get(), 1);
    assert_eq!(b.factory.counters().tag_conflicts.get() + a.factory.counters().tag_conflicts.get(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_broker_that_was_away_for_everybody_buries_nobody() {
    let (_hub, nodes) = three().await;
    let (_, mailbox) = nodes[1].socket(1, &["x"]).await;
    nodes.iter().for_each(|node| node.bus.set_up(false));
    tokio::time::sleep(Duration::from_secs(100)).await;
    nodes.iter().for_each(|node| node.bus.set_up(true));
    for node in &nodes {
        node.status(Status::Ready).await;
        assert_eq!((node.factory.nodes().len(), node.factory.counters().members_left.get()), (3, 0));
    }
    assert!(!is_closed(&mailbox, CloseCause::Fenced));
}

#[tokio::test(start_paused = true)]
async fn a_node_that_did_not_run_says_nothing_before_it_has_asked() {
    for (stopped, fenced) in [(6, 0), (16, 1)] {
        let (_hub, [a, b, _c]) = three().await;
        let (_, mailbox) = a.socket(1, &["x"]).await;
        let (_, there) = b.socket(1, &["x"]).await;
        // Nothing runs in between: all nodes are in one thread.
        tokio::time::advance(Duration::from_secs(stopped)).await;
        let published = a.adapter.broadcast(&Selector::rooms(["x"]), &packet("stale"));
        assert_eq!(published, Err(AdapterError::BrokerUnavailable));
        tokio::time::sleep(Duration::from_secs(1)).await;
        a.status(Status::Ready).await;
        assert_eq!((a.factory.counters().fenced.get(), a.factory.counters().hung.get()), (fenced, 1));
        assert_eq!(a.factory.nodes().len(), 3);
        assert_eq!(count(&there), 0);
        assert_eq!(is_closed(&mailbox, CloseCause::Fenced), fenced == 1);
    }
}

#[tokio::test(start_paused = true)]
async fn a_message_that_comes_twice_is_acted_on_once() {
    let (hub, [a, b, _c]) = three().await;
    let (_, mailbox) = b.socket(1, &["x"]).await;
    hub.duplicate(true);
    for selector in [Selector::rooms(["x"]), Selector::all(), Selector::rooms(["x", "y"])] {
        a.adapter.broadcast_confirmed(&selector, &packet("e")).await.unwrap();
    }
    assert_eq!(count(&mailbox), 3);
    let mut acks =
        a.adapter.broadcast_with_ack(&Selector::all(), "e", &Args::none(), Duration::from_secs(1), None);
    while acks.next().await.is_some() {}
    assert_eq!(count(&mailbox), 1);
}

#[tokio::test(start_paused = true)]
async fn acks_that_nobody_waits_for_are_forgotten_everywhere() {
    let (_hub, [a, b, _c]) = three().await;
    b.socket(1, &["x"]).await;
    let minute = Duration::from_secs(60);
    let mut acks = a.adapter.broadcast_with_ack(&Selector::rooms(["x"]), "e", &Args::none(), minute, None);
    acks.next().await.unwrap();
    assert_eq!(b.factory.relays(), 1);
    drop(acks);
    tokio::time::sleep(Duration::from_millis(1)).await;
    assert_eq!(b.factory.relays(), 0);
}

#[tokio::test(start_paused = true)]
async fn requests_that_wait_are_bounded() {
    let hub = MemoryHub::new();
    let config = ClusterConfig { max_requests: 2, ..ClusterConfig::default() };
    let a = TestNode::start_with(&hub, config).await;
    let b = TestNode::start(&hub).await;
    b.bus.set_up(false);
    let (first, second) =
        (a.adapter.count_sockets(&Selector::all()), a.adapter.fetch_sockets(&Selector::all()));
    let rooms = ["x".into()];
    assert_eq!(a.adapter.sockets_join(&Selector::all(), &rooms).await, Err(AdapterError::Overloaded));
    let third = a.adapter.count_sockets(&Selector::all()).await;
    assert_eq!(third.missing, [b.factory.node()]);
    let mut acks =
        a.adapter.broadcast_with_ack(&Selector::all(), "e", &Args::none(), Duration::from_secs(1), None);
    assert_eq!(acks.next().await, Some(AckEvent::LostNode(b.factory.node())));
    assert_eq!(acks.next().await, None);
    assert_eq!(a.factory.counters().requests_overflowed.get(), 3);
    drop((first, second));
    assert!(a.adapter.sockets_join(&Selector::all(), &rooms).await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn acks_that_are_collected_for_others_are_bounded() {
    let hub = MemoryHub::new();
    let config = ClusterConfig { max_relays: 1, ..ClusterConfig::default() };
    let (a, b) = (TestNode::start(&hub).await, TestNode::start_with(&hub, config).await);
    let (id, mailbox) = b.socket(1, &["x"]).await;
    let minute = Duration::from_secs(60);
    let ask = || a.adapter.broadcast_with_ack(&Selector::rooms(["x"]), "e", &Args::none(), minute, None);
    let mut first = ask();
    assert_eq!(first.next().await, Some(AckEvent::Asked(vec![id])));
    assert_eq!(ask().next().await, Some(AckEvent::LostNode(b.factory.node())));
    assert_eq!((count(&mailbox), b.factory.counters().requests_refused.get()), (1, 1));
    drop(first);
    tokio::time::sleep(Duration::from_millis(1)).await;
    assert_eq!(ask().next().await, Some(AckEvent::Asked(vec![id])));
}

#[tokio::test(start_paused = true)]
async fn made_up_settings_of_buckets_cost_no_emit() {
    let hub = MemoryHub::new();
    let (a, b) = (TestNode::start(&hub).await, TestNode::start(&hub).await);
    let (_, mailbox) = b.socket(1, &["x"]).await;
    for number in 1..=100_u8 {
        let from = Identity { tag: NodeTag::from_random([9, 9, number]), generation: 1 };
        let listening = Listening { exact: false, hashed: true, buckets: number.into() };
        let vitals = Vitals { listening: Some(listening), ..Vitals::default() };
        for message in [Message::Heartbeat, Message::Vitals(vitals)] {
            hub.publish("all", wire::encode(from, &message));
        }
    }
    assert_eq!(a.factory.counters().routing_crowded.get(), 1);
    let before = a.factory.counters().published.get();
    assert!(a.adapter.broadcast_confirmed(&Selector::rooms(["x"]), &packet("e")).await.is_ok());
    assert_eq!((count(&mailbox), a.factory.counters().published.get() - before), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn nodes_say_how_they_are() {
    let (_hub, [a, b, _c]) = three().await;
    b.socket(1, &["x", "y"]).await;
    b.socket(2, &["x"]).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    let infos = a.factory.node_infos();
    let info = infos.iter().find(|info| info.tag == b.factory.node()).unwrap();
    assert_eq!((infos.len(), info.sockets, info.rooms), (3, Some(2), Some(2)));
    assert!(info.age <= Duration::from_secs(1));
}

/// A broker that takes its time to connect, and confirms nothing while it hangs.
struct Slow {
    bus: Arc<MemoryBus>,
    connects_in: Duration,
    hangs: AtomicBool,
}

impl Slow {
    fn new(hub: &MemoryHub, connects_in: Duration) -> Arc<Self> {
        Arc::new(Self { bus: hub.bus(), connects_in, hangs: AtomicBool::new(false) })
    }
}

impl Bus for Slow {
    fn start(&self, sink: Arc<dyn BusSink>) -> BoxFuture<'_, Result<(), BusError>> {
        async move {
            tokio::time::sleep(self.connects_in).await;
            self.bus.start(sink).await
        }
        .boxed()
    }
    fn publish(&self, batch: Vec<Publication>) -> BoxFuture<'_, Result<(), BusError>> {
        match self.hangs.load(Ordering::Relaxed) {
            true => pending().boxed(),
            false => self.bus.publish(batch),
        }
    }
    fn subscribe(&self, subjects: Vec<Subject>) -> BoxFuture<'_, Result<(), BusError>> {
        self.bus.subscribe(subjects)
    }
    fn unsubscribe(&self, subjects: Vec<Subject>) -> BoxFuture<'_, Result<(), BusError>> {
        self.bus.unsubscribe(subjects)
    }
    fn max_payload(&self) -> usize {
        self.bus.max_payload()
    }
    fn ping(&self) -> BoxFuture<'_, Result<(), BusError>> {
        self.bus.ping()
    }
    fn close(&self) -> BoxFuture<'_, ()> {
        self.bus.close()
    }
}

#[tokio::test(start_paused = true)]
async fn waiting_for_a_slow_broker_is_no_hang() {
    let hub = MemoryHub::new();
    let _other = TestNode::start(&hub).await;
    let bus = Slow::new(&hub, Duration::from_secs(20));
    let factory = ClusterFactory::start(Arc::clone(&bus) as Arc<dyn Bus>, ClusterConfig::default()).await;
    let factory = factory.unwrap();
    let _adapter = factory.namespace("/", Arc::new(Quiet));
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(factory.nodes().len(), 2);
    assert_eq!(
        (factory.counters().hung.get(), factory.counters().fenced.get()),
        (0, 0),
        "it took long to connect"
    );
    // Many ask at once, and none of the answers is confirmed.
    bus.hangs.store(true, Ordering::Relaxed);
    for number in 0..40 {
        let newcomer = Identity { tag: crate::id::NodeTag::from_random([9, 9, number]), generation: 1 };
        hub.publish(&subject::all(), wire::encode(newcomer, &Message::Hello));
    }
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!((factory.counters().hung.get(), factory.counters().fenced.get()), (0, 0), "it waited");
    bus.hangs.store(false, Ordering::Relaxed);
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(*factory.status().borrow(), Status::Ready);
}
