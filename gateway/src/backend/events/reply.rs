//! What a backend answers, and how it can fail to. Owns the reading of replies and the codes that clients see.

use std::time::{Duration, SystemTime};

use serde::{Deserialize, Deserializer};
use serde_json::Value;
use serde_json::value::RawValue;

/// What a backend answers to what it was asked. Everything may be left out.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Reply {
    /// The arguments of the client's ack.
    pub(crate) ack: Option<Vec<Value>>,
    /// Bodies of the call `emit`. Each is judged on its own.
    pub(crate) emit: Option<Vec<Box<RawValue>>>,
    /// Rooms that the socket joins.
    pub(crate) join: Option<Vec<String>>,
    /// Rooms that the socket leaves.
    pub(crate) leave: Option<Vec<String>>,
    /// What to keep with the socket and to send with its later events; `null` lets it go.
    #[serde(deserialize_with = "present")]
    pub(crate) state: Option<Value>,
    /// Ends the socket.
    pub(crate) disconnect: Option<Disconnect>,
    /// Who the client is. Only in the answer to `roomcast.connect`.
    pub(crate) user: Option<String>,
    /// When its session ends. Only in the answer to `roomcast.connect`.
    pub(crate) expires_at: Option<Expiry>,
}

/// Whether, and how, to end a socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(untagged)]
pub(crate) enum Disconnect {
    /// `true`: it leaves the namespace.
    Plain(bool),
    /// With `close`, its connection ends too.
    Detailed {
        #[serde(default)]
        close: bool,
    },
}

/// A time: seconds since 1970, as in a JWT, or RFC 3339.
#[derive(Debug, Clone, Deserialize)]
#[serde(untagged)]
pub(crate) enum Expiry {
    Seconds(u64),
    Text(#[serde(deserialize_with = "rfc3339")] SystemTime),
}

impl Expiry {
    pub(crate) fn time(&self) -> Option<SystemTime> {
        match self {
            Self::Seconds(seconds) => SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(*seconds)),
            Self::Text(time) => Some(*time),
        }
    }
}

fn rfc3339<'de, D: Deserializer<'de>>(deserializer: D) -> Result<SystemTime, D::Error> {
    let text = String::deserialize(deserializer)?;
    humantime::parse_rfc3339(&text).map_err(serde::de::Error::custom)
}

/// `null` is something that was said.
fn present<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Value>, D::Error> {
    Value::deserialize(deserializer).map(Some)
}

/// A "no", in the words of problem details (RFC 9457).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Refusal {
    /// The status, 400 to 499.
    pub(crate) status: u16,
    /// The `code` of the problem, or one of ours for the status.
    pub(crate) code: String,
    /// The `detail` of the problem, or its `title`.
    pub(crate) message: Option<String>,
    /// The problem, for the client.
    pub(crate) problem: Option<Value>,
}

/// The longest text that goes from a problem to a client.
const MAX_CODE: usize = 128;

impl Refusal {
    /// Reads what came with a status. What is no JSON object says nothing more than the status.
    pub(crate) fn read(status: u16, body: &[u8]) -> Self {
        let problem = serde_json::from_slice::<Value>(body).ok().filter(Value::is_object);
        let text = |key: &str| problem.as_ref()?.get(key)?.as_str().map(str::to_owned);
        let code = text("code").filter(|code| !code.is_empty() && code.len() <= MAX_CODE);
        let code = code.unwrap_or_else(|| code_of(status).to_owned());
        Self { status, code, message: text("detail").or_else(|| text("title")), problem }
    }
}

fn code_of(status: u16) -> &'static str {
    match status {
        401 => "unauthorized",
        403 => "forbidden",
        404 => "not_found",
        413 => "payload_too_large",
        429 => "rate_limited",
        _ => "invalid_request",
    }
}

/// Why there is no reply. The client that asked learns the code and the status.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum BackendError {
    /// It said no.
    #[error("the backend refused with {}", .0.status)]
    Refused(Box<Refusal>),
    /// It has a fault: a status that is neither success nor refusal.
    #[error("the backend answered {0}")]
    Failed(u16),
    /// It did not answer in time.
    #[error("the backend did not answer in time")]
    Timeout,
    /// It cannot be reached, or failed so often that it is left alone for a while.
    #[error("the backend is unavailable")]
    Unavailable,
    /// Too much waits for it already.
    #[error("too much waits for the backend")]
    Overloaded,
    /// Nobody listens.
    #[error("nobody listens for the event")]
    NoResponders,
    /// The reply is not what the contract says.
    #[error("the reply of the backend cannot be read: {0}")]
    InvalidReply(String),
    /// There is no backend of that name any more.
    #[error("there is no such backend")]
    Unknown,
}

impl BackendError {
    /// The stable code.
    pub(crate) fn code(&self) -> &str {
        match self {
            Self::Refused(refusal) => &refusal.code,
            other => other.kind(),
        }
    }

