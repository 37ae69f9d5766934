//! The state of a connection without its transport: the session, what is to be written, and the layer above Engine.IO. Owns
//! how they are tied together and how a connection ends; what Socket.IO makes of a message is `namespaces`' to know.
//!
//! Everything here happens on the connection's task, in the order in which it came.

mod departure;
mod handlers;
mod held_mail;
mod lower;
mod namespaces;
mod sockets;

use std::collections::VecDeque;
use std::sync::Arc;
use std::task::Context;
use std::time::Instant;

use roomcast_adapter::{CloseCause, Item, Mailbox, Outgoing, SocketId};
use roomcast_protocol::engineio::{CloseReason, Message, Session, Source, Transport};
use roomcast_protocol::socketio::Violation;
use roomcast_protocol::websocket::{Negotiated, OpCode, frame};

use self::departure::Departure;
use self::lower::Lower;
use self::namespaces::Namespaces;
use super::{ConnectionShared, Engine, EngineSocket, Signal, Wire, WireQueue};
use crate::handler::DisconnectReason;
use crate::metrics::PacketKind;

/// The layer above Engine.IO.
enum Upper {
    SocketIo(Namespaces),
    Raw(EngineSocket),
}

/// The state machines of one connection.
pub(super) struct Core {
    pub(super) engine: Arc<Engine>,
    pub(super) shared: Arc<ConnectionShared>,
    /// The one of `shared`: a delivery need not touch that, which is in no cache then.
    pub(super) mailbox: Arc<Mailbox>,
    pub(super) session: Session,
    upper: Upper,
    pub(super) wire: WireQueue,
    /// The transport has to be read once even though there is no room for events.
    pub(super) must_listen: bool,
    /// Why the sockets ended, if it was not the session's end that ended them.
    ended: Option<DisconnectReason>,
    departure: Departure,
    /// Whether this connection wants compressed frames.
    pub(super) compression: Option<Negotiated>,
}

impl Core {
    pub(super) fn new(engine: &Arc<Engine>, shared: Arc<ConnectionShared>, now: Instant) -> Self {
        let transport = shared.transport();
        let session = Session::new(Arc::clone(&engine.session), transport, now);
        let upper = match &engine.raw {
            None => Upper::SocketIo(Namespaces::new(now + engine.connect_timeout)),
            Some(handler) => {
                let socket = EngineSocket { shared: Arc::clone(&shared) };
                handler.open(&socket);
                Upper::Raw(socket)
            }
        };
        let mut wire = WireQueue::default();
        wire.push(open_packet(engine, &shared, transport));
        Self {
            engine: Arc::clone(engine),
            mailbox: Arc::clone(&shared.mailbox),
            shared,
            session,
            upper,
            wire,
            must_listen: false,
            ended: None,
            departure: Departure::default(),
            compression: None,
        }
    }

    /// The layer above, and what it sees of the rest.
    fn split(&mut self) -> (&mut Upper, Lower<'_>) {
        let lower = Lower {
            engine: &self.engine,
            shared: &self.shared,
            session: &self.session,
            is_leaving: self.departure.has_begun(),
            wire: &mut self.wire,
            compression: self.compression,
        };
        (&mut self.upper, lower)
    }

    /// The next time at which something is due.
    pub(super) fn deadline(&self) -> Option<Instant> {
        let upper = match &self.upper {
            Upper::SocketIo(namespaces) => namespaces.deadline(),
            Upper::Raw(_) => None,
        };
        [self.session.deadline(), upper, self.departure.deadline()].into_iter().flatten().min()
    }

    pub(super) fn handle_timeout(&mut self, now: Instant, cx: &mut Context<'_>) {
        if let Upper::SocketIo(namespaces) = &mut self.upper
            && namespaces.is_late(now)
        {
            self.end(DisconnectReason::ForcedServerClose, now, cx);
        }
        if let Some(reason) = self.departure.handle_timeout(now) {
            self.end(reason, now, cx);
        }
        if let Upper::SocketIo(namespaces) = &mut self.upper
            && let Err(violation) = namespaces.handle_timeout(now)
        {
            self.violation(violation, now, cx);
        }
        if self.is_full() {
            // The pong may have come and waits to be read.
            self.session.defer_pong(now);
            self.must_listen = true;
        }
        self.session.handle_timeout(now);
    }

