//! What goes to backends, in figures. Owns the names; a backend's name is one of the configuration, so their number is
//! bounded.

use std::time::Duration;

use prometheus::{HistogramOpts, HistogramVec, IntCounterVec, IntGaugeVec, Registry};

use super::labels::{BackendDrop, Label as _};
use super::registered;

/// From a backend next door to one that is about to be given up, in seconds.
const BUCKETS: [f64; 12] = [0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0];

/// The figures of all backends.
pub struct BackendMetrics {
    requests: IntCounterVec,
    seconds: HistogramVec,
    events: IntCounterVec,
    retries: IntCounterVec,
    dropped: IntCounterVec,
    dead_letters_total: IntCounterVec,
    dead_letters: IntGaugeVec,
    queued: IntGaugeVec,
    queued_bytes: IntGaugeVec,
    breaker: IntGaugeVec,
}

impl BackendMetrics {
    pub(super) fn new(registry: &Registry) -> Self {
        let opts = super::opts;
        let counter = |name: &str, help: &str, labels: &[&str]| {
            registered(registry, IntCounterVec::new(opts(name, help), labels))
        };
        let gauge =
            |name: &str, help: &str| registered(registry, IntGaugeVec::new(opts(name, help), &["backend"]));
        let seconds = HistogramOpts::from(opts("backend_request_seconds", "From a request to its answer."))
            .buckets(BUCKETS.to_vec());
        Self {
            requests: counter(
                "backend_requests_total",
                "Requests to backends.",
                &["backend", "kind", "result"],
            ),
            seconds: registered(registry, HistogramVec::new(seconds, &["backend", "kind"])),
            events: counter("backend_events_total", "Events that backends took.", &["backend", "type"]),
            retries: counter("backend_retries_total", "Deliveries that were tried again.", &["backend"]),
            dropped: counter(
                "backend_dropped_total",
                "Events that did not reach their backend.",
                &["backend", BackendDrop::NAME],
            ),
            dead_letters_total: counter(
                "backend_dead_letters_total",
                "Events that became dead letters.",
                &["backend", "reason"],
            ),
            dead_letters: gauge("backend_dead_letters", "Dead letters that are kept."),
            queued: gauge("backend_queued", "Events that wait for their backend."),
            queued_bytes: gauge("backend_queued_bytes", "Their bytes."),
            breaker: gauge("backend_breaker", "0: requests are sent. 1: one is tried. 2: none is sent."),
        }
    }

    /// A request ended. `kind` is "call" or "delivery"; `result` is of a closed set.
    pub fn request(&self, backend: &str, kind: &'static str, result: &str, took: Duration) {
        self.requests.with_label_values(&[backend, kind, result]).inc();
        self.seconds.with_label_values(&[backend, kind]).observe(took.as_secs_f64());
    }

    /// A backend took an event.
    pub fn taken(&self, backend: &str, kind: &'static str) {
        self.events.with_label_values(&[backend, kind]).inc();
    }

    /// A delivery is tried again.
    pub fn retry(&self, backend: &str) {
        self.retries.with_label_values(&[backend]).inc();
    }

    /// Events did not reach their backend.
    pub fn dropped(&self, backend: &str, reason: BackendDrop, count: u64) {
        self.dropped.with_label_values(&[backend, reason.as_str()]).inc_by(count);
    }

    /// An event became a dead letter. `reason` is of a closed set.
    pub fn dead_letter(&self, backend: &str, reason: &'static str) {
        self.dead_letters_total.with_label_values(&[backend, reason]).inc();
    }

    /// So many dead letters are kept.
    pub fn dead_letters(&self, backend: &str, count: usize) {
        self.dead_letters.with_label_values(&[backend]).set(i64::try_from(count).unwrap_or(i64::MAX));
    }

    /// So much waits for a backend.
    pub fn queued(&self, backend: &str, items: usize, bytes: usize) {
        self.queued.with_label_values(&[backend]).set(i64::try_from(items).unwrap_or(i64::MAX));
        self.queued_bytes.with_label_values(&[backend]).set(i64::try_from(bytes).unwrap_or(i64::MAX));
    }

    /// Whether requests are sent: 0 yes, 1 one is tried, 2 none.
    pub fn breaker(&self, backend: &str, state: i64) {
        self.breaker.with_label_values(&[backend]).set(state);
    }
}
