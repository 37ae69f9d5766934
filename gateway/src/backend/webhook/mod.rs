//! Webhooks: events as signed HTTP requests (CloudEvents 1.0 in JSON, Standard Webhooks).
//!
//! Owns how events are delivered over HTTP: order, batches, attempts, the breaker, dead letters. What events there are,
//! and what is done with a reply, is told in `events`. One task for each backend sends everything; a request is a future
//! in it.

mod breaker;
mod http;
mod queue;
mod retry;
mod sign;
#[cfg(test)]
mod tests;
mod worker;

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use tokio::sync::{Notify, oneshot};
use tokio::time::{Instant, timeout_at};

use super::events::{Backend, BackendError, CloudEvent, DeadLetters, Reply, SetupError};
use crate::config;
use crate::handler::BoxFuture;
use crate::metrics::{BackendDrop, Metrics};
use crate::outbound;

use self::breaker::{Breaker, State};
use self::http::Endpoint;
use self::queue::{Call, Full, Limits, Queue};
use self::sign::Signer;

/// What a configuration says of a backend.
struct Settings {
    endpoint: Endpoint,
    timeout: Duration,
    breaker_failures: u32,
    breaker_pause: Duration,
    limits: Limits,
}

/// What may change together.
struct Inner {
    queue: Queue,
    breaker: Breaker,
    /// The backend answered 410 to a delivery: it gets no more until the configuration is loaded again.
    is_gone: bool,
    is_draining: bool,
}

/// What the backend's users and its task share.
struct Shared {
    name: String,
    settings: ArcSwap<Settings>,
    inner: Mutex<Inner>,
    /// Rings when there is something to do.
    bell: Notify,
    /// Rings when nothing waits any more.
    empty: Notify,
    metrics: Arc<Metrics>,
    dead_letters: Arc<DeadLetters>,
}

/// A backend that takes webhooks. Its task ends when it is dropped, or drained.
pub(super) struct Webhook {
    shared: Arc<Shared>,
}

impl Settings {
    fn new(name: &str, settings: &config::Backend) -> Result<Self, SetupError> {
        let wrong = |error: String| SetupError::Tls { backend: name.to_owned(), error };
        let url = settings.webhook.as_ref().map(|url| url.expose()).unwrap_or_default();
        let url = url.parse().map_err(|_| wrong("webhook is no URL".to_owned()))?;
        // Each request has a deadline of its own, which comes first.
        let client = outbound::client(settings.ca_file.as_deref(), settings.timeout.saturating_mul(2));
        let client = client.map_err(|error| wrong(error.to_string()))?;
        let (signer, max_reply) = (Signer::new(&settings.secrets), settings.max_reply);
        Ok(Self {
            endpoint: Endpoint { client, url, signer, max_reply },
            timeout: settings.timeout,
            breaker_failures: settings.breaker_failures,
            breaker_pause: settings.breaker_pause,
            limits: Limits {
                items: settings.queue_items,
                bytes: settings.queue_bytes,
                batch_items: settings.batch_items,
                batch_delay: settings.batch_delay,
                concurrency: settings.concurrency,
            },
        })
    }
}

impl Webhook {
    pub(super) fn start(
        name: &str,
        settings: &config::Backend,
        metrics: &Arc<Metrics>,
        dead_letters: &Arc<DeadLetters>,
    ) -> Result<Arc<Self>, SetupError> {
        let settings = Settings::new(name, settings)?;
        let inner = Inner {
            queue: Queue::new(settings.limits),
            breaker: Breaker::new(),
            is_gone: false,
            is_draining: false,
        };
        let shared = Arc::new(Shared {
            name: name.to_owned(),
            settings: ArcSwap::from_pointee(settings),
            inner: Mutex::new(inner),
            bell: Notify::new(),
            empty: Notify::new(),
            metrics: Arc::clone(metrics),
            dead_letters: Arc::clone(dead_letters),
        });
        metrics.backends.queued(name, 0, 0);
        metrics.backends.breaker(name, State::Closed.figure());
        tokio::spawn(worker::run(Arc::clone(&shared)));
        Ok(Arc::new(Self { shared }))
    }
}

