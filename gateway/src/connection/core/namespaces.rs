//! The Socket.IO half of a connection: its namespaces, from a client's CONNECT to the goodbye. Owns the client's protocol,
//! the sockets and what waits for them; when the connection ends is told to it.

use std::sync::Arc;
use std::task::Context;
use std::time::Instant;

use roomcast_adapter::{LocalSocket, Outgoing, SocketId};
use roomcast_protocol::engineio::Message;
use roomcast_protocol::socketio::{Client, EncodedPacket, Incoming, Violation};

use super::handlers::{Finished, Handlers};
use super::held_mail::{HeldMail, namespace_of};
use super::lower::Lower;
use super::sockets::{Rates, Sockets};
use crate::connection::sessions::random_id;
use crate::handler::{DisconnectReason, Refusal, Step};
use crate::metrics::{Metrics, PacketKind};
use crate::namespace::{Ack, Event, NamespaceInner, Phase, Socket};

pub(super) struct Namespaces {
    client: Client,
    sockets: Sockets,
    rates: Rates,
    handlers: Handlers,
    held_mail: HeldMail,
    /// When the client must have joined a namespace.
    connect_by: Option<Instant>,
}

impl Namespaces {
    pub(super) fn new(connect_by: Instant) -> Self {
        Self {
            client: Client::new(),
            sockets: Sockets::default(),
            rates: Rates::default(),
            handlers: Handlers::default(),
            held_mail: HeldMail::default(),
            connect_by: Some(connect_by),
        }
    }

