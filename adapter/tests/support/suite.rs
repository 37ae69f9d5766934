//! What every bus does, tested against a real server. `bus_suite!` makes the tests of one kind.

use std::{
    net::TcpListener,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use bytes::Bytes;
use futures_util::future::join_all;
use roomcast_adapter::cluster::{Bus, BusError, BusSink, BusState};

use super::{DEADLINE, Kind, Recorder, Server, eventually, publication, subject, unique};

/// How a bus of one kind is made: URL, prefix, and the times that the tests want short.
pub struct Maker {
    pub kind: Kind,
    pub bus: MakeBus,
}

type MakeBus = fn(url: &str, prefix: &str, timeout: Duration) -> Result<Arc<dyn Bus>, BusError>;

/// The connect and publish timeout of the tests that wait for it.
const SHORT: Duration = Duration::from_millis(500);

impl Maker {
    async fn started(&self, url: &str, prefix: &str, sink: &Arc<Recorder>) -> Arc<dyn Bus> {
        self.started_with(url, prefix, sink, Duration::from_secs(5)).await
    }

    async fn started_with(
        &self,
        url: &str,
        prefix: &str,
        sink: &Arc<Recorder>,
        timeout: Duration,
    ) -> Arc<dyn Bus> {
        let bus = (self.bus)(url, prefix, timeout).expect("a good configuration");
        bus.start(Arc::clone(sink) as Arc<dyn BusSink>).await.expect("the server is there");
        assert_eq!(sink.states(), [BusState::Up]);
        bus
    }

    /// Two buses on one server, the first of which publishes.
    async fn pair(&self, server: &Server) -> (Arc<dyn Bus>, Arc<dyn Bus>, Arc<Recorder>) {
        let (prefix, sink) = (unique(), Recorder::new());
        let publisher = self.started(&server.url(), &prefix, &Recorder::new()).await;
        let subscriber = self.started(&server.url(), &prefix, &sink).await;
        (publisher, subscriber, sink)
    }
}

/// Across all subjects, on a bus that has one stream.
pub async fn order(maker: Maker) {
    let (sink, sent) = in_turn(maker).await;
    let messages = sink.messages();
    assert_eq!(messages.len(), sent.len());
    for (message, expected) in messages.iter().zip(&sent) {
        assert_eq!(message, expected, "out of order");
    }
}

/// Within each subject, on every bus.
pub async fn order_of_each_subject(maker: Maker) {
    let (sink, sent) = in_turn(maker).await;
    assert_eq!(sink.count(), sent.len());
    for (on, _) in &sent[..5] {
        let expected = sent.iter().filter(|(other, _)| other == on).map(|(_, payload)| payload);
        assert!(sink.on(on).iter().eq(expected), "out of order on {on}");
    }
}

/// Publishes to five subjects in turn, and waits for all of it. What was sent, in its order.
async fn in_turn(maker: Maker) -> (Arc<Recorder>, Vec<(String, Bytes)>) {
    const MESSAGES: usize = 20_000;
    let server = Server::shared(maker.kind);
    let (publisher, subscriber, sink) = maker.pair(&server).await;
    let rooms = ["room/a", "room/b", "room/c", "room/d", "nodes"];
    subscriber.subscribe(rooms.iter().map(subject).collect()).await.expect("subscribed");
    let sent: Vec<(String, Bytes)> =
        (0..MESSAGES).map(|n| (rooms[n % 5].to_owned(), n.to_string().into())).collect();
    let mut publishing = Vec::new();
    let (mut next, mut size) = (0, 1);
    while next < MESSAGES {
        let batch = &sent[next..MESSAGES.min(next + size)];
        next += batch.len();
        size = size % 97 + 1;
        // The calls are in order; nobody waits for the one before.
        let batch = batch.iter().map(|(on, payload)| publication(on, payload.clone()));
        publishing.push(publisher.publish(batch.collect()));
        if publishing.len() == 50 || next == MESSAGES {
            // Awaited from the last, one after the other, which must not matter.
            for publishing in publishing.drain(..).rev() {
                publishing.await.expect("published");
            }
        }
    }
    eventually(DEADLINE, "last message", || sink.count() >= MESSAGES).await;
    (sink, sent)
}

pub async fn subscriptions_stand(maker: Maker) {
    let server = Server::shared(maker.kind);
    let (publisher, subscriber, sink) = maker.pair(&server).await;
    for round in 0..1_000 {
        let name = format!("room/{round}");
        subscriber.subscribe(vec![subject(&name)]).await.expect("subscribed");
        publisher.publish(vec![publication(&name, "x")]).await.expect("published");
    }
    eventually(DEADLINE, "message of every round", || sink.count() >= 1_000).await;
    assert_eq!(sink.count(), 1_000);
}

pub async fn many_subscriptions(maker: Maker) {
    let server = Server::shared(maker.kind);
    let (publisher, subscriber, sink) = maker.pair(&server).await;
    let names: Vec<String> = (0..10_000).map(|n| format!("room/{n}")).collect();
    let began = Instant::now();
    subscriber.subscribe(names.iter().map(subject).collect()).await.expect("subscribed");
    println!("{:?}: 10,000 subscriptions stand after {:?}", maker.kind, began.elapsed());
    publisher.publish(names.iter().map(|name| publication(name, "x")).collect()).await.expect("published");
    eventually(DEADLINE, "message in every room", || sink.count() >= names.len()).await;
    subscriber.unsubscribe(names.iter().map(subject).collect()).await.expect("unsubscribed");
    publisher.publish(names.iter().map(|name| publication(name, "x")).collect()).await.expect("published");
    subscriber.subscribe(vec![subject("end")]).await.expect("subscribed");
    publisher.publish(vec![publication("end", "x")]).await.expect("published");
    eventually(DEADLINE, "end", || !sink.on("end").is_empty()).await;
    subscriber.ping().await.expect("a round trip");
    assert_eq!(sink.count(), names.len() + 1);
}

pub async fn strange_subjects(maker: Maker) {
    let server = Server::shared(maker.kind);
    let (publisher, subscriber, sink) = maker.pair(&server).await;
    let long = format!("room/{}", "y".repeat(5_000));
    let other = format!("room/{}z", "y".repeat(4_999));
    let strange = [
        "",
        "/",
        "//",
        ".",
        "*",
        ">",
        "room/*",
        "room/>",
        "room/a.b",
        "room/a%2Eb",
        "room/\u{1f600}",
        "room/\r\nPUB x 1\r\n",
        "room/ ",
        "room/\0",
        "room/[a-z]?",
        "__keyspace@0__:x",
        "$SYS.REQ",
        "_INBOX.x",
        &long,
        &other,
    ];
    subscriber.subscribe(strange.iter().map(subject).collect()).await.expect("subscribed");
    for name in strange {
        publisher.publish(vec![publication(name, name.to_owned())]).await.expect("published");
        // Neighbours that a wildcard would catch.
        publisher.publish(vec![publication(format!("{name}x"), "wrong")]).await.expect("published");
    }
    eventually(DEADLINE, "message on every subject", || sink.count() >= strange.len()).await;
    publisher.ping().await.expect("a round trip");
    assert_eq!(sink.count(), strange.len(), "{:?}", sink.messages());
    for (name, payload) in sink.messages() {
        assert_eq!(name.as_bytes(), &payload);
    }
}

pub async fn payloads(maker: Maker) {
    let server = Server::shared(maker.kind);
    let (publisher, subscriber, sink) = maker.pair(&server).await;
    subscriber.subscribe(vec![subject("room/a")]).await.expect("subscribed");
    let large = Bytes::from((0..900 * 1024).map(|n: u32| (n * 31 % 251) as u8).collect::<Vec<_>>());
    let sent = [Bytes::new(), large.clone(), Bytes::from_static(b"\r\n+OK\r\n$-1\r\n\xff\0"), large];
    publisher
        .publish(sent.iter().map(|payload| publication("room/a", payload.clone())).collect())
        .await
        .expect("sent");
    eventually(DEADLINE, "payloads", || sink.count() >= sent.len()).await;
    assert!(sink.on("room/a") == sent);
    // One that is too long is refused and harms nothing.
    let max = publisher.max_payload();
    assert!(max >= 1024 * 1024);
    let error = publisher.publish(vec![publication("room/a", vec![0; max + 1])]).await.expect_err("too long");
    assert!(matches!(error, BusError::Refused(_)), "{error}");
    publisher.publish(vec![publication("room/a", "after")]).await.expect("sent");
    eventually(DEADLINE, "message after", || sink.count() > sent.len()).await;
    assert_eq!(sink.states(), [BusState::Up]);
}

pub async fn subscribing_twice(maker: Maker) {
    let server = Server::shared(maker.kind);
    let (publisher, subscriber, sink) = maker.pair(&server).await;
    subscriber.subscribe(vec![subject("room/a"), subject("room/a")]).await.expect("subscribed");
    let both = [subscriber.subscribe(vec![subject("room/a")]), subscriber.subscribe(vec![subject("room/a")])];
    join_all(both).await.into_iter().for_each(|result| result.expect("subscribed"));
    publisher.publish(vec![publication("room/a", "1"), publication("room/a", "2")]).await.expect("sent");
    eventually(DEADLINE, "message", || sink.count() >= 2).await;
    // A second copy would have come before this.
    subscriber.ping().await.expect("a round trip");
    assert_eq!(sink.on("room/a"), ["1", "2"]);
}

pub async fn unsubscribing(maker: Maker) {
    let server = Server::shared(maker.kind);
    let (publisher, subscriber, sink) = maker.pair(&server).await;
    subscriber.subscribe(vec![subject("room/a"), subject("room/b")]).await.expect("subscribed");
    subscriber.unsubscribe(vec![subject("room/a"), subject("never")]).await.expect("unsubscribed");
    publisher.publish(vec![publication("room/a", "no"), publication("room/b", "1")]).await.expect("sent");
    eventually(DEADLINE, "message", || sink.count() >= 1).await;
    // Back again, and once.
    for _ in 0..20 {
        subscriber.subscribe(vec![subject("room/a")]).await.expect("subscribed");
        subscriber.unsubscribe(vec![subject("room/a")]).await.expect("unsubscribed");
    }
    subscriber.subscribe(vec![subject("room/a")]).await.expect("subscribed");
    publisher.publish(vec![publication("room/a", "2"), publication("room/b", "3")]).await.expect("sent");
    eventually(DEADLINE, "messages", || sink.count() >= 3).await;
    subscriber.ping().await.expect("a round trip");
    assert_eq!(sink.on("room/a"), ["2"]);
    assert_eq!(sink.on("room/b"), ["1", "3"]);
}

/// A node that delivers slower than others publish loses nothing, and can publish meanwhile.
pub async fn slow_sink(maker: Maker) {
    const MESSAGES: usize = 40_000;
    let server = Server::shared(maker.kind);
    let prefix = unique();
    let sink = Recorder::calling(|_, _| std::thread::sleep(Duration::from_micros(20)));
    let publisher = maker.started(&server.url(), &prefix, &Recorder::new()).await;
    let subscriber = maker.started(&server.url(), &prefix, &sink).await;
    subscriber.subscribe(vec![subject("room/a"), subject("room/b")]).await.expect("subscribed");
    // A large message leaves the clients with large buffers.
    publisher.publish(vec![publication("room/a", vec![b'x'; 900 * 1024])]).await.expect("sent");
    for chunk in 0..MESSAGES / 500 {
        let numbers = chunk * 500..(chunk + 1) * 500;
        let batch = numbers.map(|n| publication(["room/a", "room/b"][n % 2], n.to_string()));
        publisher.publish(batch.collect()).await.expect("sent");
    }
    let began = Instant::now();
    subscriber.publish(vec![publication("room/c", "x")]).await.expect("sent");
    println!(
        "{:?}: published in {:?} with {} of {MESSAGES} delivered",
        maker.kind,
        began.elapsed(),
        sink.count()
    );
    eventually(DEADLINE * 6, "last message", || sink.count() > MESSAGES).await;
    let expected: Vec<Bytes> = (1..MESSAGES).step_by(2).map(|n| n.to_string().into()).collect();
    assert!(sink.on("room/b") == expected);
    assert_eq!((sink.count(), sink.states()), (MESSAGES + 1, vec![BusState::Up]));
}

/// What a sink spawns runs where the bus was started, and a sink that panics does not end the bus.
pub async fn sinks(maker: Maker) {
    let server = Server::shared(maker.kind);
    let prefix = unique();
    let home = tokio::runtime::Handle::current().id();
    let at_home = Arc::new(AtomicUsize::new(0));
    let seen = Arc::clone(&at_home);
    let sink = Recorder::calling(move |_, payload| {
        assert!(payload != "panic", "the sink panics");
        let seen = Arc::clone(&seen);
        tokio::spawn(async move {
            if tokio::runtime::Handle::current().id() == home {
                seen.fetch_add(1, Ordering::Relaxed);
            }
        });
    });
    let bus = maker.started(&server.url(), &prefix, &sink).await;
    bus.subscribe(vec![subject("room/a")]).await.expect("subscribed");
    bus.publish(vec![publication("room/a", "spawn")]).await.expect("sent");
    eventually(DEADLINE, "spawned task", || at_home.load(Ordering::Relaxed) == 1).await;
    // The link may be gone before its own message is confirmed.
    let _ = bus.publish(vec![publication("room/a", "panic")]).await;
    sink.state(1, BusState::Down, DEADLINE).await;
    sink.state(2, BusState::Up, DEADLINE).await;
    bus.subscribe(vec![subject("room/a")]).await.expect("subscribed");
    bus.publish(vec![publication("room/a", "spawn")]).await.expect("sent");
    eventually(DEADLINE, "spawned task", || at_home.load(Ordering::Relaxed) == 2).await;
}

pub async fn killed_and_restarted(maker: Maker) {
    let mut server = Server::own(maker.kind, &[]);
    let (publisher, subscriber, sink) = maker.pair(&server).await;
    subscriber.subscribe(vec![subject("room/a")]).await.expect("subscribed");
    publisher.publish(vec![publication("room/a", "before")]).await.expect("sent");
    eventually(DEADLINE, "message", || sink.count() == 1).await;

    let killed = Instant::now();
    server.kill();
    let down = sink.state(1, BusState::Down, Duration::from_secs(1)).await;
    eventually(Duration::from_secs(1), "refusal", || {
        futures_util::FutureExt::now_or_never(publisher.publish(vec![publication("room/a", "gap")]))
            .is_some_and(|result| result.is_err())
    })
    .await;
    for _ in 0..100 {
        let began = Instant::now();
        let error =
            subscriber.publish(vec![publication("room/a", "gap")]).await.expect_err("the server is gone");
        assert!(matches!(error, BusError::Unavailable(_)), "{error}");
        assert!(began.elapsed() < Duration::from_millis(50), "not at once: {:?}", began.elapsed());
    }
    assert!(subscriber.subscribe(vec![subject("room/b")]).await.is_err());
    assert!(subscriber.ping().await.is_err());

    let restarted = Instant::now();
    server.restart();
    let running = Instant::now();
    let up = sink.state(2, BusState::Up, Duration::from_secs(5)).await;
    println!(
        "{:?}: down {:?} after the kill; up {:?} after the server answered ({:?} after it was started)",
        maker.kind,
        down - killed,
        up.saturating_duration_since(running),
        up - restarted,
    );
    subscriber.subscribe(vec![subject("room/a")]).await.expect("subscribed");
    eventually(DEADLINE, "publisher", || {
        futures_util::FutureExt::now_or_never(publisher.publish(vec![publication("other", "x")]))
            .is_none_or(|result| result.is_ok())
    })
    .await;
    publisher.publish(vec![publication("room/a", "after")]).await.expect("sent");
    eventually(DEADLINE, "message", || sink.count() >= 2).await;
    subscriber.ping().await.expect("a round trip");
    assert_eq!(sink.on("room/a"), ["before", "after"]);
    assert_eq!(sink.states(), [BusState::Up, BusState::Down, BusState::Up]);
}

pub async fn hung_and_thawed(maker: Maker) {
    let server = Server::own(maker.kind, &[]);
    let (prefix, sink) = (unique(), Recorder::new());
    let bus = maker.started_with(&server.url(), &prefix, &sink, SHORT).await;
    bus.subscribe(vec![subject("room/a")]).await.expect("subscribed");
    server.pause();
    let began = Instant::now();
    let error = bus.publish(vec![publication("room/a", "hung")]).await.expect_err("the server hangs");
    let failed = began.elapsed();
    assert!(matches!(error, BusError::Unavailable(_)), "{error}");
    assert!(failed < SHORT * 2, "{failed:?}");
    let down = sink.state(1, BusState::Down, Duration::from_secs(1)).await - began;
    // Known to be down now: at once.
    let refused = Instant::now();
    assert!(bus.publish(vec![publication("room/a", "hung")]).await.is_err());
    assert!(refused.elapsed() < Duration::from_millis(50));
    server.resume();
    let thawed = Instant::now();
    let up = sink.state(2, BusState::Up, Duration::from_secs(5)).await - thawed;
    println!(
        "{:?}: hung: publish failed after {failed:?}, down after {down:?}, up {up:?} after the thaw",
        maker.kind
    );
    bus.subscribe(vec![subject("room/a")]).await.expect("subscribed");
    bus.publish(vec![publication("room/a", "after")]).await.expect("sent");
    eventually(DEADLINE, "message", || sink.on("room/a").iter().any(|payload| payload == "after")).await;
}

/// A hung server is noticed without traffic, and what is given to it meanwhile is bounded.
pub async fn hung_when_idle(maker: Maker) {
    let server = Server::own(maker.kind, &[]);
    let (prefix, sink) = (unique(), Recorder::new());
    let bus = maker.started_with(&server.url(), &prefix, &sink, SHORT).await;
    server.pause();
    let paused = Instant::now();
    let large = Bytes::from(vec![0; 512 * 1024]);
    let flood: Vec<_> = (0..200).map(|_| bus.publish(vec![publication("room/a", large.clone())])).collect();
    let results = join_all(flood).await;
    assert!(results.iter().all(Result::is_err));
    assert!(paused.elapsed() < SHORT * 2, "{:?}", paused.elapsed());
    let full = results
        .iter()
        .filter(|result| result.as_ref().is_err_and(|error| error.to_string().contains("too much")));
    assert!(full.count() > 50, "the bound was not felt");
    server.resume();
    sink.state(1, BusState::Down, DEADLINE).await;
    sink.state(2, BusState::Up, DEADLINE).await;
    server.pause();
    let paused = Instant::now();
    let down = sink.state(3, BusState::Down, DEADLINE).await;
    println!("{:?}: hung and idle: down after {:?}", maker.kind, down - paused);
    server.resume();
    sink.state(4, BusState::Up, DEADLINE).await;
}

pub async fn unreachable(maker: Maker) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("bound");
    let scheme = if maker.kind == Kind::Redis { "redis" } else { "nats" };
    let url = format!("{scheme}://user:hunter2@{address}");
    // Connects, and nothing ever answers.
    let bus = (maker.bus)(&url, "p", SHORT).expect("a good configuration");
    let began = Instant::now();
    let error = bus.start(Recorder::new()).await.expect_err("nobody answers");
    assert!(began.elapsed() < SHORT * 2, "{:?}", began.elapsed());
    assert_unavailable(&error, &address.to_string());
    // Nobody listens.
    drop(listener);
    let bus = (maker.bus)(&url, "p", Duration::from_secs(5)).expect("a good configuration");
    let began = Instant::now();
    let error = bus.start(Recorder::new()).await.expect_err("nobody listens");
    assert!(began.elapsed() < Duration::from_secs(1), "{:?}", began.elapsed());
    assert_unavailable(&error, &address.to_string());
    // Never started, and says so.
    assert!(bus.publish(vec![publication("room/a", "x")]).await.is_err());
    bus.close().await;
}

