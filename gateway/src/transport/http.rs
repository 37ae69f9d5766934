//! Requests of Engine.IO: which are let in, and how each kind is answered.

use std::sync::Arc;
use std::time::Instant;

use axum::body::Body;
use bytes::Bytes;
use http::header::{
    CONNECTION, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, HOST, ORIGIN, SET_COOKIE, UPGRADE, VARY,
};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Uri};
use http_body_util::BodyExt as _;
use roomcast_adapter::Reach;
use roomcast_protocol::engineio::{self, EngineError, Existing, Query, Transport, Verdict};
use roomcast_protocol::websocket::handshake;
use tokio::sync::oneshot;

use super::answer;
use super::compression::Encoding;
use super::{Command, Forward, Peer, PollAnswer, WebSocket, client_bundle, cors, forwarded};
use crate::connection::{Connection, ConnectionShared, Engine, Place, Session, SessionId, WireQueue};
use crate::metrics::Refusal;
use crate::namespace::Handshake;

/// An answer to a body that is too long comes after this many times the limit was read, so that the client, which is
/// still sending, gets to see it.
const DRAIN_FACTOR: usize = 8;

/// Where the engine is reachable.
#[derive(Clone)]
pub(crate) struct Mount {
    /// A prefix of paths, such as `/socket.io/`.
    pub(crate) path: Arc<str>,
    /// Whether `public.origins` is asked. The console is part of the server.
    pub(crate) check_origin: bool,
    /// Who passes on requests for sessions of other nodes. Whatever comes from another node is answered here: nothing is
    /// passed on twice.
    pub(crate) forward: Option<Arc<dyn Forward>>,
}

/// Answers a request.
pub(crate) async fn handle(
    engine: &Arc<Engine>,
    mount: &Mount,
    request: Request<Body>,
    peer: Peer,
) -> Response<Body> {
    let Some(rest) = request.uri().path().strip_prefix(&*mount.path) else {
        return answer::empty(StatusCode::NOT_FOUND);
    };
    if let Some(answer) = client_bundle::answer(rest, &request) {
        return answer;
    }
    let mut response = across_origins(engine, mount, request, peer).await;
    if engine.is_closing() && response.status() != StatusCode::SWITCHING_PROTOCOLS {
        // Where no balancer reads HTTP, a client would ask this node again for as long as its TCP connection stands.
        response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    }
    response
}

async fn across_origins(
    engine: &Arc<Engine>,
    mount: &Mount,
    request: Request<Body>,
    peer: Peer,
) -> Response<Body> {
    let cors = &engine.config.cors;
    if cors.is_enabled() && request.method() == Method::OPTIONS {
        return cors::preflight(cors, request.headers());
    }
    let mut headers = HeaderMap::new();
    if let Some(origin) = request.headers().get(ORIGIN).filter(|_| cors.is_enabled()) {
        headers.insert(ORIGIN, origin.clone());
    }
    let peer = forwarded::client(&engine.config.public, peer, request.headers());
    let query = request.uri().query().unwrap_or_default().to_owned();
    let query = Query::parse(&query);
    let mut response = match elsewhere(mount, &query) {
        Some((forward, owner)) => {
            // Bounded with what is passed on.
            peer.has_session();
            match Arc::clone(forward).forward(owner, request, peer).await {
                // Its node has said everything that is to be said.
                Ok(response) => return response,
                Err(error) => error.answer(),
            }
        }
        None => route(engine, mount, &query, request, peer).await,
    };
    if cors.is_enabled() {
        cors::decorate(cors, &headers, &mut response);
    }
    response
}

/// Where a request has to go that is for a session of another node.
fn elsewhere<'a>(mount: &'a Mount, query: &Query<'_>) -> Option<(&'a Arc<dyn Forward>, Reach)> {
    let forward = mount.forward.as_ref()?;
    Some((forward, forward.owner(&session_of(query)?)?))
}

/// The session that a request names.
pub(crate) fn session_of(query: &Query<'_>) -> Option<SessionId> {
    SessionId::parse(query.sid.as_deref()?)
}

