//! How long the node was not one with its cluster, as metrics. Owns the clock of that; what it means is the adapter's.

use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use roomcast_adapter::Status;
use tokio::sync::watch;

use crate::metrics::{Metrics, Source, SourceKind};

#[derive(Debug, Default)]
struct Outages {
    over: Duration,
    /// Since when the present one lasts.
    since: Option<Instant>,
}

impl Outages {
    fn see(&mut self, status: Status, now: Instant) {
        match status {
            Status::Unavailable => self.since = self.since.or(Some(now)),
            Status::Ready => {
                self.over = self.total(now);
                self.since = None;
            }
        }
    }

    /// The present outage counts while it lasts.
    fn total(&self, now: Instant) -> Duration {
        self.over + self.since.map_or(Duration::ZERO, |since| now.saturating_duration_since(since))
    }
}

/// Exports readiness, and how long it was missing. Ends with the adapter.
pub(super) fn export_outages(metrics: &Metrics, mut status: watch::Receiver<Status>) {
    let outages = Arc::new(Mutex::new(Outages::default()));
    let (ready, total) = (status.clone(), Arc::clone(&outages));
    let sources = [
        Source {
            kind: SourceKind::Gauge,
            name: "ready",
            help: "1 while the node is one with its cluster.",
            labels: &[],
            read: Box::new(move || f64::from(u8::from(*ready.borrow() == Status::Ready))),
        },
        Source {
            kind: SourceKind::Counter,
            name: "unready_seconds_total",
            help: "Seconds in which the node was not one with its cluster.",
            labels: &[],
            read: Box::new(move || total.lock().total(Instant::now()).as_secs_f64()),
        },
    ];
    for source in sources {
        let name = source.name;
        if let Err(error) = metrics.register_source(source) {
            tracing::warn!(name, %error, "readiness is not exported");
        }
    }
    tokio::spawn(async move {
        loop {
            let now = *status.borrow_and_update();
            outages.lock().see(now, Instant::now());
            if status.changed().await.is_err() {
                return;
            }
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn outages_add_up_and_the_present_one_counts() {
        let (mut outages, start) = (Outages::default(), Instant::now());
        outages.see(Status::Ready, start);
        assert_eq!(outages.total(start + SECOND), Duration::ZERO);
        outages.see(Status::Unavailable, start + SECOND);
        outages.see(Status::Unavailable, start + 2 * SECOND);
        assert_eq!(outages.total(start + 3 * SECOND), 2 * SECOND);
        outages.see(Status::Ready, start + 4 * SECOND);
        outages.see(Status::Unavailable, start + 9 * SECOND);
        assert_eq!(outages.total(start + 10 * SECOND), 4 * SECOND);
    }

    #[tokio::test]
    async fn readiness_is_exported() {
        let (metrics, status) = (Metrics::new(), watch::Sender::new(Status::Ready));
        export_outages(&metrics, status.subscribe());
        assert!(metrics.render().contains("roomcast_ready 1\n"));
        status.send_replace(Status::Unavailable);
        tokio::time::timeout(10 * SECOND, async {
            while !metrics.render().contains("roomcast_unready_seconds_total 0.") {
                tokio::task::yield_now().await;
            }
        })
        .await
        .expect("the outage counts");
        assert!(metrics.render().contains("roomcast_ready 0\n"));
    }
}
