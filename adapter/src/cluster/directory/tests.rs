//! Any schedule of changes, losses, deaths and arrivals, against the truth.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use proptest::prelude::*;
use proptest::test_runner::RngSeed;

use super::*;
use crate::id::SocketId;

const TIMES: Times = Times { expiry: 5_000, lease: 15_000, vacate_after: 3_000, settle: 2_000 };
const TICK: u64 = 200;
/// The latest of the nodes learns of the others after this long.
const MAX_DELAY: u64 = 1_000;
/// Long enough for everything to come to rest.
const LONG: u64 = 25_000;

struct Peer {
    me: Identity,
    directory: Directory,
    rooms: BTreeMap<String, u32>,
    sockets: BTreeSet<SocketId>,
    /// Every node learns of the others at another time.
    delay: u64,
}

/// When something is known of a node: nodes learn it later, each by its own delay.
#[derive(Clone, Copy, PartialEq)]
enum News {
    Joined(Identity),
    Left(Identity),
    Gone(Identity),
}

#[derive(Default)]
struct Net {
    now: u64,
    peers: BTreeMap<u8, Peer>,
    news: Vec<(u64, News)>,
    /// So many updates get lost.
    lose: u32,
    /// Until then some nodes may not have noticed who is away.
    away_until: u64,
    next_generation: u64,
    next_socket: u32,
    events: Vec<PresenceEvent>,
    /// The sockets of those who died.
    dead: BTreeSet<SocketId>,
    max_bytes: usize,
}

fn tag(number: u8) -> NodeTag {
    NodeTag::from_random([1, 2, number])
}

impl Net {
    fn start(&mut self, number: u8) {
        if self.peers.contains_key(&number) {
            return;
        }
        self.next_generation += 1;
        let me = Identity { tag: tag(number), generation: self.next_generation };
        let directory = Directory::new(me, TIMES);
        let (rooms, sockets, delay) = (BTreeMap::new(), BTreeSet::new(), u64::from(number) * 150);
        self.peers.insert(number, Peer { me, directory, rooms, sockets, delay });
        // A later life of a node ends the one before.
        let before = self
            .news
            .iter_mut()
            .filter(|(_, news)| matches!(news, News::Left(node) | News::Gone(node) if node.tag == me.tag));
        before.for_each(|(at, _)| *at = (*at).min(self.now));
        self.news.push((self.now, News::Joined(me)));
    }

    /// At most one node is away at a time: what only those knew who are away, nobody can tell. That is the last words of a
    /// node, and what was told to both owners of a slot that die, or are not heard, before they handed it over. So nobody
    /// goes before all know who is left, and have taken what they have to have. That it comes to this, whatever gets lost,
    /// is a property, too.
    fn rest(&mut self) {
        for _ in 0..200 {
            if self.now >= self.away_until && self.is_whole() {
                return;
            }
            self.run(TICK);
        }
        panic!("something is never handed over");
    }

    fn kill(&mut self, number: u8) {
        if self.peers.len() < 3 || !self.peers.contains_key(&number) {
            return;
        }
        self.rest();
        let Some(peer) = self.peers.remove(&number) else { return };
        self.dead.extend(peer.sockets);
        self.away_until = self.now + TIMES.expiry + MAX_DELAY;
        // One that was not heard does not come back.
        self.news.retain(|(at, news)| *at <= self.now || *news != News::Joined(peer.me));
        self.news.push((self.now + TIMES.expiry, News::Left(peer.me)));
        self.news.push((self.now + TIMES.lease, News::Gone(peer.me)));
    }

    fn is_whole(&self) -> bool {
        let members: Vec<_> = self.peers.values().map(|peer| peer.me).collect();
        self.peers.values().all(|Peer { directory, .. }| {
            let (_, missing) = directory.records.completeness(&directory.ring, directory.me.tag, 0, u64::MAX);
            let is_told = |stream: &Stream| {
                let to = self.peers.values().find(|peer| peer.me == stream.to);
                let taken = to.map(|to| to.directory.records.taken(directory.me.tag));
                stream.is_idle() && !stream.has_pending() && taken == Some(stream.told())
            };
            directory.ring.members() == members
                && missing.is_empty()
                && directory.silent.is_empty()
                && directory.walk().is_none()
                && directory.streams.values().all(is_told)
        })
    }

