//! The conformance suite over a cluster of three nodes on a real NATS server.
#![cfg(all(feature = "conformance", feature = "nats"))]
#![allow(unreachable_pub, reason = "the support module is shared")]

mod support;

use std::sync::Arc;

use roomcast_adapter::cluster::Bus;
use roomcast_adapter::conformance::TestCluster;
use roomcast_adapter::conformance_suite;
use roomcast_adapter::nats::{NatsBus, NatsConfig};
use support::{Kind, cluster_over};

async fn nats() -> TestCluster {
    cluster_over(Kind::Nats, |url, prefix| {
        let mut config = NatsConfig::new(url);
        config.prefix = prefix.to_owned();
        Arc::new(NatsBus::new(&config).expect("a good configuration")) as Arc<dyn Bus>
    })
    .await
}

conformance_suite!(over_nats, nats);
