//! Requests of Engine.IO: which are let in, and how each kind is answered.

use std::future::poll_fn;
use std::sync::Arc;
use std::time::Instant;

use axum::body::Body;
use bytes::Bytes;
use http::header::{CONTENT_LENGTH, CONTENT_TYPE, HOST, ORIGIN, SET_COOKIE, UPGRADE};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::BodyExt as _;
use roomcast_adapter::Reach;
use roomcast_protocol::engineio::{self, EngineError, Existing, Query, Transport, Verdict};
use roomcast_protocol::websocket::handshake;
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::oneshot;

use super::answering::{AcrossOrigins, Answering, Held};
use super::{Command, Forward, ForwardError, Peer, Posted, WebSocket};
use super::{answer, client_bundle, cors, forwarded};
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

/// Answers a request. Sessions are begun, and polls are handed over, before this returns; the future reads bodies and waits.
/// To drop it is to lose the client, also before it was polled.
pub(crate) fn handle(engine: &Arc<Engine>, mount: &Mount, request: Request<Body>, peer: Peer) -> Answering {
    let now = |answer| Answering::now(engine, answer);
    let Some(rest) = request.uri().path().strip_prefix(&*mount.path) else {
        return now(answer::empty(StatusCode::NOT_FOUND));
    };
    if let Some(answer) = client_bundle::answer(rest, &request) {
        return now(answer);
    }
    let cors = &engine.config.cors;
    if cors.is_enabled() && request.method() == Method::OPTIONS {
        return now(cors::preflight(cors, request.headers()));
    }
    let origins = AcrossOrigins::of(engine, request.headers());
    let peer = forwarded::client(&engine.config.public, peer, request.headers());
    let query = Query::parse(request.uri().query().unwrap_or_default());
    if let Some((forward, owner)) = elsewhere(mount, &query) {
        // Bounded with what is passed on.
        peer.has_session();
        let answer = Arc::clone(forward).forward(owner, request, peer);
        return Answering::later(engine, |engine| passed_on(engine, origins, answer));
    }
    let judged = Judged::of(engine, &request, &query);
    route(engine, mount, judged, request, &peer).across(origins)
}

async fn passed_on(
    engine: Arc<Engine>,
    origins: Option<AcrossOrigins>,
    answer: impl Future<Output = Result<Response<Body>, ForwardError>>,
) -> Response<Body> {
    match answer.await {
        // Its node has said everything that is to be said.
        Ok(response) => response,
        Err(error) => {
            let mut response = error.answer();
            origins.iter().for_each(|origins| origins.decorate(&engine, &mut response));
            response
        }
    }
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

/// What a request is, by its method, its query and whether it asks for a WebSocket.
struct Judged {
    verdict: Result<Verdict, EngineError>,
    session: Option<Session>,
    is_upgrade: bool,
}

impl Judged {
    fn of(engine: &Engine, request: &Request<Body>, query: &Query<'_>) -> Self {
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
        Self { verdict, session, is_upgrade }
    }
}

fn route(
    engine: &Arc<Engine>,
    mount: &Mount,
    judged: Judged,
    request: Request<Body>,
    peer: &Peer,
) -> Answering {
    let now = |answer| Answering::now(engine, answer);
    let refuse = |error, is_upgrade| now(answer::refuse(&engine.metrics, error, is_upgrade));
    let Judged { verdict, session, is_upgrade } = judged;
    let verdict = match verdict {
        Ok(verdict) => verdict,
        // The reference opens a WebSocket of another protocol version and drops it at once.
        Err(EngineError::UnsupportedProtocolVersion) if is_upgrade => {
            return now(drop_websocket(engine, request));
        }
        Err(error) => return refuse(error, is_upgrade),
    };
    if mount.check_origin && !origin_is_allowed(engine, request.headers()) {
        engine.metrics.handshakes_refused.inc(Refusal::Origin);
        return now(answer::refusal(EngineError::Forbidden, is_upgrade));
    }
    if session.is_some() {
        peer.has_session();
    }
    match (verdict, session) {
        (Verdict::Handshake(Transport::Polling), _) => polling_handshake(engine, &request, peer),
        (Verdict::Handshake(Transport::WebSocket), _) => now(websocket_handshake(engine, request, peer)),
        (Verdict::Poll, Some(session)) => poll(engine, session, request.headers()),
        (Verdict::Post, Some(session)) => Answering::later(engine, |engine| post(engine, session, request)),
        (Verdict::Upgrade, Some(session)) => now(upgrade(engine, session, request)),
        (Verdict::WrongMethod, Some(_)) => now(answer::empty(StatusCode::INTERNAL_SERVER_ERROR)),
        (_, None) => refuse(EngineError::UnknownSid, is_upgrade),
    }
}

pub(crate) fn asks_for_websocket(headers: &HeaderMap) -> bool {
    headers.get(UPGRADE).is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"websocket"))
}

