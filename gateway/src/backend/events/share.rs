//! Connect checks that are the same, asked once. When a node comes back, thousands of clients ask the same at once.
//!
//! Owns what "the same" means, which is everything that the backend would be told but the socket's id and port, and for
//! how long an answer holds. Off unless it is configured: a backend that counts its calls, or lets a token in once, must
//! be asked for each client.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::future::Shared;
use parking_lot::Mutex;
use sha2::{Digest as _, Sha256};
use tokio::time::Instant;

use super::event::Asking;
use super::{BackendError, Reply};
use crate::backend::clients::Member;
use crate::handler::BoxFuture;
use crate::namespace::Socket;

/// Answers that are kept at once. With more, further checks are asked each by itself.
const MAX_FLIGHTS: usize = 10_000;

type Answer = Result<Arc<Reply>, BackendError>;
/// What a check is about, as a hash: auth payloads are secret and may be long.
pub(super) type Key = [u8; 32];

struct Flight {
    answer: Shared<BoxFuture<Answer>>,
    began: Instant,
}

#[derive(Default)]
struct Flights {
    by_key: HashMap<Key, Flight>,
    /// In the order in which they end.
    ends: VecDeque<(Instant, Key)>,
}

/// The checks that are being made, or were made just now.
#[derive(Default)]
pub(super) struct Checks {
    flights: Mutex<Flights>,
}

/// What a check is about.
pub(super) fn key(backend: &str, socket: &Socket, asking: &Asking) -> Key {
    let member = Member::of(socket);
    let peer = socket.handshake().address().map(|address| address.ip().to_string());
    let about = serde_json::json!([
        backend,
        &**socket.namespace_inner().name(),
        socket.auth_json(),
        &asking.headers,
        &asking.query,
        peer,
        member.as_ref().and_then(|member| member.user.as_deref()),
        member.as_ref().and_then(|member| member.claims.as_deref()),
        socket.handshake().header("traceparent"),
    ]);
    Sha256::digest(about.to_string().as_bytes()).into()
}

impl Checks {
    /// Asks, unless the same is being asked or was answered less than `window` ago.
    pub(super) async fn ask(
        &self,
        key: Key,
        window: Duration,
        now: Instant,
        ask: impl FnOnce() -> BoxFuture<Result<Reply, BackendError>>,
    ) -> Answer {
        let (answer, began) = {
            let mut flights = self.flights.lock();
            flights.forget(now);
            match flights.by_key.get(&key) {
                Some(flight) => (flight.answer.clone(), flight.began),
                None => {
                    let asked = ask();
                    let asked: BoxFuture<Answer> = Box::pin(async move { asked.await.map(Arc::new) });
                    let answer = asked.shared();
                    if flights.by_key.len() < MAX_FLIGHTS {
                        flights.by_key.insert(key, Flight { answer: answer.clone(), began: now });
                        flights.ends.push_back((now + window, key));
                    }
                    (answer, now)
                }
            }
        };
        let answer = answer.await;
        // A fault of the backend is not an answer: who comes next asks anew.
        if matches!(&answer, Err(error) if !matches!(error, BackendError::Refused(_))) {
            let mut flights = self.flights.lock();
            if flights.by_key.get(&key).is_some_and(|flight| flight.began == began) {
                flights.by_key.remove(&key);
            }
        }
        answer
    }
}

impl Flights {
    /// Forgets answers that are old. One that has not come yet is waited for by those who asked; who comes now asks anew.
    fn forget(&mut self, now: Instant) {
        while let Some((end, key)) = self.ends.front().filter(|(end, _)| *end <= now).copied() {
            self.ends.pop_front();
            if self.by_key.get(&key).is_some_and(|flight| flight.began < end) {
                self.by_key.remove(&key);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use tokio::sync::Notify;

    use super::super::Refusal;
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[derive(Default)]
    struct Backend {
        asked: Arc<AtomicUsize>,
        hold: Arc<Notify>,
    }

    impl Backend {
        fn ask(&self, result: Result<Reply, BackendError>) -> BoxFuture<Result<Reply, BackendError>> {
            self.asked.fetch_add(1, Ordering::Relaxed);
            let hold = Arc::clone(&self.hold);
            Box::pin(async move {
                hold.notified().await;
                result
            })
        }

        fn asked(&self) -> usize {
            self.asked.load(Ordering::Relaxed)
        }
    }

    #[tokio::test]
    async fn a_storm_asks_once_and_the_answer_holds_for_the_window() {
        let (checks, backend) = (Checks::default(), Backend::default());
        let start = Instant::now();
        let ask = |key: u8, after: Duration| {
            checks.ask([key; 32], SECOND, start + after, || backend.ask(Ok(Reply::default())))
        };
        let storm = futures_util::future::join_all((0..1_000).map(|_| ask(1, Duration::ZERO)));
        let (answers, ()) = tokio::join!(storm, async { backend.hold.notify_one() });
        assert!(answers.iter().all(Result::is_ok));
        assert_eq!(backend.asked(), 1);
        assert!(ask(1, SECOND / 2).await.is_ok() && backend.asked() == 1, "shortly after");
        backend.hold.notify_one();
        assert!(ask(2, SECOND / 2).await.is_ok() && backend.asked() == 2, "another question");
        backend.hold.notify_one();
        assert!(ask(1, SECOND * 2).await.is_ok() && backend.asked() == 3, "later");
        assert_eq!(checks.flights.lock().by_key.len(), 1, "old answers are let go");
    }

    #[tokio::test]
    async fn a_refusal_is_an_answer_and_a_fault_is_none() {
        let (checks, backend) = (Checks::default(), Backend::default());
        let now = Instant::now();
        let refusal = BackendError::Refused(Box::new(Refusal::read(403, b"")));
        for (key, error, asked_anew) in [(1, refusal, false), (2, BackendError::Timeout, true)] {
            let before = backend.asked();
            for _ in 0..2 {
                backend.hold.notify_one();
                let answer = checks.ask([key; 32], SECOND, now, || backend.ask(Err(error.clone()))).await;
                assert_eq!(answer.unwrap_err(), error);
            }
            assert_eq!(backend.asked() - before, if asked_anew { 2 } else { 1 });
            // What rang for nobody.
            let _ = backend.hold.notified().now_or_never();
        }
    }

    #[tokio::test]
    async fn who_asked_first_may_go_away() {
        let (checks, backend) = (Checks::default(), Backend::default());
        let now = Instant::now();
        let ask = || checks.ask([1; 32], SECOND, now, || backend.ask(Ok(Reply::default())));
        assert!(ask().now_or_never().is_none());
        backend.hold.notify_one();
        assert!(ask().await.is_ok());
        assert_eq!(backend.asked(), 1);
    }
}
