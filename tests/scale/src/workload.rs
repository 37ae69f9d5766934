//! What clients and backends do, and what that makes nodes say to each other.

use crate::constants::Constants;
use crate::counts::{self, Churn, Messages, Pace};

/// Rooms of one size.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Rooms {
    /// How many of them each connection is in.
    pub each: f64,
    /// Members of one.
    pub size: f64,
    /// Emits to all of them together, each second.
    pub emits: f64,
}

/// What happens in the whole cluster; by default nobody is there.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Workload {
    /// WebSockets.
    pub connections: f64,
    /// The rooms that they are in.
    pub rooms: Vec<Rooms>,
    /// Emits to single sockets, each second.
    pub socket_emits: f64,
    /// Emits to everybody, each second.
    pub everybody_emits: f64,
    /// Questions to all nodes, each second.
    pub questions: f64,
    /// Emits with acks to a room of the first kind, each second.
    pub asks: f64,
    /// Bytes of what is emitted.
    pub payload: f64,
    /// Connections that come each second. As many go.
    pub connects: f64,
}

/// Settings of the nodes.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Settings {
    /// `adapter.heartbeat`, in seconds. The others are multiples of it.
    pub heartbeat: f64,
    /// `adapter.directory.interval`, in seconds.
    pub interval: f64,
    /// `adapter.max_room_subjects`.
    pub max_room_subjects: f64,
    /// `adapter.hashed_subjects`.
    pub hashed_subjects: f64,
}

impl Default for Settings {
    fn default() -> Self {
        Self { heartbeat: 1.0, interval: 0.2, max_room_subjects: 65_536.0, hashed_subjects: 16_384.0 }
    }
}

/// What messages are about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum About {
    /// Heartbeats.
    Membership,
    /// Updates of the directory.
    Directory,
    /// Emits to rooms.
    Rooms,
    /// Emits to single sockets.
    Sockets,
    /// Emits to everybody.
    Everybody,
    /// Questions to all.
    Questions,
    /// Answers and acks.
    Answers,
}

/// Messages of one kind, each second.
#[derive(Debug, Clone, Copy)]
pub struct Stream {
    /// What they are about.
    pub about: About,
    /// How many.
    pub messages: Messages,
    /// Bytes of each on the wire.
    pub bytes: f64,
    /// They go by one subject for all nodes, which one server of Redis has; otherwise by many.
    pub one_subject: bool,
}

impl Workload {
    /// Rooms with members on one node.
    pub fn rooms_of_a_node(&self, nodes: f64) -> f64 {
        let of = |rooms: &Rooms| {
            let all = self.connections * rooms.each / rooms.size;
            all / nodes * counts::nodes_with_a_member(nodes, rooms.size)
        };
        self.rooms.iter().map(of).sum()
    }

    /// Whether nodes listen to buckets of rooms.
    pub fn is_hashed(&self, settings: &Settings, nodes: f64) -> bool {
        self.rooms_of_a_node(nodes) > settings.max_room_subjects
    }

    /// What a node is subscribed to for its rooms.
    pub fn subscriptions_of_a_node(&self, settings: &Settings, nodes: f64) -> f64 {
        let rooms = self.rooms_of_a_node(nodes);
        match self.is_hashed(settings, nodes) {
            true => counts::buckets_in_use(settings.hashed_subjects, rooms),
            false => rooms,
        }
    }

    /// Subscriptions that nodes make or let go, each second, all together. Buckets hardly change.
    pub fn subscription_changes(&self, settings: &Settings, nodes: f64) -> f64 {
        if self.is_hashed(settings, nodes) {
            return 0.0;
        }
        let of = |rooms: &Rooms| rooms.each * counts::first_on_its_node(nodes, rooms.size);
        2.0 * self.connects * self.rooms.iter().map(of).sum::<f64>()
    }

    /// Nodes that get an emit to a room of this kind.
    pub fn listening(&self, rooms: &Rooms, settings: &Settings, nodes: f64) -> f64 {
        match self.is_hashed(settings, nodes) {
            true => counts::nodes_by_bucket(
                nodes,
                rooms.size,
                settings.hashed_subjects,
                self.rooms_of_a_node(nodes),
            ),
            false => counts::nodes_with_a_member(nodes, rooms.size),
        }
    }

    /// Emits, each second.
    pub fn emits(&self) -> f64 {
        let to_rooms: f64 = self.rooms.iter().map(|rooms| rooms.emits).sum();
        to_rooms + self.socket_emits + self.everybody_emits + self.asks
    }

    /// Packets that are written to clients, each second.
    pub fn deliveries(&self) -> f64 {
        let to_rooms: f64 = self.rooms.iter().map(|rooms| rooms.emits * rooms.size).sum();
        to_rooms
            + self.socket_emits
            + self.everybody_emits * self.connections
            + self.asks * self.asked_members()
    }

    fn asked_members(&self) -> f64 {
        self.rooms.first().map_or(0.0, |rooms| rooms.size)
    }

