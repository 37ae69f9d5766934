//! How many messages a cluster's nodes exchange over their broker: pure formulas, of numbers of nodes, members and events.
//!
//! `adapter/tests/scale.rs` holds each of them to the simulated cluster, so what is written here is what the code does.
//! Members of a room are taken to be on any node alike, independently of each other.

/// What the broker gets and what it sends.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Messages {
    /// Messages that nodes publish.
    pub published: f64,
    /// Messages that the broker sends to nodes, the sender among them where it listens.
    pub delivered: f64,
}

impl Messages {
    const fn new(published: f64, delivered: f64) -> Self {
        Self { published, delivered }
    }

    /// So many times as many.
    #[must_use]
    pub fn times(self, factor: f64) -> Self {
        Self::new(self.published * factor, self.delivered * factor)
    }

    /// Both together.
    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        Self::new(self.published + other.published, self.delivered + other.delivered)
    }
}

/// How likely it is that at least one of `tries` hits, each with probability `p`.
fn at_least_one(p: f64, tries: f64) -> f64 {
    1.0 - (1.0 - p).powf(tries)
}

/// Nodes with a member of a room of so many members.
pub fn nodes_with_a_member(nodes: f64, members: f64) -> f64 {
    nodes * at_least_one(1.0 / nodes, members)
}

/// Buckets with one of so many rooms in them.
pub fn buckets_in_use(buckets: f64, rooms: f64) -> f64 {
    buckets * at_least_one(1.0 / buckets, rooms)
}

/// Nodes that get an emit to a room, where all listen to buckets: those with a member, and those with another room in its
/// bucket. `rooms` is how many rooms a node has.
pub fn nodes_by_bucket(nodes: f64, members: f64, buckets: f64, rooms: f64) -> f64 {
    let with_a_member = nodes_with_a_member(nodes, members);
    with_a_member + (nodes - with_a_member) * at_least_one(1.0 / buckets, rooms)
}

/// How likely it is that a node does not listen to a room yet that a socket of it joins, which then has `members`.
pub fn first_on_its_node(nodes: f64, members: f64) -> f64 {
    (1.0 - 1.0 / nodes).powf(members - 1.0)
}

/// One heartbeat of every node: that it lives, how it is, and where it is reached; each to all, the sender among them.
pub fn heartbeat(nodes: f64) -> Messages {
    Messages::new(3.0 * nodes, 3.0 * nodes * nodes)
}

/// An emit to a room that so many nodes listen to.
pub fn room_emit(listening: f64) -> Messages {
    Messages::new(1.0, listening)
}

/// An emit to everybody in a namespace that all nodes have.
pub fn everybody_emit(nodes: f64) -> Messages {
    Messages::new(1.0, nodes)
}

/// An emit to one socket, from any node: nothing, where the socket is on the same one.
pub fn socket_emit(nodes: f64) -> Messages {
    let others = (nodes - 1.0) / nodes;
    Messages::new(others, others)
}

/// A question to all, as counts and changes by selector are.
pub fn question(nodes: f64) -> Messages {
    Messages::new(1.0, nodes)
}

/// The answers: one of each other node.
pub fn answers(nodes: f64) -> Messages {
    Messages::new(nodes - 1.0, nodes - 1.0)
}

/// The answers to an emit with acks: each other node says whom it asked, and passes on each ack. Acks that come at the same
/// time travel together, so this is the most.
pub fn acks(nodes: f64, members: f64) -> Messages {
    let others = (nodes - 1.0) / nodes;
    answers(nodes).plus(Messages::new(members * others, members * others))
}

/// How often a socket or a room that changed is told to another node. It has two owners, of which the node may be one.
pub fn told(nodes: f64) -> f64 {
    if nodes < 2.0 { 0.0 } else { 2.0 * (nodes - 1.0) / nodes }
}

/// What changes on one node.
#[derive(Debug, Clone, Copy)]
pub struct Churn {
    /// Sockets that come or go each second.
    pub events: f64,
    /// What changes with one: the socket, and its rooms.
    pub entries: f64,
    /// How many rooms become occupied or empty with one, in the whole cluster.
    pub announcements: f64,
}

