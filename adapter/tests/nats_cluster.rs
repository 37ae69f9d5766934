//! The bus over the servers of a NATS cluster: what stands when a subscription is confirmed, and what happens when
//! servers die, hang or cannot be reached.
#![cfg(feature = "nats")]
#![allow(unreachable_pub, reason = "the support module is shared")]

mod support;

use std::{
    net::TcpListener,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use roomcast_adapter::{
    cluster::{Bus, BusSink, BusState},
    nats::{NatsBus, NatsConfig},
};
use support::{DEADLINE, Recorder, eventually, nats::NatsCluster, publication, subject, unique};
use tokio::task::JoinHandle;

/// The times that the tests of faults want short.
const SHORT: Duration = Duration::from_millis(500);

fn config(url: &str, prefix: &str) -> NatsConfig {
    let mut config = NatsConfig::new(url);
    config.prefix = prefix.to_owned();
    config.link.publish_timeout = SHORT;
    config.link.keepalive_interval = SHORT;
    config.link.subscribe_timeout = 2 * SHORT;
    config
}

async fn started(config: &NatsConfig) -> (Arc<NatsBus>, Arc<Recorder>) {
    let bus = Arc::new(NatsBus::new(config).expect("a good configuration"));
    let sink = Recorder::new();
    bus.start(Arc::clone(&sink) as Arc<dyn BusSink>).await.expect("the servers are there");
    (bus, sink)
}

/// What is published at any server right after a subscription was confirmed arrives. Without the fences across servers
/// this fails within a few rounds.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn subscriptions_stand_at_every_server() {
    const ROUNDS: usize = 300;
    const BATCH: usize = 20;
    let (cluster, prefix) = (NatsCluster::shared(), unique());
    let (subscriber, sink) = started(&config(&cluster.url(0), &prefix)).await;
    let (second, _) = started(&config(&cluster.url(1), &prefix)).await;
    let (third, _) = started(&config(&cluster.url(2), &prefix)).await;
    let mut took = Vec::new();
    for round in 0..ROUNDS {
        let names: Vec<_> = (0..BATCH).map(|n| format!("room/{round}-{n}")).collect();
        let began = Instant::now();
        subscriber.subscribe(names.iter().map(subject).collect()).await.expect("subscribed");
        took.push(began.elapsed());
        let publisher = [&second, &third][round % 2];
        let last = names.last().expect("a name");
        publisher.publish(vec![publication(last, "x")]).await.expect("published");
    }
    took.sort();
    eprintln!(
        "subscriptions at three servers: median {:?}, longest {:?}",
        took[ROUNDS / 2],
        took[ROUNDS - 1]
    );
    // What was lost would have come before this.
    second.publish(vec![publication("room/0-0", "end")]).await.expect("published");
    third.publish(vec![publication("room/0-0", "end")]).await.expect("published");
    eventually(DEADLINE, "ends", || sink.on("room/0-0").len() == 2).await;
    assert_eq!(sink.count(), ROUNDS + 2, "something was lost");
    assert_eq!(subscriber.stats().uncovered, 0);
}

/// Publishes numbers to the room until it is stopped.
struct Talker {
    stop: Arc<AtomicBool>,
    task: JoinHandle<Said>,
}

/// What a talker published.
struct Said {
    name: &'static str,
    /// What was confirmed, and when it was begun.
    accepted: Vec<(u64, Instant)>,
    refused: u64,
}

impl Talker {
    fn start(name: &'static str, bus: Arc<NatsBus>) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let task = tokio::spawn(async move {
            let mut said = Said { name, accepted: Vec::new(), refused: 0 };
            let mut pace = tokio::time::interval(Duration::from_millis(1));
            for number in 0.. {
                pace.tick().await;
                if stopped.load(Ordering::Relaxed) {
                    break;
                }
                let began = Instant::now();
                match bus.publish(vec![publication("room", format!("{name} {number}"))]).await {
                    Ok(()) => said.accepted.push((number, began)),
                    Err(_) => said.refused += 1,
                }
            }
            said
        });
        Self { stop, task }
    }

    async fn stop(self) -> Said {
        self.stop.store(true, Ordering::Relaxed);
        self.task.await.expect("it talked")
    }
}

