//! What the layer above Engine.IO sees of its connection, for the length of a call, and how it sends.

use std::sync::Arc;

use roomcast_adapter::Outgoing;
use roomcast_protocol::engineio::Session;
use roomcast_protocol::socketio::EncodedPacket;
use roomcast_protocol::websocket::Negotiated;

use crate::connection::{ConnectionShared, Engine, Wire, WireQueue, wire, with_scratch};

pub(super) struct Lower<'a> {
    pub(super) engine: &'a Engine,
    pub(super) shared: &'a Arc<ConnectionShared>,
    pub(super) session: &'a Session,
    /// The connection was told to go: nobody joins any more, and events are not heard.
    pub(super) is_leaving: bool,
    pub(super) wire: &'a mut WireQueue,
    pub(super) compression: Option<Negotiated>,
}

impl Lower<'_> {
    /// Sends a packet of the connection's own. They are short, and never compressed.
    pub(super) fn reply(&mut self, packet: EncodedPacket) {
        self.wire.push(Wire::Packet(Outgoing::new(packet)));
    }

    /// Sends a packet of the mailbox, compressed where that was agreed on and pays.
    pub(super) fn send(&mut self, outgoing: Arc<Outgoing>) {
        let wire = self.encode(outgoing);
        self.wire.push(wire);
    }

    fn encode(&self, outgoing: Arc<Outgoing>) -> Wire {
        let (Some(negotiated), Some(deflate)) = (self.compression, &self.engine.deflate) else {
            return Wire::Packet(outgoing);
        };
        if !outgoing.compress || outgoing.packet.frames().len() < deflate.threshold {
            return Wire::Packet(outgoing);
        }
        with_scratch(|scratch| {
            let deflater = scratch.deflater(deflate.level, negotiated.window_bits());
            if negotiated.shares_frames() {
                outgoing.packet.deflated_with(|_| wire::deflate(&outgoing, deflate.threshold, deflater));
                Wire::Deflated(outgoing)
            } else {
                Wire::Frames(wire::deflate(&outgoing, deflate.threshold, deflater))
            }
        })
    }
}
