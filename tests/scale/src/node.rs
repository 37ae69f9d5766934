//! What one node has to hold and to do.

use crate::broker::Layout;
use crate::constants::Constants;
use crate::counts;
use crate::workload::{Settings, Stream, Workload, sum};

/// Microseconds in a second.
const MICROS: f64 = 1e6;

/// What can be too much for a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bound {
    /// Its memory.
    Memory,
    /// Its cores.
    Cpu,
    /// The one thread on which messages of the broker are delivered.
    Receiving,
    /// Its descriptors.
    Descriptors,
    /// Its cores, while the connections of a node that died come to the others.
    Storm,
}

impl Bound {
    /// All of them, in the order in which they are named when several are hit.
    pub const ALL: [Self; 5] = [Self::Descriptors, Self::Memory, Self::Cpu, Self::Receiving, Self::Storm];

    /// A word for tables.
    pub fn name(self) -> &'static str {
        match self {
            Self::Memory => "memory",
            Self::Cpu => "CPU",
            Self::Receiving => "receiving",
            Self::Descriptors => "descriptors",
            Self::Storm => "storm",
        }
    }
}

/// What a node runs on.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Machine {
    /// Cores.
    pub cores: f64,
    /// Bytes.
    pub memory: f64,
    /// Descriptors that the process may have open.
    pub descriptors: f64,
}

impl Machine {
    /// The small one.
    pub fn small(constants: &Constants) -> Self {
        Self {
            cores: constants.node_cores,
            memory: constants.node_memory,
            descriptors: constants.node_descriptors,
        }
    }

    /// The large one.
    pub fn large(constants: &Constants) -> Self {
        Self {
            cores: constants.large_cores,
            memory: constants.large_memory,
            descriptors: constants.large_descriptors,
        }
    }
}

/// Nodes that may be away: draining, restarting or dead. The others have their connections.
pub fn spare(nodes: f64, constants: &Constants) -> f64 {
    if nodes <= 1.0 { 0.0 } else { (nodes * constants.spare).ceil() }
}

/// What a node has, when the spare ones are away.
#[derive(Debug, Clone, Copy)]
pub struct NodeLoad {
    /// Its connections.
    pub connections: f64,
    /// Bytes, those of the kernel among them.
    pub memory: f64,
    /// Cores that are busy.
    pub cpu: f64,
    /// Of which writing to clients is this.
    pub writing: f64,
    /// Of which what the size of the cluster alone costs is this.
    pub clustering: f64,
    /// How busy the thread is that delivers what the broker brings.
    pub receiving: f64,
    /// Open descriptors.
    pub descriptors: f64,
    /// Cores that are busy while another node's connections come.
    pub storm: f64,
    /// Messages of the broker, each second.
    pub received: f64,
}

impl NodeLoad {
    /// What a node of so many has.
    pub fn new(
        workload: &Workload,
        settings: &Settings,
        nodes: f64,
        layout: Layout,
        constants: &Constants,
    ) -> Self {
        let streams = workload.streams(settings, nodes, constants);
        let serving = nodes - spare(nodes, constants);
        let connections = workload.connections / serving;
        let received = sum(&streams).delivered / nodes;
        let writing = workload.deliveries() / serving * constants.delivery_us / MICROS;
        let clustering = clustering(&streams, settings, nodes, constants);
        let cpu = connections * constants.heartbeat_us / MICROS
            + writing
            + serving_cpu(workload, settings, nodes, constants)
            + clustering;
        // Everybody who was on one node comes to the others, who have the spare nodes among them.
        let others = (nodes - 1.0).max(1.0);
        let coming = connections / others / constants.storm_seconds;
        Self {
            connections,
            memory: memory(workload, settings, nodes, layout, constants),
            cpu,
            writing,
            clustering,
            receiving: received * constants.receive_us / MICROS,
            descriptors: connections + layout.connections_of_a_node(),
            storm: cpu + coming * constants.connect_us / MICROS,
            received,
        }
    }

