//! The cluster, written once for every broker.

mod bus;

pub use bus::{Bus, BusError, BusSink, BusState, Publication, Subject};