async fn route(
    engine: &Arc<Engine>,
    mount: &Mount,
    query: &Query<'_>,
    request: Request<Body>,
    peer: Peer,
) -> Response<Body> {
    let is_upgrade = asks_for_websocket(request.headers());
    let mut session = None;
    let verdict = engineio::verify(
        &engineio::Request { method: request.method(), query, is_upgrade },
        &engine.session.transports,
        |sid| {
            session = SessionId::parse(sid).and_then(|id| engine.sessions.get(id));
            session.as_ref().map(|session| Existing { transport: session.shared.transport() })
        },
    );
    let verdict = match verdict {
        Ok(verdict) => verdict,
        // The reference opens a WebSocket of another protocol version and drops it at once.
        Err(EngineError::UnsupportedProtocolVersion) if is_upgrade => return drop_websocket(engine, request),
        Err(error) => return refuse(engine, error, is_upgrade),
    };
    if mount.check_origin && !origin_is_allowed(engine, request.headers()) {
        engine.metrics.handshakes_refused.inc(Refusal::Origin);
        return answer::refusal(EngineError::Forbidden, is_upgrade);
    }
    if session.is_some() {
        peer.has_session();
    }
    match (verdict, session) {
        (Verdict::Handshake(Transport::Polling), _) => {
            polling_handshake(engine, request.uri(), request.headers(), &peer).await
        }
        (Verdict::Handshake(Transport::WebSocket), _) => websocket_handshake(engine, request, &peer),
        (Verdict::Poll, Some(session)) => poll(engine, &session, request.headers()).await,
        (Verdict::Post, Some(session)) => post(engine, &session, request).await,
        (Verdict::Upgrade, Some(session)) => upgrade(engine, session, request),
        (Verdict::WrongMethod, Some(_)) => answer::empty(StatusCode::INTERNAL_SERVER_ERROR),
        (_, None) => refuse(engine, EngineError::UnknownSid, is_upgrade),
    }
}

pub(crate) fn asks_for_websocket(headers: &HeaderMap) -> bool {
    headers.get(UPGRADE).is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"websocket"))
}

fn origin_is_allowed(engine: &Engine, headers: &HeaderMap) -> bool {
    let text = |name| headers.get(name).map(|value: &HeaderValue| value.to_str().unwrap_or("invalid"));
    engine.config.public.allows_origin(text(ORIGIN), text(HOST))
}

fn refuse(engine: &Engine, error: EngineError, is_upgrade: bool) -> Response<Body> {
    engine.metrics.handshakes_refused.inc(match error {
        EngineError::UnknownTransport => Refusal::UnknownTransport,
        EngineError::UnknownSid => Refusal::UnknownSid,
        EngineError::BadHandshakeMethod => Refusal::BadMethod,
        EngineError::BadRequest => Refusal::BadRequest,
        EngineError::Forbidden => Refusal::Forbidden,
        EngineError::UnsupportedProtocolVersion => Refusal::UnsupportedVersion,
    });
    answer::refusal(error, is_upgrade)
}

/// Takes a place for a session, or answers why there is none.
fn admit(engine: &Engine, peer: &Peer) -> Result<Option<Place>, Box<Response<Body>>> {
    let admitted = engine.admit(peer.address.map(|address| address.ip()), Instant::now());
    let place = admitted.map_err(|refusal| {
        engine.metrics.handshakes_refused.inc(refusal);
        Box::new(answer::not_admitted(refusal))
    })?;
    peer.has_session();
    Ok(place)
}

async fn polling_handshake(
    engine: &Arc<Engine>,
    uri: &Uri,
    headers: &HeaderMap,
    peer: &Peer,
) -> Response<Body> {
    let started = Instant::now();
    let place = match admit(engine, peer) {
        Ok(place) => place,
        Err(answer) => return *answer,
    };
    let handshake = Handshake::new(uri, headers, peer.address, peer.secure);
    let shared = engine.shared(handshake, Transport::Polling, place);
    let cookie = cookie(engine, &shared, peer.secure);
    let (sender, receiver) = oneshot::channel();
    tokio::spawn(Connection::polling(engine, shared, sender));
    let mut response = poll_response(engine, headers, receiver).await;
    if let Some(cookie) = cookie {
        response.headers_mut().append(SET_COOKIE, cookie);
    }
    engine.metrics.observe_handshake(started.elapsed());
    response
}

