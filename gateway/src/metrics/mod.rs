//! What the gateway counts.
//!
//! Owns the registry, the names and the handles. Counting on the hot path is an index and an atomic addition: no label
//! is looked up for a packet. Figures that others keep, such as the adapter's, are read when metrics are asked for.

mod backends;
mod family;
mod forwards;
mod labels;
mod listeners;
mod source;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use prometheus::core::{Collector, Metric as _};
use prometheus::{
    Gauge, Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry,
    TextEncoder,
};

use crate::config::Transport;

pub use backends::BackendMetrics;
pub use family::{Counters, Gauges};
pub use forwards::ForwardMetrics;
pub use labels::{
    AuthRefusal, BackendDrop, CloseReason, ConnectionRefusal, ForwardResult, ForwardSide, ForwardedResult,
    Fullness, JwksFetch, Label, Listener, PacketKind, Refusal, ReloadResult, SentAway, SessionEnd, SpanDrop,
    UpgradeResult,
};
pub use listeners::ListenerMetrics;
pub use source::{Source, SourceKind};

/// Namespaces that get a series of their own. Later ones share "other": with patterns, clients choose names.
const MAX_NAMESPACES: usize = 100;

/// From a write at once to a client that hardly reads, in seconds.
const LATENCY_BUCKETS: [f64; 16] = [
    0.000_05, 0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5,
    5.0,
];

const SOCKETS_HELP: &str = "Sockets connected to a namespace of this node.";

fn opts(name: &str, help: &str) -> Opts {
    Opts::new(name, help).namespace("roomcast")
}

fn registered<C: Collector + Clone + 'static>(registry: &Registry, collector: prometheus::Result<C>) -> C {
    let collector = collector.expect("a valid name");
    registry.register(Box::new(collector.clone())).expect("a name of its own");
    collector
}

