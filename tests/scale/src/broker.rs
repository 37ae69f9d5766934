//! What the busiest server of a broker has to do.

use crate::constants::Constants;
use crate::workload::{Settings, Stream, Workload};

/// Microseconds in a second.
const MICROS: f64 = 1e6;

/// Servers that are the broker together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Layout {
    /// One Redis, or the masters of a Redis Cluster with sharded publish/subscribe.
    Redis(u32),
    /// The servers of a NATS cluster, each with routes to all others.
    Nats(u32),
}

impl Layout {
    /// What is tried, small ones first. A NATS cluster beyond 17 servers has some that nodes do not probe.
    pub const ALL: [Self; 11] = [
        Self::Redis(1),
        Self::Nats(1),
        Self::Redis(3),
        Self::Nats(3),
        Self::Nats(5),
        Self::Redis(6),
        Self::Nats(9),
        Self::Redis(12),
        Self::Nats(17),
        Self::Redis(24),
        Self::Redis(48),
    ];

    /// For tables.
    pub fn name(self) -> String {
        match self {
            Self::Redis(1) => "1 Redis".to_owned(),
            Self::Redis(masters) => format!("Redis Cluster, {masters} masters"),
            Self::Nats(1) => "1 NATS".to_owned(),
            Self::Nats(servers) => format!("NATS, {servers} servers"),
        }
    }

    fn servers(self) -> f64 {
        match self {
            Self::Redis(servers) | Self::Nats(servers) => servers.into(),
        }
    }

    /// Connections that a node has to the broker.
    pub fn connections_of_a_node(self) -> f64 {
        match self {
            Self::Redis(masters) => 2.0 * f64::from(masters),
            Self::Nats(servers) => 2.0 + f64::from(servers.saturating_sub(1).min(16)),
        }
    }

    /// Bytes that a subscription of a room takes on a node.
    pub fn room_bytes(self, constants: &Constants) -> f64 {
        match self {
            Self::Redis(_) => constants.redis_room_bytes,
            Self::Nats(_) => constants.nats_room_bytes,
        }
    }

    /// Cores that a server can use.
    fn cores(self, constants: &Constants) -> f64 {
        match self {
            Self::Redis(_) => constants.redis_cores,
            Self::Nats(_) => constants.nats_cores,
        }
    }
}

/// The busiest server.
#[derive(Debug, Clone, Copy)]
pub struct ServerLoad {
    /// Messages that it gets each second, from nodes and from other servers.
    pub received: f64,
    /// Messages that it sends.
    pub sent: f64,
    /// Bytes that it sends, or gets if that is more, each second.
    pub bytes: f64,
    /// Of the cores that it can use, how many are busy.
    pub cpu: f64,
    /// Bytes for the subscriptions that it has to know.
    pub memory: f64,
    /// Seconds until all nodes have subscribed to everything again after it was away.
    pub back_in: f64,
}

/// What can be too much for a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Strain {
    /// Its cores.
    Cpu,
    /// Its network.
    Bandwidth,
    /// Its memory.
    Memory,
}

impl Strain {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Cpu, Self::Bandwidth, Self::Memory];

    /// A word for tables.
    pub fn name(self) -> &'static str {
        match self {
            Self::Cpu => "CPU",
            Self::Bandwidth => "network",
            Self::Memory => "memory",
        }
    }
}

/// What a server gets and sends for one stream.
struct Passed {
    received: f64,
    sent: f64,
}

impl Layout {
    fn passes(self, stream: &Stream) -> Passed {
        let (published, delivered) = (stream.messages.published, stream.messages.delivered);
        let servers = self.servers();
        match self {
            // The one that has the subject of all nodes. In the worst case all such subjects are on one.
            Self::Redis(_) if stream.one_subject => Passed { received: published, sent: delivered },
            Self::Redis(_) => Passed { received: published / servers, sent: delivered / servers },
            // Nodes are spread over the servers. A message goes once to each other server with somebody who wants it.
            Self::Nats(_) if published > 0.0 => {
                let wants = 1.0 - (1.0 - 1.0 / servers).powf(delivered / published);
                let passed_on = published * (servers - 1.0) * wants;
                Passed {
                    received: (published + passed_on) / servers,
                    sent: (delivered + passed_on) / servers,
                }
            }
            Self::Nats(_) => Passed { received: 0.0, sent: 0.0 },
        }
    }
}