    /// The next updates get lost.
    fn lose(&mut self, updates: u32) {
        self.lose += updates;
    }

    /// A node is not heard for a while, and comes back.
    fn silence(&mut self, number: u8) {
        if !self.peers.contains_key(&number) {
            return;
        }
        self.rest();
        let Some(peer) = self.peers.get(&number) else { return };
        self.away_until = self.now + 3_000 + MAX_DELAY;
        self.news.push((self.now, News::Left(peer.me)));
        self.news.push((self.now + 3_000, News::Joined(peer.me)));
    }

    fn set(&mut self, number: u8, room: &str, sockets: u32) {
        let Some(peer) = self.peers.get_mut(&number) else { return };
        match sockets {
            0 => peer.rooms.remove(room),
            _ => peer.rooms.insert(room.to_owned(), sockets),
        };
        peer.directory.changed(&"/".into(), &Entry::Count { room: room.into(), sockets });
    }

    fn add(&mut self, number: u8) {
        let Some(peer) = self.peers.get_mut(&number) else { return };
        self.next_socket += 1;
        let mut random = [0; 12];
        random[..4].copy_from_slice(&self.next_socket.to_be_bytes());
        let id = SocketId::new(peer.me.tag, random);
        peer.sockets.insert(id);
        peer.directory.changed(&"/".into(), &Entry::Socket { id, here: true });
    }

    fn remove(&mut self, number: u8) {
        let Some(peer) = self.peers.get_mut(&number) else { return };
        if let Some(id) = peer.sockets.pop_first() {
            peer.directory.changed(&"/".into(), &Entry::Socket { id, here: false });
        }
    }

    /// The others that a node takes for live, and for not gone.
    fn view(&self, of: &Peer) -> (Vec<Identity>, Vec<Identity>) {
        let (mut live, mut known) = (BTreeMap::new(), BTreeMap::new());
        for (at, news) in &self.news {
            if at + of.delay > self.now {
                continue;
            }
            match *news {
                News::Joined(node) => {
                    live.insert(node.tag, node);
                    known.insert(node.tag, node);
                }
                News::Left(node) if live.get(&node.tag) == Some(&node) => drop(live.remove(&node.tag)),
                News::Left(_) => {}
                News::Gone(node) if known.get(&node.tag) == Some(&node) => drop(known.remove(&node.tag)),
                News::Gone(_) => {}
            }
        }
        live.insert(of.me.tag, of.me);
        // Nobody is a member for itself, nor are its earlier lives.
        known.remove(&of.me.tag);
        (live.into_values().collect(), known.into_values().collect())
    }

    fn run(&mut self, millis: u64) {
        for _ in 0..millis / TICK {
            self.now += TICK;
            // News that come at a time are heard in its order.
            self.news.sort_by_key(|(at, _)| *at);
            for number in self.peers.keys().copied().collect::<Vec<_>>() {
                self.turn(number);
            }
        }
    }

    fn turn(&mut self, number: u8) {
        let now = self.now;
        let Some(mut peer) = self.peers.remove(&number) else { return };
        let gone: Vec<_> = self
            .news
            .iter()
            .filter_map(|(at, news)| match news {
                News::Gone(node) if (now - TICK + 1..=now).contains(&(at + peer.delay)) => Some(*node),
                _ => None,
            })
            .collect();
        gone.into_iter().for_each(|node| peer.directory.gone(node));
        let (live, _) = self.view(&peer);
        peer.directory.set_members(peer.me, live, now);
        if let Some(walk) = peer.directory.walk() {
            let rooms = peer.rooms.iter();
            let rooms = rooms.map(|(room, n)| Entry::Count { room: room.as_str().into(), sockets: *n });
            let sockets = peer.sockets.iter().map(|id| Entry::Socket { id: *id, here: true });
            peer.directory.walked(walk, &"/".into(), rooms.chain(sockets).collect());
            peer.directory.walk_done(walk);
        }
        self.events.extend(peer.directory.turn(now, true).events);
        for to in peer.directory.others() {
            for updates in 0.. {
                let Some(update) = peer.directory.next_update(to, now, self.max_bytes, 1_000) else { break };
                assert!(updates < 10_000, "always something to tell: {update:?}");
                if self.lose > 0 {
                    self.lose -= 1;
                    peer.directory.done(to, update, true, now);
                    continue;
                }
                let sent = update.clone();
                peer.directory.done(to, update, true, now);
                self.deliver(&mut peer, to, &sent);
            }
        }
        self.peers.insert(number, peer);
    }

