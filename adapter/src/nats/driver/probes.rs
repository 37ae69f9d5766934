//! A light connection to each other server of the cluster, which tells how far fences have come.
//!
//! What one server was asked to subscribe to, the others learn a moment later. A probe listens at another server to the
//! fences of the link's subscribing connection (see [`fence`](super::fence)). It counts from the first fence that it got: until
//! then its own interest was on its way in the other direction.
//!
//! A server whose probe is lost is not waited for: its clients have lost it as well, and subscribe and publish anew. One that
//! hangs is waited for once, then given up and counted. Servers come and go, so the cluster is looked at again at
//! intervals.

use std::{sync::Arc, time::Duration};

use async_nats::{Client, ConnectOptions, Event, ServerAddr, Subscriber};
use futures_util::{FutureExt, StreamExt};
use rustc_hash::{FxHashMap, FxHashSet};
use tokio::{
    sync::{Notify, oneshot},
    task::JoinSet,
    time::{self, Instant},
};

use super::{
    access::Access,
    fence::{Connection, Fence, number},
    servers::{Answering, Haste, Servers},
    unavailable,
};
use crate::{broker::Inbound, cluster::BusError};

/// Servers beyond these are not waited for.
const MAX_PROBES: usize = 16;
/// When a server owes a fence for so long, another is sent: the first may have been lost with a route.
const NUDGE: Duration = Duration::from_millis(100);
/// The first wait for a fence that proves a new probe; it doubles.
const PROOF: Duration = Duration::from_millis(2);
/// Where there was no probe to be had, it is tried at last every so many intervals,
const RARELY: u32 = 4;
/// and after so many it is as if it had never been tried.
const FORGOTTEN: u32 = 16 * RARELY;
/// What a probe reads at once. It gets only fences.
const READ_BUFFER: u16 = 1024;

/// What looks after the probes of one link.
pub(super) struct Probes {
    pub(super) servers: Arc<Servers>,
    pub(super) access: Arc<Access>,
    pub(super) reader: Connection,
    pub(super) inbound: Inbound,
    /// How long one may be silent, or take to be made.
    pub(super) patience: Duration,
    /// Between two looks at the cluster.
    pub(super) interval: Duration,
}

/// Those that are being made, by server.
type Making = JoinSet<(String, Result<Probe, String>)>;

/// One that got a fence.
struct Probe {
    client: Client,
    fences: Subscriber,
    lost: Arc<Notify>,
    passed: u64,
}

/// Which servers have or had a probe.
#[derive(Default)]
struct Seen {
    /// By id: being made, or standing.
    held: FxHashSet<String>,
    /// Not reached, and when to try again.
    failed: FxHashMap<String, (Instant, Duration)>,
}

impl Probes {
    /// Runs until the link ends. Tells when each server that answered has a probe, or cannot have one.
    pub(super) async fn keep(self, first: Vec<Answering>, ready: oneshot::Sender<()>) {
        let info = self.reader.client().server_info();
        // Without a cluster there is nobody to wait for.
        let Some(mut cluster) = info.cluster else { return };
        let own = info.server_id;
        let (mut making, mut standing, mut looking) = (JoinSet::new(), JoinSet::new(), JoinSet::new());
        let mut seen = Seen::default();
        seen.held.insert(own.clone());
        self.make(first, &cluster, &mut seen, &mut making);
        let mut ready = Some(ready);
        let mut pace = self.interval;
        loop {
            if making.is_empty() {
                // Nobody may be waiting any more.
                let _ = ready.take().map(|ready| ready.send(()));
            }
            if looking.is_empty() {
                let (servers, patience) = (Arc::clone(&self.servers), self.patience);
                looking.spawn(look(servers, pace, patience, own.clone(), seen.held.clone()));
                // A TLS handshake costs a server more than a greeting.
                pace = (pace * 2).min(if info.tls_required { self.interval * 8 } else { self.interval });
            }
            tokio::select! {
                Some(Ok((server, made))) = making.join_next() => match made {
                    Ok(probe) => {
                        seen.failed.remove(&server);
                        // At once, so that nothing is confirmed without it from now on.
                        let given_up = self.fences().add_peer(&server, probe.passed);
                        standing.spawn(stand(server, probe, Arc::clone(self.fences()), given_up));
                    }
                    Err(error) => self.failed(&server, &error, &mut seen),
                },
                Some(Ok((server, reason))) = standing.join_next() => {
                    tracing::info!(broker = "nats", %server, reason, "lost a probe");
                    seen.held.remove(&server);
                    // It may be back soon.
                    pace = NUDGE;
                    looking.abort_all();
                }
                Some(looked) = looking.join_next() => if let Ok(answering) = looked {
                    // A cluster that was given no name agrees on one after its servers have started.
                    let now = answering.iter().find(|one| one.greeting.server_id == own);
                    cluster = now.and_then(|now| now.greeting.cluster.clone()).unwrap_or(cluster);
                    self.make(answering, &cluster, &mut seen, &mut making);
                    self.unreachable();
                },
                () = self.silence() => {}
            }
        }
    }

    fn fences(&self) -> &Arc<Fence> {
        self.reader.fences()
    }

