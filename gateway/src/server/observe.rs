//! What is measured beside the way of an emit: the runtime, the mailboxes, and what the adapter tells of its cluster.

use std::sync::{Arc, Weak};
use std::time::Duration;

use roomcast_adapter::Mailbox;
use roomcast_adapter::cluster::{ClusterObserver, RemoteDelivery};
use tokio::runtime::Handle;
use tokio::time::{Instant, sleep_until};

use crate::connection::Engine;
use crate::metrics::{Metrics, Source, SourceKind};
use crate::trace::{Kind, NAMESPACE, Tracer};

/// How often the runtime is asked how late it is.
const EVERY: Duration = Duration::from_millis(250);

/// Takes what the adapter measures.
pub(super) struct Observer {
    pub(super) metrics: Arc<Metrics>,
    pub(super) tracer: Tracer,
}

impl ClusterObserver for Observer {
    fn round_trip(&self, took: Duration) {
        self.metrics.observe_round_trip(took);
    }

    fn delivered(&self, delivery: &RemoteDelivery<'_>) {
        let span = self.tracer.child(Kind::Consumer, "deliver", Some(delivery.trace));
        let mut span = span.text(NAMESPACE, || delivery.namespace);
        span.began_before(delivery.took);
        span.number("roomcast.sockets", delivery.sockets);
        if let Some(travelled) = delivery.travelled {
            span.seconds("roomcast.travelled", travelled.as_secs_f64());
        }
    }
}

/// Observes how late tasks get their turn. Never ends.
pub(super) async fn watch_lag(metrics: Arc<Metrics>) {
    loop {
        let due = Instant::now() + EVERY;
        sleep_until(due).await;
        metrics.observe_lag(due.elapsed());
    }
}

/// A figure of the runtime: its kind, its name, its help, and how it is read.
type RuntimeFigure = (SourceKind, &'static str, &'static str, fn(&Handle) -> f64);

static RUNTIME: &[RuntimeFigure] = &[
    (SourceKind::Gauge, "runtime_workers", "Threads that run tasks.", |runtime| {
        runtime.metrics().num_workers() as f64
    }),
    (SourceKind::Gauge, "runtime_tasks", "Tasks that have not ended.", |runtime| {
        runtime.metrics().num_alive_tasks() as f64
    }),
    (SourceKind::Gauge, "runtime_queued_tasks", "Tasks that wait for any thread.", |runtime| {
        runtime.metrics().global_queue_depth() as f64
    }),
    (
        SourceKind::Counter,
        "runtime_busy_seconds_total",
        "Seconds that threads spent on tasks, all together.",
        |runtime| {
            let metrics = runtime.metrics();
            let busy = (0..metrics.num_workers()).map(|worker| metrics.worker_total_busy_duration(worker));
            busy.sum::<Duration>().as_secs_f64()
        },
    ),
];

/// Has the runtime read that this is called in.
pub(super) fn export_runtime(metrics: &Metrics) {
    for (kind, name, help, figure) in RUNTIME {
        let runtime = Handle::current();
        let read = Box::new(move || figure(&runtime));
        export(metrics, Source { kind: *kind, name, help, labels: &[], read });
    }
}

/// Has the mailboxes of all connections read.
pub(super) fn export_mailboxes(metrics: &Metrics, engine: &Arc<Engine>) {
    let sum = |engine: Weak<Engine>, depth: fn(&Mailbox) -> usize| {
        Box::new(move || {
            let mut sum = 0;
            if let Some(engine) = engine.upgrade() {
                engine.sessions.for_each(|session| sum += depth(&session.shared.mailbox));
            }
            sum as f64
        })
    };
    let (packets, bytes) = (
        sum(Arc::downgrade(engine), |mailbox| mailbox.depth().0),
        sum(Arc::downgrade(engine), |mailbox| mailbox.depth().1),
    );
    let gauge = |name, help, read| Source { kind: SourceKind::Gauge, name, help, labels: &[], read };
    export(
        metrics,
        gauge("mailbox_packets", "Packets that wait for their connection to be written to.", packets),
    );
    export(metrics, gauge("mailbox_bytes", "Their bytes; what many wait for counts for each.", bytes));
}

fn export(metrics: &Metrics, source: Source) {
    let name = source.name;
    if let Err(error) = metrics.register_source(source) {
        tracing::warn!(name, %error, "a figure is not exported");
    }
}
