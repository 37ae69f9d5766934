//! Roomcast.

pub mod config;
