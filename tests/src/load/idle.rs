//! What a connection costs: to come, to be there and do nothing, and whether what is sent right after it came is lost.

use std::cell::Cell;
use std::time::{Duration, Instant};

use super::crowd::{Crowd, Outbox, Packet};
use super::server::{Servers, Setup};
use super::{Error, Report};

/// The bound on resident memory of one connection, in bytes.
const MAX_BYTES: f64 = 4096.0;

/// Tasks that are no connection's: the allowance for what the node does at times.
const SPARE_TASKS: u64 = 8;

/// Connections that come and go together, and how often before memory is looked at: by then the allocator has got used to
/// their sizes.
const CYCLE: usize = 500;
const WARM_UP_CYCLES: usize = 16;

/// What memory may move between two times at which it stands still, in bytes.
const MAX_GROWTH: f64 = 1024.0 * 1024.0;

/// How often memory is looked at until it stands still, and how little it moves then.
const LOOK: Duration = Duration::from_millis(500);
const STILL: u64 = 64 * 1024;
const LOOKS: usize = 40;

/// How long an ack may take that is given at once.
const ACK: Duration = Duration::from_secs(5);

/// Connections that do nothing, for `watched`: with the defaults of Socket.IO each has a heartbeat every 25 seconds.
pub(super) fn idle(setup: &Setup, connections: usize, watched: Duration) -> Result<Report, Error> {
    let servers = Servers::start(setup, 1)?;
    let mut crowd = Crowd::new()?;
    // What a thread allocates once is no connection's.
    crowd.open(&servers.addresses(), 16, |_, _, _| {})?;
    crowd.close_all();
    rest(&mut crowd, Duration::from_secs(1))?;
    let empty = settled(&servers, &mut crowd)?;
    let tasks_before = servers.tasks()?;
    let cpu_before = servers.cpu()?;

    let started = Instant::now();
    crowd.open(&servers.addresses(), connections, |_, _, _| {})?;
    let connected = started.elapsed();
    let connect_cpu = servers.cpu()? - cpu_before;
    let full = settled(&servers, &mut crowd)?;
    let tasks = servers.tasks()?;
    let (cpu_before, since) = (servers.cpu()?, Instant::now());
    rest(&mut crowd, watched)?;
    let (heartbeats, watched) = (servers.cpu()? - cpu_before, since.elapsed());
    let later = settled(&servers, &mut crowd)?;

    let count = connections as f64;
    let each = |bytes: u64| bytes.saturating_sub(empty) as f64 / count;
    let mut report = Report::default();
    report.figure("connections", count, "");
    report.figure("resident_empty", empty as f64, "bytes");
    report.figure("resident", full as f64, "bytes");
    report.bounded("bytes_per_connection", each(full), "bytes", MAX_BYTES);
    report.bounded("bytes_per_connection_after_heartbeat", each(later), "bytes", MAX_BYTES);
    match (tasks_before, tasks) {
        (Some(before), Some(tasks)) => {
            let added = tasks.saturating_sub(before);
            let bound = connections as u64 + SPARE_TASKS;
            report.bounded("tasks_added", added as f64, "", bound as f64);
        }
        _ => report.note("tasks are not counted: this server does not tell them"),
    }
    report.figure("threads", servers.process().threads()? as f64, "");
    report.figure("cpu_per_connect", connect_cpu.as_secs_f64() * 1e6 / count, "µs");
    report.figure("connects_per_second", count / connected.as_secs_f64(), "1/s");
    let each_second = heartbeats.as_secs_f64() * 1e6 / count / watched.as_secs_f64();
    report.figure("idle_cpu_per_connection_and_second", each_second, "µs");
    report.bounded("connections_lost", crowd.gone() as f64, "", 0.0);
    Ok(report)
}

