//! `request`: an event that clients answer. Owns when there are answers enough; who has not answered is named.

use std::collections::BTreeSet;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::{Stream, StreamExt as _};
use roomcast_adapter::{AckEvent, AckStream, NodeTag, SocketId, TraceContext};
use roomcast_protocol::socketio::Args;
use schemars::JsonSchema;
use serde::de::{Error as _, Unexpected};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;
use serde_json::value::RawValue;

use super::args::{arguments, check_event};
use super::selector::{Lists, To, selector};
use super::{Caller, Calls, Scope, Verb, read};
use crate::backend::Problem;
use crate::trace::{self, Span};

/// How long answers are awaited unless the caller says it, in milliseconds.
pub(super) const DEFAULT_TIMEOUT: u64 = 10_000;
/// How long they are awaited at most.
pub(super) const MAX_TIMEOUT: u64 = 60_000;

/// An event that clients answer, and whom to ask.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Request {
    /// The namespace, "/" if none is named.
    namespace: Option<String>,
    /// The name of the event.
    #[schemars(length(min = 1))]
    event: String,
    /// Its arguments. `{"$bin":"<base64>"}` stands for binary.
    #[schemars(with = "Option<Vec<serde_json::Value>>")]
    args: Option<Box<RawValue>>,
    /// Who is asked.
    #[schemars(with = "To")]
    to: Option<To>,
    /// Who is not.
    except: Option<Lists>,
    /// How long answers are awaited, in milliseconds; 10000 if it is not said.
    #[schemars(range(min = 1, max = 60_000))]
    timeout: Option<u64>,
    /// How many answers are enough: "all", "first" or a number.
    #[serde(default)]
    #[schemars(with = "Option<ExpectForm>")]
    expect: Expect,
}

/// How many answers are enough.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Expect {
    #[default]
    All,
    AtLeast(usize),
}

/// As it is written.
#[derive(JsonSchema)]
#[serde(untagged)]
#[expect(dead_code, reason = "the form of `Expect` for the schema")]
enum ExpectForm {
    Word(ExpectWord),
    Number(#[schemars(range(min = 1))] u32),
}

#[derive(JsonSchema)]
#[serde(rename_all = "lowercase")]
#[expect(dead_code, reason = "the form of `Expect` for the schema")]
enum ExpectWord {
    All,
    First,
}

impl<'de> Deserialize<'de> for Expect {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let expected = &"\"all\", \"first\" or a number from 1";
        match Value::deserialize(deserializer)? {
            Value::Null => Ok(Self::All),
            Value::String(word) if word == "all" => Ok(Self::All),
            Value::String(word) if word == "first" => Ok(Self::AtLeast(1)),
            Value::String(word) => Err(D::Error::invalid_value(Unexpected::Str(&word), expected)),
            Value::Number(number) => match number.as_u64().and_then(|number| usize::try_from(number).ok()) {
                Some(enough @ 1..) => Ok(Self::AtLeast(enough)),
                _ => Err(D::Error::invalid_value(Unexpected::Other(&number.to_string()), expected)),
            },
            _ => Err(D::Error::custom(format!("`expect` has to be {expected}"))),
        }
    }
}

/// One answer of a client.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub(crate) struct AckAnswer {
    #[schemars(with = "String")]
    socket: SocketId,
    /// What it answered. `{"$bin":"<base64>"}` stands for binary.
    #[schemars(with = "Vec<serde_json::Value>")]
    args: Value,
}

/// Who answered, and who did not.
#[derive(Debug, Clone, Default, Serialize, JsonSchema)]
pub(crate) struct Summary {
    /// The sockets that were asked.
    expected: usize,
    /// The answers that came.
    received: usize,
    /// The sockets that were asked and did not answer in time, or left before. Nobody when there were answers enough.
    #[schemars(with = "Vec<String>")]
    timed_out: Vec<SocketId>,
    /// The nodes that died or did not say whom they asked: their sockets may not be among `expected`.
    #[schemars(with = "Vec<String>")]
    lost_nodes: Vec<NodeTag>,
}

/// All the answers, in the order in which they came.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct RequestAnswer {
    acks: Vec<AckAnswer>,
    #[serde(flatten)]
    summary: Summary,
}

/// One thing that comes of a request.
#[derive(Debug)]
pub(crate) enum AckItem {
    /// An answer.
    Ack(AckAnswer),
    /// The end.
    Summary(Summary),
}

/// The answers as they come, and a summary at the end. Whoever drops it waits no more, and neither do the nodes.
pub(crate) struct Answers {
    acks: Option<AckStream>,
    expect: Expect,
    open: BTreeSet<SocketId>,
    summary: Summary,
    /// The emit, until the last answer is there.
    span: Span,
    /// The call that it is a part of, where nobody else keeps it.
    _call: Option<Span>,
}