impl ServerLoad {
    /// The busiest server of a layout.
    pub fn new(
        workload: &Workload,
        settings: &Settings,
        nodes: f64,
        layout: Layout,
        constants: &Constants,
    ) -> Self {
        let streams = workload.streams(settings, nodes, constants);
        let [publish, send, subscribe, subscription] = match layout {
            Layout::Redis(_) => [
                constants.redis_publish_us,
                constants.redis_send_us,
                constants.redis_subscribe_us,
                constants.redis_subscription_bytes,
            ],
            Layout::Nats(_) => [
                constants.nats_publish_us,
                constants.nats_send_us,
                constants.nats_subscribe_us,
                constants.nats_subscription_bytes,
            ],
        };
        let (mut received, mut sent, mut bytes_in, mut bytes_out) = (0.0, 0.0, 0.0, 0.0);
        for stream in &streams {
            let passed = layout.passes(stream);
            received += passed.received;
            sent += passed.sent;
            bytes_in += passed.received * stream.bytes;
            bytes_out += passed.sent * stream.bytes;
        }
        let all = nodes * workload.subscriptions_of_a_node(settings, nodes);
        // A master knows its own; each server of a NATS cluster knows who wants what behind the others, too.
        let known = match layout {
            Layout::Redis(_) => all / layout.servers(),
            Layout::Nats(_) => all,
        };
        let changes = workload.subscription_changes(settings, nodes) * known / all.max(1.0);
        let cores = layout.cores(constants);
        Self {
            received,
            sent,
            bytes: f64::max(bytes_in, bytes_out),
            cpu: (received * publish + sent * send + changes * subscribe) / MICROS,
            memory: known * subscription,
            back_in: known * subscribe / MICROS / cores,
        }
    }

    /// How much of something is in use.
    pub fn used(&self, strain: Strain, layout: Layout, constants: &Constants) -> f64 {
        match strain {
            Strain::Cpu => self.cpu / layout.cores(constants),
            Strain::Bandwidth => self.bytes / constants.broker_bandwidth,
            Strain::Memory => self.memory / constants.broker_memory,
        }
    }

    /// The same as a share of what may be; more than 1 is too much.
    pub fn share(&self, strain: Strain, layout: Layout, constants: &Constants) -> f64 {
        let fill = match strain {
            Strain::Cpu | Strain::Bandwidth => constants.cpu_fill,
            Strain::Memory => constants.memory_fill,
        };
        self.used(strain, layout, constants) / fill
    }

    /// The largest of the shares, and of what.
    pub fn worst(&self, layout: Layout, constants: &Constants) -> (Strain, f64) {
        let shares = Strain::ALL.map(|strain| (strain, self.share(strain, layout, constants)));
        shares.into_iter().fold((Strain::Cpu, 0.0), |worst, next| if next.1 > worst.1 { next } else { worst })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::counts::{self, Messages};
    use crate::workload::About;

    fn stream(messages: Messages, one_subject: bool) -> Stream {
        Stream { about: About::Rooms, messages, bytes: 100.0, one_subject }
    }

    #[test]
    fn masters_share_rooms_and_not_what_goes_to_all() {
        let rooms = stream(counts::room_emit(6.0).times(300.0), false);
        let all = stream(counts::everybody_emit(6.0).times(300.0), true);
        let of = |layout: Layout, stream| {
            let Passed { received, sent } = layout.passes(stream);
            (received, sent)
        };
        assert_eq!(of(Layout::Redis(1), &rooms), (300.0, 1_800.0));
        assert_eq!(of(Layout::Redis(3), &rooms), (100.0, 600.0));
        assert_eq!(of(Layout::Redis(3), &all), (300.0, 1_800.0));
    }

    #[test]
    fn servers_of_nats_pass_on_to_those_with_somebody_who_wants_it() {
        let of = |servers, stream: &Stream| {
            let Passed { received, sent } = Layout::Nats(servers).passes(stream);
            (received, sent)
        };
        let to_one = stream(Messages { published: 300.0, delivered: 300.0 }, false);
        assert_eq!(of(1, &to_one), (300.0, 300.0));
        // Two of three messages are for a node at another server: 500 in and out, over three servers.
        let (received, sent) = of(3, &to_one);
        assert!((received - 500.0 / 3.0).abs() < 1e-9 && (sent - 500.0 / 3.0).abs() < 1e-9);
        // Everybody wants it: each server gets each message.
        let to_many = stream(Messages { published: 300.0, delivered: 300_000.0 }, true);
        let (received, sent) = of(3, &to_many);
        assert!((received - 300.0).abs() < 1e-9 && (sent - 100_200.0).abs() < 1e-6);
    }
}
