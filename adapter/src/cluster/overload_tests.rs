//! Overload against a node in virtual time, which delivers so much a second and not more.

use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant};

use super::Backlog;
use super::overload::{Overload, Verdict, Work};

const MAX_LAG: Duration = Duration::from_millis(500);
/// What the node writes in a second: bytes, the overhead of packets among them.
const CAPACITY: f64 = 1e9;
/// What it costs to look at a message that is not delivered.
const LOOK: Duration = Duration::from_micros(20);

/// A room that is emitted to at an even pace.
#[derive(Clone, Copy)]
struct Flow {
    room: u64,
    every: Duration,
    recipients: usize,
    bytes: usize,
}

/// What became of a room's messages.
#[derive(Debug, Default, Clone)]
struct Fate {
    delivered: Vec<u32>,
    shed: u32,
    latest: Duration,
}

impl Fate {
    /// Of those that were emitted.
    fn part_delivered(&self) -> f64 {
        let delivered = self.delivered.len() as f64;
        delivered / (delivered + f64::from(self.shed))
    }
}

struct World {
    overload: Overload,
    now: Instant,
    fates: HashMap<u64, Fate>,
    any: u32,
    /// How long tasks wait.
    turn: Duration,
}

impl World {
    fn new() -> Self {
        let overload = Overload::new(MAX_LAG);
        Self { overload, now: Instant::now(), fates: HashMap::new(), any: 0, turn: Duration::ZERO }
    }

    /// Delivers what the flows emit for so long, in the order of arrival, on a node that does one thing at a time.
    fn run(&mut self, flows: &[Flow], length: Duration) {
        let begin = self.now;
        let mut arrivals: Vec<(Instant, Flow, u32)> = Vec::new();
        for flow in flows {
            let count = (length.as_secs_f64() / flow.every.as_secs_f64()) as u32;
            arrivals.extend((0..count).map(|number| (begin + flow.every * number, *flow, number)));
        }
        arrivals.sort_by_key(|(at, flow, _)| (*at, flow.room));
        let mut queue = VecDeque::from(arrivals);
        while let Some((at, flow, number)) = queue.pop_front() {
            self.now = self.now.max(at);
            self.deliver(at, flow, number);
        }
        self.now = self.now.max(begin + length);
    }

    fn deliver(&mut self, arrived_at: Instant, flow: Flow, number: u32) {
        let waited = self.now - arrived_at;
        let work = Work { room: flow.room, recipients: flow.recipients, bytes: flow.bytes };
        let verdict = self.overload.judge(work, Backlog { waited, fill: 0.0 }, self.turn, self.now);
        let fate = self.fates.entry(flow.room).or_default();
        match verdict {
            Verdict::Deliver => {
                fate.delivered.push(number);
                fate.latest = fate.latest.max(waited);
                let bytes = (flow.recipients * (flow.bytes + 256)) as f64;
                self.now += LOOK + Duration::from_secs_f64(bytes / CAPACITY);
            }
            Verdict::ShedRoom | Verdict::ShedAny => {
                fate.shed += 1;
                self.any += u32::from(verdict == Verdict::ShedAny);
                self.now += LOOK;
            }
        }
    }

    fn fate(&self, room: u64) -> Fate {
        self.fates.get(&room).cloned().unwrap_or_default()
    }
}

fn flow(room: u64, per_second: u32, recipients: usize, bytes: usize) -> Flow {
    Flow { room, every: Duration::from_secs(1) / per_second, recipients, bytes }
}

/// Eight times what the node can do.
const TORRENT: Flow = Flow { room: 1, every: Duration::from_micros(100), recipients: 1_000, bytes: 544 };

#[test]
fn a_torrent_is_shed_and_a_small_room_is_late_by_the_bound_at_most() {
    let mut world = World::new();
    let small = flow(2, 50, 5, 100);
    world.run(&[TORRENT, small], Duration::from_secs(20));
    let (large, small) = (world.fate(1), world.fate(2));
    assert_eq!((small.shed, small.delivered.len()), (0, 1_000));
    assert!(small.delivered.is_sorted() && large.delivered.is_sorted());
    // The bound, the time until it counts, and a step of the sharing.
    assert!(small.latest < MAX_LAG * 3 / 2, "{:?}", small.latest);
    assert!(large.shed > 0 && world.any == 0);
    // What can be done is done: a tenth of the messages are all that the node can deliver.
    assert!(large.part_delivered() > 0.07, "{}", large.part_delivered());
}

#[test]
fn what_can_be_delivered_is_not_shed() {
    let mut world = World::new();
    let busy = flow(1, 900, 1_000, 744);
    world.run(&[busy, flow(2, 50, 5, 100)], Duration::from_secs(10));
    assert!(world.fates.values().all(|fate| fate.shed == 0), "{:?}", world.fates.len());
    assert!(!world.overload.is_behind());
}

