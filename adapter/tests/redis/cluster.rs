//! A cluster: the bus over it, and what happens when slots move and masters die.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use roomcast_adapter::{
    cluster::{Bus, BusError, BusState},
    redis::{PubSub, RedisBus},
};

use crate::bus_suite;

use super::{
    config, maker_of,
    support::{
        self, DEADLINE, Kind, Recorder, Server, publication,
        redis::{RedisCluster, command},
        subject, suite,
        traffic::Traffic,
    },
};

bus_suite!(maker_of(Kind::RedisCluster);
    order_of_each_subject, subscriptions_stand, many_subscriptions, strange_subjects, payloads, subscribing_twice,
    unsubscribing, slow_sink, sinks, closing,
);

const TIMEOUT: Duration = Duration::from_secs(2);

fn buses(cluster: &RedisCluster) -> [Arc<RedisBus>; 2] {
    [(); 2].map(|()| {
        Arc::new(RedisBus::new(&config(&cluster.url(), "p", TIMEOUT)).expect("a good configuration"))
    })
}

/// Slots are moved while messages are published to them: nothing is refused, the link stands, and what was interrupted is
/// told and stands again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn slots_are_followed() {
    let cluster = RedisCluster::own(0);
    let [publisher, subscriber] = buses(&cluster);
    let traffic = Traffic::start(8, publisher.clone(), subscriber.clone()).await;
    let (at, before) = (Instant::now(), traffic.stood());
    for round in 0..3 {
        for room in 0..4 {
            let channel = format!("p:room/{room}");
            let owner = cluster.owner(&channel, 0);
            cluster.move_slot(&cluster.slot(&channel), owner, (owner + 1 + round % 2) % 3);
            traffic.more(20).await;
        }
    }
    traffic.recovered(before).await;
    let gaps = subscriber.stats().gaps;
    assert_eq!((publisher.stats().outages, publisher.stats().refused), (0, 0));
    assert_eq!(subscriber.stats().outages, 0);
    assert!((1..=12).contains(&gaps), "{gaps} gaps for 12 moves");
    traffic.end("redis-cluster-slots-moved", at).await;
}

/// A master becomes a replica by hand and keeps its connections: it is left.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_master_that_was_demoted_is_left() {
    let cluster = RedisCluster::own(3);
    let [publisher, subscriber] = buses(&cluster);
    let traffic = Traffic::start(8, publisher, subscriber).await;
    let owner = cluster.owner("p:room/0", 0);
    let (at, before) = (Instant::now(), traffic.stood());
    assert_eq!(command(cluster.nodes[owner + 3].port, &["CLUSTER", "FAILOVER"]), ["OK"]);
    traffic.recovered(before).await;
    assert_eq!(cluster.owner("p:room/0", owner + 3), owner + 3);
    traffic.end("redis-cluster-failover-by-hand", at).await;
}

/// A master dies; its replica is promoted.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_master_that_died_is_replaced() {
    let mut cluster = RedisCluster::own(3);
    let [publisher, subscriber] = buses(&cluster);
    let traffic = Traffic::start(8, publisher.clone(), subscriber.clone()).await;
    let owner = cluster.owner("p:room/0", 0);
    let (at, before) = (Instant::now(), traffic.stood());
    cluster.nodes[owner].kill();
    let other = (owner + 1) % 3;
    traffic.recovered(before).await;
    assert_eq!(cluster.owner("p:room/0", other), owner + 3);
    assert_eq!((publisher.stats().outages, subscriber.stats().outages), (1, 1));
    traffic.end("redis-cluster-master-killed", at).await;
}

/// Without a replica nobody serves the slots of a dead master: everything is refused, in bounded time, until it is back.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn slots_that_nobody_serves() {
    let mut cluster = RedisCluster::own(0);
    let [bus, _] = buses(&cluster);
    let sink = Recorder::new();
    bus.start(sink.clone()).await.expect("the cluster is there");
    let owner = cluster.owner("p:room/0", 0);
    cluster.nodes[owner].kill();
    sink.state(1, BusState::Down, TIMEOUT).await;
    for _ in 0..100 {
        let began = Instant::now();
        let error = bus.publish(vec![publication("room/0", "x")]).await.expect_err("nobody serves it");
        assert!(matches!(error, BusError::Unavailable(_)), "{error}");
        assert!(began.elapsed() < TIMEOUT, "{:?}", began.elapsed());
    }
    cluster.nodes[owner].restart();
    sink.state(2, BusState::Up, 2 * DEADLINE).await;
    bus.subscribe(vec![subject("room/0")]).await.expect("subscribed");
    bus.publish(vec![publication("room/0", "after")]).await.expect("sent");
    support::eventually(DEADLINE, "message", || sink.count() == 1).await;
}

