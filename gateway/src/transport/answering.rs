//! The answer to a request, on its way.
//!
//! What takes long keeps nothing of the request: as long as anything of it is kept, hyper reads into another buffer to see
//! whether its client goes away, and a client that polls is here nearly all of its time.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use axum::body::Body;
use futures_util::future::BoxFuture;
use http::header::{CONNECTION, CONTENT_ENCODING, ORIGIN, VARY};
use http::{HeaderMap, HeaderValue, Response, StatusCode};
use roomcast_protocol::engineio::EngineError;
use tokio::sync::oneshot;

use super::compression::Encoding;
use super::{PollAnswer, answer, cors};
use crate::connection::Engine;

/// The answer to a request: a future. Whoever drops it has lost the client.
pub(crate) struct Answering {
    engine: Arc<Engine>,
    across: Option<AcrossOrigins>,
    stage: Stage,
}

enum Stage {
    /// It is there. Once it was given out there is none.
    Done(Option<Response<Body>>),
    Poll(Held),
    /// Something else that takes a while.
    Other(BoxFuture<'static, Response<Body>>),
}

impl Answering {
    pub(super) fn now(engine: &Arc<Engine>, response: Response<Body>) -> Self {
        Self { engine: Arc::clone(engine), across: None, stage: Stage::Done(Some(response)) }
    }

    pub(super) fn poll(engine: &Arc<Engine>, held: Held) -> Self {
        Self { engine: Arc::clone(engine), across: None, stage: Stage::Poll(held) }
    }

    pub(super) fn later<F>(engine: &Arc<Engine>, response: impl FnOnce(Arc<Engine>) -> F) -> Self
    where
        F: Future<Output = Response<Body>> + Send + 'static,
    {
        let response = Box::pin(response(Arc::clone(engine)));
        Self { engine: Arc::clone(engine), across: None, stage: Stage::Other(response) }
    }

    /// The same, for scripts of other origins.
    pub(super) fn across(self, origins: Option<AcrossOrigins>) -> Self {
        Self { across: origins, ..self }
    }
}

impl Future for Answering {
    type Output = Response<Body>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Response<Body>> {
        let this = &mut *self;
        let mut response = match &mut this.stage {
            Stage::Done(response) => response.take().expect("an answer is given once"),
            Stage::Poll(held) => ready!(held.poll(&this.engine, cx)),
            Stage::Other(response) => ready!(response.as_mut().poll(cx)),
        };
        if let Some(across) = &this.across {
            across.decorate(&this.engine, &mut response);
        }
        if this.engine.is_closing() && response.status() != StatusCode::SWITCHING_PROTOCOLS {
            // Where no balancer reads HTTP, a client would ask this node again for as long as its TCP connection stands.
            response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        }
        Poll::Ready(response)
    }
}

/// What every answer carries where scripts of other origins may read it.
pub(super) struct AcrossOrigins(Option<HeaderValue>);

impl AcrossOrigins {
    /// `None` where they may not.
    pub(super) fn of(engine: &Engine, headers: &HeaderMap) -> Option<Self> {
        let copied = |origin: &HeaderValue| HeaderValue::from_bytes(origin.as_bytes()).ok();
        engine.config.cors.is_enabled().then(|| Self(headers.get(ORIGIN).and_then(copied)))
    }

    pub(super) fn decorate(&self, engine: &Engine, response: &mut Response<Body>) {
        cors::decorate(&engine.config.cors, self.0.as_ref(), response);
    }
}

/// A poll that waits until its session has something to say. If the client goes away first, the sender notices.
pub(super) struct Held {
    answer: oneshot::Receiver<PollAnswer>,
    encoding: Option<Encoding>,
}

impl Held {
    /// The headers are those of the request.
    pub(super) fn new(engine: &Engine, headers: &HeaderMap, answer: oneshot::Receiver<PollAnswer>) -> Self {
        let compresses = engine.config.engine.http_compression.enabled;
        Self { answer, encoding: compresses.then(|| Encoding::accepted(headers)).flatten() }
    }

    pub(super) fn poll(&mut self, engine: &Engine, cx: &mut Context<'_>) -> Poll<Response<Body>> {
        let answer = ready!(Pin::new(&mut self.answer).poll(cx));
        Poll::Ready(match answer {
            Ok(PollAnswer::Payload(payload)) => self.response(engine, payload),
            Ok(PollAnswer::Overlap) => answer::empty(StatusCode::BAD_REQUEST),
            Err(_) => answer::refuse(&engine.metrics, EngineError::UnknownSid, false),
        })
    }

    fn response(&self, engine: &Engine, payload: Vec<u8>) -> Response<Body> {
        let pays = payload.len() >= engine.config.engine.http_compression.threshold;
        let encoding = self.encoding.filter(|_| pays);
        let Some((encoding, Ok(compressed))) = encoding.map(|encoding| (encoding, encoding.encode(&payload)))
        else {
            return answer::payload(payload);
        };
        let mut response = answer::payload(compressed);
        response.headers_mut().insert(CONTENT_ENCODING, encoding.header());
        response.headers_mut().append(VARY, HeaderValue::from_static("Accept-Encoding"));
        response
    }
}
