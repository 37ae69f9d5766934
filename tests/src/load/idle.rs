//! What a connection costs that has joined `/` and does nothing.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use super::client::connect_many;
use super::server::Server;
use super::{Error, Report};

/// The bound on resident memory of one connection, in bytes.
const MAX_BYTES: f64 = 4096.0;

/// Tasks that are no connection's: the allowance for what the node does at times.
const SPARE_TASKS: u64 = 8;

/// Handshakes at once.
const AT_ONCE: usize = 64;

/// Packets of an idle connection are short.
const BUFFER: usize = 2048;

/// Longer than the ping interval: each connection has had a heartbeat then.
const HEARTBEAT: Duration = Duration::from_secs(27);

pub(crate) async fn idle(bin: Option<&Path>, connections: usize) -> Result<Report, Error> {
    let mut server = Server::start(bin, &[]).await?;
    let process = server.process();
    // What a thread allocates once is no connection's.
    drop(connect_many(server.address(), 16, 4, BUFFER).await?);
    tokio::time::sleep(Duration::from_secs(1)).await;
    let empty = process.settled().await?;
    let tasks_before = server.tasks()?;
    let cpu_before = process.cpu()?;

    let started = Instant::now();
    let clients = connect_many(server.address(), connections, AT_ONCE, BUFFER).await?;
    let connected = started.elapsed();
    let connect_cpu = process.cpu()? - cpu_before;
    let lost = Arc::new(AtomicUsize::new(0));
    for mut client in clients {
        let lost = Arc::clone(&lost);
        tokio::spawn(async move {
            while client.read(|_| {}).await.is_ok() {}
            lost.fetch_add(1, Ordering::Relaxed);
        });
    }

    let full = process.settled().await?;
    let tasks = server.tasks()?;
    tokio::time::sleep((connected + HEARTBEAT).saturating_sub(started.elapsed())).await;
    let later = process.settled().await?;

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
        _ => report.note("tasks are not counted: the server is another binary"),
    }
    report.figure("threads", process.threads()? as f64, "");
    report.figure("cpu_per_connect", connect_cpu.as_secs_f64() * 1e6 / count, "µs");
    report.figure("connects_per_second", count / connected.as_secs_f64(), "1/s");
    report.bounded("connections_lost", lost.load(Ordering::Relaxed) as f64, "", 0.0);
    Ok(report)
}
