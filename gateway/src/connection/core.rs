//! The state of a connection without its transport: session, namespaces, and handlers that wait.
//!
//! Everything here happens on the connection's task, in the order in which it came.

use std::collections::VecDeque;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use roomcast_adapter::{CloseCause, Item, LocalSocket, Outgoing, SocketId};
use roomcast_protocol::engineio::{CloseReason, Message, Session, Source, Transport};
use roomcast_protocol::socketio::{Client, EncodedPacket, Incoming, Violation};

use super::held::Held;
use super::sessions::random_id;
use super::{Bucket, ConnectionShared, Engine, EngineSocket, Signal, Wire, WireQueue};
use crate::handler::{BoxFuture, DisconnectReason, Refusal, Step};
use crate::metrics::PacketKind;
use crate::namespace::{Ack, Event, NamespaceInner, Phase, Socket};

/// Events that may be held back, as a multiple of the handlers that may wait.
const HELD_EVENTS_FACTOR: usize = 8;

/// What a handler that had to wait has done.
enum Finished {
    Event,
    Admitted(usize, Socket, Result<(), Refusal>),
    /// The subscriptions of the namespace, and of rooms that a middleware joined, stand.
    RoomsStand(usize, Socket),
    Connected(usize, Socket),
}

/// How often a connection that is to go looks whether its client owes acks still.
const LOOK: Duration = Duration::from_millis(50);

/// The layer above Engine.IO.
enum Upper {
    SocketIo {
        client: Client,
        /// By slot of the client.
        sockets: Vec<Option<Socket>>,
        /// What each has left of its rate, by slot; empty as long as there is no limit.
        rates: Vec<Option<Box<Bucket>>>,
    },
    Raw(EngineSocket),
}

/// A connection that ends as soon as nothing is under way. Events that it reads from now on are not heard: while there are
/// always new ones it would never end.
struct Departure {
    reason: DisconnectReason,
    /// Then it ends, whatever is under way. Each has a time of its own, so that those who wait go one after the other, too.
    by: Option<Instant>,
    /// When to look again whether the client owes acks still: whoever waits for them may give up without a word.
    look: Option<Instant>,
}

/// The state machines of one connection.
pub(super) struct Core {
    pub(super) engine: Arc<Engine>,
    pub(super) shared: Arc<ConnectionShared>,
    pub(super) session: Session,
    upper: Upper,
    pub(super) wire: WireQueue,
    waiting: Option<Box<FuturesUnordered<BoxFuture<Finished>>>>,
    held: Held,
    /// The transport has to be read once even though there is no room for events.
    pub(super) must_listen: bool,
    /// When the client must have joined a namespace.
    connect_by: Option<Instant>,
    /// Why the sockets ended, if it was not the session's end that ended them.
    ended: Option<DisconnectReason>,
    /// It was told to go.
    leaving: Option<Box<Departure>>,
    /// Whether this connection wants compressed frames.
    pub(super) compression: Option<roomcast_protocol::websocket::Negotiated>,
}

impl Core {
    pub(super) fn new(engine: &Arc<Engine>, shared: Arc<ConnectionShared>, now: Instant) -> Self {
        let transport = shared.transport();
        let session = Session::new(Arc::clone(&engine.session), transport, now);
        let (upper, connect_by) = match &engine.raw {
            None => {
                let upper = Upper::SocketIo { client: Client::new(), sockets: Vec::new(), rates: Vec::new() };
                (upper, Some(now + engine.connect_timeout))
            }
            Some(handler) => {
                let socket = EngineSocket { shared: Arc::clone(&shared) };
                handler.open(&socket);
                (Upper::Raw(socket), None)
            }
        };
        let mut wire = WireQueue::default();
        wire.push(open_packet(engine, &shared, transport));
        Self {
            engine: Arc::clone(engine),
            shared,
            session,
            upper,
            wire,
            waiting: None,
            held: Held::default(),
            must_listen: false,
            connect_by,
            ended: None,
            leaving: None,
            compression: None,
        }
    }

    /// The next time at which something is due.
    pub(super) fn deadline(&self) -> Option<Instant> {
        let client = match &self.upper {
            Upper::SocketIo { client, .. } => client.deadline(),
            Upper::Raw(_) => None,
        };
        let departure = self.leaving.as_ref();
        let leave_by = departure.and_then(|departure| departure.look.into_iter().chain(departure.by).min());
        [self.session.deadline(), client, self.connect_by, leave_by].into_iter().flatten().min()
    }

