//! Traces by OpenTelemetry.

use std::path::PathBuf;
use std::time::Duration;

use super::section::section;
use super::validate::{form, not_http_url, zeros};
use super::{Problem, Secret, units};

/// The most of `queue`.
const MAX_QUEUE: usize = 1 << 20;

section! {
    /// Traces, sent to a collector by OpenTelemetry's protocol (OTLP over HTTP with protobuf). Off without an endpoint. The
    /// released image has them; a build of one's own needs `--features otlp`. OTEL_EXPORTER_OTLP_ENDPOINT,
    /// OTEL_EXPORTER_OTLP_TRACES_ENDPOINT and OTEL_SERVICE_NAME stand for what is not set here, and
    /// OTEL_RESOURCE_ATTRIBUTES is heeded.
    pub struct Trace {
        /// Where the collector takes OTLP over HTTP: a URL, to which /v1/traces is added.
        endpoint: Option<String> = None; example "\"http://otel-collector:4318\"",
        /// The same with its path, instead of `endpoint`: a URL that is used as it is.
        traces_endpoint: Option<String> = None; example "\"http://otel-collector:4318/v1/traces\"",
        /// The share of traces that is recorded of those that begin at the gateway or at a client, from 0 to 1. A caller of the
        /// API that comes with a `traceparent` has decided itself.
        sample: f64 = 0.01,
        /// Whether clients that come with a `traceparent` decide themselves, too: only where all of them are known.
        trust_clients: bool = false,
        /// The name of the service in traces.
        service_name: String = "roomcast".to_owned(),
        /// Headers for the collector, each "name=value", "env:NAME" or "file:PATH".
        headers: Vec<Secret> = Vec::new(); example "[\"env:OTLP_AUTHORIZATION\"]",
        /// Authorities to trust instead of the system's, for a collector with https: a PEM file.
        ca_file: Option<PathBuf> = None; example "\"/etc/roomcast/ca.pem\"",
        /// How long one request to the collector may take.
        #[serde(with = "units::duration")]
        timeout: Duration = Duration::from_secs(10),
        /// Spans that may wait to be sent. What is more is dropped, and counted.
        queue: usize = 4_096,
    }
}

impl Trace {
    /// Where spans are sent, if they are.
    pub(crate) fn url(&self) -> Option<String> {
        let of_base = |base: &String| format!("{}/v1/traces", base.trim_end_matches('/'));
        self.traces_endpoint.clone().or_else(|| self.endpoint.as_ref().map(of_base))
    }
}

/// What must hold for traces.
pub(super) fn problems(trace: &Trace, problems: &mut Vec<Problem>) {
    problems.extend(not_http_url("trace.endpoint", trace.endpoint.as_deref()));
    problems.extend(not_http_url("trace.traces_endpoint", trace.traces_endpoint.as_deref()));
    if !(0.0..=1.0).contains(&trace.sample) {
        problems.push(form("trace.sample", &trace.sample.to_string(), "a number from 0 to 1"));
    }
    let is_header = |text: &str| {
        text.split_once('=').is_some_and(|(name, value)| {
            name.trim().parse::<http::HeaderName>().is_ok()
                && value.trim().parse::<http::HeaderValue>().is_ok()
        })
    };
    if trace.headers.iter().any(|header| !is_header(header.expose())) {
        problems.push(form("trace.headers", "***", "a header in the form name=value"));
    }
    if trace.service_name.is_empty() {
        problems.push(Problem::Empty("trace.service_name".to_owned()));
    }
    if trace.queue > MAX_QUEUE {
        problems.push(form("trace.queue", &trace.queue.to_string(), "a number up to 1048576"));
    }
    problems.extend(zeros([("trace.queue", trace.queue == 0), ("trace.timeout", trace.timeout.is_zero())]));
}
