//! Settings that change while the node runs: at SIGHUP, and when the file or a secret's file has changed.
//!
//! Owns when the configuration is read again, which of its sections may change, and telling why one is not taken. A
//! configuration with any fault changes nothing. Files are read again and compared, which sees whatever an editor or a
//! mounted ConfigMap does to them.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use crate::config::{Config, ConfigError, Sources};
use crate::metrics::{Metrics, ReloadResult};

/// What takes up settings, at once and without failing: the configuration was checked.
pub(super) type Target = Box<dyn Fn(&Config) + Send + Sync>;

/// Hands every configuration that is taken to all targets, for as long as the node lives.
pub(super) async fn apply(mut changes: watch::Receiver<Arc<Config>>, targets: Vec<Target>) {
    while changes.changed().await.is_ok() {
        let config = Arc::clone(&changes.borrow_and_update());
        targets.iter().for_each(|target| target(&config));
    }
}

/// Reads the sources again and again, and sends what has changed.
pub(super) async fn watch_sources(
    sources: Sources,
    current: watch::Sender<Arc<Config>>,
    metrics: Arc<Metrics>,
) {
    let mut looks = Looks::new();
    let mut last_error = String::new();
    loop {
        let interval = current.borrow().reload.interval;
        let asked = looks.next(interval).await;
        let read = sources.clone();
        // Files may be on a slow disk.
        let Ok(read) = tokio::task::spawn_blocking(move || Config::load(&read)).await else { continue };
        match take(read.map(|loaded| loaded.config), &current) {
            Ok(Outcome::Same) if asked => tracing::info!("SIGHUP: the configuration is the same"),
            Ok(Outcome::Same) => {}
            Ok(Outcome::Taken { changed, needs_restart }) => {
                metrics.reloads.of(ReloadResult::Taken).inc();
                tracing::info!(changed = changed.join(" "), "the configuration has been taken");
                if !needs_restart.is_empty() {
                    tracing::warn!(keys = needs_restart.join(" "), "a restart is needed for some of it");
                }
            }
            // The same fault is told once, not at every look.
            Err(error) if asked || error.to_string() != last_error => {
                metrics.reloads.of(ReloadResult::Refused).inc();
                tracing::error!(%error, "the configuration is not taken, and nothing changes");
                last_error = error.to_string();
                continue;
            }
            Err(_) => continue,
        }
        last_error.clear();
    }
}

enum Outcome {
    Same,
    Taken { changed: Vec<String>, needs_restart: Vec<String> },
}

fn take(
    read: Result<Config, ConfigError>,
    current: &watch::Sender<Arc<Config>>,
) -> Result<Outcome, ConfigError> {
    let read = read?;
    let old = Arc::clone(&current.borrow());
    let new = old.with_reloadable(&read);
    if new == *old {
        // What cannot be taken is told when it changes, with something that can.
        return Ok(Outcome::Same);
    }
    let needs_restart = new.differences(&read);
    // Each is right, and still the old listener with the new keys may be a door that nobody meant to open.
    let problems = new.problems();
    if !problems.is_empty() {
        return Err(ConfigError::Invalid(problems));
    }
    let changed = old.differences(&new);
    current.send_replace(Arc::new(new));
    Ok(Outcome::Taken { changed, needs_restart })
}

/// When files are looked at again.
pub(super) struct Looks {
    hangups: Hangups,
}

impl Looks {
    pub(super) fn new() -> Self {
        Self { hangups: Hangups::new() }
    }

    /// Waits for the next look. True: SIGHUP asked for it.
    pub(super) async fn next(&mut self, interval: Duration) -> bool {
        tokio::select! {
            () = self.hangups.next() => true,
            () = pause(interval) => false,
        }
    }
}

/// No interval means never.
async fn pause(interval: Duration) {
    match interval {
        Duration::ZERO => std::future::pending().await,
        interval => tokio::time::sleep(interval).await,
    }
}

/// The signal by which daemons are asked to read their configuration again.
struct Hangups {
    #[cfg(unix)]
    signals: Option<tokio::signal::unix::Signal>,
}

impl Hangups {
    fn new() -> Self {
        Self {
            #[cfg(unix)]
            signals: tokio::signal::unix::signal(tokio::signal::unix::SignalKind::hangup()).ok(),
        }
    }

    async fn next(&mut self) {
        #[cfg(unix)]
        if let Some(signals) = &mut self.signals {
            // `None` would come at once, for ever.
            if signals.recv().await.is_some() {
                return;
            }
        }
        std::future::pending::<()>().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Secret;

    fn changed(change: impl FnOnce(&mut Config)) -> (watch::Sender<Arc<Config>>, Outcome) {
        let (current, _) = watch::channel(Arc::new(Config::default()));
        let mut read = Config::default();
        change(&mut read);
        let outcome = take(Ok(read), &current).unwrap();
        (current, outcome)
    }

    #[test]
    fn what_may_change_is_taken_and_the_rest_is_told() {
        let (current, outcome) = changed(|config| {
            config.api.keys = vec![Secret::new("0123456789abcdef")];
            config.namespaces[0].room_join = "join".to_owned();
            config.engine.max_payload = 1;
        });
        let Outcome::Taken { changed, needs_restart } = outcome else { panic!("taken") };
        assert_eq!(changed, ["api.keys", "namespace"]);
        assert_eq!(needs_restart, ["engine.max_payload"]);
        assert_eq!(current.borrow().api.keys.len(), 1);
        assert_ne!(current.borrow().engine.max_payload, 1);
    }

    /// Keys may go only with the address that did without them, and that needs a restart.
    #[test]
    fn what_may_change_must_fit_what_may_not() {
        let mut before = Config::default();
        before.api.listen = "0.0.0.0:3001".parse().unwrap();
        before.api.keys = vec![Secret::new("0123456789abcdef")];
        let (current, _) = watch::channel(Arc::new(before));
        let Err(ConfigError::Invalid(problems)) = take(Ok(Config::default()), &current) else {
            panic!("an open API")
        };
        assert!(problems[0].to_string().contains("without any API key"), "{problems:?}");
        assert_eq!(current.borrow().api.keys.len(), 1);
    }

    #[test]
    fn a_secret_that_changed_is_a_change_that_does_not_show() {
        let (current, _) = changed(|config| config.api.keys = vec![Secret::new("0123456789abcdef")]);
        let mut read = Config::clone(&current.borrow());
        read.api.keys = vec![Secret::new("fedcba9876543210")];
        let Ok(Outcome::Taken { changed, .. }) = take(Ok(read), &current) else { panic!("taken") };
        assert_eq!(changed, ["a secret"]);
    }

    #[test]
    fn the_same_is_no_change_and_a_fault_changes_nothing() {
        assert!(matches!(changed(|_| ()).1, Outcome::Same));
        assert!(matches!(changed(|config| config.engine.max_payload = 1).1, Outcome::Same));
        let (current, _) = watch::channel(Arc::new(Config::default()));
        assert!(take(Err(ConfigError::Invalid(Vec::new())), &current).is_err());
        assert_eq!(**current.borrow(), Config::default());
    }
}
