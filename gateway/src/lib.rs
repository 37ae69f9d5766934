//! Roomcast.

pub mod cli;
pub mod config;
mod connection;
mod handler;
pub mod metrics;
mod namespace;
mod time;
mod transport;

pub use connection::{EngineHandler, EngineSocket};
pub use handler::{BoxFuture, DisconnectReason, NamespaceHandler, Refusal, Step};
pub use namespace::*;
