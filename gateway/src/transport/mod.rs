//! Transports: bytes of HTTP and WebSocket to the protocol and back. Knows no rooms and no namespaces.

mod answer;
mod answering;
mod client_bundle;
mod compression;
mod cors;
mod forward;
mod forwarded;
mod http;
mod peer;
mod polling;
mod websocket;

pub(crate) use answering::Answering;
pub(crate) use forward::{Forward, ForwardError};
pub(crate) use http::{Mount, asks_for_websocket, handle, session_of};
pub(crate) use peer::{Peer, Pending, PendingPlace};
pub(crate) use polling::{Command, PollAnswer, Polling, Posted};
pub(crate) use websocket::{Flush, ReadWrite, WebSocket, close_frame};
