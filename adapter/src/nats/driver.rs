//! Core NATS through async-nats: one link is one publishing and one subscribing connection. The only module that
//! names `async_nats`.
//!
//! What was found in async-nats 0.51 and what follows from it:
//!
//! - It reconnects without end and then sends again what was queued. Here a lost connection ends its link: the client is
//!   told to wait for ever before a second connection, and dies with its runtime.
//! - `flush` waits until the socket took the bytes, not for a PONG, and a hung server's socket takes a lot. So a
//!   round trip is a message to an inbox of the same connection ([`Fence`]); the server handles what a connection sends in
//!   order. Batches are confirmed by one, subscriptions too. This holds on one server. Between the servers of a cluster
//!   interest spreads a moment later.
//! - Every subscription is a channel of its own, whose first block is allocated with it: about 5 KiB each. This crate has
//!   no other way, so a node should fall back to hashed subjects long before 100,000 rooms.
//! - Reading the channels by one task would lose the order between subjects, and a full channel drops messages with an
//!   event of which at most 128 wait. Here each is received inside the send ([`Inline`](crate::broker::Inline)): the
//!   connection's task itself delivers, in the order of the wire, and does not read on before it has. A slow node is felt
//!   by the server through TCP, which disconnects it when too much waits. Slow-consumer events are counted and
//!   reported all the same.
//! - A refused permission comes as an event that names no request. Whoever waits for the next fence is told.
//! - Credentials in URLs are not used, they are taken out here.

mod link;

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use async_nats::{ConnectErrorKind, ConnectOptions, Event, ServerAddr, ServerError};
use futures_util::{
    FutureExt,
    future::{self, BoxFuture},
};
use tokio::runtime::Handle;

pub(super) use self::link::NatsLink;
use self::link::{Change, Connection, Fence, closed};
use super::{NatsConfig, Subjects};
use crate::{
    broker::{Driver, Fault, Inbound, Site, redact},
    cluster::{BusError, Publication, Subject},
};

/// Longer than any link lives.
const NEVER: Duration = Duration::from_secs(10 * 365 * 24 * 3600);
/// The client reads 128 buffers before tokio makes it let the other tasks of its thread run, which is what a subscription
/// waits for in a burst.
const READ_BUFFER: u16 = 16 * 1024;
/// What a server takes if it was not asked yet.
const DEFAULT_MAX_PAYLOAD: usize = 1024 * 1024;

pub(super) struct NatsDriver {
    servers: Vec<ServerAddr>,
    credentials: Credentials,
    endpoint: String,
    subjects: Subjects,
    connect_timeout: Duration,
    max_payload: AtomicUsize,
    secrets: Vec<String>,
}

#[derive(Clone, PartialEq, Eq)]
enum Credentials {
    None,
    Token(String),
    User(String, String),
}

impl NatsDriver {
    pub(super) fn new(config: &NatsConfig, subjects: Subjects) -> Result<Self, BusError> {
        let (mut servers, mut credentials, mut endpoints) = (Vec::new(), Credentials::None, Vec::new());
        for url in config.url.split(',').map(str::trim).filter(|url| !url.is_empty()) {
            let (address, found) = parse_server(url)?;
            if credentials == Credentials::None {
                credentials = found;
            }
            endpoints.push(format!("{}:{}", address.host(), address.port()));
            servers.push(address);
        }
        if servers.is_empty() {
            return Err(BusError::Configuration("the NATS URL names no server".into()));
        }
        let secrets = match &credentials {
            Credentials::None => Vec::new(),
            Credentials::Token(secret) | Credentials::User(_, secret) => vec![secret.clone()],
        };
        Ok(Self {
            servers,
            credentials,
            endpoint: endpoints.join(","),
            subjects,
            connect_timeout: config.link.connect_timeout,
            max_payload: AtomicUsize::new(DEFAULT_MAX_PAYLOAD),
            secrets,
        })
    }

