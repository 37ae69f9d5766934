//! An event of a client, and the ack that it may want.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use roomcast_adapter::{Mailbox, Outgoing, Push};
use roomcast_protocol::socketio::{AckId, Args, EncodedPacket};

use super::emit::{EmitError, IntoArgs};

/// An event that a client sent.
#[derive(Debug, Clone)]
pub struct Event {
    /// Its name.
    pub name: Arc<str>,
    /// Its arguments.
    pub args: Args,
    /// Answers it, if the client wants an ack.
    pub ack: Ack,
}

/// Answers an event. Without a call nothing is sent, as in the reference. Clones answer the same event, and only the
/// first answer is sent.
#[derive(Debug, Clone)]
pub struct Ack {
    target: Option<Arc<AckTarget>>,
}

#[derive(Debug)]
struct AckTarget {
    mailbox: Arc<Mailbox>,
    namespace: Arc<str>,
    id: AckId,
    sent: AtomicBool,
}

impl Ack {
    pub(crate) fn new(mailbox: Arc<Mailbox>, namespace: Arc<str>, id: AckId) -> Self {
        Self { target: Some(Arc::new(AckTarget { mailbox, namespace, id, sent: AtomicBool::new(false) })) }
    }

    /// The answer to an event whose client wants none.
    pub(crate) fn unwanted() -> Self {
        Self { target: None }
    }

    /// True when the client asked for an ack.
    pub fn is_wanted(&self) -> bool {
        self.target.is_some()
    }

    /// Sends the ack. A tuple is several arguments, `()` is none. Does nothing when no ack was asked for, or one was sent.
    pub fn send<M>(&self, args: impl IntoArgs<M>) -> Result<(), EmitError> {
        let Some(target) = &self.target else {
            return Ok(());
        };
        let args = args.into_args()?;
        if target.sent.swap(true, Ordering::Relaxed) {
            return Ok(());
        }
        let outgoing = Outgoing::new(EncodedPacket::ack(&target.namespace, target.id, &args));
        match target.mailbox.push(&outgoing) {
            Push::Queued | Push::DroppedVolatile => Ok(()),
            Push::Overflowed | Push::Closed => Err(EmitError::Disconnected),
        }
    }

    /// Answers with `{"error":{"code":…,"status":…}}`: every client that asked for an ack gets one.
    pub fn refuse(&self, code: &str, status: u16) -> Result<(), EmitError> {
        self.send(serde_json::json!({ "error": { "code": code, "status": status } }))
    }
}
