//! Transports: bytes of HTTP and WebSocket to the protocol and back. Knows no rooms and no namespaces.

mod answer;
mod client_bundle;
mod compression;
mod cors;
mod http;
mod polling;
mod websocket;

pub(crate) use http::{Mount, Peer, handle};
pub(crate) use polling::{Command, PollAnswer, Polling};
pub(crate) use websocket::{Flush, WebSocket, close_frame};
