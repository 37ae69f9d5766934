//! What can be measured, as the command line names it.

use std::time::Duration;

use clap::{Args, Subcommand};

use super::calls::calls;
use super::echo::echo;
use super::fanout::Fanout;
use super::idle::{churn, connect, idle};
use super::polling::polling;
use super::room::Plan;
use super::server::Setup;
use super::slow::slow;
use super::spread::spread;
use super::target::Target;
use super::{Error, Report};

/// A measurement. Every one of them checks what it gets: counts, order by publisher, connections.
#[derive(Debug, Clone, Subcommand)]
pub(crate) enum Scenario {
    /// Memory, tasks and CPU of connections that do nothing.
    Idle {
        /// How many.
        #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(100..=18_000))]
        connections: u32,
        /// For how long they are watched, in seconds; a heartbeat is every 25.
        #[arg(long, default_value_t = 27.0)]
        watched: f64,
    },
    /// Connections of a cluster that do nothing, more than one process can hold, and one emit to all of them.
    Spread {
        /// Servers.
        #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(2..=8))]
        nodes: u32,
        /// Connections at each.
        #[arg(long, default_value_t = 19_000, value_parser = clap::value_parser!(u32).range(100..=19_500))]
        connections: u32,
        /// For how long they are watched, in seconds; a heartbeat is every 25.
        #[arg(long, default_value_t = 51.0)]
        watched: f64,
    },
    /// CPU of connecting, and whether an event is lost that is sent at once.
    Connect {
        /// How many; they come twice, and each leaves a port behind that is not free for a minute.
        #[arg(long, default_value_t = 5_000, value_parser = clap::value_parser!(u32).range(100..=12_000))]
        connections: u32,
    },
    /// Memory of a server whose connections come and go: it has to end where it began.
    Churn {
        /// Connections a minute; each leaves a port behind that is not free for a minute.
        #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(500..=20_000))]
        per_minute: u32,
        /// Seconds.
        #[arg(long, default_value_t = 60.0)]
        time: f64,
    },
    /// CPU and latency of events with acks.
    Echo {
        #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=15_000))]
        connections: u32,
        /// Events on their way, of each connection.
        #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=1_000))]
        window: u32,
        /// Bytes of an event.
        #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u32).range(0..=65_536))]
        payload: u32,
        /// Seconds.
        #[arg(long, default_value_t = 3.0)]
        time: f64,
    },
    /// CPU and latency of emits to one large room.
    Fanout {
        /// Members of the room.
        #[arg(long, default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(1..=15_000))]
        members: u32,
        #[command(flatten)]
        pace: Pace,
    },
    /// The same with attachments in place of texts.
    Binary {
        /// Members of the room.
        #[arg(long, default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(1..=15_000))]
        members: u32,
        #[command(flatten)]
        pace: Pace,
    },
    /// CPU and latency of emits to many small rooms, by several publishers.
    Rooms {
        #[arg(long, default_value_t = 500, value_parser = clap::value_parser!(u32).range(1..=10_000))]
        rooms: u32,
        /// Of each.
        #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=1_000))]
        members: u32,
        /// Further rooms of each member, which nobody emits to.
        #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u32).range(0..=100))]
        silent: u32,
        #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=1_000))]
        publishers: u32,
        /// Emits a second in the paced part.
        #[arg(long, default_value_t = 500, value_parser = clap::value_parser!(u32).range(1..=100_000))]
        rate: u32,
        /// Emits on their way in the saturating part.
        #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..=10_000))]
        window: u32,
        #[command(flatten)]
        times: Times,
    },
    /// CPU and latency of emits to a room that is spread over nodes with a Redis between them.
    Cluster {
        #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u32).range(2..=5))]
        nodes: u32,
        /// On each node.
        #[arg(long, default_value_t = 500, value_parser = clap::value_parser!(u32).range(1..=5_000))]
        members: u32,
        #[command(flatten)]
        pace: Pace,
    },
    /// Memory and CPU of clients that poll.
    Polling {
        #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u32).range(1..=5_000))]
        clients: u32,
        /// Emits a second.
        #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=1_000))]
        rate: u32,
        /// Seconds.
        #[arg(long, default_value_t = 3.0)]
        time: f64,
    },
    /// What clients cost the others, and the server, that read nothing.
    Slow {
        #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=5_000))]
        readers: u32,
        #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=1_000))]
        sleepers: u32,
        /// What is emitted to each, in MB: more than a mailbox and the kernel's buffers hold.
        #[arg(long, default_value_t = 40, value_parser = clap::value_parser!(u32).range(1..=1_000))]
        megabytes: u32,
    },
    /// Writes, wakes and copies of emits to one room, by strace: exact, and slow.
    Calls {
        /// Members of the room.
        #[arg(long, default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(10..=15_000))]
        members: u32,
    },
}