    /// Begins to make the probes that are missing.
    fn make(&self, answering: Vec<Answering>, cluster: &str, seen: &mut Seen, making: &mut Making) {
        let now = Instant::now();
        seen.failed.retain(|_, (due, _)| *due + self.interval * FORGOTTEN > now);
        for one in answering {
            let server = one.greeting.server_id;
            let is_other = one.greeting.cluster.as_deref() != Some(cluster);
            let is_due = seen.failed.get(&server).is_none_or(|(due, _)| *due <= now);
            if is_other || !is_due || seen.held.contains(&server) || seen.held.len() > MAX_PROBES {
                continue;
            }
            seen.held.insert(server.clone());
            let (access, reader, patience) = (Arc::clone(&self.access), self.reader.clone(), self.patience);
            making.spawn(async move {
                let made = make(&access, reader, one.address, &server).boxed();
                let made = time::timeout(patience, made).await;
                (server, made.unwrap_or_else(|_| Err(format!("no fence came within {patience:?}"))))
            });
        }
    }

    /// Says which announced addresses cannot be reached. The server behind one may have others.
    fn unreachable(&self) {
        let unreachable = self.servers.newly_unreachable();
        if !unreachable.is_empty() {
            self.inbound.uncovered(unreachable.len() as u64);
            tracing::warn!(
                broker = "nats",
                ?unreachable,
                "announced addresses do not answer: joins are confirmed without asking the servers there"
            );
        }
    }

    /// A server has no probe: it is tried again, ever less often.
    fn failed(&self, server: &str, error: &str, seen: &mut Seen) {
        seen.held.remove(server);
        let wait = seen.failed.get(server).map_or(self.interval, |(_, wait)| *wait * 2);
        let wait = wait.min(self.interval * RARELY);
        if !seen.failed.contains_key(server) {
            self.inbound.uncovered(1);
            tracing::warn!(
                broker = "nats",
                server,
                error,
                "a server of the cluster is not reached from here: joins are confirmed without asking it"
            );
        }
        seen.failed.insert(server.to_owned(), (Instant::now() + wait, wait));
    }

    /// Ends when servers were given up because they are silent.
    async fn silence(&self) {
        loop {
            // Who waits here may be interrupted, and begins again.
            if !self.fences().is_behind() {
                self.fences().behind().await;
            }
            time::sleep(NUDGE).await;
            while self.fences().is_behind() {
                let given_up = self.fences().give_up_silent(self.patience);
                if given_up > 0 {
                    self.inbound.uncovered(given_up);
                    tracing::warn!(
                        broker = "nats",
                        given_up,
                        "servers of the cluster are silent and not waited for"
                    );
                    return;
                }
                self.reader.nudge().await;
                time::sleep(NUDGE).await;
            }
        }
    }
}

/// Looks at the cluster after a while.
async fn look(
    servers: Arc<Servers>,
    after: Duration,
    patience: Duration,
    own: String,
    held: FxHashSet<String>,
) -> Vec<Answering> {
    time::sleep(after).await;
    let haste = Haste::Look { own: &own, held: &held };
    // When nobody answers the link does not live long either.
    servers.answering(patience, patience / 4, haste).boxed().await.unwrap_or_default()
}

/// Connects to a server, and waits for a fence there.
async fn make(
    access: &Access,
    reader: Connection,
    address: ServerAddr,
    server: &str,
) -> Result<Probe, String> {
    let lost = Arc::new(Notify::new());
    let options = access.options().await.map_err(|error| error.to_string())?;
    let client = options_of_probe(options, Arc::clone(&lost)).connect(address).boxed().await;
    let client = client.map_err(|error| error.to_string())?;
    // Behind one address may be several servers.
    if client.server_info().server_id != server {
        return Err("another server answered".into());
    }
    let subscribed = client.subscribe(reader.inbox()).await.map_err(unavailable);
    let mut fences = subscribed.map_err(|error: BusError| error.to_string())?;
    let mut wait = PROOF;
    loop {
        reader.nudge().await;
        match time::timeout(wait, fences.next()).await {
            Ok(Some(fence)) => {
                let Some(passed) = number(&fence.payload) else { continue };
                return Ok(Probe { client, fences, lost, passed });
            }
            Ok(None) => return Err("the connection was closed".into()),
            Err(_) => wait = (wait * 2).min(NUDGE),
        }
    }
}

fn options_of_probe(options: ConnectOptions, lost: Arc<Notify>) -> ConnectOptions {
    options
        .name("roomcast-probe")
        .ignore_discovered_servers()
        .read_buffer_capacity(READ_BUFFER)
        // Once a connection is lost its client is dropped. It has to notice that before it connects again, and to end if
        // it cannot: this runtime lives as long as the link.
        .max_reconnects(1)
        .reconnect_delay_callback(|attempts| if attempts > 1 { NUDGE } else { Duration::ZERO })
        .event_callback(move |event| {
            if matches!(event, Event::Disconnected | Event::Closed) {
                lost.notify_one();
            }
            std::future::ready(())
        })
}

/// Takes note of the fences at one server until it is lost.
async fn stand(
    server: String,
    probe: Probe,
    fences: Arc<Fence>,
    given_up: Arc<Notify>,
) -> (String, &'static str) {
    let Probe { client, fences: mut messages, lost, .. } = probe;
    let reason = loop {
        tokio::select! {
            message = messages.next() => match message {
                Some(message) => if let Some(number) = number(&message.payload) {
                    fences.pass_at(&server, number);
                },
                None => break "closed",
            },
            () = lost.notified() => break "disconnected",
            () = given_up.notified() => break "silent",
        }
    };
    fences.remove_peer(&server);
    drop(client);
    (server, reason)
}
