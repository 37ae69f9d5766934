//! `roomcast bench`: a first impression of what a gateway does on a machine. Owns clients that are as small as can be, and
//! what they count; comparisons with other servers need the method of docs/benchmarks.md.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use clap::Args;
use parking_lot::Mutex;
use rand::RngCore as _;
use roomcast_protocol::websocket::{
    DEFAULT_MAX_FRAGMENTS, Decoder, Inflater, Message, OpCode, Role, masked_frame,
};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval, sleep};
use tokio_rustls::TlsConnector;

use super::remote::CliError;
use super::tls::trust_of;
use super::{TlsFlags, reachable};
use crate::config::Public;
use crate::outbound::{Trust, connect};
use crate::transport::ReadWrite;

/// Latencies that are kept. Later ones are counted, and take no part in the percentiles.
const MAX_SAMPLES: usize = 2_000_000;
/// Connections that are made at the same time.
const CONNECTING: usize = 64;
/// How long the last emits may take to arrive.
const GRACE: Duration = Duration::from_secs(2);
const MAX_MESSAGE: usize = 1 << 20;

/// The load.
#[derive(Debug, Clone, PartialEq, Eq, Args)]
#[group(skip)]
pub struct Bench {
    /// Where clients connect [default: the public listener of the configuration]
    #[arg(long, value_name = "URL")]
    target: Option<String>,
    /// Certificates for https://
    #[command(flatten)]
    tls: TlsFlags,
    /// Clients, over WebSocket
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(2..=20_000))]
    clients: u32,
    /// Rooms, with as many clients each
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..))]
    rooms: u32,
    /// Emits a second, in all
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    rate: u32,
    /// Bytes of payload
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u32).range(0..=65_536))]
    size: u32,
    /// How long
    #[arg(long, default_value = "10s", value_parser = humantime::parse_duration)]
    duration: Duration,
    /// The auth payload of every client, as JSON
    #[arg(long, value_name = "JSON", default_value = "{}")]
    auth: String,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// What all clients count together.
#[derive(Default)]
struct Tally {
    received: AtomicU64,
    samples: Mutex<Vec<u32>>,
}