fn cookie(engine: &Engine, shared: &ConnectionShared, is_encrypted: bool) -> Option<HeaderValue> {
    let cookie = &engine.config.cookie;
    if !cookie.enabled {
        return None;
    }
    let mut text = format!("{}={}; Path={}", cookie.name, shared.id.as_str(), cookie.path);
    if cookie.http_only {
        text.push_str("; HttpOnly");
    }
    // It came over TLS, and will do so again.
    if cookie.secure || is_encrypted {
        text.push_str("; Secure");
    }
    text.push_str("; SameSite=");
    text.push_str(cookie.same_site.as_str());
    HeaderValue::from_str(&text).ok()
}

async fn poll(engine: &Arc<Engine>, session: &Session, headers: &HeaderMap) -> Response<Body> {
    let (sender, receiver) = oneshot::channel();
    if send(session, Command::Poll(sender)).await.is_err() {
        return refuse(engine, EngineError::UnknownSid, false);
    }
    poll_response(engine, headers, receiver).await
}

/// Waits until the session has something to say. If the client goes away first, the sender notices.
async fn poll_response(
    engine: &Arc<Engine>,
    headers: &HeaderMap,
    answer: oneshot::Receiver<PollAnswer>,
) -> Response<Body> {
    let payload = match answer.await {
        Ok(PollAnswer::Payload(payload)) => payload,
        Ok(PollAnswer::Overlap) => return answer::empty(StatusCode::BAD_REQUEST),
        Err(_) => return refuse(engine, EngineError::UnknownSid, false),
    };
    let compression = &engine.config.engine.http_compression;
    let encoding = (compression.enabled && payload.len() >= compression.threshold)
        .then(|| Encoding::accepted(headers))
        .flatten();
    let Some((encoding, Ok(compressed))) = encoding.map(|encoding| (encoding, encoding.encode(&payload)))
    else {
        return answer::payload(payload);
    };
    let mut response = answer::payload(compressed);
    response.headers_mut().insert(CONTENT_ENCODING, encoding.header());
    response.headers_mut().append(VARY, HeaderValue::from_static("Accept-Encoding"));
    response
}

/// Hands a command to the session's task, or gives it back if there is none to take it.
async fn send(session: &Session, command: Command) -> Result<(), Command> {
    match &session.commands {
        Some(commands) => commands.send(command).await.map_err(|error| error.0),
        None => Err(command),
    }
}

async fn post(engine: &Arc<Engine>, session: &Session, request: Request<Body>) -> Response<Body> {
    let Some(_turn) = session.shared.begin_post() else {
        let _ = send(session, Command::Broken).await;
        return answer::empty(StatusCode::BAD_REQUEST);
    };
    // Since v4 binary is base64.
    let content_type = request.headers().get(CONTENT_TYPE);
    if content_type.is_some_and(|kind| kind.as_bytes() == b"application/octet-stream") {
        let _ = send(session, Command::Broken).await;
        return answer::empty(StatusCode::BAD_REQUEST);
    }
    // A client that stops in the middle of its body is held to the time in which it must answer a ping.
    let patience = engine.session.ping_interval + engine.session.ping_timeout;
    let body = tokio::time::timeout(patience, read_body(engine.session.max_payload, request)).await;
    let body = match body {
        Ok(Ok(body)) => body,
        Ok(Err(BodyError::TooLong)) => return answer::empty(StatusCode::PAYLOAD_TOO_LARGE),
        Ok(Err(BodyError::Broken)) | Err(_) => {
            let _ = send(session, Command::Broken).await;
            return answer::empty(StatusCode::BAD_REQUEST);
        }
    };
    let (done, handled) = oneshot::channel();
    if send(session, Command::Post { body, done }).await.is_err() {
        return refuse(engine, EngineError::UnknownSid, false);
    }
    match handled.await {
        Ok(()) => answer::post_ok(),
        // The session ended before it came to this payload.
        Err(_) => refuse(engine, EngineError::UnknownSid, false),
    }
}

enum BodyError {
    TooLong,
    Broken,
}

