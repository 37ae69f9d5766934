//! How backends reach the gateway, and what serves clients where there is none. Owns no protocol of clients.

pub(crate) mod calls;
pub(crate) mod clients;
pub mod http_api;
mod node;
mod problem;

pub use clients::Revocations;
pub use node::{Node, NodeStats};
pub use problem::{Code, Problem};
