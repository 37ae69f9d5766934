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

async fn in_process() -> TestCluster {
    let hub = MemoryHub::new();
    let config = ClusterConfig { discovery: Duration::from_millis(20), ..ClusterConfig::default() };
    let mut nodes: Vec<Arc<dyn AdapterFactory>> = Vec::new();
    for _ in 0..3 {
        nodes.push(ClusterFactory::start(hub.bus(), config.clone()).await.expect("a broker in memory"));
    }
    TestCluster::new(nodes, hub).await
}

conformance_suite!(over_memory, memory);
conformance_suite!(over_a_cluster_in_process, in_process);
conformance_of_one_stream!(over_memory_in_one_stream, memory);
conformance_of_one_stream!(over_a_cluster_in_process_in_one_stream, in_process);