    pub(super) fn handle_timeout(&mut self, now: Instant, cx: &mut Context<'_>) {
        if self.connect_by.is_some_and(|by| by <= now) {
            self.connect_by = None;
            self.end(DisconnectReason::ForcedServerClose, now, cx);
        }
        if let Some(departure) = self.leaving.take_if(|departure| departure.by.is_some_and(|by| by <= now)) {
            self.end(departure.reason, now, cx);
        }
        if let Some(departure) = &mut self.leaving {
            departure.look.take_if(|look| *look <= now);
        }
        if let Upper::SocketIo { client, .. } = &mut self.upper
            && let Err(violation) = client.handle_timeout(now)
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

    /// True when there is no room for more events. Acks are let through for as long as possible: handlers may be waiting
    /// for them.
    pub(super) fn is_full(&self) -> bool {
        self.held.events() >= self.engine.max_pending_handlers.saturating_mul(HELD_EVENTS_FACTOR)
    }

    /// True when so many handlers wait that no more are started.
    fn is_crowded(&self) -> bool {
        self.waiting.as_ref().is_some_and(|waiting| waiting.len() >= self.engine.max_pending_handlers)
    }

    /// True when nothing waits any more.
    pub(super) fn is_idle(&self) -> bool {
        self.waiting.as_ref().is_none_or(|waiting| waiting.is_empty())
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
        let limits = &self.engine.client_limits;
        let incoming = match (&mut self.upper, message) {
            (Upper::SocketIo { client, .. }, Message::Text(text)) => client.handle_text(text, limits, now),
            (Upper::SocketIo { client, .. }, Message::Binary(data)) => {
                client.handle_binary(&data, limits, now)
            }
            (Upper::Raw(socket), message) => {
                self.engine.metrics.packets_received.inc(PacketKind::Message);
                if let Some(handler) = &self.engine.raw {
                    handler.message(socket, message);
                }
                return;
            }
        };
        match incoming {
            Ok(None) => {}
            Ok(Some(incoming)) => self.handle_incoming(incoming, cx),
            Err(violation) => self.violation(violation, now, cx),
        }
    }

    fn violation(&mut self, violation: Violation, now: Instant, cx: &mut Context<'_>) {
        tracing::debug!(%violation, "a client broke the protocol");
        self.engine.metrics.violation(violation.code());
        self.end(DisconnectReason::ForcedClose, now, cx);
    }

    /// Ends a connection that was told to go, once nothing is under way: handlers that wait owe acks to the client, and the
    /// client may owe some to others. True if it did.
    pub(super) fn leave_if_settled(&mut self, now: Instant, cx: &mut Context<'_>) -> bool {
        if !self.is_idle() || self.held.events() > 0 {
            return false;
        }
        let owes_acks = self.leaving.is_some() && self.owes_acks();
        let Some(departure) = self.leaving.take_if(|departure| {
            departure.look = owes_acks.then(|| now + LOOK);
            !owes_acks
        }) else {
            return false;
        };
        self.end(departure.reason, now, cx);
        true
    }

    /// Whether somebody waits for an ack of the client.
    fn owes_acks(&self) -> bool {
        let Upper::SocketIo { sockets, .. } = &self.upper else { return false };
        let mut connected = sockets.iter().flatten().filter(|socket| socket.is_connected());
        connected.any(|socket| socket.namespace_inner().adapter().owes_acks(socket.id()))
    }

    /// The connection is to go, within the grace of the node.
    fn leave(&mut self, reason: DisconnectReason, now: Instant) {
        self.leaving =
            Some(Box::new(Departure { reason, by: now.checked_add(self.engine.grace()), look: None }));
    }

    /// True when the server ended the connection so that its client comes back.
    pub(super) fn is_sent_away(&self) -> bool {
        matches!(self.ended, Some(DisconnectReason::ServerShuttingDown | DisconnectReason::Rebalanced))
    }

    /// Ends the sockets now and the session after what waits was sent.
    fn end(&mut self, reason: DisconnectReason, now: Instant, cx: &mut Context<'_>) {
        self.leaving = None;
        self.detach_all(reason, cx);
        // What was emitted before goes out before.
        for item in self.shared.mailbox.drain() {
            if let Item::Packet(outgoing) = item {
                let wire = self.encode(outgoing);
                self.wire.push(wire);
            }
        }
        self.session.close(!self.wire.is_empty(), now);
    }

    fn handle_incoming(&mut self, incoming: Incoming<'_>, cx: &mut Context<'_>) {
        let metrics = &self.engine.metrics;
        match incoming {
            Incoming::Connect { slot, namespace, auth } => {
                metrics.packets_received.inc(PacketKind::Connect);
                if self.leaving.is_none() {
                    self.connect(slot, namespace, auth, cx);
                }
            }
            Incoming::Event { slot, name, args, id } => {
                let is_binary = !args.attachments().is_empty();
                let kind = if is_binary { PacketKind::BinaryEvent } else { PacketKind::Event };
                metrics.packets_received.inc(kind);
                metrics.events_received.inc();
                let Some(socket) = self.socket(slot).filter(|_| self.leaving.is_none()) else { return };
                let ack = id.map_or_else(Ack::unwanted, |id| {
                    let namespace = Arc::clone(socket.namespace_inner().name());
                    Ack::new(Arc::clone(&self.shared.mailbox), namespace, id)
                });
                if !self.allows_event(slot) {
                    self.engine.metrics.events_limited.inc();
                    let _ = ack.refuse("rate_limited", 429);
                    return;
                }
                let event = Event { name: name.as_ref().into(), args, ack };
                if self.is_crowded() || self.held.events() > 0 {
                    self.held.push_event(slot, socket, event);
                } else {
                    self.dispatch(&socket, event, cx);
                }
            }
            Incoming::Ack { slot, id, args } => {
                let is_binary = !args.attachments().is_empty();
                metrics.packets_received.inc(if is_binary { PacketKind::BinaryAck } else { PacketKind::Ack });
                metrics.acks_received.inc();
                if let Some(socket) = self.socket(slot) {
                    socket.namespace_inner().adapter().ack(socket.id(), id, args);
                }
            }
            Incoming::Disconnect { slot } => {
                metrics.packets_received.inc(PacketKind::Disconnect);
                self.detach(slot, DisconnectReason::ClientNamespaceDisconnect, cx);
            }
        }
    }

    /// Whether the socket has not sent more events than it may (`limits.events_per_second`).
    fn allows_event(&mut self, slot: usize) -> bool {
        let limits = &self.engine.limits;
        let Upper::SocketIo { rates, .. } = &mut self.upper else { return true };
        if !limits.counts_events() {
            *rates = Vec::new();
            return true;
        }
        if rates.len() <= slot {
            rates.resize_with(slot + 1, || None);
        }
        rates.get_mut(slot).is_none_or(|bucket| limits.allows_event(bucket, Instant::now()))
    }

    fn dispatch(&mut self, socket: &Socket, event: Event, cx: &mut Context<'_>) {
        let step = socket.namespace_inner().handler().event(socket, event, cx);
        self.wait_for(step, |()| Finished::Event);
    }

    fn socket(&self, slot: usize) -> Option<Socket> {
        match &self.upper {
            Upper::SocketIo { sockets, .. } => sockets.get(slot).cloned().flatten(),
            Upper::Raw(_) => None,
        }
    }

    /// Keeps a step that has to wait. What was done in place is returned.
    fn wait_for<T: 'static>(
        &mut self,
        step: Step<T>,
        finished: impl FnOnce(T) -> Finished + Send + 'static,
    ) -> Option<T> {
        match step {
            Step::Done(value) => Some(value),
            Step::Wait(future) => {
                let waiting = self.waiting.get_or_insert_default();
                waiting.push(Box::pin(async move { finished(future.await) }));
                None
            }
        }
    }

