//! Every bound of the protocols, named. Defaults are those of the reference server where it has one.

use std::time::Duration;

/// The longest message that is accepted, in bytes: announced to clients as `maxPayload` (`maxHttpBufferSize`).
pub const MAX_PAYLOAD: usize = 1_000_000;

/// How long after the last pong the server pings again.
pub const PING_INTERVAL: Duration = Duration::from_secs(25);

/// How long a ping may go unanswered.
pub const PING_TIMEOUT: Duration = Duration::from_secs(20);

/// How long a WebSocket may take to prove itself before it replaces polling.
pub const UPGRADE_TIMEOUT: Duration = Duration::from_secs(10);

/// How often the pending poll is answered while an upgrade waits for the client to let go of it.
pub const UPGRADE_NOOP_INTERVAL: Duration = Duration::from_millis(100);

/// How long a closing polling session waits for one more poll, to tell the client.
pub const POLLING_CLOSE_TIMEOUT: Duration = Duration::from_secs(30);

/// How long a connection may stay without a namespace.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(45);

/// Attachments of one packet (socket.io-parser, `maxAttachments`).
pub const MAX_ATTACHMENTS: usize = 10;

/// How long the next attachment of a packet may take. The reference waits for ever.
pub const ATTACHMENT_TIMEOUT: Duration = Duration::from_secs(45);

/// Namespaces of one connection. The reference has no bound.
pub const MAX_NAMESPACES: usize = 100;
