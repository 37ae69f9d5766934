//! What runs on a link: a task that publishes, one that makes subscriptions, what delivers them, and the round trips.
//!
//! Must not connect or know the configuration.

use std::{collections::hash_map::Entry, sync::Arc};

use async_nats::{Client, Subscriber};
use bytes::Bytes;
use futures_util::{
    FutureExt, StreamExt,
    future::{self, BoxFuture},
};
use parking_lot::Mutex;
use rustc_hash::FxHashMap;
use tokio::sync::{
    mpsc::{self, error::TrySendError},
    oneshot,
};

use super::super::Subjects;
use crate::{
    broker::{Fault, Inbound, Inline, Site},
    cluster::{BusError, Publication, Subject},
};

/// Batches that wait for the publishing task; `LinkConfig::max_in_flight` bounds their bytes.
const PUBLICATIONS: usize = 64 * 1024;
/// How many of them share a fence.
const BATCHES_PER_FENCE: usize = 64;
/// Requests that wait for the subscribing task.
const CHANGES: usize = 16 * 1024;

pub(in crate::nats) struct NatsLink {
    writer: Connection,
    reader: Connection,
    publications: mpsc::Sender<(Vec<Publication>, Reply)>,
    subscriptions: mpsc::Sender<(Change, Reply)>,
}

/// Whom to tell that a request was done.
type Reply = oneshot::Sender<Result<(), BusError>>;

/// What is asked of the task that owns the subscriptions.
pub(super) enum Change {
    Subscribe(Vec<Subject>),
    Unsubscribe(Vec<Subject>),
}

/// A client with its round trips.
#[derive(Clone)]
pub(super) struct Connection {
    client: Client,
    fence: Arc<Fence>,
}

impl NatsLink {
    pub(super) fn new(writer: Connection, reader: Connection, site: Site, subjects: &Subjects) -> Self {
        let (publications, published) = mpsc::channel(PUBLICATIONS);
        site.writer.spawn(publish(writer.clone(), published, subjects.clone()));
        let (subscriptions, changes) = mpsc::channel(CHANGES);
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
                result = to.client.publish(subjects.encode(&subject), payload).await;
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
        match change {
            Change::Subscribe(wanted) => {
                for subject in wanted {
                    let Entry::Vacant(place) = subscribed.entry(Arc::clone(&subject)) else { continue };
                    match to.client.subscribe(subjects.encode(&subject)).await {
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
            Ok(()) => to.fence(Purpose::Request, vec![reply]).await,
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

impl Connection {
    /// Begins to listen for answers to fences. Must be called on the runtime of the connection.
    pub(super) async fn new(client: Client, fence: Arc<Fence>) -> Result<Self, BusError> {
        let inbox = client.new_inbox();
        let mut answers = client.subscribe(inbox.clone()).await.map_err(unavailable)?;
        fence.waiting.lock().inbox = inbox;
        let answered = Arc::clone(&fence);
        tokio::spawn(async move {
            while let Some(answer) = answers.next().await {
                // The client's event task, which may have a complaint to tell, was woken before and runs now.
                tokio::task::yield_now().await;
                answered.pass(&answer.payload);
            }
        });
        Ok(Self { client, fence })
    }

    pub(super) fn max_payload(&self) -> usize {
        self.client.max_payload()
    }

    /// Queues a fence. The replies are given when the server has handled what was queued before.
    async fn fence(&self, purpose: Purpose, replies: Vec<Reply>) {
        if replies.is_empty() {
            return;
        }
        let (inbox, number) = {
            let mut waiting = self.fence.waiting.lock();
            waiting.next += 1;
            let number = waiting.next;
            waiting.replies.insert(number, (purpose, replies));
            (waiting.inbox.clone(), number)
        };
        let payload = Bytes::copy_from_slice(&number.to_be_bytes());
        if let Err(error) = self.client.publish(inbox, payload).await {
            let given_up = self.fence.waiting.lock().replies.remove(&number);
            answer_all(given_up.map(|(_, replies)| replies).unwrap_or_default(), &Err(unavailable(error)));
        }
    }

    pub(super) async fn round_trip(&self) -> Result<(), BusError> {
        let (reply, answer) = oneshot::channel();
        self.fence(Purpose::Ping, vec![reply]).await;
        answer.await.unwrap_or_else(|_| Err(closed()))
    }
}

/// Round trips: numbered messages to an inbox on the same connection.
#[derive(Default)]
pub(super) struct Fence {
    waiting: Mutex<Waiting>,
}

/// What a fence stands behind.
#[derive(Clone, Copy)]
enum Purpose {
    /// Something that the server may refuse.
    Request,
    Ping,
}

#[derive(Default)]
struct Waiting {
    inbox: String,
    next: u64,
    /// By number.
    replies: FxHashMap<u64, (Purpose, Vec<Reply>)>,
    /// The last refusal that the server sent. It names no request, so those hear of it that wait for the next fence.
    complaint: Option<String>,
}

impl Fence {
    /// Takes note of a refusal.
    pub(super) fn complain(&self, what: String) {
        self.waiting.lock().complaint = Some(what);
    }

    fn pass(&self, number: &[u8]) {
        let Ok(number) = <[u8; 8]>::try_from(number) else { return };
        let mut waiting = self.waiting.lock();
        let Some((purpose, replies)) = waiting.replies.remove(&u64::from_be_bytes(number)) else { return };
        let complaint = match purpose {
            Purpose::Request => waiting.complaint.take(),
            Purpose::Ping => None,
        };
        let result = complaint.map_or(Ok(()), |complaint| Err(BusError::Refused(complaint)));
        drop(waiting);
        answer_all(replies, &result);
    }
}

fn answer_all(replies: Vec<Reply>, result: &Result<(), BusError>) {
    for reply in replies {
        // Nobody may be waiting any more.
        let _ = reply.send(result.clone());
    }
}

pub(super) fn closed() -> BusError {
    BusError::Unavailable("the connection was closed".into())
}

fn unavailable(error: impl std::fmt::Display) -> BusError {
    BusError::Unavailable(error.to_string())
}
