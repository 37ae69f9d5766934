//! The Socket.IO side of one connection: which namespaces it has joined, and packets put together again from their
//! messages.
//!
//! Knows what a client may send in which state, and nothing of rooms, handlers or transports.

use std::borrow::Cow;
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::args::Args;
use super::json;
use super::packet::{AckId, Packet, PacketType};
use crate::limits;

/// What a client did wrong. The connection is closed, with the reason "forced close".
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
#[non_exhaustive]
pub enum Violation {
    /// The first character is no packet type.
    #[error("unknown packet type")]
    UnknownPacketType,
    /// The attachment count is no positive number, or a placeholder names no attachment.
    #[error("illegal attachments")]
    IllegalAttachments,
    /// More attachments than allowed, or more bytes in them.
    #[error("too many attachments")]
    TooManyAttachments,
    /// The ack id is too large for any client.
    #[error("invalid ack id")]
    InvalidAckId,
    /// The payload does not fit the packet type.
    #[error("invalid payload")]
    InvalidPayload,
    /// The event name is one that only a server uses.
    #[error("reserved event name")]
    ReservedEvent,
    /// Text came while attachments were awaited.
    #[error("text while attachments are awaited")]
    UnexpectedText,
    /// Binary came and no attachment was awaited.
    #[error("unexpected binary")]
    UnexpectedBinary,
    /// The next attachment did not come in time.
    #[error("attachment timeout")]
    AttachmentTimeout,
    /// A packet for a namespace that was not joined, or a second CONNECT, or a packet that only servers send.
    #[error("packet out of order")]
    OutOfOrder,
    /// More namespaces on one connection than allowed.
    #[error("too many namespaces")]
    TooManyNamespaces,
}

impl Violation {
    /// A stable name for logs and metrics.
    pub fn code(self) -> &'static str {
        match self {
            Self::UnknownPacketType => "unknown_packet_type",
            Self::IllegalAttachments => "illegal_attachments",
            Self::TooManyAttachments => "too_many_attachments",
            Self::InvalidAckId => "invalid_ack_id",
            Self::InvalidPayload => "invalid_payload",
            Self::ReservedEvent => "reserved_event",
            Self::UnexpectedText => "unexpected_text",
            Self::UnexpectedBinary => "unexpected_binary",
            Self::AttachmentTimeout => "attachment_timeout",
            Self::OutOfOrder => "out_of_order",
            Self::TooManyNamespaces => "too_many_namespaces",
        }
    }
}

/// The bounds of one connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClientLimits {
    /// Attachments of one packet.
    pub max_attachments: usize,
    /// Bytes in the attachments of one packet together.
    pub max_attachment_bytes: usize,
    /// How long the next attachment may take.
    pub attachment_timeout: Duration,
    /// Namespaces of one connection.
    pub max_namespaces: usize,
}

impl Default for ClientLimits {
    fn default() -> Self {
        Self {
            max_attachments: limits::MAX_ATTACHMENTS,
            max_attachment_bytes: limits::MAX_ATTACHMENTS * limits::MAX_PAYLOAD,
            attachment_timeout: limits::ATTACHMENT_TIMEOUT,
            max_namespaces: limits::MAX_NAMESPACES,
        }
    }
}

