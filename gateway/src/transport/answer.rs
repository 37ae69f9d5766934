//! HTTP answers of the engine, as the reference words them.

use axum::body::Body;
use http::header::{CACHE_CONTROL, CONNECTION, CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderValue, Response, StatusCode};
use roomcast_protocol::engineio::EngineError;

use crate::metrics::{Metrics, Refusal};

const JSON: HeaderValue = HeaderValue::from_static("application/json");
const HTML: HeaderValue = HeaderValue::from_static("text/html");
const TEXT: HeaderValue = HeaderValue::from_static("text/plain; charset=UTF-8");

/// An answer without a body.
pub(super) fn empty(status: StatusCode) -> Response<Body> {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = status;
    response
}

fn with_body(status: StatusCode, kind: HeaderValue, body: impl Into<Body>) -> Response<Body> {
    let mut response = Response::new(body.into());
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, kind);
    response
}

/// A refusal, which is counted.
pub(super) fn refuse(metrics: &Metrics, error: EngineError, is_upgrade: bool) -> Response<Body> {
    metrics.handshakes_refused.inc(match error {
        EngineError::UnknownTransport => Refusal::UnknownTransport,
        EngineError::UnknownSid => Refusal::UnknownSid,
        EngineError::BadHandshakeMethod => Refusal::BadMethod,
        EngineError::BadRequest => Refusal::BadRequest,
        EngineError::Forbidden => Refusal::Forbidden,
        EngineError::UnsupportedProtocolVersion => Refusal::UnsupportedVersion,
    });
    refusal(error, is_upgrade)
}

/// A refusal: JSON for a request, plain words for a WebSocket that was not opened.
pub(super) fn refusal(error: EngineError, is_upgrade: bool) -> Response<Body> {
    if is_upgrade {
        let mut response = with_body(error.status(), HTML, error.to_string());
        response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        return response;
    }
    with_body(error.status(), JSON, error.body())
}

/// The node that has the session did not answer. It is not known whether it will when it is asked again.
pub(super) fn not_forwarded(status: StatusCode, code: &str, message: &str) -> Response<Body> {
    let body = format!(r#"{{"code":"{code}","message":"{message}"}}"#);
    let mut response = with_body(status, JSON, body);
    if status == StatusCode::SERVICE_UNAVAILABLE {
        response.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("1"));
    }
    response
}

/// The client is one too many: for the node (503), or for its address (429).
pub(super) fn not_admitted(refusal: Refusal) -> Response<Body> {
    // Not all are to come again at once.
    let (status, message, seconds) = match refusal {
        Refusal::IpRate => (StatusCode::TOO_MANY_REQUESTS, "This address connects too often", 1..=1),
        Refusal::IpConnections => {
            (StatusCode::TOO_MANY_REQUESTS, "Too many connections of this address", 1..=1)
        }
        Refusal::Draining => (StatusCode::SERVICE_UNAVAILABLE, "This node is shutting down", 1..=3),
        Refusal::Rate => (StatusCode::SERVICE_UNAVAILABLE, "Too many connect at once", 1..=5),
        Refusal::Memory => (StatusCode::SERVICE_UNAVAILABLE, "Not enough memory", 5..=15),
        _ => (StatusCode::SERVICE_UNAVAILABLE, "Too many connections", 5..=15),
    };
    let body = format!(r#"{{"code":{},"message":"{message}"}}"#, status.as_u16());
    let mut response = with_body(status, JSON, body);
    response.headers_mut().insert(RETRY_AFTER, rand::random_range(seconds).into());
    response
}

/// The answer to a POST.
pub(super) fn post_ok() -> Response<Body> {
    no_store(with_body(StatusCode::OK, HTML, "ok"))
}

/// The answer to a poll.
pub(super) fn payload(payload: Vec<u8>) -> Response<Body> {
    no_store(with_body(StatusCode::OK, TEXT, payload))
}

fn no_store(mut response: Response<Body>) -> Response<Body> {
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}
