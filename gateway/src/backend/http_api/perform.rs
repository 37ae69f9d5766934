//! The calls with a body: what HTTP adds to them. Owns headers, and answers by lines.

use std::convert::Infallible;
use std::sync::Arc;

use axum::body::{Body, Bytes};
use axum::extract::Request;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use futures_util::StreamExt as _;
use roomcast_adapter::TraceContext;
use serde_json::{Value, json};

use super::body::{Format, NDJSON, read};
use super::{Api, Problem};
use crate::backend::calls::{AckItem, Answers, Caller, Meta, Verb};

/// Names a call that may be sent again.
const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");
/// The longest of these.
const MAX_KEY: usize = 255;
const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");

/// Carries out a call with a body.
pub(super) async fn perform(
    api: Api,
    caller: Caller,
    format: Format,
    verb: Verb,
    request: Request,
) -> Result<Response, Problem> {
    let (parts, body) = request.into_parts();
    let meta = meta(&parts.headers)?;
    let body = read(&parts.headers, body, api.settings.max_body).await?;
    if verb == Verb::Request && format == Format::Ndjson {
        if meta.key.is_some() {
            let detail = "an answer by lines cannot be given again: leave out Idempotency-Key or Accept";
            return Err(Problem::invalid(detail));
        }
        return Ok(by_lines(api.calls.request_by_lines(&caller, &body, meta.trace)?));
    }
    let answer = if meta.key.is_some() {
        // Carried out to its end, even if the caller hangs up: who asks again must not wait for nothing.
        let (calls, caller) = (Arc::clone(&api.calls), caller.clone());
        let call = async move { calls.perform(&caller, verb, &meta, &body).await };
        let done = tokio::spawn(call).await;
        done.map_err(|error| Problem::new(super::Code::Internal, error.to_string()))??
    } else {
        api.calls.perform(&caller, verb, &meta, &body).await?
    };
    let status = StatusCode::from_u16(answer.status).unwrap_or(StatusCode::OK);
    format.answer(status, &answer.body)
}

fn meta(headers: &HeaderMap) -> Result<Meta, Problem> {
    let key = headers.get(IDEMPOTENCY_KEY).map(|key| {
        let key = key.to_str().unwrap_or_default();
        let fits = !key.is_empty() && key.len() <= MAX_KEY;
        let refused =
            || Problem::invalid(format!("Idempotency-Key has to be 1 to {MAX_KEY} characters of ASCII"));
        fits.then(|| key.to_owned()).ok_or_else(refused)
    });
    Ok(Meta { key: key.transpose()?, trace: trace(headers) })
}

/// The trace of a request, if it names a valid one.
pub(super) fn trace(headers: &HeaderMap) -> Option<TraceContext> {
    TraceContext::parse(headers.get(TRACEPARENT)?.to_str().ok()?)
}

/// An answer says which trace it belongs to.
pub(super) fn put_trace(response: &mut Response, trace: TraceContext) {
    if let Ok(value) = HeaderValue::from_str(&trace.to_string()) {
        response.headers_mut().insert(TRACEPARENT, value);
    }
}

/// A line for each ack, and one at the end. When the client goes away the stream is dropped, and nobody waits any more.
fn by_lines(answers: Answers) -> Response {
    let lines = answers.map(|item| {
        let line = match item {
            AckItem::Ack(ack) => serde_json::to_value(ack).unwrap_or_default(),
            AckItem::Summary(summary) => last_line(serde_json::to_value(summary).unwrap_or_default()),
        };
        Ok::<_, Infallible>(Bytes::from(format!("{line}\n")))
    });
    ([(header::CONTENT_TYPE, NDJSON)], Body::from_stream(lines)).into_response()
}

/// Tells the last line from the others.
fn last_line(mut summary: Value) -> Value {
    if let Value::Object(fields) = &mut summary {
        fields.insert("done".to_owned(), json!(true));
    }
    summary
}
