//! Engine.IO v4, Socket.IO v5 and RFC 6455 as sans-IO state machines.
//!
//! Nothing in this crate reads a socket, a clock or a source of randomness: bytes, instants and random numbers are
//! arguments, and what has to be done is returned. That makes every rule of the protocols testable in virtual time.

pub mod engineio;
pub mod limits;
pub mod socketio;
pub mod websocket;
