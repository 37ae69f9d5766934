//! Certificates of the listeners that change while the node runs: at SIGHUP, and when their files have changed.
//!
//! Owns when they are looked at, and telling what came of it. What a pair of files has to be is told in `tls`.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::RunError;
use super::reload::Looks;
use crate::config::{Config, ListenerTls};
use crate::metrics::{Label as _, Listener, Metrics, ReloadResult};
use crate::tls::{Reloaded, Tls};

/// Loads the certificates of a listener, if it has any.
pub(super) fn load(
    listener: Listener,
    settings: &ListenerTls,
    metrics: &Metrics,
) -> Result<Option<Arc<Tls>>, RunError> {
    let tls = Tls::load(settings).map_err(|error| RunError::Tls { listener: listener.as_str(), error })?;
    if let Some(tls) = &tls {
        tell(listener, tls, metrics);
    }
    Ok(tls)
}

/// Has the certificates of both listeners looked at for as long as the node runs.
pub(super) fn watch_all(
    [public, api]: [&Option<Arc<Tls>>; 2],
    changes: &watch::Receiver<Arc<Config>>,
    metrics: &Arc<Metrics>,
) -> Vec<JoinHandle<()>> {
    let all = [(Listener::Public, public), (Listener::Api, api)];
    let watched = all.into_iter().filter_map(|(listener, tls)| {
        let watch = watch(listener, Arc::clone(tls.as_ref()?), changes.clone(), Arc::clone(metrics));
        Some(tokio::spawn(watch))
    });
    watched.collect()
}

/// Looks at the files again and again, as long as the node runs.
async fn watch(
    listener: Listener,
    tls: Arc<Tls>,
    config: watch::Receiver<Arc<Config>>,
    metrics: Arc<Metrics>,
) {
    let mut looks = Looks::new();
    loop {
        let interval = config.borrow().reload.interval;
        looks.next(interval).await;
        let looked = Arc::clone(&tls);
        // Files may be on a slow disk.
        let Ok(reloaded) = tokio::task::spawn_blocking(move || looked.reload()).await else { continue };
        match reloaded {
            Ok(Reloaded::Same) => {}
            Ok(Reloaded::Taken) => {
                metrics.listeners.reloads.inc(ReloadResult::Taken);
                tracing::info!(listener = listener.as_str(), "new connections get the new certificate");
                tell(listener, &tls, &metrics);
            }
            Err(error) => {
                metrics.listeners.reloads.inc(ReloadResult::Refused);
                let code = error.code();
                tracing::error!(listener = listener.as_str(), code, %error, "the certificate before stays in use");
            }
        }
    }
}

/// Has it seen until when the certificate is good.
fn tell(listener: Listener, tls: &Tls, metrics: &Metrics) {
    let Some(expiry) = tls.expiry() else { return };
    metrics.listeners.set_expiry(listener, expiry);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |now| now.as_secs());
    if expiry.unsigned_abs() <= now {
        tracing::warn!(listener = listener.as_str(), "the certificate has expired");
    }
}
