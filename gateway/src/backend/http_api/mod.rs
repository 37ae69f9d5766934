//! The HTTP API: what a backend can do with one JSON request, and what an operator asks of a node.
//!
//! Owns how the calls of `/v1` are spoken in HTTP, and the routes for probes and metrics. What a call does is told in
//! `calls`; it reaches the gateway only through [`Node`], opens no listener and knows no connection.

mod body;
mod emit;
mod guard;
mod health;
mod manage;
mod read;
mod tail;
#[cfg(test)]
mod tests;
mod tokens;

use std::sync::Arc;
use std::time::Instant;

use axum::Router;
use axum::middleware::{from_fn, from_fn_with_state};
use axum::routing::{get, post};

use super::calls::Calls;
use super::{Code, Node, Problem};
use crate::admin;
use crate::config::{Config, Secret};

pub use guard::{allows_page, own_page_only};

/// What the API has to know of the configuration.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The API keys; without any, every caller is let in.
    pub keys: Vec<Secret>,
    /// The longest body, in bytes.
    pub max_body: usize,
    /// The most binary attachments in one event: a client closes its connection when it gets more.
    pub max_attachments: usize,
}

impl From<&Config> for Settings {
    fn from(config: &Config) -> Self {
        Self {
            keys: config.api.keys.clone(),
            max_body: config.api.max_body,
            max_attachments: config.engine.max_attachments,
        }
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
    Router::new()
        .route("/v1/emit", post(emit::emit))
        .route("/v1/join", post(manage::join))
        .route("/v1/leave", post(manage::leave))
        .route("/v1/disconnect", post(manage::disconnect))
        .route("/v1/rooms/{room}", get(read::room))
        .route("/v1/rooms/{room}/sockets", get(read::room_sockets))
        .route("/v1/tokens/revoke", post(tokens::revoke))
        .route("/v1/nodes", get(read::nodes))
        .route("/v1/tail", get(tail::tail))
        .route("/livez", get(health::livez))
        .route("/readyz", get(health::readyz))
        .route("/metrics", get(health::metrics))
        .route("/console", get(admin::console))
        .route("/console/stats", get(admin::stats))
        .fallback(super::problem::no_such_path)
        .method_not_allowed_fallback(super::problem::no_such_method)
        .layer(from_fn_with_state(api.clone(), guard::guard))
        .layer(from_fn_with_state(api.clone(), guard::count))
        .layer(from_fn(guard::harden))
        .with_state(api)
}
