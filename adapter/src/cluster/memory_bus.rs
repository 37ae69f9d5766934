//! A broker in memory, for tests: nodes of one process share a hub.
//!
//! Delivers in place, in the order of publishing. Goes down and loses messages on demand.

use std::collections::HashSet;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::future::{BoxFuture, FutureExt};
use parking_lot::Mutex;

use super::{Backlog, Bus, BusError, BusSink, BusState, Publication, Subject};

/// Says of a publication whether it gets lost.
type Loss = Box<dyn FnMut(&Publication) -> bool + Send>;

#[derive(Default)]
struct Client {
    sink: Option<Arc<dyn BusSink>>,
    subjects: HashSet<Subject>,
    down: bool,
}

#[derive(Default)]
struct Hub {
    clients: Vec<Client>,
    loss: Option<Loss>,
    duplicates: bool,
}

/// The broker that buses share.
#[derive(Clone, Default)]
pub struct MemoryHub(Arc<Mutex<Hub>>);

impl MemoryHub {
    /// A broker without clients.
    pub fn new() -> Self {
        Self::default()
    }

    /// A new connection to this broker.
    pub fn bus(&self) -> Arc<MemoryBus> {
        let mut hub = self.0.lock();
        hub.clients.push(Client::default());
        Arc::new(MemoryBus { hub: self.clone(), client: hub.clients.len() - 1 })
    }

    /// Loses the publications for which `loss` says so.
    pub fn lose(&self, loss: impl FnMut(&Publication) -> bool + Send + 'static) {
        self.0.lock().loss = Some(Box::new(loss));
    }

    /// Delivers everything twice.
    pub fn duplicate(&self, duplicates: bool) {
        self.0.lock().duplicates = duplicates;
    }

    /// The number of connections that are subscribed to a subject.
    pub fn subscribers(&self, subject: &str) -> usize {
        self.0.lock().clients.iter().filter(|client| client.subjects.contains(subject)).count()
    }

    /// Publishes bytes as anybody could who reaches the broker.
    pub fn publish(&self, subject: &str, payload: Bytes) {
        self.deliver(&mut self.0.lock(), &Publication { subject: subject.into(), payload });
    }

    fn deliver(&self, hub: &mut Hub, publication: &Publication) {
        if hub.loss.as_mut().is_some_and(|loss| loss(publication)) {
            return;
        }
        // The lock is held meanwhile: what a sink does is the fan-out of its node, which publishes nothing in place.
        for client in hub.clients.iter().filter(|client| !client.down) {
            if let Some(sink) = &client.sink
                && client.subjects.contains(&publication.subject)
            {
                let copies = if hub.duplicates { 2 } else { 1 };
                (0..copies).for_each(|_| {
                    sink.message(&publication.subject, publication.payload.clone(), Backlog::default());
                });
            }
        }
    }
}

/// A connection to a [`MemoryHub`].
pub struct MemoryBus {
    hub: MemoryHub,
    client: usize,
}

impl MemoryBus {
    /// Cuts the connection, with the loss of its subscriptions, or brings it back.
    pub fn set_up(&self, up: bool) {
        let sink = self.with(|client| {
            client.down = !up;
            client.subjects.clear();
            client.sink.clone()
        });
        if let Some(sink) = sink {
            sink.state(if up { BusState::Up } else { BusState::Down });
        }
    }

    fn with<T>(&self, act: impl FnOnce(&mut Client) -> T) -> T {
        act(&mut self.hub.0.lock().clients[self.client])
    }

    fn if_up<T>(&self, act: impl FnOnce(&mut Client) -> T) -> Result<T, BusError> {
        self.with(|client| match client.down {
            true => Err(BusError::Unavailable("cut".into())),
            false => Ok(act(client)),
        })
    }
}

impl Bus for MemoryBus {
    fn start(&self, sink: Arc<dyn BusSink>) -> BoxFuture<'_, Result<(), BusError>> {
        async move {
            self.if_up(|client| client.sink = Some(Arc::clone(&sink)))?;
            sink.state(BusState::Up);
            Ok(())
        }
        .boxed()
    }

    fn publish(&self, batch: Vec<Publication>) -> BoxFuture<'_, Result<(), BusError>> {
        async move {
            self.if_up(|_| ())?;
            let mut hub = self.hub.0.lock();
            batch.iter().for_each(|publication| self.hub.deliver(&mut hub, publication));
            Ok(())
        }
        .boxed()
    }

    fn subscribe(&self, subjects: Vec<Subject>) -> BoxFuture<'_, Result<(), BusError>> {
        async move { self.if_up(|client| client.subjects.extend(subjects)) }.boxed()
    }

    fn unsubscribe(&self, subjects: Vec<Subject>) -> BoxFuture<'_, Result<(), BusError>> {
        async move { self.if_up(|client| client.subjects.retain(|subject| !subjects.contains(subject))) }
            .boxed()
    }

    fn max_payload(&self) -> usize {
        8 * 1024 * 1024
    }

    fn ping(&self) -> BoxFuture<'_, Result<(), BusError>> {
        async move { self.if_up(|_| ()) }.boxed()
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        async move { self.with(|client| *client = Client { down: true, ..Client::default() }) }.boxed()
    }
}