fn assert_unavailable(error: &BusError, address: &str) {
    println!("{error}");
    assert!(matches!(error, BusError::Unavailable(_)), "{error}");
    assert!(error.to_string().contains(address) && !error.to_string().contains("hunter2"), "{error}");
}

pub async fn passwords(maker: Maker) {
    let arguments: &[&str] = match maker.kind {
        Kind::Nats => &["--user", "default", "--pass", "se/cret@1"],
        _ => &["--requirepass", "se/cret@1"],
    };
    let server = Server::own(maker.kind, arguments);
    let good = maker.started(&server.url_with("default:se%2Fcret%401"), &unique(), &Recorder::new()).await;
    good.ping().await.expect("a round trip");
    for credentials in ["default:hunter2", "hunter2hunter2:hunter2", ""] {
        let url = if credentials.is_empty() { server.url() } else { server.url_with(credentials) };
        let bus = (maker.bus)(&url, "p", Duration::from_secs(5)).expect("a good configuration");
        let began = Instant::now();
        let error = bus.start(Recorder::new()).await.expect_err("a wrong password");
        println!("{error}");
        assert!(began.elapsed() < Duration::from_secs(2), "{:?}", began.elapsed());
        assert!(matches!(error, BusError::Refused(_)), "{error}");
        assert!(!error.to_string().contains("hunter2"), "{error}");
    }
}

