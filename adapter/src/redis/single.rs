//! A link to one server through fred: a publishing and a subscribing connection, and one order for everything. The only
//! file that names `fred`.
//!
//! What was found in fred 10.1 and what follows from it:
//!
//! - Without a `ReconnectPolicy` it does not reconnect; with one it replays commands that were in flight, which may
//!   publish twice or after the caller was told no, and takes further commands while it waits. So there is no policy
//!   here: the loss of a connection ends fred's task, everything in flight fails at once, and the owner of the link
//!   makes a new one.
//! - Messages come only through a `tokio::sync::broadcast` channel of 32 places, which drops the oldest without a word
//!   when the receiver is behind. Here the receiver runs inside the send ([`Inline`]), so it never is: fred's task itself
//!   queues it for delivery, and does not read on before it has. When that queue is full, Redis' output buffer fills, and
//!   Redis disconnects the node when that is too much. Should the channel overflow after all, the lost messages are counted and reported.
//! - `subscribe` returns when the command is written, and the confirmation is thrown away. A PING with a token behind it
//!   tells that it was executed. Both go as one pipeline, between whose commands fred does not read: so an error, such as
//!   a missing ACL permission, finds the PING waiting and comes as its answer. Otherwise it would be thrown away too.
//! - A pipeline flushes after every command. Commands that are queued one by one without waiting share a flush, which is
//!   how batches are published.
//! - A full bounded command queue also refuses fred's own messages and ends its task, so fred's queue stays unbounded
//!   and `LinkConfig::max_in_flight` bounds it.

