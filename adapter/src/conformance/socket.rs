//! A scripted socket: a mailbox, and a reader of what comes in it.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt;
use roomcast_protocol::socketio::{AckId, Args, EncodedPacket};
use serde_json::Value;

use crate::adapter::{Adapter, Describe};
use crate::id::SocketId;
use crate::mailbox::{CloseCause, Item, Mailbox};

/// Whoever waits longer than this for something that must come has found a bug.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// What came in a mailbox.
#[derive(Debug, Clone, PartialEq)]
pub enum Received {
    /// An event.
    Event {
        /// The namespace that it names.
        namespace: String,
        /// The name of the event.
        name: String,
        /// Its arguments as JSON, placeholders as they are.
        args: Vec<Value>,
        /// The ack that it asks for.
        ack: Option<u32>,
        /// Its attachments.
        attachments: Vec<Bytes>,
    },
    /// The socket is disconnected; with `true` its connection too.
    Disconnect(bool),
    /// The connection has to end.
    Close(CloseCause),
}

impl Received {
    fn of_packet(packet: &EncodedPacket) -> Self {
        let mut messages = packet.messages();
        let (_, first) = messages.next().expect("a packet has a message");
        let attachments = messages.map(|(_, payload)| Bytes::copy_from_slice(payload)).collect();
        let text = std::str::from_utf8(first).expect("the first message is text");
        let rest = text.strip_prefix("42").or_else(|| text.strip_prefix("45")).expect("an event");
        let rest = rest.split_once('-').filter(|_| text.starts_with("45")).map_or(rest, |(_, rest)| rest);
        let (namespace, rest) =
            if rest.starts_with('/') { rest.split_once(',').expect("a comma") } else { ("/", rest) };
        let (ack, data) = rest.split_at(rest.find('[').expect("an array"));
        let mut args: Vec<Value> = serde_json::from_str(data).expect("JSON");
        let name = args.remove(0).as_str().expect("a name").to_owned();
        Self::Event { namespace: namespace.to_owned(), name, args, ack: ack.parse().ok(), attachments }
    }

    /// The name of an event; another thing's `Debug` form.
    pub fn name(&self) -> String {
        match self {
            Self::Event { name, .. } => name.clone(),
            other => format!("{other:?}"),
        }
    }

    /// The arguments of an event.
    pub fn args(&self) -> &[Value] {
        match self {
            Self::Event { args, .. } => args,
            _ => &[],
        }
    }
}

/// A socket of a test.
pub struct TestSocket {
    /// Its id.
    pub id: SocketId,
    /// Where its packets come.
    pub mailbox: Arc<Mailbox>,
    /// Where it is.
    pub adapter: Arc<dyn Adapter>,
    batch: VecDeque<Item>,
}

impl TestSocket {
    pub(super) fn new(id: SocketId, mailbox: Arc<Mailbox>, adapter: Arc<dyn Adapter>) -> Self {
        Self { id, mailbox, adapter, batch: VecDeque::new() }
    }

    /// What comes next. Panics when nothing does.
    pub async fn next(&mut self) -> Received {
        if self.batch.is_empty() {
            let (mailbox, batch) = (&self.mailbox, &mut self.batch);
            let taken = std::future::poll_fn(|cx| mailbox.poll_take(cx, batch));
            tokio::time::timeout(PATIENCE, taken).await.expect("nothing came");
        }
        self.try_next().expect("a batch is not empty")
    }

    /// What has come already.
    pub fn try_next(&mut self) -> Option<Received> {
        if self.batch.is_empty() {
            let (mailbox, batch) = (&self.mailbox, &mut self.batch);
            // What is not there yet is seen by the next look: nobody is woken.
            let _ = std::future::poll_fn(|cx| mailbox.poll_take(cx, batch)).now_or_never();
        }
        Some(match self.batch.pop_front()? {
            Item::Packet(outgoing) => Received::of_packet(&outgoing.packet),
            Item::Disconnect { socket, close } => {
                assert_eq!(socket, self.id);
                Received::Disconnect(close)
            }
            Item::Close(cause) => Received::Close(cause),
        })
    }

    /// Waits for an event that asks for an ack, and gives its id.
    pub async fn next_ask(&mut self) -> u32 {
        match self.next().await {
            Received::Event { ack: Some(ack), .. } => ack,
            other => panic!("no ack was asked for: {}", other.name()),
        }
    }

    /// Answers.
    pub fn ack(&self, ack: u32, args: Args) {
        self.adapter.ack(self.id, AckId::from(ack), args);
    }
}

/// What a test socket says of itself.
pub(super) struct Card(pub(super) SocketId);

impl Describe for Card {
    fn handshake(&self) -> Value {
        serde_json::json!({ "auth": { "of": self.0 }, "headers": {} })
    }

    fn data(&self) -> Value {
        serde_json::json!({ "name": format!("socket {}", self.0) })
    }
}
