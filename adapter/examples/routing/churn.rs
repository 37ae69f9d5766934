//! One node with many rooms: what its subscriptions cost, and what joins and leaves cost on top.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::time::MissedTickBehavior;

use super::broker::{Broker, Kind, cpu, resident};
use super::node::{Node, Random, Socket, config, room};
use super::{Error, Options, figure};

/// Rooms of each socket.
const ROOMS_EACH: usize = 100;
const TICK: Duration = Duration::from_millis(2);

pub(crate) async fn run(options: &Options) -> Result<(), Error> {
    let (rooms, rate) = (options.get("rooms", 100_000_usize)?, options.get("rate", 5_000_usize)?);
    let seconds = options.get("seconds", 10_u64)?;
    let (limit, buckets) = (options.get("limit", usize::MAX)?, options.get("buckets", 16_384)?);
    let broker = Broker::start(options.get("broker", Kind::Redis)?)?;
    let node = Node::start(&broker, "churn", config(limit, buckets)).await?;
    let sockets = fill(&node, &broker, rooms).await?;
    // Whatever the node does about so many rooms is done before the churn is measured.
    tokio::time::sleep(Duration::from_secs(if limit < rooms { 20 } else { 2 })).await;
    figure("resident after it, node", resident(std::process::id())? / 1e6, "MB");
    if limit < rooms {
        println!("{:#?}", broker.figures()?);
    }
    churn(&node, &broker, &sockets, rooms, rate, seconds).await
}

/// Joins all rooms, and says what that cost.
async fn fill(node: &Node, broker: &Broker, rooms: usize) -> Result<Vec<Socket>, Error> {
    let me = std::process::id();
    let sockets: Vec<_> = (0..rooms.div_ceil(ROOMS_EACH)).map(|number| node.socket(number as u32)).collect();
    let (before, before_broker) = (resident(me)?, resident(broker.pid())?);
    let (cpu_before, cpu_before_broker, since) = (cpu(me)?, cpu(broker.pid())?, Instant::now());
    let joins = sockets.iter().enumerate().map(|(at, socket)| {
        let rooms: Vec<_> = (at * ROOMS_EACH..rooms.min((at + 1) * ROOMS_EACH)).map(room).collect();
        node.adapter.join(socket.id, &rooms)
    });
    let joins: Vec<_> = joins.collect();
    for join in joins {
        join.await?;
    }
    figure("all rooms joined after", since.elapsed().as_secs_f64(), "s");
    let per_room = |duration: Duration| duration.as_secs_f64() * 1e6 / rooms as f64;
    figure("CPU per room, node", per_room(cpu(me)?.saturating_sub(cpu_before)), "µs");
    figure("CPU per room, broker", per_room(cpu(broker.pid())?.saturating_sub(cpu_before_broker)), "µs");
    figure("resident per room, node", (resident(me)? - before) / rooms as f64, "bytes");
    figure("resident per room, broker", (resident(broker.pid())? - before_broker) / rooms as f64, "bytes");
    Ok(sockets)
}

/// Each tick some sockets leave a room each and join another, of twice as many as there are: some are joined again soon
/// after they were left.
async fn churn(
    node: &Node,
    broker: &Broker,
    sockets: &[Socket],
    rooms: usize,
    rate: usize,
    seconds: u64,
) -> Result<(), Error> {
    let me = std::process::id();
    let mut random = Random::new();
    let mut joined: Vec<usize> = (0..rooms).collect();
    let mut out: Vec<usize> = (rooms..2 * rooms).collect();
    let latencies: Arc<Mutex<Vec<Duration>>> = Arc::default();
    let failed = Arc::new(std::sync::atomic::AtomicU64::new(0));
    let per_tick = (rate as f64 * TICK.as_secs_f64()).round().max(1.0) as usize;
    let figures = broker.figures()?;
    let (cpu_before, cpu_before_broker, since) = (cpu(me)?, cpu(broker.pid())?, Instant::now());
    let mut ticks = tokio::time::interval(TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
    let mut changes = 0_u64;
    while since.elapsed() < Duration::from_secs(seconds) {
        ticks.tick().await;
        for _ in 0..per_tick {
            let (at, other) = (random.below(joined.len()), random.below(out.len()));
            // The place of a room is that of its socket.
            let socket = &sockets[at / ROOMS_EACH];
            std::mem::swap(&mut joined[at], &mut out[other]);
            node.adapter.leave(socket.id, &room(out[other]));
            let (began, join) = (Instant::now(), node.adapter.join(socket.id, &[room(joined[at])]));
            let (latencies, failed) = (Arc::clone(&latencies), Arc::clone(&failed));
            tokio::spawn(async move {
                match join.await {
                    Ok(_) => latencies.lock().push(began.elapsed()),
                    Err(_) => _ = failed.fetch_add(1, std::sync::atomic::Ordering::Relaxed),
                }
            });
            changes += 1;
        }
    }
    let elapsed = since.elapsed().as_secs_f64();
    let share = |duration: Duration| duration.as_secs_f64() * 100.0 / elapsed;
    figure("joins per second, and as many leaves", changes as f64 / elapsed, "/s");
    figure("CPU, node and generator", share(cpu(me)?.saturating_sub(cpu_before)), "% of a core");
    figure("CPU, broker", share(cpu(broker.pid())?.saturating_sub(cpu_before_broker)), "% of a core");
    report(&figures, &broker.figures()?, elapsed);
    let mut latencies = std::mem::take(&mut *latencies.lock());
    latencies.sort_unstable();
    let quantile = |share: f64| {
        let at = (latencies.len() as f64 * share) as usize;
        latencies.get(at.min(latencies.len().saturating_sub(1))).map_or(0.0, Duration::as_secs_f64) * 1e3
    };
    figure("join confirmed, p50", quantile(0.5), "ms");
    figure("join confirmed, p99", quantile(0.99), "ms");
    figure("join confirmed, longest", quantile(1.0), "ms");
    figure("joins not confirmed", (changes - latencies.len() as u64) as f64, "");
    figure("joins that failed", failed.load(std::sync::atomic::Ordering::Relaxed) as f64, "");
    Ok(())
}

/// What the broker counted per second.
fn report(before: &BTreeMap<String, f64>, after: &BTreeMap<String, f64>, seconds: f64) {
    for (name, value) in after {
        let rate = (value - before.get(name).copied().unwrap_or_default()) / seconds;
        if rate.abs() >= 0.5 && name != "memory" && name != "mem" {
            figure(&format!("broker: {name}"), rate, "/s");
        }
    }
}