    fn options(&self, fault: Fault, inbound: Inbound, fence: Arc<Fence>) -> ConnectOptions {
        let options = match self.credentials.clone() {
            Credentials::None => ConnectOptions::new(),
            Credentials::Token(token) => ConnectOptions::with_token(token),
            Credentials::User(user, password) => ConnectOptions::with_user_and_password(user, password),
        };
        let connected = Arc::new(AtomicBool::new(false));
        let was_connected = Arc::clone(&connected);
        options
            .name("roomcast")
            .custom_inbox_prefix(self.subjects.inbox())
            .read_buffer_capacity(READ_BUFFER)
            // One server that does not answer must leave time for the others.
            .connection_timeout(self.connect_timeout / u32::try_from(self.servers.len()).unwrap_or(u32::MAX))
            .reconnect_delay_callback(move |_| {
                if was_connected.load(Ordering::Relaxed) { NEVER } else { Duration::ZERO }
            })
            .event_callback(move |event| {
                match event {
                    Event::Connected => connected.store(true, Ordering::Relaxed),
                    Event::Disconnected | Event::Closed => fault.raise("the connection was closed"),
                    Event::SlowConsumer(_) | Event::ServerError(ServerError::SlowConsumer(_)) => {
                        inbound.lost(1);
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
    async fn connect_on(&self, runtime: &Handle, site: &Site) -> Result<Connection, BusError> {
        let fence = Arc::new(Fence::default());
        let options = self.options(site.fault.clone(), site.inbound.clone(), Arc::clone(&fence));
        let servers = self.servers.clone();
        let connecting = runtime.spawn(async move {
            let client = options.connect(servers).boxed().await.map_err(|error| {
                let text = error.to_string();
                match error.kind() {
                    ConnectErrorKind::Authentication | ConnectErrorKind::AuthorizationViolation => {
                        BusError::Refused(text)
                    }
                    ConnectErrorKind::ServerParse | ConnectErrorKind::Tls => BusError::Configuration(text),
                    _ => BusError::Unavailable(text),
                }
            })?;
            Connection::new(client, fence).await
        });
        let connection =
            connecting.await.unwrap_or_else(|_| Err(closed())).map_err(|error| self.describe(error))?;
        connection.round_trip().await.map_err(|error| self.describe(error))?;
        Ok(connection)
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

impl Driver for NatsDriver {
    const NAME: &'static str = "nats";
    const PUBLICATION_OVERHEAD: usize = 512;
    type Link = NatsLink;

    fn endpoint(&self) -> &str {
        &self.endpoint
    }

    fn connect(&self, site: Site) -> BoxFuture<'_, Result<NatsLink, BusError>> {
        async move {
            let both =
                future::try_join(self.connect_on(&site.writer, &site), self.connect_on(&site.reader, &site));
            let (writer, reader) = both.await?;
            self.max_payload.store(writer.max_payload().min(reader.max_payload()), Ordering::Relaxed);
            Ok(NatsLink::new(writer, reader, site, &self.subjects))
        }
        .boxed()
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

/// The address without its credentials, and those.
fn parse_server(url: &str) -> Result<(ServerAddr, Credentials), BusError> {
    let wrong = |text: String| BusError::Configuration(format!("the NATS URL is wrong: {text}"));
    let address: ServerAddr = url.parse().map_err(|error: std::io::Error| wrong(error.to_string()))?;
    if address.is_websocket() {
        return Err(wrong("WebSocket is not supported".into()));
    }
    let mut parsed = address.into_inner();
    if parsed.host_str().is_none_or(str::is_empty) {
        return Err(wrong("no host".into()));
    }
    let user = decode(parsed.username());
    let credentials = match (user.is_empty(), parsed.password().map(decode)) {
        (_, Some(password)) => Credentials::User(user, password),
        (false, None) => Credentials::Token(user),
        (true, None) => Credentials::None,
    };
    let cleared = parsed.set_username("").and_then(|()| parsed.set_password(None));
    cleared.map_err(|()| wrong("credentials without a host".into()))?;
    let address = ServerAddr::from_url(parsed).map_err(|error| wrong(error.to_string()))?;
    Ok((address, credentials))
}

/// Percent-decoding. What is no escape stands for itself.
fn decode(text: &str) -> String {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&byte, tail)) = rest.split_first() {
        let digit = |at: usize| tail.get(at).and_then(|digit| char::from(*digit).to_digit(16));
        match (byte, digit(0), digit(1)) {
            (b'%', Some(high), Some(low)) => {
                out.push((high * 16 + low) as u8);
                rest = tail.get(2..).unwrap_or_default();
            }
            _ => {
                out.push(byte);
                rest = tail;
            }
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_are_taken_out_of_urls() {
        let user = |user: &str, password: &str| Credentials::User(user.into(), password.into());
        for (url, host, port, credentials) in [
            ("nats://localhost", "localhost", 4222, Credentials::None),
            ("localhost:1", "localhost", 1, Credentials::None),
            ("nats://to%40ken@h:2", "h", 2, Credentials::Token("to@ken".into())),
            ("tls://u:p%2Cw@h:3", "h", 3, user("u", "p,w")),
            ("nats://:p@h", "h", 4222, user("", "p")),
            ("nats://u:100%25%@h", "h", 4222, user("u", "100%%")),
        ] {
            let (address, found) = parse_server(url).expect(url);
            assert_eq!((address.host(), address.port()), (host, port), "{url}");
            assert!(found == credentials, "{url}");
            assert!(!address.has_user_pass() && address.password().is_none(), "{url}");
        }
    }
}
