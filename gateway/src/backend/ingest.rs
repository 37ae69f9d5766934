//! What the ways in over a broker have in common: they are counted alike, and their links are made again and again.
//!
//! Owns the names of these ways and the pace of reconnecting. A way in that is down is shown by its figures; clients and
//! the other ways go on.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use crate::metrics::Metrics;

/// The shortest wait before a link is made again.
const RECONNECT_MIN: Duration = Duration::from_millis(100);
/// The longest, while a broker is away.
const RECONNECT_MAX: Duration = Duration::from_secs(2);
/// The wait after a refusal, which passes only when somebody changes something.
const REFUSED_WAIT: Duration = Duration::from_secs(10);
/// A link that stood so long was a good one.
const PROVEN: Duration = Duration::from_secs(10);

/// A way in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Source {
    RedisEmitter,
    RedisStream,
    Nats,
}

impl Source {
    fn as_str(self) -> &'static str {
        match self {
            Self::RedisEmitter => "redis_emitter",
            Self::RedisStream => "redis_stream",
            Self::Nats => "nats",
        }
    }
}

/// Counts what comes by one way in.
#[derive(Clone)]
pub(crate) struct Tally {
    metrics: Arc<Metrics>,
    source: Source,
}

impl Tally {
    pub(crate) fn new(metrics: &Arc<Metrics>, source: Source) -> Self {
        let tally = Self { metrics: Arc::clone(metrics), source };
        tally.up(false);
        tally
    }

    /// A message, by what became of it: a word of a closed set.
    pub(crate) fn count(&self, result: &'static str) {
        self.metrics.ingested(self.source.as_str(), result);
    }

    pub(crate) fn up(&self, up: bool) {
        self.metrics.set_ingest_up(self.source.as_str(), up);
    }
}

/// Why a link ended, or was not made.
pub(crate) struct Lost {
    pub(crate) reason: String,
    /// Trying again soon will not help.
    pub(crate) refused: bool,
}

impl Lost {
    /// The node stops, and wants no other.
    pub(crate) fn stopped() -> Self {
        Self { reason: "the node stops".to_owned(), refused: false }
    }
}

/// Makes a link again and again, and has it used, until `stop` says so. `link` returns when the link is lost or is not
/// wanted any more, and counts it as up meanwhile.
pub(crate) async fn keep<F: Future<Output = Lost>>(
    tally: &Tally,
    mut stop: watch::Receiver<bool>,
    mut link: impl FnMut() -> F,
) {
    let (mut wait, mut told) = (RECONNECT_MIN, String::new());
    loop {
        let began = tokio::time::Instant::now();
        let Lost { reason, refused } = link().await;
        tally.up(false);
        if *stop.borrow() {
            return;
        }
        tally.count("link_lost");
        if began.elapsed() > PROVEN {
            (wait, told) = (RECONNECT_MIN, String::new());
        }
        // The same reason again and again is told once.
        if told != reason {
            tracing::warn!(source = tally.source.as_str(), reason, "the link of a way in is down");
            told = reason;
        }
        let pause = if refused { REFUSED_WAIT } else { wait.mul_f64(rand::random_range(0.5..1.0)) };
        // An error says that whoever could stop it is gone.
        if tokio::time::timeout(pause, stop.wait_for(|stop| *stop)).await.is_ok() {
            return;
        }
        wait = (wait * 2).min(RECONNECT_MAX);
    }
}