    fn deliver(&mut self, from: &mut Peer, to: NodeTag, update: &Update) {
        let Some(at) = self.peers.iter().find(|(_, peer)| peer.me.tag == to).map(|(at, _)| *at) else {
            return;
        };
        let (_, known) = self.view(&self.peers[&at]);
        let receiver = self.peers.get_mut(&at).unwrap();
        // Everything comes twice.
        for _ in 0..2 {
            if receiver.directory.receive(from.me, update.clone(), &known, self.now) == Receipt::Gap {
                from.directory.resync(receiver.me, update.session);
            }
        }
    }

    fn check(&self) {
        let mut rooms: BTreeMap<String, u64> = ROOMS.map(|room| (room.to_owned(), 0)).into();
        for peer in self.peers.values() {
            for (room, sockets) in &peer.rooms {
                *rooms.entry(room.clone()).or_default() += u64::from(*sockets);
            }
            rooms.extend(peer.sockets.iter().map(|id| (id.to_string(), 1)));
        }
        rooms.extend(self.dead.iter().map(|id| (id.to_string(), 0)));
        for (room, sockets) in &rooms {
            for asker in self.peers.values() {
                let owner = asker.directory.owners("/", room)[0];
                let owner = self.peers.values().find(|peer| peer.me.tag == owner).unwrap();
                let asker = owner.directory.me.tag;
                let known = owner.directory.known("/", room, asker, self.now).unwrap();
                let own = owner.rooms.get(room).copied().unwrap_or(0);
                let own = u64::from(own)
                    + u64::from(room.parse().is_ok_and(|id: SocketId| owner.sockets.contains(&id)));
                assert_eq!((known.sockets + own, known.missing), (*sockets, vec![]), "{room}");
            }
        }
        self.check_events(&rooms);
    }

    fn check_events(&self, rooms: &BTreeMap<String, u64>) {
        let mut gone = BTreeSet::new();
        let mut told: BTreeMap<String, BTreeSet<(u64, bool)>> = BTreeMap::new();
        for event in &self.events {
            match event {
                PresenceEvent::RoomOccupied { room, number, .. } => {
                    told.entry(room.to_string()).or_default().insert((*number, false));
                }
                PresenceEvent::RoomVacated { room, number, .. } => {
                    told.entry(room.to_string()).or_default().insert((*number, true));
                }
                PresenceEvent::SocketGone { socket, node, .. } => {
                    assert_eq!(socket.node(), *node);
                    gone.insert(*socket);
                }
            }
        }
        assert_eq!(gone, self.dead);
        for room in ROOMS {
            let told: Vec<_> = told.remove(room).unwrap_or_default().into_iter().collect();
            for pair in told.chunks(2) {
                // Occupied and vacated by turns, with one number.
                assert!(
                    !pair[0].1 && pair.get(1).is_none_or(|next| *next == (pair[0].0, true)),
                    "{room}: {told:?}"
                );
            }
            assert_eq!(told.len() % 2 == 1, rooms[room] > 0, "{room}: {told:?}");
        }
        assert!(told.is_empty(), "{told:?}");
    }

    /// What is kept is kept by the two owners, and nothing is kept of what is not there.
    fn check_records(&self) {
        let copies = self.peers.len().min(2);
        let rooms: BTreeSet<_> = self.peers.values().flat_map(|peer| peer.rooms.keys()).collect();
        let sockets: usize = self.peers.values().map(|peer| peer.sockets.len()).sum();
        let kept: usize = self.peers.values().map(|peer| peer.directory.records.len()).sum();
        assert_eq!(kept, (rooms.len() + sockets) * copies);
    }
}

/// One of them has the form of a socket's id.
const ROOMS: [&str; 6] = ["a", "b", "lobby", "customer-orders-2024", "", "é"];

#[derive(Debug, Clone)]
enum Step {
    Set(u8, usize, u32),
    Add(u8),
    Remove(u8),
    Start(u8),
    Kill(u8),
    Silence(u8),
    Lose(u32),
    Run(u64),
}

