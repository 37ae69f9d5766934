//! The entry: a client's request came to a node that does not have its session.
//!
//! Owns the connections to the other nodes, what a request and its answer look like on the way, and the bound on how many
//! are under way. It judges nothing: whatever the node of the session says is the answer.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::body::Body;
use futures_util::future::{BoxFuture, FutureExt as _};
use http::header::{
    CONNECTION, HOST, HeaderName, PROXY_AUTHENTICATE, PROXY_AUTHORIZATION, TE, TRAILER, TRANSFER_ENCODING,
    UPGRADE,
};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Uri, Version};
use http_body_util::BodyExt as _;
use hyper::upgrade::OnUpgrade;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use roomcast_adapter::{AdapterFactory, Reach};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::timeout;

use super::listener::{REFUSED, RELEASE};
use super::stamp::{self, STAMP, Stamp};
use super::tunnel;
use crate::connection::SessionId;
use crate::metrics::{ForwardResult, ForwardSide, Metrics};
use crate::transport::{Forward, ForwardError, Peer, asks_for_websocket};

/// Connections to each node that are kept while nobody needs them, and for how long: shorter than the other side keeps
/// them, so that no request meets one that is just being closed.
const MAX_IDLE: usize = 256;
const IDLE: Duration = Duration::from_secs(15);

/// What an answer may take beyond the time for which a poll is held.
const MARGIN: Duration = Duration::from_secs(5);

/// How soon the answer to a poll is asked for (again) once it is its turn: the question may overtake the poll, and a client
/// that asks this node all the same is not to ask it all the time.
const RELEASE_EVERY: Duration = Duration::from_millis(250);

/// How long a WebSocket that is passed on is left alone, so that it can become its session's transport: the client has to
/// hear that it may, to end its poll, and to say so. Stock clients whose WebSocket breaks off between the first and the
/// last of it say and hear nothing more until their ping timeout.
const UPGRADING: Duration = Duration::from_secs(2);

const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
const PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");

/// Headers that are about one connection and not about the request (RFC 9110, section 7.6.1).
const HOP_BY_HOP: [HeaderName; 8] = [
    CONNECTION,
    KEEP_ALIVE,
    PROXY_CONNECTION,
    PROXY_AUTHENTICATE,
    PROXY_AUTHORIZATION,
    TE,
    TRAILER,
    TRANSFER_ENCODING,
];

/// Passes requests on to the other nodes.
pub(super) struct Forwarder {
    factory: Arc<dyn AdapterFactory>,
    client: Client<HttpConnector, Body>,
    /// How long an answer may take.
    patience: Duration,
    places: Arc<Semaphore>,
    metrics: Arc<Metrics>,
    ending: watch::Receiver<Ending>,
}

impl Forwarder {
    pub(super) fn new(
        config: &crate::config::Config,
        factory: Arc<dyn AdapterFactory>,
        metrics: Arc<Metrics>,
        ending: watch::Receiver<Ending>,
    ) -> Self {
        let mut connector = HttpConnector::new();
        connector.set_connect_timeout(Some(config.peer.connect_timeout));
        connector.set_nodelay(true);
        let client = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(IDLE)
            .pool_max_idle_per_host(MAX_IDLE)
            // The client's own, whatever it says.
            .set_host(false)
            .build(connector);
        Self {
            factory,
            client,
            patience: config.engine.silence().saturating_add(MARGIN),
            places: Arc::new(Semaphore::new(config.peer.max_requests.min(Semaphore::MAX_PERMITS))),
            metrics,
            ending,
        }
    }

    /// Taken by each request, and each WebSocket, that is being passed on.
    pub(super) fn places(&self) -> Arc<Semaphore> {
        Arc::clone(&self.places)
    }

    async fn pass(
        self: Arc<Self>,
        owner: Reach,
        mut request: Request<Body>,
        peer: Peer,
    ) -> Result<Response<Body>, ForwardError> {
        let mut underway = Underway::begin(&self)?;
        let upgrade = asks_for_websocket(request.headers()).then(|| hyper::upgrade::on(&mut request));
        let (is_post, started) = (request.method() == Method::POST, Instant::now());
        let answer = self.answer(&owner, request, peer).await;
        if is_post && answer.is_ok() {
            self.metrics.forwards.observe_post(started.elapsed());
        }
        underway.ended(match &answer {
            Ok(response) if response.status() == StatusCode::SWITCHING_PROTOCOLS => ForwardResult::Upgraded,
            Ok(_) => ForwardResult::Answered,
            Err(ForwardError::Full) => ForwardResult::Full,
            Err(ForwardError::Unreachable) => ForwardResult::Unreachable,
            Err(ForwardError::TimedOut) => ForwardResult::TimedOut,
            Err(ForwardError::Broken) => ForwardResult::Broken,
            Err(ForwardError::Refused) => ForwardResult::Refused,
            Err(ForwardError::Stopping) => ForwardResult::Stopping,
        });
        let response = answer?;
        Ok(match upgrade {
            Some(client) if response.status() == StatusCode::SWITCHING_PROTOCOLS => {
                self.tunnel(client, response, underway)
            }
            _ => response.map(|body| underway.until_end_of(body)),
        })
    }

