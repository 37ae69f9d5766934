//! A node with more than its share of the connections gives some away, slowly, so that they come to nodes that joined later.
//!
//! Owns when and how many, a state machine, and the look once a second. Which connections go is `connection::farewell`'s; where
//! their clients come back is decided by the balancer.

use std::sync::Arc;
use std::time::Duration;

use roomcast_adapter::NodeState;
use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior};

use super::Io;
use crate::backend::Node;
use crate::config::{Config, Rebalance};
use crate::connection::Leaving;
use crate::metrics::SentAway;

/// How often one looks.
const LOOK: Duration = Duration::from_secs(1);

/// A node that has been ready for less keeps what it has: whoever else starts with it is on its way, too.
const SETTLE: Duration = Duration::from_secs(10);

/// Connections that may be given away for each one that the node had too many. Of those that are sent away some come back by
/// chance, with two nodes every other one; when more do, the balancer sends them back.
const PATIENCE: u64 = 4;

/// How long a node that gave up rests.
const REST: Duration = Duration::from_secs(600);

/// What is seen at one look.
#[derive(Debug, Clone, Default)]
struct Seen {
    /// Whether this node takes clients.
    ready: bool,
    /// Its connections.
    mine: u64,
    /// The connections of each other node that takes clients.
    others: Vec<u64>,
}

/// What is to be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Decision {
    Keep,
    /// Give so many away within the next second.
    GiveAway(u64),
    /// Those who are sent away come back.
    GiveUp,
}

/// The decision of one node.
#[derive(Debug, Default)]
struct Rebalancer {
    ready_since: Option<Instant>,
    /// While it gives away: how many it may.
    left: Option<u64>,
    rests_until: Option<Instant>,
}

impl Rebalancer {
    fn look(&mut self, settings: &Rebalance, seen: &Seen, now: Instant) -> Decision {
        let Some(threshold) = settings.threshold.filter(|_| seen.ready && !seen.others.is_empty()) else {
            (self.ready_since, self.left) = (None, None);
            return Decision::Keep;
        };
        let since = *self.ready_since.get_or_insert(now);
        if now.duration_since(since) < SETTLE || self.rests_until.is_some_and(|until| now < until) {
            return Decision::Keep;
        }
        let all = seen.others.iter().sum::<u64>() + seen.mine;
        let mean = all as f64 / (seen.others.len() + 1) as f64;
        // Down to half of what is allowed, so that the next client does not begin it anew.
        let enough = ((mean * (1.0 + threshold / 2.0)).ceil() as u64).max(settings.floor);
        let too_many = seen.mine.saturating_sub(enough);
        if too_many == 0 || (self.left.is_none() && seen.mine as f64 <= mean * (1.0 + threshold)) {
            self.left = None;
            return Decision::Keep;
        }
        let left = self.left.get_or_insert(too_many * PATIENCE);
        if *left == 0 {
            (self.left, self.rests_until) = (None, Some(now + REST));
            return Decision::GiveUp;
        }
        let count = too_many.min(settings.rate.into()).min(*left);
        *left -= count;
        Decision::GiveAway(count)
    }

    fn gives_away(&self) -> bool {
        self.left.is_some()
    }
}

/// Looks once a second, and gives away. Never ends.
pub(super) async fn rebalance(io: Io, node: Arc<dyn Node>, config: watch::Receiver<Arc<Config>>) {
    let (mut rebalancer, mut looks) = (Rebalancer::default(), tokio::time::interval(LOOK));
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        looks.tick().await;
        let settings = config.borrow().rebalance.clone();
        let seen =
            Seen { ready: node.unready().is_none(), mine: io.connection_count() as u64, others: others(&io) };
        let before = rebalancer.gives_away();
        let decision = rebalancer.look(&settings, &seen, Instant::now());
        io.metrics().rebalancing.set(i64::from(rebalancer.gives_away()));
        if before != rebalancer.gives_away() && decision != Decision::GiveUp {
            let Seen { mine, others, .. } = &seen;
            tracing::info!(gives_away = !before, connections = mine, ?others, "rebalancing");
        }
        match decision {
            Decision::Keep => {}
            Decision::GiveAway(count) => {
                let count = usize::try_from(count).unwrap_or(usize::MAX);
                let mut leaving = Leaving::some(io.engine(), count, SentAway::Rebalance);
                leaving.go(io.engine(), None, LOOK).await;
            }
            Decision::GiveUp => {
                io.metrics().rebalance_gave_up.inc();
                tracing::warn!(
                    connections = seen.mine,
                    others = ?seen.others,
                    "giving up to rebalance: clients that were sent away come back to this node; see docs/operations/drain.md"
                );
            }
        }
    }
}

