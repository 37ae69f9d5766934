//! The HTTP API: what a backend can do with one JSON request, and what an operator asks of a node.
//!
//! Owns the calls of `/v1`, their bodies, answers and problems, and the routes for probes and metrics. It reaches the
//! gateway only through [`Node`]; it opens no listener and knows no connection.

mod body;
mod emit;
mod guard;
mod health;
mod manage;
mod problem;
mod read;
mod selector;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Instant;

use axum::Router;
use axum::middleware::{from_fn, from_fn_with_state};
use axum::routing::{get, post};
use roomcast_adapter::{Adapter, AdapterFactory, Status};

use crate::admin;
use crate::config::{Config, Secret};
use crate::metrics::Metrics;

pub use guard::{allows_page, own_page_only};
pub use problem::{Code, Problem};

/// The node, as the API sees it.
pub trait Node: Send + Sync + 'static {
    /// The adapter of a namespace that exists on this node.
    fn adapter(&self, namespace: &str) -> Option<Arc<dyn Adapter>>;

    /// The node's place in the cluster.
    fn factory(&self) -> &Arc<dyn AdapterFactory>;

    /// Whether clients are taken: the listeners stand and the node is not draining.
    fn is_serving(&self) -> bool;

    /// What the node counts.
    fn metrics(&self) -> &Arc<Metrics>;

    /// Figures for people.
    fn stats(&self) -> NodeStats;
}

/// Figures of a node that no metric holds.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NodeStats {
    /// The kind of adapter: "memory", "redis", "nats".
    pub adapter: &'static str,
    /// Rooms with members on this node, those of single sockets not counted.
    pub rooms: usize,
    /// The namespaces, with their sockets on this node.
    pub namespaces: Vec<(String, usize)>,
}

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
    pub(crate) settings: Arc<Settings>,
    pub(crate) started: Instant,
}

impl Api {
    /// The adapter of the namespace that a request names: "/" when it names none, and `chat` is `/chat` as in Socket.IO.
    fn adapter(&self, namespace: Option<&str>) -> Result<(String, Arc<dyn Adapter>), Problem> {
        let namespace = match namespace {
            None => "/".to_owned(),
            Some(name) if name.starts_with('/') => name.to_owned(),
            Some(name) => format!("/{name}"),
        };
        match self.node.adapter(&namespace) {
            Some(adapter) => Ok((namespace, adapter)),
            None => Err(Problem::new(Code::NotFound, format!("there is no namespace \"{namespace}\""))),
        }
    }

    /// Why the node is not ready, if it is not.
    pub(crate) fn unready(&self) -> Option<&'static str> {
        if !self.node.is_serving() {
            return Some("not_serving");
        }
        match *self.node.factory().status().borrow() {
            Status::Ready => None,
            Status::Unavailable => Some("broker_unavailable"),
        }
    }
}

/// The routes of the api listener. Whatever else is mounted there needs the layer
/// [`own_page_only`].
pub fn router(node: Arc<dyn Node>, settings: Settings) -> Router {
    let api = Api { node, settings: Arc::new(settings), started: Instant::now() };
    Router::new()
        .route("/v1/emit", post(emit::emit))
        .route("/v1/join", post(manage::join))
        .route("/v1/leave", post(manage::leave))
        .route("/v1/disconnect", post(manage::disconnect))
        .route("/v1/rooms/{room}", get(read::room))
        .route("/v1/rooms/{room}/sockets", get(read::room_sockets))
        .route("/v1/nodes", get(read::nodes))
        .route("/livez", get(health::livez))
        .route("/readyz", get(health::readyz))
        .route("/metrics", get(health::metrics))
        .route("/console", get(admin::console))
        .route("/console/stats", get(admin::stats))
        .fallback(problem::no_such_path)
        .method_not_allowed_fallback(problem::no_such_method)
        .layer(from_fn_with_state(api.clone(), guard::guard))
        .layer(from_fn_with_state(api.clone(), guard::count))
        .layer(from_fn(guard::harden))
        .with_state(api)
}