/// A user with the rights that the manual names can do everything; one that lacks any is told which.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn users_with_few_rights() {
    let cluster = RedisCluster::own(0);
    let rights = "resetchannels &p:* -@all +hello +ping +role +echo +cluster|slots +cluster|info +publish +subscribe \
                  +unsubscribe +spublish +ssubscribe +sunsubscribe";
    let everywhere = |rules: &str| {
        cluster
            .nodes
            .iter()
            .for_each(|node| node.redis_command(&format!("ACL SETUSER node on >s3cret {rules}")));
    };
    everywhere(rights);
    let url = cluster.url().replace("://", "://node:s3cret@");
    let bus = || RedisBus::new(&config(&url, "p", TIMEOUT)).expect("a good configuration");
    let (good, sink) = (bus(), Recorder::new());
    good.start(sink.clone()).await.expect("all rights");
    let rooms: Vec<_> = (0..10).map(|room| subject(format!("room/{room}"))).collect();
    good.subscribe(rooms.clone()).await.expect("subscribed");
    good.publish(rooms.iter().map(|room| publication(room, "x")).collect()).await.expect("sent");
    support::eventually(DEADLINE, "messages", || sink.count() == 10).await;
    good.unsubscribe(rooms.clone()).await.expect("unsubscribed");
    good.ping().await.expect("a round trip");
    assert_eq!(sink.states(), [BusState::Up]);
    good.close().await;
    for missing in ["role", "echo", "cluster|slots", "cluster|info"] {
        everywhere(&format!("-{missing}"));
        let error = bus().start(Recorder::new()).await.expect_err("a right is missing");
        assert!(matches!(&error, BusError::Refused(text) if text.contains(missing)), "{missing}: {error}");
        everywhere(&format!("+{missing}"));
    }
    everywhere("-spublish -ssubscribe");
    let bus = bus();
    bus.start(Recorder::new()).await.expect("only publishing is refused");
    for result in [bus.publish(vec![publication("room/a", "x")]).await, bus.subscribe(rooms).await] {
        assert!(matches!(&result, Err(BusError::Refused(text)) if text.contains("NOPERM")), "{result:?}");
    }
}

/// Seeds that are dead or hang hold up nobody, and a server that is no cluster is named.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn seeds() {
    let silent = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let silent = silent.local_addr().expect("bound");
    let shared = Server::shared(Kind::RedisCluster).url();
    let url = shared.replace("://", &format!("://{silent},127.0.0.1:1,"));
    let bus = RedisBus::new(&config(&url, "p", Duration::from_secs(5))).expect("a good configuration");
    let began = Instant::now();
    bus.start(Recorder::new()).await.expect("two seeds are there");
    assert!(began.elapsed() < Duration::from_secs(1), "{:?}", began.elapsed());

    let server = Server::shared(Kind::Redis);
    let single = server.url().replace("redis://", "redis-cluster://");
    let bus = RedisBus::new(&config(&single, "p", TIMEOUT)).expect("a good configuration");
    let error = bus.start(Recorder::new()).await.expect_err("no cluster");
    assert!(matches!(&error, BusError::Configuration(text) if text.contains("not a node")), "{error}");
}

/// Where it is asked for, classic publish/subscribe is used on a cluster, and has one order.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn classic_has_one_stream() {
    let bus = |url: &str, prefix: &str, timeout| -> Result<Arc<dyn Bus>, BusError> {
        let mut config = config(url, prefix, timeout);
        config.pubsub = PubSub::Classic;
        Ok(Arc::new(RedisBus::new(&config)?))
    };
    suite::order(suite::Maker { kind: Kind::RedisCluster, bus }).await;
}
