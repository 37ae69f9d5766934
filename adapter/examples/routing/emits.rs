//! Three nodes and rooms of several sizes: how many messages the nodes get, and what the broker works, when nodes listen
//! to each of their rooms, to buckets of them, and to everything.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use roomcast_adapter::protocol::socketio::{Args, EncodedPacket};
use roomcast_adapter::{Outgoing, Selector};

use super::broker::{Broker, Kind, cpu};
use super::node::{Node, Random, Socket, config, room};
use super::{Error, Options};

const NODES: usize = 3;
/// Memberships, about: smaller rooms are more.
const MEMBERS: usize = 20_000;
const MAX_ROOMS: usize = 5_000;
/// Emits under way at once, at most, and the deliveries that they make.
const WINDOW: usize = 256;
const DELIVERIES: usize = 40_000;
const IDLE: Duration = Duration::from_secs(2);

/// How nodes listen: the limit of rooms, and the buckets.
const WAYS: [(&str, usize, u32); 3] =
    [("by room", usize::MAX, 16_384), ("16,384 buckets", 0, 16_384), ("everything", 0, 1)];

pub(crate) async fn run(options: &Options) -> Result<(), Error> {
    let kind = options.get("broker", Kind::Redis)?;
    let seconds = options.get("seconds", 5.0_f64)?;
    let sizes: String = options.get("sizes", "2,10,100,10000".to_owned())?;
    println!(
        "| room of | members | rooms | nodes listen | messages per node and emit | CPU of the broker per emit, µs | deliveries missing |"
    );
    println!("|---|---|---|---|---|---|---|---|");
    for size in sizes.split(',') {
        let size: usize = size.parse()?;
        for together in if size <= 10 { &[false, true][..] } else { &[false][..] } {
            for way in WAYS {
                measure(kind, size, *together, way, seconds).await?;
            }
        }
    }
    Ok(())
}

async fn measure(
    kind: Kind,
    size: usize,
    together: bool,
    (way, limit, buckets): (&str, usize, u32),
    seconds: f64,
) -> Result<(), Error> {
    let broker = Broker::start(kind)?;
    let mut config = config(limit, buckets);
    (config.linger, config.expiry) = (Duration::from_millis(200), Duration::from_secs(3));
    let mut nodes = Vec::new();
    for _ in 0..NODES {
        nodes.push(Node::start(&broker, "emits", config.clone()).await?);
    }
    let until = Instant::now() + Duration::from_secs(30);
    while limit == 0 && nodes.iter().any(|node| node.factory.counters().hashed.get() == 0) {
        if Instant::now() > until {
            return Err("the nodes do not go over to buckets".into());
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    // Until everybody has been heard, emits go everywhere.
    tokio::time::sleep(config.expiry + Duration::from_secs(1)).await;
    let rooms = (MEMBERS / size).clamp(2, MAX_ROOMS);
    let mut random = Random::new();
    let sockets = fill(&nodes, rooms, size, together, &mut random).await?;

    // What it works when nobody emits is not the emits'.
    let (idle_before, idle_since) = (cpu(broker.pid())?, Instant::now());
    tokio::time::sleep(IDLE).await;
    let idle =
        cpu(broker.pid())?.saturating_sub(idle_before).as_secs_f64() / idle_since.elapsed().as_secs_f64();

    let args = Args::from_json_array(&payload(), Vec::new())?;
    let packet = Outgoing::new(EncodedPacket::event("/", None, "message", &args));
    let received = || nodes.iter().map(|node| node.factory.counters().received.get()).sum::<u64>();
    let (received_before, cpu_before, since) = (received(), cpu(broker.pid())?, Instant::now());
    let (mut emits, mut delivered, mut batch) = (0_u64, 0_u64, VecDeque::new());
    let window = (DELIVERIES / size).clamp(4, WINDOW);
    while since.elapsed().as_secs_f64() < seconds {
        let confirmed: Vec<_> = (0..window)
            .map(|_| {
                let node = &nodes[random.below(NODES)];
                let selector = Selector::rooms([&*room(random.below(rooms))]);
                node.adapter.broadcast_confirmed(&selector, &packet)
            })
            .collect();
        for confirmed in confirmed {
            confirmed.await?;
        }
        emits += window as u64;
        let until = Instant::now() + Duration::from_secs(10);
        while delivered < emits * size as u64 && Instant::now() < until {
            delivered += sockets.iter().map(|socket| socket.drain(&mut batch)).sum::<u64>();
            tokio::task::yield_now().await;
        }
    }
    let elapsed = since.elapsed().as_secs_f64();
    let cpu = cpu(broker.pid())?.saturating_sub(cpu_before).as_secs_f64() - idle * elapsed;
    // Each node hears a heartbeat and vitals of two others each second.
    let gossip = elapsed * (NODES * (NODES - 1) * 2) as f64;
    let per_emit = ((received() - received_before) as f64 - gossip).max(0.0) / emits as f64;
    let missing = (emits * size as u64).abs_diff(delivered);
    println!(
        "| {size} | {} | {rooms} | {way} | {:.2} | {:.1} | {emits} | {} |",
        if together { "on one node" } else { "anywhere" },
        per_emit / NODES as f64,
        cpu * 1e6 / emits as f64,
        missing,
    );
    for node in &nodes {
        roomcast_adapter::AdapterFactory::shutdown(&*node.factory).await;
    }
    Ok(())
}

/// Rooms of one size, with members anywhere or each with all on one node.
async fn fill(
    nodes: &[Node],
    rooms: usize,
    size: usize,
    together: bool,
    random: &mut Random,
) -> Result<Vec<Socket>, Error> {
    let (mut sockets, mut joins) = (Vec::new(), Vec::new());
    for number in 0..rooms {
        let home = random.below(NODES);
        for _ in 0..size {
            let node = &nodes[if together { home } else { random.below(NODES) }];
            let socket = node.socket(sockets.len() as u32);
            joins.push(node.adapter.join(socket.id, &[room(number)]));
            sockets.push(socket);
        }
    }
    for join in joins {
        join.await?;
    }
    Ok(sockets)
}

/// About 200 bytes of JSON.
fn payload() -> String {
    format!("[{{\"text\":\"{}\"}}]", "x".repeat(185))
}
