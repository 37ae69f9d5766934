//! Nodes over a broker in memory, in virtual time: what the conformance suite cannot bring about with a real broker.

use std::collections::VecDeque;
use std::sync::Arc;
use std::task::{Context, Waker};
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt;
use roomcast_protocol::socketio::{Args, EncodedPacket};
use tokio::time::Instant;

use super::memory_bus::{MemoryBus, MemoryHub};
use super::message::Identity;
use super::{ClusterConfig, ClusterError, ClusterFactory};
use crate::adapter::{
    AckEvent, Adapter, AdapterError, AdapterFactory, Describe, LocalSocket, NamespaceEvents, ServerReply,
    Status,
};
use crate::id::SocketId;
use crate::mailbox::{CloseCause, Item, Mailbox, MailboxLimits, Outgoing};
use crate::selector::{Room, Selector};

pub(super) struct Quiet;

impl NamespaceEvents for Quiet {
    fn server_side_event(&self, _: &str, _: Args, _: Option<ServerReply>) {}
}

impl Describe for Quiet {
    fn handshake(&self) -> serde_json::Value {
        serde_json::Value::Null
    }
    fn data(&self) -> serde_json::Value {
        serde_json::json!({ "padding": "x".repeat(1_000) })
    }
}

pub(super) struct TestNode {
    pub(super) bus: Arc<MemoryBus>,
    pub(super) factory: Arc<ClusterFactory>,
    pub(super) adapter: Arc<dyn Adapter>,
}

impl TestNode {
    pub(super) async fn start(hub: &MemoryHub) -> Self {
        Self::start_with(hub, ClusterConfig::default()).await
    }

    pub(super) async fn start_with(hub: &MemoryHub, config: ClusterConfig) -> Self {
        let bus = hub.bus();
        let factory = ClusterFactory::start(bus.clone(), config).await.unwrap();
        let adapter = factory.namespace("/", Arc::new(Quiet));
        Self { bus, factory, adapter }
    }

    pub(super) async fn socket(&self, number: u8, rooms: &[&str]) -> (SocketId, Arc<Mailbox>) {
        let id = SocketId::new(self.factory.node(), [number; 12]);
        let mailbox = Mailbox::new(MailboxLimits::default());
        self.adapter.add(LocalSocket { id, mailbox: mailbox.clone(), describe: Arc::new(Quiet) });
        let rooms: Vec<Room> = rooms.iter().map(|room| Room::from(*room)).collect();
        assert_eq!(self.adapter.join(id, &rooms).await, Ok(true));
        (id, mailbox)
    }

    pub(super) async fn status(&self, status: Status) {
        self.factory.status().wait_for(|current| *current == status).await.unwrap();
    }
}

