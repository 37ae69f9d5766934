//! Servers: the embedding API's entry, the accept loop, and the binary's life from start to end.

mod counters;
mod ingest;
mod io;
mod listener;
#[cfg(test)]
mod metrics_reference;
mod node;
mod observe;
mod outages;
mod peer;
mod reload;
mod run;

pub use io::{Io, IoBuilder};
pub use listener::serve;
pub use peer::{Peers, PeersError};
pub use run::{RunError, run, serve_configured};
