//! Calls by their names, with bodies as they come: what every transport but HTTP's streams needs, and no more.
//!
//! Owns which body and which status belong to which call. What is not understood is a problem, never a panic.

use roomcast_adapter::TraceContext;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use tracing::Instrument as _;

use super::{Caller, Calls};
use crate::backend::{Code, Problem};
use crate::trace::Span;

/// The name of a call, in traces.
const CALL: &str = "roomcast.call";

/// A call with a body.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Verb {
    /// [`super::Emit`].
    Emit,
    /// [`super::Batch`].
    EmitBatch,
    /// [`super::Request`].
    Request,
    /// [`super::Rooms`].
    Join,
    /// [`super::Rooms`].
    Leave,
    /// [`super::Disconnect`].
    Disconnect,
    /// [`super::ServerEmit`].
    ServerEmit,
    /// [`super::Revoke`].
    RevokeTokens,
    /// [`super::RoomQuery`].
    GetRoom,
    /// [`super::SocketQuery`].
    GetSocket,
    /// [`super::UserQuery`].
    GetUser,
    /// [`super::Replay`].
    Replay,
}

impl Verb {
    /// The name in metrics and logs.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Emit => "emit",
            Self::EmitBatch => "emit_batch",
            Self::Request => "request",
            Self::Join => "join",
            Self::Leave => "leave",
            Self::Disconnect => "disconnect",
            Self::ServerEmit => "server_emit",
            Self::RevokeTokens => "revoke_tokens",
            Self::GetRoom => "room",
            Self::GetSocket => "socket",
            Self::GetUser => "user_sockets",
            Self::Replay => "replay",
        }
    }

    /// Whether the call changes nothing, so that it may be made as often as one likes.
    fn only_reads(self) -> bool {
        matches!(self, Self::GetRoom | Self::GetSocket | Self::GetUser)
    }
}

/// What goes with a call beside its body.
#[derive(Debug, Clone, Default)]
pub(crate) struct Meta {
    /// The same key with the same body within five minutes is the same call, which is carried out once.
    pub(crate) key: Option<String>,
    /// The trace that the call belongs to.
    pub(crate) trace: Option<TraceContext>,
}

/// What a call is answered.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Answer {
    /// The status that it has in HTTP.
    pub(crate) status: u16,
    /// A JSON object. With `duplicate: true` when it is what the first call with the key was answered.
    pub(crate) body: Value,
}

impl Answer {
    fn new(status: u16, body: &impl Serialize) -> Result<Self, Problem> {
        let body =
            serde_json::to_value(body).map_err(|error| Problem::new(Code::Internal, error.to_string()))?;
        Ok(Self { status, body })
    }
}

/// Reads a body.
pub(crate) fn read<T: DeserializeOwned>(body: &[u8]) -> Result<T, Problem> {
    serde_json::from_slice(body).map_err(|error| {
        let code = if error.is_data() { Code::InvalidRequest } else { Code::InvalidJson };
        Problem::new(code, error.to_string())
    })
}

impl Calls {
    /// The span of a call, if it is recorded.
    pub(crate) fn recorded(&self, caller: &Caller, call: &str, trace: Option<TraceContext>) -> Span {
        self.tracer.root("call", trace).text(CALL, || call).text("roomcast.caller", || caller.name())
    }

    /// Carries out a call with a JSON body, once when it has a key. Its transport has counted it to the caller's rate
    /// (`Caller::spend`).
    pub(crate) async fn perform(
        &self,
        caller: &Caller,
        verb: Verb,
        meta: &Meta,
        body: &[u8],
    ) -> Result<Answer, Problem> {
        let mut recorded = self.recorded(caller, verb.as_str(), meta.trace);
        let trace = recorded.context();
        let trace_id = trace.map(TraceContext::trace_id);
        let span = tracing::info_span!("call", call = verb.as_str(), caller = caller.name(), trace_id);
        let call = async {
            match &meta.key {
                Some(key) if !verb.only_reads() => self.once(caller, verb, key, body, trace).await,
                _ => self.carry_out(caller, verb, body, trace).await,
            }
        };
        let result = Box::pin(call.instrument(span.clone())).await;
        if let Err(problem) = &result {
            recorded.failed(problem.code.as_str());
        }
        span.in_scope(|| match &result {
            Ok(answer) => tracing::debug!(status = answer.status, "answered"),
            Err(problem) => tracing::debug!(code = problem.code.as_str(), "refused"),
        });
        result
    }

    pub(super) async fn carry_out(
        &self,
        caller: &Caller,
        verb: Verb,
        body: &[u8],
        trace: Option<TraceContext>,
    ) -> Result<Answer, Problem> {
        match verb {
            Verb::Emit => Answer::new(202, &self.emit(caller, read(body)?, trace).await?),
            Verb::EmitBatch => Answer::new(200, &self.emit_batch(caller, read(body)?, trace).await?),
            Verb::Request => Answer::new(200, &self.request_all(caller, read(body)?, trace).await?),
            Verb::Join => Answer::new(202, &self.join(caller, read(body)?).await?),
            Verb::Leave => Answer::new(202, &self.leave(caller, read(body)?).await?),
            Verb::Disconnect => Answer::new(202, &self.disconnect(caller, read(body)?).await?),
            Verb::ServerEmit => {
                let emitted = self.server_emit(caller, read(body)?).await?;
                Answer::new(if emitted.acks.is_some() { 200 } else { 202 }, &emitted)
            }
            Verb::RevokeTokens => Answer::new(202, &self.revoke(caller, read(body)?).await?),
            Verb::GetRoom => Answer::new(200, &self.room(caller, read(body)?).await?),
            Verb::GetSocket => Answer::new(200, &self.socket(caller, read(body)?).await?),
            Verb::GetUser => Answer::new(200, &self.user_sockets(caller, read(body)?).await?),
            Verb::Replay => Answer::new(200, &self.replay(caller, &read(body)?)?),
        }
    }
}