#[test]
fn rooms_that_want_less_than_their_share_lose_nothing_to_one_that_wants_more() {
    let mut world = World::new();
    // Nine rooms with a twentieth of the node each, and a hundred small ones.
    let middle = (10..19).map(|room| flow(room, 50, 1_000, 744));
    let small = (100..200).map(|room| flow(room, 2, 5, 100));
    let flows: Vec<Flow> = std::iter::once(TORRENT).chain(middle).chain(small).collect();
    world.run(&flows, Duration::from_secs(10));
    assert!(world.fate(1).shed > 0);
    let others: u32 = (10..200).map(|room| world.fate(room).shed).sum();
    assert_eq!(others, 0);
}

#[test]
fn two_torrents_share() {
    let mut world = World::new();
    let other = Flow { room: 3, every: TORRENT.every * 3, ..TORRENT };
    world.run(&[TORRENT, other], Duration::from_secs(20));
    let (one, other) = (world.fate(1).delivered.len() as f64, world.fate(3).delivered.len() as f64);
    // Three to one is what they want; between two times of being behind both have what they want.
    assert!(one / other < 2.0, "{one} and {other}");
}

#[test]
fn when_it_is_over_everything_is_delivered_again() {
    let mut world = World::new();
    world.run(&[TORRENT], Duration::from_secs(3));
    let (shed, before) = (world.fate(1).shed, world.fate(1).delivered.len());
    let calm = Flow { every: TORRENT.every * 20, ..TORRENT };
    world.run(&[calm], Duration::from_secs(1));
    assert!(shed > 0);
    // But for what was behind the torrent.
    assert!(world.fate(1).shed - shed < 50, "{}", world.fate(1).shed - shed);
    assert!(world.fate(1).delivered.len() - before > 400);
}

#[test]
fn a_node_that_was_stopped_sheds_nothing() {
    let mut world = World::new();
    world.run(&[flow(1, 500, 100, 100)], Duration::from_secs(2));
    // A queue full of what came before it was stopped.
    let before = world.now;
    world.now += Duration::from_secs(3);
    (0..200).for_each(|number| world.deliver(before, flow(1, 500, 100, 100), number));
    world.run(&[flow(1, 500, 100, 100)], Duration::from_secs(1));
    assert_eq!(world.fate(1).shed, 0);
}

#[test]
fn when_all_rooms_are_alike_all_are_shed_before_the_lag_grows_without_end() {
    let mut world = World::new();
    // Each on its own is nothing, and there are too many to know them.
    let flows: Vec<Flow> = (0..5_000).map(|room| flow(room, 2, 1_000, 544)).collect();
    world.run(&flows, Duration::from_secs(10));
    assert!(world.any > 0);
    let latest = world.fates.values().map(|fate| fate.latest).max().unwrap();
    assert!(latest < MAX_LAG * 9 / 2, "{latest:?}");
    assert!(world.overload.rooms() <= 128);
}

#[test]
fn a_full_queue_is_as_bad_as_a_late_one() {
    let (mut overload, begin) = (Overload::new(MAX_LAG), Instant::now());
    let work = Work { room: 1, recipients: 1_000, bytes: 1_000 };
    let full = Backlog { waited: Duration::ZERO, fill: 1.0 };
    let mut verdicts = Vec::new();
    for millis in 0..1_000 {
        verdicts.push(overload.judge(work, full, Duration::ZERO, begin + Duration::from_millis(millis)));
    }
    assert!(verdicts.contains(&Verdict::ShedRoom));
    // A room that had nothing gets something.
    let other = Work { room: 2, ..work };
    assert_eq!(overload.judge(other, full, Duration::ZERO, begin + Duration::from_secs(1)), Verdict::Deliver);
}

#[test]
fn a_room_among_thousands_is_known_when_it_is_busy() {
    let mut world = World::new();
    let many = (1_000..6_000).map(|room| flow(room, 1, 5, 100));
    let flows: Vec<Flow> = std::iter::once(TORRENT).chain(many).collect();
    world.run(&flows, Duration::from_secs(5));
    let others: u32 = (1_000..6_000).map(|room| world.fate(room).shed).sum();
    assert_eq!((others, world.any), (0, 0));
    assert!(world.fate(1).shed > 0);
}

#[test]
fn when_connections_are_late_in_writing_only_the_busiest_room_is_shed() {
    let mut world = World::new();
    // Taken in time, and far too much to write.
    let large = flow(1, 50, 5_000, 3_000);
    world.run(&[large, flow(2, 50, 5, 100)], Duration::from_secs(2));
    assert_eq!(world.fate(1).shed, 0);
    world.turn = MAX_LAG * 10;
    world.run(&[large, flow(2, 50, 5, 100)], Duration::from_secs(5));
    assert!(world.fate(1).shed > 200, "{}", world.fate(1).shed);
    assert_eq!((world.fate(2).shed, world.any), (0, 0));
}

#[test]
fn a_flood_that_comes_in_waves_is_told_of_once_in_a_while() {
    let (mut overload, now) = (Overload::new(MAX_LAG), Instant::now());
    let told = (0..30).filter(|second| overload.warns(now + Duration::from_secs(*second))).count();
    assert_eq!(told, 3);
}
