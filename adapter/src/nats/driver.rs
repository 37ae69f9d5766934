//! Core NATS through async-nats: one link is one publishing and one subscribing connection, and a probe at each other server
//! of the cluster. Only this module and those below it name `async_nats`.
//!
//! What was found in async-nats 0.51 and what follows from it:
//!
//! - It reconnects without end and then sends again what was queued. Here a lost connection ends its link: the client is
//!   told to wait for ever before a second connection, and dies with its runtime.
//! - It goes through a list of servers one after the other, and what servers announce later is not told. So
//!   [`servers`] finds out by itself who is there, and the client gets a list of those that answer.
//! - `flush` waits until the socket took the bytes, not for a PONG, and a hung server's socket takes a lot. So a
//!   round trip is a message to an inbox of the same connection ([`fence`]); the server handles what a connection sends in
//!   order. Batches are confirmed by one, subscriptions too. Between the servers of a cluster interest spreads a
//!   moment later; the [`probes`] tell when it has.
//! - Every subscription is a channel of its own, whose first block is allocated with it: about 5 KiB each. This crate has
//!   no other way, so a node should fall back to hashed subjects long before 100,000 rooms.
//! - Reading the channels by one task would lose the order between subjects, and a full channel drops messages with an
//!   event of which at most 128 wait. Here each is received inside the send ([`Inline`](crate::broker::Inline)): the
//!   connection's task itself queues it for delivery, in the order of the wire, and does not read on before it has. When
//!   that queue is full, the server feels it through TCP, and disconnects the node when too much waits. Slow-consumer events are counted and
//!   reported all the same.
//! - A refused permission comes as an event that names no request. Whoever waits for the next fence is told.
//! - Credentials in URLs are not used, they are taken out here.

mod access;
mod fence;
mod link;
mod probes;
mod servers;

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use async_nats::{ConnectOptions, Event, ServerAddr, ServerError};
use futures_util::{
    FutureExt,
    future::{self, BoxFuture},
};
use tokio::{
    runtime::Handle,
    sync::oneshot,
    time::{self, Instant},
};

pub(super) use self::link::NatsLink;
use self::{
    access::Access,
    fence::{Connection, Fence},
    link::Change,
    probes::Probes,
    servers::{Answering, Haste, Servers},
};
use super::{NatsConfig, NatsQueues, Subjects};
use crate::{
    LinkConfig,
    broker::{Driver, Fault, Inbound, Site, redact},
    cluster::{BusError, Publication, Subject},
};

/// Longer than any link lives.
const NEVER: Duration = Duration::from_secs(10 * 365 * 24 * 3600);
/// What a server takes if it was not asked yet.
const DEFAULT_MAX_PAYLOAD: usize = 1024 * 1024;

pub(super) struct NatsDriver {
    servers: Arc<Servers>,
    access: Arc<Access>,
    endpoint: String,
    subjects: Subjects,
    queues: NatsQueues,
    link: LinkConfig,
    max_payload: AtomicUsize,
    secrets: Vec<String>,
}

impl NatsDriver {
    pub(super) fn new(config: &NatsConfig, subjects: Subjects) -> Result<Self, BusError> {
        let (access, servers) = Access::new(config)?;
        let access = Arc::new(access);
        let endpoints: Vec<_> = servers.iter().map(|one| format!("{}:{}", one.host(), one.port())).collect();
        Ok(Self {
            servers: Arc::new(Servers::new(&servers, Arc::clone(&access))),
            secrets: access.secrets(),
            access,
            endpoint: endpoints.join(","),
            subjects,
            queues: config.queues.clone(),
            link: config.link.clone(),
            max_payload: AtomicUsize::new(DEFAULT_MAX_PAYLOAD),
        })
    }

    fn options(&self, options: ConnectOptions, site: &Site, fence: Arc<Fence>) -> ConnectOptions {
        let (fault, inbound): (Fault, Inbound) = (site.fault.clone(), site.inbound.clone());
        let connected = Arc::new(AtomicBool::new(false));
        let was_connected = Arc::clone(&connected);
        options
            .name("roomcast")
            .custom_inbox_prefix(self.subjects.inbox())
            .read_buffer_capacity(self.queues.read_buffer)
            .client_capacity(self.queues.commands.max(1))
            .subscription_capacity(self.queues.messages.max(1))
            .ignore_discovered_servers()
            .retain_servers_order()
            // They have just answered. One that hangs all the same must leave time for the next.
            .connection_timeout(self.link.connect_timeout / 2)
            .reconnect_delay_callback(move |_| {
                if was_connected.load(Ordering::Relaxed) { NEVER } else { Duration::ZERO }
            })
            .event_callback(move |event| {
                match event {
                    Event::Connected => connected.store(true, Ordering::Relaxed),
                    Event::Disconnected | Event::Closed => fault.raise("the connection was closed"),
                    Event::SlowConsumer(_) | Event::ServerError(ServerError::SlowConsumer(_)) => {
                        inbound.slow_consumer();
                    }
                    Event::ServerError(error) => {
                        tracing::warn!(%error, "NATS complains");
                        fence.complain(error.to_string());
                    }
                    event => tracing::info!(%event, "NATS says"),
                }
                std::future::ready(())
            })
    }

