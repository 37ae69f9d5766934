//! The owner: requests for sessions of this node that came to another one.
//!
//! Owns the listener for nodes, and whom it believes. What is believed is answered as if the client had come here, by a
//! server that passes nothing on: a request takes one hop and no more.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use http::header::{CONNECTION, HeaderName};
use http::{HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use roomcast_adapter::ReachKey;
use roomcast_protocol::engineio::Query;
use tokio::sync::Semaphore;

use super::super::Io;
use super::stamp::{self, STAMP, Stamp};
use crate::metrics::{ForwardSide, ForwardedResult, Label as _, Metrics};
use crate::transport::{Peer, session_of};

/// Says to the other node that a request was not answered, and why. It is not passed on to the client.
pub(super) const REFUSED: HeaderName = HeaderName::from_static("roomcast-refused");

/// The method by which a node asks that the poll which it passes on for a session be answered now. Nodes that do not know it
/// take it for a wrong method of a client, which changes nothing.
pub(super) const RELEASE: Method = Method::DELETE;

/// Answers requests of other nodes.
pub(super) struct Owner {
    /// Without anybody to pass requests on.
    io: Io,
    key: ReachKey,
    clock_skew: Duration,
    places: Arc<Semaphore>,
    metrics: Arc<Metrics>,
}

impl Owner {
    pub(super) fn new(io: &Io, config: &crate::config::Peer, key: ReachKey) -> Self {
        Self {
            io: io.without_forward(),
            key,
            clock_skew: config.clock_skew,
            places: Arc::new(Semaphore::new(config.max_requests.min(Semaphore::MAX_PERMITS))),
            metrics: Arc::clone(io.metrics()),
        }
    }

    pub(super) fn metrics(&self) -> &Arc<Metrics> {
        &self.metrics
    }

    /// `from` is whose connection it came on, not the client.
    pub(super) async fn answer(&self, request: Request<Incoming>, from: Peer) -> Response<Body> {
        self.serve(request, from).await.unwrap_or_else(|why| self.refuse(why))
    }

    async fn serve(
        &self,
        mut request: Request<Incoming>,
        from: Peer,
    ) -> Result<Response<Body>, ForwardedResult> {
        let within = (stamp::now(), self.clock_skew);
        let stamp = Stamp::verify(request.headers(), &self.key, request.method(), request.uri(), within);
        let stamp = stamp.map_err(|error| {
            tracing::debug!(%error, "a request on the listener for nodes is not taken");
            error.result()
        })?;
        // Nobody passes anything else on. A handshake in particular would be one with an address that is only said.
        let query = Query::parse(request.uri().query().unwrap_or_default());
        let own = session_of(&query).filter(|session| session.node() == self.io.factory().node());
        let Some(session) = own else {
            tracing::debug!(entry = %stamp.entry, "a request is for no session of this node");
            return Err(ForwardedResult::Foreign);
        };
        from.has_session();
        if request.method() == RELEASE {
            self.metrics.forwards.received.inc(ForwardedResult::Released);
            if let Some(session) = self.io.engine().sessions.get(session) {
                session.release_poll();
            }
            return Ok(Response::new(Body::empty()));
        }
        let place = Arc::clone(&self.places).try_acquire_owned().map_err(|_| ForwardedResult::Full)?;
        self.metrics.forwards.received.inc(ForwardedResult::Served);
        let active = Active::new(&self.metrics);
        request.headers_mut().remove(STAMP);
        let response = self.io.handle(request.map(Body::new), stamp.peer).await;
        Ok(response.map(|body| {
            Body::new(body.map_err(move |error| {
                // Until the other node has all of it, or is gone.
                let _ = (&place, &active);
                error
            }))
        }))
    }

    /// Before anything of a body is read.
    fn refuse(&self, why: ForwardedResult) -> Response<Body> {
        self.metrics.forwards.received.inc(why);
        let mut response = Response::new(Body::empty());
        *response.status_mut() = match why {
            ForwardedResult::Full => StatusCode::SERVICE_UNAVAILABLE,
            _ => StatusCode::FORBIDDEN,
        };
        response.headers_mut().insert(REFUSED, HeaderValue::from_static(why.as_str()));
        // So many connections of nodes are there as requests are served, beside the few that nodes keep for later.
        response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        response
    }
}

/// A request of another node that is being answered.
struct Active(Arc<Metrics>);

impl Active {
    fn new(metrics: &Arc<Metrics>) -> Self {
        metrics.forwards.active.of(ForwardSide::Owner).inc();
        Self(Arc::clone(metrics))
    }
}

impl Drop for Active {
    fn drop(&mut self) {
        self.0.forwards.active.of(ForwardSide::Owner).dec();
    }
}
