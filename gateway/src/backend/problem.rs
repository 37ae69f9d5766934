//! What can go wrong with a call, as problem details (RFC 9457). Owns the codes, which are a promise, and their status.

use axum::http::{HeaderValue, Method, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use roomcast_adapter::AdapterError;
use schemars::JsonSchema;
use serde::Serialize;

/// The stable code of a problem.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Code {
    /// The body is no JSON.
    InvalidJson,
    /// The body is JSON, but not what the call takes.
    InvalidRequest,
    /// The API key is missing or wrong.
    Unauthorized,
    /// The caller may not do this.
    Forbidden,
    /// No such path or namespace.
    NotFound,
    /// The path has no such method.
    MethodNotAllowed,
    /// The body is larger than the API or the broker takes.
    PayloadTooLarge,
    /// The body is in a format that is not taken.
    UnsupportedMediaType,
    /// The broker is away: only this node's sockets were reached.
    BrokerUnavailable,
    /// Too many requests wait for other nodes already.
    Overloaded,
    /// The keys of an issuer of tokens are not there yet.
    Unavailable,
    /// The caller makes more calls than it may.
    RateLimited,
    /// The idempotency key came with another body before.
    IdempotencyMismatch,
    /// The call with this idempotency key is still being carried out.
    InProgress,
    /// The call with this idempotency key was carried out; its answer was too long to be kept.
    AnswerNotKept,
    /// The node is of a version that cannot be told so.
    NodeTooOld,
    /// A fault of the gateway.
    Internal,
}

impl Code {
    /// The code as text.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::InvalidJson | Self::InvalidRequest => "invalid_request",
            Self::Unauthorized => "unauthorized",
            Self::Forbidden => "forbidden",
            Self::NotFound => "not_found",
            Self::MethodNotAllowed => "method_not_allowed",
            Self::PayloadTooLarge => "payload_too_large",
            Self::UnsupportedMediaType => "unsupported_media_type",
            Self::BrokerUnavailable => "broker_unavailable",
            Self::Overloaded => "overloaded",
            Self::Unavailable => "keys_unavailable",
            Self::RateLimited => "rate_limited",
            Self::IdempotencyMismatch => "idempotency_mismatch",
            Self::InProgress => "in_progress",
            Self::AnswerNotKept => "answer_not_kept",
            Self::NodeTooOld => "node_too_old",
            Self::Internal => "internal",
        }
    }

    /// The status of the answer.
    pub fn status(self) -> StatusCode {
        match self {
            Self::InvalidJson => StatusCode::BAD_REQUEST,
            Self::InvalidRequest => StatusCode::UNPROCESSABLE_ENTITY,
            Self::Unauthorized => StatusCode::UNAUTHORIZED,
            Self::Forbidden => StatusCode::FORBIDDEN,
            Self::NotFound => StatusCode::NOT_FOUND,
            Self::MethodNotAllowed => StatusCode::METHOD_NOT_ALLOWED,
            Self::PayloadTooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::UnsupportedMediaType => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Self::RateLimited => StatusCode::TOO_MANY_REQUESTS,
            Self::IdempotencyMismatch | Self::InProgress | Self::AnswerNotKept | Self::NodeTooOld => {
                StatusCode::CONFLICT
            }
            Self::BrokerUnavailable | Self::Overloaded | Self::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
            Self::Internal => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }
}

/// A problem: what a call answers when it is not done, or not wholly.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The stable code.
    pub code: Code,
    /// What is wrong this time, for people.
    pub detail: String,
    /// In how many seconds it is worth trying again.
    pub retry_after: Option<u64>,
}

/// A problem as it is written (RFC 9457).
#[derive(Debug, Clone, Serialize, JsonSchema)]
#[schemars(rename = "Problem")]
pub(crate) struct Details {
    /// "about:blank": the code tells the kind.
    r#type: &'static str,
    /// The status in words.
    title: &'static str,
    /// The status.
    status: u16,
    /// What is wrong this time, for people.
    detail: String,
    /// What is wrong, for programs: it does not change.
    code: &'static str,
}

impl Problem {
    /// A problem with a sentence for people.
    pub fn new(code: Code, detail: impl Into<String>) -> Self {
        Self { code, detail: detail.into(), retry_after: None }
    }

    /// A body that is JSON, but not what the call takes.
    pub(crate) fn invalid(detail: impl Into<String>) -> Self {
        Self::new(Code::InvalidRequest, detail)
    }

    /// Says in how many seconds it is worth trying again.
    #[must_use]
    pub fn retry_after(self, seconds: u64) -> Self {
        Self { retry_after: Some(seconds), ..self }
    }

    /// What is written of it, on every transport.
    pub(crate) fn details(&self) -> Details {
        let status = self.code.status();
        Details {
            r#type: "about:blank",
            title: status.canonical_reason().unwrap_or_default(),
            status: status.as_u16(),
            detail: self.detail.clone(),
            code: self.code.as_str(),
        }
    }
}

impl From<AdapterError> for Problem {
    fn from(error: AdapterError) -> Self {
        let code = match error {
            AdapterError::BrokerUnavailable => Code::BrokerUnavailable,
            AdapterError::TooLarge => Code::PayloadTooLarge,
            AdapterError::Overloaded => Code::Overloaded,
            // The adapter may learn new ones; until it has a code here, it is a fault of ours.
            _ => Code::Internal,
        };
        Self::new(code, error.to_string())
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let body = serde_json::to_string(&self.details()).unwrap_or_default();
        let kind = [(header::CONTENT_TYPE, "application/problem+json")];
        let mut response = (self.code.status(), kind, body).into_response();
        if let Some(seconds) = self.retry_after {
            response.headers_mut().insert(header::RETRY_AFTER, seconds.into());
        }
        if self.code == Code::Unauthorized {
            let challenge = HeaderValue::from_static("Bearer realm=\"roomcast\"");
            response.headers_mut().insert(header::WWW_AUTHENTICATE, challenge);
        }
        // For whoever records the call.
        response.extensions_mut().insert(self.code);
        response
    }
}

pub(super) async fn no_such_path(uri: Uri) -> Problem {
    Problem::new(Code::NotFound, format!("there is no {}", uri.path()))
}

pub(super) async fn no_such_method(method: Method, uri: Uri) -> Problem {
    Problem::new(Code::MethodNotAllowed, format!("{} does not take {method}", uri.path()))
}
