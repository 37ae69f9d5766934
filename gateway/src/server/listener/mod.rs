//! Where connections come in: the accept loop of all listeners, and what a connection goes through before its first
//! request.
//!
//! Owns the bounds on connections that have brought nothing yet, in number and in time: a place, the header of the PROXY
//! protocol, TLS. None of it holds up the loop. What requests mean is told elsewhere.

mod http;
mod proxy_protocol;

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use ::http::{Request, Response};
use axum::Router;
use axum::body::Body;
use hyper::body::Incoming;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::watch;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::Error as RustlsError;

use self::proxy_protocol::ProxyError;
use super::Io;
use crate::config::{Api, ProxyProtocol, Public};
use crate::metrics::{ConnectionRefusal, Listener, Metrics};
use crate::tls::{self, Tls};
use crate::transport::{Peer, Pending, PendingPlace, ReadWrite};

/// How long a backend may take for the head of its first request, and for the next one: longer than balancers wait.
const API_TIMES: Times = Times { first: Duration::from_secs(30), next: Duration::from_secs(75) };

/// As much for another node, which connects when it has a request, and lets go of a connection after less.
const PEER_TIMES: Times = Times { first: Duration::from_secs(10), next: Duration::from_secs(30) };

/// Connections that the kernel keeps until they are accepted. When a node dies, its clients come to the others all at once,
/// and what does not fit tries again a second later. Where `net.core.somaxconn` is less, that holds.
const BACKLOG: u32 = 4096;

/// How long a backend may take none of its answer.
const WRITE_TIMEOUT: Duration = Duration::from_secs(60);

/// After a failed accept, such as for want of file descriptors: connections must end first.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Listens on an address, with room for many that come at once.
pub(super) fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    // As `TcpListener::bind` does: elsewhere the option means that an address can be taken over.
    if cfg!(unix) {
        socket.set_reuseaddr(true)?;
    }
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

/// Serves Socket.IO, and nothing else, on a listener until `shutdown` is ready. Connections live on: end them with
/// [`Io::close`].
///
/// The settings of `public` that concern connections hold, except those of TLS: see [`serve_tls`].
pub async fn serve(io: Io, listener: TcpListener, shutdown: impl Future<Output = ()>) {
    serve_clients(io, listener, None, shutdown).await;
}

/// As [`serve`], over TLS.
pub async fn serve_tls(io: Io, listener: TcpListener, tls: Arc<Tls>, shutdown: impl Future<Output = ()>) {
    serve_clients(io, listener, Some(tls), shutdown).await;
}

pub(super) async fn serve_clients(
    io: Io,
    listener: TcpListener,
    tls: Option<Arc<Tls>>,
    shutdown: impl Future<Output = ()>,
) {
    let (public, metrics) = (io.public().clone(), Arc::clone(io.metrics()));
    // A session that is silent for as long is over.
    let write_timeout = io.engine().config.engine.silence();
    let times = Times { first: public.header_timeout, next: public.idle_timeout };
    let gauge = metrics.listeners.pending.of(Listener::Public).clone();
    let pending = Pending::new(public.max_pending_connections, gauge);
    let proxies = (public.proxy_protocol == ProxyProtocol::Required).then_some(public);
    let entrance = Entrance { listener: Listener::Public, pending, write_timeout, proxies, tls, metrics };
    accept(listener, entrance, move |entered| http::clients(io.clone(), entered, times), shutdown).await;
}

/// Serves the API until `shutdown` is ready, and then the requests that are under way.
pub(super) async fn serve_api(
    routes: Router,
    listener: TcpListener,
    api: &Api,
    tls: Option<Arc<Tls>>,
    metrics: Arc<Metrics>,
    shutdown: impl Future<Output = ()>,
) {
    let pending = Pending::new(api.max_connections, metrics.listeners.pending.of(Listener::Api).clone());
    let (listens_as, write_timeout) = (Listener::Api, WRITE_TIMEOUT);
    let entrance = Entrance { listener: listens_as, pending, write_timeout, proxies: None, tls, metrics };
    let (stop, stopped) = watch::channel(());
    let serve = move |entered| http::callers(routes.clone(), entered, API_TIMES, stopped.clone());
    accept(listener, entrance, serve, shutdown).await;
    // Who waits for another request is told so, and the last connection that ends lets go of the channel.
    stop.send_replace(());
    stop.closed().await;
}

