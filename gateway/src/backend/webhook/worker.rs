//! The task of one backend: takes from the queue what can be sent, sends it, and decides what its outcome means.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use tokio::time::{Instant, sleep_until, timeout_at};

use super::http::{BATCH, Body, Outcome, Request, SINGLE};
use super::queue::{Batch, Call, Sending};
use super::{Shared, retry, sign};
use crate::backend::events::{BackendError, DeadLetter, Reason, Refusal, Reply};
use crate::handler::BoxFuture;
use crate::metrics::BackendDrop;

/// The longest pause before a further attempt when the backend or the node is going away.
const DRAINING_PAUSE: Duration = Duration::from_secs(2);

/// What has to be done when a request is over.
enum Finished {
    Call(Box<(Call, Result<Reply, BackendError>)>, Health),
    Batch(Batch, Verdict, Health),
}

/// What a request says of the backend's state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Health {
    /// It answers.
    Well,
    /// It does not, or says that it has a fault.
    Ill,
}

/// What became of a delivery.
#[derive(Debug)]
enum Verdict {
    Taken,
    /// 410: nothing more, please.
    Gone,
    Failed {
        retry_after: Option<Duration>,
    },
}

/// Sends until the backend is drained.
pub(super) async fn run(shared: Arc<Shared>) {
    let mut sent: FuturesUnordered<BoxFuture<Finished>> = FuturesUnordered::new();
    loop {
        let wake_at = shared.start(&mut sent);
        if shared.is_over() {
            shared.empty.notify_waiters();
            return;
        }
        let woken = async {
            match wake_at {
                Some(at) => sleep_until(at).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = shared.bell.notified() => {}
            () = woken => {}
            Some(finished) = sent.next() => shared.finish(finished),
        }
    }
}

impl Shared {
    fn is_over(&self) -> bool {
        let inner = self.inner.lock();
        inner.is_draining && inner.queue.is_empty()
    }

    /// Starts what can be sent. When to look again, if nothing else happens.
    fn start(self: &Arc<Self>, sent: &mut FuturesUnordered<BoxFuture<Finished>>) -> Option<Instant> {
        let mut failed = Vec::new();
        let wake_at = loop {
            let now = Instant::now();
            let mut inner = self.inner.lock();
            if !inner.breaker.allows(now) {
                // Clients do not wait until the backend is well again.
                failed.extend(inner.queue.fail_calls(now));
                break inner.breaker.deadline().filter(|_| !inner.queue.is_empty());
            }
            let Some(sending) = inner.queue.next(now, sign::message_id) else { break inner.queue.deadline() };
            inner.breaker.sent();
            drop(inner);
            let shared = Arc::clone(self);
            sent.push(match sending {
                Sending::Call(call) => Box::pin(async move { shared.ask(call).await }),
                Sending::Batch(batch) => Box::pin(async move { shared.deliver(batch).await }),
            });
        };
        let inner = self.inner.lock();
        self.load(&inner.queue);
        self.metrics.backends.breaker(&self.name, inner.breaker.state().figure());
        drop(inner);
        for call in failed {
            self.metrics.backends.dropped(&self.name, BackendDrop::Breaker, 1);
            let _ = call.answer.send(Err(BackendError::Unavailable));
        }
        wake_at
    }

    /// Asks. Once more only if the connection failed before anything was sent: the backend must not act twice.
    async fn ask(&self, call: Call) -> Finished {
        let settings = self.settings.load_full();
        let began = Instant::now();
        let request = Request {
            message: sign::message_id().into(),
            kind: SINGLE,
            body: Bytes::copy_from_slice(call.event.json.as_bytes()),
            trace: call.event.trace,
        };
        let sending = async {
            match settings.endpoint.send(&request).await {
                Outcome::NotSent => {
                    self.metrics.backends.retry(&self.name);
                    settings.endpoint.send(&request).await
                }
                outcome => outcome,
            }
        };
        let outcome = timeout_at(call.deadline, sending).await;
        let (reply, health) = match outcome {
            Err(_) => (Err(BackendError::Timeout), Health::Ill),
            Ok(Outcome::NotSent | Outcome::Lost) => (Err(BackendError::Unavailable), Health::Ill),
            Ok(Outcome::Answer { status, body, .. }) => read_reply(status, &body),
        };
        let result = reply.as_ref().map_or_else(BackendError::kind, |_| "ok");
        self.metrics.backends.request(&self.name, "call", result, began.elapsed());
        Finished::Call(Box::new((call, reply)), health)
    }

    async fn deliver(&self, batch: Batch) -> Finished {
        let settings = self.settings.load_full();
        let began = Instant::now();
        let request =
            Request { message: Arc::clone(&batch.message), kind: BATCH, body: body_of(&batch), trace: None };
        let outcome = timeout_at(began + settings.timeout, settings.endpoint.send(&request)).await;
        let (verdict, health, result) = match outcome {
            Err(_) => (Verdict::Failed { retry_after: None }, Health::Ill, "backend_timeout"),
            Ok(Outcome::NotSent | Outcome::Lost) => {
                (Verdict::Failed { retry_after: None }, Health::Ill, "backend_unavailable")
            }
            Ok(Outcome::Answer { status: 200..=299, .. }) => (Verdict::Taken, Health::Well, "ok"),
            Ok(Outcome::Answer { status: 410, .. }) => (Verdict::Gone, Health::Well, "gone"),
            Ok(Outcome::Answer { status: 400..=499, retry_after, .. }) => {
                (Verdict::Failed { retry_after }, Health::Well, "refused")
            }
            Ok(Outcome::Answer { retry_after, .. }) => {
                (Verdict::Failed { retry_after }, Health::Ill, "backend_failed")
            }
        };
        self.metrics.backends.request(&self.name, "delivery", result, began.elapsed());
        Finished::Batch(batch, verdict, health)
    }

    fn finish(&self, finished: Finished) {
        let (now, settings) = (Instant::now(), self.settings.load());
        let mut inner = self.inner.lock();
        let health = match &finished {
            Finished::Call(.., health) | Finished::Batch(.., health) => *health,
        };
        match health {
            Health::Well => inner.breaker.succeeded(),
            Health::Ill => inner.breaker.failed(now, settings.breaker_failures, settings.breaker_pause),
        }
        let (mut letters, mut answer) = (Vec::new(), None);
        match finished {
            Finished::Call(done, _) => {
                let (call, reply) = *done;
                inner.queue.call_done(&call.event, now);
                if reply.is_ok() {
                    self.metrics.backends.taken(&self.name, call.event.kind.as_str());
                }
                answer = Some((call.answer, reply));
            }
            Finished::Batch(batch, Verdict::Taken, _) => {
                inner.queue.batch_done(&batch, now);
                for event in &batch.events {
                    self.metrics.backends.taken(&self.name, event.kind.as_str());
                }
            }
            Finished::Batch(batch, Verdict::Gone, _) => {
                if !std::mem::replace(&mut inner.is_gone, true) {
                    tracing::warn!(backend = self.name, "a backend answered 410: it gets no more deliveries");
                }
                inner.queue.batch_done(&batch, now);
                letters.extend(letters_of(&self.name, batch, Reason::Gone));
                let others = inner.queue.take_notices().into_iter();
                letters.extend(
                    others
                        .map(|(event, attempts)| DeadLetter::new(&self.name, event, Reason::Gone, attempts)),
                );
            }
            Finished::Batch(batch, Verdict::Failed { retry_after }, _) => {
                let pause = retry::pause(
                    batch.attempts + 1,
                    now.saturating_duration_since(batch.began),
                    retry_after,
                    rand::random(),
                );
                let is_worth_it = |pause: &Duration| !inner.is_draining || *pause <= DRAINING_PAUSE;
                match pause.filter(|_| !inner.is_gone).filter(is_worth_it) {
                    Some(pause) => {
                        if let Some(asked) = retry_after {
                            inner.queue.pause(now + asked.min(retry::GIVE_UP_AFTER));
                        }
                        self.metrics.backends.retry(&self.name);
                        inner.queue.retry(batch, now + pause, now);
                    }
                    None => {
                        inner.queue.batch_done(&batch, now);
                        letters.extend(letters_of(&self.name, batch, Reason::Exhausted));
                    }
                }
            }
        }
        let is_empty = inner.queue.is_empty();
        drop(inner);
        letters.into_iter().for_each(|letter| self.dead_letters.add(letter));
        if let Some((answer, reply)) = answer {
            let _ = answer.send(reply);
        }
        if is_empty {
            self.empty.notify_waiters();
        }
    }
}

/// What an answer to a call means.
fn read_reply(status: u16, body: &Body) -> (Result<Reply, BackendError>, Health) {
    match (status, body) {
        (200..=299, Body::Whole(body)) => (Reply::parse(body), Health::Well),
        (200..=299, Body::Unreadable) => {
            let error = BackendError::InvalidReply("it is too long, or broke off".to_owned());
            (Err(error), Health::Well)
        }
        (400..=499, body) => {
            let body = match body {
                Body::Whole(body) => &body[..],
                Body::Unreadable => &[],
            };
            (Err(BackendError::Refused(Box::new(Refusal::read(status, body)))), Health::Well)
        }
        (status, _) => (Err(BackendError::Failed(status)), Health::Ill),
    }
}

fn letters_of(backend: &str, batch: Batch, reason: Reason) -> impl Iterator<Item = DeadLetter> {
    let attempts = batch.attempts + 1;
    batch.events.into_iter().map(move |event| DeadLetter::new(backend, event, reason, attempts))
}

/// The events as a JSON array (CloudEvents, "JSON Batch Format").
fn body_of(batch: &Batch) -> Bytes {
    let length = batch.events.iter().map(|event| event.json.len() + 1).sum::<usize>() + 1;
    let mut body = Vec::with_capacity(length);
    for event in &batch.events {
        body.push(if body.is_empty() { b'[' } else { b',' });
        body.extend_from_slice(event.json.as_bytes());
    }
    body.push(b']');
    body.into()
}
