//! Redis beside the bus, for what backends put there: connections that listen to patterns of channels, and commands.
//!
//! Owns where a connection goes: to the one server, to the master that Sentinels name, or to the node of a Redis Cluster
//! that has a key. It does not repair one: whoever holds it asks for another. Must not know what the bus does.

use std::{fmt, future::Future, sync::Arc};

use bytes::Bytes;
use tokio::runtime::Handle;

use super::{
    Channels, RedisConfig, RedisReply,
    connection::{Connection, NoPushes, Pending, Pushes},
    driver::RedisDriver,
    health::{self, Health},
    resp,
    topology::slot,
};
use crate::{broker::Fault, cluster::BusError};

/// Takes what comes on patterns. Called by the task that reads, which does not read on before it returns.
pub trait RedisListener: Send + Sync + 'static {
    /// A message on a channel that matches a pattern. One that matches several comes once for each.
    fn message(&self, pattern: &str, channel: &str, payload: Bytes);
}

/// Makes connections to a Redis.
pub struct RedisClient {
    driver: RedisDriver,
}

impl RedisClient {
    /// Checks the configuration; nothing is connected yet. The prefix and the bounds of the bus have no meaning here.
    pub fn new(config: &RedisConfig) -> Result<Self, BusError> {
        let driver = RedisDriver::new(config, Channels::new(&config.prefix)?)?;
        Ok(Self { driver })
    }

    /// Connects to the server that has a key.
    pub async fn connect(&self, key: &str) -> Result<RedisConnection, BusError> {
        self.open(Some(slot(key)), Arc::new(NoPushes)).await
    }

    /// Connects for classic publish/subscribe.
    pub async fn listen(&self, listener: Arc<dyn RedisListener>) -> Result<RedisConnection, BusError> {
        self.open(None, Arc::new(Listening(listener))).await
    }

    async fn open(&self, slot: Option<u16>, pushes: Arc<dyn Pushes>) -> Result<RedisConnection, BusError> {
        let runtime = Handle::current();
        let (wire, health) = self.driver.master(&runtime, slot).await?;
        let fault = Fault::new();
        let connection = wire.start(&runtime, pushes, fault.clone());
        Ok(RedisConnection { connection, health, fault })
    }
}

impl fmt::Debug for RedisClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisClient").finish_non_exhaustive()
    }
}

struct Listening(Arc<dyn RedisListener>);

impl Pushes for Listening {
    fn message(&self, _: &str, _: Bytes) -> bool {
        true
    }

    fn matched(&self, pattern: &str, channel: &str, payload: Bytes) -> bool {
        self.0.message(pattern, channel, payload);
        true
    }
}

/// A connection to one server. It ends when it is dropped.
pub struct RedisConnection {
    connection: Connection,
    health: Health,
    fault: Fault,
}

impl RedisConnection {
    /// Sends a command at once, behind those that were sent before. What the server refuses comes as an error.
    pub fn call<P: AsRef<[u8]>>(
        &self,
        parts: &[P],
    ) -> impl Future<Output = Result<RedisReply, BusError>> + Send + use<P> {
        self.connection.call(parts)
    }

    /// Listens to patterns of channels. Ready when the subscriptions stand.
    pub async fn psubscribe(&self, patterns: &[String]) -> Result<(), BusError> {
        let (sender, receiver) = tokio::sync::oneshot::channel();
        let done = move |error: Option<String>| {
            // Whoever waited may have given up.
            let _ = sender.send(error);
        };
        let pending = Pending::Confirmations { left: patterns.len(), done: Box::new(done) };
        self.connection.send(pending, |out| {
            let parts = ["PSUBSCRIBE"].into_iter().chain(patterns.iter().map(String::as_str));
            resp::command(out, &parts.map(str::as_bytes).collect::<Vec<_>>());
        });
        match receiver.await {
            Ok(None) => Ok(()),
            Ok(Some(error)) => Err(BusError::Refused(error)),
            Err(_) => Err(BusError::Unavailable("the connection was closed".into())),
        }
    }

    /// A round trip, which also finds out whether the server is still what it has to be: one that is not ends the
    /// connection.
    pub async fn check(&self) -> Result<(), BusError> {
        health::check(&self.connection, self.health, &self.fault).await
    }

    /// Waits until the connection is lost, and says why.
    pub async fn lost(&self) -> String {
        self.fault.wait().await
    }
}

impl Drop for RedisConnection {
    fn drop(&mut self) {
        self.connection.end();
    }
}

impl fmt::Debug for RedisConnection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisConnection").field("server", &self.connection.endpoint()).finish_non_exhaustive()
    }
}
