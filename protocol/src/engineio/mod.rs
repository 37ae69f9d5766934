//! Engine.IO v4: packets, payloads, requests and the session with its heartbeat and upgrade.
//!
//! Source: the Engine.IO protocol, revision 4, and the behaviour of the reference server (engine.io 6.6). Engine.IO v3
//! and WebTransport have their place here when they come: another packet codec, another [`Transport`].

mod error;
mod packet;
mod payload;
mod query;
mod request;
mod session;

pub use error::EngineError;
pub use packet::{Message, Packet, ParseError};
pub use payload::records;
pub use query::Query;
pub use request::{Existing, Request, Verdict, verify};
pub use session::{CloseReason, Output, Session, SessionConfig, Source};

/// How the packets of a session travel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Transport {
    /// HTTP long-polling.
    Polling,
    /// WebSocket.
    WebSocket,
}

impl Transport {
    /// The name in queries and in the `upgrades` list.
    pub fn name(self) -> &'static str {
        match self {
            Self::Polling => "polling",
            Self::WebSocket => "websocket",
        }
    }

    /// The transport of a name.
    pub fn from_name(name: &str) -> Option<Self> {
        match name {
            "polling" => Some(Self::Polling),
            "websocket" => Some(Self::WebSocket),
            _ => None,
        }
    }
}
