//! The backends by name. Owns making, reloading and draining them; knows which transports there are.

use std::collections::BTreeMap;
use std::sync::Arc;

use arc_swap::ArcSwap;
use futures_util::future::join_all;

use super::{Backend, CloudEvent, DeadLetter, DeadLetters, Reason, SetupError};
use crate::backend::nats::{NatsBackend, NatsLink};
use crate::backend::webhook::Webhook;
use crate::config;
use crate::metrics::Metrics;

/// A backend, and the settings by which it was made.
#[derive(Clone)]
struct Made {
    settings: config::Backend,
    backend: Arc<dyn Backend>,
}

pub(super) struct Backends {
    by_name: ArcSwap<BTreeMap<String, Made>>,
    nats: Option<NatsLink>,
    metrics: Arc<Metrics>,
    dead_letters: Arc<DeadLetters>,
}

impl Backends {
    pub(super) fn new(
        nats: Option<NatsLink>,
        metrics: &Arc<Metrics>,
        dead_letters: &Arc<DeadLetters>,
    ) -> Self {
        Self {
            by_name: ArcSwap::default(),
            nats,
            metrics: Arc::clone(metrics),
            dead_letters: Arc::clone(dead_letters),
        }
    }

    /// A backend that carries on under its name keeps what waits for it; what waits for one that is taken away is
    /// delivered in the background. With an error nothing has changed but settings that were tried before.
    pub(super) fn reload(&self, settings: &BTreeMap<String, config::Backend>) -> Result<(), SetupError> {
        let old = self.by_name.load();
        let mut new = BTreeMap::new();
        // What is new is made first: it can fail without a trace.
        for (name, settings) in settings {
            let stays = old.get(name).filter(|made| made.settings.nats == settings.nats);
            let backend = match stays {
                Some(made) => Arc::clone(&made.backend),
                None => self.make(name, settings)?,
            };
            new.insert(name.clone(), Made { settings: settings.clone(), backend });
        }
        for (name, made) in &new {
            if old.get(name).is_some_and(|before| Arc::ptr_eq(&before.backend, &made.backend)) {
                made.backend.reload(&made.settings)?;
            }
            let settings = &made.settings;
            self.dead_letters.set_limits(name, settings.dead_letters, settings.queue_bytes);
        }
        let gone = old.iter().filter(|(name, made)| {
            !new.get(*name).is_some_and(|now| Arc::ptr_eq(&now.backend, &made.backend))
        });
        for (_, made) in gone {
            tokio::spawn(made.backend.drain());
        }
        self.by_name.store(Arc::new(new));
        Ok(())
    }

    fn make(&self, name: &str, settings: &config::Backend) -> Result<Arc<dyn Backend>, SetupError> {
        if settings.nats {
            let link = self.nats.as_ref().ok_or_else(|| SetupError::NoNats(name.to_owned()))?;
            return Ok(NatsBackend::start(name, settings, link, &self.metrics, &self.dead_letters));
        }
        Ok(Webhook::start(name, settings, &self.metrics, &self.dead_letters)?)
    }

    pub(super) fn get(&self, name: &str) -> Option<Arc<dyn Backend>> {
        self.by_name.load().get(name).map(|made| Arc::clone(&made.backend))
    }

    /// Keeps an event that a backend did not take.
    pub(super) fn bury(&self, backend: &str, event: CloudEvent) {
        self.dead_letters.add(DeadLetter::new(backend, event, Reason::Overloaded, 0));
    }

    pub(super) async fn drain(&self) {
        let all: Vec<_> = self.by_name.load().values().map(|made| made.backend.drain()).collect();
        join_all(all).await;
    }
}
