//! The conformance suite over three nodes on a real NATS server, and on the three servers of a NATS cluster, each node on
//! another.
#![cfg(all(feature = "conformance", feature = "nats"))]
#![allow(unreachable_pub, reason = "the support module is shared")]

mod support;

use std::sync::Arc;

use roomcast_adapter::cluster::Bus;
use roomcast_adapter::conformance::{TestCluster, order};
use roomcast_adapter::nats::{NatsBus, NatsConfig};
use roomcast_adapter::{conformance_of_one_stream, conformance_suite};
use support::{Kind, cluster_at, cluster_over, nats::NatsCluster};

fn bus(url: &str, prefix: &str) -> Arc<dyn Bus> {
    let mut config = NatsConfig::new(url);
    config.prefix = prefix.to_owned();
    Arc::new(NatsBus::new(&config).expect("a good configuration"))
}

async fn nats() -> TestCluster {
    cluster_over(Kind::Nats, bus).await
}

/// Each node is told of one server, and finds the others by itself.
async fn nats_cluster() -> TestCluster {
    let cluster = NatsCluster::shared();
    cluster_at([0, 1, 2].map(|n| cluster.url(n)), (), bus).await
}

conformance_suite!(over_nats, nats);
conformance_of_one_stream!(over_nats_in_one_stream, nats);
conformance_of_one_stream!(over_a_nats_cluster_in_one_stream, nats_cluster);
conformance_suite!(over_a_nats_cluster, nats_cluster);

/// Interest spreads between the servers of a cluster after the server of the node has it. A join is confirmed after that.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn joins_stand_at_every_server_when_they_are_confirmed() {
    for _ in 0..3 {
        let cluster = nats_cluster().await;
        order::what_is_emitted_after_a_confirmed_join_arrives(&cluster).await;
        order::what_is_emitted_after_sockets_join_arrives(&cluster).await;
        cluster.shutdown().await;
    }
}