/// The connections of each other live node that takes clients.
fn others(io: &Io) -> Vec<u64> {
    let me = io.factory().node();
    let others = io.factory().node_infos().into_iter().filter(|info| info.tag != me);
    let ready = others.filter_map(|info| info.standing).filter(|standing| standing.state == NodeState::Ready);
    ready.map(|standing| standing.connections).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const SETTINGS: Rebalance = Rebalance { threshold: Some(0.2), rate: 10, floor: 0 };

    /// A cluster whose nodes look once a second, and whose balancer sends a client that comes back where `choose` says.
    struct Cluster {
        nodes: Vec<Rebalancer>,
        connections: Vec<u64>,
        /// What the nodes know of each other: a heartbeat old.
        known: Vec<u64>,
        /// Clients on their way back.
        away: u64,
        sent_away: u64,
        now: Instant,
    }

    impl Cluster {
        fn new(connections: &[u64]) -> Self {
            Self {
                nodes: connections.iter().map(|_| Rebalancer::default()).collect(),
                connections: connections.to_vec(),
                known: connections.to_vec(),
                away: 0,
                sent_away: 0,
                now: Instant::now(),
            }
        }

        /// A second. What each node decided.
        fn second(&mut self, choose: &mut impl FnMut() -> usize) -> Vec<Decision> {
            for _ in 0..std::mem::take(&mut self.away) {
                self.connections[choose()] += 1;
            }
            let decisions: Vec<_> = (0..self.nodes.len()).map(|node| self.look(node)).collect();
            self.known.clone_from(&self.connections);
            for (node, decision) in decisions.iter().enumerate() {
                if let Decision::GiveAway(count) = decision {
                    self.connections[node] -= count;
                    self.away += count;
                    self.sent_away += count;
                }
            }
            self.now += LOOK;
            decisions
        }

        fn look(&mut self, node: usize) -> Decision {
            let others = self.known.iter().enumerate().filter(|(other, _)| *other != node);
            let others = others.map(|(_, known)| *known).collect();
            let seen = Seen { ready: true, mine: self.connections[node], others };
            self.nodes[node].look(&SETTINGS, &seen, self.now)
        }

        /// Until nobody gives anything away any more, for a minute.
        fn settle(&mut self, choose: &mut impl FnMut() -> usize) -> Vec<Decision> {
            let (mut quiet, mut decisions) = (0, Vec::new());
            while quiet < 60 {
                let second = self.second(choose);
                assert!(second.iter().all(|one| !matches!(one, Decision::GiveAway(count) if *count > 10)));
                quiet = if second.iter().all(|one| *one == Decision::Keep) { quiet + 1 } else { 0 };
                decisions.extend(second);
                assert!(decisions.len() < 100_000, "it never ends: {:?}", self.connections);
            }
            decisions
        }
    }

    #[test]
    fn one_node_with_everything_gives_away_until_it_has_its_share() {
        for nodes in 2..=5_usize {
            let mut start = vec![0; nodes];
            start[0] = 600;
            let mut cluster = Cluster::new(&start);
            let decisions = cluster.settle(&mut || rand::random_range(0..nodes));
            let mean = 600.0 / nodes as f64;
            assert_eq!(cluster.connections.iter().sum::<u64>(), 600);
            assert!(
                cluster.connections.iter().all(|one| *one as f64 <= mean * 1.25),
                "{:?}",
                cluster.connections
            );
            assert!(!decisions.contains(&Decision::GiveUp));
            let too_many = 600.0 - mean * 1.1;
            assert!(cluster.sent_away as f64 <= too_many * 3.0, "{} of {too_many}", cluster.sent_away);
        }
    }

    #[test]
    fn a_balancer_that_chooses_the_least_wastes_nothing() {
        let mut cluster = Cluster::new(&[300, 300, 0]);
        cluster.settle(&mut || 2);
        assert!(cluster.connections[..2].iter().all(|one| *one <= 221), "{:?}", cluster.connections);
        assert_eq!(cluster.sent_away, cluster.connections[2]);
    }

    #[test]
    fn what_is_within_the_threshold_stays() {
        for connections in [[100, 100, 100], [119, 90, 91], [0, 0, 0], [1, 0, 0]] {
            let mut cluster = Cluster::new(&connections);
            cluster.settle(&mut || 0);
            assert_eq!(cluster.sent_away, 0, "{connections:?}");
        }
    }

    #[test]
    fn clients_that_come_back_to_their_node_are_left_alone_in_the_end() {
        let mut cluster = Cluster::new(&[600, 0, 0]);
        let decisions = cluster.settle(&mut || 0);
        assert_eq!(decisions.iter().filter(|decision| **decision == Decision::GiveUp).count(), 1);
        assert!(cluster.sent_away <= 380 * PATIENCE);
        assert_eq!(cluster.connections, [600, 0, 0]);
    }

    #[test]
    fn a_node_keeps_what_it_has_while_it_is_alone_not_ready_or_just_started() {
        let start = Instant::now();
        let seen = Seen { ready: true, mine: 600, others: vec![0] };
        let mut rebalancer = Rebalancer::default();
        let mut look =
            |seen: Seen, after: u64| rebalancer.look(&SETTINGS, &seen, start + LOOK * after as u32);
        assert_eq!(look(seen.clone(), 0), Decision::Keep);
        assert_eq!(look(seen.clone(), 9), Decision::Keep);
        assert_eq!(look(seen.clone(), 10), Decision::GiveAway(10));
        for keeps in [Seen { ready: false, ..seen.clone() }, Seen { others: vec![], ..seen.clone() }] {
            assert_eq!(look(keeps, 11), Decision::Keep);
            assert_eq!(look(seen.clone(), 12), Decision::Keep);
            assert_eq!(look(seen.clone(), 22), Decision::GiveAway(10));
        }
    }

    #[test]
    fn it_is_off_unless_a_threshold_is_set_and_small_nodes_keep_all() {
        let (now, later) = (Instant::now(), Instant::now() + SETTLE);
        let seen = Seen { ready: true, mine: 100, others: vec![0, 0] };
        for settings in [Rebalance::default(), Rebalance { floor: 100, ..SETTINGS }] {
            let mut rebalancer = Rebalancer::default();
            rebalancer.look(&settings, &seen, now);
            assert_eq!(rebalancer.look(&settings, &seen, later), Decision::Keep);
        }
    }
}
