//! Clients in a room that read nothing while others do: they must cost the others nothing, the server a bounded amount of
//! memory, and they are ended.

use std::time::Duration;

use super::fanout::judge;
use super::room::{Plan, Rooms};
use super::server::{Servers, Setup};
use super::{Error, Report};

/// Bytes of an event: large, so that what waits for a client soon reaches its bound.
const PAYLOAD: usize = 16 * 1024;

/// Emits on their way.
const WINDOW: usize = 8;

/// How often memory is looked at.
const LOOK: Duration = Duration::from_millis(200);

/// How long it may take until a connection that was ended shows its end to a client that reads again.
const END: Duration = Duration::from_secs(5);

/// A room of `readers`, and of `sleepers` that read nothing while `megabytes` are emitted to each.
pub(super) fn slow(setup: &Setup, readers: usize, sleepers: usize, megabytes: u64) -> Result<Report, Error> {
    let servers = Servers::start(setup, 1)?;
    let addresses = servers.addresses();
    let plan = Plan { rooms: 1, members: readers, silent: 0, publishers: 1, payload: PAYLOAD, binary: false };
    let mut room = Rooms::open(&addresses, &setup.target.events, plan)?;
    room.saturate(WINDOW, LOOK)?;
    let alone = Flood::of(&mut room, &servers, megabytes)?;
    let before = servers.resident()?;
    let sleeping = room.add_sleepers(&addresses, sleepers)?;
    let beside = Flood::of(&mut room, &servers, megabytes)?;
    let ended = room.ended(sleeping, END)?;

    let mut report = Report::default();
    report.figure("readers", readers as f64, "");
    report.figure("sleepers", sleepers as f64, "");
    report.figure("payload", PAYLOAD as f64, "bytes");
    report.figure("emitted_to_each", megabytes as f64, "MB");
    report.figure("deliveries_per_second_without", alone.rate(), "1/s");
    report.figure("deliveries_per_second_beside", beside.rate(), "1/s");
    report.figure("resident_before", before as f64, "bytes");
    report.figure("resident_most", beside.resident as f64, "bytes");
    report.figure("sleepers_ended", ended as f64, "");
    if setup.target.ends_slow_clients {
        report.bounded("sleepers_kept", (sleepers - ended) as f64, "", 0.0);
    }
    judge(&mut room, ended, &mut report)?;
    Ok(report)
}

/// So many bytes, emitted to each member of a room.
struct Flood {
    deliveries: u64,
    took: Duration,
    /// The most memory that the server had meanwhile.
    resident: u64,
}

impl Flood {
    fn of(room: &mut Rooms, servers: &Servers, megabytes: u64) -> Result<Self, Error> {
        let mut flood = Self { deliveries: 0, took: Duration::ZERO, resident: 0 };
        let mut emits = 0;
        while emits * (PAYLOAD as u64) < megabytes * 1_000_000 {
            let seen = room.saturate(WINDOW, LOOK)?;
            emits += seen.emits;
            flood.deliveries += seen.deliveries;
            flood.took += seen.took;
            flood.resident = flood.resident.max(servers.resident()?);
        }
        Ok(flood)
    }

    fn rate(&self) -> f64 {
        self.deliveries as f64 / self.took.as_secs_f64()
    }
}
