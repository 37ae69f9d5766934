//! What clients cost that poll: a held request each, and a request for each delivery.
//!
//! Owns clients over HTTP long-polling, two connections each: one for what they wait for, one for what they say.

use std::io::{self, Read as _, Write as _};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Token};

use super::crowd::{Crowd, PATIENCE, Packet};
use super::ledger::{Ledger, Stamp};
use super::room::{ASK_AGAIN, delivery};
use super::server::{Servers, Setup};
use super::{Error, Report};

const EVENT: &str = "tick";
const ROOM: &str = "room-0";

/// Bytes of an event beside its stamp.
const PAYLOAD: usize = 64;

const HEADERS: usize = 32;

/// How long memory has to stand still before it is read.
const REST: Duration = Duration::from_secs(2);

pub(super) fn polling(setup: &Setup, clients: usize, rate: u32, time: Duration) -> Result<Report, Error> {
    let servers = Servers::start(setup, 1)?;
    let address = servers.addresses()[0];
    // What a thread or a table allocates once is no session's.
    drop(Pollers::open(address, &setup.target.events.join, 8)?);
    std::thread::sleep(REST);
    let empty = servers.resident()?;
    let mut pollers = Pollers::open(address, &setup.target.events.join, clients)?;
    pollers.rest(REST)?;
    let full = servers.resident()?;

    let mut publisher = Crowd::new()?;
    publisher.open(&[address], 1, |_, _, _| {})?;
    let interval = Duration::from_secs(1) / rate;
    let emits = (time.as_secs_f64() * f64::from(rate)).ceil() as u64;
    pollers.ledger.begin();
    let (cpu, began) = (servers.cpu()?, Instant::now());
    for number in 0..emits {
        while let Some(early) = (interval * u32::try_from(number)?).checked_sub(began.elapsed()) {
            pollers.turn(early)?;
            publisher.turn(Duration::ZERO, |_, _, _| {})?;
        }
        let micros = pollers.ledger.micros();
        pollers.ledger.emitted(clients, micros);
        let text = Stamp { publisher: 0, number, micros }.write(&"x".repeat(PAYLOAD));
        let broadcast = &setup.target.events.broadcast;
        publisher
            .send(0, |outbox| outbox.text(&format!(r#"42["{broadcast}","{ROOM}","{EVENT}","{text}"]"#)))?;
    }
    pollers.all_arrived()?;
    let (cpu, took, (mut latencies, _)) = (servers.cpu()? - cpu, began.elapsed(), pollers.ledger.end());

    let deliveries = (emits * clients as u64) as f64;
    let mut report = Report::default();
    report.figure("clients", clients as f64, "");
    report.figure("payload", PAYLOAD as f64, "bytes");
    report.figure("bytes_per_session", full.saturating_sub(empty) as f64 / clients as f64, "bytes");
    report.figure("paced_emits_per_second", emits as f64 / took.as_secs_f64(), "1/s");
    report.figure("paced_cpu_per_delivery", cpu.as_secs_f64() * 1e6 / deliveries, "µs");
    report.figure("paced_latency_p50", latencies.percentile(50), "ms");
    report.figure("paced_latency_p99", latencies.percentile(99), "ms");
    report.figure("polls_per_delivery", pollers.polls as f64 / deliveries, "");
    report.bounded("deliveries_lost_or_repeated", pollers.ledger.miscounted() as f64, "", 0.0);
    report.bounded("deliveries_out_of_order", pollers.ledger.disorder() as f64, "", 0.0);
    Ok(report)
}

/// The clients.
struct Pollers {
    poll: Poll,
    events: Events,
    clients: Vec<Poller>,
    ledger: Ledger,
    polls: u64,
    joined: usize,
    join: String,
}

struct Poller {
    sid: String,
    /// Connection `2n` of client `n`.
    gets: Http,
    /// Connection `2n + 1`.
    posts: Http,
    joined: bool,
}

impl Pollers {
    /// All have joined the room when this is done.
    fn open(address: SocketAddr, join: &str, count: usize) -> Result<Self, Error> {
        let mut pollers = Self {
            poll: Poll::new()?,
            events: Events::with_capacity(1024),
            clients: Vec::with_capacity(count),
            ledger: Ledger::new(count, 1),
            polls: 0,
            joined: 0,
            join: join.to_owned(),
        };
        while pollers.joined < count {
            if pollers.clients.len() < count {
                let index = pollers.clients.len();
                let registry = pollers.poll.registry();
                let gets = Http::connect(address, registry, Token(2 * index))?;
                let posts = Http::connect(address, registry, Token(2 * index + 1))?;
                let mut client = Poller { sid: String::new(), gets, posts, joined: false };
                client.get()?;
                pollers.clients.push(client);
            }
            pollers.let_join()?;
        }
        pollers.polls = 0;
        Ok(pollers)
    }

    /// Waits until all clients are in the room. Who has no answer asks again, as in [`super::room::join_all`].
    fn let_join(&mut self) -> Result<(), Error> {
        let (patience, mut again) = (Instant::now() + PATIENCE, Instant::now() + ASK_AGAIN);
        while self.joined < self.clients.len() {
            self.turn(Duration::from_millis(50))?;
            if Instant::now() > patience {
                return Err("a client that polls cannot join".into());
            }
            if Instant::now() > again {
                again += ASK_AGAIN;
                for client in self.clients.iter_mut().filter(|client| !client.joined) {
                    client.join(&self.join)?;
                }
            }
        }
        Ok(())
    }

    fn turn(&mut self, timeout: Duration) -> Result<(), Error> {
        match self.poll.poll(&mut self.events, Some(timeout)) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => return Ok(()),
            polled => polled?,
        }
        let now = self.ledger.micros();
        for event in &self.events {
            let Token(token) = event.token();
            let (index, is_post) = (token / 2, token % 2 == 1);
            let client = &mut self.clients[index];
            if is_post {
                client.posts.receive()?;
                while client.posts.take()?.is_some() {}
                client.posts.flush()?;
                continue;
            }
            client.gets.receive()?;
            client.gets.flush()?;
            while let Some(body) = client.gets.take()? {
                self.polls += 1;
                for record in body.split('\u{1e}') {
                    if let Some(stamp) = delivery(&Packet::Text(record)) {
                        self.ledger.arrived(index, stamp, now);
                    } else {
                        let before = client.joined;
                        client.answer(record, &self.join)?;
                        self.joined += usize::from(client.joined && !before);
                    }
                }
                client.get()?;
            }
        }
        Ok(())
    }

    fn rest(&mut self, time: Duration) -> Result<(), Error> {
        let until = Instant::now() + time;
        while let Some(left) = until.checked_duration_since(Instant::now()) {
            self.turn(left.max(Duration::from_millis(1)))?;
        }
        Ok(())
    }

    fn all_arrived(&mut self) -> Result<(), Error> {
        let patience = Instant::now() + PATIENCE;
        while self.ledger.missing() > 0 && Instant::now() < patience {
            self.turn(Duration::from_millis(50))?;
        }
        Ok(())
    }
}

impl Poller {
    fn get(&mut self) -> Result<(), Error> {
        let sid = if self.sid.is_empty() { String::new() } else { format!("&sid={}", self.sid) };
        let server = self.gets.server;
        Ok(self.gets.send(format_args!(
            "GET /socket.io/?EIO=4&transport=polling{sid} HTTP/1.1\r\nHost: {server}\r\n\r\n"
        ))?)
    }

    fn post(&mut self, payload: &str) -> Result<(), Error> {
        let server = self.posts.server;
        Ok(self.posts.send(format_args!(
            "POST /socket.io/?EIO=4&transport=polling&sid={} HTTP/1.1\r\nHost: {server}\r\n\
             Content-Type: text/plain;charset=UTF-8\r\nContent-Length: {}\r\n\r\n{payload}",
            self.sid,
            payload.len()
        ))?)
    }

    fn join(&mut self, join: &str) -> Result<(), Error> {
        self.post(&format!(r#"420["{join}","{ROOM}"]"#))
    }

    /// Says what comes next in the life of a client.
    fn answer(&mut self, record: &str, join: &str) -> Result<(), Error> {
        if record == "2" {
            self.post("3")?;
        } else if let Some(open) = record.strip_prefix('0') {
            let open: serde_json::Value = serde_json::from_str(open)?;
            self.sid = open["sid"].as_str().ok_or("no session id")?.to_owned();
            self.post("40")?;
        } else if record.starts_with("40{") {
            self.join(join)?;
        } else if let Some(answer) = record.strip_prefix("430") {
            if answer.contains("\"error\"") {
                return Err(format!("the server lets nobody into a room: {answer}").into());
            }
            self.joined = true;
        }
        Ok(())
    }
}

/// A connection that is kept, with a request at a time.
struct Http {
    stream: TcpStream,
    server: SocketAddr,
    inbound: Vec<u8>,
    outbound: Vec<u8>,
}

impl Http {
    fn connect(server: SocketAddr, registry: &mio::Registry, token: Token) -> Result<Self, Error> {
        let stream = std::net::TcpStream::connect(server)?;
        stream.set_nodelay(true)?;
        stream.set_nonblocking(true)?;
        let mut stream = TcpStream::from_std(stream);
        registry.register(&mut stream, token, Interest::READABLE | Interest::WRITABLE)?;
        Ok(Self { stream, server, inbound: Vec::new(), outbound: Vec::new() })
    }

    fn send(&mut self, request: std::fmt::Arguments<'_>) -> io::Result<()> {
        self.outbound.write_fmt(request)?;
        self.flush()
    }

    fn flush(&mut self) -> io::Result<()> {
        while !self.outbound.is_empty() {
            match self.stream.write(&self.outbound) {
                Ok(written) => drop(self.outbound.drain(..written)),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Reads what has come.
    fn receive(&mut self) -> Result<(), Error> {
        let mut buffer = [0; 16 * 1024];
        loop {
            match self.stream.read(&mut buffer) {
                Ok(0) => return Err("the server has ended a connection".into()),
                Ok(len) => self.inbound.extend_from_slice(&buffer[..len]),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// The body of an answer that has come as a whole.
    fn take(&mut self) -> Result<Option<String>, Error> {
        let mut headers = [httparse::EMPTY_HEADER; HEADERS];
        let mut response = httparse::Response::new(&mut headers);
        let httparse::Status::Complete(head) = response.parse(&self.inbound)? else { return Ok(None) };
        let length =
            response.headers.iter().find(|header| header.name.eq_ignore_ascii_case("content-length"));
        let length = length.ok_or("an answer without its length")?;
        let length: usize = std::str::from_utf8(length.value)?.trim().parse()?;
        let code = response.code;
        if self.inbound.len() < head + length {
            return Ok(None);
        }
        let body = String::from_utf8(self.inbound[head..head + length].to_vec())?;
        self.inbound.drain(..head + length);
        if code != Some(200) {
            return Err(format!("HTTP {code:?}: {body}").into());
        }
        Ok(Some(body))
    }
}
