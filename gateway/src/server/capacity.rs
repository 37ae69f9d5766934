//! Whether a node has as much as it takes, in connections and in memory, and what follows for new clients and for readiness.
//!
//! Owns the decision, a state machine, and the look at the system once a second. Refusing is `connection::admission`'s.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use roomcast_adapter::NodeState;
use tokio::sync::watch;

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
        self.unready = full && seen.unready_when_full && !self.last_resort;
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
            capacity.look(Seen {
                connections: io.connection_count() as u64,
                max_connections: io.engine().config.public.max_connections as u64,
                memory,
                unready_when_full: config.admission.unready_when_full,
                others_are_ready: others_are_ready(&io),
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
    others.filter_map(|info| info.standing).any(|standing| standing.state == NodeState::Ready)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SEEN: Seen = Seen {
        connections: 0,
        max_connections: 100,
        memory: None,
        unready_when_full: true,
        others_are_ready: true,
    };

    /// Whether the node is unready after each look.
    fn unready(capacity: &mut Capacity, looks: impl IntoIterator<Item = Seen>) -> Vec<bool> {
        let looks = looks.into_iter().map(|seen| {
            capacity.look(seen);
            capacity.unready
        });
        looks.collect()
    }

    fn connections(connections: u64) -> Seen {
        Seen { connections, ..SEEN }
    }

    #[test]
    fn a_full_node_is_unready_until_it_has_a_tenth_less() {
        let looks = [99, 100, 99, 91, 90, 89, 99, 100].map(connections);
        let expected = [false, true, true, true, true, false, false, true];
        assert_eq!(unready(&mut Capacity::default(), looks), expected);
    }

    #[test]
    fn a_bound_of_one_has_a_way_back() {
        let looks = [0, 1, 1, 0].map(|connections| Seen { connections, max_connections: 1, ..SEEN });
        assert_eq!(unready(&mut Capacity::default(), looks), [false, true, true, false]);
    }

    #[test]
    fn memory_counts_like_connections_for_as_long_as_it_is_bounded() {
        let looks = [Some((99, 100)), Some((100, 100)), Some((95, 100)), None, Some((95, 100))];
        let looks = looks.map(|memory| Seen { memory, ..SEEN });
        assert_eq!(unready(&mut Capacity::default(), looks), [false, true, true, false, false]);
    }

    #[test]
    fn the_last_node_stays_ready_and_does_not_waver() {
        let alone = |connections| Seen { connections, others_are_ready: false, ..SEEN };
        let mut capacity = Capacity::default();
        assert_eq!(unready(&mut capacity, [alone(100), connections(100), connections(95)]), [false; 3]);
        // Until there was room once.
        assert_eq!(unready(&mut capacity, [connections(89), connections(100)]), [false, true]);
        // The others went: it takes their clients, as far as it can.
        assert_eq!(unready(&mut capacity, [alone(100), connections(100)]), [false, false]);
    }

    #[test]
    fn readiness_may_be_left_alone() {
        let seen = Seen { connections: 100, unready_when_full: false, ..SEEN };
        let mut capacity = Capacity::default();
        assert_eq!(unready(&mut capacity, [seen]), [false]);
        assert!(capacity.connections.0);
    }
}
