//! The conformance suite over a cluster of three nodes on a real Redis.
#![cfg(all(feature = "conformance", feature = "redis"))]
#![allow(unreachable_pub, reason = "the support module is shared")]

mod support;

use std::sync::Arc;

use roomcast_adapter::cluster::Bus;
use roomcast_adapter::conformance::TestCluster;
use roomcast_adapter::conformance_suite;
use roomcast_adapter::redis::{RedisBus, RedisConfig};
use support::{Kind, cluster_over};

async fn redis() -> TestCluster {
    cluster_over(Kind::Redis, |url, prefix| {
        let mut config = RedisConfig::new(url);
        config.prefix = prefix.to_owned();
        Arc::new(RedisBus::new(&config).expect("a good configuration")) as Arc<dyn Bus>
    })
    .await
}

conformance_suite!(over_redis, redis);