impl Calls {
    /// Asks, and gives the answers as they come: a call of its own, whose span ends with the answers.
    pub(crate) fn request_by_lines(
        &self,
        caller: &Caller,
        body: &[u8],
        trace: Option<TraceContext>,
    ) -> Result<Answers, Problem> {
        let mut call = self.recorded(caller, Verb::Request.as_str(), trace);
        let asked = read(body).and_then(|request| self.request(caller, request, call.context()));
        match asked {
            Ok(answers) => Ok(Answers { _call: Some(call), ..answers }),
            Err(problem) => {
                call.failed(problem.code.as_str());
                Err(problem)
            }
        }
    }

    fn request(
        &self,
        caller: &Caller,
        request: Request,
        trace: Option<TraceContext>,
    ) -> Result<Answers, Problem> {
        let selector = selector(request.to, request.except)?;
        check_event(&request.event)?;
        let timeout = timeout(request.timeout)?;
        let args = arguments(request.args.as_deref(), self.max_attachments)?;
        let (_, adapter) = self.namespace(caller, Scope::Emit, request.namespace.as_deref())?;
        caller.check_reach(&selector)?;
        let namespace = request.namespace.as_deref().unwrap_or("/");
        let span = trace::emitting(&self.tracer, trace, namespace, &request.event);
        let acks = adapter.broadcast_with_ack(&selector, &request.event, &args, timeout, span.context());
        let (open, summary) = (BTreeSet::new(), Summary::default());
        Ok(Answers { acks: Some(acks), expect: request.expect, open, summary, span, _call: None })
    }

    /// Asks, and waits for all the answers.
    pub(crate) async fn request_all(
        &self,
        caller: &Caller,
        request: Request,
        trace: Option<TraceContext>,
    ) -> Result<RequestAnswer, Problem> {
        let mut answers = self.request(caller, request, trace)?;
        let mut acks = Vec::new();
        while let Some(item) = answers.next().await {
            match item {
                AckItem::Ack(ack) => acks.push(ack),
                AckItem::Summary(summary) => return Ok(RequestAnswer { acks, summary }),
            }
        }
        Ok(RequestAnswer { acks, summary: Summary::default() })
    }
}

pub(super) fn timeout(milliseconds: Option<u64>) -> Result<Duration, Problem> {
    let milliseconds = milliseconds.unwrap_or(DEFAULT_TIMEOUT);
    if !(1..=MAX_TIMEOUT).contains(&milliseconds) {
        return Err(Problem::invalid(format!("`timeout` has to be from 1 to {MAX_TIMEOUT} milliseconds")));
    }
    Ok(Duration::from_millis(milliseconds))
}

/// Arguments that a client sent, as JSON.
pub(super) fn args_value(args: &Args) -> Value {
    // What came through the parser of the protocol is JSON, and its placeholders are in range.
    args.to_json_array().unwrap_or_default()
}

impl Answers {
    fn enough(&self) -> bool {
        matches!(self.expect, Expect::AtLeast(enough) if self.summary.received >= enough)
    }

    fn finish(&mut self) -> Summary {
        self.acks = None;
        let mut summary = std::mem::take(&mut self.summary);
        self.span.number("roomcast.acks.expected", summary.expected);
        self.span.number("roomcast.acks.received", summary.received);
        if !self.enough_of(&summary) {
            summary.timed_out = std::mem::take(&mut self.open).into_iter().collect();
        }
        summary.lost_nodes.sort_unstable();
        summary.lost_nodes.dedup();
        summary
    }

    fn enough_of(&self, summary: &Summary) -> bool {
        matches!(self.expect, Expect::AtLeast(enough) if summary.received >= enough)
    }
}

impl Stream for Answers {
    type Item = AckItem;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<AckItem>> {
        let this = &mut *self;
        loop {
            let enough = this.enough();
            let Some(acks) = &mut this.acks else { return Poll::Ready(None) };
            let event = if enough { None } else { std::task::ready!(acks.poll_next_unpin(cx)) };
            match event {
                None => return Poll::Ready(Some(AckItem::Summary(this.finish()))),
                Some(AckEvent::Asked(ids)) => {
                    this.summary.expected += ids.len();
                    this.open.extend(ids);
                }
                // Who left counts as one who did not answer.
                Some(AckEvent::Gone(_)) => {}
                Some(AckEvent::LostNode(node)) => this.summary.lost_nodes.push(node),
                Some(AckEvent::Ack(socket, args)) => {
                    if this.open.remove(&socket) {
                        this.summary.received += 1;
                        return Poll::Ready(Some(AckItem::Ack(AckAnswer {
                            socket,
                            args: args_value(&args),
                        })));
                    }
                }
            }
        }
    }
}