    /// How much of what there is of something is in use; more than 1 is too much.
    pub fn share(&self, bound: Bound, machine: Machine, constants: &Constants) -> f64 {
        match bound {
            Bound::Memory => self.memory / (machine.memory * constants.memory_fill),
            Bound::Cpu => self.cpu / (machine.cores * constants.cpu_fill),
            Bound::Receiving => self.receiving / constants.cpu_fill,
            Bound::Descriptors => self.descriptors / (machine.descriptors * constants.descriptor_fill),
            Bound::Storm => self.storm / machine.cores,
        }
    }

    /// What is too much, the worst first.
    pub fn exceeded(&self, machine: Machine, constants: &Constants) -> Option<Bound> {
        let shares = Bound::ALL.map(|bound| (bound, self.share(bound, machine, constants)));
        let worst = shares.into_iter().reduce(|worst, next| if next.1 > worst.1 { next } else { worst });
        worst.filter(|(_, share)| *share > 1.0).map(|(bound, _)| bound)
    }
}

/// Cores for what clients and backends do, without the writes of deliveries.
fn serving_cpu(workload: &Workload, settings: &Settings, nodes: f64, constants: &Constants) -> f64 {
    let serving = nodes - spare(nodes, constants);
    let connects = workload.connects / serving * constants.connect_us;
    let changes = workload.subscription_changes(settings, nodes) / serving * constants.subscribe_us;
    // Each entry is sent by one node and taken by another.
    let entries = workload.entries_told(nodes) / serving * constants.entry_us;
    (connects + changes + entries) / MICROS
}

/// Cores for what goes over the broker, and for knowing the members.
fn clustering(streams: &[Stream], settings: &Settings, nodes: f64, constants: &Constants) -> f64 {
    let messages = sum(streams);
    let published = messages.published / nodes * constants.publish_us;
    let received = messages.delivered / nodes * constants.receive_us;
    // With each heartbeat and each vitals of a member all members are looked at, twice.
    let visits = 4.0 * nodes * nodes / settings.heartbeat * constants.visit_us;
    (published + received + visits) / MICROS
}

fn memory(
    workload: &Workload,
    settings: &Settings,
    nodes: f64,
    layout: Layout,
    constants: &Constants,
) -> f64 {
    let serving = nodes - spare(nodes, constants);
    let connections = workload.connections / serving;
    let memberships = connections * workload.entries();
    let subscriptions = workload.subscriptions_of_a_node(settings, nodes);
    let owned: f64 = workload
        .rooms
        .iter()
        .map(|rooms| {
            let all = workload.connections * rooms.each / rooms.size;
            let shares = counts::nodes_with_a_member(nodes, rooms.size);
            all * (constants.owned_room_bytes + shares * constants.owned_share_bytes)
        })
        .sum::<f64>()
        + workload.connections * constants.owned_socket_bytes;
    let owners = nodes.min(2.0);
    connections * (constants.connection_bytes + constants.kernel_bytes)
        + memberships * constants.membership_bytes
        + subscriptions * layout.room_bytes(constants)
        + owned * owners / serving
        + nodes * constants.member_bytes
        + constants.process_bytes
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::constants;
    use crate::workload::Rooms;

    #[test]
    fn what_is_too_much_is_named() {
        let (_, constants) = constants::read(&constants::path()).unwrap();
        let idle = |connections| Workload {
            connections,
            rooms: vec![Rooms { each: 1.0, size: 10.0, emits: 0.0 }],
            ..Workload::default()
        };
        let load = |workload: &Workload| {
            NodeLoad::new(workload, &Settings::default(), 3.0, Layout::Redis(1), &constants)
        };
        let exceeded = |workload: &Workload| load(workload).exceeded(Machine::small(&constants), &constants);
        assert_eq!(exceeded(&idle(100_000.0)), None);
        assert_eq!(exceeded(&idle(1_000_000.0)), Some(Bound::Descriptors));
        let busy = Workload { questions: 1e5, ..idle(100_000.0) };
        assert_eq!(exceeded(&busy), Some(Bound::Receiving));
        let loud = Workload { everybody_emits: 10.0, ..idle(100_000.0) };
        assert_eq!(exceeded(&loud), Some(Bound::Cpu));
        let one = load(&loud);
        // Two nodes have what three are for.
        assert_eq!((one.connections, spare(3.0, &constants)), (50_000.0, 1.0));
        assert!((one.writing - 500_000.0 * constants.delivery_us / 1e6).abs() < 1e-9);
    }
}
