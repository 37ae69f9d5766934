//! What can go wrong with a call, as problem details (RFC 9457). Owns the codes, which are a promise, and their status.

use axum::http::{HeaderValue, Method, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use roomcast_adapter::AdapterError;

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
            Self::BrokerUnavailable | Self::Overloaded => StatusCode::SERVICE_UNAVAILABLE,
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
}

impl Problem {
    /// A problem with a sentence for people.
    pub fn new(code: Code, detail: impl Into<String>) -> Self {
        Self { code, detail: detail.into() }
    }

    /// A body that is JSON, but not what the call takes.
    pub(crate) fn invalid(detail: impl Into<String>) -> Self {
        Self::new(Code::InvalidRequest, detail)
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
        let status = self.code.status();
        let body = serde_json::json!({
            "type": "about:blank",
            "title": status.canonical_reason(),
            "status": status.as_u16(),
            "detail": self.detail,
            "code": self.code.as_str(),
        });
        let kind = [(header::CONTENT_TYPE, "application/problem+json")];
        let mut response = (status, kind, body.to_string()).into_response();
        if self.code == Code::Unauthorized {
            let challenge = HeaderValue::from_static("Bearer realm=\"roomcast\"");
            response.headers_mut().insert(header::WWW_AUTHENTICATE, challenge);
        }
        response
    }
}

pub(super) async fn no_such_path(uri: Uri) -> Problem {
    Problem::new(Code::NotFound, format!("there is no {}", uri.path()))
}

pub(super) async fn no_such_method(method: Method, uri: Uri) -> Problem {
    Problem::new(Code::MethodNotAllowed, format!("{} does not take {method}", uri.path()))
}
