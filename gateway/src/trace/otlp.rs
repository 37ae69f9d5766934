//! Spans to a collector, by OTLP over HTTP with protobuf. Owns one task, which sends what is over in batches; what cannot
//! be sent is dropped and counted, and nobody waits for it.

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use opentelemetry::trace::{SpanContext, SpanId, SpanKind, Status, TraceFlags, TraceId, TraceState};
use opentelemetry::{InstrumentationScope, KeyValue};
use opentelemetry_otlp::{Protocol, SpanExporter, WithExportConfig as _, WithHttpConfig as _};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::{SpanData, SpanEvents, SpanExporter as _, SpanLinks};
use tokio::sync::{mpsc, watch};

use super::{Finished, Kind, TraceError, Tracer, Value};
use crate::config;
use crate::metrics::{Metrics, SpanDrop};

/// Spans in one request.
const BATCH: usize = 512;
/// How long a span waits for others to be sent with.
const PAUSE: Duration = Duration::from_secs(1);

/// The task that sends.
pub(super) struct Export {
    ending: watch::Sender<bool>,
    task: tokio::task::JoinHandle<()>,
}

pub(super) fn start(
    settings: &config::Trace,
    url: String,
    metrics: &Arc<Metrics>,
) -> Result<(Tracer, Export), TraceError> {
    let collector = |error: &dyn std::error::Error| TraceError::Collector(crate::outbound::causes(error));
    let client = crate::outbound::client(settings.ca_file.as_deref(), settings.timeout)
        .map_err(|error| collector(&error))?;
    let mut exporter = SpanExporter::builder()
        .with_http()
        .with_http_client(client)
        .with_endpoint(url)
        // Whatever the environment says: there is no other here.
        .with_protocol(Protocol::HttpBinary)
        .with_timeout(settings.timeout)
        .with_headers(headers(settings))
        .build()
        .map_err(|error| collector(&error))?;
    let resource = Resource::builder()
        .with_service_name(settings.service_name.clone())
        .with_attribute(KeyValue::new("service.version", env!("CARGO_PKG_VERSION")));
    exporter.set_resource(&resource.build());
    let (sink, spans) = mpsc::channel(settings.queue);
    let tracer =
        Tracer::new(settings.sample, settings.trust_clients, sink, Arc::clone(&metrics.spans_dropped));
    let (ending, is_ending) = watch::channel(false);
    let task = tokio::spawn(run(exporter, spans, is_ending, Arc::clone(metrics)));
    Ok((tracer, Export { ending, task }))
}

fn headers(settings: &config::Trace) -> HashMap<String, String> {
    let pairs = settings.headers.iter().filter_map(|header| header.expose().split_once('='));
    pairs.map(|(name, value)| (name.trim().to_owned(), value.trim().to_owned())).collect()
}

impl Export {
    /// Sends what is left, for a while at most. Spans that come later are dropped.
    pub(super) async fn end(self, at_most: Duration) {
        self.ending.send_replace(true);
        if tokio::time::timeout(at_most, self.task).await.is_err() {
            tracing::warn!("spans were not sent before the end");
        }
    }
}

async fn run(
    exporter: SpanExporter,
    mut spans: mpsc::Receiver<Finished>,
    mut ending: watch::Receiver<bool>,
    metrics: Arc<Metrics>,
) {
    let scope = InstrumentationScope::builder("roomcast").with_version(env!("CARGO_PKG_VERSION")).build();
    let mut batch = Vec::new();
    let (mut is_ending, mut is_failing) = (false, false);
    loop {
        tokio::select! {
            count = spans.recv_many(&mut batch, BATCH) => if count == 0 { return },
            _ = ending.wait_for(|ending| *ending), if !is_ending => {
                is_ending = true;
                spans.close();
                continue;
            }
        }
        if batch.len() < BATCH && !is_ending {
            gather(&mut spans, &mut batch, &mut ending).await;
        }
        let count = batch.len() as u64;
        let data = batch.drain(..).map(|span| data_of(span, &scope)).collect();
        match exporter.export(data).await {
            Ok(()) => {
                is_failing = false;
                metrics.spans_exported.inc_by(count);
            }
            Err(error) => {
                metrics.spans_dropped.of(SpanDrop::Export).inc_by(count);
                // Once for each outage: the counter has the rest.
                if !std::mem::replace(&mut is_failing, true) {
                    tracing::warn!(%error, spans = count, "spans cannot be sent, and are dropped");
                }
            }
        }
    }
}

/// Waits for more to be sent together.
async fn gather(
    spans: &mut mpsc::Receiver<Finished>,
    batch: &mut Vec<Finished>,
    ending: &mut watch::Receiver<bool>,
) {
    let filling = async {
        while batch.len() < BATCH {
            let places = BATCH - batch.len();
            if spans.recv_many(batch, places).await == 0 {
                break;
            }
        }
    };
    tokio::select! {
        _ = tokio::time::timeout(PAUSE, filling) => {}
        _ = ending.wait_for(|ending| *ending) => {}
    }
}

fn data_of(span: Finished, scope: &InstrumentationScope) -> SpanData {
    let mut attributes: Vec<_> = span.values.into_iter().map(|(key, value)| attribute(key, value)).collect();
    attributes.extend(span.error.map(|code| KeyValue::new("error.type", code)));
    SpanData {
        span_context: SpanContext::new(
            TraceId::from(span.context.trace()),
            SpanId::from(span.context.span()),
            TraceFlags::SAMPLED,
            false,
            TraceState::default(),
        ),
        parent_span_id: span.parent.map_or(SpanId::INVALID, |parent| SpanId::from(parent.span())),
        parent_span_is_remote: matches!(span.kind, Kind::Server | Kind::Consumer) && span.parent.is_some(),
        span_kind: match span.kind {
            Kind::Server => SpanKind::Server,
            Kind::Client => SpanKind::Client,
            Kind::Producer => SpanKind::Producer,
            Kind::Consumer => SpanKind::Consumer,
        },
        name: Cow::Borrowed(span.name),
        start_time: span.began,
        end_time: span.ended,
        attributes,
        dropped_attributes_count: 0,
        events: SpanEvents::default(),
        links: SpanLinks::default(),
        status: span.error.map_or(Status::Unset, Status::error),
        instrumentation_scope: scope.clone(),
    }
}

fn attribute(key: &'static str, value: Value) -> KeyValue {
    match value {
        Value::Text(text) => KeyValue::new(key, text),
        Value::Number(number) => KeyValue::new(key, number),
        Value::Seconds(seconds) => KeyValue::new(key, seconds),
    }
}
