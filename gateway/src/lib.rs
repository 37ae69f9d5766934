//! Roomcast.