/// Serves what other nodes pass on until `shutdown` is ready. An answer may tell that its connection is a node's, which then
/// does not count any more ([`Peer::has_session`]): nodes are bounded by the requests they may bring. Of the others, of which
/// there are `max_pending` at most, the oldest makes room for a new one: a node brings its request at once, so it would take as
/// many strangers within a round trip to keep it out.
pub(super) async fn serve_nodes<A, F>(
    listener: TcpListener,
    max_pending: usize,
    write_timeout: Duration,
    metrics: Arc<Metrics>,
    answer: A,
    shutdown: impl Future<Output = ()>,
) where
    A: Fn(Request<Incoming>, Peer) -> F + Clone + Send + Sync + 'static,
    F: Future<Output = Response<Body>> + Send + 'static,
{
    let pending = Pending::in_line(max_pending, metrics.listeners.pending.of(Listener::Peer).clone());
    let (listens_as, figures) = (Listener::Peer, Arc::clone(&metrics));
    let entrance =
        Entrance { listener: listens_as, pending, write_timeout, proxies: None, tls: None, metrics };
    let serve = move |entered: Entered| {
        let (answer, figures) = (answer.clone(), Arc::clone(&figures));
        async move {
            if http::nodes(answer, entered, PEER_TIMES).await.is_err() {
                figures.listeners.refused(Listener::Peer, ConnectionRefusal::Displaced);
            }
        }
    };
    accept(listener, entrance, serve, shutdown).await;
}

