//! A node's side of the simulated broker: a [`Bus`] that writes down what is asked of it.
//!
//! Owns the calls since the last look of the network, and whether the node believes to be connected. Takes no decision:
//! what becomes of a call, and when, is the network's.

use std::sync::Arc;

use futures_util::future::{BoxFuture, FutureExt};
use parking_lot::Mutex;
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::Ms;
use crate::cluster::{Bus, BusError, BusSink, BusState, Publication, Subject};

pub(super) type Reply = oneshot::Sender<Result<(), BusError>>;

/// What a node asked of its broker.
pub(super) enum Ask {
    Connect,
    Publish(Vec<Publication>),
    Subscribe(Vec<Subject>),
    Unsubscribe(Vec<Subject>),
    Close,
    /// Refused in place, because the node knows that its broker is away.
    Refused(Vec<Publication>),
}

pub(super) struct Call {
    pub(super) at: Ms,
    /// The connection on which the node believes to speak.
    pub(super) session: u32,
    pub(super) ask: Ask,
    /// Dropped when there will be no answer: the call fails.
    pub(super) reply: Reply,
}

#[derive(Default)]
struct State {
    sink: Option<Arc<dyn BusSink>>,
    session: Option<u32>,
    calls: Vec<Call>,
}

pub(super) struct SimulatedBus {
    born: Ms,
    epoch: Instant,
    state: Mutex<State>,
}

impl SimulatedBus {
    /// A bus of a node that is born now. Must be called in the node's runtime.
    pub(super) fn new(born: Ms) -> Arc<Self> {
        Arc::new(Self { born, epoch: Instant::now(), state: Mutex::default() })
    }

    pub(super) fn now(&self) -> Ms {
        self.born + Instant::now().duration_since(self.epoch).as_millis() as Ms
    }

    /// The moment of the node's clock that the world calls `at`.
    pub(super) fn instant(&self, at: Ms) -> Instant {
        self.epoch + std::time::Duration::from_millis(at.saturating_sub(self.born))
    }

    pub(super) fn take_calls(&self) -> Vec<Call> {
        std::mem::take(&mut self.state.lock().calls)
    }

    pub(super) fn sink(&self) -> Option<Arc<dyn BusSink>> {
        self.state.lock().sink.clone()
    }

    /// The connection on which the node believes to be.
    pub(super) fn session(&self) -> Option<u32> {
        self.state.lock().session
    }

    /// The node learns of its connection.
    pub(super) fn set_session(&self, session: Option<u32>) {
        let sink = {
            let mut state = self.state.lock();
            state.session = session;
            state.sink.clone()
        };
        if let Some(sink) = sink {
            sink.state(if session.is_some() { BusState::Up } else { BusState::Down });
        }
    }

    fn ask(&self, ask: Ask) -> BoxFuture<'_, Result<(), BusError>> {
        let (reply, answer) = oneshot::channel();
        let refused = {
            let mut state = self.state.lock();
            let (ask, refused) = match (state.session, ask) {
                (None, Ask::Publish(batch)) => (Ask::Refused(batch), true),
                (None, Ask::Connect) => (Ask::Connect, false),
                (None, _) => return std::future::ready(Err(away())).boxed(),
                (Some(_), ask) => (ask, false),
            };
            let session = state.session.unwrap_or_default();
            state.calls.push(Call { at: self.now(), session, ask, reply });
            refused
        };
        if refused {
            return std::future::ready(Err(away())).boxed();
        }
        async move { answer.await.unwrap_or_else(|_| Err(away())) }.boxed()
    }
}

fn away() -> BusError {
    BusError::Unavailable("the simulated broker is away".into())
}

impl Bus for SimulatedBus {
    fn start(&self, sink: Arc<dyn BusSink>) -> BoxFuture<'_, Result<(), BusError>> {
        self.state.lock().sink = Some(sink);
        // The network says `Up` before it answers.
        self.ask(Ask::Connect)
    }

    fn publish(&self, batch: Vec<Publication>) -> BoxFuture<'_, Result<(), BusError>> {
        self.ask(Ask::Publish(batch))
    }

    fn subscribe(&self, subjects: Vec<Subject>) -> BoxFuture<'_, Result<(), BusError>> {
        self.ask(Ask::Subscribe(subjects))
    }

    fn unsubscribe(&self, subjects: Vec<Subject>) -> BoxFuture<'_, Result<(), BusError>> {
        self.ask(Ask::Unsubscribe(subjects))
    }

    fn max_payload(&self) -> usize {
        1024 * 1024
    }

    fn ping(&self) -> BoxFuture<'_, Result<(), BusError>> {
        self.ask(Ask::Subscribe(Vec::new()))
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        self.ask(Ask::Close).map(|_| ()).boxed()
    }
}
