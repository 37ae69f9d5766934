//! What `load` is made of: clients as small as can be, a server in a process of its own, and what the kernel says of it.

mod client;
mod fanout;
mod idle;
mod process;
mod report;
mod room;
mod server;
mod strace;

pub(crate) use fanout::fanout;
pub(crate) use idle::idle;
pub(crate) use report::Report;
pub(crate) use server::serve;

/// Why nothing was measured. Whoever reads it is a person.
pub(crate) type Error = Box<dyn std::error::Error + Send + Sync>;
