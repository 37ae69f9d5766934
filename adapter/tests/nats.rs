//! The bus over NATS against a real NATS server.
#![cfg(feature = "nats")]
#![allow(unreachable_pub, reason = "the support module is shared")]

mod support;

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use roomcast_adapter::{
    cluster::{Bus, BusError, BusSink, BusState},
    nats::{NatsBus, NatsConfig},
};
use support::{DEADLINE, Kind, Recorder, Server, eventually, publication, subject, suite::Maker};

fn config(url: &str, prefix: &str, timeout: Duration) -> NatsConfig {
    let mut config = NatsConfig::new(url);
    config.prefix = prefix.to_owned();
    config.link.connect_timeout = timeout;
    config.link.publish_timeout = timeout;
    config.link.keepalive_interval = timeout;
    config
}

fn maker() -> Maker {
    let bus = |url: &str, prefix: &str, timeout| -> Result<Arc<dyn Bus>, BusError> {
        Ok(Arc::new(NatsBus::new(&config(url, prefix, timeout))?))
    };
    Maker { kind: Kind::Nats, bus }
}

bus_suite!(maker());

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn token_in_url_and_second_server() {
    let server = Server::own(Kind::Nats, &["--auth", "to,ken"]);
    let unreachable = "nats://127.0.0.1:1";
    let url = format!("{unreachable},{}", server.url_with("to%2Cken"));
    let bus = NatsBus::new(&config(&url, "p", Duration::from_secs(5))).expect("a good configuration");
    bus.start(Recorder::new()).await.expect("the second server is there");
    bus.ping().await.expect("a round trip");
}

/// A user that may not subscribe or publish is told so.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn missing_permissions_are_refusals() {
    let file = std::env::temp_dir().join(format!("roomcast-nats-{}.conf", support::unique()));
    let permissions = "authorization { users = [ { user: limited, password: secret, permissions: { \
        publish: [\"good.room.a\", \"good.%inbox.>\"], subscribe: [\"good.room.a\", \"good.%inbox.>\"] } } ] }";
    std::fs::write(&file, permissions).expect("a temporary file");
    let server = Server::own(Kind::Nats, &["--config", &file.to_string_lossy()]);
    let url = server.url_with("limited:secret");
    let bus = NatsBus::new(&config(&url, "good", Duration::from_secs(5))).expect("a good configuration");
    let sink = Recorder::new();
    bus.start(Arc::clone(&sink) as Arc<dyn BusSink>).await.expect("the server is there");
    bus.subscribe(vec![subject("room/a")]).await.expect("subscribed");
    bus.publish(vec![publication("room/a", "x")]).await.expect("sent");
    eventually(DEADLINE, "message", || sink.count() == 1).await;
    let error = bus.publish(vec![publication("room/b", "x")]).await.expect_err("not allowed");
    assert!(matches!(error, BusError::Refused(_)), "{error}");
    let error = bus.subscribe(vec![subject("room/b")]).await.expect_err("not allowed");
    assert!(matches!(error, BusError::Refused(_)), "{error}");
    let _ = std::fs::remove_file(file);
}

/// A server gives a node up that does not take its messages. The node notices, begins anew, and can be used again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_is_too_slow_for_the_server() {
    let file = std::env::temp_dir().join(format!("roomcast-nats-{}.conf", support::unique()));
    std::fs::write(&file, "max_pending: 1MB\nwrite_deadline: \"200ms\"\n").expect("a temporary file");
    let server = Server::own(Kind::Nats, &["--config", &file.to_string_lossy()]);
    let _ = std::fs::remove_file(file);
    let (url, prefix) = (server.url(), support::unique());
    let slow = Arc::new(AtomicBool::new(true));
    let slows = Arc::clone(&slow);
    let sink = Recorder::calling(move |_, _| {
        while slows.load(Ordering::Relaxed) {
            std::thread::sleep(Duration::from_millis(1));
        }
    });
    let mut takes_little = config(&url, &prefix, DEADLINE);
    takes_little.link.max_inbound = 1024 * 1024;
    let subscriber = NatsBus::new(&takes_little).expect("a good configuration");
    subscriber.start(Arc::clone(&sink) as Arc<dyn BusSink>).await.expect("the server is there");
    subscriber.subscribe(vec![subject("room/a")]).await.expect("subscribed");
    let publisher = NatsBus::new(&config(&url, &prefix, DEADLINE)).expect("a good configuration");
    publisher.start(Recorder::new()).await.expect("the server is there");
    for _ in 0..40 {
        publisher.publish(vec![publication("room/a", vec![b'x'; 900 * 1024])]).await.expect("sent");
    }
    slow.store(false, Ordering::Relaxed);
    sink.state(1, BusState::Down, DEADLINE).await;
    sink.state(2, BusState::Up, DEADLINE).await;
    // The server closes the connection and says nothing of the reason.
    assert_eq!((subscriber.stats().outages, subscriber.stats().lost), (1, 0));
    subscriber.subscribe(vec![subject("room/a")]).await.expect("subscribed");
    publisher.publish(vec![publication("room/a", "after")]).await.expect("sent");
    eventually(DEADLINE, "message", || sink.on("room/a").iter().any(|payload| payload == "after")).await;
}
