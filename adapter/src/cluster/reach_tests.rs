//! Nodes that tell each other where they are reached.

use std::time::Duration;

use super::memory_bus::MemoryHub;
use super::message::{Identity, Message};
use super::tests::{TestNode, three};
use super::version_tests::old_node;
use super::{ClusterConfig, ClusterFactory, subject, wire};
use crate::adapter::AdapterFactory;
use crate::id::NodeTag;
use crate::reach::{Reach, ReachKey};

fn reach(number: u8) -> Reach {
    Reach { address: ([127, 0, 0, number], 3002).into(), key: ReachKey::new([number; 32]) }
}

async fn heartbeats(count: u32) {
    tokio::time::sleep(ClusterConfig::default().heartbeat * count).await;
}

#[tokio::test(start_paused = true)]
async fn who_has_announced_knows_all_who_have() {
    let (_hub, nodes) = three().await;
    // Waits for those who have nothing to tell yet, but not for ever.
    for (number, node) in (1..).zip(&nodes) {
        node.factory.announce_reach(reach(number)).await;
    }
    for node in &nodes {
        for (number, other) in (1..).zip(&nodes) {
            let known = node.factory.reach_of(other.factory.node());
            let expected = (node.factory.node() != other.factory.node()).then(|| reach(number));
            assert_eq!(known, expected, "{number}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_newcomer_and_who_is_there_know_each_other_without_a_heartbeat() {
    let hub = MemoryHub::new();
    let first = TestNode::start(&hub).await;
    first.factory.announce_reach(reach(1)).await;
    let second = TestNode::start(&hub).await;
    let before = tokio::time::Instant::now();
    second.factory.announce_reach(reach(2)).await;
    assert!(before.elapsed() < Duration::from_millis(50), "{:?}", before.elapsed());
    assert_eq!(second.factory.reach_of(first.factory.node()), Some(reach(1)));
    assert_eq!(first.factory.reach_of(second.factory.node()), Some(reach(2)));
}

#[tokio::test(start_paused = true)]
async fn what_got_lost_is_said_again_and_what_left_is_forgotten() {
    let hub = MemoryHub::new();
    let (first, second) = (TestNode::start(&hub).await, TestNode::start(&hub).await);
    hub.lose(|publication| publication.subject == subject::reach());
    first.factory.announce_reach(reach(1)).await;
    second.factory.announce_reach(reach(2)).await;
    assert_eq!(first.factory.reach_of(second.factory.node()), None);
    hub.lose(|_| false);
    heartbeats(2).await;
    assert_eq!(first.factory.reach_of(second.factory.node()), Some(reach(2)));
    second.factory.shutdown().await;
    assert_eq!(first.factory.reach_of(second.factory.node()), None);
}

#[tokio::test(start_paused = true)]
async fn a_silent_node_is_reached_until_it_is_gone_for_good() {
    let hub = MemoryHub::new();
    let (first, second) = (TestNode::start(&hub).await, TestNode::start(&hub).await);
    first.factory.announce_reach(reach(1)).await;
    second.factory.announce_reach(reach(2)).await;
    second.bus.set_up(false);
    heartbeats(8).await;
    assert_eq!(first.factory.nodes().len(), 1);
    assert_eq!(first.factory.reach_of(second.factory.node()), Some(reach(2)));
    heartbeats(10).await;
    assert_eq!(first.factory.reach_of(second.factory.node()), None);
    // Back, and taken for dead: a new life, which says again where it is.
    second.bus.set_up(true);
    heartbeats(4).await;
    assert_eq!(second.factory.counters().fenced.get(), 1);
    assert_eq!(first.factory.reach_of(second.factory.node()), Some(reach(2)));
}

#[tokio::test(start_paused = true)]
async fn a_node_that_starts_again_under_its_tag_has_a_new_key() {
    let hub = MemoryHub::new();
    let first = TestNode::start(&hub).await;
    first.factory.announce_reach(reach(1)).await;
    let tag: NodeTag = "aaaa".parse().unwrap();
    for life in 2..4_u8 {
        let draw = || Ok(Identity { tag, generation: life.into() });
        let factory = ClusterFactory::start_with(hub.bus(), ClusterConfig::default(), draw).await.unwrap();
        factory.announce_reach(reach(life)).await;
        assert_eq!(first.factory.reach_of(tag), Some(reach(life)));
        // As by SIGKILL: what it left stays until it is heard again or silent for too long.
        drop(factory);
        assert_eq!(first.factory.reach_of(tag), Some(reach(life)));
        heartbeats(6).await;
    }
}

#[tokio::test(start_paused = true)]
async fn nodes_of_an_earlier_version_hear_nothing_of_it() {
    let hub = MemoryHub::new();
    let (old, new) = (old_node(&hub).await, TestNode::start(&hub).await);
    new.factory.announce_reach(reach(1)).await;
    let newer = TestNode::start(&hub).await;
    newer.factory.announce_reach(reach(2)).await;
    heartbeats(3).await;
    assert_eq!(newer.factory.reach_of(new.factory.node()), Some(reach(1)));
    assert_eq!(newer.factory.reach_of(old.factory.node()), None);
    assert_eq!(hub.subscribers(&subject::reach()), 2);
}

#[tokio::test(start_paused = true)]
async fn forged_messages_keep_nothing_and_set_off_nothing() {
    let hub = MemoryHub::new();
    let (first, second) = (TestNode::start(&hub).await, TestNode::start(&hub).await);
    first.factory.announce_reach(reach(1)).await;
    second.factory.announce_reach(reach(2)).await;
    heartbeats(2).await;
    let sent = first.factory.counters().received.get();
    for number in 0..1_000_u32 {
        let [_, random @ ..] = number.to_be_bytes();
        let forger = Identity { tag: NodeTag::from_random(random), generation: 1 };
        hub.publish(&subject::reach(), wire::encode(forger, &Message::Reach(reach(9))));
        assert_eq!(first.factory.reach_of(forger.tag), None);
    }
    // Of another life of a node that is known.
    let forger = Identity { tag: second.factory.node(), generation: 1 };
    hub.publish(&subject::reach(), wire::encode(forger, &Message::Reach(reach(9))));
    assert_eq!(first.factory.reach_of(forger.tag), Some(reach(2)));
    tokio::time::sleep(Duration::from_millis(1)).await;
    // Nobody answered: what came is what was forged.
    assert_eq!(first.factory.counters().received.get() - sent, 1_001);
}