async fn read_body(max: usize, request: Request<Body>) -> Result<Bytes, BodyError> {
    let announced = request.headers().get(CONTENT_LENGTH).and_then(|len| len.to_str().ok()?.parse().ok());
    if announced.is_some_and(|len: usize| len > max.saturating_mul(DRAIN_FACTOR)) {
        return Err(BodyError::TooLong);
    }
    let mut body = request.into_body();
    let (mut collected, mut total) = (Vec::new(), 0_usize);
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame.map_err(|_| BodyError::Broken)?.into_data() else {
            continue;
        };
        total += data.len();
        if total > max.saturating_mul(DRAIN_FACTOR) {
            break;
        }
        if total > max {
            collected = Vec::new();
        } else {
            collected.extend_from_slice(&data);
        }
    }
    if total > max { Err(BodyError::TooLong) } else { Ok(collected.into()) }
}

/// Begins a WebSocket: the answer, and what there is to do once the stream is free. An error is the refusal.
struct Opening {
    response: Response<Body>,
    on_upgrade: hyper::upgrade::OnUpgrade,
    compression: Option<handshake::Negotiated>,
}

fn open_websocket(engine: &Engine, request: &mut Request<Body>) -> Result<Opening, Box<Response<Body>>> {
    let valid = handshake::validate(request.method(), request.version(), request.headers());
    let handshake = valid.map_err(|error| {
        engine.metrics.handshakes_refused.inc(Refusal::BadRequest);
        let mut response = answer::empty(error.status());
        if let Some((name, value)) = error.response_header() {
            response.headers_mut().insert(name, value);
        }
        *response.body_mut() = Body::from(error.to_string());
        Box::new(response)
    })?;
    let compression =
        engine.deflate.as_ref().and_then(|deflate| handshake::negotiate(request.headers(), deflate));
    let mut response = answer::empty(StatusCode::SWITCHING_PROTOCOLS);
    response.headers_mut().extend(handshake.response_headers(compression));
    Ok(Opening { response, on_upgrade: hyper::upgrade::on(request), compression })
}

fn websocket_handshake(engine: &Arc<Engine>, mut request: Request<Body>, peer: &Peer) -> Response<Body> {
    let started = Instant::now();
    let opening = match open_websocket(engine, &mut request) {
        Ok(opening) => opening,
        Err(response) => return *response,
    };
    let place = match admit(engine, peer) {
        Ok(place) => place,
        Err(answer) => return *answer,
    };
    let handshake = Handshake::new(request.uri(), request.headers(), peer.address, peer.secure);
    let shared = engine.shared(handshake, Transport::WebSocket, place);
    let engine = Arc::clone(engine);
    tokio::spawn(async move {
        let Ok(upgraded) = opening.on_upgrade.await else {
            return engine.leave(place);
        };
        let (max_payload, max_fragments) = (engine.session.max_payload, engine.max_fragments);
        let websocket = WebSocket::new(upgraded, max_payload, max_fragments, opening.compression);
        engine.metrics.observe_handshake(started.elapsed());
        // A task of its own, so that nothing of the handshake stays with the connection.
        tokio::spawn(Connection::websocket(&engine, shared, websocket));
    });
    opening.response
}

/// Opens a WebSocket and drops it: its client sees an abnormal closure (1006).
fn drop_websocket(engine: &Engine, mut request: Request<Body>) -> Response<Body> {
    engine.metrics.handshakes_refused.inc(Refusal::UnsupportedVersion);
    match open_websocket(engine, &mut request) {
        Ok(Opening { response, on_upgrade, .. }) => {
            tokio::spawn(async move { drop(on_upgrade.await) });
            response
        }
        Err(response) => *response,
    }
}

fn upgrade(engine: &Arc<Engine>, session: Session, mut request: Request<Body>) -> Response<Body> {
    let opening = match open_websocket(engine, &mut request) {
        Ok(opening) => opening,
        Err(response) => return *response,
    };
    let (max_payload, max_fragments) = (engine.session.max_payload, engine.max_fragments);
    tokio::spawn(async move {
        let Ok(upgraded) = opening.on_upgrade.await else { return };
        let websocket = WebSocket::new(upgraded, max_payload, max_fragments, opening.compression);
        let refused = send(&session, Command::Upgrade(Box::new(websocket))).await;
        if let Err(Command::Upgrade(websocket)) = refused {
            // The session is gone, or it has a WebSocket already.
            let mut wire = WireQueue::default();
            wire.push(super::close_frame(None));
            websocket.close(wire).await;
        }
    });
    opening.response
}
