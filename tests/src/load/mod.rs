//! What `load` is made of: clients as small as can be, servers in processes of their own, and what the kernel says of them.
//!
//! [`scenario`] is what can be measured, [`target`] what can be measured of; each scenario runs against each target.

mod calls;
mod compare;
mod crowd;
mod echo;
mod fanout;
mod grow;
mod idle;
mod ledger;
mod plot;
mod polling;
mod process;
mod quiet;
mod report;
mod room;
mod scenario;
mod server;
mod slow;
mod spread;
mod strace;
mod table;
mod target;

pub(crate) use compare::{Comparison, compare};
pub(crate) use grow::{Growth, grow};
use quiet::require_quiet;
pub(crate) use report::Report;
pub(crate) use scenario::Scenario;
pub(crate) use server::{Setup, pin_self};
pub(crate) use spread::hold;
pub(crate) use target::{Target, names};

/// Why nothing was measured. Whoever reads it is a person.
pub(crate) type Error = Box<dyn std::error::Error + Send + Sync>;