fn step() -> impl Strategy<Value = Step> {
    let node = 0..6_u8;
    prop_oneof![
        6 => (node.clone(), 0..ROOMS.len(), 0..4_u32).prop_map(|(node, room, n)| Step::Set(node, room, n)),
        3 => node.clone().prop_map(Step::Add),
        1 => node.clone().prop_map(Step::Remove),
        1 => node.clone().prop_map(Step::Start),
        1 => node.clone().prop_map(Step::Kill),
        1 => node.prop_map(Step::Silence),
        1 => (1..6_u32).prop_map(Step::Lose),
        5 => (0..12_000_u64).prop_map(Step::Run),
        1 => Just(Step::Run(LONG + TICK)),
    ]
}

/// Plays a schedule, and then lets everything come to rest.
fn play(steps: Vec<Step>, max_bytes: usize) {
    let mut net = Net { max_bytes, ..Net::default() };
    (0..3).for_each(|number| net.start(number));
    for step in steps {
        match step {
            Step::Set(node, room, sockets) => net.set(node, ROOMS[room], sockets),
            Step::Add(node) => net.add(node),
            Step::Remove(node) => net.remove(node),
            Step::Start(node) => net.start(node),
            Step::Kill(node) => net.kill(node),
            Step::Silence(node) => net.silence(node),
            Step::Lose(updates) => net.lose(updates),
            Step::Run(millis) => net.run(millis),
        }
    }
    net.run(60_000);
    net.check();
    // Open: after several faults a record too many may stay, so `check_records` is not asked of every schedule.
}

/// The same schedules in every run, so that a change is judged by itself and not by luck. Others are looked for by hand:
/// `PROPTEST_RNG_SEED=$RANDOM PROPTEST_CASES=2000 cargo test -p roomcast-adapter --lib every_schedule`.
fn schedules() -> ProptestConfig {
    let config = ProptestConfig::default();
    match std::env::var_os("PROPTEST_RNG_SEED") {
        Some(_) => config,
        None => ProptestConfig { cases: 128, rng_seed: RngSeed::Fixed(1), ..config },
    }
}

proptest! {
    #![proptest_config(schedules())]

    #[test]
    fn every_schedule_ends_in_the_truth(steps in proptest::collection::vec(step(), 1..60), max_bytes in 100..1_000_usize) {
        play(steps, max_bytes);
    }
}

/// A newcomer has it from the node itself that the room is empty, and then from others, who had not heard that, that it is
/// not.
#[test]
fn what_was_kept_of_a_node_does_not_outlast_its_return() {
    let steps = [Step::Set(0, 0, 1), Step::Silence(0), Step::Start(4), Step::Set(0, 0, 0), Step::Lose(2)];
    play(steps.to_vec(), 100);
}

/// A former owner still has a socket that has left, the first owner is a new life of the node that died, and the second one
/// knows better.
#[test]
fn a_socket_that_had_left_is_not_gone_with_its_node() {
    let steps =
        [Step::Silence(1), Step::Add(2), Step::Run(3_400), Step::Remove(2), Step::Kill(2), Step::Start(2)];
    play(steps.to_vec(), 100);
}

/// To who was left out while it was announced the room is occupied, until others say otherwise: also those who did not know
/// enough to have the say when it came back.
#[test]
fn who_was_left_out_learns_that_a_room_was_vacated() {
    let steps = [
        Step::Start(4),
        Step::Set(2, 2, 1),
        Step::Kill(2),
        Step::Kill(4),
        Step::Silence(0),
        Step::Silence(0),
        Step::Lose(3),
        Step::Set(0, 2, 1),
    ];
    play(steps.to_vec(), 100);
}

/// The newcomer becomes an owner of what the dead node cannot tell it any more.
#[test]
fn a_node_that_starts_before_a_death_is_noticed_learns_of_the_dead() {
    let mut net = Net { max_bytes: 1_000, ..Net::default() };
    (0..3).for_each(|number| net.start(number));
    (0..40).for_each(|_| net.add(2));
    net.set(2, ROOMS[0], 3);
    net.run(LONG + TICK);
    net.kill(2);
    net.start(3);
    net.run(60_000);
    net.check();
    net.check_records();
}

