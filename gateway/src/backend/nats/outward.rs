//! Events for backends that listen on NATS.
//!
//! Owns one queue for each backend of the configuration, its connection to the order of calls, and the replies. An event
//! counts as delivered when the server has it: whether somebody listens, only a call finds out. What was not confirmed
//! when a connection broke is published again, with the same `Nats-Msg-Id`.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use async_nats::{HeaderMap, Message, StatusCode, Subscriber};
use bytes::Bytes;
use futures_util::StreamExt as _;
use parking_lot::Mutex;
use roomcast_adapter::nats::subject_token;
use tokio::sync::{mpsc, oneshot, watch};

use super::NatsLink;
use crate::backend::events::{
    Backend, BackendError, CloudEvent, DeadLetter, DeadLetters, Kind, Reason, Reply, SetupError,
};
use crate::config;
use crate::handler::BoxFuture;
use crate::metrics::{BackendDrop, Metrics};

/// How long the server may take to have what was published.
const CONFIRM_TIMEOUT: Duration = Duration::from_secs(2);
/// The pause before events are published again.
const RETRY: Duration = Duration::from_millis(200);
/// For how long events are published again.
const GIVE_UP: Duration = Duration::from_secs(300);
/// Events that wait at most, whatever the configuration says later.
const MAX_QUEUE: usize = 1 << 20;

/// A backend that listens on NATS.
pub(crate) struct NatsBackend {
    shared: Arc<Shared>,
    /// Gone when the backend is drained.
    queue: Mutex<Option<mpsc::Sender<Item>>>,
    done: watch::Receiver<bool>,
}

struct Shared {
    name: Arc<str>,
    link: NatsLink,
    settings: ArcSwap<config::Backend>,
    metrics: Arc<Metrics>,
    dead_letters: Arc<DeadLetters>,
    waiting: AtomicUsize,
    waiting_bytes: AtomicUsize,
    closing: watch::Sender<bool>,
    /// Where replies come: the last token is a number of a call.
    inbox: String,
    calls: Mutex<Calls>,
}

#[derive(Default)]
struct Calls {
    last: u64,
    open: HashMap<u64, oneshot::Sender<Message>>,
}

struct Item {
    event: CloudEvent,
    /// Of a call.
    number: Option<u64>,
}

impl NatsBackend {
    pub(crate) fn start(
        name: &str,
        settings: &config::Backend,
        link: &NatsLink,
        metrics: &Arc<Metrics>,
        dead_letters: &Arc<DeadLetters>,
    ) -> Arc<Self> {
        let shared = Arc::new(Shared {
            name: name.into(),
            link: link.clone(),
            settings: ArcSwap::from_pointee(settings.clone()),
            metrics: Arc::clone(metrics),
            dead_letters: Arc::clone(dead_letters),
            waiting: AtomicUsize::new(0),
            waiting_bytes: AtomicUsize::new(0),
            closing: watch::Sender::new(false),
            inbox: link.client.new_inbox(),
            calls: Mutex::default(),
        });
        // The bound that counts is that of the settings, which may change.
        let (queue, items) = mpsc::channel(MAX_QUEUE);
        let (finish, done) = watch::channel(false);
        let working = Arc::clone(&shared);
        tokio::spawn(async move {
            working.work(items).await;
            finish.send_replace(true);
        });
        Arc::new(Self { shared, queue: Mutex::new(Some(queue)), done })
    }

    fn queue(&self, event: CloudEvent, number: Option<u64>) -> Result<(), BackendError> {
        let shared = &self.shared;
        let (settings, bytes) = (shared.settings.load(), event.json.len());
        let (items, held) =
            (shared.waiting.load(Ordering::Relaxed), shared.waiting_bytes.load(Ordering::Relaxed));
        let over = match () {
            () if items >= settings.queue_items => Some(BackendDrop::QueueItems),
            () if held.saturating_add(bytes) > settings.queue_bytes => Some(BackendDrop::QueueBytes),
            () => None,
        };
        if let Some(reason) = over {
            shared.metrics.backends.dropped(&shared.name, reason, 1);
            return Err(BackendError::Overloaded);
        }
        let queue = self.queue.lock();
        let Some(queue) = queue.as_ref() else {
            shared.metrics.backends.dropped(&shared.name, BackendDrop::Draining, 1);
            return Err(BackendError::Unavailable);
        };
        shared.count(1, bytes);
        queue.try_send(Item { event, number }).map_err(|_| {
            shared.uncount(1, bytes);
            BackendError::Overloaded
        })
    }
}