/// Something that a client wants.
#[derive(Debug, Clone, PartialEq)]
pub enum Incoming<'a> {
    /// To join a namespace: answer with [`Client::accept`] or [`Client::leave`].
    Connect {
        /// The place of the namespace in this connection.
        slot: usize,
        /// Its name.
        namespace: &'a str,
        /// The auth payload: the text of a JSON object, `{}` if none came.
        auth: &'a str,
    },
    /// An event.
    Event {
        /// The namespace.
        slot: usize,
        /// The event's name.
        name: Cow<'a, str>,
        /// Its arguments.
        args: Args,
        /// Set when an ack is wanted.
        id: Option<AckId>,
    },
    /// An answer to an event of the server.
    Ack {
        /// The namespace.
        slot: usize,
        /// The id that the server gave the event.
        id: AckId,
        /// The arguments of the ack.
        args: Args,
    },
    /// To leave a namespace; the slot is free again.
    Disconnect {
        /// The namespace.
        slot: usize,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Joined {
    /// Asked for, not yet answered.
    Waiting,
    Yes,
    /// Refused, or left by either side: its place may be taken.
    No,
}

#[derive(Debug)]
struct Namespace {
    name: Box<str>,
    joined: Joined,
}

impl Namespace {
    fn is_open(&self) -> bool {
        matches!(self.joined, Joined::Waiting | Joined::Yes)
    }
}

/// A binary packet whose attachments are still on their way.
#[derive(Debug)]
struct Pending {
    kind: PacketType,
    slot: usize,
    name: String,
    elements: Bytes,
    id: Option<AckId>,
    wanted: usize,
    attachments: Vec<Bytes>,
    bytes: usize,
    deadline: Instant,
}

/// The state machine of one connection.
#[derive(Debug, Default)]
pub struct Client {
    namespaces: Vec<Namespace>,
    pending: Option<Box<Pending>>,
}

impl Client {
    /// A connection without namespaces.
    pub fn new() -> Self {
        Self::default()
    }

    /// The name of a namespace that was asked for.
    pub fn namespace(&self, slot: usize) -> &str {
        &self.namespaces[slot].name
    }

    /// True when at least one namespace is joined.
    pub fn has_joined(&self) -> bool {
        self.namespaces.iter().any(|namespace| namespace.joined == Joined::Yes)
    }

    /// The server granted a namespace.
    pub fn accept(&mut self, slot: usize) {
        self.namespaces[slot].joined = Joined::Yes;
    }

    /// The server refused a namespace, or ended it. What the client sends there before it knows closes the connection, as
    /// in the reference.
    pub fn leave(&mut self, slot: usize) {
        self.namespaces[slot].joined = Joined::No;
    }

    /// When [`Client::handle_timeout`] has to be called.
    pub fn deadline(&self) -> Option<Instant> {
        self.pending.as_ref().map(|pending| pending.deadline)
    }

    /// The time that [`Client::deadline`] gave has come.
    pub fn handle_timeout(&mut self, now: Instant) -> Result<(), Violation> {
        match &self.pending {
            Some(pending) if pending.deadline <= now => Err(Violation::AttachmentTimeout),
            _ => Ok(()),
        }
    }

    /// A text message came. `None`: there is nothing to do, or attachments have to come first.
    pub fn handle_text<'a>(
        &mut self,
        text: &'a str,
        limits: &ClientLimits,
        now: Instant,
    ) -> Result<Option<Incoming<'a>>, Violation> {
        if self.pending.is_some() {
            return Err(Violation::UnexpectedText);
        }
        let packet = json::decode(text, limits.max_attachments)?;
        match packet.kind {
            PacketType::Connect => self.connect(&packet, limits).map(Some),
            PacketType::Event | PacketType::BinaryEvent => self.event(&packet, limits, now),
            PacketType::Ack | PacketType::BinaryAck => self.ack(&packet, limits, now),
            PacketType::Disconnect => self.disconnect(&packet),
            PacketType::ConnectError => Err(Violation::OutOfOrder),
        }
    }

    /// A binary message came: an attachment.
    pub fn handle_binary(
        &mut self,
        data: &[u8],
        limits: &ClientLimits,
        now: Instant,
    ) -> Result<Option<Incoming<'static>>, Violation> {
        let pending = self.pending.as_mut().ok_or(Violation::UnexpectedBinary)?;
        pending.bytes += data.len();
        if pending.bytes > limits.max_attachment_bytes {
            return Err(Violation::TooManyAttachments);
        }
        pending.attachments.push(Bytes::copy_from_slice(data));
        pending.deadline = now + limits.attachment_timeout;
        if pending.attachments.len() < pending.wanted {
            return Ok(None);
        }
        let Some(pending) = self.pending.take() else {
            return Ok(None);
        };
        self.complete(*pending)
    }

    fn complete(&mut self, pending: Pending) -> Result<Option<Incoming<'static>>, Violation> {
        let args = Args::from_placeholders(pending.elements, pending.attachments)
            .map_err(|_| Violation::IllegalAttachments)?;
        let slot = pending.slot;
        if self.namespaces[slot].joined != Joined::Yes {
            return Ok(None);
        }
        Ok(match (pending.kind, pending.id) {
            (PacketType::BinaryAck, Some(id)) => Some(Incoming::Ack { slot, id, args }),
            (PacketType::BinaryAck, None) => None,
            (_, id) => Some(Incoming::Event { slot, name: pending.name.into(), args, id }),
        })
    }

    fn connect<'a>(&mut self, packet: &Packet<'a>, limits: &ClientLimits) -> Result<Incoming<'a>, Violation> {
        let auth = packet.data.map_or(Ok("{}"), json::connect)?;
        let namespace = packet.namespace;
        let slot = match self.find(namespace) {
            Some(slot) if self.namespaces[slot].is_open() => return Err(Violation::OutOfOrder),
            Some(slot) => slot,
            None => self.free_slot(namespace, limits)?,
        };
        self.namespaces[slot].joined = Joined::Waiting;
        Ok(Incoming::Connect { slot, namespace, auth })
    }

    /// A slot for a new namespace: that of one which was left when the list is full.
    fn free_slot(&mut self, name: &str, limits: &ClientLimits) -> Result<usize, Violation> {
        let namespace = Namespace { name: name.into(), joined: Joined::Waiting };
        if self.namespaces.len() < limits.max_namespaces {
            self.namespaces.reserve_exact(1);
            self.namespaces.push(namespace);
            return Ok(self.namespaces.len() - 1);
        }
        let free = |namespace: &Namespace| !namespace.is_open();
        let slot = self.namespaces.iter().position(free).ok_or(Violation::TooManyNamespaces)?;
        self.namespaces[slot] = namespace;
        Ok(slot)
    }

    fn find(&self, name: &str) -> Option<usize> {
        self.namespaces.iter().position(|namespace| &*namespace.name == name)
    }

    /// The slot of a namespace that the client may send to.
    fn joined(&self, name: &str) -> Result<usize, Violation> {
        let slot = self.find(name).ok_or(Violation::OutOfOrder)?;
        if self.namespaces[slot].joined == Joined::Yes { Ok(slot) } else { Err(Violation::OutOfOrder) }
    }

    fn event<'a>(
        &mut self,
        packet: &Packet<'a>,
        limits: &ClientLimits,
        now: Instant,
    ) -> Result<Option<Incoming<'a>>, Violation> {
        let Some(data) = packet.data else {
            // The reference lets an event without payload through to nobody.
            self.joined(packet.namespace)?;
            return if packet.attachments == 0 { Ok(None) } else { Err(Violation::InvalidPayload) };
        };
        let parts = json::event(data)?;
        let slot = self.joined(packet.namespace)?;
        let elements = Bytes::copy_from_slice(parts.elements.as_bytes());
        if packet.attachments == 0 {
            let args = Args::from_validated(elements, Vec::new());
            return Ok(Some(Incoming::Event { slot, name: parts.name, args, id: packet.id }));
        }
        self.wait(packet, slot, parts.name.into_owned(), elements, limits, now);
        Ok(None)
    }

    fn ack<'a>(
        &mut self,
        packet: &Packet<'a>,
        limits: &ClientLimits,
        now: Instant,
    ) -> Result<Option<Incoming<'a>>, Violation> {
        let elements = packet.data.map_or(Ok(""), json::ack)?;
        let slot = self.joined(packet.namespace)?;
        let elements = Bytes::copy_from_slice(elements.as_bytes());
        if packet.attachments > 0 {
            self.wait(packet, slot, String::new(), elements, limits, now);
            return Ok(None);
        }
        // Without an id there is nothing that it could answer.
        let args = Args::from_validated(elements, Vec::new());
        Ok(packet.id.map(|id| Incoming::Ack { slot, id, args }))
    }

    fn wait(
        &mut self,
        packet: &Packet<'_>,
        slot: usize,
        name: String,
        elements: Bytes,
        limits: &ClientLimits,
        now: Instant,
    ) {
        self.pending = Some(Box::new(Pending {
            kind: packet.kind,
            slot,
            name,
            elements,
            id: packet.id,
            wanted: packet.attachments,
            attachments: Vec::new(),
            bytes: 0,
            deadline: now + limits.attachment_timeout,
        }));
    }

    fn disconnect(&mut self, packet: &Packet<'_>) -> Result<Option<Incoming<'static>>, Violation> {
        if packet.data.is_some() {
            return Err(Violation::InvalidPayload);
        }
        let slot = self.joined(packet.namespace)?;
        self.leave(slot);
        Ok(Some(Incoming::Disconnect { slot }))
    }
}

#[cfg(test)]
mod tests;
