//! Spans: what the gateway did for whom, and how long it took, as parts of one trace over clients, nodes and backends.
//!
//! Owns which traces are recorded, and the spans until they are over. Where they go is told by who makes the tracer
//! (`otlp.rs`, where it is compiled in). A trace that is not recorded costs a look at an `Option`: no span is made, and a
//! context that came from outside is passed on as it came, but that of a client without what it says of recording.

#![cfg_attr(not(feature = "otlp"), allow(dead_code, reason = "this build leaves out who sends spans"))]

#[cfg(feature = "otlp")]
mod otlp;
mod setup;

use std::sync::Arc;
use std::time::SystemTime;

use roomcast_adapter::TraceContext;
use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TrySendError;

use crate::metrics::{Counters, SpanDrop};

pub use setup::TraceError;
pub(crate) use setup::start;

/// The most of a text that is kept.
const MAX_TEXT: usize = 256;

/// Names of attributes.
pub(crate) const NAMESPACE: &str = "roomcast.namespace";
pub(crate) const EVENT: &str = "roomcast.event";
pub(crate) const SOCKET: &str = "roomcast.socket";
pub(crate) const BACKEND: &str = "roomcast.backend";

/// Makes spans, or none. Cloning is cheap.
#[derive(Clone, Default)]
pub struct Tracer(Option<Arc<Recorder>>);

struct Recorder {
    /// Of 2^63 traces that begin here, so many are recorded.
    sampled: u64,
    /// Whether clients decide about their traces.
    trusts_clients: bool,
    sink: mpsc::Sender<Finished>,
    dropped: Arc<Counters<SpanDrop>>,
}

/// What a span stands for, in the words of OpenTelemetry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Somebody asked the gateway.
    Server,
    /// The gateway asks somebody and waits.
    Client,
    /// The gateway sends what others will handle later.
    Producer,
    /// What another node sent.
    Consumer,
}

/// What is known beside the times.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Value {
    Text(String),
    Number(i64),
    Seconds(f64),
}

/// A span that is over.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Finished {
    pub(crate) context: TraceContext,
    pub(crate) parent: Option<TraceContext>,
    pub(crate) kind: Kind,
    pub(crate) name: &'static str,
    pub(crate) began: SystemTime,
    pub(crate) ended: SystemTime,
    pub(crate) values: Vec<(&'static str, Value)>,
    /// The code of what went wrong.
    pub(crate) error: Option<&'static str>,
}

/// A span that goes on, or none. It is over when it is dropped.
#[must_use]
pub(crate) struct Span {
    context: Option<TraceContext>,
    recording: Option<Box<Recording>>,
}

struct Recording {
    recorder: Arc<Recorder>,
    finished: Finished,
}

impl Tracer {
    fn new(
        ratio: f64,
        trusts_clients: bool,
        sink: mpsc::Sender<Finished>,
        dropped: Arc<Counters<SpanDrop>>,
    ) -> Self {
        let sampled = (ratio.clamp(0.0, 1.0) * (1_u64 << 63) as f64) as u64;
        Self(Some(Arc::new(Recorder { sampled, trusts_clients, sink, dropped })))
    }

    /// Whether traces are recorded at all.
    pub(crate) fn is_on(&self) -> bool {
        self.0.is_some()
    }

    /// What somebody asks of the gateway. Belongs to the trace that it came with, or begins one if it is its turn.
    pub(crate) fn root(&self, name: &'static str, parent: Option<TraceContext>) -> Span {
        match (&self.0, parent) {
            (Some(recorder), None) => {
                let trace = rand::random::<u128>();
                let is_its_turn = recorder.is_turn_of(trace as u64);
                let context = is_its_turn.then(|| TraceContext::new(trace, rand::random(), true)).flatten();
                Span::recorded(recorder, Kind::Server, name, context, None)
            }
            _ => self.child(Kind::Server, name, parent),
        }
    }

    /// What a client asks of the gateway, in the trace that it came with. Whether that is recorded is not for strangers to say.
    pub(crate) fn client_root(&self, name: &'static str, parent: Option<TraceContext>) -> Span {
        self.root(name, parent.and_then(|parent| self.of_client(parent)))
    }

    /// The trace that a client came with, as far as it is believed. Drawn anew each time: a client may choose its trace's id.
    pub(crate) fn of_client(&self, trace: TraceContext) -> Option<TraceContext> {
        match &self.0 {
            Some(recorder) if !recorder.trusts_clients => {
                TraceContext::new(trace.trace(), trace.span(), recorder.is_turn_of(rand::random()))
            }
            _ => Some(trace),
        }
    }

