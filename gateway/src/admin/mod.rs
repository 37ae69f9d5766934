//! What people look at: the console and the figures that it shows.
//!
//! Owns one page with its style and scripts, which fetches nothing from elsewhere, and its figures. It changes nothing:
//! what the page does, it does by `/v1` and as a client.

use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{Html, IntoResponse, Response};
use base64::Engine as _;
use roomcast_adapter::NodeInfo;
use serde_json::{Value, json};

use crate::backend::http_api::Api;
use crate::backend::{Code, Problem};
use crate::config::Transport;

const PAGE: &str = include_str!("console/console.html");

/// Stands in the page where the nonce of its Content-Security-Policy belongs.
const NONCE: &str = "__NONCE__";

const CSS: &str = "text/css; charset=utf-8";
const SCRIPT: &str = "text/javascript; charset=utf-8";

macro_rules! assets {
    ($($name:literal: $kind:ident),* $(,)?) => {
        &[$(($name, $kind, include_str!(concat!("console/", $name)))),*]
    };
}

/// What the page is made of beside itself: name, type, text. None of it is secret.
pub(crate) const ASSETS: &[(&str, &str, &str)] = assets![
    "console.css": CSS,
    "main.js": SCRIPT,
    "dom.js": SCRIPT,
    "session.js": SCRIPT,
    "overview.js": SCRIPT,
    "plot.js": SCRIPT,
    "rooms.js": SCRIPT,
    "tail.js": SCRIPT,
    "tryout.js": SCRIPT,
    "calls.js": SCRIPT,
    "curl.js": SCRIPT,
    "requests.js": SCRIPT,
];

/// `GET /console`: the page.
pub(crate) async fn console() -> Response {
    let mut random = [0; 16];
    if let Err(error) = getrandom::fill(&mut random) {
        return Problem::new(Code::Internal, error.to_string()).into_response();
    }
    let nonce = base64::engine::general_purpose::STANDARD.encode(random);
    // What a script imports has the nonce of the script.
    let policy = format!(
        "default-src 'none'; script-src 'nonce-{nonce}'; style-src 'nonce-{nonce}'; connect-src 'self'; img-src data:; \
         base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; \
         trusted-types 'none'"
    );
    let Ok(policy) = HeaderValue::from_str(&policy) else {
        return StatusCode::INTERNAL_SERVER_ERROR.into_response();
    };
    let headers = [
        (header::CONTENT_SECURITY_POLICY, policy),
        (header::REFERRER_POLICY, HeaderValue::from_static("no-referrer")),
    ];
    (headers, Html(PAGE.replace(NONCE, &nonce))).into_response()
}

/// `GET /console/assets/{name}`: the style and the scripts of the page.
pub(crate) async fn asset(name: Result<Path<String>, PathRejection>) -> Response {
    let wanted = name.map(|Path(name)| name).unwrap_or_default();
    match ASSETS.iter().find(|(name, ..)| *name == wanted) {
        Some((_, kind, text)) => ([(header::CONTENT_TYPE, *kind)], *text).into_response(),
        None => Problem::new(Code::NotFound, "the console has no such file").into_response(),
    }
}

/// `GET /console/stats`: the figures. Those that only grow are totals; the page makes rates of them.
pub(crate) async fn stats(State(api): State<Api>) -> axum::Json<Value> {
    let (node, metrics) = (&api.node, api.node.metrics());
    let stats = node.stats();
    let namespaces: Vec<_> =
        stats.namespaces.iter().map(|(name, sockets)| json!({ "name": name, "sockets": sockets })).collect();
    let nodes: Vec<_> = node.factory().node_infos().into_iter().map(of_node).collect();
    axum::Json(json!({
        "node": node.factory().node(),
        "version": env!("CARGO_PKG_VERSION"),
        "adapter": stats.adapter,
        "ready": api.node.unready().is_none(),
        "reason": api.node.unready(),
        "uptime_seconds": api.started.elapsed().as_secs(),
        "nodes": nodes,
        "connections": {
            "polling": metrics.connections.of(Transport::Polling).get(),
            "websocket": metrics.connections.of(Transport::Websocket).get(),
        },
        "sockets": stats.namespaces.iter().map(|(_, sockets)| sockets).sum::<usize>(),
        "namespaces": namespaces,
        "rooms": stats.rooms,
        "totals": {
            "events_received": metrics.events_received.get(),
            "deliveries": metrics.deliveries(),
            "dropped": metrics.dropped_total(),
            "bytes_received": metrics.bytes_received.total(),
            "bytes_sent": metrics.bytes_sent.total(),
            // As in a histogram of Prometheus: [seconds, writes that took no longer]; null is no bound.
            "emit_to_write_buckets": metrics.emit_to_write_buckets(),
        },
    }))
}

/// A node as it said with its last sign of life. The age spares the page a comparison of clocks.
fn of_node(NodeInfo { tag, sockets, rooms, standing, age }: NodeInfo) -> Value {
    let state = standing.map(|standing| standing.state.as_str());
    json!({ "id": tag, "state": state, "sockets": sockets, "rooms": rooms, "age_seconds": age.as_secs_f64() })
}
