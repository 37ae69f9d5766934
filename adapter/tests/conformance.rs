//! The conformance suite over the adapters that need no broker: in memory, and a cluster over a broker in memory.
//!
//! Those over real brokers are in `conformance_redis.rs` and `conformance_nats.rs`.
#![cfg(feature = "conformance")]

use std::sync::Arc;
use std::time::Duration;

use roomcast_adapter::cluster::memory_bus::MemoryHub;
use roomcast_adapter::cluster::{ClusterConfig, ClusterFactory};
use roomcast_adapter::conformance::TestCluster;
use roomcast_adapter::{AdapterFactory, LocalFactory, conformance_of_one_stream, conformance_suite};

async fn memory() -> TestCluster {
    let node = LocalFactory::with_random_tag().expect("randomness");
    TestCluster::new(vec![node], ()).await
}

fn config() -> ClusterConfig {
    // What is said of semantics holds on a busy machine too: nothing is shed.
    let (discovery, max_lag) = (Duration::from_millis(20), Duration::from_secs(600));
    ClusterConfig { discovery, max_lag, ..ClusterConfig::default() }
}

async fn start(hub: &MemoryHub, config: ClusterConfig) -> Vec<Arc<ClusterFactory>> {
    let mut nodes = Vec::new();
    for _ in 0..3 {
        nodes.push(ClusterFactory::start(hub.bus(), config.clone()).await.expect("a broker in memory"));
    }
    nodes
}

async fn in_process() -> TestCluster {
    let hub = MemoryHub::new();
    let nodes = start(&hub, config()).await;
    TestCluster::new(nodes.into_iter().map(|node| node as Arc<dyn AdapterFactory>).collect(), hub).await
}

/// Nodes that listen to buckets of rooms, two of which are in each other's way now and then.
async fn hashed() -> TestCluster {
    let hub = MemoryHub::new();
    let linger = Duration::from_millis(50);
    let config = ClusterConfig { max_room_subjects: 0, hashed_subjects: 8, linger, ..config() };
    let nodes = start(&hub, config).await;
    let deadline = std::time::Instant::now() + Duration::from_secs(30);
    while nodes.iter().any(|node| node.counters().hashed.get() == 0) {
        assert!(std::time::Instant::now() < deadline, "the nodes do not go over");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    TestCluster::new(nodes.into_iter().map(|node| node as Arc<dyn AdapterFactory>).collect(), hub).await
}

conformance_suite!(over_memory, memory);
conformance_suite!(over_a_cluster_in_process, in_process);
conformance_of_one_stream!(over_memory_in_one_stream, memory);
conformance_of_one_stream!(over_a_cluster_in_process_in_one_stream, in_process);
conformance_suite!(over_a_cluster_that_hashes_rooms, hashed);
