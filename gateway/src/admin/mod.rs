//! What people look at: the console and the figures that it shows.
//!
//! Owns one page, which fetches nothing from elsewhere, and its figures. It changes nothing: what the page does, it does
//! by `/v1` and as a client.

use axum::extract::State;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{Html, IntoResponse, Response};
use base64::Engine as _;
use serde_json::{Value, json};

use crate::backend::http_api::Api;
use crate::backend::{Code, Problem};
use crate::config::Transport;

const PAGE: &str = include_str!("console.html");

/// Stands in the page where the nonce of its Content-Security-Policy belongs.
const NONCE: &str = "__NONCE__";

/// `GET /console`: the page.
pub(crate) async fn console() -> Response {
    let mut random = [0; 16];
    if let Err(error) = getrandom::fill(&mut random) {
        return Problem::new(Code::Internal, error.to_string()).into_response();
    }
    let nonce = base64::engine::general_purpose::STANDARD.encode(random);
    let policy = format!(
        "default-src 'none'; script-src 'nonce-{nonce}'; style-src 'nonce-{nonce}'; connect-src 'self'; img-src data:; \
         base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
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

/// `GET /console/stats`: the figures. Those that only grow are totals; the page makes rates of them.
pub(crate) async fn stats(State(api): State<Api>) -> axum::Json<Value> {
    let (node, metrics) = (&api.node, api.node.metrics());
    let stats = node.stats();
    let namespaces: Vec<_> =
        stats.namespaces.iter().map(|(name, sockets)| json!({ "name": name, "sockets": sockets })).collect();
    let (writes, seconds) = metrics.emit_to_write_totals();
    axum::Json(json!({
        "node": node.factory().node(),
        "version": env!("CARGO_PKG_VERSION"),
        "adapter": stats.adapter,
        "ready": api.node.unready().is_none(),
        "reason": api.node.unready(),
        "uptime_seconds": api.started.elapsed().as_secs(),
        "nodes": node.factory().nodes(),
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
            "writes_timed": writes,
            "emit_to_write_seconds": seconds,
        },
    }))
}
