//! Nodes of this process, with sockets whose mailboxes are emptied by hand.

use std::collections::VecDeque;
use std::sync::Arc;
use std::task::{Context, Waker};
use std::time::Duration;

use roomcast_adapter::cluster::{ClusterConfig, ClusterFactory};
use roomcast_adapter::protocol::socketio::Args;
use roomcast_adapter::{
    Adapter, AdapterFactory as _, Describe, Item, LocalSocket, Mailbox, MailboxLimits, NamespaceEvents, Room,
    ServerReply, SocketId,
};

use super::Error;
use super::broker::Broker;

struct Quiet;

impl NamespaceEvents for Quiet {
    fn server_side_event(&self, _: &str, _: Args, _: Option<ServerReply>) {}
}

impl Describe for Quiet {
    fn handshake(&self) -> serde_json::Value {
        serde_json::Value::Null
    }

    fn data(&self) -> serde_json::Value {
        serde_json::Value::Null
    }
}

pub(crate) struct Node {
    pub(crate) factory: Arc<ClusterFactory>,
    pub(crate) adapter: Arc<dyn Adapter>,
}

impl Node {
    pub(crate) async fn start(broker: &Broker, prefix: &str, config: ClusterConfig) -> Result<Self, Error> {
        let factory = ClusterFactory::start(broker.bus(prefix)?, config).await?;
        let adapter = factory.namespace("/", Arc::new(Quiet));
        Ok(Self { factory, adapter })
    }

    pub(crate) fn socket(&self, number: u32) -> Socket {
        let mut random = [0; 12];
        random[..4].copy_from_slice(&number.to_be_bytes());
        let id = SocketId::new(self.factory.node(), random);
        let mailbox = Mailbox::new(MailboxLimits::default());
        self.adapter.add(LocalSocket { id, mailbox: mailbox.clone(), describe: Arc::new(Quiet) });
        Socket { id, mailbox }
    }
}

pub(crate) struct Socket {
    pub(crate) id: SocketId,
    mailbox: Arc<Mailbox>,
}

impl Socket {
    /// Takes what came; the number of packets.
    pub(crate) fn drain(&self, batch: &mut VecDeque<Item>) -> u64 {
        batch.clear();
        let _ = self.mailbox.poll_take(&mut Context::from_waker(Waker::noop()), batch);
        batch.iter().filter(|item| matches!(item, Item::Packet(_))).count() as u64
    }
}

/// The defaults, with a limit of rooms and a number of buckets.
pub(crate) fn config(limit: usize, buckets: u32) -> ClusterConfig {
    ClusterConfig {
        subscribe_timeout: Duration::from_secs(30),
        max_room_subjects: limit,
        hashed_subjects: buckets,
        ..ClusterConfig::default()
    }
}

pub(crate) fn room(number: usize) -> Room {
    format!("conversation:{number:08}").into()
}

/// Numbers that are the same in every run.
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new() -> Self {
        Self(0x9e37_79b9_7f4a_7c15)
    }

    pub(crate) fn below(&mut self, end: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % end as u64) as usize
    }
}
