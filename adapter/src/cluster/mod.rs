//! The cluster, written once for every broker.
//!
//! Owns who is a member, which rooms a node is subscribed to, what travels between nodes and what is given up when the
//! broker is away. Knows no broker: that is a [`Bus`].

mod adapter;
mod ask;
mod bus;
mod config;
mod directory;
#[cfg(test)]
mod directory_tests;
mod drain;
mod factory;
mod interest;
mod journey;
#[cfg(feature = "simulation")]
mod kept;
#[cfg(test)]
mod life_tests;
#[cfg(feature = "bench")]
#[doc(hidden)]
pub mod measured;
mod membership;
#[cfg(any(test, feature = "conformance"))]
pub mod memory_bus;
mod message;
mod node;
mod once;
mod outbox;
mod overload;
#[cfg(test)]
mod overload_tests;
mod probe;
mod reach;
#[cfg(test)]
mod reach_tests;
mod receive;
mod recent;
mod relay;
mod requests;
mod rerouting;
mod room_subjects;
mod routing;
#[cfg(test)]
mod routing_tests;
#[cfg(feature = "simulation")]
pub mod simulation;
mod subject;
mod tasks;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod version_tests;
mod wire;

pub use adapter::ClusterAdapter;
pub use bus::{Backlog, Bus, BusError, BusSink, BusState, Publication, Subject};
pub use config::ClusterConfig;
pub use factory::{ClusterError, ClusterFactory};
pub use journey::{ClusterObserver, RemoteDelivery};