    /// The answer of the node that has the session, as it is for the client.
    async fn answer(
        &self,
        owner: &Reach,
        request: Request<Body>,
        peer: Peer,
    ) -> Result<Response<Body>, ForwardError> {
        let is_upgrade = asks_for_websocket(request.headers());
        let is_poll = request.method() == Method::GET && !is_upgrade;
        let from = Peer::new(peer.address, peer.secure);
        let request = self.outgoing(owner, request, peer).ok_or(ForwardError::Broken)?;
        let poll = is_poll.then(|| request.uri().clone());
        let mut ending = self.ending.clone();
        let answered = tokio::select! {
            answered = timeout(self.patience, self.client.request(request)) => answered,
            // Also ready when nobody is left who could say so.
            _ = ending.wait_for(|ending| *ending == Ending::Now) => return Err(ForwardError::Stopping),
            never = self.release(owner, poll, from) => match never {},
        };
        let mut response = match answered {
            Ok(Ok(response)) => response,
            Ok(Err(error)) => {
                let node = owner.address;
                tracing::debug!(%node, error = crate::outbound::causes(&error), "a request was not passed on");
                return Err(match error.is_connect() {
                    true => ForwardError::Unreachable,
                    false => ForwardError::Broken,
                });
            }
            Err(_) => return Err(ForwardError::TimedOut),
        };
        if let Some(reason) = response.headers().get(REFUSED) {
            let (node, reason) = (owner.address, reason.to_str().unwrap_or_default());
            tracing::debug!(%node, reason, "another node does not take a request");
            return Err(match response.status() {
                StatusCode::SERVICE_UNAVAILABLE => ForwardError::Full,
                _ => ForwardError::Refused,
            });
        }
        if response.status() == StatusCode::SWITCHING_PROTOCOLS && !is_upgrade {
            return Err(ForwardError::Broken);
        }
        incoming(&mut response, is_upgrade);
        Ok(response.map(Body::new))
    }

    /// The request as it is sent to the other node.
    fn outgoing(&self, owner: &Reach, request: Request<Body>, peer: Peer) -> Option<Request<Body>> {
        let (mut parts, body) = request.into_parts();
        let target = parts.uri.path_and_query()?.clone();
        let authority = parts.uri.authority().map(|authority| HeaderValue::from_str(authority.as_str()));
        if let (false, Some(Ok(host))) = (parts.headers.contains_key(HOST), authority) {
            parts.headers.insert(HOST, host);
        }
        let uri = Uri::builder().scheme("http").authority(owner.address.to_string());
        parts.uri = uri.path_and_query(target).build().ok()?;
        if parts.version != Version::HTTP_10 {
            parts.version = Version::HTTP_11;
        }
        let wants_upgrade = asks_for_websocket(&parts.headers) && names(&parts.headers, "upgrade");
        strip(&mut parts.headers);
        if wants_upgrade {
            parts.headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
        }
        parts.headers.insert(STAMP, self.stamp(owner, &parts.method, &parts.uri, peer)?);
        Some(Request::from_parts(parts, body))
    }

    fn stamp(&self, owner: &Reach, method: &Method, uri: &Uri, peer: Peer) -> Option<HeaderValue> {
        Stamp { entry: self.factory.node(), peer, at: stamp::now() }.sign(&owner.key, method, uri)
    }

    /// Has a poll answered by the node that holds it, once this node ends and it is the poll's turn. To break it off would
    /// end its session. Whether that node has heard shows in the poll's answer.
    async fn release(&self, owner: &Reach, poll: Option<Uri>, peer: Peer) -> Infallible {
        let Some(poll) = poll else { return std::future::pending().await };
        turn(self.ending.clone()).await;
        loop {
            tokio::time::sleep(RELEASE_EVERY).await;
            let Some(stamp) = self.stamp(owner, &RELEASE, &poll, peer.clone()) else { continue };
            let mut request = Request::new(Body::empty());
            *request.method_mut() = RELEASE;
            *request.uri_mut() = poll.clone();
            request.headers_mut().insert(STAMP, stamp);
            let _ = timeout(self.patience, self.client.request(request)).await;
        }
    }

