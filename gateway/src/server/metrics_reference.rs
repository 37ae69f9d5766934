//! The page that lists every metric, written from what a node has registered, and compared with the one in the
//! documentation.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use prometheus::proto::{MetricFamily, MetricType};
use tokio::sync::{mpsc, watch};

use super::lifecycle::Stop;
use super::run::run_changing;
use crate::config::{Config, golden};
use crate::metrics::{BackendDrop, Label as _, Listener, Metrics};

/// Labels whose values are not of the code, and what bounds them. All others are listed with their values.
const OPEN: &[(&str, &str)] = &[
    ("backend", "names of the configuration"),
    ("call", "calls of `/v1`, and `unknown`"),
    ("code of protocol_violations_total", "codes of the protocol's errors"),
    ("commit", "of the build"),
    ("features", "of the build"),
    ("kind of backend_request_seconds", "`call`, `delivery`"),
    ("kind of backend_requests_total", "`call`, `delivery`"),
    ("namespace", "100 of them, and `other`"),
    ("reason of backend_dead_letters_total", "`exhausted`, `gone`, `overloaded`"),
    (
        "result of backend_requests_total",
        "`ok`, `refused`, `gone`, `overloaded`, `no_backend`, `backend_failed`, `backend_timeout`, \
         `backend_unavailable`, `backend_invalid_reply`",
    ),
    (
        "result of ingest_messages_total",
        "`done`, `link_lost`, `malformed`, `unsupported`, `other_namespace`, `refused`, `duplicate`, `deferred`, \
         `claimed`, `retried`, `exhausted`, `dropped`",
    ),
    ("rustc", "of the build"),
    ("source", "`redis_emitter`, `redis_stream`, `nats`"),
    ("status", "statuses of HTTP that calls are answered"),
    ("type of backend_events_total", "types of CloudEvents"),
    ("version", "of the build"),
];

/// The metrics of a node that has started, with those that appear with their first event.
async fn families() -> Vec<MetricFamily> {
    let mut config = Config::default();
    config.public.listen = ([127, 0, 0, 1], 0).into();
    config.api.listen = ([127, 0, 0, 1], 0).into();
    let (_changes, current) = watch::channel(Arc::new(config));
    let metrics = Arc::new(Metrics::new());
    let (tell, stops) = mpsc::channel(1);
    tell.try_send(Stop::Interrupt).unwrap();
    run_changing(current, Arc::clone(&metrics), Vec::new(), stops).await.unwrap();
    metrics.sockets("/").set(0);
    metrics.violation("invalid_payload");
    metrics.api_request("emit", http::StatusCode::ACCEPTED);
    metrics.ingested("nats", "done");
    metrics.set_ingest_up("nats", true);
    metrics.listeners.set_expiry(Listener::Public, 0);
    metrics.listeners.set_expiry(Listener::Api, 0);
    let backends = &metrics.backends;
    backends.request("orders", "call", "ok", Duration::ZERO);
    backends.taken("orders", "roomcast.event");
    backends.retry("orders");
    BackendDrop::ALL.iter().for_each(|reason| backends.dropped("orders", *reason, 0));
    backends.dead_letter("orders", "gone");
    backends.dead_letters("orders", 0);
    backends.queued("orders", 0, 0);
    backends.breaker("orders", 0);
    metrics.families()
}

fn labels_of(family: &MetricFamily) -> BTreeMap<String, BTreeSet<String>> {
    let mut labels = BTreeMap::<_, BTreeSet<_>>::new();
    for pair in family.get_metric().iter().flat_map(|metric| metric.get_label()) {
        labels.entry(pair.name().to_owned()).or_default().insert(pair.value().to_owned());
    }
    labels
}

/// A label and its values, as the page shows them.
fn label(family: &str, name: &str, values: &BTreeSet<String>) -> String {
    let own = format!("{name} of {}", family.trim_start_matches("roomcast_"));
    let open = OPEN.iter().find(|(open, _)| *open == name || *open == own);
    let values: Vec<_> = values.iter().map(|value| format!("`{value}`")).collect();
    let values = open.map_or_else(|| values.join(", "), |(_, what)| (*what).to_owned());
    format!("`{name}`: {values}")
}

fn page(families: &[MetricFamily]) -> String {
    let mut page = String::from(
        "# The metrics\n\nWritten from a node: every family that `/metrics` can have, with its labels. \
         [Metrics](../operations/metrics.md) says what\nthey mean. Names end with their unit, `_total` is a counter.\n\n\
         | metric | type | labels | |\n|---|---|---|---|\n",
    );
    for family in families {
        let kind = match family.get_field_type() {
            MetricType::COUNTER => "counter",
            MetricType::GAUGE => "gauge",
            MetricType::HISTOGRAM => "histogram",
            MetricType::SUMMARY => "summary",
            MetricType::UNTYPED => "untyped",
        };
        let labels: Vec<_> =
            labels_of(family).iter().map(|(name, values)| label(family.name(), name, values)).collect();
        let (name, labels, help) = (family.name(), labels.join("; "), family.help());
        writeln!(page, "| `{name}` | {kind} | {labels} | {help} |").unwrap();
    }
    page.push_str("\nBounds of the histograms, in seconds:\n\n");
    for family in families.iter().filter(|family| family.get_field_type() == MetricType::HISTOGRAM) {
        let metric = family.get_metric().first().unwrap();
        let bounds = metric.get_histogram().get_bucket().iter();
        let bounds: Vec<_> = bounds.map(|bucket| bucket.upper_bound().to_string()).collect();
        writeln!(page, "- `{}`: {}", family.name(), bounds.join(", ")).unwrap();
    }
    page
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn the_list_in_the_documentation_is_the_same() {
    golden("metrics.md", &page(&families().await));
}

#[tokio::test]
async fn every_metric_is_explained_and_no_other() {
    let text = include_str!("../../../docs/operations/metrics.md");
    let rows = text.lines().filter_map(|line| line.strip_prefix("| `")?.split_once('|'));
    let explained: BTreeSet<_> =
        rows.flat_map(|(names, _)| names.split('`').filter(|name| name.contains('_'))).collect();
    let families = families().await;
    let known: BTreeSet<_> = families.iter().map(MetricFamily::name).collect();
    // Not every system tells of its processes.
    let of_any_system = |name: &&&str| !name.starts_with("process_");
    let unexplained: Vec<_> = known.difference(&explained).collect();
    let unknown: Vec<_> = explained.difference(&known).filter(of_any_system).collect();
    assert!(unexplained.is_empty() && unknown.is_empty(), "unexplained {unexplained:?}, unknown {unknown:?}");
}