/// `roomcast bench`, against a public listener: this one, if no other is named.
pub(super) async fn bench(bench: &Bench, public: &Public) -> Result<String, CliError> {
    let target = match &bench.target {
        Some(url) => Target::new(url, Trust::System, &bench.tls)?,
        None => {
            let url = format!("{}://{}", public.tls.scheme(), reachable(public.listen));
            Target::new(&url, trust_of(&public.tls), &bench.tls)?
        }
    };
    if bench.rooms * 2 > bench.clients {
        return Err(CliError::Usage("a room needs two clients to talk in".to_owned()));
    }
    let tally = Arc::new(Tally::default());
    let epoch = Instant::now();
    let (senders, mut clients) = connect_all(bench, &target, &tally, epoch).await?;
    let connected_in = epoch.elapsed();

    let per_room = f64::from(bench.clients) / f64::from(bench.rooms);
    let padding = "x".repeat(bench.size as usize);
    let mut ticks = interval(Duration::from_secs(1) / bench.rate);
    // One that comes late is made up for: the rate is that of a publisher who does not wait.
    ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
    let began = Instant::now();
    let (mut emitted, mut expected, mut unsent) = (0_u64, 0_u64, 0_u64);
    while began.elapsed() < bench.duration {
        ticks.tick().await;
        let client = (emitted % u64::from(bench.clients)) as usize;
        let room = client % bench.rooms as usize;
        let micros = epoch.elapsed().as_micros();
        let packet = format!(r#"42["room:emit","bench:{room}","bench",{micros},"{padding}"]"#);
        match senders[client].try_send(packet) {
            Ok(()) => expected += members(bench, room) - 1,
            Err(_) => unsent += 1,
        }
        emitted += 1;
    }
    let took = began.elapsed();
    let patience = Instant::now() + GRACE;
    while tally.received.load(Ordering::Relaxed) < expected && Instant::now() < patience {
        sleep(Duration::from_millis(10)).await;
    }
    clients.abort_all();
    while clients.join_next().await.is_some() {}
    let received = tally.received.load(Ordering::Relaxed);
    let mut samples = std::mem::take(&mut *tally.samples.lock());
    samples.sort_unstable();
    let percentile = |share: f64| {
        let at = (samples.len() as f64 * share) as usize;
        samples.get(at.min(samples.len().saturating_sub(1))).map_or(0.0, |micros| f64::from(*micros) / 1000.0)
    };
    let report = serde_json::json!({
        "clients": bench.clients,
        "members_per_room": per_room,
        "connect_seconds": connected_in.as_secs_f64(),
        "seconds": took.as_secs_f64(),
        "emits_per_second": (emitted - unsent) as f64 / took.as_secs_f64(),
        "deliveries_per_second": received as f64 / took.as_secs_f64(),
        "unsent": unsent,
        "expected": expected,
        "received": received,
        "latency_ms": { "p50": percentile(0.5), "p95": percentile(0.95), "p99": percentile(0.99), "max": percentile(1.0) },
    });
    if bench.json {
        return Ok(report.to_string());
    }
    let latency = &report["latency_ms"];
    Ok(format!(
        "{} clients in {} rooms, connected in {:.2} s\n{:.0} emits/s for {:.1} s: {received} of {expected} deliveries, \
         {:.0}/s\nlatency p50 {:.2} ms, p95 {:.2} ms, p99 {:.2} ms, max {:.2} ms",
        bench.clients,
        bench.rooms,
        connected_in.as_secs_f64(),
        report["emits_per_second"].as_f64().unwrap_or_default(),
        took.as_secs_f64(),
        received as f64 / took.as_secs_f64(),
        latency["p50"].as_f64().unwrap_or_default(),
        latency["p95"].as_f64().unwrap_or_default(),
        latency["p99"].as_f64().unwrap_or_default(),
        latency["max"].as_f64().unwrap_or_default(),
    ))
}

/// The clients in a room: those whose number leaves it as the rest.
fn members(bench: &Bench, room: usize) -> u64 {
    let (clients, rooms) = (bench.clients as usize, bench.rooms as usize);
    (clients / rooms + usize::from(room < clients % rooms)) as u64
}

async fn connect_all(
    bench: &Bench,
    target: &Target,
    tally: &Arc<Tally>,
    epoch: Instant,
) -> Result<(Vec<mpsc::Sender<String>>, JoinSet<()>), CliError> {
    let (mut senders, mut tasks) = (Vec::new(), JoinSet::new());
    let all: Vec<u32> = (0..bench.clients).collect();
    for some in all.chunks(CONNECTING) {
        let connecting = some.iter().map(|index| {
            let room = index % bench.rooms;
            async move {
                let mut client = Client::connect(target, &bench.auth).await?;
                client.send(&format!(r#"420["room:join","bench:{room}"]"#)).await?;
                client.expect("430[{\"ok\":true").await?;
                Ok::<_, io::Error>(client)
            }
        });
        for client in futures_util::future::try_join_all(connecting).await? {
            let (sender, packets) = mpsc::channel(1_024);
            senders.push(sender);
            tasks.spawn(run(client, packets, Arc::clone(tally), epoch));
        }
    }
    Ok((senders, tasks))
}

/// A client's life: what is emitted to it is counted, what it is given it sends.
async fn run(mut client: Client, mut packets: mpsc::Receiver<String>, tally: Arc<Tally>, epoch: Instant) {
    loop {
        let mut latencies = Vec::new();
        let done = tokio::select! {
            read = client.read(|text| latencies.extend(latency(text, epoch))) => read.is_err(),
            packet = packets.recv() => match packet {
                Some(packet) => client.send(&packet).await.is_err(),
                None => true,
            },
        };
        tally.received.fetch_add(latencies.len() as u64, Ordering::Relaxed);
        let mut samples = tally.samples.lock();
        let room = MAX_SAMPLES.saturating_sub(samples.len());
        samples.extend(latencies.into_iter().take(room));
        drop(samples);
        if done {
            return;
        }
    }
}

/// How long ago an emit of ours was made, in microseconds.
fn latency(text: &str, epoch: Instant) -> Option<u32> {
    let rest = text.strip_prefix(r#"42["bench","#)?;
    let micros: u128 = rest.split(',').next()?.parse().ok()?;
    u32::try_from(epoch.elapsed().as_micros().saturating_sub(micros)).ok()
}

/// Where clients connect.
struct Target {
    authority: String,
    tls: Option<TlsConnector>,
}

impl Target {
    fn new(url: &str, trust: Trust, flags: &TlsFlags) -> Result<Self, CliError> {
        let refused = || CliError::Usage(format!("\"{url}\" is no http:// or https:// URL"));
        let uri: http::Uri = url.parse().map_err(|_| refused())?;
        let (tls, port) = match uri.scheme_str() {
            Some("http") => (None, 80),
            Some("https") => (Some(TlsConnector::from(Arc::new(flags.client(trust)?))), 443),
            _ => return Err(refused()),
        };
        let authority = uri.authority().ok_or_else(refused)?;
        let port = authority.port_u16().unwrap_or(port);
        Ok(Self { authority: format!("{}:{port}", authority.host()), tls })
    }
}

/// A Socket.IO client over WebSocket, in the namespace `/`.
struct Client {
    stream: Box<dyn ReadWrite>,
    decoder: Decoder,
    inflater: Inflater,
    buffer: Box<[u8]>,
}

impl Client {
    async fn connect(target: &Target, auth: &str) -> io::Result<Self> {
        let mut stream = connect(&target.authority, target.tls.as_ref()).await?;
        let request = format!(
            "GET /socket.io/?EIO=4&transport=websocket HTTP/1.1\r\nHost: {}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
            target.authority
        );
        stream.write_all(request.as_bytes()).await?;
        stream.flush().await?;
        read_head(&mut *stream).await?;
        let mut client = Self {
            stream,
            decoder: Decoder::new(Role::Client, MAX_MESSAGE, DEFAULT_MAX_FRAGMENTS, None),
            inflater: Inflater::new(),
            buffer: vec![0; 4_096].into_boxed_slice(),
        };
        client.send(&format!("40{auth}")).await?;
        client.expect("40{").await?;
        Ok(client)
    }

    async fn send(&mut self, text: &str) -> io::Result<()> {
        // Each frame has a mask of its own (RFC 6455, section 5.3).
        let mask = rand::rng().next_u32().to_ne_bytes();
        self.stream.write_all(&masked_frame(OpCode::Text, text.as_bytes(), mask)).await?;
        self.stream.flush().await
    }

    /// One read: `each` gets every packet in it. Heartbeats are answered. Cancelling it loses nothing but an answer.
    async fn read(&mut self, mut each: impl FnMut(&str)) -> io::Result<()> {
        let len = self.stream.read(&mut self.buffer).await?;
        if len == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let mut pings = 0;
        let mut rest = &mut self.buffer[..len];
        while let Some(message) =
            self.decoder.decode(&mut rest, &mut self.inflater).map_err(io::Error::other)?
        {
            match message {
                Message::Text("2") => pings += 1,
                Message::Text(text) => each(text),
                Message::Close(_) => return Err(io::ErrorKind::ConnectionAborted.into()),
                Message::Binary(_) | Message::Ping(_) | Message::Pong(_) => {}
            }
        }
        for _ in 0..pings {
            self.send("3").await?;
        }
        Ok(())
    }

    /// Reads until a packet begins like this; the gateway's refusals are told.
    async fn expect(&mut self, beginning: &str) -> io::Result<()> {
        let (mut found, mut refusal) = (false, None);
        while !found && refusal.is_none() {
            self.read(|text| {
                found |= text.starts_with(beginning);
                if text.starts_with("44") || text.contains("\"error\"") {
                    refusal = Some(text.to_owned());
                }
            })
            .await?;
        }
        match refusal {
            Some(text) if !found => Err(io::Error::other(format!("the gateway refused: {text}"))),
            _ => Ok(()),
        }
    }
}

/// Reads the head of the answer, and nothing behind it.
async fn read_head(stream: &mut dyn ReadWrite) -> io::Result<()> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        if head.len() > 16 * 1024 {
            return Err(io::ErrorKind::InvalidData.into());
        }
        head.push(stream.read_u8().await?);
    }
    if head.starts_with(b"HTTP/1.1 101 ") {
        Ok(())
    } else {
        Err(io::Error::other(String::from_utf8_lossy(&head).into_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_client_is_in_one_room() {
        let bench = Bench {
            target: None,
            tls: TlsFlags::default(),
            clients: 11,
            rooms: 3,
            rate: 1,
            size: 0,
            duration: Duration::ZERO,
            auth: String::new(),
            json: false,
        };
        assert_eq!([0, 1, 2].map(|room| members(&bench, room)), [4, 4, 3]);
    }

    #[test]
    fn only_its_own_emits_are_measured() {
        let epoch = Instant::now() - Duration::from_millis(5);
        assert!(latency(r#"42["bench",1000,"xx"]"#, epoch).unwrap() >= 4_000);
        assert!(latency(r#"42["other",1000]"#, epoch).is_none() && latency("2", epoch).is_none());
    }
}
