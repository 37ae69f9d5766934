//! Roomcast.

pub mod cli;
pub mod config;
pub mod metrics;
