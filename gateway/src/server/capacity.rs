//! Whether a node has as much as it takes, in connections and in memory, and what follows for new clients and for readiness.
//!
//! Owns the decision, a state machine, and the look at the system once a second. Refusing is `connection::admission`'s.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use roomcast_adapter::{NodeInfo, NodeState, NodeTag};
use tokio::sync::watch;
use tokio::time::Instant;

use super::{Io, memory};
use crate::config::{Config, MemoryLimit};
use crate::metrics::Fullness;

/// How often one looks.
const LOOK: Duration = Duration::from_secs(1);

/// What is seen at one look.
#[derive(Debug, Clone, Copy)]
struct Seen {
    connections: u64,
    max_connections: u64,
    /// The memory of the process, and what it may have, in bytes.
    memory: Option<(u64, u64)>,
    /// Whether being full makes the node unready at all.
    unready_when_full: bool,
    /// Whether another node of the cluster takes clients.
    others_are_ready: bool,
    now: Instant,
    /// For how long a node has to be full before it is unready. Others that are full, too, are unready before, and seen to be.
    patience: Duration,
}

/// A bound with a way back: what reached it has to fall by a tenth.
#[derive(Debug, Default)]
struct Mark(bool);

impl Mark {
    fn look(&mut self, value: u64, max: u64) -> bool {
        let enough = if self.0 { max - max / 10 } else { max };
        self.0 = value >= enough;
        self.0
    }
}

/// What a node has as much of as it takes.
#[derive(Debug, Default)]
struct Capacity {
    connections: Mark,
    memory: Mark,
    /// Full, and ready all the same, until there is room: when no node is ready, balancers send away those who are
    /// connected, too.
    last_resort: bool,
    /// From when on it is unready, if it is full until then and another node is ready then.
    unready_at: Option<Instant>,
    unready: bool,
}

impl Capacity {
    fn look(&mut self, seen: Seen) {
        self.connections.look(seen.connections, seen.max_connections);
        match seen.memory {
            Some((used, max)) => _ = self.memory.look(used, max),
            None => self.memory = Mark::default(),
        }
        let full = self.connections.0 || self.memory.0;
        self.last_resort = full && (self.last_resort || !seen.others_are_ready);
        let unready_at = self.unready_at.unwrap_or(seen.now + seen.patience);
        self.unready_at = full.then_some(unready_at);
        self.unready = full && seen.unready_when_full && !self.last_resort && seen.now >= unready_at;
    }
}

/// Whether a node is not ready because it is full. Never ends looking.
#[derive(Debug, Default)]
pub(super) struct Full(AtomicBool);

