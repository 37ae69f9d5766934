//! Collects the acks of one emit from all who were asked, as a stream.
//!
//! Owns which nodes have yet to say whom they asked and which sockets have yet to answer; the stream ends when both are
//! none, or at the deadline. Bounded: at most one event per node, and one per socket that was asked.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use futures_util::Stream;
use parking_lot::Mutex;
use roomcast_protocol::socketio::Args;
use rustc_hash::{FxHashMap, FxHashSet};
use tokio::time::{Instant, Sleep};

use super::acks::{AckSink, MAX_AWAITED_ACKS};
use crate::adapter::AckEvent;
use crate::id::{NodeTag, SocketId};

/// Deadlines beyond this are cut: a clock cannot reckon with `Duration::MAX`.
const LONGEST_TIMEOUT: Duration = Duration::from_secs(365 * 24 * 3600);

/// The moment when a timeout is over.
pub(crate) fn deadline_of(timeout: Duration) -> Instant {
    Instant::now() + timeout.min(LONGEST_TIMEOUT)
}

/// Messages in which one node may name whom it asked.
const MAX_PARTS: usize = 1_024;

/// What a node has said so far.
#[derive(Default)]
struct Named {
    parts: usize,
    sockets: usize,
}

#[derive(Default)]
struct State {
    events: VecDeque<AckEvent>,
    /// Nodes that have not said yet whom they asked, and how many they have named so far.
    nodes: FxHashMap<NodeTag, Named>,
    /// Sockets that have not answered yet.
    open: FxHashSet<SocketId>,
    waker: Option<Waker>,
}

/// The state of one emit with acks.
pub(crate) struct Collector {
    /// The node that emitted: the one that the sink of local sockets speaks for.
    node: NodeTag,
    state: Mutex<State>,
}

impl Collector {
    /// Waits for these nodes.
    pub(crate) fn new(node: NodeTag, nodes: impl IntoIterator<Item = NodeTag>) -> Arc<Self> {
        let state = State {
            nodes: nodes.into_iter().map(|node| (node, Named::default())).collect(),
            ..State::default()
        };
        Arc::new(Self { node, state: Mutex::new(state) })
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        let mut state = self.state.lock();
        change(&mut state);
        let waker = state.waker.take();
        drop(state);
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// A node asked these sockets. With `more`, it will name others. False when it names more than a node can ask: then
    /// it counts as lost.
    pub(crate) fn asked_by(&self, node: NodeTag, ids: Vec<SocketId>, more: bool) -> bool {
        let named_too_many = {
            let mut state = self.state.lock();
            let Some(named) = state.nodes.get_mut(&node) else { return true };
            named.parts += 1;
            named.sockets += ids.len();
            named.parts > MAX_PARTS || named.sockets > MAX_AWAITED_ACKS
        };
        if named_too_many {
            self.node_lost(node);
            return false;
        }
        self.change(|state| {
            if !more {
                state.nodes.remove(&node);
            }
            // A node can only ask its own sockets.
            let ids: Vec<_> =
                ids.into_iter().filter(|id| id.node() == node && state.open.insert(*id)).collect();
            if !ids.is_empty() {
                state.events.push_back(AckEvent::Asked(ids));
            }
        });
        true
    }

    /// A socket answered, or left when there are no arguments.
    pub(crate) fn settled(&self, id: SocketId, answer: Option<Args>) {
        self.change(|state| {
            if state.open.remove(&id) {
                state.events.push_back(match answer {
                    Some(args) => AckEvent::Ack(id, args),
                    None => AckEvent::Gone(id),
                });
            }
        });
    }

    /// A node died or could not ask: its sockets will not answer.
    pub(crate) fn node_lost(&self, node: NodeTag) {
        self.change(|state| {
            let before = state.open.len();
            state.open.retain(|id| id.node() != node);
            if state.nodes.remove(&node).is_some() || state.open.len() != before {
                state.events.push_back(AckEvent::LostNode(node));
            }
        });
    }

    /// True while somebody has yet to answer.
    pub(crate) fn is_waiting(&self) -> bool {
        let state = self.state.lock();
        !state.nodes.is_empty() || !state.open.is_empty()
    }

    fn poll_event(&self, cx: &mut Context<'_>) -> Poll<Option<AckEvent>> {
        let mut state = self.state.lock();
        if let Some(event) = state.events.pop_front() {
            return Poll::Ready(Some(event));
        }
        if state.nodes.is_empty() && state.open.is_empty() {
            return Poll::Ready(None);
        }
        state.waker = Some(cx.waker().clone());
        Poll::Pending
    }

    /// The time is over: who has not answered will not be waited for.
    fn expire(&self) {
        let mut state = self.state.lock();
        state.open.clear();
        let mut nodes: Vec<_> = state.nodes.drain().map(|(node, _)| node).collect();
        nodes.sort_unstable();
        state.events.extend(nodes.into_iter().map(AckEvent::LostNode));
    }
}

impl AckSink for Collector {
    fn asked(&self, ids: Vec<SocketId>) {
        // Bounded where they are asked.
        let _ = self.asked_by(self.node, ids, false);
    }

