//! The accept loop of the public listener: HTTP/1.1 with upgrades, nothing but Engine.IO.

use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use axum::body::Body;
use http::{Request, Response};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};

use super::Io;
use crate::transport::Peer;

/// How long a client may take to send the head of a request.
const HEADER_TIMEOUT: Duration = Duration::from_secs(30);

/// The longest head of a request, in bytes.
const MAX_HEAD: usize = 64 * 1024;

/// After a failed accept, such as for want of file descriptors: connections must end first.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Serves Socket.IO, and nothing else, on a listener until `shutdown` is ready. Connections live on: end them with
/// [`Io::close`].
pub async fn serve(io: Io, listener: TcpListener, shutdown: impl Future<Output = ()>) {
    accept(listener, shutdown, |stream, address| {
        let (io, peer) = (io.clone(), Peer { address: Some(address), secure: false });
        serve_requests(stream, move |request| {
            let io = io.clone();
            async move { Ok(io.handle(request.map(Body::new), peer).await) }
        })
    })
    .await;
}

/// Accepts connections until `shutdown` is ready, and has each served by a task of its own.
pub(super) async fn accept<Served>(
    listener: TcpListener,
    shutdown: impl Future<Output = ()>,
    serve: impl Fn(TcpStream, SocketAddr) -> Served,
) where
    Served: Future<Output = ()> + Send + 'static,
{
    let mut shutdown = std::pin::pin!(shutdown);
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = &mut shutdown => return,
        };
        match accepted {
            Ok((stream, address)) => {
                tokio::spawn(serve(stream, address));
            }
            Err(error) if is_about_one_connection(&error) => {}
            Err(error) => {
                tracing::warn!(%error, "cannot accept connections");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

fn is_about_one_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset)
}

/// Serves the requests of a connection one after the other.
pub(super) async fn serve_requests<Answered>(
    stream: TcpStream,
    answer: impl Fn(Request<Incoming>) -> Answered + Send + 'static,
) where
    Answered: Future<Output = Result<Response<Body>, Infallible>> + Send + 'static,
{
    // Polling answers are small and somebody waits for them.
    let _ = stream.set_nodelay(true);
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIMEOUT)
        .max_buf_size(MAX_HEAD)
        .serve_connection(TokioIo::new(stream), service_fn(answer))
        .with_upgrades()
        .await;
    if let Err(error) = served {
        tracing::debug!(%error, "an HTTP connection ended badly");
    }
}