impl Said {
    /// What was accepted after a time.
    fn after(&self, since: Instant) -> Vec<u64> {
        self.accepted.iter().filter(|(_, began)| *began > since).map(|(number, _)| *number).collect()
    }

    fn all(&self) -> Vec<u64> {
        self.accepted.iter().map(|(number, _)| *number).collect()
    }

    /// What of this a sink heard. Nothing is heard twice, and all in order.
    fn heard(&self, sink: &Recorder) -> Vec<u64> {
        let said = sink.on("room").into_iter().filter_map(|payload| {
            let text = String::from_utf8(payload.to_vec()).expect("text");
            text.strip_prefix(self.name)?.trim().parse().ok()
        });
        let heard: Vec<u64> = said.collect();
        assert!(heard.is_sorted_by(|a, b| a < b), "{} was heard twice or out of order", self.name);
        heard
    }

    /// Waits until a sink heard all these.
    async fn arrives(&self, numbers: &[u64], sink: &Recorder) {
        let Some(last) = numbers.last() else { panic!("{} said nothing", self.name) };
        eventually(DEADLINE, "last message", || self.heard(sink).last() >= Some(last)).await;
        let heard: std::collections::HashSet<u64> = self.heard(sink).into_iter().collect();
        let lost: Vec<_> = numbers.iter().filter(|number| !heard.contains(number)).collect();
        assert!(lost.is_empty(), "lost of {}: {lost:?}", self.name);
    }
}

