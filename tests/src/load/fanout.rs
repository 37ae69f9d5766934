//! What an emit to a large room costs, and that it arrives everywhere exactly once and in order.

use std::path::Path;
use std::time::Duration;

use super::room::Room;
use super::server::{PING_INTERVAL, Server};
use super::strace::{Calls, Trace};
use super::{Error, Report};

/// The text that an event carries, in bytes.
const PAYLOAD: usize = 64;

/// The paced part: far from what the server can do.
const PACED_EMITS: u64 = 60;
const PACED_INTERVAL: Duration = Duration::from_millis(50);

/// Emits on their way in the saturating part.
const WINDOW: u64 = 32;

/// Emits whose system calls are counted, each after the last has arrived.
const TRACED_EMITS: u64 = 20;

/// A payload whose every copy is a memory map of its own, because it is longer than the allocator's threshold, which is
/// held fast: copies can be counted from outside. A few emits are enough.
const LARGE: usize = 256 * 1024;
const LARGE_EMITS: u64 = 5;
const ENVIRONMENT: [(&str, &str); 2] =
    [("GLIBC_TUNABLES", "glibc.malloc.mmap_threshold=131072"), (PING_INTERVAL, "600000")];

pub(crate) async fn fanout(bin: Option<&Path>, sockets: usize, emits: u64) -> Result<Report, Error> {
    let server = Server::start(bin, &ENVIRONMENT).await?;
    let mut room = Room::open(server.address(), sockets).await?;
    let padding = "x".repeat(PAYLOAD);
    room.saturate(20, 1, &padding).await?;

    let mut report = Report::default();
    report.figure("sockets", sockets as f64, "");
    report.figure("payload", PAYLOAD as f64, "bytes");

    let before = server.process().cpu()?;
    room.pace(PACED_EMITS, PACED_INTERVAL, &padding).await?;
    let paced = server.process().cpu()? - before;
    report.figure("paced_cpu_per_delivery", per(paced, PACED_EMITS, sockets), "µs");

    let before = server.process().cpu()?;
    let started = std::time::Instant::now();
    room.saturate(emits, WINDOW, &padding).await?;
    let took = started.elapsed().as_secs_f64();
    let saturated = server.process().cpu()? - before;
    report.figure("saturated_cpu_per_delivery", per(saturated, emits, sockets), "µs");
    report.figure("saturated_deliveries_per_second", emits as f64 * sockets as f64 / took, "1/s");

    count_calls(&server, &mut room, sockets, &padding, &mut report).await?;

    // A fence: had anything come twice, it would have come before this.
    room.saturate(1, 1, &padding).await?;
    let (miscounted, disorder, lost) = room.faults();
    report.bounded("deliveries_lost_or_repeated", miscounted as f64, "", 0.0);
    report.bounded("deliveries_out_of_order", disorder as f64, "", 0.0);
    report.bounded("connections_lost", lost as f64, "", 0.0);
    Ok(report)
}

/// Writes per delivery of short events, and copies of long ones.
async fn count_calls(
    server: &Server,
    room: &mut Room,
    sockets: usize,
    padding: &str,
    report: &mut Report,
) -> Result<(), Error> {
    let Some(trace) = Trace::attach(server.process()).await? else {
        report.note("writes and encodings are not counted: strace is missing, or may not trace");
        return Ok(());
    };
    room.saturate(TRACED_EMITS, 1, padding).await?;
    let calls = trace.finish()?;
    let deliveries = TRACED_EMITS as f64 * sockets as f64;
    report.bounded("writes_per_delivery", calls.socket_writes as f64 / deliveries, "", 1.0);
    report.figure("thread_wakes_per_delivery", calls.wakes as f64 / deliveries, "");

    let long = "x".repeat(LARGE);
    let alone = large_buffers(server, room, &long, false).await?;
    let everybody = large_buffers(server, room, &long, true).await?;
    let (Some(alone), Some(everybody)) = (alone, everybody) else {
        report.note("encodings are not counted: strace may not trace any more");
        return Ok(());
    };
    // What an emit takes for itself: the event as it came, and one encoding.
    report.figure("copies_per_emit_to_one", alone, "");
    report.figure("copies_per_emit_to_all", everybody, "");
    // How a long event is read varies by a copy or two; an encoding for each socket would be a thousand. That it is one
    // packet that all mailboxes share is a test of the adapter.
    let further = (sockets.max(2) - 1) as f64;
    report.bounded("copies_per_further_socket", (everybody - alone).max(0.0) / further, "", 0.01);
    Ok(())
}

/// Buffers of the payload's length that the server makes for one emit.
async fn large_buffers(
    server: &Server,
    room: &mut Room,
    payload: &str,
    everybody: bool,
) -> Result<Option<f64>, Error> {
    let Some(trace) = Trace::attach(server.process()).await? else {
        return Ok(None);
    };
    for _ in 0..LARGE_EMITS {
        if everybody {
            room.emit(payload).await?;
        } else {
            room.emit_alone(payload).await?;
        }
        room.all_arrived().await?;
    }
    let calls: Calls = trace.finish()?;
    Ok(Some(calls.buffers(LARGE) as f64 / LARGE_EMITS as f64))
}

/// CPU time by delivery, in microseconds.
fn per(cpu: Duration, emits: u64, sockets: usize) -> f64 {
    cpu.as_secs_f64() * 1e6 / (emits as f64 * sockets as f64)
}