fn origin_is_allowed(engine: &Engine, headers: &HeaderMap) -> bool {
    let text = |name| headers.get(name).map(|value: &HeaderValue| value.to_str().unwrap_or("invalid"));
    engine.config.public.allows_origin(text(ORIGIN), text(HOST))
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

fn polling_handshake(engine: &Arc<Engine>, request: &Request<Body>, peer: &Peer) -> Answering {
    let started = Instant::now();
    let place = match admit(engine, peer) {
        Ok(place) => place,
        Err(answer) => return Answering::now(engine, *answer),
    };
    let handshake = Handshake::new(request.uri(), request.headers(), peer.address, peer.secure);
    let shared = engine.shared(handshake, Transport::Polling, place);
    let cookie = cookie(engine, &shared, peer.secure);
    let (sender, receiver) = oneshot::channel();
    tokio::spawn(Connection::polling(engine, shared, sender));
    let mut held = Held::new(engine, request.headers(), receiver);
    Answering::later(engine, |engine| async move {
        let mut response = poll_fn(|cx| held.poll(&engine, cx)).await;
        if let Some(cookie) = cookie {
            response.headers_mut().append(SET_COOKIE, cookie);
        }
        engine.metrics.observe_handshake(started.elapsed());
        response
    })
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

fn poll(engine: &Arc<Engine>, session: Session, headers: &HeaderMap) -> Answering {
    let (sender, receiver) = oneshot::channel();
    let mut held = Held::new(engine, headers, receiver);
    let Some(commands) = session.commands else {
        return Answering::now(engine, answer::refuse(&engine.metrics, EngineError::UnknownSid, false));
    };
    match commands.try_send(Command::Poll(sender)) {
        // That its task is gone shows in the answer.
        Ok(()) | Err(TrySendError::Closed(_)) => Answering::poll(engine, held),
        Err(TrySendError::Full(command)) => Answering::later(engine, |engine| async move {
            let _ = commands.send(command).await;
            poll_fn(|cx| held.poll(&engine, cx)).await
        }),
    }
}

/// Hands a command to the session's task, or gives it back if there is none to take it.
async fn send(session: &Session, command: Command) -> Result<(), Command> {
    match &session.commands {
        Some(commands) => commands.send(command).await.map_err(|error| error.0),
        None => Err(command),
    }
}

async fn post(engine: Arc<Engine>, session: Session, request: Request<Body>) -> Response<Body> {
    let Some(_turn) = session.shared.begin_post() else {
        let _ = send(&session, Command::Broken).await;
        return answer::empty(StatusCode::BAD_REQUEST);
    };
    // Since v4 binary is base64.
    let content_type = request.headers().get(CONTENT_TYPE);
    if content_type.is_some_and(|kind| kind.as_bytes() == b"application/octet-stream") {
        let _ = send(&session, Command::Broken).await;
        return answer::empty(StatusCode::BAD_REQUEST);
    }
    // A client that stops in the middle of its body is held to the time in which it must answer a ping.
    let patience = engine.session.ping_interval + engine.session.ping_timeout;
    let body = tokio::time::timeout(patience, read_body(engine.session.max_payload, request)).await;
    let body = match body {
        Ok(Ok(body)) => body,
        Ok(Err(BodyError::TooLong)) => return answer::empty(StatusCode::PAYLOAD_TOO_LARGE),
        Ok(Err(BodyError::Broken)) | Err(_) => {
            let _ = send(&session, Command::Broken).await;
            return answer::empty(StatusCode::BAD_REQUEST);
        }
    };
    let (done, handled) = oneshot::channel();
    let _ = send(&session, Command::Post(Box::new(Posted { body, done }))).await;
    match handled.await {
        Ok(()) => answer::post_ok(),
        // The session ended before it came to this payload.
        Err(_) => answer::refuse(&engine.metrics, EngineError::UnknownSid, false),
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
