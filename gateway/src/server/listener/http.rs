//! Requests of a connection that was let in: HTTP/1.1 with upgrades, for clients, callers of the API and other nodes.

use std::convert::Infallible;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use http::header::CONNECTION;
use http::{HeaderValue, Request, Response, StatusCode};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::{HttpService, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::watch;
use tower::ServiceExt as _;

use super::{Entered, Stream};
use crate::backend::http_api::CertificateName;
use crate::server::Io;

/// The longest head of a request, in bytes.
const MAX_HEAD: usize = 64 * 1024;

/// Requests of Engine.IO.
pub(super) async fn clients(io: Io, entered: Entered, header_timeout: Duration) {
    let mut peer = entered.peer();
    let place = Arc::new(entered.place);
    peer.place = Some(Arc::clone(&place));
    let service = service_fn(move |request: Request<Incoming>| {
        let (io, peer, place) = (io.clone(), peer.clone(), Arc::clone(&place));
        async move {
            let mut response = io.handle(request.map(Body::new), peer).await;
            let is_upgraded = response.status() == StatusCode::SWITCHING_PROTOCOLS;
            if !is_upgraded && !place.return_from_request() {
                response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
            }
            Ok::<_, Infallible>(response)
        }
    });
    serve(entered.stream, service, header_timeout, std::future::pending()).await;
}

/// Requests to the API. After `stopped` was told, the one that is under way is the last.
pub(super) async fn callers(
    routes: Router,
    entered: Entered,
    header_timeout: Duration,
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
    serve(entered.stream, service, header_timeout, stop).await;
}

/// Requests that another node passes on.
pub(super) async fn nodes<A, F>(answer: A, entered: Entered, header_timeout: Duration)
where
    A: Fn(Request<Incoming>) -> F,
    F: Future<Output = Response<Body>>,
{
    let _place = entered.place;
    let service = service_fn(|request| async { Ok::<_, Infallible>(answer(request).await) });
    serve(entered.stream, service, header_timeout, std::future::pending()).await;
}

async fn serve<S>(stream: Stream, service: S, header_timeout: Duration, stop: impl Future<Output = ()>)
where
    S: HttpService<Incoming, ResBody = Body>,
    S::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    match stream {
        Stream::Plain(stream) => serve_over(stream, service, header_timeout, stop).await,
        Stream::Encrypted(stream) => serve_over(stream, service, header_timeout, stop).await,
    }
}

async fn serve_over<I, S>(stream: I, service: S, header_timeout: Duration, stop: impl Future<Output = ()>)
where
    I: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    S: HttpService<Incoming, ResBody = Body>,
    S::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(header_timeout)
        .max_buf_size(MAX_HEAD)
        .serve_connection(TokioIo::new(stream), service)
        .with_upgrades();
    let mut served = std::pin::pin!(served);
    let result = tokio::select! {
        result = served.as_mut() => result,
        () = stop => {
            served.as_mut().graceful_shutdown();
            served.await
        }
    };
    if let Err(error) = result {
        tracing::debug!(%error, "an HTTP connection ended badly");
    }
}
