//! More connections than one process may have descriptors for: a cluster whose nodes have their clients in a process of its
//! own each. All of them are in one room, and one emit at the end has to reach every one, once.

use std::io::{BufRead as _, BufReader, Read as _};
use std::net::SocketAddr;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use super::crowd::{Crowd, Outbox, Packet};
use super::idle::{rest, settled};
use super::server::{Servers, Setup};
use super::{Error, Report};

const ROOM: &str = "everybody";
const EVENT: &str = "news";

/// How often a holder looks whether it is to end.
const TURN: Duration = Duration::from_millis(50);

/// What a holder says when all of its clients are in the room, and when all have got the emit.
const READY: &str = "ready";
const RECEIVED: &str = "received";

/// The clients of one node.
struct Holder {
    child: Child,
    stdin: Option<ChildStdin>,
    stdout: BufReader<ChildStdout>,
}

impl Holder {
    fn start(address: SocketAddr, connections: usize, join: &str) -> Result<Self, Error> {
        let mut child = Command::new(std::env::current_exe()?)
            .args(["hold", &address.to_string(), &connections.to_string(), join])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let (stdin, stdout) = (child.stdin.take(), child.stdout.take().ok_or("its output is piped")?);
        Ok(Self { child, stdin, stdout: BufReader::new(stdout) })
    }

    fn says(&mut self, expected: &str) -> Result<(), Error> {
        let mut line = String::new();
        self.stdout.read_line(&mut line)?;
        if line.trim() == expected {
            Ok(())
        } else {
            Err(format!("a holder of clients said {line:?}").into())
        }
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        // The end of its input is the end of it.
        self.stdin.take();
        let _ = self.child.wait();
    }
}

/// A cluster with so many connections at each of its nodes.
pub(super) fn spread(
    setup: &Setup,
    nodes: usize,
    connections: usize,
    watched: Duration,
) -> Result<Report, Error> {
    let servers = Servers::start(setup, nodes)?;
    let addresses = servers.addresses();
    let mut crowd = Crowd::new()?;
    // What a thread allocates once is no connection's.
    crowd.open(&addresses, 16 * nodes, |_, _, _| {})?;
    crowd.close_all();
    let empty = settled(&servers, &mut crowd)?;

    let events = &setup.target.events;
    let started = Instant::now();
    let mut holders = addresses
        .iter()
        .map(|address| Holder::start(*address, connections, &events.join))
        .collect::<Result<Vec<_>, _>>()?;
    holders.iter_mut().try_for_each(|holder| holder.says(READY))?;
    let connected = started.elapsed();
    let full = settled(&servers, &mut crowd)?;
    let (cpu_before, since) = (servers.cpu()?, Instant::now());
    rest(&mut crowd, watched)?;
    let (cpu, watched) = (servers.cpu()? - cpu_before, since.elapsed());

    // From the first node to the clients of all.
    let emit = format!(r#"42["{}","{ROOM}","{EVENT}",1]"#, events.broadcast);
    let (cpu_before, started) = (servers.cpu()?, Instant::now());
    crowd.open(&addresses[..1], 1, |_, packet, outbox| {
        if matches!(packet, Packet::Text(text) if text.starts_with("40{")) {
            outbox.text(&emit);
        }
    })?;
    holders.iter_mut().try_for_each(|holder| holder.says(RECEIVED))?;
    let (emitted, delivered) = (servers.cpu()? - cpu_before, started.elapsed());

    let count = (nodes * connections) as f64;
    let mut report = Report::default();
    report.figure("nodes", nodes as f64, "");
    report.figure("connections", count, "");
    report.figure("connects_per_second", count / connected.as_secs_f64(), "1/s");
    report.figure("resident_empty", empty as f64, "bytes");
    report.figure("resident", full as f64, "bytes");
    report.figure("bytes_per_connection", full.saturating_sub(empty) as f64 / count, "bytes");
    let each_second = cpu.as_secs_f64() * 1e6 / count / watched.as_secs_f64();
    report.figure("idle_cpu_per_connection_and_second", each_second, "µs");
    report.figure("one_emit_to_all", delivered.as_secs_f64() * 1e3, "ms");
    report.figure("one_emit_cpu_per_delivery", emitted.as_secs_f64() * 1e6 / count, "µs");
    Ok(report)
}

/// The clients of a holder, counted.
struct Held {
    joined: usize,
    received: Vec<bool>,
    twice: usize,
}

impl Held {
    fn take(&mut self, client: usize, packet: &Packet<'_>, join: &str, outbox: &mut Outbox) {
        let Packet::Text(text) = packet else { return };
        if text.starts_with("40{") {
            outbox.text(&format!(r#"420["{join}","{ROOM}"]"#));
        } else if text.starts_with("430") {
            self.joined += 1;
        } else if text.starts_with("42") {
            self.twice += usize::from(std::mem::replace(&mut self.received[client], true));
        }
    }

    fn received(&self) -> usize {
        self.received.iter().filter(|received| **received).count()
    }
}

/// The process of a holder: connects, joins the room, and counts until its input ends. Fails when a connection is lost, or
/// when something comes twice.
pub(crate) fn hold(address: SocketAddr, connections: usize, join: &str) -> Result<(), Error> {
    let mut held = Held { joined: 0, received: vec![false; connections], twice: 0 };
    let mut crowd = Crowd::new()?;
    crowd.open(&[address], connections, |client, packet, outbox| held.take(client, &packet, join, outbox))?;
    let ended = Arc::new(AtomicBool::new(false));
    let watch = Arc::clone(&ended);
    thread::spawn(move || {
        let _ = std::io::stdin().read_to_end(&mut Vec::new());
        watch.store(true, Ordering::Relaxed);
    });
    let (mut was_ready, mut was_received) = (false, false);
    while !ended.load(Ordering::Relaxed) {
        crowd.turn(TURN, |client, packet, outbox| held.take(client, &packet, join, outbox))?;
        if crowd.gone() > 0 || held.twice > 0 {
            return Err(format!("{} clients lost, {} deliveries too many", crowd.gone(), held.twice).into());
        }
        if !was_ready && held.joined == connections {
            println!("{READY}");
            was_ready = true;
        }
        if !was_received && held.received() == connections {
            println!("{RECEIVED}");
            was_received = true;
        }
    }
    Ok(())
}