/// The metrics of one node.
pub struct Metrics {
    registry: Registry,
    /// Open connections.
    pub connections: Gauges<Transport>,
    /// Connections that were opened. An upgrade does not open one.
    pub connections_opened: Counters<Transport>,
    /// Connections that ended.
    pub connections_closed: Counters<CloseReason>,
    /// Sockets that left their namespace.
    pub disconnects: Counters<CloseReason>,
    /// Handshakes and requests that were refused.
    pub handshakes_refused: Counters<Refusal>,
    /// Connections that were closed so that their clients come back, to this node or to another one.
    pub sent_away: Counters<SentAway>,
    /// 1 while the node drains.
    pub draining: IntGauge,
    /// 1 while the node gives connections away to others.
    pub rebalancing: IntGauge,
    /// Times the node gave up: who was sent away came back to it.
    pub rebalance_gave_up: IntCounter,
    /// 1 while the node has as much as it takes.
    pub full: Gauges<Fullness>,
    /// Upgrades from polling to WebSocket.
    pub upgrades: Counters<UpgradeResult>,
    /// Packets from clients.
    pub packets_received: Counters<PacketKind>,
    /// Packets to clients.
    pub packets_sent: Counters<PacketKind>,
    /// Bytes from clients, without HTTP headers and TLS.
    pub bytes_received: Counters<Transport>,
    /// Bytes to clients, without HTTP headers and TLS.
    pub bytes_sent: Counters<Transport>,
    /// Configurations that were read again while the node ran, and had changed.
    pub reloads: Counters<ReloadResult>,
    /// Events from clients.
    pub events_received: IntCounter,
    /// Acks from clients.
    pub acks_received: IntCounter,
    /// Clients that were not let in, and sessions that were not extended.
    pub auth_refused: Counters<AuthRefusal>,
    /// Sessions that ended before their socket did.
    pub sessions_ended: Counters<SessionEnd>,
    /// Requests to the issuer of tokens for its keys.
    pub jwks_fetches: Counters<JwksFetch>,
    /// Events above the limit of their socket.
    pub events_limited: IntCounter,
    /// Spans that did not reach the collector.
    pub spans_dropped: Arc<Counters<SpanDrop>>,
    /// Spans that the collector took.
    pub spans_exported: IntCounter,
    emit_to_write: Histogram,
    remote_emit_to_write: Histogram,
    bus_round_trip: Histogram,
    event_loop_lag: Histogram,
    handshake: Histogram,
    violations: IntCounterVec,
    api_requests: IntCounterVec,
    ingested: IntCounterVec,
    ingest_up: IntGaugeVec,
    sockets: Mutex<HashMap<String, IntGauge>>,
    /// What goes to backends.
    pub backends: BackendMetrics,
    /// Requests that nodes pass on to each other.
    pub forwards: ForwardMetrics,
    /// What happens where connections come in.
    pub listeners: ListenerMetrics,
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl Metrics {
    /// Metrics with a registry of their own.
    pub fn new() -> Self {
        let registry = Registry::new();
        let counter = |name: &str, help: &str| {
            let counter = IntCounter::with_opts(opts(name, help)).expect("a valid name");
            registry.register(Box::new(counter.clone())).expect("a name of its own");
            counter
        };
        let gauge = |name: &str, help: &str| {
            let gauge = IntGauge::with_opts(opts(name, help)).expect("a valid name");
            registry.register(Box::new(gauge.clone())).expect("a name of its own");
            gauge
        };
        let counters = |name: &str, help: &str, labels: &[&str]| {
            let counters = IntCounterVec::new(opts(name, help), labels).expect("a valid name");
            registry.register(Box::new(counters.clone())).expect("a name of its own");
            counters
        };
        let gauges = |name: &str, help: &str, labels: &[&str]| {
            let gauges = IntGaugeVec::new(opts(name, help), labels).expect("a valid name");
            registry.register(Box::new(gauges.clone())).expect("a name of its own");
            gauges
        };
        let histogram = |name: &str, help: &str| {
            let opts = HistogramOpts::from(opts(name, help)).buckets(LATENCY_BUCKETS.to_vec());
            let histogram = Histogram::with_opts(opts).expect("a valid name");
            registry.register(Box::new(histogram.clone())).expect("a name of its own");
            histogram
        };
        process(&registry);
        Self {
            connections: Gauges::new(&registry, "connections", "Open connections."),
            connections_opened: Counters::new(
                &registry,
                "connections_opened_total",
                "Connections that were opened.",
            ),
            connections_closed: Counters::new(
                &registry,
                "connections_closed_total",
                "Connections that ended.",
            ),
            disconnects: Counters::new(&registry, "disconnects_total", "Sockets that left their namespace."),
            handshakes_refused: Counters::new(
                &registry,
                "handshakes_refused_total",
                "Handshakes and requests that were refused.",
            ),
            sent_away: Counters::new(
                &registry,
                "connections_sent_away_total",
                "Connections that were closed so that their clients come back, here or to another node.",
            ),
            draining: gauge("draining", "1 while the node drains."),
            rebalancing: gauge("rebalancing", "1 while the node gives connections away to others."),
            rebalance_gave_up: counter(
                "rebalance_gave_up_total",
                "Times the node stopped giving connections away, as their clients came back to it.",
            ),
            full: Gauges::new(&registry, "full", "1 while the node has as much as it takes."),
            upgrades: Counters::new(&registry, "upgrades_total", "Upgrades from polling to WebSocket."),
            reloads: Counters::new(
                &registry,
                "config_reloads_total",
                "Configurations that were read again while the node ran, and had changed.",
            ),
            packets_received: Counters::new(&registry, "packets_received_total", "Packets from clients."),
            packets_sent: Counters::new(&registry, "packets_sent_total", "Packets to clients."),
            bytes_received: Counters::new(
                &registry,
                "bytes_received_total",
                "Bytes from clients, without HTTP headers and TLS.",
            ),
            bytes_sent: Counters::new(
                &registry,
                "bytes_sent_total",
                "Bytes to clients, without HTTP headers and TLS.",
            ),
            events_received: counter("events_received_total", "Events from clients."),
            acks_received: counter("acks_received_total", "Acks from clients."),
            auth_refused: Counters::new(
                &registry,
                "auth_refused_total",
                "Clients that were not let in, and sessions that were not extended.",
            ),
            sessions_ended: Counters::new(
                &registry,
                "sessions_ended_total",
                "Sessions that ended before their socket did.",
            ),
            jwks_fetches: Counters::new(
                &registry,
                "jwks_fetches_total",
                "Requests to the issuer of tokens for its keys.",
            ),
            events_limited: counter("events_limited_total", "Events above the limit of their socket."),
            emit_to_write: histogram(
                "emit_to_write_seconds",
                "From an emit, or its arrival from another node, to the write to a client.",
            ),
            remote_emit_to_write: histogram(
                "remote_emit_to_write_seconds",
                "From an emit on another node to the write to a client, as far as that can be told.",
            ),
            bus_round_trip: histogram(
                "bus_round_trip_seconds",
                "From a sign of life of this node until it came back from the broker.",
            ),
            event_loop_lag: histogram(
                "event_loop_lag_seconds",
                "How late a timer of the runtime was; up to a millisecond is its grain.",
            ),
            spans_dropped: Arc::new(Counters::new(
                &registry,
                "trace_spans_dropped_total",
                "Spans that did not reach the collector.",
            )),
            spans_exported: counter("trace_spans_exported_total", "Spans that the collector took."),
            handshake: histogram("handshake_seconds", "From a handshake request to its answer."),
            violations: counters("protocol_violations_total", "Packets against the protocol.", &["code"]),
            api_requests: counters("api_requests_total", "Requests to the HTTP API.", &["call", "status"]),
            ingested: counters(
                "ingest_messages_total",
                "Messages of backends that came over a broker.",
                &["source", "result"],
            ),
            ingest_up: gauges(
                "ingest_up",
                "1 while messages of backends can come over a broker.",
                &["source"],
            ),
            sockets: Mutex::new(HashMap::new()),
            backends: BackendMetrics::new(&registry),
            forwards: ForwardMetrics::new(&registry),
            listeners: ListenerMetrics::new(&registry),
            registry,
        }
    }

    /// The gauge of a namespace's sockets. To be kept by the namespace, not asked for by each socket.
    pub fn sockets(&self, namespace: &str) -> IntGauge {
        let mut sockets = self.sockets.lock();
        let name = if sockets.contains_key(namespace) || sockets.len() < MAX_NAMESPACES {
            namespace
        } else {
            "other"
        };
        let make = || {
            let opts = opts("sockets", SOCKETS_HELP).const_label("namespace", name);
            let gauge = IntGauge::with_opts(opts).expect("a valid name");
            self.registry.register(Box::new(gauge.clone())).expect("one for each namespace");
            gauge
        };
        sockets.entry(name.to_owned()).or_insert_with(make).clone()
    }

    /// Counts a packet against the protocol, by the stable code of the violation.
    pub fn violation(&self, code: &'static str) {
        self.violations.with_label_values(&[code]).inc();
    }

    /// Counts a request to the HTTP API.
    pub fn api_request(&self, call: &'static str, status: http::StatusCode) {
        self.api_requests.with_label_values(&[call, status.as_str()]).inc();
    }

    /// Counts a message of a backend that came over a broker, by what became of it.
    pub fn ingested(&self, source: &'static str, result: &'static str) {
        self.ingested.with_label_values(&[source, result]).inc();
    }

    /// Whether messages of backends can come this way now. The series appears with the first call.
    pub fn set_ingest_up(&self, source: &'static str, up: bool) {
        self.ingest_up.with_label_values(&[source]).set(i64::from(up));
    }

    /// How long a packet took from its emit to the write to a client; of one of another node, from its arrival here, before
    /// which it had been on its way for so long.
    pub fn observe_emit_to_write(&self, latency: Duration, travelled: Option<Duration>) {
        self.emit_to_write.observe(latency.as_secs_f64());
        if let Some(travelled) = travelled {
            self.remote_emit_to_write.observe((latency + travelled).as_secs_f64());
        }
    }

    /// How long it took the broker to give back what this node said.
    pub fn observe_round_trip(&self, took: Duration) {
        self.bus_round_trip.observe(took.as_secs_f64());
    }

    /// How late a task got its turn.
    pub fn observe_lag(&self, lag: Duration) {
        self.event_loop_lag.observe(lag.as_secs_f64());
    }

    /// How long a handshake took to be answered.
    pub fn observe_handshake(&self, latency: Duration) {
        self.handshake.observe(latency.as_secs_f64());
    }

    /// Events that were written to clients.
    pub fn deliveries(&self) -> u64 {
        self.packets_sent.of(PacketKind::Event).get() + self.packets_sent.of(PacketKind::BinaryEvent).get()
    }

    /// What was not delivered, for all reasons, those that others count too. Collects everything: not for hot paths.
    pub fn dropped_total(&self) -> u64 {
        let families = self.registry.gather();
        let dropped = families.iter().filter(|family| family.name() == "roomcast_dropped_total");
        dropped
            .flat_map(|family| family.get_metric())
            .map(|metric| metric.get_counter().get_value() as u64)
            .sum()
    }

    /// How many writes took no longer than so many seconds since their emit, for each bound of the histogram and for none,
    /// as of one moment.
    pub fn emit_to_write_buckets(&self) -> Vec<(f64, u64)> {
        let metric = self.emit_to_write.metric();
        let histogram = metric.get_histogram();
        let bounded = histogram.get_bucket().iter();
        let bounded = bounded.map(|bucket| (bucket.upper_bound(), bucket.cumulative_count()));
        bounded.chain([(f64::INFINITY, histogram.get_sample_count())]).collect()
    }

    /// Adds a figure that somebody else keeps. An error says that the name is taken or is none.
    pub fn register_source(&self, source: Source) -> prometheus::Result<()> {
        self.registry.register(Box::new(source::SourceCollector::new(source)?))
    }

    /// All metrics as they are.
    #[cfg(test)]
    pub(crate) fn families(&self) -> Vec<prometheus::proto::MetricFamily> {
        self.registry.gather()
    }

    /// All metrics in the text format of Prometheus, version 0.0.4.
    pub fn render(&self) -> String {
        let mut text = String::new();
        let encoded = TextEncoder::new().encode_utf8(&self.registry.gather(), &mut text);
        encoded.expect("all families have a name and samples");
        text
    }
}

/// What the process is, and what it takes. The names of the latter are those that Prometheus gives them everywhere.
fn process(registry: &Registry) {
    let info = opts("build_info", "What this node was built from.")
        .const_label("version", env!("CARGO_PKG_VERSION"))
        .const_label("commit", option_env!("ROOMCAST_COMMIT").unwrap_or("unknown"))
        .const_label("rustc", env!("ROOMCAST_RUSTC"))
        .const_label("features", if cfg!(feature = "otlp") { "otlp" } else { "" });
    let info = Gauge::with_opts(info).expect("a valid name");
    info.set(1.0);
    registry.register(Box::new(info)).expect("a name of its own");
    #[cfg(target_os = "linux")]
    let of_system = prometheus::process_collector::ProcessCollector::for_self();
    #[cfg(not(target_os = "linux"))]
    let of_system = started();
    registry.register(Box::new(of_system)).expect("names of their own");
}

/// Where the system does not tell.
#[cfg(not(target_os = "linux"))]
fn started() -> Gauge {
    use std::time::{SystemTime, UNIX_EPOCH};
    let opts = Opts::new("process_start_time_seconds", "When the process started, in seconds since 1970.");
    let start = Gauge::with_opts(opts).expect("a valid name");
    start.set(SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |time| time.as_secs_f64()));
    start
}