    /// Goes on with the handlers that wait. True if one was done.
    pub(super) fn poll_waiting(&mut self, cx: &mut Context<'_>) -> bool {
        let mut progress = false;
        while let Some(waiting) = &mut self.waiting {
            let Poll::Ready(finished) = waiting.poll_next_unpin(cx) else { break };
            progress = true;
            match finished {
                None => self.waiting = None,
                Some(Finished::Event) => {}
                Some(Finished::Admitted(slot, socket, result)) => self.admitted(slot, &socket, result, cx),
                Some(Finished::RoomsStand(slot, socket)) => self.joined(slot, &socket, cx),
                Some(Finished::Connected(slot, socket)) => self.connected(slot, &socket),
            }
        }
        while !self.is_crowded()
            && let Some((slot, socket, event)) = self.held.pop_event()
        {
            progress = true;
            if self.is_current(slot, &socket) {
                self.dispatch(&socket, event, cx);
            }
        }
        progress
    }

    fn connect(&mut self, slot: usize, name: &str, auth: &str, cx: &mut Context<'_>) {
        let Some(namespace) = self.engine.registry.find(name, auth) else {
            self.refuse(slot, name, &Refusal::new("Invalid namespace"));
            return;
        };
        let socket = self.open_socket(slot, namespace, auth);
        let step = socket.namespace_inner().handler().admit(&socket, cx);
        let waiting = socket.clone();
        let admitted = self.wait_for(step, move |result| Finished::Admitted(slot, waiting, result));
        if let Some(result) = admitted {
            self.admitted(slot, &socket, result, cx);
        }
    }

