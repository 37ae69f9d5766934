//! Whether the node takes one more client, before anything is kept for it. Owns the order in which it is asked; that memory is
//! short is found out elsewhere.

use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use arc_swap::ArcSwap;
use parking_lot::Mutex;

use super::limits::{Bucket, Rate};
use super::{Engine, Place};
use crate::config;
use crate::metrics::Refusal;

/// What the node as a whole takes.
pub(crate) struct Admission {
    settings: ArcSwap<config::Admission>,
    /// What is left of the rate of handshakes. Comes into being with the first one under a limit.
    handshakes: Mutex<Option<Bucket>>,
    memory_is_short: AtomicBool,
    started: Instant,
}

impl Admission {
    pub(crate) fn new(settings: config::Admission) -> Self {
        Self {
            settings: ArcSwap::from_pointee(settings),
            handshakes: Mutex::default(),
            memory_is_short: AtomicBool::new(false),
            started: Instant::now(),
        }
    }

    /// Other settings hold from now on.
    pub(crate) fn reload(&self, settings: config::Admission) {
        self.settings.store(settings.into());
    }

    /// Whoever watches the memory says so.
    pub(crate) fn set_memory_is_short(&self, short: bool) {
        self.memory_is_short.store(short, Ordering::Relaxed);
    }

    fn allows_handshake(&self, now: Instant) -> bool {
        let settings = self.settings.load();
        let mut bucket = self.handshakes.lock();
        let Some(per_second) = settings.handshakes_per_second else {
            *bucket = None;
            return true;
        };
        let rate = Rate::new(per_second, settings.handshakes_burst);
        let now = u64::try_from(now.saturating_duration_since(self.started).as_millis()).unwrap_or(u64::MAX);
        bucket.get_or_insert_with(|| Bucket::full(rate, now)).take(rate, now)
    }
}

impl Engine {
    /// Takes a place for a new session of an address, or says why there is none. The place is given back with
    /// [`Engine::leave`].
    pub(crate) fn admit(&self, address: Option<IpAddr>, now: Instant) -> Result<Option<Place>, Refusal> {
        if self.is_closing() {
            return Err(Refusal::Draining);
        }
        if self.admission.memory_is_short.load(Ordering::Relaxed) {
            return Err(Refusal::Memory);
        }
        // Before the rate of all: one address must not use that up for the others.
        let place = self.limits.enter(address, now)?;
        let refusal = if !self.admission.allows_handshake(now) {
            Refusal::Rate
        } else if !self.sessions.reserve(self.config.public.max_connections) {
            Refusal::Limit
        } else {
            return Ok(place);
        };
        place.into_iter().for_each(|place| self.limits.leave(place));
        Err(refusal)
    }

    /// Gives back the place of a session that did not come into being.
    pub(crate) fn leave(&self, place: Option<Place>) {
        self.sessions.release();
        place.into_iter().for_each(|place| self.limits.leave(place));
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use roomcast_adapter::LocalFactory;

    use super::*;
    use crate::config::Config;
    use crate::metrics::Metrics;

    fn engine(change: impl FnOnce(&mut Config)) -> Arc<Engine> {
        let mut config = Config::default();
        change(&mut config);
        let factory = LocalFactory::with_random_tag().unwrap();
        Engine::new(config, factory, Arc::new(Metrics::new()), None)
    }

    #[test]
    fn handshakes_of_the_node_have_a_rate_that_may_change() {
        let engine = engine(|config| {
            config.admission.handshakes_per_second = Some(10);
            config.admission.handshakes_burst = Some(2);
        });
        let now = Instant::now();
        let later = |millis| now + Duration::from_millis(millis);
        assert!(engine.admit(None, now).is_ok() && engine.admit(None, now).is_ok());
        assert_eq!(engine.admit(None, now), Err(Refusal::Rate));
        assert_eq!(engine.admit(None, later(99)), Err(Refusal::Rate));
        assert!(engine.admit(None, later(100)).is_ok());
        assert_eq!(engine.sessions.count(), 3, "nobody who was refused has a place");
        engine.admission.reload(config::Admission::default());
        assert!((0..100).all(|_| engine.admit(None, later(100)).is_ok()));
    }

    #[test]
    fn an_address_that_has_enough_uses_up_nothing_of_the_node() {
        let engine = engine(|config| {
            config.admission.handshakes_per_second = Some(1);
            config.limits.connections_per_ip = Some(1);
        });
        let (now, address) = (Instant::now(), |last| Some([10, 0, 0, last].into()));
        assert!(engine.admit(address(1), now).is_ok());
        assert_eq!(engine.admit(address(1), now), Err(Refusal::IpConnections));
        assert!(engine.admit(address(2), now).is_ok());
        assert_eq!(engine.admit(address(3), now), Err(Refusal::Rate));
        // Refused by the node, it does not count for the address.
        assert!(engine.admit(address(3), now + Duration::from_secs(2)).is_ok());
    }

    #[test]
    fn a_node_that_is_full_short_of_memory_or_closing_takes_nobody() {
        let engine = engine(|config| config.public.max_connections = 1);
        let now = Instant::now();
        let place = engine.admit(None, now).unwrap();
        assert_eq!(engine.admit(None, now), Err(Refusal::Limit));
        engine.leave(place);
        engine.admission.set_memory_is_short(true);
        assert_eq!(engine.admit(None, now), Err(Refusal::Memory));
        engine.admission.set_memory_is_short(false);
        assert!(engine.admit(None, now).is_ok());
        engine.refuse_new();
        assert_eq!(engine.admit(None, now), Err(Refusal::Draining));
    }
}