    /// True when there is no room for more events.
    pub(super) fn is_full(&self) -> bool {
        match &self.upper {
            Upper::SocketIo(namespaces) => namespaces.is_full(self.engine.max_pending_handlers),
            Upper::Raw(_) => false,
        }
    }

    /// A text came: the whole of a WebSocket message, or a polling record.
    pub(super) fn handle_text(&mut self, text: &str, now: Instant, cx: &mut Context<'_>) {
        count_engine_packet(&self.engine, text.as_bytes());
        if let Some(message) = self.session.handle_text(Source::Transport, text, now) {
            self.handle_message(message, now, cx);
        }
    }

    /// A binary WebSocket message came.
    pub(super) fn handle_binary(&mut self, data: &[u8], now: Instant, cx: &mut Context<'_>) {
        if let Some(message) = self.session.handle_binary(Source::Transport, data, now) {
            self.handle_message(message, now, cx);
        }
    }

    fn handle_message(&mut self, message: Message<'_>, now: Instant, cx: &mut Context<'_>) {
        let (upper, mut lower) = self.split();
        match upper {
            Upper::SocketIo(namespaces) => {
                if let Err(violation) = namespaces.handle_message(message, &mut lower, now, cx) {
                    self.violation(violation, now, cx);
                }
            }
            Upper::Raw(socket) => {
                lower.engine.metrics.packets_received.inc(PacketKind::Message);
                if let Some(handler) = &lower.engine.raw {
                    handler.message(socket, message);
                }
            }
        }
    }

    fn violation(&mut self, violation: Violation, now: Instant, cx: &mut Context<'_>) {
        tracing::debug!(%violation, "a client broke the protocol");
        self.engine.metrics.violation(violation.code());
        self.end(DisconnectReason::ForcedClose, now, cx);
    }

    /// Goes on with the handlers that wait. True if one was done.
    pub(super) fn poll_waiting(&mut self, cx: &mut Context<'_>) -> bool {
        match self.split() {
            (Upper::SocketIo(namespaces), mut lower) => namespaces.poll_waiting(&mut lower, cx),
            (Upper::Raw(_), _) => false,
        }
    }

    /// Carries out what waited in the mailbox. True if it was more than packets to write.
    pub(super) fn handle_mail(
        &mut self,
        items: &mut VecDeque<Item>,
        now: Instant,
        cx: &mut Context<'_>,
    ) -> bool {
        let mut commanded = false;
        while let Some(item) = items.pop_front() {
            commanded |= !matches!(item, Item::Packet(_));
            match item {
                // After its end a session sends nothing more.
                Item::Packet(_) if !self.session.is_open() => {}
                Item::Packet(outgoing) => self.handle_packet(outgoing, cx),
                Item::Disconnect { socket, close } => self.disconnect(socket, close, now, cx),
                Item::Close(CloseCause::Requested) => self.session.close(!self.wire.is_empty(), now),
                Item::Close(CloseCause::ServerShutdown) => {
                    self.end(DisconnectReason::ServerShuttingDown, now, cx);
                }
                Item::Close(CloseCause::Draining) => self.leave(DisconnectReason::ServerShuttingDown, now),
                Item::Close(CloseCause::Rebalanced) => self.leave(DisconnectReason::Rebalanced, now),
                Item::Close(CloseCause::Fenced) => self.end(DisconnectReason::NodeFenced, now, cx),
                Item::Close(CloseCause::SlowConsumer) => self.drop_slow(cx),
            }
        }
        commanded
    }

    fn handle_packet(&mut self, outgoing: Arc<Outgoing>, cx: &mut Context<'_>) {
        let (upper, mut lower) = self.split();
        let goes_on = match upper {
            Upper::SocketIo(namespaces) => namespaces.handle_packet(outgoing, &mut lower),
            Upper::Raw(_) => {
                lower.send(outgoing);
                true
            }
        };
        if !goes_on {
            self.drop_slow(cx);
        }
    }

    /// The server ends a socket; with `close`, also its connection.
    fn disconnect(&mut self, id: SocketId, close: bool, now: Instant, cx: &mut Context<'_>) {
        let (Upper::SocketIo(namespaces), mut lower) = self.split() else { return };
        if !close {
            namespaces.disconnect(id, &mut lower, cx);
        } else if namespaces.disconnect_all(id, &mut lower) {
            self.end(DisconnectReason::ServerNamespaceDisconnect, now, cx);
        }
    }