use std::{
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use bytes::Bytes;
use fred::{
    clients::{Client, Pipeline},
    error::{Error, ErrorKind},
    interfaces::{ClientLike, EventInterface, PubsubInterface},
    types::{
        ClusterHash, CustomCommand, Message, RespVersion, Value,
        config::{
            Config, ConnectionConfig, PerformanceConfig, Server, ServerConfig, TcpConfig, TlsConfig,
            TlsConnector, TlsHostMapping,
        },
    },
};
use futures_util::{
    FutureExt,
    future::{self, BoxFuture},
};
use tokio::sync::broadcast;

use super::{
    Channels,
    connection::Dial,
    health::{self, Health},
    url::Endpoint,
};
use crate::{
    broker::{Fault, Inbound, Inline, Site, redact},
    cluster::{BusError, Publication, Subject},
};

/// Channels in one SUBSCRIBE.
const SUBSCRIBE_CHUNK: usize = 512;

pub(super) struct Single {
    writer: Client,
    reader: Client,
    server: Endpoint,
    health: Health,
    channels: Channels,
    secrets: Arc<[String]>,
    fault: Fault,
    tokens: AtomicU64,
}

type Call = BoxFuture<'static, Result<(), BusError>>;

impl Single {
    /// Connects to a server that is what `health` says.
    pub(super) async fn connect(
        server: &Endpoint,
        dial: &Dial,
        site: &Site,
        health: Health,
        channels: Channels,
    ) -> Result<Arc<Self>, BusError> {
        let (writer, reader) = (client(server, dial), client(server, dial));
        let messages = reader.message_rx();
        let writing = connect_on(&site.writer, &writer, &site.fault);
        let reading = connect_on(&site.reader, &reader, &site.fault);
        let both = future::try_join(writing, reading).await;
        both.map_err(|error| describe(&error, &server.to_string(), &dial.secrets))?;
        // Nothing is subscribed yet, so nothing has come.
        Inline::run(deliver(messages, channels.clone(), site.inbound.clone(), site.fault.clone()));
        let link = Arc::new(Self {
            writer,
            reader,
            server: server.clone(),
            health,
            channels,
            secrets: Arc::clone(&dial.secrets),
            fault: site.fault.clone(),
            tokens: AtomicU64::new(0),
        });
        // What is asked later is asked now, so that a user that may not ask is told so.
        link.check(&link.writer).await?;
        link.check(&link.reader).await?;
        Ok(link)
    }

    pub(super) fn publish(self: Arc<Self>, batch: Vec<Publication>) -> Call {
        async move {
            let mut waiting: Vec<Pin<Box<_>>> = Vec::with_capacity(batch.len());
            for Publication { subject, payload } in batch {
                let channel = self.channels.channel(&subject);
                let mut publishing = Box::pin(self.writer.publish::<i64, _, _>(channel, payload));
                // The first poll queues the command; none waits for the one before.
                match publishing.as_mut().now_or_never() {
                    Some(result) => drop(result.map_err(|error| self.error(&error))?),
                    None => waiting.push(publishing),
                }
            }
            for publishing in waiting {
                publishing.await.map_err(|error| self.error(&error))?;
            }
            Ok(())
        }
        .boxed()
    }

    pub(super) fn subscribe(self: Arc<Self>, subjects: Vec<Subject>) -> Call {
        async move {
            let pipeline = self.reader.pipeline();
            for channels in self.channel_chunks(&subjects) {
                pipeline.subscribe(channels).boxed().await.map_err(|error| self.error(&error))?;
            }
            self.fence(pipeline).await
        }
        .boxed()
    }

    pub(super) fn unsubscribe(self: Arc<Self>, subjects: Vec<Subject>) -> Call {
        async move {
            let pipeline = self.reader.pipeline();
            // No chunk is empty: UNSUBSCRIBE without a channel lets go of all.
            for channels in self.channel_chunks(&subjects) {
                pipeline.unsubscribe(channels).boxed().await.map_err(|error| self.error(&error))?;
            }
            self.fence(pipeline).await
        }
        .boxed()
    }

    /// A server that is no longer what the link needs is left.
    pub(super) fn ping_writer(self: Arc<Self>) -> Call {
        async move {
            self.fence(self.writer.pipeline()).await?;
            self.check(&self.writer).await
        }
        .boxed()
    }

    pub(super) fn ping_reader(self: Arc<Self>) -> Call {
        async move { self.fence(self.reader.pipeline()).await }.boxed()
    }

    fn channel_chunks(&self, subjects: &[Subject]) -> Vec<Vec<String>> {
        let names = |chunk: &[Subject]| chunk.iter().map(|subject| self.channels.channel(subject)).collect();
        subjects.chunks(SUBSCRIBE_CHUNK).map(names).collect()
    }

    /// Asks the server whether it is what it has to be. When it is not, the link is given up.
    async fn check(&self, client: &Client) -> Result<(), BusError> {
        let (command, argument) = match self.health {
            Health::Answers => return Ok(()),
            Health::Master | Health::ClusterMaster => ("ROLE", None),
            Health::ClusterNode => ("CLUSTER", Some("INFO")),
        };
        let command = CustomCommand::new_static(command, ClusterHash::FirstKey, false);
        let arguments = argument.into_iter().map(Value::from).collect::<Vec<_>>();
        let answer: Value =
            client.custom(command, arguments).boxed().await.map_err(|error| self.error(&error))?;
        let lost = match (self.health, answer) {
            (Health::ClusterNode, info) if !info.as_str().is_some_and(|info| health::is_working(&info)) => {
                "is not part of a working cluster"
            }
            (Health::Master | Health::ClusterMaster, Value::Array(role))
                if role.first().and_then(Value::as_str).as_deref() != Some("master") =>
            {
                "is not a master"
            }
            _ => return Ok(()),
        };
        let reason = format!("{} {lost}", self.server);
        self.fault.raise(reason.clone());
        Err(BusError::Unavailable(reason))
    }

    /// Sends a pipeline with a PING behind it. When that is answered, the pipeline was executed.
    async fn fence(&self, pipeline: Pipeline<Client>) -> Result<(), BusError> {
        let token = self.tokens.fetch_add(1, Ordering::Relaxed).to_string();
        // Queues only; the answer is that it is queued.
        let queued: Value =
            pipeline.ping(Some(token.clone())).boxed().await.map_err(|error| self.error(&error))?;
        drop(queued);
        match pipeline.last::<String>().boxed().await {
            Ok(answer) if answer == token => Ok(()),
            Ok(_) => {
                // An answer too many, which an earlier error leaves behind: no answer here can be trusted any more.
                self.fault.raise("answers came out of order");
                Err(BusError::Unavailable("answers came out of order".into()))
            }
            Err(error) => {
                if *error.kind() != ErrorKind::Canceled {
                    // The error may have been that of a SUBSCRIBE; then our own answer is still to come, unasked.
                    self.fault.raise(self.error(&error).to_string());
                }
                Err(self.error(&error))
            }
        }
    }

    fn error(&self, error: &Error) -> BusError {
        describe(error, "", &self.secrets)
    }
}

fn client(server: &Endpoint, dial: &Dial) -> Client {
    let tls = dial.tls.clone().map(|connector| TlsConfig {
        connector: TlsConnector::Rustls(connector),
        hostnames: TlsHostMapping::None,
    });
    let config = Config {
        server: ServerConfig::Centralized { server: Server::new(server.host.clone(), server.port) },
        username: dial.login.user.clone(),
        password: dial.login.password.clone(),
        database: u8::try_from(dial.database).ok().filter(|database| *database > 0),
        version: RespVersion::RESP3,
        fail_fast: true,
        tls,
        ..Config::default()
    };
    let connection = ConnectionConfig {
        connection_timeout: dial.timeout,
        internal_command_timeout: dial.timeout,
        max_command_attempts: 1,
        tcp: TcpConfig { nodelay: Some(true), ..TcpConfig::default() },
        ..ConnectionConfig::default()
    };
    Client::new(config, Some(PerformanceConfig::default()), Some(connection), None)
}
/// Connects a client on the runtime of its thread, where its task stays.
async fn connect_on(runtime: &tokio::runtime::Handle, client: &Client, fault: &Fault) -> Result<(), Error> {
    let (client, fault) = (client.clone(), fault.clone());
    let connecting = runtime.spawn(async move {
        let task = client.init().await?;
        tokio::spawn(async move {
            let reason = match task.await {
                Ok(Err(error)) => error.to_string(),
                Ok(Ok(())) | Err(_) => "the connection was closed".to_owned(),
            };
            fault.raise(reason);
        });
        Ok(())
    });
    connecting.await.unwrap_or_else(|_| Err(Error::new(ErrorKind::Canceled, "the connection was closed")))
}

/// Hands the messages over until the link ends.
async fn deliver(
    mut messages: broadcast::Receiver<Message>,
    channels: Channels,
    inbound: Inbound,
    fault: Fault,
) {
    let _panicked = fault.raised_by_panic();
    loop {
        match messages.recv().await {
            Ok(Message { channel, value, .. }) => {
                let (Some(subject), Some(payload)) = (channels.subject(&channel), payload(value)) else {
                    continue;
                };
                if !inbound.message(subject, payload) {
                    return;
                }
            }
            Err(broadcast::error::RecvError::Lagged(messages)) => inbound.lost(messages),
            Err(broadcast::error::RecvError::Closed) => return,
        }
    }
}

fn payload(value: Value) -> Option<Bytes> {
    match value {
        Value::Bytes(bytes) => Some(bytes),
        Value::String(text) => Some(text.into_inner()),
        _ => None,
    }
}

fn describe(error: &Error, endpoint: &str, secrets: &[String]) -> BusError {
    let text = match error.kind() {
        ErrorKind::IO => io_text(error.details()),
        _ => error.details(),
    };
    let text = if endpoint.is_empty() { text.to_owned() } else { format!("{endpoint}: {text}") };
    let text = redact(text, secrets);
    match error.kind() {
        ErrorKind::Config | ErrorKind::Url | ErrorKind::Tls => BusError::Configuration(text),
        ErrorKind::Auth | ErrorKind::InvalidArgument | ErrorKind::InvalidCommand | ErrorKind::Protocol => {
            BusError::Refused(text)
        }
        // fred knows few of Redis' error codes; the others begin with one in capitals.
        ErrorKind::Unknown if starts_with_code(error.details()) => BusError::Refused(text),
        _ => BusError::Unavailable(text),
    }
}

fn starts_with_code(text: &str) -> bool {
    let code = text.split_whitespace().next().unwrap_or("");
    code.len() > 2 && code.bytes().all(|byte| byte.is_ascii_uppercase())
}

/// The readable part of the debug text of an I/O error, which is what fred keeps of it.
fn io_text(details: &str) -> &str {
    details
        .split_once("message: \"")
        .and_then(|(_, rest)| rest.split_once('"'))
        .map_or(details, |(text, _)| text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_are_sorted() {
        let sorted = |kind, text: &'static str| describe(&Error::new(kind, text), "h:1", &[]);
        let refused = sorted(
            ErrorKind::IO,
            "Os { code: 111, kind: ConnectionRefused, message: \"Connection refused\" }",
        );
        assert_eq!(refused, BusError::Unavailable("h:1: Connection refused".into()));
        assert!(matches!(sorted(ErrorKind::Auth, "WRONGPASS invalid"), BusError::Refused(_)));
        assert!(matches!(sorted(ErrorKind::Unknown, "NOPERM no channel"), BusError::Refused(_)));
        assert!(matches!(sorted(ErrorKind::Canceled, "Canceled."), BusError::Unavailable(_)));
    }
}
