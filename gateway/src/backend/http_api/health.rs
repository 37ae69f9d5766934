//! `/livez`, `/readyz` and `/metrics`: for probes, load balancers and Prometheus. They need no key.

use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::json;

use super::Api;

/// The process answers.
pub(super) async fn livez() -> Response {
    axum::Json(json!({ "alive": true })).into_response()
}

/// The node can serve clients, and its broker is there.
pub(super) async fn readyz(State(api): State<Api>) -> Response {
    let node = api.node.factory().node();
    match api.node.unready() {
        None => axum::Json(json!({ "ready": true, "node": node })).into_response(),
        Some(reason) => {
            let connections = api.node.connections();
            let body = json!({ "ready": false, "reason": reason, "node": node, "connections": connections });
            let body = axum::Json(body);
            (StatusCode::SERVICE_UNAVAILABLE, body).into_response()
        }
    }
}

pub(super) async fn metrics(State(api): State<Api>) -> Response {
    let kind = [(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")];
    (kind, api.node.metrics().render()).into_response()
}
