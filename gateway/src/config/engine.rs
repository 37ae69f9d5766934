//! Engine.IO and Socket.IO: times, sizes and bounds of one connection. Defaults are those of Socket.IO 4.

use std::time::Duration;

use super::section::section;
use super::units;

section! {
    /// Times, sizes and bounds of one connection. The defaults are those of Socket.IO where it has one.
    pub struct Engine {
        /// What clients may connect by: "polling", "websocket".
        transports: Vec<Transport> = vec![Transport::Polling, Transport::Websocket],
        /// Whether a connection may go from polling to WebSocket.
        allow_upgrades: bool = true,
        /// Time between pings of the server.
        #[serde(with = "units::duration")]
        ping_interval: Duration = Duration::from_secs(25),
        /// How long a pong may take before the connection is closed.
        #[serde(with = "units::duration")]
        ping_timeout: Duration = Duration::from_secs(20),
        /// How long an upgrade may take before it is given up; the polling connection lives on.
        #[serde(with = "units::duration")]
        upgrade_timeout: Duration = Duration::from_secs(10),
        /// How long a connection may be in no namespace before it is closed.
        #[serde(with = "units::duration")]
        connect_timeout: Duration = Duration::from_secs(45),
        /// How long the close of a polling connection waits for a request to say it in.
        #[serde(with = "units::duration")]
        polling_close_timeout: Duration = Duration::from_secs(30),
        /// The longest message or polling body that a client may send.
        #[serde(with = "units::bytes")]
        max_payload: usize = 1_000_000,
        /// Binary attachments in one packet. Official clients refuse more than 10.
        max_attachments: usize = 10,
        /// WebSocket frames in one message.
        max_fragments: u32 = 131_072,
        /// Namespaces that one connection may be in.
        max_namespaces_per_connection: usize = 100,
        /// Rooms that one socket may be in, beside the one of its id.
        max_rooms_per_socket: usize = 10_000,
        /// Events of one connection whose handlers may wait at the same time. Eight times as many more are held back in
        /// order; then the connection is not read.
        max_pending_handlers: usize = 128,
    }
    tables {
        http_compression: HttpCompression,
        per_message_deflate: PerMessageDeflate,
    }
}

impl Engine {
    /// How long a connection that lives may be silent: until the next ping, and then for the answer to it.
    pub(crate) fn silence(&self) -> Duration {
        self.ping_interval.saturating_add(self.ping_timeout)
    }
}

section! {
    /// Compression of polling answers, by gzip or deflate.
    pub struct HttpCompression {
        /// Whether answers are compressed for clients that accept it.
        enabled: bool = true,
        /// The shortest answer that is compressed.
        #[serde(with = "units::bytes")]
        threshold: usize = 1024,
    }
}

section! {
    /// Compression of WebSocket messages (RFC 7692), without context takeover: compressed once for all receivers. It costs
    /// memory for each connection that negotiates it.
    pub struct PerMessageDeflate {
        /// Whether it is negotiated.
        enabled: bool = false,
        /// The shortest message that is compressed.
        #[serde(with = "units::bytes")]
        threshold: usize = 1024,
        /// From 1 (fast) to 9 (small).
        level: u8 = 6,
    }
}

/// What a connection goes over.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize, schemars::JsonSchema,
)]
#[serde(rename_all = "lowercase")]
pub enum Transport {
    /// HTTP long-polling.
    Polling,
    /// WebSocket.
    Websocket,
}

impl Transport {
    /// The name on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Polling => "polling",
            Self::Websocket => "websocket",
        }
    }
}
