//! The seam to other nodes: a request for a session of another node is passed on. Knows that there are nodes, and not how
//! they are reached.

use std::sync::Arc;

use axum::body::Body;
use futures_util::future::BoxFuture;
use http::{Request, Response, StatusCode};
use roomcast_adapter::Reach;

use super::{Peer, answer};
use crate::connection::SessionId;

/// Passes requests on to the nodes that have their sessions.
pub(crate) trait Forward: Send + Sync {
    /// Where the node is that has a session, if that is another one and it can be reached.
    fn owner(&self, session: &SessionId) -> Option<Reach>;

    /// Passes a request on to the node of its session, which judges all of it, and gives that node's answer as it is. When
    /// the future is dropped, that node sees its client go away.
    fn forward(
        self: Arc<Self>,
        owner: Reach,
        request: Request<Body>,
        peer: Peer,
    ) -> BoxFuture<'static, Result<Response<Body>, ForwardError>>;
}

/// Why a request was not answered by the node that has its session. Clients take each for the end of their transport, and
/// connect again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ForwardError {
    #[error("too many requests are being passed on")]
    Full,
    #[error("the node of this session cannot be reached")]
    Unreachable,
    #[error("the node of this session did not answer in time")]
    TimedOut,
    #[error("the connection to the node of this session ended")]
    Broken,
    #[error("the node of this session does not take this request from this node")]
    Refused,
    #[error("this node is going away")]
    Stopping,
}

impl ForwardError {
    /// A stable name for answers and logs.
    pub(crate) fn code(self) -> &'static str {
        match self {
            Self::Full => "full",
            Self::Unreachable => "unreachable",
            Self::TimedOut => "timed_out",
            Self::Broken => "broken",
            Self::Refused => "refused",
            Self::Stopping => "stopping",
        }
    }

    fn status(self) -> StatusCode {
        match self {
            Self::Full | Self::Stopping => StatusCode::SERVICE_UNAVAILABLE,
            Self::TimedOut => StatusCode::GATEWAY_TIMEOUT,
            Self::Unreachable | Self::Broken | Self::Refused => StatusCode::BAD_GATEWAY,
        }
    }

    /// What the client is told.
    pub(super) fn answer(self) -> Response<Body> {
        answer::not_forwarded(self.status(), self.code(), &self.to_string())
    }
}