    /// Answers that the WebSocket is open, and passes its bytes on for as long as it is.
    fn tunnel(&self, client: OnUpgrade, mut response: Response<Body>, underway: Underway) -> Response<Body> {
        let owner = hyper::upgrade::on(&mut response);
        let ending = self.ending.clone();
        tokio::spawn(async move {
            tokio::select! {
                () = tunnel::run(client, owner) => {}
                () = turn_of_websocket(ending) => {}
            }
            drop(underway);
        });
        response.map(|_| Body::empty())
    }
}

impl Forward for Forwarder {
    fn owner(&self, session: &SessionId) -> Option<Reach> {
        let node = session.node();
        (node != self.factory.node()).then(|| self.factory.reach_of(node)).flatten()
    }

    fn forward(
        self: Arc<Self>,
        owner: Reach,
        request: Request<Body>,
        peer: Peer,
    ) -> BoxFuture<'static, Result<Response<Body>, ForwardError>> {
        self.pass(owner, request, peer).boxed()
    }
}

/// How this node ends what it passes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ending {
    /// It does not.
    Not,
    /// Its WebSockets and polls one after the other, within this time, but none that is younger than [`UPGRADING`]. Requests
    /// are passed on all the while.
    Within { since: Instant, time: Duration },
    /// Everything.
    Now,
}

/// Ready when it is the turn of a WebSocket, or a poll, to end. Each draws its own, so that their clients do not come back all at once.
async fn turn(mut ending: watch::Receiver<Ending>) {
    loop {
        let within = match *ending.borrow_and_update() {
            Ending::Not => Duration::MAX,
            Ending::Within { since, time } => time.saturating_sub(since.elapsed()).mul_f64(rand::random()),
            Ending::Now => return,
        };
        match timeout(within, ending.changed()).await {
            Ok(Ok(())) => {}
            // Its turn, or nobody is left who could say that it is.
            Ok(Err(_)) | Err(_) => return,
        }
    }
}

/// The same for a WebSocket that was opened just now.
async fn turn_of_websocket(mut ending: watch::Receiver<Ending>) {
    let opened = Instant::now();
    turn(ending.clone()).await;
    let left = UPGRADING.saturating_sub(opened.elapsed());
    let _ = timeout(left, ending.wait_for(|ending| *ending == Ending::Now)).await;
}

/// Whether `Connection` names something.
fn names(headers: &HeaderMap, what: &str) -> bool {
    named(headers).any(|name| name.eq_ignore_ascii_case(what))
}

/// What `Connection` names.
fn named(headers: &HeaderMap) -> impl Iterator<Item = &str> {
    let values = headers.get_all(CONNECTION).iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).map(str::trim)
}

/// Takes out what is about the connection that a message came on. `Upgrade` stays: it says what the whole is about.
fn strip(headers: &mut HeaderMap) {
    let also: Vec<_> = named(headers).filter_map(|name| name.parse::<HeaderName>().ok()).collect();
    for name in HOP_BY_HOP.iter().chain(also.iter().filter(|name| **name != UPGRADE)) {
        headers.remove(name);
    }
}

/// Makes an answer of another node one for the client.
fn incoming<B>(response: &mut Response<B>, is_upgrade: bool) {
    // A WebSocket that is refused takes its connection with it, as in the reference. Of others it is none of the client's.
    let closes = is_upgrade && names(response.headers(), "close");
    strip(response.headers_mut());
    if response.status() == StatusCode::SWITCHING_PROTOCOLS {
        response.headers_mut().insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    } else if closes {
        response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    }
    *response.version_mut() = Version::HTTP_11;
}

/// A request that is being passed on. Whoever drops it before it has ended has lost its client.
struct Underway {
    metrics: Arc<Metrics>,
    result: Option<ForwardResult>,
    _place: OwnedSemaphorePermit,
}

impl Underway {
    fn begin(forwarder: &Forwarder) -> Result<Self, ForwardError> {
        let Ok(place) = Arc::clone(&forwarder.places).try_acquire_owned() else {
            forwarder.metrics.forwards.passed.inc(ForwardResult::Full);
            return Err(ForwardError::Full);
        };
        forwarder.metrics.forwards.active.of(ForwardSide::Entry).inc();
        Ok(Self { metrics: Arc::clone(&forwarder.metrics), result: None, _place: place })
    }