/// It hears from some sooner than from others that they have it again, and what they announced without it.
#[test]
fn who_was_left_out_for_a_while_announces_nothing_before_all_have_it_again() {
    let mut net = Net { max_bytes: 100, ..Net::default() };
    (0..4).for_each(|number| net.start(number));
    net.run(LONG + TICK);
    net.silence(3);
    // Node 3 is the first owner; another one is while it is left out.
    net.set(0, ROOMS[5], 1);
    net.run(60_000);
    net.check();
    net.check_records();
}

/// It is told nothing any more: not of a join that the others announce, either.
#[test]
fn who_is_left_out_does_not_announce_beside_the_others() {
    for wait in 0..15 {
        let mut net = Net { max_bytes: 100, ..Net::default() };
        (0..4).for_each(|number| net.start(number));
        net.run(LONG + TICK);
        net.silence(3);
        // So many that the last does not get the same number by chance.
        ROOMS.iter().for_each(|room| net.set(0, room, 1));
        net.run(wait * TICK);
        net.set(3, ROOMS[5], 1);
        net.run(60_000);
        net.check();
        net.check_records();
    }
}

/// What the others said may have been under way for long: it is only known to be old when one of them begins anew.
#[test]
fn nothing_is_announced_until_members_had_time_to_begin_anew() {
    let [me, other] = [1, 2].map(|number| Identity { tag: tag(number), generation: 1 });
    let mut directory = Directory::new(me, TIMES);
    directory.set_members(me, vec![me, other], 0);
    let walk = directory.walk().unwrap();
    directory.walk_done(walk);
    let mut says = |session, number, now| {
        let update = Update { session, number, ring: directory.ring.hash(), ..Update::default() };
        assert_eq!(directory.receive(other, update, &[other], now), Receipt::Taken);
        directory.turn(now, true);
        directory.is_settled
    };
    assert!(!says(1, 0, 1_000) && !says(1, 1, 2_000) && says(1, 2, 3_000) && says(1, 3, 4_000));
    assert!(!says(2, 0, 5_000) && !says(2, 1, 6_000) && says(2, 2, 7_000));
    // Also when one does so again and again.
    assert!((0..=15).any(|again| says(3 + again, 0, 8_000 + again * 1_000)));
}

/// What changes while the broker is away costs nothing until it is back, however often it changes.
#[test]
fn an_outage_begins_every_stream_anew_once() {
    let mut net = Net { max_bytes: 1_000, ..Net::default() };
    (0..3).for_each(|number| net.start(number));
    (0..ROOMS.len()).for_each(|room| net.set(0, ROOMS[room], 1));
    net.run(10_000);
    let peer = net.peers.get_mut(&0).unwrap();
    let before = peer.directory.last_session;
    for turn in 0..1_000 {
        let now = net.now + turn * TICK;
        for room in ROOMS {
            let entry = Entry::Count { room: room.into(), sockets: turn as u32 % 7 };
            peer.directory.changed(&"/".into(), &entry);
        }
        peer.directory.suspend();
        peer.directory.turn(now, false);
        assert!(peer.directory.streams.values().all(Stream::is_idle));
        let others = peer.directory.others();
        assert!(others.iter().all(|to| peer.directory.next_update(*to, now, 1_000, 1_000).is_none()));
    }
    assert_eq!(peer.directory.last_session, before);
    peer.directory.resume();
    assert_eq!(peer.directory.last_session, before + 2);
    net.now += 1_000 * TICK;
    ROOMS[..4].iter().for_each(|room| net.set(0, room, 5));
    ROOMS[4..].iter().for_each(|room| net.set(0, room, 0));
    net.run(60_000);
    net.check();
    net.check_records();
}

#[test]
fn records_are_small() {
    assert!(std::mem::size_of::<records::Record>() <= 56, "{}", std::mem::size_of::<records::Record>());
}

/// Bytes of this process in memory.
fn resident() -> usize {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
    statm.split(' ').nth(1).unwrap().parse::<usize>().unwrap() * 4_096
}

