//! A room full of clients that check what they get, and a client outside that emits to it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::Notify;

use super::Error;
use super::client::{Client, connect_many};

/// Handshakes at once.
const AT_ONCE: usize = 64;

const BUFFER: usize = 16 * 1024;

/// How long deliveries that are on their way may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// The room of everybody, and the room of one member.
const ALL: &str = "all";
const ONE: &str = "one";

#[derive(Default)]
struct Shared {
    received: AtomicU64,
    received_alone: AtomicU64,
    /// Deliveries that were not the next of their emitter: lost, repeated or overtaken.
    disorder: AtomicU64,
    /// Members whose connection ended.
    lost: AtomicU64,
    progress: Notify,
}

/// The room and its emitter.
pub(super) struct Room {
    publisher: Client,
    shared: Arc<Shared>,
    members: u64,
    sent: u64,
    sent_alone: u64,
}

impl Room {
    pub(super) async fn open(server: SocketAddr, members: usize) -> Result<Self, Error> {
        let mut clients = connect_many(server, members, AT_ONCE, BUFFER).await?;
        let shared = Arc::new(Shared::default());
        if let Some(first) = clients.first_mut() {
            first.join(ONE).await?;
        }
        for mut client in clients {
            client.join(ALL).await?;
            tokio::spawn(member(client, Arc::clone(&shared)));
        }
        let publisher = Client::connect(server, members, BUFFER).await?;
        Ok(Self { publisher, shared, members: members as u64, sent: 0, sent_alone: 0 })
    }

    /// Emits to everybody. The sequence number is what the members check.
    pub(super) async fn emit(&mut self, padding: &str) -> Result<(), Error> {
        let sequence = self.sent;
        self.sent += 1;
        let packet = format!(r#"42["room:emit","{ALL}","tick",{sequence},"{padding}"]"#);
        Ok(self.publisher.send(&packet).await?)
    }

    /// Emits to one member.
    pub(super) async fn emit_alone(&mut self, padding: &str) -> Result<(), Error> {
        self.sent_alone += 1;
        Ok(self.publisher.send(&format!(r#"42["room:emit","{ONE}","solo","{padding}"]"#)).await?)
    }

    /// Emits `count` times, with at most `window` emits on their way: with 1, each after the last has arrived.
    pub(super) async fn saturate(&mut self, count: u64, window: u64, padding: &str) -> Result<(), Error> {
        for _ in 0..count {
            self.emit(padding).await?;
            let arrived = self.sent.saturating_sub(window - 1);
            self.arrived(arrived).await?;
        }
        self.all_arrived().await
    }

    /// Emits `count` times, one every `interval`.
    pub(super) async fn pace(&mut self, count: u64, interval: Duration, padding: &str) -> Result<(), Error> {
        let mut clock = tokio::time::interval(interval);
        for _ in 0..count {
            clock.tick().await;
            self.emit(padding).await?;
        }
        self.all_arrived().await
    }

    pub(super) async fn all_arrived(&mut self) -> Result<(), Error> {
        self.arrived(self.sent).await
    }

    /// Waits until that many emits have reached everybody, and whatever was emitted to the one member.
    async fn arrived(&mut self, emits: u64) -> Result<(), Error> {
        let shared = Arc::clone(&self.shared);
        let (wanted, alone) = (emits * self.members, self.sent_alone);
        let arrived = async {
            while shared.received.load(Ordering::Relaxed) < wanted
                || shared.received_alone.load(Ordering::Relaxed) < alone
            {
                tokio::select! {
                    () = shared.progress.notified() => {}
                    // Its heartbeats.
                    read = self.publisher.read(|_| {}) => read?,
                }
            }
            Result::<(), Error>::Ok(())
        };
        tokio::time::timeout(PATIENCE, arrived).await.map_err(|_| "deliveries are missing")?
    }

    /// Deliveries beyond or below what was emitted, those out of order, and members whose connection ended.
    pub(super) fn faults(&self) -> (u64, u64, u64) {
        let received = self.shared.received.load(Ordering::Relaxed);
        (
            received.abs_diff(self.sent * self.members),
            self.shared.disorder.load(Ordering::Relaxed),
            self.shared.lost.load(Ordering::Relaxed),
        )
    }
}

async fn member(mut client: Client, shared: Arc<Shared>) {
    let mut next = 0;
    loop {
        let (mut ticks, mut alone) = (0, 0);
        let read = client.read(|text| {
            if let Some(rest) = text.strip_prefix(r#"42["tick","#) {
                let digits = rest.bytes().take_while(u8::is_ascii_digit);
                let sequence = digits.fold(0_u64, |number, digit| number * 10 + u64::from(digit - b'0'));
                if sequence != next {
                    shared.disorder.fetch_add(1, Ordering::Relaxed);
                }
                next = sequence + 1;
                ticks += 1;
            } else if text.starts_with(r#"42["solo","#) {
                alone += 1;
            }
        });
        if read.await.is_err() {
            shared.lost.fetch_add(1, Ordering::Relaxed);
            return;
        }
        shared.received_alone.fetch_add(alone, Ordering::Relaxed);
        shared.received.fetch_add(ticks, Ordering::Relaxed);
        shared.progress.notify_one();
    }
}
