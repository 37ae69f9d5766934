//! How backends reach the gateway, and what serves clients where there is none. Owns no protocol of clients.

pub(crate) mod calls;
pub(crate) mod clients;
pub(crate) mod events;
pub mod http_api;
mod ingest;
pub(crate) mod nats;
mod node;
mod problem;
pub(crate) mod redis;
mod webhook;

pub use clients::Revocations;
pub use events::{DeadLetters, SetupError};
pub use node::{Node, NodeStats, Phase};
pub use problem::{Code, Problem};