    /// What a connection changes in the directory: itself, and each of its rooms.
    pub fn entries(&self) -> f64 {
        1.0 + self.rooms.iter().map(|rooms| rooms.each).sum::<f64>()
    }

    /// Rooms that become occupied, or empty, with a connection that comes, or goes. Those who come find any number in a
    /// room, as in Poisson's distribution; a room of one is the client's own.
    pub fn announcements(&self) -> f64 {
        let is_first = |rooms: &Rooms| if rooms.size > 1.0 { (-rooms.size).exp() } else { 1.0 };
        self.rooms.iter().map(|rooms| rooms.each * is_first(rooms)).sum()
    }

    /// Entries that go over the broker, each second.
    pub fn entries_told(&self, nodes: f64) -> f64 {
        let announcements = if nodes < 2.0 { 0.0 } else { self.announcements() };
        2.0 * self.connects * (self.entries() * counts::told(nodes) + announcements)
    }

    /// What goes over the broker, each second.
    pub fn streams(&self, settings: &Settings, nodes: f64, constants: &Constants) -> Vec<Stream> {
        let emit = self.payload + constants.envelope_bytes;
        let control = constants.control_bytes;
        let churn = Churn {
            events: 2.0 * self.connects / nodes,
            entries: self.entries(),
            announcements: self.announcements(),
        };
        let pace = Pace { interval: settings.interval, heartbeat: settings.heartbeat };
        let updates = counts::updates(nodes, churn, pace);
        let update = control
            + match updates.published > 0.0 {
                true => self.entries_told(nodes) * constants.entry_bytes / updates.published,
                false => 0.0,
            };
        let to_rooms = self.rooms.iter().fold(Messages::default(), |sum, rooms| {
            sum.plus(counts::room_emit(self.listening(rooms, settings, nodes)).times(rooms.emits))
        });
        let questions = counts::question(nodes).times(self.questions + self.asks);
        let answers = counts::answers(nodes).times(self.questions);
        let answers = answers.plus(counts::acks(nodes, self.asked_members()).times(self.asks));
        let heartbeats = counts::heartbeat(nodes).times(1.0 / settings.heartbeat);
        let to_sockets = counts::socket_emit(nodes).times(self.socket_emits);
        let to_everybody = counts::everybody_emit(nodes).times(self.everybody_emits);
        let stream = |about, messages, bytes, one_subject| Stream { about, messages, bytes, one_subject };
        vec![
            stream(About::Membership, heartbeats, control, true),
            stream(About::Directory, updates, update, false),
            stream(About::Rooms, to_rooms, emit, false),
            stream(About::Sockets, to_sockets, emit, false),
            stream(About::Everybody, to_everybody, emit, true),
            stream(About::Questions, questions, emit, true),
            stream(About::Answers, answers, control, false),
        ]
    }
}

/// All messages of some streams.
pub fn sum(streams: &[Stream]) -> Messages {
    streams.iter().fold(Messages::default(), |sum, stream| sum.plus(stream.messages))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn workload(size: f64) -> Workload {
        Workload {
            connections: 100_000.0,
            rooms: vec![Rooms { each: 1.0, size, emits: 50.0 }],
            payload: 200.0,
            connects: 10.0,
            ..Workload::default()
        }
    }

    #[test]
    fn with_many_rooms_on_a_node_everybody_gets_everything() {
        let near = |value: f64, expected: f64| assert!((value - expected).abs() < 1e-6, "{value}");
        let settings = Settings::default();
        let alone = workload(1.0);
        assert!(alone.is_hashed(&settings, 1.0) && !alone.is_hashed(&settings, 2.0));
        let rooms = alone.rooms[0];
        near(alone.listening(&rooms, &settings, 2.0), 1.0);
        let raised = Settings { max_room_subjects: 1e9, ..settings };
        let crowded = Workload { connections: 1e6, ..alone };
        assert!(crowded.listening(&rooms, &settings, 10.0) > 9.9);
        near(crowded.listening(&rooms, &raised, 10.0), 1.0);
        assert!(crowded.subscriptions_of_a_node(&settings, 10.0) < 16_384.0);
        near(crowded.subscriptions_of_a_node(&raised, 10.0), 100_000.0);
        near(crowded.subscription_changes(&settings, 10.0), 0.0);
        near(crowded.subscription_changes(&raised, 10.0), 20.0);
    }

    #[test]
    fn deliveries_and_emits_add_up() {
        let mut all = workload(10.0);
        (all.socket_emits, all.everybody_emits, all.asks) = (3.0, 0.5, 2.0);
        assert_eq!(all.emits(), 55.5);
        assert_eq!(all.deliveries(), 500.0 + 3.0 + 50_000.0 + 20.0);
        assert_eq!(all.entries(), 2.0);
        assert!((all.entries_told(2.0) - 40.0).abs() < 0.1);
        all.rooms.push(Rooms { each: 1.0, size: 1.0, emits: 0.0 });
        assert!((all.entries_told(2.0) - 80.0).abs() < 0.1);
    }
}
