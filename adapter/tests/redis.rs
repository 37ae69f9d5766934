//! The bus over Redis against real servers: one, a master behind Sentinels, a cluster.
#![cfg(feature = "redis")]
#![allow(unreachable_pub, reason = "the support module is shared")]

#[path = "redis/cluster.rs"]
mod cluster;
#[path = "redis/sentinel.rs"]
mod sentinel;
mod support;
#[path = "redis/tls.rs"]
mod tls;

use std::{sync::Arc, time::Duration};

use roomcast_adapter::{
    cluster::{Bus, BusError, BusSink, BusState},
    redis::{RedisBus, RedisConfig},
};
use support::{DEADLINE, Kind, Recorder, Server, publication, subject, suite::Maker};

fn config(url: &str, prefix: &str, timeout: Duration) -> RedisConfig {
    let mut config = RedisConfig::new(url);
    config.prefix = prefix.to_owned();
    config.link.connect_timeout = timeout;
    config.link.publish_timeout = timeout;
    config.link.keepalive_interval = timeout;
    config
}

fn maker() -> Maker {
    maker_of(Kind::Redis)
}

fn maker_of(kind: Kind) -> Maker {
    let bus = |url: &str, prefix: &str, timeout| -> Result<Arc<dyn Bus>, BusError> {
        Ok(Arc::new(RedisBus::new(&config(url, prefix, timeout))?))
    };
    Maker { kind, bus }
}

bus_suite!(maker());

/// Only the subscribing connection is killed: the bus notices, and is whole again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn subscribing_connection_killed() {
    let server = Server::own(Kind::Redis, &[]);
    let sink = Recorder::new();
    let bus =
        RedisBus::new(&config(&server.url(), "p", Duration::from_secs(2))).expect("a good configuration");
    bus.start(Arc::clone(&sink) as Arc<dyn BusSink>).await.expect("the server is there");
    for round in 0..5 {
        bus.subscribe(vec![subject("room/a")]).await.expect("subscribed");
        server.redis_command("CLIENT KILL TYPE pubsub");
        sink.state(2 * round + 1, BusState::Down, DEADLINE).await;
        sink.state(2 * round + 2, BusState::Up, DEADLINE).await;
    }
    bus.subscribe(vec![subject("room/a")]).await.expect("subscribed");
    bus.publish(vec![publication("room/a", "after")]).await.expect("sent");
    support::eventually(DEADLINE, "message", || sink.count() == 1).await;
    assert_eq!(bus.stats().outages, 5);
}

/// A user that may not subscribe or publish is told so.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn missing_permissions_are_refusals() {
    let server = Server::own(Kind::Redis, &[]);
    server.redis_command("ACL SETUSER limited on >secret resetchannels &good:room/a +@all");
    let url = server.url_with("limited:secret");
    let bus = RedisBus::new(&config(&url, "good", Duration::from_secs(2))).expect("a good configuration");
    let sink = Recorder::new();
    bus.start(Arc::clone(&sink) as Arc<dyn BusSink>).await.expect("the server is there");
    bus.subscribe(vec![subject("room/a")]).await.expect("subscribed");
    let error = bus.publish(vec![publication("room/b", "x")]).await.expect_err("not allowed");
    assert!(matches!(error, BusError::Refused(_)), "{error}");
    let error = bus.subscribe(vec![subject("room/b")]).await.expect_err("not allowed");
    assert!(matches!(error, BusError::Refused(_)), "{error}");
    assert_eq!(bus.stats().refused, 1);
}