pub async fn closing(maker: Maker) {
    let server = Server::shared(maker.kind);
    let (publisher, subscriber, sink) = maker.pair(&server).await;
    subscriber.subscribe(vec![subject("room/a")]).await.expect("subscribed");
    subscriber.close().await;
    publisher.publish(vec![publication("room/a", "x")]).await.expect("sent");
    assert!(subscriber.publish(vec![publication("room/a", "x")]).await.is_err());
    assert!(subscriber.start(Recorder::new()).await.is_err());
    publisher.ping().await.expect("a round trip");
    // Closed on purpose: no message, and no news.
    assert_eq!((sink.count(), sink.states()), (0, vec![BusState::Up]));
}

/// Prints what publishing and subscriptions cost. Run by hand, in release: `--ignored --nocapture figures`.
pub async fn figures(maker: Maker) {
    const MESSAGES: usize = 200_000;
    const ROOMS: usize = 20_000;
    let server = Server::shared(maker.kind);
    let (publisher, subscriber, sink) = maker.pair(&server).await;
    let names: Vec<_> = (0..ROOMS).map(|n| subject(format!("room/{n}"))).collect();
    let (before, began) = (resident(), Instant::now());
    subscriber.subscribe(names.clone()).await.expect("subscribed");
    let (each, took) = ((resident() - before) / ROOMS, began.elapsed());
    println!("{:?}: {ROOMS} subscriptions in {took:?}, {each} bytes each", maker.kind);
    let payload = Bytes::from(vec![b'x'; 200]);
    for size in [1, 16, 512] {
        let received = sink.count();
        let (count, began) = (if size == 1 { MESSAGES / 20 } else { MESSAGES }, Instant::now());
        for batch in 0..count / size {
            let one = |n: usize| publication(&names[(batch * size + n) % 100], payload.clone());
            publisher.publish((0..size).map(one).collect()).await.expect("sent");
        }
        let published = count as f64 / began.elapsed().as_secs_f64();
        let sent = count / size * size;
        eventually(DEADLINE, "last message", || sink.count() - received >= sent).await;
        let delivered = count as f64 / began.elapsed().as_secs_f64();
        println!(
            "{:?}: batches of {size}: {published:.0} published, {delivered:.0} delivered per second",
            maker.kind
        );
    }
}

/// Resident memory of this process in bytes.
fn resident() -> usize {
    let statm = std::fs::read_to_string("/proc/self/statm").expect("Linux");
    let pages: usize = statm.split(' ').nth(1).and_then(|pages| pages.parse().ok()).expect("a number");
    pages * 4096
}

/// The tests of one kind.
#[macro_export]
macro_rules! bus_suite {
    ($maker:expr; $($test:ident),* $(,)?) => {
        $(
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $test() {
                support::suite::$test($maker).await;
            }
        )*
    };
    ($maker:expr) => {
        $crate::bus_suite!($maker;
            order, order_of_each_subject, subscriptions_stand, many_subscriptions, strange_subjects, payloads, subscribing_twice, unsubscribing,
            slow_sink, sinks, killed_and_restarted, hung_and_thawed, hung_when_idle, unreachable, passwords, closing,
        );

        #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        #[ignore = "prints figures"]
        async fn figures() {
            support::suite::figures($maker).await;
        }
    };
}