    /// A part of a trace, if it is recorded.
    pub(crate) fn child(&self, kind: Kind, name: &'static str, parent: Option<TraceContext>) -> Span {
        let recorded = self.0.as_ref().zip(parent.filter(|parent| parent.is_sampled()));
        let Some((recorder, parent)) = recorded else {
            return Span { context: parent, recording: None };
        };
        let context = TraceContext::new(parent.trace(), rand::random(), true);
        Span::recorded(recorder, kind, name, context, Some(parent))
    }
}

impl Recorder {
    /// Whether a trace is recorded, by a number at random.
    fn is_turn_of(&self, random: u64) -> bool {
        random >> 1 < self.sampled
    }
}

impl Span {
    fn recorded(
        recorder: &Arc<Recorder>,
        kind: Kind,
        name: &'static str,
        context: Option<TraceContext>,
        parent: Option<TraceContext>,
    ) -> Self {
        let Some(context) = context else { return Self { context: None, recording: None } };
        let now = SystemTime::now();
        let finished =
            Finished { context, parent, kind, name, began: now, ended: now, values: Vec::new(), error: None };
        Self {
            context: Some(context),
            recording: Some(Box::new(Recording { recorder: Arc::clone(recorder), finished })),
        }
    }

    /// From where the trace goes on: this span, or what came from outside when there is none.
    pub(crate) fn context(&self) -> Option<TraceContext> {
        self.context
    }

    pub(crate) fn is_recording(&self) -> bool {
        self.recording.is_some()
    }

    /// Adds a text, which is made only when it is kept.
    pub(crate) fn text<T: AsRef<str>>(mut self, key: &'static str, text: impl FnOnce() -> T) -> Self {
        if let Some(recording) = &mut self.recording {
            let text = text();
            let text = text.as_ref();
            let end = (0..=MAX_TEXT.min(text.len())).rev().find(|end| text.is_char_boundary(*end));
            let kept = text.get(..end.unwrap_or_default()).unwrap_or_default();
            recording.finished.values.push((key, Value::Text(kept.to_owned())));
        }
        self
    }

    /// Adds a number.
    pub(crate) fn number(&mut self, key: &'static str, number: usize) {
        if let Some(recording) = &mut self.recording {
            recording.finished.values.push((key, Value::Number(i64::try_from(number).unwrap_or(i64::MAX))));
        }
    }

    /// Adds seconds.
    pub(crate) fn seconds(&mut self, key: &'static str, seconds: f64) {
        if let Some(recording) = &mut self.recording {
            recording.finished.values.push((key, Value::Seconds(seconds)));
        }
    }

    /// It began so long ago.
    pub(crate) fn began_before(&mut self, ago: std::time::Duration) {
        if let Some(recording) = &mut self.recording {
            let began = &mut recording.finished.began;
            *began = began.checked_sub(ago).unwrap_or(*began);
        }
    }

    /// It ended with an error of this code.
    pub(crate) fn failed(&mut self, code: &'static str) {
        if let Some(recording) = &mut self.recording {
            recording.finished.error = Some(code);
        }
    }

    /// A span of the log with the id of the trace, so that both can be found by it.
    pub(crate) fn in_logs(&self) -> tracing::Span {
        match &self.recording {
            Some(recording) => {
                let trace_id = recording.finished.context.trace_id();
                tracing::info_span!("trace", trace_id)
            }
            None => tracing::Span::none(),
        }
    }
}

/// The emit of an event, from the call to the broker's answer.
pub(crate) fn emitting(tracer: &Tracer, trace: Option<TraceContext>, namespace: &str, event: &str) -> Span {
    let span = tracer.child(Kind::Producer, "emit", trace);
    span.text(NAMESPACE, || namespace).text(EVENT, || event)
}

impl Drop for Span {
    fn drop(&mut self) {
        let Some(recording) = self.recording.take() else { return };
        let Recording { recorder, mut finished } = *recording;
        finished.ended = SystemTime::now();
        match recorder.sink.try_send(finished) {
            Ok(()) => {}
            Err(TrySendError::Full(_)) => recorder.dropped.inc(SpanDrop::Queue),
            Err(TrySendError::Closed(_)) => recorder.dropped.inc(SpanDrop::Ending),
        }
    }
}