    /// The connection is to go, within the grace of the node.
    fn leave(&mut self, reason: DisconnectReason, now: Instant) {
        self.departure.begin(reason, self.engine.grace(), now);
    }

    /// Ends a connection that was told to go, once nothing is under way: handlers that wait owe acks to the client, and the
    /// client may owe some to others. True if it did.
    pub(super) fn leave_if_settled(&mut self, now: Instant, cx: &mut Context<'_>) -> bool {
        if !self.departure.has_begun() {
            return false;
        }
        let owes_acks = match &self.upper {
            Upper::SocketIo(namespaces) if !namespaces.is_settled() => return false,
            Upper::SocketIo(namespaces) => namespaces.owes_acks(),
            Upper::Raw(_) => false,
        };
        let reason = self.departure.settle(owes_acks, now);
        if let Some(reason) = reason {
            self.end(reason, now, cx);
        }
        reason.is_some()
    }

    /// Ends the sockets now and the session after what waits was sent.
    fn end(&mut self, reason: DisconnectReason, now: Instant, cx: &mut Context<'_>) {
        self.departure = Departure::default();
        self.detach_all(reason, cx);
        // What was emitted before goes out before.
        let waiting = self.mailbox.drain();
        let (_, mut lower) = self.split();
        for item in waiting {
            if let Item::Packet(outgoing) = item {
                lower.send(outgoing);
            }
        }
        self.session.close(!self.wire.is_empty(), now);
    }

    /// Ends a connection whose client reads too slowly: what waits is not sent.
    fn drop_slow(&mut self, cx: &mut Context<'_>) {
        self.detach_all(DisconnectReason::SlowConsumer, cx);
        self.session.abort();
    }

    fn detach_all(&mut self, reason: DisconnectReason, cx: &mut Context<'_>) {
        self.ended.get_or_insert(reason);
        if let Upper::SocketIo(namespaces) = &mut self.upper {
            namespaces.detach_all(reason, &self.engine.metrics, cx);
        }
    }

    /// The connection ends without a word, such as by the panic of a listener: its sockets leave their rooms.
    pub(super) fn abandon(&mut self) {
        if let Upper::SocketIo(namespaces) = &mut self.upper {
            namespaces.abandon(DisconnectReason::TransportError, &self.engine.metrics);
        }
    }

    /// The session is over: every socket learns why.
    pub(super) fn finish(&mut self, reason: CloseReason, cx: &mut Context<'_>) {
        let ended = self.ended.unwrap_or(reason.into());
        self.detach_all(ended, cx);
        match (&mut self.upper, &self.engine.raw) {
            (Upper::SocketIo(namespaces), _) => namespaces.finish(),
            (Upper::Raw(socket), Some(handler)) => handler.close(socket, reason),
            (Upper::Raw(_), None) => {}
        }
        self.engine.metrics.connections_closed.inc(ended.into());
    }

    /// True when the connection ended because its client read too slowly.
    pub(super) fn is_slow(&self) -> bool {
        self.ended == Some(DisconnectReason::SlowConsumer)
    }

    /// True when the server ended the connection so that its client comes back.
    pub(super) fn is_sent_away(&self) -> bool {
        matches!(self.ended, Some(DisconnectReason::ServerShuttingDown | DisconnectReason::Rebalanced))
    }

    pub(super) fn signal(&mut self, signal: Signal) {
        self.wire.push(Wire::Signal(signal));
    }
}

fn open_packet(engine: &Engine, shared: &ConnectionShared, transport: Transport) -> Wire {
    let open = engine.session.open_packet(shared.id.as_str(), transport);
    match transport {
        Transport::Polling => Wire::Open(open.into()),
        Transport::WebSocket => Wire::Frames(frame(OpCode::Text, open.as_bytes())),
    }
}

fn count_engine_packet(engine: &Engine, text: &[u8]) {
    let kind = match text.first() {
        Some(b'0') => PacketKind::Open,
        Some(b'1') => PacketKind::Close,
        Some(b'2') => PacketKind::Ping,
        Some(b'3') => PacketKind::Pong,
        Some(b'5') => PacketKind::Upgrade,
        Some(b'6') => PacketKind::Noop,
        _ => return,
    };
    engine.metrics.packets_received.inc(kind);
}

#[cfg(test)]
mod tests;
