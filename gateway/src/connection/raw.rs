//! Engine.IO without Socket.IO: messages of text and bytes.

use std::sync::Arc;

use roomcast_adapter::{CloseCause, Outgoing, Push};
use roomcast_protocol::engineio::{CloseReason, Message};
use roomcast_protocol::socketio::EncodedPacket;

use super::ConnectionShared;
use crate::namespace::{EmitError, Handshake};

/// Behaviour of a server that speaks Engine.IO only. Methods run on the connection's task and must not block.
pub trait EngineHandler: Send + Sync + 'static {
    /// A session has opened.
    fn open(&self, socket: &EngineSocket) {
        let _ = socket;
    }

    /// A message came.
    fn message(&self, socket: &EngineSocket, message: Message<'_>);

    /// The session is over.
    fn close(&self, socket: &EngineSocket, reason: CloseReason) {
        let _ = (socket, reason);
    }
}

/// An Engine.IO session. Cloning is cheap.
#[derive(Debug, Clone)]
pub struct EngineSocket {
    pub(super) shared: Arc<ConnectionShared>,
}

impl EngineSocket {
    /// The request that opened the session.
    pub fn handshake(&self) -> &Handshake {
        &self.shared.handshake
    }

    /// Sends a text message.
    pub fn send_text(&self, text: &str) -> Result<(), EmitError> {
        self.send(EncodedPacket::engine_text(text))
    }

    /// Sends a binary message.
    pub fn send_binary(&self, data: &[u8]) -> Result<(), EmitError> {
        self.send(EncodedPacket::engine_binary(data))
    }

    fn send(&self, packet: EncodedPacket) -> Result<(), EmitError> {
        match self.shared.mailbox.push(&Outgoing::new(packet)) {
            Push::Queued | Push::DroppedVolatile => Ok(()),
            Push::Overflowed | Push::Closed => Err(EmitError::Disconnected),
        }
    }

    /// Ends the session after what was sent.
    pub fn close(&self) {
        self.shared.mailbox.close(CloseCause::Requested);
    }
}