    fn open_socket(&mut self, slot: usize, namespace: Arc<NamespaceInner>, auth: &str) -> Socket {
        let id = random_id(self.engine.registry.factory().node());
        let socket = Socket::new(id, namespace, Arc::clone(&self.shared), auth);
        if let Upper::SocketIo { sockets, .. } = &mut self.upper {
            if sockets.len() <= slot {
                sockets.reserve_exact(slot + 1 - sockets.len());
                sockets.resize(slot + 1, None);
            }
            sockets[slot] = Some(socket.clone());
        }
        socket
    }

    fn refuse(&mut self, slot: usize, namespace: &str, refusal: &Refusal) {
        let packet = EncodedPacket::connect_error(namespace, &refusal.to_json());
        self.wire.push(Wire::Packet(Outgoing::new(packet)));
        if let Upper::SocketIo { client, sockets, .. } = &mut self.upper {
            client.leave(slot);
            if let Some(socket) = sockets.get_mut(slot) {
                *socket = None;
            }
        }
    }

    /// True if the slot is still this socket's: the connection may have gone on while a handler waited.
    fn is_current(&self, slot: usize, socket: &Socket) -> bool {
        self.session.is_open() && self.socket(slot).is_some_and(|current| current == *socket)
    }

    fn admitted(&mut self, slot: usize, socket: &Socket, result: Result<(), Refusal>, cx: &mut Context<'_>) {
        if !self.is_current(slot, socket) {
            return;
        }
        let namespace = socket.namespace_inner();
        if let Err(refusal) = result {
            socket.set_phase(Phase::Disconnected);
            self.refuse(slot, namespace.name(), &refusal);
            return;
        }
        let mailbox = Arc::clone(&self.shared.mailbox);
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
        if self.wait_for(step, move |()| Finished::RoomsStand(slot, waiting)).is_some() {
            self.joined(slot, socket, cx);
        }
    }

    fn joined(&mut self, slot: usize, socket: &Socket, cx: &mut Context<'_>) {
        if !self.is_current(slot, socket) {
            return;
        }
        let step = socket.namespace_inner().handler().connected(socket, cx);
        let waiting = socket.clone();
        if self.wait_for(step, move |()| Finished::Connected(slot, waiting)).is_some() {
            self.connected(slot, socket);
        }
    }

    /// Tells the client that it is connected, once.
    fn connected(&mut self, slot: usize, socket: &Socket) {
        if !self.is_current(slot, socket) || socket.phase() == Phase::Connected {
            return;
        }
        socket.set_phase(Phase::Connected);
        let reply = format!(r#"{{"sid":"{}"}}"#, socket.id());
        let packet = EncodedPacket::connect(socket.namespace_inner().name(), &reply);
        self.wire.push(Wire::Packet(Outgoing::new(packet)));
        self.connect_by = None;
        if let Upper::SocketIo { client, .. } = &mut self.upper {
            client.accept(slot);
        }
        for outgoing in self.held.take_mail(slot) {
            let wire = self.encode(outgoing);
            self.wire.push(wire);
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
                Item::Disconnect { socket, close: false } => self.disconnect(socket, cx),
                Item::Disconnect { socket, close: true } => self.disconnect_all(socket, now, cx),
                Item::Close(CloseCause::Requested) => self.session.close(!self.wire.is_empty(), now),
                Item::Close(CloseCause::ServerShutdown) => {
                    self.end(DisconnectReason::ServerShuttingDown, now, cx);
                }
                Item::Close(CloseCause::Draining) => self.leave(DisconnectReason::ServerShuttingDown, now),
                Item::Close(CloseCause::Rebalanced) => self.leave(DisconnectReason::Rebalanced, now),
                Item::Close(CloseCause::Fenced) => self.end(DisconnectReason::NodeFenced, now, cx),
                Item::Close(CloseCause::SlowConsumer) => {
                    self.detach_all(DisconnectReason::SlowConsumer, cx);
                    self.session.abort();
                }
            }
        }
        commanded
    }

