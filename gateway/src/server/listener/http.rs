//! Requests of a connection that was let in: HTTP/1.1 with upgrades, for clients, callers of the API and other nodes.

use std::convert::Infallible;
use std::future::Future;
use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use http::header::CONNECTION;
use http::{HeaderValue, Request, Response, StatusCode};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::{Service, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{Notify, watch};
use tokio::time::timeout;
use tower::ServiceExt as _;

use super::{Entered, Stream, Times};
use crate::backend::http_api::CertificateName;
use crate::server::Io;
use crate::transport::Peer;

/// The longest head of a request, in bytes.
const MAX_HEAD: usize = 64 * 1024;

/// Requests of Engine.IO.
pub(super) async fn clients(io: Io, entered: Entered, times: Times) {
    let mut peer = entered.peer();
    let place = Arc::new(entered.place);
    peer.place = Some(Arc::clone(&place));
    let service = service_fn(move |request: Request<Incoming>| {
        let (answer, place) = (io.handle(request.map(Body::new), peer.clone()), Arc::clone(&place));
        async move {
            let mut response = answer.await;
            let is_upgraded = response.status() == StatusCode::SWITCHING_PROTOCOLS;
            if !is_upgraded && !place.return_from_request() {
                response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
            }
            Ok::<_, Infallible>(response)
        }
    });
    serve(entered.stream, service, times, std::future::pending()).await;
}

/// Requests to the API. After `stopped` was told, the one that is under way is the last.
pub(super) async fn callers(
    routes: Router,
    entered: Entered,
    times: Times,
    mut stopped: watch::Receiver<()>,
) {
    let (peer, certificate) = (entered.peer(), entered.certificate.map(CertificateName));
    // Kept to the end of the connection, whatever its requests are.
    let _place = entered.place;
    let service = service_fn(move |request: Request<Incoming>| {
        let mut request = request.map(Body::new);
        request.extensions_mut().insert(peer.clone());
        if let Some(certificate) = &certificate {
            request.extensions_mut().insert(certificate.clone());
        }
        routes.clone().oneshot(request)
    });
    let stop = async move {
        let _ = stopped.changed().await;
    };
    serve(entered.stream, service, times, stop).await;
}

/// A newer connection got the place of one that nobody had shown to be a node's.
pub(super) struct Displaced;

/// Requests that another node passes on.
pub(super) async fn nodes<A, F>(answer: A, entered: Entered, times: Times) -> Result<(), Displaced>
where
    A: Fn(Request<Incoming>, Peer) -> F,
    F: Future<Output = Response<Body>>,
{
    let mut peer = entered.peer();
    let place = Arc::new(entered.place);
    peer.place = Some(Arc::clone(&place));
    let service = service_fn(|request| async { Ok::<_, Infallible>(answer(request, peer.clone()).await) });
    tokio::select! {
        () = serve(entered.stream, service, times, std::future::pending()) => Ok(()),
        () = place.displaced() => Err(Displaced),
    }
}

async fn serve<S>(stream: Stream, service: S, times: Times, stop: impl Future<Output = ()>)
where
    S: Service<Request<Incoming>, Response = Response<Body>>,
    S::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    match stream {
        Stream::Plain(stream) => serve_over(stream, service, times, stop).await,
        Stream::Encrypted(stream) => serve_over(stream, service, times, stop).await,
    }
}

async fn serve_over<I, S>(stream: I, service: S, times: Times, stop: impl Future<Output = ()>)
where
    I: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    S: Service<Request<Incoming>, Response = Response<Body>>,
    S::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let begun = Notify::new();
    let service = service_fn(|request| {
        begun.notify_one();
        service.call(request)
    });
    // Hyper has one time limit for all heads, and it runs while none is on its way.
    let silence = async {
        if timeout(times.first, begun.notified()).await.is_ok() {
            std::future::pending::<()>().await;
        }
    };
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(times.next.max(times.first))
        .max_buf_size(MAX_HEAD)
        .serve_connection(TokioIo::new(stream), service)
        .with_upgrades();
    let (mut served, mut silence) = (std::pin::pin!(served), std::pin::pin!(silence));
    let result = tokio::select! {
        result = served.as_mut() => result,
        () = silence.as_mut() => return,
        () = stop => {
            served.as_mut().graceful_shutdown();
            tokio::select! {
                result = served => result,
                () = silence => return,
            }
        }
    };
    if let Err(error) = result {
        tracing::debug!(%error, "an HTTP connection ended badly");
    }
}
