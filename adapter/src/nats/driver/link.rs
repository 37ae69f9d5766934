//! What runs on a link: a task that publishes, one that makes subscriptions, and what delivers them.
//!
//! Must not connect or know the configuration.

use std::{collections::hash_map::Entry, sync::Arc};

use async_nats::Subscriber;
use futures_util::{
    FutureExt, StreamExt,
    future::{self, BoxFuture},
};
use rustc_hash::FxHashMap;
use tokio::sync::{
    Semaphore,
    mpsc::{self, error::TrySendError},
    oneshot,
};

use super::{
    super::{NatsQueues, Subjects},
    closed,
    fence::{Connection, Purpose, Reply},
    unavailable,
};
use crate::{
    broker::{Fault, Inbound, Inline, Site},
    cluster::{BusError, Publication, Subject},
};

/// How many batches share a fence.
const BATCHES_PER_FENCE: usize = 64;

pub(in crate::nats) struct NatsLink {
    writer: Connection,
    reader: Connection,
    publications: mpsc::Sender<(Vec<Publication>, Reply)>,
    subscriptions: mpsc::Sender<(Change, Reply)>,
}

/// What is asked of the task that owns the subscriptions.
pub(super) enum Change {
    Subscribe(Vec<Subject>),
    Unsubscribe(Vec<Subject>),
}

impl NatsLink {
    pub(super) fn new(
        writer: Connection,
        reader: Connection,
        site: Site,
        subjects: &Subjects,
        queues: &NatsQueues,
    ) -> Self {
        let (publications, published) = mpsc::channel(capacity(queues.publications));
        site.writer.spawn(publish(writer.clone(), published, subjects.clone()));
        let (subscriptions, changes) = mpsc::channel(capacity(queues.changes));
        site.reader.spawn(subscribe(reader.clone(), changes, subjects.clone(), site.inbound, site.fault));
        Self { writer, reader, publications, subscriptions }
    }

    pub(super) fn publish(&self, batch: Vec<Publication>) -> BoxFuture<'static, Result<(), BusError>> {
        request(&self.publications, batch)
    }

    pub(super) fn change(&self, change: Change) -> BoxFuture<'static, Result<(), BusError>> {
        request(&self.subscriptions, change)
    }

    pub(super) fn writer(&self) -> &Connection {
        &self.writer
    }

    pub(super) fn reader(&self) -> &Connection {
        &self.reader
    }
}

/// What a channel can have.
fn capacity(wanted: usize) -> usize {
    wanted.clamp(1, Semaphore::MAX_PERMITS)
}

/// Gives a request to its task, now, so that requests stay in the order of the calls whoever is polled first.
fn request<T>(queue: &mpsc::Sender<(T, Reply)>, what: T) -> BoxFuture<'static, Result<(), BusError>> {
    let (reply, answer) = oneshot::channel();
    match queue.try_send((what, reply)) {
        Ok(()) => async move { answer.await.unwrap_or_else(|_| Err(closed())) }.boxed(),
        Err(TrySendError::Full(_)) => {
            future::err(BusError::Unavailable("too much is waiting for the server".into())).boxed()
        }
        Err(TrySendError::Closed(_)) => future::err(closed()).boxed(),
    }
}

/// Publishes batches. Those that wait together share a fence.
async fn publish(to: Connection, mut batches: mpsc::Receiver<(Vec<Publication>, Reply)>, subjects: Subjects) {
    let (mut waiting, mut replies) = (Vec::new(), Vec::new());
    while batches.recv_many(&mut waiting, BATCHES_PER_FENCE).await > 0 {
        for (batch, reply) in waiting.drain(..) {
            let mut result = Ok(());
            for Publication { subject, payload } in batch {
                result = to.client().publish(subjects.encode(&subject), payload).await;
                if result.is_err() {
                    break;
                }
            }
            match result {
                Ok(()) => replies.push(reply),
                // Nobody may be waiting any more, here and below.
                Err(error) => drop(reply.send(Err(unavailable(error)))),
            }
        }
        to.fence(Purpose::Request, std::mem::take(&mut replies)).await;
    }
}

/// Makes and ends subscriptions. Runs on the thread of the connection, so none is delivered while it is made or ended.
async fn subscribe(
    to: Connection,
    mut changes: mpsc::Receiver<(Change, Reply)>,
    subjects: Subjects,
    inbound: Inbound,
    fault: Fault,
) {
    let mut subscribed: FxHashMap<Subject, Arc<Inline>> = FxHashMap::default();
    while let Some((change, reply)) = changes.recv().await {
        let mut result = Ok(());
        let purpose = match &change {
            Change::Subscribe(_) => Purpose::Spread,
            Change::Unsubscribe(_) => Purpose::Request,
        };
        match change {
            Change::Subscribe(wanted) => {
                for subject in wanted {
                    let Entry::Vacant(place) = subscribed.entry(Arc::clone(&subject)) else { continue };
                    match to.client().subscribe(subjects.encode(&subject)).await {
                        Ok(messages) => {
                            let delivery = deliver(subject, messages, inbound.clone(), fault.clone());
                            place.insert(Inline::run(delivery));
                        }
                        Err(error) => result = Err(unavailable(error)),
                    }
                }
            }
            // The end of the receiver tells the server.
            Change::Unsubscribe(unwanted) => {
                unwanted.iter().filter_map(|subject| subscribed.remove(subject)).for_each(|one| one.stop());
            }
        }
        match result {
            // Those that stood before wait too: their making may still be on its way.
            Ok(()) => to.fence(purpose, vec![reply]).await,
            Err(error) => drop(reply.send(Err(error))),
        }
    }
}

/// Hands over the messages of one subscription until it is stopped or the link ends.
async fn deliver(subject: Subject, mut messages: Subscriber, inbound: Inbound, fault: Fault) {
    let _panicked = fault.clone().raised_by_panic();
    while let Some(message) = messages.next().await {
        if !inbound.message(&subject, message.payload) {
            return;
        }
    }
    fault.raise("the connection was closed");
}
