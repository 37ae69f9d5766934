//! The numbered errors with which a server refuses a request.

/// Why a request is refused: HTTP 400, or 403 for [`EngineError::Forbidden`], with a JSON body of code and message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
pub enum EngineError {
    /// 0: no such transport, or it is not enabled.
    #[error("Transport unknown")]
    UnknownTransport,
    /// 1: no such session here. Behind a load balancer: the requests of a session reach different nodes.
    #[error("Session ID unknown")]
    UnknownSid,
    /// 2: a handshake that is not a GET.
    #[error("Bad handshake method")]
    BadHandshakeMethod,
    /// 3: a request that does not fit its session.
    #[error("Bad request")]
    BadRequest,
    /// 4: refused by the server's policy, such as the Origin check.
    #[error("Forbidden")]
    Forbidden,
    /// 5: an `EIO` other than 4.
    #[error("Unsupported protocol version")]
    UnsupportedProtocolVersion,
}

impl EngineError {
    /// The number on the wire.
    pub fn code(self) -> u8 {
        match self {
            Self::UnknownTransport => 0,
            Self::UnknownSid => 1,
            Self::BadHandshakeMethod => 2,
            Self::BadRequest => 3,
            Self::Forbidden => 4,
            Self::UnsupportedProtocolVersion => 5,
        }
    }

    /// The HTTP status.
    pub fn status(self) -> http::StatusCode {
        match self {
            Self::Forbidden => http::StatusCode::FORBIDDEN,
            _ => http::StatusCode::BAD_REQUEST,
        }
    }

    /// The body: `{"code":1,"message":"Session ID unknown"}`.
    pub fn body(self) -> String {
        format!(r#"{{"code":{},"message":"{self}"}}"#, self.code())
    }
}
