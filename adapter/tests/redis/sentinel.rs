//! A master that Sentinels know.

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpListener},
    sync::{
        Arc,
        atomic::{AtomicU16, Ordering},
    },
    time::{Duration, Instant},
};

use roomcast_adapter::{
    cluster::{Bus, BusError, BusState},
    redis::RedisBus,
};

use crate::bus_suite;

use super::{
    config, maker_of,
    support::{
        self, DEADLINE, Kind, Recorder, Server, publication,
        redis::{SERVICE, SentinelSet, command},
        subject,
        traffic::Traffic,
    },
};

bus_suite!(maker_of(Kind::RedisBySentinel); order, subscriptions_stand, many_subscriptions, unsubscribing, closing);

const TIMEOUT: Duration = Duration::from_secs(2);

fn bus(url: &str) -> Arc<RedisBus> {
    Arc::new(RedisBus::new(&config(url, "p", TIMEOUT)).expect("a good configuration"))
}

/// The master dies; the Sentinels promote a replica.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_master_that_died_is_replaced() {
    let mut set = SentinelSet::own(1);
    let (publisher, subscriber) = (bus(&set.url()), bus(&set.url()));
    let traffic = Traffic::start(4, publisher.clone(), subscriber.clone()).await;
    let (at, before) = (Instant::now(), traffic.stood());
    set.redis[0].kill();
    traffic.recovered(before).await;
    assert_eq!((publisher.stats().outages, subscriber.stats().outages), (1, 1));
    traffic.end("redis-sentinel-master-killed", at).await;
}

/// A Sentinel that says what it is told to say. Ends with the process.
fn sentinel(master: Arc<AtomicU16>) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("bound");
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { return };
            let port = master.load(Ordering::SeqCst).to_string();
            let answer = format!("*2\r\n$9\r\n127.0.0.1\r\n${}\r\n{port}\r\n", port.len());
            // One question for each connection.
            if matches!(stream.read(&mut [0; 1024]), Ok(1..)) {
                let _ = stream.write_all(answer.as_bytes());
            }
        }
    });
    address
}

/// A master that became a replica keeps its connections, and answers: it is left, although nothing broke.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_master_that_was_demoted_is_left() {
    let (first, second) = (Server::own(Kind::Redis, &[]), Server::own(Kind::Redis, &[]));
    let master = Arc::new(AtomicU16::new(first.port));
    // One that hangs and one that is dead hold up nobody.
    let silent = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let hosts = format!("{},127.0.0.1:1,{}", silent.local_addr().expect("bound"), sentinel(master.clone()));
    let url = format!("redis-sentinel://{hosts}/?sentinelServiceName={SERVICE}");
    let mut config = config(&url, "p", TIMEOUT);
    config.link.keepalive_interval = Duration::from_millis(100);
    let buses = [(); 2].map(|()| Arc::new(RedisBus::new(&config).expect("a good configuration")));
    let [publisher, subscriber] = buses;
    let began = Instant::now();
    let traffic = Traffic::start(4, publisher.clone(), subscriber.clone()).await;
    assert!(began.elapsed() < TIMEOUT, "{:?}", began.elapsed());

    let (at, before) = (Instant::now(), traffic.stood());
    master.store(second.port, Ordering::SeqCst);
    command(first.port, &["REPLICAOF", "127.0.0.1", &second.port.to_string()]);
    support::eventually(DEADLINE, "outage of both", || {
        publisher.stats().outages == 1 && subscriber.stats().outages == 1
    })
    .await;
    traffic.recovered(before).await;
    let clients = command(first.port, &["CLIENT", "LIST"]).concat();
    assert!(!clients.contains("name=roomcast"), "somebody stayed: {clients}");
    traffic.end("redis-sentinel-master-demoted", at).await;
}

/// A Sentinel may name a server that is not a master yet: it is not taken, and asked for again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_is_not_taken() {
    let master = Server::own(Kind::Redis, &[]);
    let replica = Server::own(Kind::Redis, &["--replicaof", "127.0.0.1", &master.port.to_string()]);
    let named = Arc::new(AtomicU16::new(replica.port));
    for server in [&master, &replica] {
        // The rights that the manual names.
        let rights = "ACL SETUSER node on >s3cret resetchannels &p:* -@all +hello +ping +role +publish +subscribe +unsubscribe";
        server.redis_command(rights);
    }
    let url =
        format!("redis-sentinel://node:s3cret@{}/?sentinelServiceName={SERVICE}", sentinel(named.clone()));
    let error = bus(&url).start(Recorder::new()).await.expect_err("a replica");
    assert!(matches!(&error, BusError::Unavailable(text) if text.contains("not a master")), "{error}");
    named.store(master.port, Ordering::SeqCst);
    let (bus, sink) = (bus(&url), Recorder::new());
    bus.start(sink.clone()).await.expect("a master");
    bus.subscribe(vec![subject("room/a")]).await.expect("subscribed");
    bus.publish(vec![publication("room/a", "x")]).await.expect("sent");
    support::eventually(DEADLINE, "message", || sink.count() == 1).await;
    assert_eq!(sink.states(), [BusState::Up]);
    bus.close().await;
    master.redis_command("ACL SETUSER node -role");
    let bus = self::bus(&url);
    let error = bus.start(Recorder::new()).await.expect_err("a right is missing");
    assert!(matches!(&error, BusError::Refused(text) if text.contains("role")), "{error}");
}

/// What is wrong is told: no such service, a password that Sentinel wants, a Sentinel that is taken for a Redis.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn mistakes_are_told() {
    let lines = ["sentinel monitor main 127.0.0.1 1 1", "requirepass hunter2"];
    let sentinel = Server::own(Kind::Sentinel, &lines);
    let url =
        |query: &str| format!("redis-sentinel://127.0.0.1:{}/?sentinelServiceName={query}", sentinel.port);
    for (url, kind, told) in [
        (url("other&sentinelPassword=hunter2"), "broker_unavailable", "no master of the name"),
        (url("main"), "broker_refused", "NOAUTH"),
        (url("main&sentinelPassword=hunter3"), "broker_refused", "WRONGPASS"),
        (
            format!("redis://:hunter2@127.0.0.1:{}", sentinel.port),
            "broker_configuration",
            "redis-sentinel://",
        ),
    ] {
        let error = bus(&url).start(Recorder::new()).await.expect_err("a mistake");
        assert_eq!(error.code(), kind, "{error}");
        assert!(error.to_string().contains(told) && !error.to_string().contains("hunter"), "{error}");
    }
}