    /// The kind of failure, from a closed set: a label.
    pub(crate) fn kind(&self) -> &'static str {
        match self {
            Self::Refused(_) => "refused",
            Self::Failed(_) => "backend_failed",
            Self::Timeout => "backend_timeout",
            Self::Unavailable | Self::Unknown => "backend_unavailable",
            Self::Overloaded => "overloaded",
            Self::NoResponders => "no_backend",
            Self::InvalidReply(_) => "backend_invalid_reply",
        }
    }

    /// The status that goes with the code.
    pub(crate) fn status(&self) -> u16 {
        match self {
            Self::Refused(refusal) => refusal.status,
            Self::Failed(_) | Self::InvalidReply(_) => 502,
            Self::Unavailable | Self::Overloaded | Self::NoResponders | Self::Unknown => 503,
            Self::Timeout => 504,
        }
    }
}

impl Reply {
    /// Reads a reply. Nothing at all is a reply that does nothing. `{"error":{"status":403,…}}` is a refusal, for ways
    /// that have no status of their own.
    pub(crate) fn parse(body: &[u8]) -> Result<Self, BackendError> {
        if body.iter().all(u8::is_ascii_whitespace) {
            return Ok(Self::default());
        }
        // serde would take an array for the fields in their order.
        if body.iter().find(|byte| !byte.is_ascii_whitespace()) != Some(&b'{') {
            return Err(BackendError::InvalidReply("it is no object".to_owned()));
        }
        #[derive(Deserialize)]
        struct Failed<'a> {
            #[serde(borrow)]
            error: &'a RawValue,
        }
        if let Ok(Failed { error }) = serde_json::from_slice(body) {
            let status = serde_json::from_str::<Value>(error.get()).ok();
            let status = status.as_ref().and_then(|error| error.get("status")).and_then(Value::as_u64);
            return Err(match status {
                Some(status @ 500..=599) => Self::failed(status),
                Some(status @ 400..=499) => {
                    let status = u16::try_from(status).unwrap_or(403);
                    BackendError::Refused(Box::new(Refusal::read(status, error.get().as_bytes())))
                }
                _ => BackendError::Refused(Box::new(Refusal::read(403, error.get().as_bytes()))),
            });
        }
        serde_json::from_slice(body).map_err(|error| BackendError::InvalidReply(error.to_string()))
    }

    fn failed(status: u64) -> BackendError {
        BackendError::Failed(u16::try_from(status).unwrap_or(500))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_of_a_reply_may_be_left_out() {
        for body in ["", " \n", "{}", r#"{"disconnect":null,"ack":null,"emit":null,"join":null}"#] {
            let reply = Reply::parse(body.as_bytes()).unwrap();
            assert!(reply.ack.is_none() && reply.state.is_none() && reply.disconnect.is_none(), "{body}");
        }
        let reply = Reply::parse(br#"{"state":null,"disconnect":{"close":true},"expires_at":5}"#).unwrap();
        assert_eq!(reply.state, Some(Value::Null));
        assert_eq!(reply.disconnect, Some(Disconnect::Detailed { close: true }));
        let at = |reply: Reply| reply.expires_at.unwrap().time().unwrap();
        assert_eq!(at(reply), SystemTime::UNIX_EPOCH + Duration::from_secs(5));
        let reply = Reply::parse(br#"{"expires_at":"1970-01-01T00:00:05Z"}"#).unwrap();
        assert_eq!(at(reply), SystemTime::UNIX_EPOCH + Duration::from_secs(5));
    }

    #[test]
    fn what_is_no_reply_is_told() {
        for body in ["ok", "[]", r#"{"akc":[1]}"#, r#"{"ack":1}"#, r#"{"join":"a"}"#, r#"{"expires_at":-1}"#]
        {
            let error = Reply::parse(body.as_bytes()).unwrap_err();
            assert!(matches!(error, BackendError::InvalidReply(_)), "{body}");
            assert_eq!((error.code(), error.status()), ("backend_invalid_reply", 502));
        }
    }

    #[test]
    fn a_refusal_is_read_from_a_problem_or_from_the_status_alone() {
        let refusal = Refusal::read(403, br#"{"code":"banned","detail":"not you","x":1}"#);
        assert_eq!((refusal.code.as_str(), refusal.message.as_deref()), ("banned", Some("not you")));
        assert_eq!(refusal.problem.unwrap()["x"], 1);
        let refusal = Refusal::read(401, b"<html>");
        assert_eq!((refusal.code.as_str(), refusal.message, refusal.problem), ("unauthorized", None, None));
        let long = serde_json::json!({ "code": "x".repeat(200) }).to_string();
        assert_eq!(Refusal::read(422, long.as_bytes()).code, "invalid_request");
        let error = Reply::parse(br#"{"error":{"status":401,"code":"who"}}"#).unwrap_err();
        assert_eq!((error.code(), error.status()), ("who", 401));
        assert_eq!(Reply::parse(br#"{"error":"no"}"#).unwrap_err().status(), 403);
        assert_eq!(Reply::parse(br#"{"error":{"status":503}}"#).unwrap_err(), BackendError::Failed(503));
    }
}
