//! Counts and presence over nodes that come, go and die, in virtual time.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::sync::mpsc::Receiver;
use tokio::time::Instant;

use super::memory_bus::MemoryHub;
use super::tests::{TestNode, three};
use crate::adapter::{AdapterFactory, Status};
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
