//! What an emit to rooms costs, and that it arrives everywhere exactly once and in order: one large room, many small ones,
//! rooms spread over a cluster, text or binary.

use std::time::Duration;

use super::process::Process;
use super::room::{Plan, Rooms, Seen};
use super::server::{Servers, Setup};
use super::{Error, Report};

/// How far from 1 Little's law may come out before the generator is not believed.
const LITTLE: f64 = 0.1;

/// A load on rooms.
#[derive(Debug, Clone)]
pub(crate) struct Fanout {
    pub(super) plan: Plan,
    pub(super) nodes: usize,
    /// Emits a second in the paced part, far from what the server can do.
    pub(super) rate: u32,
    pub(super) paced: Duration,
    /// Emits on their way in the saturating part.
    pub(super) window: usize,
    pub(super) saturated: Duration,
}

impl Fanout {
    pub(super) fn run(&self, setup: &Setup) -> Result<Report, Error> {
        let servers = Servers::start(setup, self.nodes)?;
        let mut rooms = Rooms::open(&servers.addresses(), &setup.target.events, self.plan.clone())?;
        // Buffers, caches and compilers warm up.
        rooms.saturate(self.window, Duration::from_millis(500))?;
        let mut report = Report::default();
        report.figure("rooms", self.plan.rooms as f64, "");
        report.figure("members_of_each", self.plan.members as f64, "");
        report.figure("payload", self.plan.payload as f64, "bytes");
        report.figure("nodes", self.nodes as f64, "");

        if !self.paced.is_zero() {
            let emits = (self.paced.as_secs_f64() * f64::from(self.rate)).ceil() as u64;
            let (mut seen, cost) =
                Cost::of(&servers, || rooms.pace(emits, Duration::from_secs(1) / self.rate))?;
            report.figure("paced_emits_per_second", seen.emits as f64 / seen.took.as_secs_f64(), "1/s");
            cost.report(&seen, "paced", &mut report);
            report.figure("paced_latency_p50", seen.latencies.percentile(50), "ms");
            report.figure("paced_latency_p99", seen.latencies.percentile(99), "ms");
        }
        if !self.saturated.is_zero() {
            let (seen, cost) = Cost::of(&servers, || rooms.saturate(self.window, self.saturated))?;
            cost.report(&seen, "saturated", &mut report);
            let rate = seen.deliveries as f64 / seen.took.as_secs_f64();
            report.figure("saturated_deliveries_per_second", rate, "1/s");
        }
        judge(&mut rooms, 0, &mut report)?;
        if let Some(counted) = servers.deliveries()? {
            report.bounded(
                "deliveries_the_server_counts_otherwise",
                counted.abs_diff(rooms.received()) as f64,
                "",
                0.0,
            );
        }
        Ok(report)
    }
}

/// Says what must not be: anything lost, repeated, out of order, or a connection that ended.
/// `ended` connections are meant to have.
pub(super) fn judge(rooms: &mut Rooms, ended: usize, report: &mut Report) -> Result<(), Error> {
    // A fence: had anything come twice, it would have come before this.
    rooms.one_by_one(1)?;
    let (miscounted, disorder, gone) = rooms.faults();
    report.bounded("deliveries_lost_or_repeated", miscounted as f64, "", 0.0);
    report.bounded("deliveries_out_of_order", disorder as f64, "", 0.0);
    report.bounded("connections_lost", gone.saturating_sub(ended) as f64, "", 0.0);
    Ok(())
}

/// What the processes took of the machine during a part of a run.
struct Cost {
    servers: Duration,
    broker: Duration,
    generator: Duration,
    resident: u64,
}

impl Cost {
    fn of(servers: &Servers, run: impl FnOnce() -> Result<Seen, Error>) -> Result<(Seen, Self), Error> {
        let look = || Ok::<_, Error>((servers.cpu()?, servers.broker_cpu()?, Process::own().cpu()?));
        let before = look()?;
        let seen = run()?;
        let after = look()?;
        let cost = Self {
            servers: after.0 - before.0,
            broker: after.1 - before.1,
            generator: after.2 - before.2,
            resident: servers.resident()?,
        };
        Ok((seen, cost))
    }

    fn report(&self, seen: &Seen, part: &str, report: &mut Report) {
        let per = |cpu: Duration| cpu.as_secs_f64() * 1e6 / seen.deliveries.max(1) as f64;
        report.figure(format!("{part}_cpu_per_delivery"), per(self.servers), "µs");
        if !self.broker.is_zero() {
            report.figure(format!("{part}_broker_cpu_per_delivery"), per(self.broker), "µs");
        }
        report.figure(format!("{part}_generator_cpu_per_delivery"), per(self.generator), "µs");
        report.figure(
            format!("{part}_server_busy"),
            self.servers.as_secs_f64() / seen.took.as_secs_f64(),
            "cores",
        );
        report.figure(format!("{part}_resident"), self.resident as f64, "bytes");
        report.bounded(format!("{part}_littles_ratio_off"), (seen.littles_ratio - 1.0).abs(), "", LITTLE);
    }
}
