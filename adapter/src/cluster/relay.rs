//! Acks on their way from this node's sockets to the node that asked for them.
//!
//! Owns the answers that came since the last message: several that come at once travel together.

use std::sync::{Arc, Weak};

use parking_lot::Mutex;
use roomcast_protocol::socketio::Args;
use tokio::time::Instant;

use super::message::Answer;
use super::node::{Namespace, Node};
use crate::id::{NodeTag, SocketId};
use crate::local::AckSink;

/// One request for acks of another node.
pub(crate) struct Relay {
    me: Weak<Relay>,
    node: Weak<Node>,
    namespace: Arc<Namespace>,
    origin: NodeTag,
    request: u64,
    /// When nobody waits any more.
    pub(crate) deadline: Instant,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    settled: Vec<(SocketId, Option<Args>)>,
    /// Under which id the sockets were asked.
    ack: Option<u32>,
    unanswered: usize,
    /// Sockets that were asked.
    asked: usize,
}

impl Relay {
    pub(crate) fn new(
        node: &Arc<Node>,
        namespace: Arc<Namespace>,
        origin: NodeTag,
        request: u64,
        deadline: Instant,
    ) -> Arc<Self> {
        Arc::new_cyclic(|me| Self {
            me: me.clone(),
            node: Arc::downgrade(node),
            namespace,
            origin,
            request,
            deadline,
            state: Mutex::default(),
        })
    }

    pub(crate) fn set_ack(&self, ack: Option<u32>) {
        self.state.lock().ack = ack;
    }

    /// The node that asked.
    pub(crate) fn origin(&self) -> NodeTag {
        self.origin
    }

    /// The number of the request there.
    pub(crate) fn request(&self) -> u64 {
        self.request
    }

    /// True when nothing more can come.
    pub(crate) fn is_over(&self, now: Instant) -> bool {
        let state = self.state.lock();
        self.deadline <= now || (state.unanswered == 0 && state.settled.is_empty())
    }

    /// How many sockets were asked here.
    pub(crate) fn asked_count(&self) -> usize {
        self.state.lock().asked
    }

    /// Stops waiting for the sockets.
    pub(crate) fn cancel(&self) {
        let ack = self.state.lock().ack.take();
        self.namespace.local.cancel(ack);
    }

    fn settle(&self, id: SocketId, answer: Option<Args>) {
        let first = {
            let mut state = self.state.lock();
            state.unanswered = state.unanswered.saturating_sub(1);
            state.settled.push((id, answer));
            state.settled.len() == 1
        };
        if first && let (Some(me), Some(node)) = (self.me.upgrade(), self.node.upgrade()) {
            node.ready_relays.lock().push(me);
            node.wake.notify_one();
        }
    }

    /// Sends what came since the last time.
    pub(crate) fn flush(&self) {
        let settled = std::mem::take(&mut self.state.lock().settled);
        let Some(node) = self.node.upgrade() else { return };
        let size = |(_, answer): &(SocketId, Option<Args>)| {
            let args = answer.as_ref().map_or(0, |args| args.byte_len() + 8 + 4 * args.attachments().len());
            SocketId::LEN + 1 + args
        };
        for chunk in chunks(settled, size, node.room_for_contents()) {
            node.respond(self.origin, self.request, true, Answer::Settled(chunk));
        }
    }
}

impl AckSink for Relay {
    fn asked(&self, ids: Vec<SocketId>) {
        {
            let mut state = self.state.lock();
            (state.unanswered, state.asked) = (ids.len(), ids.len());
        }
        let Some(node) = self.node.upgrade() else { return };
        let chunks = chunks(ids, |_| SocketId::LEN, node.room_for_contents());
        let count = chunks.len();
        for (at, chunk) in chunks.into_iter().enumerate() {
            node.respond(self.origin, self.request, at + 1 == count, Answer::Asked(chunk));
        }
    }

    fn ack(&self, id: SocketId, args: Args) {
        self.settle(id, Some(args));
    }

    fn gone(&self, id: SocketId) {
        self.settle(id, None);
    }

    fn refused(&self) {
        if let Some(node) = self.node.upgrade() {
            node.respond(self.origin, self.request, true, Answer::Refused);
        }
    }
}

/// Splits a list so that no part is larger than `max`, unless one item is. There is always one part.
pub(crate) fn chunks<T>(items: Vec<T>, size: impl Fn(&T) -> usize, max: usize) -> Vec<Vec<T>> {
    let mut chunks = vec![Vec::new()];
    let mut filled = 0;
    for item in items {
        let size = size(&item);
        if filled > 0 && filled + size > max {
            chunks.push(Vec::new());
            filled = 0;
        }
        filled += size;
        if let Some(chunk) = chunks.last_mut() {
            chunk.push(item);
        }
    }
    chunks
}
