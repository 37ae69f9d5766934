//! A publisher and a subscriber through a fault, and what became of every message.

use std::{
    collections::HashSet,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use bytes::Bytes;
use parking_lot::Mutex;
use roomcast_adapter::cluster::{Backlog, Bus, BusSink, BusState, Subject};
use tokio::{sync::Notify, task::JoinHandle};

use super::{DEADLINE, Recorder, eventually, publication, subject};

/// A subscriber that does as the cluster does: whenever the bus is up, it subscribes to everything again.
struct Follower {
    sink: Arc<Recorder>,
    stands: Mutex<Vec<Instant>>,
    up: Notify,
}

impl Follower {
    /// Starts a bus, and follows it without end.
    async fn start(bus: Arc<dyn Bus>, rooms: Vec<Subject>) -> (Arc<Self>, JoinHandle<()>) {
        let follower = Arc::new(Self { sink: Recorder::new(), stands: Mutex::default(), up: Notify::new() });
        bus.start(Arc::clone(&follower) as Arc<dyn BusSink>).await.expect("the servers are there");
        let following = Arc::clone(&follower);
        let task = tokio::spawn(async move {
            loop {
                following.up.notified().await;
                while bus.subscribe(rooms.clone()).await.is_err() {
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
                following.stands.lock().push(Instant::now());
            }
        });
        eventually(DEADLINE, "subscriptions", || follower.last().is_some()).await;
        (follower, task)
    }

    /// When it stood last.
    fn last(&self) -> Option<Instant> {
        self.stands.lock().last().copied()
    }
}

impl BusSink for Follower {
    fn message(&self, subject: &str, payload: Bytes, backlog: Backlog) {
        BusSink::message(&*self.sink, subject, payload, backlog);
    }

    fn state(&self, state: BusState) {
        BusSink::state(&*self.sink, state);
        if state == BusState::Up {
            self.up.notify_one();
        }
    }
}

/// One message.
struct Sent {
    began: Instant,
    ended: Instant,
    accepted: bool,
}

/// Messages that are published one after the other, each to the next of some rooms. Both buses subscribe to all of them,
/// as nodes of a cluster would.
pub struct Traffic {
    rooms: Vec<Subject>,
    followers: [Arc<Follower>; 2],
    sent: Arc<Mutex<Vec<Sent>>>,
    stop: Arc<AtomicBool>,
    publishing: JoinHandle<()>,
    following: [JoinHandle<()>; 2],
}

impl Traffic {
    /// Starts both buses and waits until the first messages have come.
    pub async fn start(rooms: usize, publisher: Arc<dyn Bus>, subscriber: Arc<dyn Bus>) -> Self {
        let rooms: Vec<Subject> = (0..rooms).map(|room| subject(format!("room/{room}"))).collect();
        let (publishers, first) = Follower::start(Arc::clone(&publisher), rooms.clone()).await;
        let (subscribers, second) = Follower::start(subscriber, rooms.clone()).await;
        let (followers, following) = ([subscribers, publishers], [first, second]);
        let (sent, stop) = (Arc::new(Mutex::new(Vec::new())), Arc::new(AtomicBool::new(false)));
        let publishing = {
            let (rooms, sent, stop) = (rooms.clone(), Arc::clone(&sent), Arc::clone(&stop));
            tokio::spawn(async move {
                for number in 0.. {
                    if stop.load(Ordering::Relaxed) {
                        return;
                    }
                    let (began, room) = (Instant::now(), &rooms[number % rooms.len()]);
                    let result = publisher.publish(vec![publication(room, number.to_string())]).await;
                    let accepted = result.is_ok();
                    sent.lock().push(Sent { began, ended: Instant::now(), accepted });
                    // What is refused at once would otherwise be most of it.
                    tokio::time::sleep(Duration::from_millis(if accepted { 0 } else { 2 })).await;
                }
            })
        };
        let traffic = Self { rooms, followers, sent, stop, publishing, following };
        traffic.more(100).await;
        traffic
    }

    /// Waits until so many more were accepted.
    pub async fn more(&self, count: usize) {
        let accepted = || self.sent.lock().iter().filter(|one| one.accepted).count();
        let enough = accepted() + count;
        eventually(3 * DEADLINE, "accepted messages", || accepted() >= enough).await;
    }

    /// How often the subscriptions of both were made to stand.
    pub fn stood(&self) -> usize {
        self.followers.iter().map(|follower| follower.stands.lock().len()).min().unwrap_or(0)
    }

    /// When those of both stood.
    fn stands(&self) -> Instant {
        self.followers.iter().filter_map(|follower| follower.last()).max().expect("they stood")
    }

    /// Waits until the subscriptions stand again that stood `before` times when the fault came. Gaps are told at most once
    /// a second, so they do when none was told for longer.
    pub async fn recovered(&self, before: usize) {
        eventually(3 * DEADLINE, "subscriptions after the fault", || {
            self.stood() > before && self.stands().elapsed() > Duration::from_millis(1_200)
        })
        .await;
        self.more(200).await;
    }

    /// Ends the traffic and judges: what was accepted after the last recovery arrived, nothing came twice, and each room
    /// is in order. Prints what the fault cost.
    pub async fn end(self, fault: &str, at: Instant) {
        self.stop.store(true, Ordering::Relaxed);
        let stands = self.stands();
        self.publishing.await.expect("publishing does not panic");
        let sent = std::mem::take(&mut *self.sent.lock());
        let due: Vec<usize> =
            (0..sent.len()).filter(|n| sent[*n].accepted && sent[*n].began > stands).collect();
        assert!(due.len() >= 100, "only {} messages after the recovery", due.len());
        let number = |payload: &Bytes| -> usize {
            std::str::from_utf8(payload).ok().and_then(|text| text.parse().ok()).expect("a number")
        };
        let last = *due.last().expect("there are some");
        let sink = &self.followers[0].sink;
        eventually(DEADLINE, "last message", || {
            sink.on(&self.rooms[last % self.rooms.len()]).iter().any(|payload| number(payload) == last)
        })
        .await;
        let came: Vec<usize> = sink.messages().iter().map(|(_, payload)| number(payload)).collect();
        let distinct: HashSet<usize> = came.iter().copied().collect();
        assert_eq!(came.len(), distinct.len(), "something came twice");
        let missing: Vec<&usize> = due.iter().filter(|number| !distinct.contains(number)).collect();
        assert!(missing.is_empty(), "accepted after the recovery and lost: {missing:?}");
        for room in &self.rooms {
            assert!(sink.on(room).iter().map(number).is_sorted(), "{room} is out of order");
        }
        self.following.iter().for_each(JoinHandle::abort);

        let since = |then: Instant| then.saturating_duration_since(at).as_millis();
        let refused: Vec<&Sent> = sent.iter().filter(|one| !one.accepted).collect();
        let down = refused.first().map(|one| since(one.ended));
        let up =
            refused.last().and_then(|last| sent.iter().find(|one| one.accepted && one.began > last.began));
        let up = up.map_or(since(stands), |one| since(one.ended).max(since(stands)));
        let lost = (0..sent.len()).filter(|n| sent[*n].accepted && !distinct.contains(n)).count();
        let down = down.map_or_else(|| "-".to_owned(), |down| down.to_string());
        eprintln!("recovery: {fault} down_ms={down} up_ms={up} refused={} lost={lost}", refused.len());
    }
}
