//! Holds the counts of `roomcast-scale`, from which `docs/operations/scaling.md` is made, to the simulated cluster: real
//! nodes, in virtual time, without faults. What happens alike every time has to be the same; what depends on where members
//! are has to be near.
#![cfg(feature = "simulation")]

use std::collections::BTreeSet;
use std::time::Duration;

use roomcast_adapter::cluster::ClusterConfig;
use roomcast_adapter::cluster::simulation::{Calm, Carried, Kind, Traffic};
use roomcast_adapter::{Room, Selector, SocketId, Target};
use roomcast_scale::constants;
use roomcast_scale::counts::{self, Churn, Messages, Pace};

const SIZES: [usize; 4] = [2, 3, 5, 8];
const SECOND: Duration = Duration::from_secs(1);
/// Nodes know where others listen after `expiry`, and have told each other everything. Half a second is the time between
/// two heartbeats: none of them is on its way when counting begins and ends.
const SETTLED: Duration = Duration::from_millis(10_500);

/// A cluster that has come to rest.
fn cluster(nodes: usize, config: &ClusterConfig) -> Calm {
    let mut cluster = Calm::start(nodes as u64, nodes, config);
    cluster.run(SETTLED);
    cluster.take_traffic();
    cluster
}

/// Names as they come: those that only count up are spread more evenly over buckets than chance would.
fn name(number: usize) -> Room {
    let mixed = (number as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    format!("room {:016x}", mixed ^ mixed >> 32).into()
}

/// Exactly so many messages, however often.
fn assert_same(carried: &Carried, expected: Messages, what: &str) {
    let is = (carried.published as f64, carried.delivered() as f64);
    let expected = (expected.published.round(), expected.delivered.round());
    assert_eq!(is, expected, "{what}: published and delivered");
}

fn assert_near(is: f64, expected: f64, share: f64, what: &str) {
    let distance = (is - expected).abs() / expected;
    assert!(distance <= share, "{what}: {is}, and {expected:.1} by the model");
}

/// Rooms of one size whose members are anywhere, and on how many nodes there is one.
struct Crowd {
    rooms: usize,
    on_nodes: Vec<BTreeSet<usize>>,
}

impl Crowd {
    fn new(cluster: &mut Calm, nodes: usize, rooms: usize, members: usize) -> Self {
        let on_nodes = (0..rooms).map(|room| {
            (0..members)
                .map(|_| {
                    let node = cluster.below(nodes);
                    cluster.connect(node, &[name(room)]);
                    node
                })
                .collect()
        });
        let on_nodes = on_nodes.collect();
        cluster.run(2 * SECOND);
        Self { rooms, on_nodes }
    }

    fn emit(&self, cluster: &mut Calm, nodes: usize) {
        for room in 0..self.rooms {
            let node = cluster.below(nodes);
            cluster.emit(node, &Selector::rooms([name(room)]));
        }
        cluster.run(SECOND);
    }
}

#[test]
fn heartbeats_and_what_says_that_there_is_nothing_new() {
    for nodes in SIZES {
        for heartbeat in [1, 2] {
            let config = ClusterConfig { heartbeat: SECOND * heartbeat, ..ClusterConfig::default() };
            let mut cluster = cluster(nodes, &config);
            cluster.run(SECOND * 20);
            let traffic = cluster.take_traffic();
            let times = 20.0 / f64::from(heartbeat);
            let expected = counts::heartbeat(nodes as f64).times(times);
            let kinds = [Kind::Heartbeat, Kind::Vitals, Kind::Reach].map(|kind| traffic.of(kind));
            let what = format!("{nodes} nodes, a heartbeat each {heartbeat} s");
            for carried in &kinds {
                assert_same(carried, expected.times(1.0 / 3.0), &what);
                let each = (nodes as f64 * times) as u64;
                assert_eq!(carried.delivered, vec![each; nodes], "{what}: to each node");
            }
            let still = Churn { events: 0.0, entries: 1.0, announcements: 0.0 };
            let pace = Pace { interval: 0.2, heartbeat: heartbeat.into() };
            let updates = counts::updates(nodes as f64, still, pace).times(20.0);
            assert_same(&traffic.of(Kind::Update), updates, &what);
            assert_eq!((traffic.subscribed, traffic.entries), (0, 0), "{what}");
            assert_same(&traffic.of(Kind::Other), Messages::default(), &what);
        }
    }
}

#[test]
fn an_emit_to_a_room_is_published_once_and_reaches_the_nodes_with_a_member() {
    for nodes in SIZES {
        for (rooms, members) in [(200, 1), (200, 2), (100, 5), (60, 10), (20, 30)] {
            let mut cluster = cluster(nodes, &ClusterConfig::default());
            let crowd = Crowd::new(&mut cluster, nodes, rooms, members);
            let joined = cluster.take_traffic();
            crowd.emit(&mut cluster, nodes);
            let emits = cluster.take_traffic().of(Kind::Broadcast);
            let what = format!("{nodes} nodes, {rooms} rooms of {members}");

            // Exactly, by where they are.
            let reached: usize = crowd.on_nodes.iter().map(BTreeSet::len).sum();
            assert_eq!(joined.subscribed, reached as u64, "{what}: subscriptions");
            let each = counts::room_emit(reached as f64 / rooms as f64);
            assert_same(&emits, each.times(rooms as f64), &what);

            // By the model, which knows only how many there are.
            let listening = counts::nodes_with_a_member(nodes as f64, members as f64);
            assert_near(reached as f64, listening * rooms as f64, 0.06, &what);
        }
    }
}

#[test]
fn joins_subscribe_where_they_are_the_first_on_their_node_and_let_go_again() {
    for nodes in SIZES {
        let (rooms, members) = (800, 4);
        let mut cluster = cluster(nodes, &ClusterConfig::default());
        Crowd::new(&mut cluster, nodes, rooms, members - 1);
        cluster.take_traffic();
        let join = |room| {
            let node = cluster.below(nodes);
            cluster.connect(node, &[name(room)])
        };
        let joined: Vec<SocketId> = (0..rooms).map(join).collect();
        cluster.run(SECOND);
        let subscribed = cluster.take_traffic().subscribed;
        let expected = counts::first_on_its_node(nodes as f64, members as f64) * rooms as f64;
        assert_near(subscribed as f64, expected, 0.1, &format!("{nodes} nodes"));

        joined.into_iter().for_each(|id| cluster.disconnect(id));
        // A subscription outlives its last member by `linger`.
        cluster.run(10 * SECOND);
        assert_eq!(cluster.take_traffic().unsubscribed, subscribed, "{nodes} nodes");
    }
}

#[test]
fn in_buckets_an_emit_reaches_those_with_another_room_of_its_bucket_too() {
    const BUCKETS: u32 = 256;
    for nodes in SIZES {
        for (rooms, members) in [(300, 1), (400, 2), (1_200, 1)] {
            let config =
                ClusterConfig { max_room_subjects: 0, hashed_subjects: BUCKETS, ..ClusterConfig::default() };
            // Nodes go over to buckets when they start, and listen to rooms as well for a moment.
            let mut cluster = cluster(nodes, &config);
            let crowd = Crowd::new(&mut cluster, nodes, rooms, members);
            let joined = cluster.take_traffic();
            crowd.emit(&mut cluster, nodes);
            let emits = cluster.take_traffic().of(Kind::Broadcast);
            let what = format!("{nodes} nodes, {rooms} rooms of {members} in buckets");
            assert_eq!(emits.published, rooms as u64, "{what}: published");

            let (nodes, members, buckets) = (nodes as f64, members as f64, f64::from(BUCKETS));
            let own = rooms as f64 / nodes * counts::nodes_with_a_member(nodes, members);
            let used = counts::buckets_in_use(buckets, own) * nodes;
            assert_near(joined.subscribed as f64, used, 0.06, &format!("{what}, subscriptions"));
            let listening = counts::nodes_by_bucket(nodes, members, buckets, own);
            assert_near(emits.delivered() as f64, listening * rooms as f64, 0.06, &what);
        }
    }
}

#[test]
fn emits_to_everybody_and_to_single_sockets() {
    for nodes in SIZES {
        let mut cluster = cluster(nodes, &ClusterConfig::default());
        let ids: Vec<SocketId> = (0..nodes).map(|node| cluster.connect(node, &[])).collect();
        cluster.run(2 * SECOND);
        cluster.take_traffic();
        let what = format!("{nodes} nodes");
        let emits = |cluster: &mut Calm, node, to| {
            cluster.emit(node, &Selector { to, except: Vec::new(), local: false });
            cluster.run(SECOND);
            cluster.take_traffic().of(Kind::Broadcast)
        };
        let everybody = emits(&mut cluster, 0, Target::All);
        assert_same(&everybody, counts::everybody_emit(nodes as f64), &what);
        assert_eq!(everybody.delivered, vec![1; nodes], "{what}: to each node");
        // From one node to a socket of each, its own among them.
        let to_each = ids.iter().map(|id| emits(&mut cluster, 0, Target::Socket(*id)));
        let (published, delivered) =
            to_each.fold((0, 0), |sum, carried| (sum.0 + carried.published, sum.1 + carried.delivered()));
        let sum = Carried { published, delivered: vec![delivered], ..Carried::default() };
        assert_same(&sum, counts::socket_emit(nodes as f64).times(nodes as f64), &what);
    }
}

#[test]
fn questions_answers_and_acks() {
    for nodes in SIZES {
        let mut cluster = cluster(nodes, &ClusterConfig::default());
        // Three on each node.
        let members = 3 * nodes;
        for member in 0..members {
            cluster.connect(member % nodes, &[name(0)]);
        }
        cluster.run(2 * SECOND);
        let of = |traffic: &Traffic| (traffic.of(Kind::Request), traffic.of(Kind::Response));
        let (all, what) = (nodes as f64, format!("{nodes} nodes"));

        cluster.take_traffic();
        cluster.count(0, &Selector::all());
        cluster.run(SECOND);
        let (question, answers) = of(&cluster.take_traffic());
        assert_same(&question, counts::question(all), &what);
        assert_same(&answers, counts::answers(all), &what);

        cluster.ask(0, &Selector::rooms([name(0)]));
        cluster.run(2 * SECOND);
        let traffic = cluster.take_traffic();
        let (question, answers) = of(&traffic);
        assert_same(&question, counts::question(all), &what);
        assert_same(&answers, counts::acks(all, members as f64), &what);
        assert_same(&traffic.of(Kind::Other), Messages::default(), &what);
    }
}

/// The lengths of the wire format are in the constants, with as much again for the names of subjects and the broker's frames.
#[test]
fn bytes_are_those_of_the_constants() {
    let (_, constants) = constants::read(&constants::path()).unwrap();
    let mut cluster = cluster(3, &ClusterConfig::default());
    Crowd::new(&mut cluster, 3, 50, 4).emit(&mut cluster, 3);
    let traffic = cluster.take_traffic();
    let each = |kind| {
        let carried = traffic.of(kind);
        carried.bytes as f64 / carried.published as f64
    };
    let event = br#"42["@1;"]"#.len() as f64;
    for (is, constant) in [
        (each(Kind::Broadcast) - event, constants.envelope_bytes),
        ((each(Kind::Heartbeat) + each(Kind::Vitals) + each(Kind::Reach)) / 3.0, constants.control_bytes),
    ] {
        assert!((0.35..0.75).contains(&(is / constant)), "{is} of {constant}");
    }
}

/// Sockets that come and go at random moments, as often on each node. Each has a room of its own or not, and is in two of
/// those that are always occupied.
struct Life {
    seconds: f64,
    events: usize,
    traffic: Traffic,
}

impl Life {
    const ROOMS: usize = 1_000;

    fn new(nodes: usize, events_of_a_node: f64, own_room: bool) -> Self {
        let mut cluster = cluster(nodes, &ClusterConfig::default());
        let standing: Vec<Room> = (0..Self::ROOMS).map(name).collect();
        cluster.connect(0, &standing);
        let mut there: Vec<Vec<SocketId>> = vec![Vec::new(); nodes];
        // Rooms that become empty are announced later.
        let mut events = 0;
        cluster.run(SETTLED);
        cluster.take_traffic();
        let turns = 2_500;
        for _ in 0..turns {
            for (node, there) in there.iter_mut().enumerate() {
                // A turn has 40 ms.
                if cluster.below(1_000) as f64 >= events_of_a_node * 40.0 {
                    continue;
                }
                events += 1;
                if there.len() > 10 {
                    let goes = cluster.below(there.len());
                    cluster.disconnect(there.swap_remove(goes));
                    continue;
                }
                let first = cluster.below(Self::ROOMS / 2);
                let mut rooms = vec![name(2 * first), name(2 * first + 1)];
                rooms.extend(own_room.then(|| format!("own {events}").into()));
                there.push(cluster.connect(node, &rooms));
            }
            cluster.run(Duration::from_millis(40));
        }
        Self { seconds: f64::from(turns) * 0.04, events, traffic: cluster.take_traffic() }
    }
}

#[test]
fn updates_of_the_directory_follow_what_changes() {
    for nodes in SIZES {
        for (events, own_room) in [(1.0, false), (4.0, false), (20.0, false), (1.0, true), (4.0, true)] {
            let life = Life::new(nodes, events, own_room);
            let what = format!("{nodes} nodes, {events} events a second on each, own rooms {own_room}");
            let (entries, announcements) = if own_room { (4.0, 1.0) } else { (3.0, 0.0) };
            let happened = life.events as f64;
            let told = happened * entries * counts::told(nodes as f64);
            assert_near(life.traffic.entries as f64, told, 0.06, &format!("{what}, entries"));
            if own_room {
                let announced = life.traffic.announcements as f64;
                assert_near(announced, happened, 0.06, &format!("{what}, announcements"));
            } else {
                assert_eq!(life.traffic.announcements, 0, "{what}");
            }
            let events = happened / nodes as f64 / life.seconds;
            let churn = Churn { events, entries, announcements };
            let pace = Pace { interval: 0.2, heartbeat: 1.0 };
            let updates = counts::updates(nodes as f64, churn, pace).times(life.seconds);
            let carried = life.traffic.of(Kind::Update);
            // Announcements are told when the node looks the next time, and by then may have company.
            let share = if own_room { 0.15 } else { 0.06 };
            assert_near(carried.published as f64, updates.published, share, &what);
            assert_eq!(carried.published, carried.delivered(), "{what}");
        }
    }
}
