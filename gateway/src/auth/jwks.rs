//! The keys of an issuer, kept fresh: one task asks for them, everybody else looks at what it has.
//!
//! Owns when the issuer is asked, with bounds on time and size, and that its keys are kept while it is away. How a key is
//! read is told in `keys`.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwapOption;
use futures_util::FutureExt as _;
use parking_lot::Mutex;
use tokio::sync::{Notify, watch};
use tokio::task::AbortHandle;
use tokio::time::Instant;

use super::AuthError;
use super::keys::{Key, from_jwks};
use crate::config::Jwt;
use crate::metrics::{JwksFetch, Metrics};
use crate::outbound;

/// After a failure the issuer is asked again after this time, then after twice as long, up to `MAX_RETRY`.
const FIRST_RETRY: Duration = Duration::from_secs(1);
const MAX_RETRY: Duration = Duration::from_secs(30);

/// The keys of one issuer. The task that asks for them ends with this.
pub(super) struct Jwks {
    shared: Arc<Shared>,
    task: AbortHandle,
}

struct Shared {
    url: String,
    max_bytes: usize,
    refresh: Duration,
    cooldown: Duration,
    keys: ArcSwapOption<Vec<Key>>,
    turn: Mutex<Turn>,
    /// Somebody has a token whose key is not known.
    wanted: Notify,
    /// How often the issuer was asked to the end.
    asked: watch::Sender<u64>,
    metrics: Arc<Metrics>,
}

#[derive(Default)]
struct Turn {
    /// The issuer is being asked.
    asking: bool,
    /// When it was asked last.
    began: Option<Instant>,
    /// It did not answer, or not with keys.
    failed: bool,
}

impl Jwks {
    /// Begins to ask the issuer, if one is configured. That it is away is no failure: it may come.
    pub(super) fn start(jwt: &Jwt, metrics: &Arc<Metrics>) -> Option<Arc<Self>> {
        let url = jwt.jwks_url.clone()?;
        if url.starts_with("http://")
            && !url.starts_with("http://127.")
            && !url.starts_with("http://localhost")
        {
            tracing::warn!("auth.jwt.jwks_url is no https: whoever can change its answer can make tokens");
        }
        let shared = Arc::new(Shared {
            url,
            max_bytes: jwt.jwks_max_bytes,
            refresh: jwt.jwks_refresh,
            cooldown: jwt.jwks_cooldown,
            keys: ArcSwapOption::empty(),
            // The task asks at once.
            turn: Mutex::new(Turn { asking: true, ..Turn::default() }),
            wanted: Notify::new(),
            asked: watch::Sender::new(0),
            metrics: Arc::clone(metrics),
        });
        let keep = keep_fresh(Arc::clone(&shared), jwt.jwks_ca_file.clone(), jwt.jwks_timeout);
        let task = tokio::spawn(keep).abort_handle();
        Some(Arc::new(Self { shared, task }))
    }

    /// The keys that are known. `None`: the issuer never answered.
    pub(super) fn keys(&self) -> Option<Arc<Vec<Key>>> {
        self.shared.keys.load_full()
    }

    /// The keys after the issuer was asked once more, unless that was done a moment ago.
    pub(super) async fn ask_again(&self) -> Result<Arc<Vec<Key>>, AuthError> {
        let shared = &self.shared;
        let mut asked = shared.asked.subscribe();
        let (wait, wake) = {
            let mut turn = shared.turn.lock();
            let rested = turn.began.is_none_or(|began| began.elapsed() >= shared.cooldown);
            let wake = !turn.asking && rested;
            turn.asking |= wake;
            (turn.asking, wake)
        };
        if wake {
            shared.wanted.notify_one();
        }
        if wait {
            // Bounded by the timeout of the request; an error says that the task is gone, with its verifier.
            let _ = asked.changed().await;
        }
        let keys = self.keys().ok_or(AuthError::KeysUnavailable)?;
        if shared.turn.lock().failed { Err(AuthError::KeysUnavailable) } else { Ok(keys) }
    }
}

impl Drop for Jwks {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn keep_fresh(shared: Arc<Shared>, ca_file: Option<std::path::PathBuf>, timeout: Duration) {
    let mut retry = FIRST_RETRY;
    loop {
        shared.turn.lock().began = Some(Instant::now());
        let result = shared.ask(ca_file.as_deref(), timeout).await;
        let failed = result.is_err();
        shared.metrics.jwks_fetches.inc(if failed { JwksFetch::Failure } else { JwksFetch::Success });
        let pause = match result {
            Ok(keys) => {
                let number = keys.len();
                if shared.keys.swap(Some(Arc::new(keys))).is_none() || retry > FIRST_RETRY {
                    tracing::info!(keys = number, "the issuer of tokens has given its keys");
                }
                retry = FIRST_RETRY;
                shared.refresh
            }
            Err(error) => {
                let known = shared.keys.load().is_some();
                tracing::warn!(%error, keys_kept = known, "the issuer of tokens has not given its keys");
                let pause = retry.min(shared.refresh);
                retry = (retry * 2).min(MAX_RETRY);
                pause
            }
        };
        {
            let mut turn = shared.turn.lock();
            turn.failed = failed;
            turn.asking = false;
        }
        shared.asked.send_modify(|asked| *asked = asked.wrapping_add(1));
        let _ = tokio::time::timeout(pause, shared.wanted.notified()).await;
        shared.turn.lock().asking = true;
        // Who wanted it at the moment of the pause's end gets it now, not once more.
        let _ = shared.wanted.notified().now_or_never();
    }
}

/// Why an issuer gave no keys.
#[derive(Debug, thiserror::Error)]
enum FetchError {
    #[error(transparent)]
    Client(#[from] outbound::ClientError),
    #[error(transparent)]
    Stopped(#[from] tokio::task::JoinError),
    #[error("{}", outbound::causes(.0))]
    Http(#[from] reqwest::Error),
    #[error("it answers {0}")]
    Status(reqwest::StatusCode),
    #[error("its answer is longer than {0} bytes")]
    TooLong(usize),
    #[error("its answer is no JWK set: {0}")]
    NoSet(#[from] serde_json::Error),
    #[error("there is no key in its answer that could be used")]
    NoKeys,
}

impl Shared {
    async fn ask(&self, ca_file: Option<&Path>, timeout: Duration) -> Result<Vec<Key>, FetchError> {
        // Made anew each time, so that renewed authorities are taken up; reading them may block.
        let ca_file = ca_file.map(Path::to_owned);
        let client =
            tokio::task::spawn_blocking(move || outbound::client(ca_file.as_deref(), timeout)).await??;
        let mut response = client.get(&self.url).header("accept", "application/json").send().await?;
        if !response.status().is_success() {
            return Err(FetchError::Status(response.status()));
        }
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await? {
            if body.len() + chunk.len() > self.max_bytes {
                return Err(FetchError::TooLong(self.max_bytes));
            }
            body.extend_from_slice(&chunk);
        }
        let keys = from_jwks(&body)?;
        if keys.is_empty() { Err(FetchError::NoKeys) } else { Ok(keys) }
    }
}
