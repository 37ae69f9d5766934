//! What happens where connections come in, in figures. Owns the names; both labels are closed sets.

use prometheus::{IntCounterVec, IntGaugeVec, Registry};

use super::family::{Counters, Gauges};
use super::labels::{ConnectionRefusal, Label as _, Listener, ReloadResult};
use super::registered;

/// The figures of the listeners.
#[derive(Debug)]
pub struct ListenerMetrics {
    refused: IntCounterVec,
    expiry: IntGaugeVec,
    /// TCP connections that no session needs.
    pub pending: Gauges<Listener>,
    /// Certificates that were read again while the node ran, and had changed.
    pub reloads: Counters<ReloadResult>,
}

impl ListenerMetrics {
    pub(super) fn new(registry: &Registry) -> Self {
        let refused = IntCounterVec::new(
            super::opts("listener_refused_total", "Connections that were closed before a request."),
            &[Listener::NAME, ConnectionRefusal::NAME],
        );
        let refused = registered(registry, refused);
        for listener in Listener::ALL {
            for reason in ConnectionRefusal::ALL {
                refused.with_label_values(&[listener.as_str(), reason.as_str()]);
            }
        }
        let expiry = super::opts(
            "tls_certificate_expiry_seconds",
            "When the first certificate of the chain in use expires, in seconds since 1970.",
        );
        Self {
            refused,
            expiry: registered(registry, IntGaugeVec::new(expiry, &[Listener::NAME])),
            pending: Gauges::new(
                registry,
                "pending_connections",
                "TCP connections that no session needs: new ones, those between two requests, and all of the API.",
            ),
            reloads: Counters::new(
                registry,
                "tls_reloads_total",
                "Certificates that were read again while the node ran, and had changed.",
            ),
        }
    }

    /// Counts a connection that was closed before it brought a request.
    pub fn refused(&self, listener: Listener, reason: ConnectionRefusal) {
        self.refused.with_label_values(&[listener.as_str(), reason.as_str()]).inc();
    }

    /// When the certificate of a listener expires. The series appears with the first call.
    pub fn set_expiry(&self, listener: Listener, seconds: i64) {
        self.expiry.with_label_values(&[listener.as_str()]).set(seconds);
    }
}