/// Accepts until `shutdown` is ready. Each connection is a task of its own from its first moment.
async fn accept<S, F>(listener: TcpListener, entrance: Entrance, serve: S, shutdown: impl Future<Output = ()>)
where
    S: Fn(Entered) -> F + Clone + Send + Sync + 'static,
    F: Future<Output = ()> + Send + 'static,
{
    let entrance = Arc::new(entrance);
    let mut shutdown = std::pin::pin!(shutdown);
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = &mut shutdown => return,
        };
        match accepted {
            Ok((stream, address)) => {
                let Some(place) = entrance.pending.enter() else {
                    entrance.refuse(ConnectionRefusal::Limit);
                    continue;
                };
                let (entrance, serve) = (Arc::clone(&entrance), serve.clone());
                tokio::spawn(async move {
                    match entrance.enter(stream, address, place).await {
                        Ok(entered) => serve(entered).await,
                        Err(reason) => entrance.refuse(reason),
                    }
                });
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

/// How long a connection may take for the head of a request.
#[derive(Debug, Clone, Copy)]
struct Times {
    /// From its beginning.
    first: Duration,
    /// From the end of the answer before it.
    next: Duration,
}

/// What a connection has to go through.
struct Entrance {
    listener: Listener,
    pending: Arc<Pending>,
    /// How long a peer may take none of what is sent to it.
    write_timeout: Duration,
    /// The settings by which a header of the PROXY protocol is asked for.
    proxies: Option<Public>,
    tls: Option<Arc<Tls>>,
    metrics: Arc<Metrics>,
}

/// A connection that may bring requests.
struct Entered {
    stream: Stream,
    address: SocketAddr,
    /// The name in the certificate that the peer has shown.
    certificate: Option<Arc<str>>,
    place: PendingPlace,
}

enum Stream {
    Plain(TcpStream),
    /// In the one form that the WebSocket can take out of an upgraded connection.
    Encrypted(Box<dyn ReadWrite>),
}

impl Entered {
    fn peer(&self) -> Peer {
        Peer::new(Some(self.address), matches!(self.stream, Stream::Encrypted(_)))
    }
}

impl Entrance {
    fn refuse(&self, reason: ConnectionRefusal) {
        self.metrics.listeners.refused(self.listener, reason);
    }

    async fn enter(
        &self,
        mut stream: TcpStream,
        mut address: SocketAddr,
        place: PendingPlace,
    ) -> Result<Entered, ConnectionRefusal> {
        // Polling answers are small and somebody waits for them.
        let _ = stream.set_nodelay(true);
        give_up_after(&stream, self.write_timeout);
        if let Some(public) = &self.proxies {
            address = proxied(public, &mut stream, address).await?;
        }
        let Some(tls) = &self.tls else {
            return Ok(Entered { stream: Stream::Plain(stream), address, certificate: None, place });
        };
        // Large, and gone before the first request.
        let (stream, certificate) = Box::pin(encrypted(tls, stream, address)).await?;
        Ok(Entered { stream: Stream::Encrypted(stream), address, certificate, place })
    }
}

/// Lets the system end a connection whose peer does not acknowledge what is sent, or takes none of it, for so long. Nothing
/// else would: a write that waits for the peer has no time limit of its own, in HTTP as little as in a tunnel.
#[cfg(target_os = "linux")]
fn give_up_after(stream: &TcpStream, write_timeout: Duration) {
    if let Err(error) = socket2::SockRef::from(stream).set_tcp_user_timeout(Some(write_timeout)) {
        tracing::debug!(%error, "a connection without a time limit for writes");
    }
}

/// Elsewhere there is no such option.
#[cfg(not(target_os = "linux"))]
fn give_up_after(_: &TcpStream, _: Duration) {}

/// The client that a proxy speaks for, or the proxy itself.
async fn proxied(
    public: &Public,
    stream: &mut TcpStream,
    address: SocketAddr,
) -> Result<SocketAddr, ConnectionRefusal> {
    if !public.trusted_proxies.is_empty() && !public.trusts(address.ip()) {
        return Err(ConnectionRefusal::ProxyUntrusted);
    }
    let header = timeout(public.header_timeout, proxy_protocol::read_header(stream)).await;
    let header = header.map_err(|_| ConnectionRefusal::ProxyIncomplete)?;
    header.map(|client| client.unwrap_or(address)).map_err(|error| {
        tracing::debug!(%error, %address, "a connection says nothing of its client");
        match error {
            ProxyError::Missing | ProxyError::Malformed | ProxyError::TooLong => {
                ConnectionRefusal::ProxyMalformed
            }
            ProxyError::Closed | ProxyError::Io(_) => ConnectionRefusal::ProxyIncomplete,
        }
    })
}

async fn encrypted(
    tls: &Tls,
    stream: TcpStream,
    address: SocketAddr,
) -> Result<(Box<dyn ReadWrite>, Option<Arc<str>>), ConnectionRefusal> {
    let accepted = timeout(tls.handshake_timeout(), TlsAcceptor::from(tls.config()).accept(stream)).await;
    let stream = accepted.map_err(|_| ConnectionRefusal::TlsTimeout)?.map_err(|error| {
        tracing::debug!(%error, %address, "no TLS with a peer");
        tls_refusal(&error)
    })?;
    let certificate = stream.get_ref().1.peer_certificates().and_then(<[_]>::first);
    let name = certificate.map(tls::name_of).map(Arc::from);
    Ok((Box::new(stream), name))
}

fn tls_refusal(error: &io::Error) -> ConnectionRefusal {
    match error.get_ref().and_then(|error| error.downcast_ref::<RustlsError>()) {
        Some(RustlsError::InvalidMessage(_)) => ConnectionRefusal::TlsNotSpoken,
        Some(RustlsError::PeerIncompatible(_) | RustlsError::NoApplicationProtocol) => {
            ConnectionRefusal::TlsIncompatible
        }
        Some(RustlsError::NoCertificatesPresented) => ConnectionRefusal::TlsCertificateMissing,
        Some(RustlsError::InvalidCertificate(_)) => ConnectionRefusal::TlsCertificateInvalid,
        Some(RustlsError::AlertReceived(_)) => ConnectionRefusal::TlsAlert,
        // Rustls has many ways to say that a peer broke a rule; none of them is for us to act on.
        _ => ConnectionRefusal::TlsFailed,
    }
}

#[cfg(test)]
mod tests;
