//! `emit`: one event to whom it concerns; `emit_batch`: many of them, each judged on its own.

use std::sync::Arc;
use std::time::Instant;

use roomcast_adapter::{Outgoing, TraceContext};
use roomcast_protocol::socketio::EncodedPacket;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::args::{arguments, check_event};
use super::selector::{Lists, To, selector};
use super::{Caller, Calls, Scope, call_id};
use crate::backend::problem::Details;
use crate::backend::{Code, Problem};
use crate::trace;

/// The most items of a batch.
pub(crate) const MAX_ITEMS: usize = 1_000;

/// An event, and to whom.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Emit {
    /// The namespace, "/" if none is named.
    namespace: Option<String>,
    /// The name of the event.
    #[schemars(length(min = 1))]
    event: String,
    /// Its arguments. `{"$bin":"<base64>"}` stands for binary.
    #[schemars(with = "Option<Vec<serde_json::Value>>")]
    args: Option<Box<RawValue>>,
    /// Who gets it.
    #[schemars(with = "To")]
    to: Option<To>,
    /// Who does not.
    except: Option<Lists>,
    /// May be lost for a client that cannot be written to right now.
    #[serde(default)]
    volatile: bool,
    /// Whether it may be compressed; it may unless this is false.
    compress: Option<bool>,
}

impl Emit {
    /// The emit in a namespace: who speaks for one cannot name another.
    pub(crate) fn within(mut self, namespace: &str) -> Result<Self, Problem> {
        match &self.namespace {
            Some(name) if name != namespace => {
                Err(Problem::new(Code::Forbidden, format!("this may emit in \"{namespace}\" only")))
            }
            _ => {
                self.namespace = Some(namespace.to_owned());
                Ok(self)
            }
        }
    }
}

/// The broker has taken it, or it was delivered here when there is none.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct Emitted {
    /// By which the call can be found in the log.
    id: String,
}

/// Many events.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Batch {
    /// At most 1000, each as for `emit`.
    #[schemars(with = "Vec<Emit>", length(max = 1_000))]
    items: Vec<Box<RawValue>>,
}

/// What became of each item, in their order.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct BatchAnswer {
    results: Vec<ItemAnswer>,
}

/// What became of one item: what it would have been answered alone.
#[derive(Debug, Serialize, JsonSchema)]
struct ItemAnswer {
    /// 202, or the status of the problem.
    status: u16,
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    problem: Option<Details>,
}

impl Calls {
    /// `trace` is what the emit is a part of.
    pub(crate) async fn emit(
        &self,
        caller: &Caller,
        emit: Emit,
        trace: Option<TraceContext>,
    ) -> Result<Emitted, Problem> {
        let emitted_at = Instant::now();
        let selector = selector(emit.to, emit.except)?;
        check_event(&emit.event)?;
        let args = arguments(emit.args.as_deref(), self.max_attachments)?;
        let (namespace, adapter) = self.namespace(caller, Scope::Emit, emit.namespace.as_deref())?;
        caller.check_reach(&selector)?;
        let packet = EncodedPacket::event(&namespace, None, &emit.event, &args);
        let (volatile, compress) = (emit.volatile, emit.compress.unwrap_or(true));
        let mut span = trace::emitting(&self.tracer, trace, &namespace, &emit.event);
        let (travelled, trace) = (None, span.context());
        let outgoing = Arc::new(Outgoing { packet, emitted_at, travelled, trace, volatile, compress });
        let confirmed = adapter.broadcast_confirmed(&selector, &outgoing).await;
        confirmed.inspect_err(|error| span.failed(error.code()))?;
        Ok(Emitted { id: call_id()? })
    }

    /// Begins with the items in their order, and waits for the broker once for all.
    pub(crate) async fn emit_batch(
        &self,
        caller: &Caller,
        batch: Batch,
        trace: Option<TraceContext>,
    ) -> Result<BatchAnswer, Problem> {
        caller.check(Scope::Emit)?;
        let count = batch.items.len();
        if count > MAX_ITEMS {
            let detail = format!("`items` has {count} items: {MAX_ITEMS} are taken at once");
            return Err(Problem::invalid(detail));
        }
        // The call itself was counted as one.
        caller.spend(u32::try_from(count).unwrap_or(u32::MAX).saturating_sub(1))?;
        let items = batch.items.iter().map(|item| async {
            let emit = serde_json::from_str::<Emit>(item.get())
                .map_err(|error| Problem::new(Code::InvalidRequest, error.to_string()))?;
            self.emit(caller, emit, trace).await
        });
        let results = futures_util::future::join_all(items).await;
        let results = results.into_iter().map(|result| match result {
            Ok(Emitted { id }) => ItemAnswer { status: 202, id: Some(id), problem: None },
            Err(problem) => ItemAnswer {
                status: problem.code.status().as_u16(),
                id: None,
                problem: Some(problem.details()),
            },
        });
        Ok(BatchAnswer { results: results.collect() })
    }
}