    fn ended(&mut self, result: ForwardResult) {
        self.result = Some(result);
        self.metrics.forwards.passed.inc(result);
    }

    /// Keeps the place until the client has the body, or is gone.
    fn until_end_of(self, body: Body) -> Body {
        Body::new(body.map_err(move |error| {
            let _ = &self;
            error
        }))
    }
}

impl Drop for Underway {
    fn drop(&mut self) {
        self.metrics.forwards.active.of(ForwardSide::Entry).dec();
        if self.result.is_none() {
            self.metrics.forwards.passed.inc(ForwardResult::Aborted);
        }
    }
}

#[cfg(test)]
mod tests {
    use http::header::{CONTENT_LENGTH, SEC_WEBSOCKET_KEY};

    use super::*;

    fn headers(lines: &[(&'static str, &'static str)]) -> HeaderMap {
        let pair = |(name, value): &(&'static str, &'static str)| {
            (HeaderName::from_static(name), HeaderValue::from_static(value))
        };
        lines.iter().map(pair).collect()
    }

    #[test]
    fn what_is_about_one_connection_stays_there() {
        let mut found = headers(&[
            ("connection", "keep-alive, X-Hop"),
            ("connection", "Upgrade"),
            ("keep-alive", "timeout=5"),
            ("te", "trailers"),
            ("transfer-encoding", "chunked"),
            ("x-hop", "1"),
            ("upgrade", "websocket"),
            ("cookie", "a=b"),
            ("content-length", "3"),
            ("sec-websocket-key", "k"),
        ]);
        assert!(names(&found, "upgrade") && names(&found, "x-hop") && !names(&found, "close"));
        strip(&mut found);
        let mut left: Vec<_> = found.keys().map(HeaderName::as_str).collect();
        left.sort_unstable();
        assert_eq!(left, ["content-length", "cookie", "sec-websocket-key", "upgrade"]);
        assert!(found.contains_key(CONTENT_LENGTH) && found.contains_key(SEC_WEBSOCKET_KEY));
    }

    #[test]
    fn an_answer_says_what_becomes_of_the_clients_connection() {
        let passed = |status: StatusCode, is_upgrade, lines: &[(&'static str, &'static str)]| {
            let mut response = Response::new(());
            *response.status_mut() = status;
            *response.headers_mut() = headers(lines);
            incoming(&mut response, is_upgrade);
            response.headers().get(CONNECTION).map(|value| value.to_str().unwrap().to_owned())
        };
        assert_eq!(passed(StatusCode::OK, false, &[("connection", "close")]), None);
        assert_eq!(
            passed(StatusCode::BAD_REQUEST, true, &[("connection", "close")]),
            Some("close".to_owned())
        );
        let opened = passed(StatusCode::SWITCHING_PROTOCOLS, true, &[("connection", "upgrade")]);
        assert_eq!(opened, Some("Upgrade".to_owned()));
    }

    #[tokio::test]
    async fn a_websocket_ends_when_it_is_its_turn_and_at_once_when_there_is_no_time() {
        const PATIENCE: Duration = Duration::from_secs(20);
        let (ending, ends) = watch::channel(Ending::Not);
        let turns: Vec<_> = (0..8).map(|_| tokio::spawn(turn(ends.clone()))).collect();
        // The chance that one of them draws a turn within the test is small, and would hide nothing.
        let since = Instant::now();
        ending.send_replace(Ending::Within { since, time: Duration::from_secs(1_000_000) });
        assert!(futures_util::future::select_all(turns).now_or_never().is_none());
        ending.send_replace(Ending::Now);
        timeout(PATIENCE, turn(ends.clone())).await.unwrap();
        ending.send_replace(Ending::Within { since, time: Duration::ZERO });
        timeout(PATIENCE, turn(ends.clone())).await.unwrap();
        ending.send_replace(Ending::Not);
        drop(ending);
        timeout(PATIENCE, turn(ends)).await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn a_websocket_may_become_its_sessions_transport_before_it_ends() {
        let (ending, ends) = watch::channel(Ending::Within { since: Instant::now(), time: Duration::ZERO });
        let opened = tokio::time::Instant::now();
        turn_of_websocket(ends.clone()).await;
        let lived = opened.elapsed();
        assert!(lived <= UPGRADING && lived > UPGRADING / 2, "{lived:?}");
        ending.send_replace(Ending::Now);
        let cut = tokio::time::Instant::now();
        turn_of_websocket(ends).await;
        assert_eq!(cut.elapsed(), Duration::ZERO, "without any time left it is cut off");
    }
}