impl std::fmt::Debug for Metrics {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Metrics").finish_non_exhaustive()
    }
}

/// Metrics as they are passed around.
pub type SharedMetrics = Arc<Metrics>;

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    /// Reads the text format: each series with its value. Panics where the format is broken.
    fn series(text: &str) -> HashMap<&str, f64> {
        let (mut described, mut found) = (HashSet::new(), HashMap::new());
        let mut current = ("", "");
        for line in text.lines() {
            if let Some(help) = line.strip_prefix("# HELP ") {
                let name = help.split(' ').next().unwrap();
                assert!(described.insert(name), "{name} is described twice");
                assert!(help.len() > name.len() + 5, "{name} has no help");
            } else if let Some(kind) = line.strip_prefix("# TYPE ") {
                current = kind.split_once(' ').unwrap();
                assert!(described.contains(current.0), "{} has no help", current.0);
                assert_eq!(current.0.ends_with("_total"), current.1 == "counter", "{}", current.0);
            } else {
                let (name, value) = line.rsplit_once(' ').unwrap();
                assert!(name.starts_with(current.0), "{name} stands under {}", current.0);
                assert!(found.insert(name, value.parse().unwrap()).is_none(), "{name} stands twice");
            }
        }
        found
    }

    #[test]
    fn what_is_counted_is_rendered() {
        let metrics = Metrics::new();
        metrics.connections.of(Transport::Websocket).inc();
        metrics.packets_sent.inc(PacketKind::Event);
        metrics.packets_sent.inc(PacketKind::BinaryEvent);
        metrics.connections_closed.inc(CloseReason::SlowConsumer);
        metrics.sockets("/").add(3);
        metrics.violation("invalid_payload");
        metrics.api_request("emit", http::StatusCode::ACCEPTED);
        metrics.observe_emit_to_write(Duration::from_micros(60), None);
        metrics.observe_emit_to_write(Duration::from_secs(9), Some(Duration::from_millis(2)));
        let text = metrics.render();
        let series = series(&text);
        let expected = [
            ("roomcast_connections{transport=\"websocket\"}", 1.0),
            ("roomcast_connections{transport=\"polling\"}", 0.0),
            ("roomcast_packets_sent_total{type=\"event\"}", 1.0),
            ("roomcast_connections_closed_total{reason=\"slow_consumer\"}", 1.0),
            ("roomcast_sockets{namespace=\"/\"}", 3.0),
            ("roomcast_protocol_violations_total{code=\"invalid_payload\"}", 1.0),
            ("roomcast_api_requests_total{call=\"emit\",status=\"202\"}", 1.0),
            ("roomcast_emit_to_write_seconds_bucket{le=\"0.00005\"}", 0.0),
            ("roomcast_emit_to_write_seconds_bucket{le=\"0.0001\"}", 1.0),
            ("roomcast_emit_to_write_seconds_count", 2.0),
            ("roomcast_remote_emit_to_write_seconds_sum", 9.002),
        ];
        for (name, value) in expected {
            assert_eq!(series.get(name), Some(&value), "{name} in\n{text}");
        }
        assert!(series["process_start_time_seconds"] > 1.7e9);
        assert_eq!(metrics.deliveries(), 2);
    }

    #[test]
    fn namespaces_are_bounded() {
        let metrics = Metrics::new();
        for number in 0..MAX_NAMESPACES + 50 {
            metrics.sockets(&format!("/{number}")).inc();
        }
        let text = metrics.render();
        let series = series(&text);
        assert_eq!(series["roomcast_sockets{namespace=\"other\"}"], 50.0);
        assert_eq!(
            series.keys().filter(|name| name.starts_with("roomcast_sockets{")).count(),
            MAX_NAMESPACES + 1
        );
    }

    #[test]
    fn sources_are_read_when_asked_and_join_a_family() {
        let metrics = Metrics::new();
        let source = |kind, name, help, labels, value: f64| Source {
            kind,
            name,
            help,
            labels,
            read: Box::new(move || value),
        };
        metrics.register_source(source(SourceKind::Gauge, "rooms", "Rooms of this node.", &[], 7.0)).unwrap();
        let labels = &[("reason", "oversized")];
        let help = "What was not delivered.";
        metrics.register_source(source(SourceKind::Counter, "dropped_total", help, labels, 2.0)).unwrap();
        let text = metrics.render();
        let series = series(&text);
        assert_eq!(series["roomcast_rooms"], 7.0);
        assert_eq!(series["roomcast_dropped_total{reason=\"oversized\"}"], 2.0);
        assert!(
            metrics
                .register_source(source(SourceKind::Gauge, "rooms", "Rooms of this node.", &[], 0.0))
                .is_err()
        );
    }
}
