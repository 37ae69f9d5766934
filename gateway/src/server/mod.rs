//! Servers: the embedding API's entry, the accept loop, and the binary's life from start to drain.

mod io;
mod listener;
mod run;

pub use io::{Io, IoBuilder};
pub use listener::serve;
pub use run::{RunError, run};