pub(super) async fn three() -> (MemoryHub, [TestNode; 3]) {
    let hub = MemoryHub::new();
    let nodes = [TestNode::start(&hub).await, TestNode::start(&hub).await, TestNode::start(&hub).await];
    for node in &nodes {
        while node.factory.nodes().len() < 3 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
    (hub, nodes)
}

pub(super) fn packet(name: &str) -> Arc<Outgoing> {
    Outgoing::new(EncodedPacket::event("/", None, name, &Args::none()))
}

/// The number of packets that came.
pub(super) fn count(mailbox: &Mailbox) -> usize {
    let mut batch = VecDeque::new();
    let _ = mailbox.poll_take(&mut Context::from_waker(Waker::noop()), &mut batch);
    batch.iter().filter(|item| matches!(item, Item::Packet(_))).count()
}

/// True if the mailbox was told to end its connection for this reason.
pub(super) fn is_closed(mailbox: &Mailbox, cause: CloseCause) -> bool {
    let mut batch = VecDeque::new();
    let _ = mailbox.poll_take(&mut Context::from_waker(Waker::noop()), &mut batch);
    batch.iter().any(|item| matches!(item, Item::Close(closed) if *closed == cause))
}

#[tokio::test(start_paused = true)]
async fn a_node_that_starts_knows_the_others_before_it_is_ready() {
    let hub = MemoryHub::new();
    let first = TestNode::start(&hub).await;
    let second = TestNode::start(&hub).await;
    assert_eq!(second.factory.nodes().len(), 2);
    assert_eq!(first.factory.nodes(), second.factory.nodes());
    assert_eq!(*second.factory.status().borrow(), Status::Ready);
}

#[tokio::test(start_paused = true)]
async fn a_tag_that_a_live_node_has_is_drawn_again() {
    let hub = MemoryHub::new();
    let first = TestNode::start(&hub).await;
    let taken = first.factory.node();
    let mut generation = 0;
    let draw = |tries: u64| {
        move || {
            generation += 1;
            let tag = if generation <= tries { taken } else { "free".parse().unwrap() };
            Ok(Identity { tag, generation })
        }
    };
    let second = ClusterFactory::start_with(hub.bus(), ClusterConfig::default(), draw(2)).await.unwrap();
    assert_eq!(second.node().as_str(), "free");
    assert_eq!(second.nodes().len(), 2);
    assert_eq!(first.factory.nodes(), second.nodes());
    let third = ClusterFactory::start_with(hub.bus(), ClusterConfig::default(), draw(99)).await;
    assert!(matches!(third, Err(ClusterError::NoFreeTag)));
}

#[tokio::test(start_paused = true)]
async fn a_broker_that_is_away_at_the_start_is_an_error() {
    let bus = MemoryHub::new().bus();
    bus.set_up(false);
    let started = ClusterFactory::start(bus, ClusterConfig::default()).await;
    assert_eq!(started.err().map(|error| error.code()), Some("broker_unavailable"));
}

#[tokio::test(start_paused = true)]
async fn a_request_ends_when_a_node_dies_and_names_it() {
    let (_hub, [a, b, c]) = three().await;
    a.socket(1, &["x"]).await;
    b.socket(1, &["x"]).await;
    c.socket(1, &["x"]).await;
    c.bus.set_up(false);
    let asked_at = Instant::now();
    let count = a.adapter.count_sockets(&Selector::rooms(["x"])).await;
    assert_eq!((count.value, count.missing), (2, vec![c.factory.node()]));
    assert!(asked_at.elapsed() <= ClusterConfig::default().expiry);
    assert_eq!(a.factory.counters().requests_incomplete.get(), 1);
    // Once it is known to be dead nobody waits for it, and after its return everybody does.
    while a.factory.nodes().len() > 2 {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let asked_at = Instant::now();
    assert_eq!(a.adapter.count_sockets(&Selector::all()).await.missing, []);
    assert_eq!(asked_at.elapsed(), Duration::ZERO);
    c.bus.set_up(true);
    c.status(Status::Ready).await;
    let count = a.adapter.count_sockets(&Selector::all()).await;
    assert_eq!((count.value, count.missing), (3, vec![]));
}

#[tokio::test(start_paused = true)]
async fn acks_of_a_node_that_dies_end() {
    let (_hub, [a, b, c]) = three().await;
    b.socket(1, &["x"]).await;
    let minute = Duration::from_secs(60);
    let mut acks = a.adapter.broadcast_with_ack(&Selector::rooms(["x"]), "e", &Args::none(), minute, None);
    let asked = SocketId::new(b.factory.node(), [1; 12]);
    assert_eq!(acks.next().await, Some(AckEvent::Asked(vec![asked])));
    b.bus.set_up(false);
    c.factory.shutdown().await;
    assert_eq!(acks.next().await, Some(AckEvent::LostNode(b.factory.node())));
    assert_eq!(acks.next().await, None);
}

#[tokio::test(start_paused = true)]
async fn during_an_outage_this_node_is_served_and_the_caller_is_told() {
    let (hub, [a, b, _c]) = three().await;
    let (id, here) = a.socket(1, &["x"]).await;
    let (_, there) = b.socket(1, &["x"]).await;
    a.bus.set_up(false);
    assert_eq!(*a.factory.status().borrow(), Status::Unavailable);
    let unavailable = Err(AdapterError::BrokerUnavailable);
    assert_eq!(a.adapter.broadcast(&Selector::rooms(["x"]), &packet("e")), unavailable);
    assert_eq!(a.adapter.broadcast_confirmed(&Selector::all(), &packet("e")).await, unavailable);
    assert_eq!((count(&here), count(&there)), (2, 0));
    assert_eq!(a.adapter.join(id, &["y".into()]).await, Err(AdapterError::BrokerUnavailable));
    assert!(a.adapter.is_member(id, "y"));
    let asked = a.adapter.count_sockets(&Selector::all()).await;
    assert_eq!((asked.value, asked.missing.len()), (1, 2));
    assert!(a.adapter.sockets_join(&Selector::all(), &["z".into()]).await.is_err());
    // An outage says nothing about the other nodes, however long it is for this one.
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(a.factory.nodes().len(), 3);
    assert_eq!(b.factory.nodes().len(), 2);
    a.bus.set_up(true);
    a.status(Status::Ready).await;
    assert_eq!(hub.subscribers("room//\0y"), 1);
    assert_eq!(b.factory.nodes().len(), 3);
    for room in ["x", "y", "z"] {
        assert_eq!(b.adapter.broadcast_confirmed(&Selector::rooms([room]), &packet("e")).await, Ok(()));
    }
    assert_eq!((count(&here), count(&there)), (3, 1));
    // One of them to a room, which has two subjects while the node is new.
    assert_eq!(a.factory.counters().publish_refused.get(), 5);
}

#[tokio::test(start_paused = true)]
async fn a_join_that_waits_when_the_broker_goes_ends() {
    let (_hub, [a, ..]) = three().await;
    let (id, _) = a.socket(1, &[]).await;
    let join = a.adapter.join(id, &["x".into()]);
    a.bus.set_up(false);
    assert_eq!(join.await, Err(AdapterError::BrokerUnavailable));
}

#[tokio::test(start_paused = true)]
async fn a_room_is_let_go_some_time_after_its_last_member() {
    let (hub, [a, b, _c]) = three().await;
    let (id, _) = a.socket(1, &["x"]).await;
    let (other, _) = b.socket(1, &["x"]).await;
    assert_eq!(hub.subscribers("room//\0x"), 2);
    b.adapter.remove(other);
    a.adapter.leave(id, "x");
    tokio::time::sleep(Duration::from_secs(4)).await;
    assert_eq!(hub.subscribers("room//\0x"), 2);
    assert_eq!(a.adapter.join(id, &["x".into()]).await, Ok(true));
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(hub.subscribers("room//\0x"), 1);
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(hub.subscribers("room//\0x"), 1);
}

#[tokio::test(start_paused = true)]
async fn who_has_no_member_of_a_room_is_not_bothered() {
    let (_hub, [a, b, c]) = three().await;
    let (_, mailbox) = b.socket(1, &["x"]).await;
    let (id, direct) = b.socket(2, &[]).await;
    let before = c.factory.counters().received_bytes.get();
    let big = Outgoing::new(EncodedPacket::event("/", None, &"x".repeat(10_000), &Args::none()));
    for room in ["x", id.as_str()] {
        a.adapter.broadcast_confirmed(&Selector::rooms([room]), &big).await.unwrap();
    }
    assert_eq!((count(&mailbox), count(&direct)), (1, 1));
    assert!(c.factory.counters().received_bytes.get() - before < 10_000);
}

#[tokio::test(start_paused = true)]
async fn what_the_broker_brings_is_not_trusted() {
    let (hub, [a, b, _c]) = three().await;
    let (_, mailbox) = a.socket(1, &["x"]).await;
    let from = Identity { tag: "evil".parse().unwrap(), generation: 1 };
    let heartbeat = super::wire::encode(from, &super::message::Message::Heartbeat);
    for bytes in [&b""[..], b"RC", b"RC\x01", b"RC\x09xxxxxxxx", b"{\"json\":1}"] {
        hub.publish("all", Bytes::copy_from_slice(bytes));
    }
    hub.publish("all", heartbeat.slice(..heartbeat.len() - 1));
    hub.publish("all", [&heartbeat[..], b"more"].concat().into());
    let counters = a.factory.counters();
    assert_eq!(counters.malformed_foreign.get(), 2);
    assert_eq!(counters.malformed_version.get(), 1);
    assert_eq!(counters.malformed_truncated.get(), 3);
    assert_eq!(counters.malformed_invalid.get(), 1);
    b.adapter.broadcast_confirmed(&Selector::all(), &packet("e")).await.unwrap();
    assert_eq!(count(&mailbox), 1);
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_gets_lost_is_missing_at_the_deadline() {
    let (hub, [a, b, c]) = three().await;
    b.socket(1, &["x"]).await;
    c.socket(1, &["x"]).await;
    let to_a = format!("node/{}", a.factory.node());
    let mut answers = 0;
    hub.lose(move |publication| {
        answers += u32::from(*publication.subject == *to_a);
        answers == 1 && *publication.subject == *to_a
    });
    let asked_at = Instant::now();
    let count = a.adapter.count_sockets(&Selector::rooms(["x"])).await;
    assert_eq!((count.value, count.missing.len()), (1, 1));
    assert_eq!(asked_at.elapsed(), ClusterConfig::default().request_timeout);
}

#[tokio::test(start_paused = true)]
async fn what_is_too_large_for_the_broker_is_refused() {
    let (_hub, [a, ..]) = three().await;
    let (_, mailbox) = a.socket(1, &[]).await;
    let huge = Outgoing::new(EncodedPacket::engine_binary(&vec![0; 9 * 1024 * 1024]));
    assert_eq!(a.adapter.broadcast(&Selector::all(), &huge), Err(AdapterError::TooLarge));
    assert_eq!(count(&mailbox), 1);
}

#[tokio::test(start_paused = true)]
async fn many_sockets_are_fetched_in_parts() {
    let (_hub, [a, b, _c]) = three().await;
    let describe: Arc<dyn Describe> = Arc::new(Quiet);
    for number in 0..10_000_u32 {
        let mut random = [0; 12];
        random[..4].copy_from_slice(&number.to_be_bytes());
        let id = SocketId::new(b.factory.node(), random);
        let mailbox = Mailbox::new(MailboxLimits::default());
        b.adapter.add(LocalSocket { id, mailbox, describe: Arc::clone(&describe) });
    }
    let before = a.factory.counters().received.get();
    let fetched = a.adapter.fetch_sockets(&Selector::all()).await;
    assert_eq!((fetched.value.len(), fetched.missing), (10_000, vec![]));
    assert!(a.factory.counters().received.get() - before >= 2);
}

#[tokio::test(start_paused = true)]
async fn a_node_that_shuts_down_is_forgotten_at_once() {
    let (_hub, [a, b, c]) = three().await;
    let (_, mailbox) = b.socket(1, &["x"]).await;
    a.adapter.broadcast(&Selector::rooms(["x"]), &packet("last")).unwrap();
    a.factory.shutdown().await;
    assert_eq!((b.factory.nodes().len(), c.factory.nodes().len()), (2, 2));
    assert_eq!(count(&mailbox), 1);
    assert_eq!(*a.factory.status().borrow(), Status::Unavailable);
    assert_eq!(a.adapter.broadcast(&Selector::all(), &packet("e")), Err(AdapterError::BrokerUnavailable));
}