impl Full {
    pub(super) fn is_unready(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    /// Looks once a second.
    pub(super) async fn watch(&self, io: Io, config: watch::Receiver<Arc<Config>>) {
        let (mut capacity, mut looks) = (Capacity::default(), tokio::time::interval(LOOK));
        let mut told = None;
        loop {
            looks.tick().await;
            let config = Arc::clone(&config.borrow());
            if told != config.admission.max_memory {
                told = config.admission.max_memory;
                tell_bound(told);
            }
            let memory = config
                .admission
                .max_memory
                .and_then(|max| Some((memory::resident()?, max.of(memory::limit()?.bytes))));
            let was_unready = capacity.unready;
            let others = ready_others(&io);
            capacity.look(Seen {
                connections: io.connection_count() as u64,
                max_connections: io.engine().config.public.max_connections as u64,
                memory,
                unready_when_full: config.admission.unready_when_full,
                others_are_ready: !others.is_empty(),
                now: Instant::now(),
                patience: patience(io.factory().node(), &others, config.adapter.heartbeat),
            });
            let full = &io.metrics().full;
            full.of(Fullness::Connections).set(i64::from(capacity.connections.0));
            full.of(Fullness::Memory).set(i64::from(capacity.memory.0));
            io.engine().admission.set_memory_is_short(capacity.memory.0);
            self.0.store(capacity.unready, Ordering::Relaxed);
            if was_unready != capacity.unready {
                let (connections, memory) = (io.connection_count(), memory.map(|(used, _)| used));
                tracing::warn!(
                    full = capacity.unready,
                    connections,
                    memory,
                    "ready for further clients, or not"
                );
            }
        }
    }
}

/// Tells what the bound of memory comes to, so that nobody has to guess whether a container's limit was found.
fn tell_bound(max: Option<MemoryLimit>) {
    let (Some(max), Some(limit)) = (max, memory::limit()) else { return };
    let (bytes, of, from) =
        (max.of(limit.bytes), limit.bytes, if limit.of_group { "cgroup" } else { "machine" });
    match max {
        MemoryLimit::Percent(_) if !limit.of_group => tracing::warn!(
            bytes,
            of,
            %max,
            "admission.max_memory is a share of all that the machine has: no control group bounds this process"
        ),
        _ => tracing::info!(bytes, of, from, %max, "new clients are refused from so much memory on"),
    }
}

/// The other live nodes that say that they take clients.
fn ready_others(io: &Io) -> Vec<NodeTag> {
    let me = io.factory().node();
    let others = io.factory().node_infos().into_iter().filter(|info| info.tag != me);
    let is_ready = |info: &NodeInfo| info.standing.is_some_and(|standing| standing.state == NodeState::Ready);
    others.filter(is_ready).map(|info| info.tag).collect()
}

/// Nodes that a balancer fills evenly are full at the same moment, and each still sees the others ready. So they go one after the
/// other, by their tags, with the time between them in which the next one hears of it: two heartbeats, and a look.
fn patience(me: NodeTag, ready_others: &[NodeTag], heartbeat: Duration) -> Duration {
    let before_me = ready_others.iter().filter(|other| **other < me).count();
    (heartbeat * 2 + LOOK).saturating_mul(u32::try_from(before_me + 1).unwrap_or(u32::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen() -> Seen {
        Seen {
            connections: 0,
            max_connections: 100,
            memory: None,
            unready_when_full: true,
            others_are_ready: true,
            now: Instant::now(),
            patience: Duration::ZERO,
        }
    }

    /// Whether the node is unready after each look.
    fn unready(capacity: &mut Capacity, looks: impl IntoIterator<Item = Seen>) -> Vec<bool> {
        let looks = looks.into_iter().map(|seen| {
            capacity.look(seen);
            capacity.unready
        });
        looks.collect()
    }

    fn connections(connections: u64) -> Seen {
        Seen { connections, ..seen() }
    }

    #[test]
    fn a_full_node_is_unready_until_it_has_a_tenth_less() {
        let looks = [99, 100, 99, 91, 90, 89, 99, 100].map(connections);
        let expected = [false, true, true, true, true, false, false, true];
        assert_eq!(unready(&mut Capacity::default(), looks), expected);
    }

    #[test]
    fn a_bound_of_one_has_a_way_back() {
        let looks = [0, 1, 1, 0].map(|connections| Seen { connections, max_connections: 1, ..seen() });
        assert_eq!(unready(&mut Capacity::default(), looks), [false, true, true, false]);
    }

    #[test]
    fn memory_counts_like_connections_for_as_long_as_it_is_bounded() {
        let looks = [Some((99, 100)), Some((100, 100)), Some((95, 100)), None, Some((95, 100))];
        let looks = looks.map(|memory| Seen { memory, ..seen() });
        assert_eq!(unready(&mut Capacity::default(), looks), [false, true, true, false, false]);
    }

    #[test]
    fn the_last_node_stays_ready_and_does_not_waver() {
        let alone = |connections| Seen { connections, others_are_ready: false, ..seen() };
        let mut capacity = Capacity::default();
        assert_eq!(unready(&mut capacity, [alone(100), connections(100), connections(95)]), [false; 3]);
        // Until there was room once.
        assert_eq!(unready(&mut capacity, [connections(89), connections(100)]), [false, true]);
        // The others went: it takes their clients, as far as it can.
        assert_eq!(unready(&mut capacity, [alone(100), connections(100)]), [false, false]);
    }

    #[test]
    fn readiness_may_be_left_alone() {
        let seen = Seen { connections: 100, unready_when_full: false, ..seen() };
        let mut capacity = Capacity::default();
        assert_eq!(unready(&mut capacity, [seen]), [false]);
        assert!(capacity.connections.0);
    }

    /// How two nodes look at each other second by second, each with what it heard of the other a heartbeat ago: who is ready
    /// in the end. Never none is.
    fn two_nodes_fill(at: [u64; 2]) -> [bool; 2] {
        const HEARTBEAT: Duration = Duration::from_secs(1);
        let tags = [1, 2].map(|last| NodeTag::from_random([0, 0, last]));
        let (start, mut nodes) = (Instant::now(), [Capacity::default(), Capacity::default()]);
        let mut said = vec![[true; 2]];
        for second in 0..60 {
            let heard = said.get(said.len().saturating_sub(2)).copied().unwrap();
            for me in [0, 1] {
                let other = 1 - me;
                let ready_others: Vec<_> = heard[other].then_some(tags[other]).into_iter().collect();
                nodes[me].look(Seen {
                    connections: if second >= at[me] { 100 } else { 0 },
                    others_are_ready: heard[other],
                    now: start + Duration::from_secs(second),
                    patience: patience(tags[me], &ready_others, HEARTBEAT),
                    ..seen()
                });
            }
            let ready = nodes.each_ref().map(|node| !node.unready);
            assert_ne!(ready, [false; 2], "filled at {at:?}, after {second} s");
            said.push(ready);
        }
        said.last().copied().unwrap()
    }

    #[test]
    fn nodes_that_are_full_at_the_same_moment_are_never_all_unready() {
        assert_eq!(two_nodes_fill([5, 5]), [false, true]);
        // Filled one after the other, whoever was first is unready.
        assert_eq!(two_nodes_fill([5, 20]), [false, true]);
        assert_eq!(two_nodes_fill([20, 5]), [true, false]);
    }

    #[test]
    fn a_moment_of_being_full_says_nothing() {
        let (start, mut capacity) = (Instant::now(), Capacity::default());
        let at = |second, connections| Seen {
            connections,
            now: start + Duration::from_secs(second),
            patience: Duration::from_secs(3),
            ..seen()
        };
        let looks = [at(0, 100), at(2, 100), at(2, 10), at(3, 100), at(5, 100), at(6, 100)];
        assert_eq!(unready(&mut capacity, looks), [false, false, false, false, false, true]);
    }
}
