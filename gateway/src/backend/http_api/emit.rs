//! `POST /v1/emit`: one event to whom it concerns.

use std::sync::Arc;
use std::time::Instant;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use base64::Engine as _;
use roomcast_adapter::Outgoing;
use roomcast_protocol::socketio::{Args, EncodedPacket};
use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;

use super::body::Json;
use super::selector::{Lists, To, selector};
use super::{Api, Code, Problem};
use crate::config::is_reserved_event;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Emit {
    namespace: Option<String>,
    event: String,
    args: Option<Box<RawValue>>,
    to: Option<To>,
    except: Option<Lists>,
    #[serde(default)]
    volatile: bool,
    compress: Option<bool>,
}

/// 202 says that the broker has taken it, or that it was delivered here when there is none.
pub(super) async fn emit(State(api): State<Api>, Json(emit): Json<Emit>) -> Result<Response, Problem> {
    let emitted_at = Instant::now();
    let selector = selector(emit.to, emit.except)?;
    if emit.event.is_empty() {
        return Err(Problem::invalid("`event` is empty"));
    }
    if is_reserved_event(&emit.event) {
        return Err(Problem::invalid(format!("the event name \"{}\" is reserved", emit.event)));
    }
    let args = arguments(emit.args.as_deref(), api.settings.max_attachments)?;
    let (namespace, adapter) = api.adapter(emit.namespace.as_deref())?;
    let packet = EncodedPacket::event(&namespace, None, &emit.event, &args);
    let (volatile, compress) = (emit.volatile, emit.compress.unwrap_or(true));
    let outgoing = Arc::new(Outgoing { packet, emitted_at, volatile, compress });
    adapter.broadcast_confirmed(&selector, &outgoing).await?;
    let id = message_id()?;
    Ok((StatusCode::ACCEPTED, axum::Json(serde_json::json!({ "id": id }))).into_response())
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

/// The id by which a call can be found again: 96 random bits.
pub(super) fn message_id() -> Result<String, Problem> {
    let mut random = [0; 12];
    getrandom::fill(&mut random).map_err(|error| Problem::new(Code::Internal, error.to_string()))?;
    Ok(base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(random))
}
