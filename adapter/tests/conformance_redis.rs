//! The conformance suite over three nodes on a real Redis: one server, a master behind Sentinels, and a cluster with
//! sharded publish/subscribe. A cluster with the classic one is smoked.
#![cfg(all(feature = "conformance", feature = "redis"))]
#![allow(unreachable_pub, reason = "the support module is shared")]

mod support;

use std::sync::Arc;

use futures_util::{FutureExt, future::join_all};
use parking_lot::Mutex;
use roomcast_adapter::cluster::Bus;
use roomcast_adapter::conformance::{TestCluster, broadcast, order};
use roomcast_adapter::redis::{PubSub, RedisBus, RedisConfig};
use roomcast_adapter::{conformance_of_one_stream, conformance_suite};
use support::{Kind, cluster_over};

fn bus(url: &str, prefix: &str, pubsub: PubSub) -> Arc<RedisBus> {
    let mut config = RedisConfig::new(url);
    config.prefix = prefix.to_owned();
    config.pubsub = pubsub;
    Arc::new(RedisBus::new(&config).expect("a good configuration"))
}

async fn redis() -> TestCluster {
    cluster_over(Kind::Redis, |url, prefix| bus(url, prefix, PubSub::Auto) as _).await
}

async fn sentinel() -> TestCluster {
    cluster_over(Kind::RedisBySentinel, |url, prefix| bus(url, prefix, PubSub::Auto) as _).await
}

/// Where a message was confirmed it is on its way to every subscriber, and the answer to a ping comes behind it. What was
/// read is delivered in a moment.
async fn sharded() -> TestCluster {
    let buses = Mutex::new(Vec::new());
    let cluster = cluster_over(Kind::RedisCluster, |url, prefix| {
        let bus = bus(url, prefix, PubSub::Auto);
        buses.lock().push(Arc::clone(&bus));
        bus as Arc<dyn Bus>
    });
    let cluster = cluster.await;
    let buses = buses.into_inner();
    cluster.settled_by(move || {
        let buses = buses.clone();
        async move {
            let pinged = join_all(buses.iter().map(|bus| bus.ping())).await;
            pinged.into_iter().for_each(|pinged| pinged.expect("a round trip"));
            while buses.iter().any(|bus| bus.stats().waiting > 0) {
                tokio::task::yield_now().await;
            }
        }
        .boxed()
    })
}

async fn classic() -> TestCluster {
    cluster_over(Kind::RedisCluster, |url, prefix| bus(url, prefix, PubSub::Classic) as _).await
}

conformance_suite!(over_redis, redis);
conformance_of_one_stream!(over_redis_in_one_stream, redis);
conformance_suite!(over_redis_by_sentinel, sentinel);
conformance_of_one_stream!(over_redis_by_sentinel_in_one_stream, sentinel);
conformance_suite!(over_a_redis_cluster, sharded);
conformance_of_one_stream!(over_a_redis_cluster_by_classic_pubsub_in_one_stream, classic);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn over_a_redis_cluster_by_classic_pubsub() {
    let cluster = classic().await;
    broadcast::everybody_gets_a_broadcast_once(&cluster).await;
    cluster.shutdown().await;
    let cluster = classic().await;
    order::emits_of_a_node_to_a_room_arrive_in_order(&cluster).await;
    cluster.shutdown().await;
}
