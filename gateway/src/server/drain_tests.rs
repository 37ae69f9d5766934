//! Draining in virtual time, with connections that only know how to leave.

use std::collections::VecDeque;
use std::sync::Arc;

use http::{HeaderMap, Uri};
use parking_lot::Mutex;
use roomcast_adapter::{CloseCause, Item};
use roomcast_protocol::engineio::Transport;

use super::*;
use crate::connection::{ConnectionShared, Session};
use crate::namespace::Handshake;

const SECOND: Duration = Duration::from_secs(1);
const PLAN: Plan =
    Plan { delay: SECOND, rate: None, period: Duration::from_secs(10), grace: Duration::from_secs(5) };

/// When connections were told to go, and when the last of them were cut off.
#[derive(Default)]
struct Seen {
    told: Vec<Duration>,
    cut: Vec<Duration>,
}

struct Node {
    io: Io,
    start: Instant,
    seen: Arc<Mutex<Seen>>,
    plan: watch::Sender<Option<Plan>>,
}

impl Node {
    fn new() -> Self {
        Self { io: Io::new(), start: Instant::now(), seen: Arc::default(), plan: watch::Sender::new(None) }
    }

    fn is_open(&self) -> bool {
        self.io
            .engine()
            .admit(None, std::time::Instant::now())
            .inspect(|place| self.io.engine().leave(*place))
            .is_ok()
    }

    /// A connection that needs so long to have its acks written.
    fn connect(&self, settles_after: Duration) {
        let engine = self.io.engine();
        engine.admit(None, std::time::Instant::now()).unwrap();
        let handshake = Handshake::new(&Uri::from_static("/"), &HeaderMap::new(), None, false);
        let shared = engine.shared(handshake, Transport::WebSocket, None);
        engine.sessions.insert(Session { shared: Arc::clone(&shared), commands: None });
        let (io, seen, start) = (self.io.clone(), Arc::clone(&self.seen), self.start);
        tokio::spawn(async move {
            let cause = mail(&shared).await;
            assert_eq!(cause, CloseCause::Draining);
            seen.lock().told.push(start.elapsed());
            let cut = tokio::time::timeout(settles_after, mail(&shared)).await;
            if cut.is_ok() {
                seen.lock().cut.push(start.elapsed());
            }
            io.engine().sessions.remove(shared.id);
        });
    }

    /// Drains by the present plan; the time that it took.
    async fn drain(&self) -> Duration {
        let start = Instant::now();
        drain(&self.io, &mut self.plan.subscribe()).await;
        start.elapsed()
    }
}

/// Waits until the connection is told to end.
async fn mail(shared: &ConnectionShared) -> CloseCause {
    let mut items = VecDeque::new();
    std::future::poll_fn(|cx| shared.mailbox.poll_take(cx, &mut items)).await;
    match items.pop_front() {
        Some(Item::Close(cause)) => cause,
        other => panic!("{other:?}"),
    }
}

#[tokio::test(start_paused = true)]
async fn first_the_delay_then_no_new_clients_then_one_connection_after_the_other() {
    let node = Arc::new(Node::new());
    (0..100).for_each(|_| node.connect(Duration::ZERO));
    node.plan.send_replace(Some(PLAN));
    let draining = tokio::spawn({
        let node = Arc::clone(&node);
        async move { node.drain().await }
    });
    tokio::time::sleep(SECOND / 2).await;
    assert!(node.is_open() && node.seen.lock().told.is_empty());
    assert_eq!(node.io.metrics().draining.get(), 1);
    tokio::time::sleep(SECOND).await;
    assert!(!node.is_open());
    let took = draining.await.unwrap();
    let seen = node.seen.lock();
    assert!(seen.cut.is_empty() && took < 12 * SECOND, "{took:?}");
    // Ten a second, each in its own tenth of one; connections learn of it within a tick of the clock.
    for (number, told) in (0_u32..).zip(&seen.told) {
        let slot = SECOND / 10;
        assert!(
            *told >= SECOND + slot * number && *told <= SECOND + slot * (number + 1) + 2 * LOOK,
            "{number} {told:?}"
        );
    }
    assert_eq!(node.io.metrics().sent_away.of(SentAway::Drain).get(), 100);
}

#[tokio::test(start_paused = true)]
async fn a_node_without_connections_waits_for_nothing() {
    let node = Node::new();
    node.plan.send_replace(Some(Plan { delay: 60 * SECOND, ..PLAN }));
    assert!(node.drain().await < SECOND / 10);
    assert!(!node.is_open());
}

#[tokio::test(start_paused = true)]
async fn acks_under_way_are_waited_for_and_no_longer_than_the_grace() {
    let node = Node::new();
    node.connect(4 * SECOND);
    node.connect(60 * SECOND);
    node.plan.send_replace(Some(Plan { delay: Duration::ZERO, period: Duration::ZERO, ..PLAN }));
    let took = node.drain().await;
    let seen = node.seen.lock();
    assert_eq!((seen.told.len(), seen.cut.len()), (2, 1));
    assert!(took >= 5 * SECOND && took < 6 * SECOND, "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn a_later_plan_goes_on_with_those_who_are_left() {
    let node = Arc::new(Node::new());
    (0..100).for_each(|_| node.connect(Duration::ZERO));
    node.plan.send_replace(Some(Plan { delay: Duration::ZERO, period: 100 * SECOND, ..PLAN }));
    let draining = tokio::spawn({
        let node = Arc::clone(&node);
        async move { node.drain().await }
    });
    tokio::time::sleep(50 * SECOND).await;
    let told = node.seen.lock().told.len();
    assert!((49..=51).contains(&told), "{told}");
    node.plan.send_replace(Some(Plan { period: SECOND, ..PLAN }));
    assert!(draining.await.unwrap() < 52 * SECOND);
    // Each was told once.
    assert_eq!(node.seen.lock().told.len(), 100);
    assert_eq!(node.io.metrics().sent_away.of(SentAway::Drain).get(), 100);
}

#[tokio::test(start_paused = true)]
async fn at_once_is_at_once_whatever_is_waited_for() {
    for after in [SECOND / 2, 5 * SECOND, 12 * SECOND] {
        let node = Arc::new(Node::new());
        (0..100).for_each(|_| node.connect(60 * SECOND));
        node.plan.send_replace(Some(PLAN));
        let draining = tokio::spawn({
            let node = Arc::clone(&node);
            async move { node.drain().await }
        });
        tokio::time::sleep(after).await;
        let nothing = Duration::ZERO;
        node.plan.send_replace(Some(Plan { delay: nothing, rate: None, period: nothing, grace: nothing }));
        let took = draining.await.unwrap();
        assert!(took < after + SECOND, "{took:?} after {after:?}");
        assert_eq!((node.io.connection_count(), node.seen.lock().cut.len()), (0, 100));
    }
}

#[tokio::test(start_paused = true)]
async fn what_follows_has_the_grace_of_the_plan_and_of_later_ones() {
    let plan = watch::Sender::new(Some(PLAN));
    assert!(with_grace(&mut plan.subscribe(), tokio::time::sleep(4 * SECOND)).await);
    assert!(!with_grace(&mut plan.subscribe(), tokio::time::sleep(6 * SECOND)).await);
    let (start, mut plans) = (Instant::now(), plan.subscribe());
    let waiting = tokio::spawn(async move { with_grace(&mut plans, std::future::pending()).await });
    tokio::time::sleep(SECOND).await;
    plan.send_replace(Some(Plan { grace: Duration::ZERO, ..PLAN }));
    assert!(!waiting.await.unwrap() && start.elapsed() < 2 * SECOND);
}
