//! What waits to be written to one connection, in order.

use std::cell::Cell;
use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;
use roomcast_adapter::Outgoing;
use roomcast_protocol::websocket::{Deflater, MAX_SERVER_HEADER, OpCode, deflated_frame};

use crate::metrics::PacketKind;

/// Packets of Engine.IO without a payload of their own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Signal {
    Close,
    Ping,
    Noop,
    /// The answer to a probe.
    ProbePong,
}

impl Signal {
    /// The packet as a polling record.
    pub(crate) fn record(self) -> &'static str {
        match self {
            Self::Close => "1",
            Self::Ping => "2",
            Self::Noop => "6",
            Self::ProbePong => "3probe",
        }
    }

    /// The packet as a WebSocket frame.
    pub(crate) fn frame(self) -> &'static [u8] {
        match self {
            Self::Close => b"\x81\x011",
            Self::Ping => b"\x81\x012",
            Self::Noop => b"\x81\x016",
            Self::ProbePong => b"\x81\x063probe",
        }
    }

    pub(crate) fn kind(self) -> PacketKind {
        match self {
            Self::Close => PacketKind::Close,
            Self::Ping => PacketKind::Ping,
            Self::Noop => PacketKind::Noop,
            Self::ProbePong => PacketKind::Pong,
        }
    }
}

/// One thing to write.
#[derive(Debug)]
pub(crate) enum Wire {
    /// A packet that others may be sent too.
    Packet(Arc<Outgoing>),
    /// The same, in its compressed form.
    Deflated(Arc<Outgoing>),
    Signal(Signal),
    /// The open packet `0{…}`.
    Open(Box<str>),
    /// WebSocket frames of this connection only.
    Frames(Bytes),
}

/// Items that a queue may have room for which a thread keeps for the next connection that writes.
const SPARE: usize = 64;

thread_local! {
    static BUFFER: Cell<Option<VecDeque<Wire>>> = const { Cell::new(None) };
}

/// The queue of a connection. Owns no memory while it is empty.
#[derive(Debug, Default)]
pub(crate) struct WireQueue {
    items: VecDeque<Wire>,
    bytes: usize,
}

impl WireQueue {
    pub(crate) fn push(&mut self, wire: Wire) {
        self.bytes += wire.len();
        if self.items.capacity() == 0 {
            // A thread that ends has none to lend.
            self.items = BUFFER.try_with(Cell::take).ok().flatten().unwrap_or_default();
        }
        self.items.push_back(wire);
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// The length of the first item on a WebSocket, in bytes.
    pub(crate) fn front_len(&self) -> Option<usize> {
        self.items.front().map(|item| item.frames().len())
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Wire> {
        self.items.iter()
    }

    /// Puts another queue behind this one.
    pub(crate) fn append(&mut self, mut other: Self) {
        self.bytes += other.bytes;
        self.items.append(&mut other.items);
    }

    pub(crate) fn pop(&mut self) -> Option<Wire> {
        let wire = self.items.pop_front()?;
        self.bytes = self.bytes.saturating_sub(wire.len());
        if self.items.is_empty() {
            let buffer = std::mem::take(&mut self.items);
            if buffer.capacity() <= SPARE {
                let _ = BUFFER.try_with(|spare| spare.set(Some(buffer)));
            }
        }
        Some(wire)
    }
}

impl Wire {
    /// The bytes of the item, or nearly: what a bound needs.
    pub(crate) fn len(&self) -> usize {
        match self {
            Self::Packet(outgoing) | Self::Deflated(outgoing) => outgoing.packet.frames().len(),
            Self::Signal(signal) => signal.frame().len(),
            Self::Open(text) => text.len() + MAX_SERVER_HEADER,
            Self::Frames(frames) => frames.len(),
        }
    }

    /// The WebSocket frames.
    pub(crate) fn frames(&self) -> &[u8] {
        match self {
            Self::Packet(outgoing) => outgoing.packet.frames(),
            // Whoever queued it had it compressed.
            Self::Deflated(outgoing) => outgoing.packet.deflated_with(|packet| packet.frames().clone()),
            Self::Signal(signal) => signal.frame(),
            Self::Open(_) => &[],
            Self::Frames(frames) => frames,
        }
    }

    /// Appends the records of a polling payload.
    pub(crate) fn write_records(&self, payload: &mut Vec<u8>) {
        let text = match self {
            Self::Packet(outgoing) | Self::Deflated(outgoing) => {
                return outgoing.packet.write_records(payload);
            }
            Self::Signal(signal) => signal.record(),
            Self::Open(text) => text,
            Self::Frames(_) => return,
        };
        if !payload.is_empty() {
            payload.push(0x1e);
        }
        payload.extend_from_slice(text.as_bytes());
    }

    pub(crate) fn kind(&self) -> Option<PacketKind> {
        match self {
            Self::Packet(outgoing) | Self::Deflated(outgoing) => Some(kind_of(outgoing)),
            Self::Signal(signal) => Some(signal.kind()),
            Self::Open(_) => Some(PacketKind::Open),
            Self::Frames(_) => None,
        }
    }

    pub(crate) fn outgoing(&self) -> Option<&Arc<Outgoing>> {
        match self {
            Self::Packet(outgoing) | Self::Deflated(outgoing) => Some(outgoing),
            _ => None,
        }
    }
}

fn kind_of(outgoing: &Outgoing) -> PacketKind {
    let digit = outgoing
        .packet
        .messages()
        .next()
        .and_then(|(is_binary, text)| if is_binary { None } else { text.get(1).copied() });
    digit
        .and_then(roomcast_protocol::socketio::PacketType::from_digit)
        .map_or(PacketKind::Message, PacketKind::from)
}

/// Compresses each message of a packet that is long enough (RFC 7692); the others stay as they are.
pub(crate) fn deflate(outgoing: &Outgoing, threshold: usize, deflater: &mut Deflater) -> Bytes {
    let mut frames = Vec::new();
    for (is_binary, message) in outgoing.packet.messages() {
        let opcode = if is_binary { OpCode::Binary } else { OpCode::Text };
        if message.len() >= threshold {
            frames.extend_from_slice(&deflated_frame(deflater, opcode, message));
        } else {
            roomcast_protocol::websocket::write_header(&mut frames, opcode, true, false, message.len());
            frames.extend_from_slice(message);
        }
    }
    frames.into()
}