#[cfg(test)]
mod tests {
    use prometheus::Registry;

    use super::*;

    fn tracer(ratio: f64, places: usize) -> (Tracer, mpsc::Receiver<Finished>, Arc<Counters<SpanDrop>>) {
        let (sink, spans) = mpsc::channel(places);
        let dropped = Arc::new(Counters::new(&Registry::new(), "dropped_total", "Spans."));
        (Tracer::new(ratio, false, sink, Arc::clone(&dropped)), spans, dropped)
    }

    fn outside(sampled: bool) -> Option<TraceContext> {
        TraceContext::new(7, 8, sampled)
    }

    #[test]
    fn what_is_not_recorded_is_passed_on_and_makes_no_span() {
        let (off, (never, mut spans, _)) = (Tracer::default(), tracer(0.0, 1));
        for tracer in [&off, &never] {
            for parent in [None, outside(false)] {
                let root = tracer.root("r", parent);
                assert!(!root.is_recording());
                assert_eq!(root.context(), parent);
                let child =
                    tracer.child(Kind::Producer, "c", root.context()).text("k", || -> String { panic!() });
                assert_eq!((child.context(), child.is_recording()), (parent, false));
            }
        }
        assert_eq!(off.root("r", outside(true)).context(), outside(true));
        assert!(spans.try_recv().is_err());
        // Whoever began the trace has decided.
        drop(never.root("r", outside(true)));
        assert_eq!(spans.try_recv().unwrap().parent, outside(true));
    }

    #[test]
    fn one_trace_holds_all_that_comes_of_it() {
        let (tracer, mut spans, _) = tracer(1.0, 10);
        let root = tracer.root("root", None).text("long", || "é".repeat(MAX_TEXT));
        let mut child = tracer.child(Kind::Client, "child", root.context());
        child.failed("timeout");
        let (root_context, child_context) = (root.context().unwrap(), child.context().unwrap());
        drop(child);
        drop(root);
        let (child, root) = (spans.try_recv().unwrap(), spans.try_recv().unwrap());
        assert_eq!((child.name, child.error, child.kind), ("child", Some("timeout"), Kind::Client));
        assert_eq!((child.parent, child.context), (Some(root_context), child_context));
        assert_eq!((root.parent, root.context.trace()), (None, child_context.trace()));
        assert_eq!(root.values, [("long", Value::Text("é".repeat(MAX_TEXT / 2)))]);
        assert!(root.began <= root.ended);
    }

    #[test]
    fn a_share_of_the_traces_is_recorded() {
        let (tracer, _spans, _) = tracer(0.25, 1);
        let recorded = (0..4_000).filter(|_| tracer.root("r", None).is_recording()).count();
        assert!((800..1_200).contains(&recorded), "{recorded}");
    }

    #[test]
    fn clients_decide_only_where_they_are_trusted() {
        let ((never, mut spans, _), (always, _spans, _)) = (tracer(0.0, 1), tracer(1.0, 2));
        for said in [true, false] {
            // The trace goes on to backends, and says what is recorded here.
            let span = never.client_root("r", outside(said));
            assert_eq!((span.context(), span.is_recording()), (outside(false), false));
            let span = always.client_root("r", outside(said));
            assert_eq!(span.context().map(TraceContext::trace), Some(7));
            assert!(span.is_recording() && span.context().is_some_and(TraceContext::is_sampled));
            // Who records nothing has no say.
            assert_eq!(Tracer::default().client_root("r", outside(said)).context(), outside(said));
        }
        assert!(spans.try_recv().is_err());
        let (sink, mut spans) = mpsc::channel(1);
        let dropped = Arc::new(Counters::new(&Registry::new(), "dropped_total", "Spans."));
        let trusting = Tracer::new(0.0, true, sink, dropped);
        assert!(!trusting.client_root("r", outside(false)).is_recording());
        drop(trusting.client_root("r", outside(true)));
        assert_eq!(spans.try_recv().unwrap().parent, outside(true));
    }

    #[test]
    fn spans_that_nobody_takes_are_counted() {
        let (tracer, spans, dropped) = tracer(1.0, 2);
        (0..5).for_each(|_| drop(tracer.root("r", None)));
        assert_eq!(dropped.of(SpanDrop::Queue).get(), 3);
        drop(spans);
        drop(tracer.root("r", None));
        assert_eq!(dropped.of(SpanDrop::Ending).get(), 1);
    }
}