/// Three nodes, each told of another server only, that all talk in a room; then a server fails. Gives the cluster back with
/// what the others subscribe with.
async fn one_of_three_fails(fault: &str, fail: impl Fn(&mut NatsCluster)) -> (NatsCluster, Arc<NatsBus>) {
    let (mut cluster, prefix) = (NatsCluster::own(&[]), unique());
    let mut nodes = Vec::new();
    for n in 0..3 {
        let (bus, sink) = started(&config(&cluster.url(n), &prefix)).await;
        bus.subscribe(vec![subject("room")]).await.expect("subscribed");
        nodes.push((bus, sink));
    }
    let [(first, at_first), (second, at_second), (third, at_third)] =
        <[_; 3]>::try_from(nodes).unwrap_or_else(|_| panic!("three"));
    let talk = |name, bus: &Arc<NatsBus>| Talker::start(name, Arc::clone(bus));
    let talkers = [talk("first", &first), talk("second", &second), talk("third", &third)];
    eventually(DEADLINE, "talk", || at_third.count() > 100).await;

    let began = Instant::now();
    fail(&mut cluster);
    // A join on another node does not fail meanwhile.
    let joiner = Arc::clone(&first);
    let joined =
        tokio::spawn(
            async move { joiner.subscribe(vec![subject("other room")]).await.map(|()| began.elapsed()) },
        );
    let down = at_second.state(1, BusState::Down, DEADLINE).await;
    let up = at_second.state(2, BusState::Up, DEADLINE).await;
    second.subscribe(vec![subject("room")]).await.expect("subscribed");
    let again = Instant::now();
    let joined = joined.await.expect("no panic").expect("subscribed");
    let heard = at_second.count();
    eventually(DEADLINE, "talk", || at_second.count() > heard + 200).await;
    let [first_said, second_said, third_said] =
        <[_; 3]>::try_from(futures_util::future::join_all(talkers.map(Talker::stop)).await)
            .unwrap_or_else(|_| panic!("three"));
    eprintln!(
        "recovery: {fault} down_ms={} up_ms={} refused={} other_join_ms={}",
        (down - began).as_millis(),
        (up - began).as_millis(),
        second_said.refused,
        joined.as_millis(),
    );

    for sink in [&at_first, &at_third] {
        assert_eq!(sink.states(), [BusState::Up], "a node on another server noticed");
        first_said.arrives(&first_said.all(), sink).await;
        third_said.arrives(&third_said.all(), sink).await;
        second_said.arrives(&second_said.after(up), sink).await;
    }
    for said in [&first_said, &second_said, &third_said] {
        said.arrives(&said.after(again), &at_second).await;
    }
    assert_eq!((first_said.refused, third_said.refused), (0, 0));
    assert_eq!(at_second.states(), [BusState::Up, BusState::Down, BusState::Up]);
    (cluster, first)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_server_is_killed() {
    let (mut cluster, first) = one_of_three_fails("killed", |cluster| cluster.servers[1].kill()).await;
    // Back again, it is asked again: while it hangs, a subscription is confirmed late.
    cluster.servers[1].restart();
    let until = Instant::now() + DEADLINE;
    for round in 0.. {
        assert!(Instant::now() < until, "the server that came back is not asked");
        cluster.servers[1].pause();
        let began = Instant::now();
        first.subscribe(vec![subject(format!("round {round}"))]).await.expect("subscribed");
        let took = began.elapsed();
        cluster.servers[1].resume();
        if took >= SHORT {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert!(first.stats().uncovered >= 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_server_hangs() {
    let (cluster, first) = one_of_three_fails("hung", |cluster| cluster.servers[1].pause()).await;
    assert!(first.stats().uncovered >= 1);
    // It was given up: the next does not wait for it.
    let began = Instant::now();
    first.subscribe(vec![subject("one more")]).await.expect("subscribed");
    assert!(began.elapsed() < SHORT / 2, "{:?}", began.elapsed());
    cluster.servers[1].resume();
}

/// A listener that takes connections and says nothing.
fn silent_listener() -> (TcpListener, String) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("bound").to_string();
    (listener, address)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dead_and_hung_servers_in_the_list_do_not_hold_up() {
    let cluster = NatsCluster::shared();
    let (listener, silent) = silent_listener();
    let (gone, dead) = silent_listener();
    drop(gone);
    for (list, limit) in
        [(dead.clone(), SHORT), (silent.clone(), 2 * SHORT), (format!("{dead},{silent}"), 2 * SHORT)]
    {
        let began = Instant::now();
        let url = format!("nats://{},{}", list.replace(',', ",nats://"), cluster.url(0));
        let (bus, _) = started(&config(&url, &unique())).await;
        let took = began.elapsed();
        eprintln!("connected past {list} after {took:?}");
        // Of five seconds for connecting.
        assert!(took < limit, "{took:?}");
        bus.subscribe(vec![subject("room")]).await.expect("subscribed");
    }
    drop(listener);
}

/// Servers that announce addresses which cannot be reached from here, as behind a NAT.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn announced_addresses_that_cannot_be_reached() {
    let listeners: Vec<_> = (0..3).map(|_| silent_listener()).collect();
    let cluster = NatsCluster::own_each(|n| vec!["--client_advertise".to_owned(), listeners[n].1.clone()]);
    let began = Instant::now();
    let (bus, _) = started(&config(&cluster.url(0), &unique())).await;
    eprintln!("connected without the announced servers after {:?}", began.elapsed());
    assert!(began.elapsed() < 3 * SHORT, "{:?}", began.elapsed());
    let began = Instant::now();
    for round in 0..20 {
        bus.subscribe(vec![subject(format!("round {round}"))]).await.expect("subscribed");
    }
    assert!(began.elapsed() < SHORT, "each waited: {:?}", began.elapsed());
    eventually(DEADLINE, "count", || bus.stats().uncovered == 3).await;
    assert_eq!(bus.stats().outages, 0);
}

/// Prints what a subscription takes, with and without probes. Run by hand: `--ignored --nocapture figures`.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "prints figures"]
async fn figures() {
    const ROUNDS: usize = 1_000;
    let alone = support::Server::shared(support::Kind::Nats);
    for (probes, url) in [(0, alone.url()), (2, NatsCluster::shared().url(0))] {
        let (bus, _) = started(&config(&url, &unique())).await;
        for batch in [1, 100] {
            let mut took = Vec::new();
            for round in 0..ROUNDS {
                let names = (0..batch).map(|n| subject(format!("room/{batch}-{round}-{n}"))).collect();
                let began = Instant::now();
                bus.subscribe(names).await.expect("subscribed");
                took.push(began.elapsed());
            }
            took.sort();
            let (median, most, longest) = (took[ROUNDS / 2], took[ROUNDS * 99 / 100], took[ROUNDS - 1]);
            eprintln!(
                "{probes} probes, {batch} subjects: median {median:?}, 99 % {most:?}, longest {longest:?}"
            );
        }
    }
}
