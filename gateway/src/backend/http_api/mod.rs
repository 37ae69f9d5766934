//! The HTTP API: what a backend can do with one JSON request, and what an operator asks of a node.
//!
//! Owns how the calls of `/v1` are spoken in HTTP, and the routes for probes and metrics. What a call does is told in
//! `calls`; it reaches the gateway only through [`Node`], opens no listener and knows no connection.

mod body;
mod callers;
mod guard;
mod health;
mod msgpack;
mod openapi;
mod operations;
mod perform;
mod read;
mod tail;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Instant;

use axum::Router;
use axum::middleware::{from_fn, from_fn_with_state};
use axum::routing::get;

use super::calls::Calls;
use super::{Code, Node, Problem};
use crate::admin;
use crate::config::Config;

pub use callers::{Callers, CertificateName};
pub use guard::{allows_page, own_page_only};

/// What the API has to know of the configuration.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Who may call.
    pub callers: Arc<Callers>,
    /// The longest body, in bytes.
    pub max_body: usize,
    /// The most binary attachments in one event: a client closes its connection when it gets more.
    pub max_attachments: usize,
}

impl Settings {
    /// The settings of a configuration.
    pub fn new(config: &Config, callers: Arc<Callers>) -> Self {
        Self { callers, max_body: config.api.max_body, max_attachments: config.engine.max_attachments }
    }
}

/// What every call gets.
#[derive(Clone)]
pub(crate) struct Api {
    pub(crate) node: Arc<dyn Node>,
    pub(crate) calls: Arc<Calls>,
    pub(crate) settings: Arc<Settings>,
    pub(crate) started: Instant,
}

/// The routes of the api listener. Whatever else is mounted there needs the layer
/// [`own_page_only`].
pub fn router(node: Arc<dyn Node>, settings: Settings) -> Router {
    let calls = Arc::new(Calls::new(Arc::clone(&node), settings.max_attachments));
    let api = Api { node, calls, settings: Arc::new(settings), started: Instant::now() };
    let mut router = Router::new();
    for operation in operations::OPERATIONS {
        router = router.route(operation.path, (operation.handler)());
    }
    router
        .route("/openapi.json", get(openapi::openapi))
        .route("/livez", get(health::livez))
        .route("/readyz", get(health::readyz))
        .route("/metrics", get(health::metrics))
        .route("/console", get(admin::console))
        .route("/console/assets/{name}", get(admin::asset))
        .route("/console/stats", get(admin::stats))
        .fallback(super::problem::no_such_path)
        .method_not_allowed_fallback(super::problem::no_such_method)
        .layer(from_fn_with_state(api.clone(), guard::guard))
        .layer(from_fn_with_state(api.clone(), guard::count))
        .layer(from_fn(guard::harden))
        .with_state(api)
}
