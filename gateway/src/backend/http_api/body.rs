//! Bodies of calls and of answers. Owns the formats: JSON, and MessagePack that carries binary as it is.
//!
//! A call has one form inside, JSON with `{"$bin":"<base64>"}` for binary; MessagePack becomes that, and an answer may
//! become MessagePack again.

use axum::body::Body;
use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use serde::Serialize;

use super::{Code, Problem, msgpack};

/// The name of MessagePack.
pub(super) const MSGPACK: &str = "application/msgpack";
/// The name of JSON by lines.
pub(super) const NDJSON: &str = "application/x-ndjson";

/// Reads a body as JSON.
pub(super) async fn read(headers: &HeaderMap, body: Body, max: usize) -> Result<Vec<u8>, Problem> {
    let kind = kind(headers);
    let is_msgpack = is_msgpack(&kind);
    if !is_msgpack && !is_json(&kind) {
        let detail = format!("the body has to be application/json or {MSGPACK}, not {kind}");
        return Err(Problem::new(Code::UnsupportedMediaType, detail));
    }
    let bytes = match Limited::new(body, max).collect().await {
        Ok(collected) => collected.to_bytes(),
        Err(error) if error.is::<LengthLimitError>() => {
            return Err(Problem::new(Code::PayloadTooLarge, format!("the body is longer than {max} bytes")));
        }
        Err(error) => return Err(Problem::new(Code::InvalidJson, format!("the body ended early: {error}"))),
    };
    if is_msgpack { msgpack::to_json(&bytes) } else { Ok(bytes.into()) }
}

fn kind(headers: &HeaderMap) -> String {
    let kind = headers.get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    kind.split(';').next().unwrap_or_default().trim().to_ascii_lowercase()
}

/// JSON has many names, and `curl -d` has its own; only what is surely something else is refused.
fn is_json(kind: &str) -> bool {
    let known = ["", "application/json", "text/json", "text/plain", "application/x-www-form-urlencoded"];
    known.contains(&kind) || kind.ends_with("+json")
}

fn is_msgpack(kind: &str) -> bool {
    [MSGPACK, "application/x-msgpack", "application/vnd.msgpack"].contains(&kind)
}

/// What the caller takes as an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Format {
    Json,
    Msgpack,
    /// JSON by lines, where there is more than one.
    Ndjson,
}

impl Format {
    fn of(headers: &HeaderMap) -> Self {
        let accepted = headers.get_all(header::ACCEPT).iter().filter_map(|value| value.to_str().ok());
        // The first that is known: whoever sends preferences names one of ours.
        for range in accepted.flat_map(|value| value.split(',')) {
            let name = range.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
            match name.as_str() {
                NDJSON => return Self::Ndjson,
                "application/json" => return Self::Json,
                name if is_msgpack(name) => return Self::Msgpack,
                _ => {}
            }
        }
        Self::Json
    }

    /// An answer in this format.
    pub(super) fn answer(self, status: StatusCode, body: &impl Serialize) -> Result<Response, Problem> {
        let failed = |error: &dyn std::fmt::Display| Problem::new(Code::Internal, error.to_string());
        if self == Self::Msgpack {
            let body = serde_json::to_value(body).map_err(|error| failed(&error))?;
            let body = msgpack::from_json(&body).map_err(|error| failed(&error))?;
            return Ok((status, [(header::CONTENT_TYPE, MSGPACK)], body).into_response());
        }
        let body = serde_json::to_vec(body).map_err(|error| failed(&error))?;
        Ok((status, [(header::CONTENT_TYPE, "application/json")], body).into_response())
    }
}

impl<S: Sync> FromRequestParts<S> for Format {
    type Rejection = std::convert::Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Self::Rejection> {
        Ok(Self::of(&parts.headers))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_known_format_is_answered() {
        let cases = [
            (None, Format::Json),
            (Some("*/*"), Format::Json),
            (Some("application/x-ndjson"), Format::Ndjson),
            (Some("text/html, Application/MsgPack;q=0.9, application/json"), Format::Msgpack),
            (Some("application/json, application/msgpack"), Format::Json),
        ];
        for (accept, format) in cases {
            let mut headers = HeaderMap::new();
            accept.map(|accept| headers.insert(header::ACCEPT, accept.parse().unwrap()));
            assert_eq!(Format::of(&headers), format, "{accept:?}");
        }
    }
}
