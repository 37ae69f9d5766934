//! Calls that are carried out once.

use std::time::Duration;

use bytes::Bytes;

use super::TestCluster;
use super::socket::PATIENCE;
use crate::once::{MAX_ANSWER, Once, OnceKey};

fn key(call: u8, body: u8) -> OnceKey {
    OnceKey { call: [call; 32], body: [body; 16] }
}

async fn ask(cluster: &TestCluster, node: usize, key: OnceKey) -> Once {
    cluster.factory(node).once(key).await.unwrap()
}

/// Asks until nobody has it in hand any more. What became of a call takes a moment to be known.
async fn settled(cluster: &TestCluster, node: usize, key: OnceKey) -> Once {
    let wait = async {
        loop {
            match ask(cluster, node, key).await {
                Once::Busy => tokio::time::sleep(Duration::from_millis(5)).await,
                known => return known,
            }
        }
    };
    tokio::time::timeout(PATIENCE, wait).await.expect("a call stayed in hand")
}

/// Whoever asks first carries a call out; all others get its answer, on every node.
pub async fn a_call_is_carried_out_once(cluster: &TestCluster) {
    for call in 0..10 {
        let at = usize::from(call) % cluster.len();
        let Once::First(first) = ask(cluster, at, key(call, 1)).await else { panic!("it was new") };
        for node in 0..cluster.len() {
            assert!(matches!(ask(cluster, node, key(call, 1)).await, Once::Busy));
            assert!(matches!(ask(cluster, node, key(call, 2)).await, Once::Other));
        }
        first.done(Bytes::from(vec![call; 3])).await;
        for node in 0..cluster.len() {
            let Once::Before(Some(answer)) = settled(cluster, node, key(call, 1)).await else {
                panic!("it was carried out")
            };
            assert_eq!(answer, vec![call; 3]);
            assert!(matches!(ask(cluster, node, key(call, 2)).await, Once::Other));
        }
    }
    let Once::First(first) = ask(cluster, 0, key(99, 1)).await else { panic!("it was new") };
    first.done(Bytes::from(vec![0; MAX_ANSWER + 1])).await;
    assert!(matches!(settled(cluster, 0, key(99, 1)).await, Once::Before(None)));
}

/// A call that failed is new to the next who asks, and of many who ask at once one carries it out.
pub async fn a_call_that_failed_is_carried_out_by_the_next(cluster: &TestCluster) {
    for call in 0..10 {
        let Once::First(first) = ask(cluster, 0, key(call, 1)).await else { panic!("it was new") };
        drop(first);
        let many = (0..12).map(|at| settled_or_first(cluster, at % cluster.len(), key(call, 1)));
        let first = futures_util::future::join_all(many).await.into_iter().filter(|first| *first).count();
        assert_eq!(first, 1);
    }
}

/// True if it was this one that carried it out.
async fn settled_or_first(cluster: &TestCluster, node: usize, key: OnceKey) -> bool {
    match settled(cluster, node, key).await {
        Once::First(first) => {
            first.done(Bytes::from_static(b"done")).await;
            true
        }
        Once::Before(Some(answer)) => {
            assert_eq!(answer, "done");
            false
        }
        other => panic!("{other:?}"),
    }
}

/// What was carried out is known when nodes have left, those who knew it among them.
pub async fn what_was_carried_out_outlives_a_node(cluster: &TestCluster) {
    if cluster.len() == 1 {
        return;
    }
    for call in 0..30 {
        assert!(settled_or_first(cluster, usize::from(call) % cluster.len(), key(call, 1)).await);
        assert!(!settled_or_first(cluster, 0, key(call, 1)).await);
    }
    for left in (1..cluster.len()).rev() {
        cluster.factory(left).shutdown().await;
        for node in 0..left {
            cluster.wait_for_nodes(node, left).await;
        }
        for call in 0..30 {
            let node = usize::from(call) % left;
            assert!(!settled_or_first(cluster, node, key(call, 1)).await, "{call} after {left}");
        }
    }
}