    fn handle_packet(&mut self, outgoing: Arc<Outgoing>, cx: &mut Context<'_>) {
        let Some(slot) = self.untold_slot(&outgoing) else {
            let wire = self.encode(outgoing);
            self.wire.push(wire);
            return;
        };
        if self.held.push_mail(slot, outgoing) > self.engine.config.mailbox.max_items {
            self.detach_all(DisconnectReason::SlowConsumer, cx);
            self.session.abort();
        } else if self.socket(slot).is_some_and(|socket| socket.phase() == Phase::Impatient) {
            self.tell_the_impatient();
        }
    }

    /// The slot of a packet whose socket's client does not know yet that it is connected: clients may lose what comes
    /// before the CONNECT reply.
    fn untold_slot(&self, outgoing: &Outgoing) -> Option<usize> {
        if self.is_idle() {
            return None;
        }
        let Upper::SocketIo { sockets, .. } = &self.upper else {
            return None;
        };
        let is_untold = |socket: &&Socket| matches!(socket.phase(), Phase::Joined | Phase::Impatient);
        let mut untold = sockets
            .iter()
            .enumerate()
            .filter_map(|(slot, socket)| socket.as_ref().filter(is_untold).map(|socket| (slot, socket)));
        untold
            .find(|(_, socket)| namespace_of(outgoing) == Some(&**socket.namespace_inner().name()))
            .map(|(slot, _)| slot)
    }

    /// A handler waits for an ack of a client that does not know yet that it is connected: it is told now.
    fn tell_the_impatient(&mut self) {
        let Upper::SocketIo { sockets, .. } = &self.upper else { return };
        let impatient: Vec<_> = sockets
            .iter()
            .enumerate()
            .filter_map(|(slot, socket)| Some((slot, socket.clone()?)))
            .filter(|(_, socket)| socket.phase() == Phase::Impatient)
            .collect();
        for (slot, socket) in impatient {
            self.connected(slot, &socket);
        }
    }

    fn encode(&self, outgoing: Arc<Outgoing>) -> Wire {
        let (Some(negotiated), Some(deflate)) = (self.compression, &self.engine.deflate) else {
            return Wire::Packet(outgoing);
        };
        if !outgoing.compress || outgoing.packet.frames().len() < deflate.threshold {
            return Wire::Packet(outgoing);
        }
        super::with_scratch(|scratch| {
            let deflater = scratch.deflater(deflate.level, negotiated.window_bits());
            if negotiated.shares_frames() {
                outgoing
                    .packet
                    .deflated_with(|_| super::wire::deflate(&outgoing, deflate.threshold, deflater));
                Wire::Deflated(outgoing)
            } else {
                Wire::Frames(super::wire::deflate(&outgoing, deflate.threshold, deflater))
            }
        })
    }

    /// The server ends one socket.
    fn disconnect(&mut self, id: SocketId, cx: &mut Context<'_>) {
        let Upper::SocketIo { sockets, .. } = &self.upper else { return };
        let slot = sockets.iter().position(|socket| socket.as_ref().is_some_and(|socket| socket.id() == id));
        if let Some(slot) = slot {
            self.tell(slot);
            self.say_goodbye(slot);
            self.detach(slot, DisconnectReason::ServerNamespaceDisconnect, cx);
        }
    }

    /// The server ends a socket and its connection: every namespace is told, so that the client does not come back.
    fn disconnect_all(&mut self, id: SocketId, now: Instant, cx: &mut Context<'_>) {
        let Upper::SocketIo { sockets, .. } = &self.upper else { return };
        if !sockets.iter().flatten().any(|socket| socket.id() == id) {
            return;
        }
        for slot in 0..sockets.len() {
            self.tell(slot);
            self.say_goodbye(slot);
        }
        self.end(DisconnectReason::ServerNamespaceDisconnect, now, cx);
    }

    /// Tells the client that it is connected, if it does not know: it has to before it learns the end.
    fn tell(&mut self, slot: usize) {
        if let Some(socket) = self.socket(slot)
            && socket.is_connected()
        {
            self.connected(slot, &socket);
        }
    }

