//! Counts and presence over nodes that come, go and die, in virtual time.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc::Receiver;
use tokio::time::Instant;

use super::ClusterConfig;
use super::memory_bus::MemoryHub;
use super::tests::{TestNode, three};
use crate::adapter::{AdapterFactory, Status};
use crate::host::{DrainOrder, Drains, Host, NodeState, Standing};
use crate::id::NodeTag;
use crate::presence::{PresenceEvent, RoomCount};

const SECOND: Duration = Duration::from_secs(1);

async fn count(node: &TestNode, room: &str) -> RoomCount {
    node.adapter.room_count(room).await
}

/// Waits until a node knows an exact count.
async fn counts(node: &TestNode, room: &str, sockets: usize) {
    let deadline = Instant::now() + 30 * SECOND;
    loop {
        let count = count(node, room).await;
        if count.exact && count.sockets == sockets {
            assert!(count.missing.is_empty() && count.age < 5 * SECOND, "{count:?}");
            return;
        }
        assert!(Instant::now() < deadline, "{room}: {count:?} instead of {sockets}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn every_node_knows_the_count_of_every_room() {
    let (_hub, nodes) = three().await;
    let (id, _) = nodes[0].socket(1, &["x", "a"]).await;
    nodes[0].socket(2, &["x"]).await;
    nodes[1].socket(1, &["x", "b"]).await;
    let began = Instant::now();
    for node in &nodes {
        for (room, sockets) in [("x", 3), ("a", 1), ("b", 1), ("nowhere", 0), (id.as_str(), 1)] {
            counts(node, room, sockets).await;
        }
    }
    assert!(began.elapsed() < SECOND, "{:?}", began.elapsed());
    let asked = nodes.iter().map(|node| node.factory.counters().requests.get()).sum::<u64>();
    assert_eq!(asked, 0);
    nodes[0].adapter.remove(id);
    for node in &nodes {
        for (room, sockets) in [("x", 2), ("a", 0), (id.as_str(), 0)] {
            counts(node, room, sockets).await;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_node_that_is_alone_knows_everything() {
    let hub = MemoryHub::new();
    let node = TestNode::start(&hub).await;
    let (id, _) = node.socket(1, &["x"]).await;
    tokio::time::sleep(SECOND).await;
    for room in ["x", id.as_str()] {
        let count = count(&node, room).await;
        assert_eq!((count.sockets, count.exact, count.age), (1, true, Duration::ZERO));
    }
}

#[tokio::test(start_paused = true)]
async fn the_sockets_of_a_dead_node_leave_the_counts_with_its_expiry() {
    let (_hub, [a, b, c]) = three().await;
    for number in 0..20 {
        let room = format!("r{number}");
        a.socket(number, &[&room]).await;
        b.socket(number, &[&room]).await;
    }
    for number in 0..20 {
        counts(&c, &format!("r{number}"), 2).await;
    }
    b.bus.set_up(false);
    tokio::time::sleep(8 * SECOND).await;
    for node in [&a, &c] {
        for number in 0..20 {
            counts(node, &format!("r{number}"), 1).await;
        }
    }
    // It comes back within its lease, and everything with it.
    b.bus.set_up(true);
    b.status(Status::Ready).await;
    for node in [&a, &b, &c] {
        for number in 0..20 {
            counts(node, &format!("r{number}"), 2).await;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_node_that_joins_takes_its_part_and_leaves_it() {
    let hub = MemoryHub::new();
    let a = TestNode::start(&hub).await;
    for number in 0..30 {
        a.socket(number, &[&format!("r{number}")]).await;
    }
    let mut nodes = vec![a];
    for _ in 0..4 {
        nodes.push(TestNode::start(&hub).await);
        for node in &nodes {
            for number in 0..30 {
                counts(node, &format!("r{number}"), 1).await;
            }
        }
    }
    tokio::time::sleep(SECOND).await;
    let held: Vec<_> = nodes.iter().map(|node| node.factory.counters().directory_records.get()).collect();
    assert!(held[1..].iter().all(|records| *records > 0), "{held:?}");
    for node in nodes.drain(1..) {
        node.factory.shutdown().await;
    }
    for number in 0..30 {
        counts(&nodes[0], &format!("r{number}"), 1).await;
    }
}

/// What all nodes tell, each thing once: a later telling has the same id.
struct Feed {
    receivers: Vec<Receiver<PresenceEvent>>,
    seen: BTreeSet<String>,
    again: usize,
}

impl Feed {
    fn of(nodes: &[TestNode]) -> Self {
        let receivers = nodes.iter().map(|node| node.factory.presence()).collect();
        Self { receivers, seen: BTreeSet::new(), again: 0 }
    }

    /// How often each thing was told since the last time, under ids of its own.
    fn told(&mut self) -> BTreeMap<String, usize> {
        let mut told = BTreeMap::new();
        for receiver in &mut self.receivers {
            while let Ok(event) = receiver.try_recv() {
                if !self.seen.insert(event.id()) {
                    self.again += 1;
                    continue;
                }
                let what = match &event {
                    PresenceEvent::RoomOccupied { room, .. } => format!("occupied {room}"),
                    PresenceEvent::RoomVacated { room, .. } => format!("vacated {room}"),
                    PresenceEvent::SocketGone { socket, .. } => format!("gone {socket}"),
                };
                *told.entry(what).or_default() += 1;
            }
        }
        told
    }
}

fn once<const N: usize>(what: [&str; N]) -> BTreeMap<String, usize> {
    what.map(|what| (what.to_owned(), 1)).into()
}

/// A process that does nothing but end.
struct Ending;

impl Host for Ending {
    fn standing(&self) -> Standing {
        Standing { state: NodeState::Draining, connections: 0 }
    }

    fn drain(&self, _: DrainOrder) -> Drains {
        Drains { already: true, connections: 0 }
    }
}

/// What is still told by nodes that end, until their receivers do, and how long that takes.
async fn last_words(feed: &mut Feed, nodes: &[&TestNode]) -> (BTreeMap<String, usize>, Duration) {
    let began = Instant::now();
    nodes.iter().for_each(|node| node.factory.end_presence());
    while !feed.receivers.iter().all(Receiver::is_closed) {
        tokio::time::sleep(Duration::from_millis(10)).await;
        assert!(began.elapsed() < 30 * SECOND, "a receiver that does not end");
    }
    (feed.told(), began.elapsed())
}

#[tokio::test(start_paused = true)]
async fn the_last_node_tells_that_its_rooms_are_vacated_and_does_not_wait() {
    let hub = MemoryHub::new();
    let node = TestNode::start(&hub).await;
    let nodes = [node];
    let mut feed = Feed::of(&nodes);
    let (id, _) = nodes[0].socket(1, &["x", "y"]).await;
    tokio::time::sleep(5 * SECOND).await;
    assert_eq!(feed.told(), once(["occupied x", "occupied y"]));
    nodes[0].adapter.remove(id);
    let (told, took) = last_words(&mut feed, &[&nodes[0]]).await;
    assert_eq!(told, once(["vacated x", "vacated y"]));
    assert!(took < ClusterConfig::default().vacate_after, "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn nodes_that_end_together_leave_no_room_untold_and_one_that_stays_tells_it_itself() {
    let host: Arc<dyn Host> = Arc::new(Ending);
    for together in [true, false] {
        let hub = MemoryHub::new();
        let nodes = [TestNode::start(&hub).await, TestNode::start(&hub).await];
        let mut feed = Feed::of(&nodes);
        let mut ids = Vec::new();
        for (number, node) in nodes.iter().enumerate() {
            let own = format!("only {number}");
            ids.push(node.socket(1, &["both", &own]).await.0);
        }
        tokio::time::sleep(5 * SECOND).await;
        assert_eq!(feed.told(), once(["occupied both", "occupied only 0", "occupied only 1"]));
        let ending = if together { &nodes[..] } else { &nodes[..1] };
        ending.iter().for_each(|node| node.factory.set_host(&host));
        // Long enough for the others to hear of it.
        tokio::time::sleep(2 * SECOND).await;
        for (node, id) in ending.iter().zip(&ids) {
            node.adapter.remove(*id);
        }
        if together {
            let (told, took) = last_words(&mut feed, &[&nodes[0], &nodes[1]]).await;
            assert_eq!(told, once(["vacated both", "vacated only 0", "vacated only 1"]));
            assert!(took < ClusterConfig::default().vacate_after, "{took:?}");
            continue;
        }
        nodes[0].factory.end_presence();
        nodes[0].factory.shutdown().await;
        assert_eq!(feed.told(), BTreeMap::new());
        tokio::time::sleep(10 * SECOND).await;
        assert_eq!(feed.told(), once(["vacated only 0"]));
    }
}

/// Three nodes that have been so for a while.
async fn settled() -> (MemoryHub, [TestNode; 3]) {
    let (hub, nodes) = three().await;
    tokio::time::sleep(4 * SECOND).await;
    (hub, nodes)
}

async fn five() -> (MemoryHub, Vec<TestNode>) {
    let (hub, nodes) = three().await;
    let mut nodes = Vec::from(nodes);
    nodes.push(TestNode::start(&hub).await);
    nodes.push(TestNode::start(&hub).await);
    tokio::time::sleep(4 * SECOND).await;
    (hub, nodes)
}

#[tokio::test(start_paused = true)]
async fn rooms_are_occupied_and_vacated_once_in_the_whole_cluster() {
    let (_hub, nodes) = settled().await;
    let mut feed = Feed::of(&nodes);
    let (first, _) = nodes[0].socket(1, &["x"]).await;
    let (second, _) = nodes[1].socket(1, &["x", "y"]).await;
    tokio::time::sleep(SECOND).await;
    assert_eq!(feed.told(), once(["occupied x", "occupied y"]));
    nodes[0].adapter.leave(first, "x");
    tokio::time::sleep(10 * SECOND).await;
    assert_eq!(feed.told(), once([]));
    // It comes back in time, again and again.
    for _ in 0..20 {
        nodes[1].adapter.leave(second, "x");
        tokio::time::sleep(2 * SECOND).await;
        nodes[0].adapter.join(first, &["x".into()]).await.unwrap();
        tokio::time::sleep(SECOND).await;
        nodes[0].adapter.leave(first, "x");
        nodes[1].adapter.join(second, &["x".into()]).await.unwrap();
    }
    assert_eq!(feed.told(), once([]));
    nodes[1].adapter.remove(second);
    tokio::time::sleep(Duration::from_millis(2_900)).await;
    assert_eq!(feed.told(), once([]));
    tokio::time::sleep(SECOND).await;
    assert_eq!(feed.told(), once(["vacated x", "vacated y"]));
    nodes[2].socket(1, &["x"]).await;
    tokio::time::sleep(SECOND).await;
    assert_eq!(feed.told(), once(["occupied x"]));
    assert_eq!(nodes.iter().map(|node| node.factory.counters().presence_dropped.get()).sum::<u64>(), 0);
}

#[tokio::test(start_paused = true)]
async fn the_sockets_of_a_dead_node_are_told_once_after_its_lease() {
    let (_hub, nodes) = settled().await;
    let mut feed = Feed::of(&nodes);
    let mut gone = BTreeMap::new();
    for number in 0..40 {
        let room = format!("r{number}");
        let (id, _) = nodes[1].socket(number, &[&room, "common"]).await;
        gone.insert(format!("gone {id}"), 1);
        gone.insert(format!("vacated {room}"), 1);
    }
    nodes[0].socket(1, &["common"]).await;
    let (left, _) = nodes[1].socket(99, &["common"]).await;
    tokio::time::sleep(SECOND).await;
    nodes[1].adapter.remove(left);
    tokio::time::sleep(SECOND).await;
    assert_eq!(feed.told().values().sum::<usize>(), 41);
    // Killed: nothing of it is heard any more. It owned, and was the primary of, a third of everything.
    nodes[1].bus.set_up(false);
    tokio::time::sleep(14 * SECOND).await;
    assert_eq!(feed.told(), once([]));
    tokio::time::sleep(8 * SECOND).await;
    assert_eq!(feed.told(), gone);
    // It comes back after its lease and ends its sockets itself: that is no other event.
    nodes[1].bus.set_up(true);
    tokio::time::sleep(20 * SECOND).await;
    for number in 0..40 {
        let id = crate::id::SocketId::new(nodes[1].factory.node(), [number; 12]);
        nodes[1].adapter.remove(id);
    }
    tokio::time::sleep(10 * SECOND).await;
    for node in &nodes {
        counts(node, "common", 1).await;
        counts(node, "r1", 0).await;
    }
}

#[tokio::test(start_paused = true)]
async fn nodes_that_die_one_after_the_other_lose_nothing_and_double_nothing() {
    let (_hub, nodes) = five().await;
    let mut feed = Feed::of(&nodes);
    let mut gone: Vec<String> = Vec::new();
    for number in 0..60 {
        let node = &nodes[usize::from(number % 2)];
        let room = format!("r{number}");
        let (id, _) = node.socket(number, &[&room]).await;
        gone.push(format!("gone {id}"));
        gone.push(format!("vacated {room}"));
    }
    for number in 0..60 {
        nodes[4].socket(number, &[&format!("kept{number}")]).await;
    }
    tokio::time::sleep(SECOND).await;
    assert_eq!(feed.told().len(), 120);
    nodes[0].bus.set_up(false);
    tokio::time::sleep(9 * SECOND).await;
    nodes[1].bus.set_up(false);
    tokio::time::sleep(9 * SECOND).await;
    // The owner of much that the first two knew.
    nodes[2].bus.set_up(false);
    tokio::time::sleep(60 * SECOND).await;
    let told = feed.told();
    gone.sort_unstable();
    assert_eq!(told.keys().cloned().collect::<Vec<_>>(), gone);
    for number in 0..60 {
        counts(&nodes[3], &format!("kept{number}"), 1).await;
        counts(&nodes[4], &format!("r{number}"), 0).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_handover_doubles_nothing() {
    let (hub, nodes) = settled().await;
    let mut nodes = Vec::from(nodes);
    let mut feed = Feed::of(&nodes);
    for number in 0..60 {
        nodes[usize::from(number % 3)].socket(number, &[&format!("r{number}")]).await;
    }
    tokio::time::sleep(SECOND).await;
    assert_eq!(feed.told().len(), 60);
    for _ in 0..2 {
        nodes.push(TestNode::start(&hub).await);
        feed.receivers.push(nodes[nodes.len() - 1].factory.presence());
        tokio::time::sleep(20 * SECOND).await;
    }
    // One that owned much leaves in order: its sockets are told of, once.
    let leaver = nodes.remove(0);
    leaver.factory.shutdown().await;
    tokio::time::sleep(20 * SECOND).await;
    let told = feed.told();
    assert!(told.values().all(|times| *times == 1), "{told:?}");
    assert_eq!(told.keys().filter(|what| what.starts_with("gone")).count(), 20);
    assert_eq!(told.keys().filter(|what| what.starts_with("vacated")).count(), 20);
    assert_eq!((told.len(), feed.again), (40, 0));
}

#[tokio::test(start_paused = true)]
async fn updates_that_get_lost_are_told_anew() {
    let (hub, nodes) = settled().await;
    let mut feed = Feed::of(&nodes);
    let mut updates = 0;
    hub.lose(move |publication| {
        updates += usize::from(publication.payload.get(3) == Some(&9));
        publication.payload.get(3) == Some(&9) && updates % 3 == 0 && updates < 60
    });
    for number in 0..60 {
        nodes[usize::from(number % 3)].socket(number, &[&format!("r{number}")]).await;
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    for number in 0..60 {
        for node in &nodes {
            counts(node, &format!("r{number}"), 1).await;
        }
    }
    tokio::time::sleep(5 * SECOND).await;
    let told = feed.told();
    assert_eq!((told.len(), told.values().sum::<usize>()), (60, 60));
    assert!(nodes.iter().any(|node| node.factory.counters().directory_gaps.get() > 0));
}

#[tokio::test(start_paused = true)]
async fn a_node_that_is_cut_off_says_that_it_does_not_know() {
    let (_hub, nodes) = three().await;
    nodes[0].socket(1, &["x"]).await;
    nodes[1].socket(1, &["x"]).await;
    counts(&nodes[2], "x", 2).await;
    nodes[0].bus.set_up(false);
    let alone = count(&nodes[0], "x").await;
    let mut others: Vec<NodeTag> = nodes[1..].iter().map(|node| node.factory.node()).collect();
    others.sort_unstable();
    assert_eq!((alone.sockets, alone.exact, alone.missing), (1, false, others));
    // Until it is known to be away, one of its owners, or it, may not answer; then the rest is exact.
    counts(&nodes[1], "x", 1).await;
}

#[tokio::test(start_paused = true)]
async fn beside_a_node_of_the_first_version_no_count_is_exact() {
    let (hub, nodes) = three().await;
    nodes[0].socket(1, &["x"]).await;
    counts(&nodes[1], "x", 1).await;
    let old = super::version_tests::old_node(&hub).await;
    old.socket(1, &["x"]).await;
    tokio::time::sleep(2 * SECOND).await;
    for node in &nodes {
        let count = count(node, "x").await;
        assert_eq!((count.sockets, count.exact, count.missing), (1, false, vec![old.factory.node()]));
    }
    old.factory.shutdown().await;
    counts(&nodes[2], "x", 1).await;
}

#[tokio::test(start_paused = true)]
async fn questions_to_nodes_are_bounded_too() {
    let hub = MemoryHub::new();
    let other = TestNode::start(&hub).await;
    other.socket(1, &["x"]).await;
    let node =
        TestNode::start_with(&hub, ClusterConfig { max_requests: 0, ..ClusterConfig::default() }).await;
    tokio::time::sleep(5 * SECOND).await;
    let page = node.adapter.room_sockets("x", None, 10).await;
    assert_eq!((page.value.len(), page.missing), (0, vec![other.factory.node()]));
    assert_eq!(node.factory.counters().requests_overflowed.get(), 1);
}