impl Backend for NatsBackend {
    fn call(&self, event: CloudEvent) -> BoxFuture<Result<Reply, BackendError>> {
        let shared = Arc::clone(&self.shared);
        let began = Instant::now();
        let sent = if shared.link.is_up() { Ok(()) } else { Err(BackendError::Unavailable) };
        let sent = sent.and_then(|()| {
            let (number, reply) = shared.begin_call();
            self.queue(event, Some(number))
                .map(|()| (OpenCall { shared: Arc::clone(&shared), number }, reply))
        });
        Box::pin(async move {
            let result = match sent {
                Ok((open, reply)) => {
                    let result = shared.wait(reply).await;
                    drop(open);
                    result
                }
                Err(error) => Err(error),
            };
            let word = result.as_ref().map_or_else(BackendError::kind, |_| "ok");
            shared.metrics.backends.request(&shared.name, "call", word, began.elapsed());
            result
        })
    }

    fn notify(&self, event: CloudEvent) -> Result<(), BackendError> {
        self.queue(event, None)
    }

    fn reload(&self, settings: &config::Backend) -> Result<(), SetupError> {
        self.shared.settings.store(Arc::new(settings.clone()));
        Ok(())
    }

    fn drain(&self) -> BoxFuture<()> {
        drop(self.queue.lock().take());
        self.shared.closing.send_replace(true);
        let mut done = self.done.clone();
        Box::pin(async move {
            let _ = done.wait_for(|done| *done).await;
        })
    }
}

/// Forgets a call when nobody waits for it any more.
struct OpenCall {
    shared: Arc<Shared>,
    number: u64,
}

impl Drop for OpenCall {
    fn drop(&mut self) {
        self.shared.calls.lock().open.remove(&self.number);
    }
}

impl Shared {
    fn begin_call(&self) -> (u64, oneshot::Receiver<Message>) {
        let (sender, receiver) = oneshot::channel();
        let mut calls = self.calls.lock();
        calls.last += 1;
        let number = calls.last;
        calls.open.insert(number, sender);
        (number, receiver)
    }

    async fn wait(&self, reply: oneshot::Receiver<Message>) -> Result<Reply, BackendError> {
        let settings = self.settings.load_full();
        let message = match tokio::time::timeout(settings.timeout, reply).await {
            Ok(Ok(message)) => message,
            Ok(Err(_)) => return Err(BackendError::Unavailable),
            Err(_) => return Err(BackendError::Timeout),
        };
        if message.status == Some(StatusCode::NO_RESPONDERS) {
            return Err(BackendError::NoResponders);
        }
        if message.payload.len() > settings.max_reply {
            let text = format!("it is longer than {} bytes", settings.max_reply);
            return Err(BackendError::InvalidReply(text));
        }
        Reply::parse(&message.payload)
    }

    fn count(&self, items: usize, bytes: usize) {
        self.waiting.fetch_add(items, Ordering::Relaxed);
        self.waiting_bytes.fetch_add(bytes, Ordering::Relaxed);
        self.show_queue();
    }

    fn uncount(&self, items: usize, bytes: usize) {
        self.waiting.fetch_sub(items, Ordering::Relaxed);
        self.waiting_bytes.fetch_sub(bytes, Ordering::Relaxed);
        self.show_queue();
    }

    fn show_queue(&self) {
        let (items, bytes) =
            (self.waiting.load(Ordering::Relaxed), self.waiting_bytes.load(Ordering::Relaxed));
        self.metrics.backends.queued(&self.name, items, bytes);
    }

    /// Publishes what is queued, in its order, until the backend is drained.
    async fn work(self: Arc<Self>, mut items: mpsc::Receiver<Item>) {
        let inbox = match self.link.client.subscribe(format!("{}.*", self.inbox)).await {
            Ok(inbox) => inbox,
            Err(error) => return tracing::error!(%error, backend = %self.name, "no replies can come"),
        };
        // Replies come while the next events are published.
        let reading = tokio::spawn(Arc::clone(&self).read_replies(inbox));
        let mut batch = Vec::new();
        loop {
            let most = self.settings.load().batch_items.max(1);
            if items.recv_many(&mut batch, most).await == 0 {
                break;
            }
            let (count, bytes) = (batch.len(), batch.iter().map(|item| item.event.json.len()).sum());
            self.deliver(std::mem::take(&mut batch)).await;
            self.uncount(count, bytes);
        }
        reading.abort();
    }

    async fn read_replies(self: Arc<Self>, mut inbox: Subscriber) {
        while let Some(message) = inbox.next().await {
            let number = message.subject.rsplit('.').next().and_then(|token| token.parse().ok());
            let waiting = number.and_then(|number: u64| self.calls.lock().open.remove(&number));
            if let Some(waiting) = waiting {
                // Whoever asked may have given up.
                let _ = waiting.send(message);
            }
        }
    }

