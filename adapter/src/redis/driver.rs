//! Redis through fred: one link is one publishing and one subscribing connection. The only file that names `fred`.
//!
//! What was found in fred 10.1 and what follows from it:
//!
//! - Without a `ReconnectPolicy` it does not reconnect; with one it replays commands that were in flight, which may
//!   publish twice or after the caller was told no, and takes further commands while it waits. So there is no policy
//!   here: the loss of a connection ends fred's task, everything in flight fails at once, and the owner of the link
//!   makes a new one.
//! - Messages come only through a `tokio::sync::broadcast` channel of 32 places, which drops the oldest without a word
//!   when the receiver is behind. Here the receiver runs inside the send ([`Inline`]), so it never is: fred's task itself
//!   delivers, and does not read on before it has. A slow node fills Redis' output buffer for it, and Redis disconnects it
//!   when that is too much. Should the channel overflow after all, the lost messages are counted and reported.
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
    time::Duration,
};

use bytes::Bytes;
use fred::{
    clients::{Client, Pipeline},
    error::{Error, ErrorKind},
    interfaces::{ClientLike, EventInterface, PubsubInterface},
    types::{
        Message, RespVersion, Value,
        config::{Config, ConnectionConfig, PerformanceConfig, ServerConfig, TcpConfig},
    },
};
use futures_util::{
    FutureExt,
    future::{self, BoxFuture},
};
use tokio::sync::broadcast;

use super::{Channels, MAX_PAYLOAD, RedisConfig};
use crate::{
    broker::{Driver, Fault, Inbound, Inline, Site, redact},
    cluster::{BusError, Publication, Subject},
};

/// Channels in one SUBSCRIBE.
const SUBSCRIBE_CHUNK: usize = 512;

pub(super) struct RedisDriver {
    config: Config,
    connect_timeout: Duration,
    endpoint: String,
    channels: Channels,
    secrets: Arc<[String]>,
}

pub(super) struct RedisLink {
    writer: Client,
    reader: Client,
    channels: Channels,
    secrets: Arc<[String]>,
    fault: Fault,
    tokens: AtomicU64,
}

impl RedisDriver {
    pub(super) fn new(config: &RedisConfig, channels: Channels) -> Result<Self, BusError> {
        let url = config.url.trim();
        if !url.starts_with("redis://") && !url.starts_with("rediss://") {
            return Err(BusError::Configuration(
                "the Redis URL must begin with redis:// or rediss://".into(),
            ));
        }
        let mut parsed = Config::from_url(url).map_err(|error| {
            BusError::Configuration(format!("the Redis URL is wrong: {}", error.details()))
        })?;
        let ServerConfig::Centralized { server } = &parsed.server else {
            return Err(BusError::Configuration("only a single Redis server is supported".into()));
        };
        if server.host.is_empty() {
            return Err(BusError::Configuration("the Redis URL names no host".into()));
        }
        let endpoint = format!("{}:{}", server.host, server.port);
        let secrets = parsed.password.iter().cloned().collect();
        parsed.version = RespVersion::RESP3;
        parsed.fail_fast = true;
        Ok(Self { config: parsed, connect_timeout: config.link.connect_timeout, endpoint, channels, secrets })
    }

    fn client(&self) -> Client {
        let connection = ConnectionConfig {
            connection_timeout: self.connect_timeout,
            internal_command_timeout: self.connect_timeout,
            max_command_attempts: 1,
            tcp: TcpConfig { nodelay: Some(true), ..TcpConfig::default() },
            ..ConnectionConfig::default()
        };
        Client::new(self.config.clone(), Some(PerformanceConfig::default()), Some(connection), None)
    }

    fn error(&self, error: &Error) -> BusError {
        describe(error, &self.endpoint, &self.secrets)
    }
}

impl Driver for RedisDriver {
    const NAME: &'static str = "redis";
    // fred's future of one command is 6.5 KiB.
    const PUBLICATION_OVERHEAD: usize = 8 * 1024;
    type Link = RedisLink;

    fn endpoint(&self) -> &str {
        &self.endpoint
    }

    fn connect(&self, site: Site) -> BoxFuture<'_, Result<RedisLink, BusError>> {
        async move {
            let (writer, reader) = (self.client(), self.client());
            let messages = reader.message_rx();

            let writing = connect_on(&site.writer, &writer, &site.fault);
            let reading = connect_on(&site.reader, &reader, &site.fault);
            future::try_join(writing, reading).await.map_err(|error| self.error(&error))?;
            // Nothing is subscribed yet, so nothing has come.
            Inline::run(deliver(messages, self.channels.clone(), site.inbound, site.fault.clone()));
            Ok(RedisLink {
                writer,
                reader,
                channels: self.channels.clone(),
                secrets: Arc::clone(&self.secrets),
                fault: site.fault,
                tokens: AtomicU64::new(0),
            })
        }
        .boxed()
    }

    fn publish(link: Arc<RedisLink>, batch: Vec<Publication>) -> BoxFuture<'static, Result<(), BusError>> {
        async move {
            let mut waiting: Vec<Pin<Box<_>>> = Vec::with_capacity(batch.len());
            for Publication { subject, payload } in batch {
                let channel = link.channels.channel(&subject);
                let mut publishing = Box::pin(link.writer.publish::<i64, _, _>(channel, payload));
                // The first poll queues the command; none waits for the one before.
                match publishing.as_mut().now_or_never() {
                    Some(result) => drop(result.map_err(|error| link.error(&error))?),
                    None => waiting.push(publishing),
                }
            }
            for publishing in waiting {
                publishing.await.map_err(|error| link.error(&error))?;
            }
            Ok(())
        }
        .boxed()
    }

    fn subscribe(link: Arc<RedisLink>, subjects: Vec<Subject>) -> BoxFuture<'static, Result<(), BusError>> {
        async move {
            let pipeline = link.reader.pipeline();
            for channels in link.channel_chunks(&subjects) {
                pipeline.subscribe(channels).boxed().await.map_err(|error| link.error(&error))?;
            }
            link.fence(pipeline).await
        }
        .boxed()
    }

    fn unsubscribe(link: Arc<RedisLink>, subjects: Vec<Subject>) -> BoxFuture<'static, Result<(), BusError>> {
        async move {
            let pipeline = link.reader.pipeline();
            // No chunk is empty: UNSUBSCRIBE without a channel lets go of all.
            for channels in link.channel_chunks(&subjects) {
                pipeline.unsubscribe(channels).boxed().await.map_err(|error| link.error(&error))?;
            }
            link.fence(pipeline).await
        }
        .boxed()
    }

    fn ping_writer(link: Arc<RedisLink>) -> BoxFuture<'static, Result<(), BusError>> {
        async move { link.fence(link.writer.pipeline()).await }.boxed()
    }

    fn ping_reader(link: Arc<RedisLink>) -> BoxFuture<'static, Result<(), BusError>> {
        async move { link.fence(link.reader.pipeline()).await }.boxed()
    }

    fn max_payload(&self) -> usize {
        MAX_PAYLOAD
    }
}

impl RedisLink {
    fn channel_chunks(&self, subjects: &[Subject]) -> Vec<Vec<String>> {
        let names = |chunk: &[Subject]| chunk.iter().map(|subject| self.channels.channel(subject)).collect();
        subjects.chunks(SUBSCRIBE_CHUNK).map(names).collect()
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
