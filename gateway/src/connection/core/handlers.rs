//! The handlers of a connection that wait, and the events that are held until there is room for more. Owns their order and
//! their bounds; what follows when one is done is its caller's to know.

use std::collections::VecDeque;
use std::task::{Context, Poll};

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;

use crate::handler::{BoxFuture, Refusal, Step};
use crate::namespace::{Event, Socket};

/// Events that may be held back, as a multiple of the handlers that may wait.
const HELD_EVENTS_FACTOR: usize = 8;

/// What a handler that had to wait has done.
pub(super) enum Finished {
    Event,
    Admitted(usize, Socket, Result<(), Refusal>),
    /// The subscriptions of the namespace, and of rooms that a middleware joined, stand.
    RoomsStand(usize, Socket),
    Connected(usize, Socket),
}

#[derive(Default)]
struct Pending {
    waiting: FuturesUnordered<BoxFuture<Finished>>,
    /// Events that came while as many handlers waited as may, by slot, in order.
    held: VecDeque<(usize, Socket, Event)>,
}

/// What waits; most connections have nothing that does, and own no memory for it. `max` is how many handlers may
/// (`engine.max_pending_handlers`).
#[derive(Default)]
pub(super) struct Handlers(Option<Box<Pending>>);

impl Handlers {
    fn waiting(&self) -> usize {
        self.0.as_ref().map_or(0, |pending| pending.waiting.len())
    }

    fn held(&self) -> usize {
        self.0.as_ref().map_or(0, |pending| pending.held.len())
    }

    /// True when no handler waits.
    pub(super) fn is_idle(&self) -> bool {
        self.waiting() == 0
    }

    /// True when no event is held either.
    pub(super) fn is_settled(&self) -> bool {
        self.is_idle() && self.held() == 0
    }

    /// True when so many handlers wait that no more are started.
    fn is_crowded(&self, max: usize) -> bool {
        self.waiting() >= max
    }

    /// True when there is no room for more events.
    pub(super) fn is_full(&self, max: usize) -> bool {
        self.held() >= max.saturating_mul(HELD_EVENTS_FACTOR)
    }

    /// Gives an event to its handler, or holds it behind those that came before.
    pub(super) fn handle_event(
        &mut self,
        slot: usize,
        socket: &Socket,
        event: Event,
        max: usize,
        cx: &mut Context<'_>,
    ) {
        if self.is_crowded(max) || self.held() > 0 {
            self.0.get_or_insert_default().held.push_back((slot, socket.clone(), event));
        } else {
            self.dispatch(socket, event, cx);
        }
    }

    /// The next of the events that are held, if a handler may start.
    pub(super) fn next_held(&mut self, max: usize) -> Option<(usize, Socket, Event)> {
        if self.is_crowded(max) {
            return None;
        }
        let next = self.0.as_mut()?.held.pop_front();
        self.let_go();
        next
    }

    /// Gives an event to its handler.
    pub(super) fn dispatch(&mut self, socket: &Socket, event: Event, cx: &mut Context<'_>) {
        let step = socket.namespace_inner().handler().event(socket, event, cx);
        self.wait_for(step, |()| Finished::Event);
    }

    /// Keeps a step that has to wait. What was done in place is returned.
    pub(super) fn wait_for<T: 'static>(
        &mut self,
        step: Step<T>,
        finished: impl FnOnce(T) -> Finished + Send + 'static,
    ) -> Option<T> {
        match step {
            Step::Done(value) => Some(value),
            Step::Wait(future) => {
                let pending = self.0.get_or_insert_default();
                pending.waiting.push(Box::pin(async move { finished(future.await) }));
                None
            }
        }
    }

    /// Goes on with the handlers that wait, until one is done.
    pub(super) fn poll_finished(&mut self, cx: &mut Context<'_>) -> Option<Finished> {
        let Poll::Ready(finished) = self.0.as_mut()?.waiting.poll_next_unpin(cx) else { return None };
        if finished.is_none() {
            self.let_go();
        }
        finished
    }

    /// Handlers run to their end, as in Node, when their client has gone.
    pub(super) fn let_finish(&mut self) {
        if let Some(pending) = self.0.take().filter(|pending| !pending.waiting.is_empty()) {
            tokio::spawn(pending.waiting.for_each(|_| std::future::ready(())));
        }
    }

    fn let_go(&mut self) {
        self.0.take_if(|pending| pending.waiting.is_empty() && pending.held.is_empty());
    }
}