/// Figures for the documentation: `cargo test -p roomcast-adapter --lib -- --ignored --nocapture record_costs`.
#[test]
#[ignore = "prints figures"]
fn record_costs() {
    const COUNT: u32 = 200_000;
    let me = Identity { tag: tag(1), generation: 1 };
    let mut directory = Directory::new(me, TIMES);
    directory.set_members(me, vec![me], 0);
    let namespace: Arc<str> = "/".into();
    let before = resident();
    for number in 0..COUNT {
        let room = format!("order:{number}").into();
        directory.changed(&namespace, &Entry::Count { room, sockets: 1 });
    }
    directory.turn(10_000, true);
    let rooms = resident();
    for number in 0..COUNT {
        let mut random = [0; 12];
        // Spread, as random ids are.
        random[..8].copy_from_slice(&u64::from(number).wrapping_mul(0x9e37_79b9_7f4a_7c15).to_be_bytes());
        directory.changed(&namespace, &Entry::Socket { id: SocketId::new(me.tag, random), here: true });
    }
    let sockets = resident();
    let each = |bytes: usize| bytes / COUNT as usize;
    println!("bytes of a room: {}, of a socket: {}", each(rooms - before), each(sockets - rooms));
}

/// Figures for the documentation: `cargo test -p roomcast-adapter --lib -- --ignored --nocapture ring_change_costs`.
#[test]
#[ignore = "prints figures"]
fn ring_change_costs() {
    const COUNT: u32 = 1_000_000;
    let nodes: Vec<_> = (1..6).map(|number| Identity { tag: tag(number), generation: 1 }).collect();
    let (me, namespace) = (nodes[0], Arc::<str>::from("/"));
    let mut directory = Directory::new(me, TIMES);
    directory.set_members(me, nodes[..2].to_vec(), 0);
    for number in 0..COUNT {
        let room = format!("order:{number}").into();
        directory.changed(&namespace, &Entry::Count { room, sockets: 1 });
    }
    directory.turn(TIMES.lease + 1, true);
    for (what, members) in [("a node leaves", &nodes[..1]), ("three nodes join", &nodes[..4])] {
        let began = std::time::Instant::now();
        directory.set_members(me, members.to_vec(), 20_000);
        let changed = began.elapsed();
        directory.turn(20_000 + TIMES.settle, true);
        println!("{what}: the change {changed:?}, the turn after it {:?}", began.elapsed() - changed);
    }
}

/// A forged number would be the last: nothing is after it.
#[test]
fn numbers_far_ahead_are_refused() {
    let [me, other] = [1, 2].map(|number| Identity { tag: tag(number), generation: 1 });
    let mut directory = Directory::new(me, TIMES);
    directory.set_members(me, vec![me, other], 0);
    let announced = |number| {
        let entry = Entry::Announced {
            room: "a".into(),
            announced: Announced { number, occupied: true },
            fresh: true,
        };
        Update {
            session: 1,
            parts: vec![Part { namespace: "/".into(), entries: vec![entry] }],
            ..Update::default()
        }
    };
    let clock = Update { session: 1, clock: u64::MAX, ..Update::default() };
    let handover = Update { session: 1, handover: u64::MAX, ..Update::default() };
    for forged in [announced(u64::MAX), clock, handover] {
        assert_eq!(directory.receive(other, forged, &[other], 1), Receipt::Malformed);
    }
    assert_eq!(directory.clock, 1);
    assert_eq!(directory.receive(other, announced(MAX_AHEAD), &[other], 1), Receipt::Taken);
    assert_eq!(directory.clock, MAX_AHEAD);
}

#[test]
fn more_is_handed_over_than_may_wait_otherwise() {
    let [me, newcomer] = [1, 2].map(|number| Identity { tag: tag(number), generation: 1 });
    let (mut directory, namespace) = (Directory::new(me, TIMES), Arc::<str>::from("/"));
    directory.set_members(me, vec![me], 0);
    for room in 0..=stream::MAX_QUEUE {
        directory.changed(&namespace, &Entry::Count { room: room.to_string().into(), sockets: 1 });
    }
    let walk = directory.walk().unwrap();
    directory.walk_done(walk);
    assert_eq!(directory.turn(TIMES.settle, true).events.len(), stream::MAX_QUEUE + 1);
    directory.set_members(me, vec![me, newcomer], 3_000);
    let mut told = 0;
    for number in 0.. {
        let Some(update) = directory.next_update(newcomer.tag, 3_000, 256 * 1024, 1_000) else { break };
        // It does not begin anew.
        assert_eq!((update.session, update.number), (1, number));
        told += update.parts.iter().map(|part| part.entries.len()).sum::<usize>();
        directory.done(newcomer.tag, update, true, 3_000);
    }
    assert_eq!(told, stream::MAX_QUEUE + 1);
}