/// How emits to a room follow each other.
#[derive(Debug, Clone, Args)]
pub(crate) struct Pace {
    /// Emits a second in the paced part.
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub(super) rate: u32,
    /// Emits on their way in the saturating part.
    #[arg(long, default_value_t = 32, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub(super) window: u32,
    #[command(flatten)]
    pub(super) times: Times,
}

#[derive(Debug, Clone, Args)]
pub(crate) struct Times {
    /// Bytes of an event beside its stamp.
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u32).range(0..=65_536))]
    pub(super) payload: u32,
    /// Seconds of the paced part; 0 leaves it out.
    #[arg(long, default_value_t = 3.0)]
    pub(super) paced: f64,
    /// Seconds of the saturating part; 0 leaves it out.
    #[arg(long, default_value_t = 3.0)]
    pub(super) saturated: f64,
}

impl Scenario {
    /// Whether a target has what the scenario asks of it.
    pub(super) fn fits(&self, target: &Target) -> bool {
        match self {
            Self::Echo { .. } => target.events.echo.is_some(),
            Self::Binary { .. } => target.binary,
            Self::Cluster { .. } | Self::Spread { .. } => target.cluster.is_some(),
            Self::Polling { .. } => target.polling,
            Self::Idle { .. }
            | Self::Connect { .. }
            | Self::Churn { .. }
            | Self::Fanout { .. }
            | Self::Rooms { .. }
            | Self::Slow { .. }
            | Self::Calls { .. } => true,
        }
    }

    /// Starts the servers, measures, and ends them.
    pub(crate) fn run(&self, setup: &Setup) -> Result<Report, Error> {
        if !self.fits(&setup.target) {
            return Err(format!("{} cannot do that: its file says so", setup.target.title).into());
        }
        match self {
            Self::Idle { connections, watched } => idle(setup, *connections as usize, seconds(*watched)?),
            Self::Spread { nodes, connections, watched } => {
                spread(setup, *nodes as usize, *connections as usize, seconds(*watched)?)
            }
            Self::Connect { connections } => connect(setup, *connections as usize),
            Self::Churn { per_minute, time } => churn(setup, *per_minute as usize, seconds(*time)?),
            Self::Echo { connections, window, payload, time } => {
                echo(setup, *connections as usize, *window as usize, *payload as usize, seconds(*time)?)
            }
            Self::Fanout { members, pace } => pace.fanout(one_room(*members), false, 1)?.run(setup),
            Self::Binary { members, pace } => pace.fanout(one_room(*members), true, 1)?.run(setup),
            Self::Rooms { rooms, members, silent, publishers, rate, window, times } => {
                let shape = [*rooms, *members, (*publishers).min(*rooms)];
                let pace = Pace { rate: *rate, window: *window, times: times.clone() };
                let mut fanout = pace.fanout(shape, false, 1)?;
                fanout.plan.silent = *silent as usize;
                fanout.run(setup)
            }
            Self::Cluster { nodes, members, pace } => {
                pace.fanout(one_room(members * nodes), false, *nodes as usize)?.run(setup)
            }
            Self::Polling { clients, rate, time } => {
                polling(setup, *clients as usize, *rate, seconds(*time)?)
            }
            Self::Slow { readers, sleepers, megabytes } => {
                slow(setup, *readers as usize, *sleepers as usize, u64::from(*megabytes))
            }
            Self::Calls { members } => calls(setup, *members as usize),
        }
    }
}

/// Rooms, members of each, publishers.
fn one_room(members: u32) -> [u32; 3] {
    [1, members, 1]
}

impl Pace {
    fn fanout(
        &self,
        [rooms, members, publishers]: [u32; 3],
        binary: bool,
        nodes: usize,
    ) -> Result<Fanout, Error> {
        let plan = Plan {
            rooms: rooms as usize,
            members: members as usize,
            silent: 0,
            publishers: publishers as usize,
            payload: self.times.payload as usize,
            binary,
        };
        Ok(Fanout {
            plan,
            nodes,
            rate: self.rate,
            paced: seconds(self.times.paced)?,
            window: self.window as usize,
            saturated: seconds(self.times.saturated)?,
        })
    }
}

fn seconds(seconds: f64) -> Result<Duration, Error> {
    /// Longer than this nothing is measured.
    const MOST: f64 = 600.0;
    if (0.0..=MOST).contains(&seconds) {
        Ok(Duration::from_secs_f64(seconds))
    } else {
        Err(format!("a time is between 0 and {MOST} seconds").into())
    }
}
