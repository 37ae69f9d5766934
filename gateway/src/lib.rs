//! Roomcast.

pub mod admin;
pub mod backend;
pub mod cli;
pub mod config;
pub mod metrics;
