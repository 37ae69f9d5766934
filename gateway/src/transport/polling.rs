//! HTTP long-polling: how requests reach the connection's task, and how its answers are put together.

use std::task::{Context, Poll};

use bytes::Bytes;
use tokio::sync::oneshot;

use super::WebSocket;
use crate::connection::{Signal, WireQueue};
use crate::metrics::Metrics;

/// What a request wants of its session. What is large is boxed: each session has room for as many as the channel's blocks
/// have.
pub(crate) enum Command {
    /// A GET: answered as soon as there is something to say.
    Poll(oneshot::Sender<PollAnswer>),
    Post(Box<Posted>),
    /// The GET that is held is to be answered with what there is: the node that passes it on is going away.
    Release,
    /// A request broke off, overlapped with another one, or had a wrong type: the session ends.
    Broken,
    /// A WebSocket wants to become the transport.
    Upgrade(Box<WebSocket>),
}

/// The payload of a POST.
pub(crate) struct Posted {
    pub(crate) body: Bytes,
    /// Used once the payload was handled.
    pub(crate) done: oneshot::Sender<()>,
}

/// The answer to a GET.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum PollAnswer {
    /// The packets.
    Payload(Vec<u8>),
    /// Another poll is pending: HTTP 400.
    Overlap,
}

/// The polling transport of a connection.
#[derive(Debug, Default)]
pub(crate) struct Polling {
    pending: Option<oneshot::Sender<PollAnswer>>,
}

impl Polling {
    pub(crate) fn is_pending(&self) -> bool {
        self.pending.is_some()
    }

    /// Keeps a poll until there is something to say.
    pub(crate) fn hold(&mut self, poll: oneshot::Sender<PollAnswer>) {
        self.pending = Some(poll);
    }

    /// Ready when the client has given the pending poll up.
    pub(crate) fn poll_aborted(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        match &mut self.pending {
            Some(poll) => poll.poll_closed(cx),
            None => Poll::Pending,
        }
    }

    /// Answers the pending poll with everything that waits. The number of bytes, or `None` if the client is gone.
    pub(crate) fn answer(&mut self, wire: &mut WireQueue, metrics: &Metrics) -> Option<usize> {
        let poll = self.pending.take()?;
        let mut payload = Vec::with_capacity(wire.bytes());
        let mut oldest = None;
        while let Some(item) = wire.pop() {
            item.write_records(&mut payload);
            if let Some(kind) = item.kind() {
                metrics.packets_sent.inc(kind);
            }
            oldest = oldest.or(item.outgoing().map(|outgoing| (outgoing.emitted_at, outgoing.travelled)));
        }
        if let Some((emitted_at, travelled)) = oldest {
            metrics.observe_emit_to_write(emitted_at.elapsed(), travelled);
        }
        let len = payload.len();
        poll.send(PollAnswer::Payload(payload)).ok().map(|()| len)
    }

    /// Answers the pending poll with one packet and nothing else.
    pub(crate) fn answer_signal(&mut self, signal: Signal) {
        if let Some(poll) = self.pending.take() {
            let _ = poll.send(PollAnswer::Payload(signal.record().into()));
        }
    }
}