    fn ack(&self, id: SocketId, args: Args) {
        self.settled(id, Some(args));
    }

    fn gone(&self, id: SocketId) {
        self.settled(id, None);
    }

    fn refused(&self) {
        self.node_lost(self.node);
    }
}

/// The stream over a collector.
pub(crate) struct Acks {
    collector: Arc<Collector>,
    deadline: Instant,
    /// Made at the first poll: only then there is a runtime for certain.
    sleep: Option<Pin<Box<Sleep>>>,
    /// Run when nobody waits any more.
    cancel: Option<Box<dyn FnOnce() + Send>>,
}

impl Acks {
    pub(crate) fn new(
        collector: Arc<Collector>,
        deadline: Instant,
        cancel: impl FnOnce() + Send + 'static,
    ) -> Self {
        Self { collector, deadline, sleep: None, cancel: Some(Box::new(cancel)) }
    }
}

impl Stream for Acks {
    type Item = AckEvent;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<AckEvent>> {
        let this = &mut *self;
        if let Poll::Ready(event) = this.collector.poll_event(cx) {
            return Poll::Ready(event);
        }
        let sleep = this.sleep.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(this.deadline)));
        if sleep.as_mut().poll(cx).is_pending() {
            return Poll::Pending;
        }
        this.collector.expire();
        this.collector.poll_event(cx)
    }
}

impl Drop for Acks {
    fn drop(&mut self) {
        if let Some(cancel) = self.cancel.take() {
            cancel();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn collector() -> (NodeTag, Arc<Collector>) {
        let node = "aaaa".parse().unwrap();
        (node, Collector::new(node, [node]))
    }

    fn next(collector: &Collector) -> Poll<Option<AckEvent>> {
        collector.poll_event(&mut Context::from_waker(Waker::noop()))
    }

    #[test]
    fn a_node_that_names_sockets_without_end_is_lost() {
        let (node, collector) = collector();
        assert!((0..MAX_PARTS).all(|_| collector.asked_by(node, Vec::new(), true)));
        assert_eq!(next(&collector), Poll::Pending);
        assert!(!collector.asked_by(node, Vec::new(), true));
        assert_eq!(next(&collector), Poll::Ready(Some(AckEvent::LostNode(node))));
        assert_eq!(next(&collector), Poll::Ready(None));
    }

    #[test]
    fn a_node_cannot_ask_more_sockets_than_a_node_asks() {
        let (node, collector) = collector();
        let ids = vec![SocketId::new(node, [0; 12]); MAX_AWAITED_ACKS / 2 + 1];
        assert!(collector.asked_by(node, ids.clone(), true));
        assert!(!collector.asked_by(node, ids, true));
        assert!(!collector.is_waiting());
    }
}
