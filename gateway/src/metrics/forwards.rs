//! Requests that nodes pass on to each other, in figures. Owns the names.

use std::time::Duration;

use prometheus::{Histogram, HistogramOpts, Registry};

use super::family::{Counters, Gauges};
use super::labels::{ForwardResult, ForwardSide, ForwardedResult};

/// The figures of both sides of this node.
pub struct ForwardMetrics {
    /// Requests of clients that this node passed on, by what became of them.
    pub passed: Counters<ForwardResult>,
    /// Requests that other nodes passed on to this one.
    pub received: Counters<ForwardedResult>,
    /// Those under way, WebSockets that are passed on among them.
    pub active: Gauges<ForwardSide>,
    post: Histogram,
}

impl ForwardMetrics {
    pub(super) fn new(registry: &Registry) -> Self {
        let post = HistogramOpts::from(super::opts(
            "forward_post_seconds",
            "From a POST that is passed on to the answer of the node that has the session.",
        ));
        let post = Histogram::with_opts(post.buckets(super::LATENCY_BUCKETS.to_vec())).expect("a valid name");
        registry.register(Box::new(post.clone())).expect("a name of its own");
        Self {
            passed: Counters::new(
                registry,
                "forwards_total",
                "Requests of clients for a session of another node, which they were passed on to.",
            ),
            received: Counters::new(
                registry,
                "forwards_received_total",
                "Requests that other nodes passed on to this one.",
            ),
            active: Gauges::new(
                registry,
                "forwards_active",
                "Requests that are being passed on, WebSockets among them, or answered for another node.",
            ),
            post,
        }
    }

    /// How long a POST took that was passed on. Polls wait for something to say, which tells nothing of the way.
    pub fn observe_post(&self, latency: Duration) {
        self.post.observe(latency.as_secs_f64());
    }
}