/// How often nodes tell the owners of the directory what changed, in seconds.
#[derive(Debug, Clone, Copy)]
pub struct Pace {
    /// No more often than this.
    pub interval: f64,
    /// No less often than this: also when nothing changed.
    pub heartbeat: f64,
}

/// Updates of the directory, of all nodes, each second. Each node tells each other one, with every interval in which
/// something changed that the other one owns, and with every heartbeat at least.
pub fn updates(nodes: f64, churn: Churn, pace: Pace) -> Messages {
    if nodes < 2.0 {
        return Messages::default();
    }
    let Pace { interval, heartbeat } = pace;
    let concerned = at_least_one(2.0 / nodes, churn.entries);
    // What a node announces it tells the one other owner.
    let news = churn.events * (concerned + churn.announcements / (nodes - 1.0));
    let gap = if news > 0.0 {
        let none_within = |time: f64| (-news * time).exp();
        // The mean time from one update to the next, which ends with news or is a heartbeat. Where much else happens on the
        // node, it looks once in an interval,
        let in_turns = interval * (1.0 - none_within(heartbeat)) / (1.0 - none_within(interval));
        // otherwise at once, if the last update is an interval ago.
        let at_once = interval + (none_within(interval) - none_within(heartbeat)) / news;
        let much_else = 1.0 - (-churn.events * (1.0 - concerned) * interval).exp();
        much_else * in_turns + (1.0 - much_else) * at_once
    } else {
        heartbeat
    };
    let each = 1.0 / gap;
    Messages::new(1.0, 1.0).times(nodes * (nodes - 1.0) * each)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn near(value: f64, expected: f64) {
        assert!((value - expected).abs() < 1e-9 * expected.abs().max(1.0), "{value} instead of {expected}");
    }

    #[test]
    fn members_are_spread_over_nodes() {
        near(nodes_with_a_member(1.0, 10.0), 1.0);
        near(nodes_with_a_member(5.0, 1.0), 1.0);
        // Both on one of two nodes, or on both: 1.5.
        near(nodes_with_a_member(2.0, 2.0), 1.5);
        assert!(nodes_with_a_member(100.0, 10_000.0) > 99.99);
        near(first_on_its_node(4.0, 1.0), 1.0);
        near(first_on_its_node(4.0, 2.0), 0.75);
    }

    #[test]
    fn buckets_add_the_nodes_with_other_rooms() {
        near(nodes_by_bucket(5.0, 1.0, 16.0, 0.0), 1.0);
        near(nodes_by_bucket(5.0, 1.0, 1.0, 1.0), 5.0);
        near(nodes_by_bucket(5.0, 1.0, 2.0, 1.0), 1.0 + 4.0 / 2.0);
        near(buckets_in_use(16.0, 1.0), 1.0);
        assert!(buckets_in_use(16_384.0, 100_000.0) > 16_300.0);
    }

    #[test]
    fn one_node_says_nothing_to_others() {
        let churn = Churn { events: 10.0, entries: 3.0, announcements: 1.0 };
        let pace = Pace { interval: 0.2, heartbeat: 1.0 };
        assert_eq!(updates(1.0, churn, pace), Messages::default());
        assert_eq!((told(1.0), told(2.0)), (0.0, 1.0));
        assert_eq!(socket_emit(1.0), Messages::default());
        assert_eq!(answers(1.0), Messages::default());
    }

    #[test]
    fn updates_are_between_the_heartbeat_and_the_interval() {
        let pace = Pace { interval: 0.2, heartbeat: 1.0 };
        let of = |events| updates(10.0, Churn { events, entries: 3.0, announcements: 0.0 }, pace).published;
        near(of(0.0), 90.0);
        assert!((90.1..449.0).contains(&of(1.0)), "{}", of(1.0));
        near(of(1e6), 450.0);
    }
}
