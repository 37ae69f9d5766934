//! `emit`: one event to whom it concerns.

use std::sync::Arc;
use std::time::Instant;

use roomcast_adapter::Outgoing;
use roomcast_protocol::socketio::{Args, EncodedPacket};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use serde_json::value::RawValue;

use super::selector::{Lists, To, selector};
use super::{Caller, Calls, Scope, call_id};
use crate::backend::Problem;
use crate::config::is_reserved_event;

/// An event, and to whom.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Emit {
    namespace: Option<String>,
    event: String,
    args: Option<Box<RawValue>>,
    to: Option<To>,
    except: Option<Lists>,
    #[serde(default)]
    volatile: bool,
    compress: Option<bool>,
}

/// The broker has taken it, or it was delivered here when there is none.
#[derive(Debug, Serialize)]
pub(crate) struct Emitted {
    id: String,
}

impl Calls {
    pub(crate) async fn emit(&self, caller: &Caller, emit: Emit) -> Result<Emitted, Problem> {
        let emitted_at = Instant::now();
        let selector = selector(emit.to, emit.except)?;
        check_event(&emit.event)?;
        let args = arguments(emit.args.as_deref(), self.max_attachments)?;
        let (namespace, adapter) = self.namespace(caller, Scope::Emit, emit.namespace.as_deref())?;
        let packet = EncodedPacket::event(&namespace, None, &emit.event, &args);
        let (volatile, compress) = (emit.volatile, emit.compress.unwrap_or(true));
        let outgoing = Arc::new(Outgoing { packet, emitted_at, volatile, compress });
        adapter.broadcast_confirmed(&selector, &outgoing).await?;
        Ok(Emitted { id: call_id()? })
    }
}

fn check_event(name: &str) -> Result<(), Problem> {
    if name.is_empty() {
        return Err(Problem::invalid("`event` is empty"));
    }
    if is_reserved_event(name) {
        return Err(Problem::invalid(format!("the event name \"{name}\" is reserved")));
    }
    Ok(())
}

/// Arguments as they came, unless they hold binary: then `{"$bin":"<base64>"}` becomes an attachment.
fn arguments(raw: Option<&RawValue>, max_attachments: usize) -> Result<Args, Problem> {
    let Some(text) = raw.map(RawValue::get) else { return Ok(Args::none()) };
    if !text.starts_with('[') {
        return Err(Problem::invalid("`args` has to be an array"));
    }
    let invalid = |error: &dyn std::fmt::Display| Problem::invalid(format!("`args`: {error}"));
    // `$` may be escaped in JSON. Text without it is not parsed again, which also keeps the order of its keys.
    if !text.contains("$bin") && !text.contains("\\u0024") {
        return Args::from_json_array(text, Vec::new()).map_err(|error| invalid(&error));
    }
    let values: Vec<Value> = serde_json::from_str(text).map_err(|error| invalid(&error))?;
    let has_placeholder = values.iter().any(is_placeholder_inside);
    let args = Args::from_json_values(values).map_err(|error| invalid(&error))?;
    let count = args.attachments().len();
    if count > 0 && has_placeholder {
        return Err(Problem::invalid(
            "`args` has `_placeholder` beside `$bin`: clients would take it for binary",
        ));
    }
    if count > max_attachments {
        let detail = format!("`args` has {count} binary parts: clients refuse more than {max_attachments}");
        return Err(Problem::invalid(detail));
    }
    Ok(args)
}

fn is_placeholder_inside(value: &Value) -> bool {
    match value {
        Value::Object(map) => map.contains_key("_placeholder") || map.values().any(is_placeholder_inside),
        Value::Array(items) => items.iter().any(is_placeholder_inside),
        _ => false,
    }
}