impl Shared {
    /// Takes a question in, or says why not.
    fn take_call(&self, call: Call) -> Result<(), BackendError> {
        let now = Instant::now();
        let mut inner = self.inner.lock();
        if inner.is_draining {
            self.metrics.backends.dropped(&self.name, BackendDrop::Draining, 1);
            return Err(BackendError::Unavailable);
        }
        if !inner.breaker.allows(now) {
            self.metrics.backends.dropped(&self.name, BackendDrop::Breaker, 1);
            return Err(BackendError::Unavailable);
        }
        inner.queue.call(call, now).map_err(|full| self.full(full))?;
        Ok(())
    }

    fn take_notice(&self, event: CloudEvent) -> Result<(), BackendError> {
        let mut inner = self.inner.lock();
        if inner.is_gone || inner.is_draining {
            let reason = if inner.is_gone { BackendDrop::Gone } else { BackendDrop::Draining };
            self.metrics.backends.dropped(&self.name, reason, 1);
            return Err(BackendError::Unavailable);
        }
        inner.queue.notice(event, Instant::now()).map_err(|full| self.full(full))?;
        Ok(())
    }

    fn full(&self, full: Full) -> BackendError {
        let reason = match full {
            Full::Items => BackendDrop::QueueItems,
            Full::Bytes => BackendDrop::QueueBytes,
        };
        self.metrics.backends.dropped(&self.name, reason, 1);
        BackendError::Overloaded
    }

    /// Exports what waits.
    fn load(&self, queue: &Queue) {
        let (items, bytes) = queue.load();
        self.metrics.backends.queued(&self.name, items, bytes);
    }
}

impl Backend for Webhook {
    fn call(&self, event: CloudEvent) -> BoxFuture<Result<Reply, BackendError>> {
        let (answer, reply) = oneshot::channel();
        let deadline = Instant::now() + self.shared.settings.load().timeout;
        let taken = self.shared.take_call(Call { event, answer, deadline });
        self.shared.bell.notify_one();
        Box::pin(async move {
            taken?;
            match timeout_at(deadline, reply).await {
                Ok(Ok(reply)) => reply,
                // The task has ended, which it does with the node.
                Ok(Err(_)) => Err(BackendError::Unavailable),
                Err(_) => Err(BackendError::Timeout),
            }
        })
    }

    fn notify(&self, event: CloudEvent) -> Result<(), BackendError> {
        self.shared.take_notice(event)?;
        self.shared.bell.notify_one();
        Ok(())
    }

    fn reload(&self, settings: &config::Backend) -> Result<(), SetupError> {
        let settings = Settings::new(&self.shared.name, settings)?;
        {
            let mut inner = self.shared.inner.lock();
            inner.queue.set_limits(settings.limits);
            inner.is_gone = false;
        }
        self.shared.settings.store(Arc::new(settings));
        self.shared.bell.notify_one();
        Ok(())
    }

    fn drain(&self) -> BoxFuture<()> {
        let shared = Arc::clone(&self.shared);
        Box::pin(async move {
            {
                let mut inner = shared.inner.lock();
                inner.is_draining = true;
                inner.queue.drain(Instant::now());
            }
            shared.bell.notify_one();
            loop {
                let empty = shared.empty.notified();
                if shared.inner.lock().queue.is_empty() {
                    return;
                }
                empty.await;
            }
        })
    }
}

impl Drop for Webhook {
    fn drop(&mut self) {
        let mut inner = self.shared.inner.lock();
        inner.is_draining = true;
        inner.queue.drain(Instant::now());
        drop(inner);
        self.shared.bell.notify_one();
    }
}
