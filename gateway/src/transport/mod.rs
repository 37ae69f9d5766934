//! Transports: bytes of HTTP and WebSocket to the protocol and back. Knows no rooms and no namespaces.

mod answer;
mod client_bundle;
mod compression;
mod cors;
mod forward;
mod http;
mod polling;
mod websocket;

pub(crate) use forward::{Forward, ForwardError};
pub(crate) use http::{Mount, Peer, asks_for_websocket, handle, session_of};
pub(crate) use polling::{Command, PollAnswer, Polling};
pub(crate) use websocket::{Flush, WebSocket, close_frame};