/// Connections that come, a bounded number at a time, and send an event as soon as they are let in.
pub(super) fn connect(setup: &Setup, connections: usize) -> Result<Report, Error> {
    let servers = Servers::start(setup, 1)?;
    let addresses = servers.addresses();
    let mut crowd = Crowd::new()?;
    // Code and buffers warm up.
    crowd.open(&addresses, connections.min(500), |_, _, _| {})?;
    crowd.close_all();
    rest(&mut crowd, Duration::from_secs(1))?;

    let (cpu_before, started) = (servers.cpu()?, Instant::now());
    crowd.open(&addresses, connections, |_, _, _| {})?;
    let (cpu, took) = (servers.cpu()? - cpu_before, started.elapsed());
    crowd.close_all();
    rest(&mut crowd, Duration::from_secs(1))?;

    let join = &setup.target.events.join;
    let answered = Cell::new(0);
    let mut each = |_: usize, packet: Packet<'_>, outbox: &mut Outbox| match packet {
        Packet::Text(text) if text.starts_with("40{") => outbox.text(&format!(r#"420["{join}","first"]"#)),
        Packet::Text(text) if text.starts_with("430") => answered.set(answered.get() + 1),
        Packet::Text(_) | Packet::Binary(_) => {}
    };
    crowd.open(&addresses, connections, &mut each)?;
    let deadline = Instant::now() + ACK;
    while answered.get() < connections && Instant::now() < deadline {
        crowd.turn(Duration::from_millis(50), &mut each)?;
    }
    let mut report = Report::default();
    report.figure("connections", connections as f64, "");
    report.figure("cpu_per_connect", cpu.as_secs_f64() * 1e6 / connections as f64, "µs");
    report.figure("connects_per_second", connections as f64 / took.as_secs_f64(), "1/s");
    report.bounded("first_events_lost", connections.abs_diff(answered.get()) as f64, "", 0.0);
    report.bounded("connections_lost", crowd.gone() as f64, "", 0.0);
    Ok(report)
}

/// Connections that come and go for so long, so many a minute: memory has to end where it began.
pub(super) fn churn(setup: &Setup, per_minute: usize, time: Duration) -> Result<Report, Error> {
    let servers = Servers::start(setup, 1)?;
    let addresses = servers.addresses();
    let mut crowd = Crowd::new()?;
    // Everything that is allocated once, is.
    for _ in 0..WARM_UP_CYCLES {
        crowd.open(&addresses, CYCLE, |_, _, _| {})?;
        crowd.close_all();
    }
    let before = settled(&servers, &mut crowd)?;
    let interval = Duration::from_secs(60) * u32::try_from(CYCLE)? / u32::try_from(per_minute)?;
    let (started, mut cycles, mut most) = (Instant::now(), 0, before);
    while started.elapsed() < time {
        crowd.open(&addresses, CYCLE, |_, _, _| {})?;
        most = most.max(servers.resident()?);
        crowd.close_all();
        cycles += 1;
        rest(&mut crowd, (interval * cycles).saturating_sub(started.elapsed()))?;
    }
    let took = started.elapsed();
    let after = settled(&servers, &mut crowd)?;
    let mut report = Report::default();
    report.figure("connections", f64::from(cycles) * CYCLE as f64, "");
    report.figure("connections_per_minute", f64::from(cycles) * CYCLE as f64 / took.as_secs_f64() * 60.0, "");
    report.figure("resident_before", before as f64, "bytes");
    report.figure("resident_most", most as f64, "bytes");
    report.bounded("resident_growth", after.saturating_sub(before) as f64, "bytes", MAX_GROWTH);
    Ok(report)
}

/// Lets time go by; heartbeats are answered.
pub(super) fn rest(crowd: &mut Crowd, time: Duration) -> Result<(), Error> {
    let until = Instant::now() + time;
    while let Some(left) = until.checked_duration_since(Instant::now()) {
        crowd.turn(left.max(Duration::from_millis(1)), |_, _, _| {})?;
    }
    Ok(())
}

/// Resident memory once it stands still: the allocator and the kernel are done with what went before.
pub(super) fn settled(servers: &Servers, crowd: &mut Crowd) -> Result<u64, Error> {
    let mut last = servers.resident()?;
    let mut calm = 0;
    for _ in 0..LOOKS {
        rest(crowd, LOOK)?;
        let now = servers.resident()?;
        calm = if now.abs_diff(last) <= STILL { calm + 1 } else { 0 };
        last = now;
        if calm == 3 {
            return Ok(now);
        }
    }
    Err("resident memory does not stand still".into())
}