    /// Connects on the runtime of its thread, where the client's tasks stay.
    async fn connect_on(
        &self,
        runtime: &Handle,
        site: &Site,
        servers: Vec<ServerAddr>,
    ) -> Result<Connection, BusError> {
        let fence = Arc::new(Fence::default());
        let options = self.options(self.access.options().await?, site, Arc::clone(&fence));
        let access = Arc::clone(&self.access);
        let connecting = runtime.spawn(async move {
            let connected = options.connect(servers).boxed().await;
            let client = connected.map_err(|error| access.error(&error))?;
            Connection::new(client, fence).await
        });
        let connection = connecting.await.unwrap_or_else(|_| Err(closed()))?;
        connection.round_trip().await?;
        Ok(connection)
    }

    /// Makes a link with the first server that can be had, and waits for its probes.
    async fn link(&self, site: Site) -> Result<NatsLink, BusError> {
        let (began, limit) = (Instant::now(), self.link.connect_timeout);
        let answering = self.servers.answering(limit * 9 / 10, limit / 10, Haste::Link).await?;
        // Both connections begin with the same one.
        let servers: Vec<_> = answering.iter().map(|one| one.address.clone()).collect();
        let (writer, reader) = future::try_join(
            self.connect_on(&site.writer, &site, servers.clone()),
            self.connect_on(&site.reader, &site, servers),
        )
        .await?;
        self.max_payload.store(writer.max_payload().min(reader.max_payload()), Ordering::Relaxed);
        self.probe(&site, &reader, answering, began + limit * 3 / 4).await;
        Ok(NatsLink::new(writer, reader, site, &self.subjects, &self.queues))
    }

    /// Sets the probes up. They run where no message is delivered, because a delivery may take its time.
    async fn probe(&self, site: &Site, reader: &Connection, answering: Vec<Answering>, until: Instant) {
        let probes = Probes {
            servers: Arc::clone(&self.servers),
            access: Arc::clone(&self.access),
            reader: reader.clone(),
            inbound: site.inbound.clone(),
            patience: self.link.subscribe_timeout / 2,
            interval: self.link.keepalive_interval,
        };
        let (ready, all_ready) = oneshot::channel();
        site.writer.spawn(probes.keep(answering, ready));
        if time::timeout_at(until, all_ready).await.is_err() {
            tracing::warn!(broker = "nats", "not every server of the cluster has answered so far");
        }
    }

    /// Adds where it happened, and makes sure that no secret is in the text.
    fn describe(&self, error: BusError) -> BusError {
        let text = |text: String| redact(format!("{}: {text}", self.endpoint), &self.secrets);
        match error {
            BusError::Unavailable(what) => BusError::Unavailable(text(what)),
            BusError::Refused(what) => BusError::Refused(text(what)),
            BusError::Configuration(what) => BusError::Configuration(text(what)),
        }
    }
}

/// The servers and how to connect to them, for a client beside the bus. The files are read now.
pub async fn connect_options(config: &NatsConfig) -> Result<(ConnectOptions, Vec<ServerAddr>), BusError> {
    let (access, servers) = Access::new(config)?;
    Ok((access.options().await?, servers))
}

fn closed() -> BusError {
    BusError::Unavailable("the connection was closed".into())
}

fn unavailable(error: impl std::fmt::Display) -> BusError {
    BusError::Unavailable(error.to_string())
}

impl Driver for NatsDriver {
    const NAME: &'static str = "nats";
    const PUBLICATION_OVERHEAD: usize = 512;
    type Link = NatsLink;

    fn endpoint(&self) -> &str {
        &self.endpoint
    }

    fn connect(&self, site: Site) -> BoxFuture<'_, Result<NatsLink, BusError>> {
        async move { self.link(site).await.map_err(|error| self.describe(error)) }.boxed()
    }

    fn publish(link: Arc<NatsLink>, batch: Vec<Publication>) -> BoxFuture<'static, Result<(), BusError>> {
        link.publish(batch)
    }

    fn subscribe(link: Arc<NatsLink>, subjects: Vec<Subject>) -> BoxFuture<'static, Result<(), BusError>> {
        link.change(Change::Subscribe(subjects))
    }

    fn unsubscribe(link: Arc<NatsLink>, subjects: Vec<Subject>) -> BoxFuture<'static, Result<(), BusError>> {
        link.change(Change::Unsubscribe(subjects))
    }

    fn ping_writer(link: Arc<NatsLink>) -> BoxFuture<'static, Result<(), BusError>> {
        async move { link.writer().round_trip().await }.boxed()
    }

    fn ping_reader(link: Arc<NatsLink>) -> BoxFuture<'static, Result<(), BusError>> {
        async move { link.reader().round_trip().await }.boxed()
    }

    fn max_payload(&self) -> usize {
        self.max_payload.load(Ordering::Relaxed)
    }
}