    /// The next time at which something is due.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.client.deadline().into_iter().chain(self.connect_by).min()
    }

    /// True, once, if the client has joined nothing in time.
    pub(super) fn is_late(&mut self, now: Instant) -> bool {
        self.connect_by.take_if(|by| *by <= now).is_some()
    }

    pub(super) fn handle_timeout(&mut self, now: Instant) -> Result<(), Violation> {
        self.client.handle_timeout(now)
    }

    /// True when there is no room for more events. Acks are let through for as long as possible: handlers may be waiting
    /// for them.
    pub(super) fn is_full(&self, max_pending_handlers: usize) -> bool {
        self.handlers.is_full(max_pending_handlers)
    }

    /// True when nothing waits any more and no event is held.
    pub(super) fn is_settled(&self) -> bool {
        self.handlers.is_settled()
    }

    /// Whether somebody waits for an ack of the client.
    pub(super) fn owes_acks(&self) -> bool {
        self.sockets.owes_acks()
    }

    pub(super) fn handle_message(
        &mut self,
        message: Message<'_>,
        lower: &mut Lower<'_>,
        now: Instant,
        cx: &mut Context<'_>,
    ) -> Result<(), Violation> {
        let limits = &lower.engine.client_limits;
        let incoming = match message {
            Message::Text(text) => self.client.handle_text(text, limits, now)?,
            Message::Binary(data) => self.client.handle_binary(&data, limits, now)?,
        };
        if let Some(incoming) = incoming {
            self.handle_incoming(incoming, lower, cx);
        }
        Ok(())
    }

    fn handle_incoming(&mut self, incoming: Incoming<'_>, lower: &mut Lower<'_>, cx: &mut Context<'_>) {
        let engine = lower.engine;
        let metrics = &engine.metrics;
        match incoming {
            Incoming::Connect { slot, namespace, auth } => {
                metrics.packets_received.inc(PacketKind::Connect);
                if !lower.is_leaving {
                    self.connect(slot, namespace, auth, lower, cx);
                }
            }
            Incoming::Event { slot, name, args, id } => {
                let is_binary = !args.attachments().is_empty();
                let kind = if is_binary { PacketKind::BinaryEvent } else { PacketKind::Event };
                metrics.packets_received.inc(kind);
                metrics.events_received.inc();
                let Some(socket) = self.sockets.get(slot).filter(|_| !lower.is_leaving) else { return };
                let ack = id.map_or_else(Ack::unwanted, |id| {
                    let namespace = Arc::clone(socket.namespace_inner().name());
                    Ack::new(Arc::clone(&lower.shared.mailbox), namespace, id)
                });
                if !self.rates.allow_event(&engine.limits, slot) {
                    metrics.events_limited.inc();
                    let _ = ack.refuse("rate_limited", 429);
                    return;
                }
                let event = Event { name: name.as_ref().into(), args, ack };
                self.handlers.handle_event(slot, socket, event, engine.max_pending_handlers, cx);
            }
            Incoming::Ack { slot, id, args } => {
                let is_binary = !args.attachments().is_empty();
                metrics.packets_received.inc(if is_binary { PacketKind::BinaryAck } else { PacketKind::Ack });
                metrics.acks_received.inc();
                if let Some(socket) = self.sockets.get(slot) {
                    socket.namespace_inner().adapter().ack(socket.id(), id, args);
                }
            }
            Incoming::Disconnect { slot } => {
                metrics.packets_received.inc(PacketKind::Disconnect);
                self.detach(slot, DisconnectReason::ClientNamespaceDisconnect, metrics, cx);
            }
        }
    }

    /// Goes on with the handlers that wait. True if one was done.
    pub(super) fn poll_waiting(&mut self, lower: &mut Lower<'_>, cx: &mut Context<'_>) -> bool {
        let mut progress = false;
        while let Some(finished) = self.handlers.poll_finished(cx) {
            progress = true;
            match finished {
                Finished::Event => {}
                Finished::Admitted(slot, socket, result) => self.admitted(slot, &socket, result, lower, cx),
                Finished::RoomsStand(slot, socket) => self.joined(slot, &socket, lower, cx),
                Finished::Connected(slot, socket) => self.connected(slot, &socket, lower),
            }
        }
        while let Some((slot, socket, event)) = self.handlers.next_held(lower.engine.max_pending_handlers) {
            progress = true;
            if self.is_current(slot, &socket, lower) {
                self.handlers.dispatch(&socket, event, cx);
            }
        }
        progress
    }

    fn connect(&mut self, slot: usize, name: &str, auth: &str, lower: &mut Lower<'_>, cx: &mut Context<'_>) {
        let Some(namespace) = lower.engine.registry.find(name, auth) else {
            self.refuse(slot, name, &Refusal::new("Invalid namespace"), lower);
            return;
        };
        let socket = self.open_socket(slot, namespace, auth, lower);
        let step = socket.namespace_inner().handler().admit(&socket, cx);
        let waiting = socket.clone();
        let admitted = self.handlers.wait_for(step, move |result| Finished::Admitted(slot, waiting, result));
        if let Some(result) = admitted {
            self.admitted(slot, &socket, result, lower, cx);
        }
    }

    fn open_socket(
        &mut self,
        slot: usize,
        namespace: Arc<NamespaceInner>,
        auth: &str,
        lower: &Lower<'_>,
    ) -> Socket {
        let id = random_id(lower.engine.registry.factory().node());
        let socket = Socket::new(id, namespace, Arc::clone(lower.shared), auth);
        self.sockets.insert(slot, socket.clone());
        socket
    }

    fn refuse(&mut self, slot: usize, namespace: &str, refusal: &Refusal, lower: &mut Lower<'_>) {
        lower.reply(EncodedPacket::connect_error(namespace, &refusal.to_json()));
        self.client.leave(slot);
        self.sockets.remove(slot);
    }

    /// True if the slot is still this socket's: the connection may have gone on while a handler waited.
    fn is_current(&self, slot: usize, socket: &Socket, lower: &Lower<'_>) -> bool {
        lower.session.is_open() && self.sockets.get(slot).is_some_and(|current| current == socket)
    }

    fn admitted(
        &mut self,
        slot: usize,
        socket: &Socket,
        result: Result<(), Refusal>,
        lower: &mut Lower<'_>,
        cx: &mut Context<'_>,
    ) {
        if !self.is_current(slot, socket, lower) {
            return;
        }
        let namespace = socket.namespace_inner();
        if let Err(refusal) = result {
            socket.set_phase(Phase::Disconnected);
            self.refuse(slot, namespace.name(), &refusal, lower);
            return;
        }
        let mailbox = Arc::clone(&lower.shared.mailbox);
        namespace.adapter().add(LocalSocket { id: socket.id(), mailbox, describe: socket.describe() });
        socket.set_phase(Phase::Joined);
        namespace.sockets_gauge.inc();
        // Also without rooms: in a new namespace, what is emitted to everybody must reach this socket as well.
        let rooms = socket.take_early_rooms();
        let join = namespace.adapter().join(socket.id(), &rooms);
        let step = Step::start(
            async move {
                if let Err(error) = join.await {
                    tracing::debug!(%error, "a new socket may miss emits of other nodes");
                }
            },
            cx,
        );
        let waiting = socket.clone();
        if self.handlers.wait_for(step, move |()| Finished::RoomsStand(slot, waiting)).is_some() {
            self.joined(slot, socket, lower, cx);
        }
    }

    fn joined(&mut self, slot: usize, socket: &Socket, lower: &mut Lower<'_>, cx: &mut Context<'_>) {
        if !self.is_current(slot, socket, lower) {
            return;
        }
        let step = socket.namespace_inner().handler().connected(socket, cx);
        let waiting = socket.clone();
        if self.handlers.wait_for(step, move |()| Finished::Connected(slot, waiting)).is_some() {
            self.connected(slot, socket, lower);
        }
    }

    /// Tells the client that it is connected, once.
    fn connected(&mut self, slot: usize, socket: &Socket, lower: &mut Lower<'_>) {
        if !self.is_current(slot, socket, lower) || socket.phase() == Phase::Connected {
            return;
        }
        socket.set_phase(Phase::Connected);
        let reply = format!(r#"{{"sid":"{}"}}"#, socket.id());
        lower.reply(EncodedPacket::connect(socket.namespace_inner().name(), &reply));
        self.connect_by = None;
        self.client.accept(slot);
        self.held_mail.release(slot, |outgoing| lower.send(outgoing));
    }

    /// A packet for the client. False if more is held than may be: the connection cannot go on.
    pub(super) fn handle_packet(&mut self, outgoing: Arc<Outgoing>, lower: &mut Lower<'_>) -> bool {
        let Some(slot) = self.untold_slot(&outgoing) else {
            lower.send(outgoing);
            return true;
        };
        if self.held_mail.hold(slot, outgoing) > lower.engine.config.mailbox.max_items {
            return false;
        }
        if self.sockets.get(slot).is_some_and(|socket| socket.phase() == Phase::Impatient) {
            self.tell_the_impatient(lower);
        }
        true
    }

    /// The slot of a packet whose socket's client does not know yet that it is connected.
    fn untold_slot(&self, outgoing: &Outgoing) -> Option<usize> {
        if self.handlers.is_idle() {
            return None;
        }
        let mut untold = self.sockets.untold();
        untold
            .find(|(_, socket)| namespace_of(outgoing) == Some(&**socket.namespace_inner().name()))
            .map(|(slot, _)| slot)
    }

    /// A handler waits for an ack of a client that does not know yet that it is connected: it is told now.
    fn tell_the_impatient(&mut self, lower: &mut Lower<'_>) {
        let impatient: Vec<_> =
            self.sockets.impatient().map(|(slot, socket)| (slot, socket.clone())).collect();
        for (slot, socket) in impatient {
            self.connected(slot, &socket, lower);
        }
    }

    /// The server ends one socket.
    pub(super) fn disconnect(&mut self, id: SocketId, lower: &mut Lower<'_>, cx: &mut Context<'_>) {
        if let Some(slot) = self.sockets.slot_of(id) {
            self.say_goodbye(slot, lower);
            let reason = DisconnectReason::ServerNamespaceDisconnect;
            self.detach(slot, reason, &lower.engine.metrics, cx);
        }
    }

    /// Tells every namespace that the server ends it, so that the client does not come back. False if the socket that asks
    /// for it is gone.
    pub(super) fn disconnect_all(&mut self, id: SocketId, lower: &mut Lower<'_>) -> bool {
        let is_here = self.sockets.slot_of(id).is_some();
        if is_here {
            for slot in self.sockets.slots() {
                self.say_goodbye(slot, lower);
            }
        }
        is_here
    }

    /// Tells the client that the server ends a socket, and before that it is connected, if it does not know.
    fn say_goodbye(&mut self, slot: usize, lower: &mut Lower<'_>) {
        let Some(socket) = self.sockets.get(slot).cloned() else { return };
        if socket.is_connected() {
            self.connected(slot, &socket, lower);
        }
        lower.reply(EncodedPacket::disconnect(socket.namespace_inner().name()));
    }

    pub(super) fn detach_all(&mut self, reason: DisconnectReason, metrics: &Metrics, cx: &mut Context<'_>) {
        for slot in self.sockets.slots() {
            self.detach(slot, reason, metrics, cx);
        }
    }

    /// A socket leaves its namespace.
    fn detach(&mut self, slot: usize, reason: DisconnectReason, metrics: &Metrics, cx: &mut Context<'_>) {
        let Some(socket) = self.sockets.remove(slot) else { return };
        self.client.leave(slot);
        if socket.is_connected() {
            let handler = socket.namespace_inner().handler();
            go_on(handler.disconnecting(&socket, reason, cx));
            leave_namespace(&socket, reason, metrics);
            socket.set_phase(Phase::Disconnected);
            go_on(handler.disconnected(&socket, reason, cx));
        }
        forget(&socket);
        self.held_mail.forget(slot);
    }

    /// The connection ends without a word: sockets leave their rooms, and their listeners hear nothing.
    pub(super) fn abandon(&mut self, reason: DisconnectReason, metrics: &Metrics) {
        for socket in self.sockets.take_all() {
            if socket.is_connected() {
                leave_namespace(&socket, reason, metrics);
            }
            forget(&socket);
        }
    }

    /// The session is over, and the sockets have been told.
    pub(super) fn finish(&mut self) {
        self.handlers.let_finish();
    }
}

fn leave_namespace(socket: &Socket, reason: DisconnectReason, metrics: &Metrics) {
    let namespace = socket.namespace_inner();
    namespace.adapter().remove(socket.id());
    namespace.sockets_gauge.dec();
    metrics.disconnects.inc(reason.into());
}

fn forget(socket: &Socket) {
    socket.set_phase(Phase::Disconnected);
    // A listener that holds its own socket would keep both for ever.
    socket.drop_listeners();
}

/// A listener of a disconnect may take longer than the connection lives.
fn go_on(step: Step<()>) {
    if let Step::Wait(future) = step {
        tokio::spawn(future);
    }
}