    async fn deliver(&self, items: Vec<Item>) {
        let began = Instant::now();
        let mut open = items;
        loop {
            self.until_up(began).await;
            // What the client took now it would publish later, and we with it.
            if !self.link.is_up() {
                if !self.is_closing() {
                    return self.bury(open);
                }
                // Dead letters would not outlive the node.
                let lost = open.iter().filter(|item| item.number.is_none()).count() as u64;
                tracing::warn!(backend = %self.name, lost, "the node stops without NATS: events are lost");
                return self.metrics.backends.dropped(&self.name, BackendDrop::Draining, lost);
            }
            self.publish_all(&mut open).await;
            if open.iter().all(|item| item.number.is_some()) {
                // Nobody calls twice: a call that was not confirmed runs into its time.
                return;
            }
            if self.confirm().await {
                for item in open.iter().filter(|item| item.number.is_none()) {
                    self.metrics.backends.taken(&self.name, item.event.kind.as_str());
                }
                return self.metrics.backends.request(&self.name, "delivery", "ok", began.elapsed());
            }
            self.metrics.backends.request(&self.name, "delivery", "backend_unavailable", began.elapsed());
            open.retain(|item| item.number.is_none());
            if began.elapsed() > GIVE_UP {
                return self.bury(open);
            }
            self.metrics.backends.retry(&self.name);
            tokio::time::sleep(RETRY).await;
        }
    }

    /// Waits for the connection, for as long as it is worth it.
    async fn until_up(&self, began: Instant) {
        let mut closing = self.closing.subscribe();
        tokio::select! {
            () = self.link.until_up() => {}
            _ = closing.wait_for(|closing| *closing) => {}
            () = tokio::time::sleep(GIVE_UP.saturating_sub(began.elapsed())) => {}
        }
    }

    fn is_closing(&self) -> bool {
        *self.closing.borrow()
    }

    fn bury(&self, items: Vec<Item>) {
        for item in items.into_iter().filter(|item| item.number.is_none()) {
            self.dead_letters.add(DeadLetter::new(&self.name, item.event, Reason::Exhausted, 1));
        }
    }

    /// What can never be published is let go.
    async fn publish_all(&self, items: &mut Vec<Item>) {
        let mut kept = Vec::with_capacity(items.len());
        for item in items.drain(..) {
            let is_given_up = item.number.is_some_and(|number| !self.calls.lock().open.contains_key(&number));
            if is_given_up {
                continue;
            }
            match self.publish(&item).await {
                Ok(()) => kept.push(item),
                Err(error) => {
                    tracing::warn!(%error, backend = %self.name, "an event cannot be published");
                    match item.number {
                        // Whoever waits learns it at once.
                        Some(number) => drop(self.calls.lock().open.remove(&number)),
                        None => self.bury(vec![item]),
                    }
                }
            }
        }
        *items = kept;
    }

    async fn publish(&self, item: &Item) -> Result<(), async_nats::PublishError> {
        let (client, event) = (&self.link.client, &item.event);
        let (subject, headers) = (subject_of(&self.link.prefix, event), headers_of(event));
        let payload = Bytes::copy_from_slice(event.json.as_bytes());
        match item.number {
            Some(number) => {
                let reply = format!("{}.{number}", self.inbox);
                client.publish_with_reply_and_headers(subject, reply, headers, payload).await
            }
            None => client.publish_with_headers(subject, headers, payload).await,
        }
    }

    /// Whether the server has everything that was published: it handles what a connection sends in its order, so a
    /// message to ourselves comes back behind that.
    async fn confirm(&self) -> bool {
        let (number, came) = self.begin_call();
        let sent = self.link.client.publish(format!("{}.{number}", self.inbox), Bytes::new()).await;
        let is_there = sent.is_ok() && matches!(tokio::time::timeout(CONFIRM_TIMEOUT, came).await, Ok(Ok(_)));
        self.calls.lock().open.remove(&number);
        is_there
    }
}

/// Where an event goes.
fn subject_of(prefix: &str, event: &CloudEvent) -> String {
    match event.kind {
        Kind::Connect => format!("{prefix}.in.connect"),
        Kind::Join => format!("{prefix}.in.join"),
        Kind::Connected => format!("{prefix}.in.sys.connected"),
        Kind::Disconnected => format!("{prefix}.in.sys.disconnected"),
        Kind::Occupied => format!("{prefix}.in.sys.occupied"),
        Kind::Vacated => format!("{prefix}.in.sys.vacated"),
        Kind::Event => {
            let name = event.event.as_deref().unwrap_or_default();
            format!("{prefix}.in.event.{}.{}", subject_token(&event.namespace), subject_token(name))
        }
    }
}

fn headers_of(event: &CloudEvent) -> HeaderMap {
    let mut headers = HeaderMap::new();
    headers.insert("Nats-Msg-Id", subject_token(&event.id).as_str());
    headers.insert("Roomcast-Namespace", subject_token(&event.namespace).as_str());
    if let Some(socket) = &event.socket {
        headers.insert("Roomcast-Socket", socket.as_str());
    }
    if let Some(user) = &event.user {
        headers.insert("Roomcast-User", subject_token(user).as_str());
    }
    if let Some(trace) = &event.trace {
        headers.insert("traceparent", trace.to_string().as_str());
    }
    headers
}
