//! What is enough: how many nodes, which broker, which settings.

use crate::broker::{Layout, ServerLoad, Strain};
use crate::constants::Constants;
use crate::node::{Bound, Machine, NodeLoad, spare};
use crate::text::number;
use crate::workload::{Settings, Workload};

/// Nodes that a cluster can have: each keeps this many others (`MAX_MEMBERS` of the membership).
pub const MAX_NODES: u32 = 4_096;
/// Heartbeats that are tried, in seconds: the longer, the later a dead node is noticed.
const HEARTBEATS: [f64; 4] = [1.0, 2.0, 5.0, 10.0];

/// Something that is enough.
#[derive(Debug, Clone)]
pub struct Plan {
    /// What nodes run on.
    pub machine: Machine,
    /// All nodes, the spare ones among them.
    pub nodes: f64,
    /// Why one node less would not do.
    pub bound: Bound,
    /// The broker.
    pub layout: Layout,
    /// The settings.
    pub settings: Settings,
    /// What a node has then.
    pub node: NodeLoad,
    /// What the busiest server of the broker has then.
    pub server: ServerLoad,
}

/// Nothing that was tried is enough.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Wall {
    /// No number of nodes is.
    Nodes(Bound),
    /// No broker is.
    Broker(Short),
}

/// A broker that is not enough, for so many nodes as are.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Short {
    /// The broker.
    pub layout: Layout,
    /// Of what it would have to have more.
    pub strain: Strain,
    /// How many times as much as may be used.
    pub share: f64,
    /// The nodes.
    pub nodes: f64,
    /// Why there are so many.
    pub bound: Bound,
}

/// The least number of nodes, and why one less would not do.
///
/// # Errors
///
/// What is too much for the largest cluster.
pub fn nodes_needed(
    workload: &Workload,
    settings: &Settings,
    machine: Machine,
    layout: Layout,
    constants: &Constants,
) -> Result<(f64, Bound), Bound> {
    let mut bound = Bound::Cpu;
    // Never fewer than two, so that one may be away.
    for nodes in 2..=MAX_NODES {
        let nodes = f64::from(nodes);
        let load = NodeLoad::new(workload, settings, nodes, layout, constants);
        match load.exceeded(machine, constants) {
            Some(exceeded) => bound = exceeded,
            None => return Ok((nodes, bound)),
        }
    }
    Err(bound)
}

/// The least number of nodes if only one thing could be too much. Nothing when the largest cluster is not enough.
pub fn nodes_for(bound: Bound, workload: &Workload, plan: &Plan, constants: &Constants) -> Option<u32> {
    (1..=MAX_NODES).find(|nodes| {
        let load = NodeLoad::new(workload, &plan.settings, f64::from(*nodes), plan.layout, constants);
        load.share(bound, plan.machine, constants) <= 1.0
    })
}

/// The settings that are tried with a heartbeat: the defaults, and as many subscriptions as there are rooms.
fn settings_with(heartbeat: f64) -> [Settings; 2] {
    let settings = Settings { heartbeat, interval: heartbeat / 5.0, ..Settings::default() };
    [settings, Settings { max_room_subjects: f64::INFINITY, ..settings }]
}

/// The first that is enough: with the shortest heartbeat, the first machine, the smallest broker, and the default settings
/// for rooms, in this order of importance.
///
/// # Errors
///
/// What is in the way of the best that was tried.
pub fn plan(workload: &Workload, machines: &[Machine], constants: &Constants) -> Result<Plan, Wall> {
    let mut wall: Option<Wall> = None;
    for heartbeat in HEARTBEATS {
        for machine in machines {
            // Nodes depend on the kind of broker, and on its size by a few descriptors only.
            let sized = settings_with(heartbeat).map(|settings| {
                let of = |layout| nodes_needed(workload, &settings, *machine, layout, constants);
                (settings, of(Layout::Redis(1)), of(Layout::Nats(1)))
            });
            for layout in Layout::ALL {
                for (settings, redis, nats) in &sized {
                    let needed = if matches!(layout, Layout::Redis(_)) { redis } else { nats };
                    let found = match needed {
                        Ok(needed) => fits(workload, settings, layout, (*machine, *needed), constants),
                        Err(bound) => Err(Wall::Nodes(*bound)),
                    };
                    match found {
                        Ok(plan) => return Ok(plan),
                        Err(found) => wall = Some(wall.map_or(found, |wall| wall.nearer(found))),
                    }
                }
            }
        }
    }
    Err(wall.unwrap_or(Wall::Nodes(Bound::Cpu)))
}

