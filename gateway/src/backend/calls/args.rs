//! What every event has: a name and arguments. Owns how they come out of JSON.

use roomcast_protocol::socketio::Args;
use serde_json::Value;
use serde_json::value::RawValue;

use crate::backend::Problem;
use crate::config::is_reserved_event;

pub(super) fn check_event(name: &str) -> Result<(), Problem> {
    if name.is_empty() {
        return Err(Problem::invalid("`event` is empty"));
    }
    if is_reserved_event(name) {
        return Err(Problem::invalid(format!("the event name \"{name}\" is reserved")));
    }
    Ok(())
}

/// Arguments as they came, unless they hold binary: then `{"$bin":"<base64>"}` becomes an attachment.
pub(super) fn arguments(raw: Option<&RawValue>, max_attachments: usize) -> Result<Args, Problem> {
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
