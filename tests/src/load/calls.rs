//! What a delivery costs that can be counted exactly: writes, wakes and copies.

use std::collections::BTreeMap;

use super::fanout::judge;
use super::room::{Plan, Rooms};
use super::server::{Servers, Setup};
use super::strace::{Calls, Trace};
use super::{Error, Report};

/// Emits whose system calls are counted, each after the last has arrived.
const TRACED_EMITS: u64 = 20;

/// A payload whose every copy is a memory map of its own, because it is longer than the allocator's threshold, which is
/// held fast: copies can be counted from outside. A few emits are enough.
const LARGE: usize = 256 * 1024;
const LARGE_EMITS: u64 = 5;
const THRESHOLD: (&str, &str) = ("GLIBC_TUNABLES", "glibc.malloc.mmap_threshold=131072");

pub(super) fn calls(setup: &Setup, members: usize) -> Result<Report, Error> {
    // A heartbeat is a write, and so in the way of who counts.
    let mut environment: BTreeMap<_, _> = setup.target.calm.clone();
    environment.insert(THRESHOLD.0.to_owned(), THRESHOLD.1.to_owned());
    let servers = Servers::start_with(setup, 1, &environment)?;
    let open = |members| {
        let plan = Plan { rooms: 1, members, silent: 0, publishers: 1, payload: 64, binary: false };
        Rooms::open(&servers.addresses(), &setup.target.events, plan)
    };
    let mut room = open(members)?;
    room.one_by_one(TRACED_EMITS)?;
    let mut report = Report::default();
    report.figure("members", members as f64, "");

    let Some(trace) = Trace::attach(servers.process())? else {
        report.note("writes and encodings are not counted: strace is missing, or may not trace");
        return Ok(report);
    };
    room.one_by_one(TRACED_EMITS)?;
    let calls = trace.finish()?;
    let deliveries = TRACED_EMITS as f64 * members as f64;
    report.bounded("writes_per_delivery", calls.socket_writes as f64 / deliveries, "", 1.0);
    report.figure("thread_wakes_per_delivery", calls.wakes as f64 / deliveries, "");

    room.set_payload(LARGE);
    let Some(everybody) = large_buffers(&servers, &mut room)? else {
        report.note("encodings are not counted: strace may not trace any more");
        return Ok(report);
    };
    judge(&mut room, 0, &mut report)?;
    drop(room);
    let mut one = open(1)?;
    one.set_payload(LARGE);
    one.one_by_one(1)?;
    let alone = large_buffers(&servers, &mut one)?.unwrap_or_default();
    // What an emit takes for itself: the event as it came, and one encoding.
    report.figure("copies_per_emit_to_one", alone, "");
    report.figure("copies_per_emit_to_all", everybody, "");
    // How a long event is read varies by a copy or two; an encoding for each socket would be a thousand. That it is one
    // packet that all mailboxes share is a test of the adapter.
    let further = (members.max(2) - 1) as f64;
    report.bounded("copies_per_further_socket", (everybody - alone).max(0.0) / further, "", 0.01);
    Ok(report)
}

/// Buffers of the payload's length that the server makes for one emit.
fn large_buffers(servers: &Servers, room: &mut Rooms) -> Result<Option<f64>, Error> {
    let Some(trace) = Trace::attach(servers.process())? else {
        return Ok(None);
    };
    room.one_by_one(LARGE_EMITS)?;
    let calls: Calls = trace.finish()?;
    Ok(Some(calls.buffers(LARGE) as f64 / LARGE_EMITS as f64))
}
