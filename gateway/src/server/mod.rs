//! Servers: the embedding API's entry, the accept loop, and the binary's life from start to end.

mod adapters;
mod capacity;
mod certificates;
mod counters;
mod drain;
mod ingest;
mod io;
mod lifecycle;
mod listener;
mod logs;
mod memory;
#[cfg(test)]
mod metrics_reference;
mod namespaces;
mod node;
mod observe;
mod outages;
mod peer;
mod rebalance;
mod reload;
mod run;

pub use io::{Io, IoBuilder};
pub use listener::{serve, serve_tls};
pub use peer::{Peers, PeersError};
pub use run::{RunError, run, serve_configured};