fn fits(
    workload: &Workload,
    settings: &Settings,
    layout: Layout,
    (machine, (nodes, bound)): (Machine, (f64, Bound)),
    constants: &Constants,
) -> Result<Plan, Wall> {
    let server = ServerLoad::new(workload, settings, nodes, layout, constants);
    let (strain, share) = server.worst(layout, constants);
    if share > 1.0 {
        return Err(Wall::Broker(Short { layout, strain, share, nodes, bound }));
    }
    let node = NodeLoad::new(workload, settings, nodes, layout, constants);
    Ok(Plan { machine, nodes, bound, layout, settings: *settings, node, server })
}

impl Wall {
    /// Of two the one that is nearer to being none.
    fn nearer(self, other: Self) -> Self {
        match (self, other) {
            (Self::Broker(one), Self::Broker(two)) if one.share <= two.share => self,
            (Self::Broker(..), Self::Nodes(_)) => self,
            _ => other,
        }
    }
}

impl std::fmt::Display for Wall {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Nodes(bound) => write!(out, "{} of {} nodes", bound.name(), number(MAX_NODES.into())),
            Self::Broker(Short { layout, strain, share, nodes, bound }) => write!(
                out,
                "{} of {}, {} times what may be used, with {} nodes because of {}",
                strain.name(),
                layout.name(),
                number(*share),
                number(*nodes),
                bound.name()
            ),
        }
    }
}

impl Plan {
    /// Nodes that may be away.
    pub fn spare(&self, constants: &Constants) -> f64 {
        spare(self.nodes, constants)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::constants;
    use crate::workload::Rooms;

    fn workload(connections: f64, emits: f64) -> Workload {
        Workload {
            connections,
            rooms: vec![Rooms { each: 1.0, size: 10.0, emits }],
            payload: 200.0,
            connects: connections / 1_800.0,
            ..Workload::default()
        }
    }

    #[test]
    fn a_plan_holds_and_one_node_less_does_not() {
        let (_, constants) = constants::read(&constants::path()).unwrap();
        let (all, small) = (workload(1e6, 10_000.0), Machine::small(&constants));
        let plan = plan(&all, &[small], &constants).unwrap();
        assert_eq!(plan.node.exceeded(small, &constants), None);
        assert!(plan.server.worst(plan.layout, &constants).1 <= 1.0);
        let less = NodeLoad::new(&all, &plan.settings, plan.nodes - 1.0, plan.layout, &constants);
        assert_eq!(less.exceeded(small, &constants), Some(plan.bound));
        assert!(nodes_for(plan.bound, &all, &plan, &constants).is_some());
    }

    #[test]
    fn more_needs_more() {
        let (_, constants) = constants::read(&constants::path()).unwrap();
        let machines = [Machine::small(&constants)];
        let nodes =
            |connections, emits| plan(&workload(connections, emits), &machines, &constants).unwrap().nodes;
        assert_eq!(nodes(1_000.0, 1.0), 2.0);
        assert!(nodes(1e6, 1.0) < nodes(1e7, 1.0));
        assert!(nodes(1e6, 1.0) < nodes(1e6, 200_000.0));
    }

    #[test]
    fn what_is_in_the_way_is_named() {
        let (_, constants) = constants::read(&constants::path()).unwrap();
        let machines = [Machine::small(&constants)];
        let wall = |connections, emits, constants: &Constants| {
            plan(&workload(connections, emits), &machines, constants).unwrap_err()
        };
        assert_eq!(wall(1e9, 1.0, &constants), Wall::Nodes(Bound::Descriptors));
        let emits = wall(1e6, 1e8, &constants);
        assert!(matches!(emits, Wall::Nodes(Bound::Cpu | Bound::Receiving)), "{emits:?}");
        let slow = wall(1e6, 1.0, &Constants { broker_bandwidth: 1.0, ..constants });
        assert!(
            matches!(slow, Wall::Broker(short) if short.strain == Strain::Bandwidth && short.share > 1.0),
            "{slow:?}"
        );
    }
}