    fn say_goodbye(&mut self, slot: usize) {
        if let Some(socket) = self.socket(slot) {
            let packet = EncodedPacket::disconnect(socket.namespace_inner().name());
            self.wire.push(Wire::Packet(Outgoing::new(packet)));
        }
    }

    fn detach_all(&mut self, reason: DisconnectReason, cx: &mut Context<'_>) {
        self.ended.get_or_insert(reason);
        let slots = match &self.upper {
            Upper::SocketIo { sockets, .. } => sockets.len(),
            Upper::Raw(_) => 0,
        };
        for slot in 0..slots {
            self.detach(slot, reason, cx);
        }
    }

    /// A socket leaves its namespace.
    fn detach(&mut self, slot: usize, reason: DisconnectReason, cx: &mut Context<'_>) {
        let Upper::SocketIo { client, sockets, .. } = &mut self.upper else { return };
        let Some(socket) = sockets.get_mut(slot).and_then(Option::take) else { return };
        client.leave(slot);
        let was_in = socket.is_connected();
        if was_in {
            let namespace = socket.namespace_inner();
            let handler = namespace.handler();
            go_on(handler.disconnecting(&socket, reason, cx));
            namespace.adapter().remove(socket.id());
            namespace.sockets_gauge.dec();
            self.engine.metrics.disconnects.inc(reason.into());
            socket.set_phase(Phase::Disconnected);
            go_on(handler.disconnected(&socket, reason, cx));
        }
        socket.set_phase(Phase::Disconnected);
        // A listener that holds its own socket would keep both for ever.
        socket.drop_listeners();
        self.held.take_mail(slot);
    }

    /// The connection ends without a word, such as by the panic of a listener: its sockets leave their rooms.
    pub(super) fn abandon(&mut self) {
        let Upper::SocketIo { sockets, .. } = &mut self.upper else { return };
        for socket in std::mem::take(sockets).into_iter().flatten() {
            if socket.is_connected() {
                let namespace = socket.namespace_inner();
                namespace.adapter().remove(socket.id());
                namespace.sockets_gauge.dec();
                self.engine.metrics.disconnects.inc(DisconnectReason::TransportError.into());
            }
            socket.set_phase(Phase::Disconnected);
            socket.drop_listeners();
        }
    }

    /// The session is over: every socket learns why.
    pub(super) fn finish(&mut self, reason: CloseReason, cx: &mut Context<'_>) {
        let ended = self.ended.unwrap_or(reason.into());
        self.detach_all(ended, cx);
        if let (Upper::Raw(socket), Some(handler)) = (&self.upper, &self.engine.raw) {
            handler.close(socket, reason);
        }
        // Handlers run to their end, as in Node, when their client has gone.
        if let Some(waiting) = self.waiting.take().filter(|waiting| !waiting.is_empty()) {
            tokio::spawn(waiting.for_each(|_| std::future::ready(())));
        }
        self.engine.metrics.connections_closed.inc(ended.into());
    }

    /// True when the connection ended because its client read too slowly.
    pub(super) fn is_slow(&self) -> bool {
        self.ended == Some(DisconnectReason::SlowConsumer)
    }

    pub(super) fn signal(&mut self, signal: Signal) {
        self.wire.push(Wire::Signal(signal));
    }
}

/// The namespace of a packet of this server.
fn namespace_of(outgoing: &Outgoing) -> Option<&str> {
    let (_, text) = outgoing.packet.messages().next().filter(|(is_binary, _)| !is_binary)?;
    let text = std::str::from_utf8(text).ok()?;
    // `4`, the type, and for binary the number of attachments with a hyphen.
    let rest = text.get(2..)?;
    let rest = rest.trim_start_matches(|c: char| c.is_ascii_digit()).strip_prefix('-').unwrap_or(rest);
    if rest.starts_with('/') { rest.split(',').next() } else { Some("/") }
}

/// A listener of a disconnect may take longer than the connection lives.
fn go_on(step: Step<()>) {
    if let Step::Wait(future) = step {
        tokio::spawn(future);
    }
}

fn open_packet(engine: &Engine, shared: &ConnectionShared, transport: Transport) -> Wire {
    let open = engine.session.open_packet(shared.id.as_str(), transport);
    match transport {
        Transport::Polling => Wire::Open(open.into()),
        Transport::WebSocket => Wire::Frames(roomcast_protocol::websocket::frame(
            roomcast_protocol::websocket::OpCode::Text,
            open.as_bytes(),
        )),
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
#[path = "core_tests.rs"]
mod tests;
