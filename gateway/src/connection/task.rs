//! The task of a connection: one loop over everything that can happen to it.
//!
//! No timer of its own, no lock around its state, no other task. A turn of the loop reads what has come, lets the handlers
//! run, takes the mail, and writes all of it with one call, so that the acks of one read travel together.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Instant;

use roomcast_protocol::engineio::{CloseReason, Output, Source, Transport, records};
use roomcast_protocol::websocket::{CloseCode, Message, PreparedFrame};
use tokio::sync::{mpsc, oneshot};

use super::core::Core;
use super::engine::metrics_transport;
use super::wheel::Alarm;
use super::{ConnectionShared, Engine, Linger, Session, Signal, Wire, WireQueue, with_mailbag, with_scratch};
use crate::metrics::UpgradeResult;
use crate::transport::{Command, Flush, PollAnswer, Polling, Posted, WebSocket, close_frame};

/// Turns of the loop before other connections get their share of the thread.
const TURNS: usize = 32;

/// With so many bytes to be written no mail is taken, so that the mailbox's bounds hold.
const WIRE_HIGH_WATER: usize = 64 * 1024;

/// With so many bytes unwritten, a client that does not read its answers is not read either.
const UNREAD_HIGH_WATER: usize = 1024 * 1024;

/// Requests of one session that may wait for its task. A client has one GET and one POST at a time.
pub(crate) const COMMANDS: usize = 4;

enum Link {
    Polling(Polling),
    WebSocket(WebSocket),
    /// The session is over.
    Gone,
}

/// A WebSocket that wants to become the transport.
struct Probe {
    websocket: WebSocket,
    wire: WireQueue,
}

/// A connection: a future that ends with it. It is nearly all that an idle client costs, so what is seldom there is boxed:
/// see `an_idle_connection_fits_its_size_class`.
pub(crate) struct Connection {
    core: Core,
    link: Link,
    probe: Option<Box<Probe>>,
    /// Requests; none once the transport is a WebSocket.
    commands: Option<mpsc::Receiver<Command>>,
    alarm: Alarm,
    /// Told to the mailbox when it changes: whether something volatile can be written now.
    writable: bool,
    /// The WebSocket took less than it was given.
    blocked: bool,
    /// The WebSocket has not said since the last arrival that it has nothing to read. So a new one is read, which tells it
    /// whom to wake.
    may_have_more: bool,
    /// A POST whose events there is no room for yet.
    parked: Option<Box<Posted>>,
    /// Why the WebSocket is closed, if by a rule of its own.
    close_code: Option<CloseCode>,
}

impl Connection {
    /// A session that begins with a polling request, and how requests reach it.
    pub(crate) fn polling(
        engine: &Arc<Engine>,
        shared: Arc<ConnectionShared>,
        first: oneshot::Sender<PollAnswer>,
    ) -> Self {
        let (sender, commands) = mpsc::channel(COMMANDS);
        engine.sessions.insert(Session { shared: Arc::clone(&shared), commands: Some(sender) });
        let mut polling = Polling::default();
        polling.hold(first);
        let mut connection = Self::new(engine, shared, Link::Polling(polling), Some(commands));
        // The handshake is the first poll.
        let accepted = connection.core.session.handle_poll(true);
        debug_assert!(accepted, "no poll came before the first");
        connection
    }

    /// A session that begins as a WebSocket.
    pub(crate) fn websocket(
        engine: &Arc<Engine>,
        shared: Arc<ConnectionShared>,
        websocket: WebSocket,
    ) -> Self {
        engine.sessions.insert(Session { shared: Arc::clone(&shared), commands: None });
        let compression = websocket.compression;
        let mut connection = Self::new(engine, shared, Link::WebSocket(websocket), None);
        connection.core.compression = compression;
        connection
    }

    fn new(
        engine: &Arc<Engine>,
        shared: Arc<ConnectionShared>,
        link: Link,
        commands: Option<mpsc::Receiver<Command>>,
    ) -> Self {
        let transport = metrics_transport(shared.transport());
        engine.metrics.connections.of(transport).inc();
        engine.metrics.connections_opened.inc(transport);
        Self {
            core: Core::new(engine, shared, Instant::now()),
            link,
            probe: None,
            commands,
            alarm: Alarm::default(),
            writable: true,
            blocked: false,
            may_have_more: true,
            parked: None,
            close_code: None,
        }
    }

    /// Requests of a polling session.
    fn poll_commands(&mut self, now: Instant, cx: &mut Context<'_>) -> bool {
        let Some(commands) = &mut self.commands else {
            return false;
        };
        if let Some(parked) = self.parked.take_if(|_| !self.core.is_full()) {
            self.handle_post(parked, now, cx);
            return true;
        }
        let Poll::Ready(Some(command)) = commands.poll_recv(cx) else {
            return false;
        };
        match command {
            Command::Poll(answer) => self.handle_poll(answer),
            Command::Post(posted) => self.handle_post(posted, now, cx),
            Command::Release => self.core.session.release_poll(),
            Command::Broken => self.core.session.handle_polling_error(),
            Command::Upgrade(websocket) => self.handle_upgrade(*websocket, now),
        }
        true
    }

    fn handle_poll(&mut self, answer: oneshot::Sender<PollAnswer>) {
        let Link::Polling(polling) = &mut self.link else {
            return;
        };
        // A poll that its client has given up does not count.
        let unsent = !self.core.wire.is_empty();
        if self.core.session.handle_poll(unsent) {
            polling.hold(answer);
        } else {
            let _ = answer.send(PollAnswer::Overlap);
        }
    }

    fn handle_post(&mut self, posted: Box<Posted>, now: Instant, cx: &mut Context<'_>) {
        if self.core.is_full() {
            // A client posts once at a time: that it waits for its answer is the back-pressure.
            self.parked = Some(posted);
            return;
        }
        let Posted { body, done } = *posted;
        self.core
            .engine
            .metrics
            .bytes_received
            .of(crate::config::Transport::Polling)
            .inc_by(body.len() as u64);
        // As the reference decodes: what is no UTF-8 is replaced.
        let payload = String::from_utf8_lossy(&body);
        for record in records(&payload) {
            if self.core.session.is_closed() {
                break;
            }
            self.core.handle_text(record, now, cx);
        }
        let _ = done.send(());
    }

    fn handle_upgrade(&mut self, websocket: WebSocket, now: Instant) {
        if self.core.session.handle_probe_opened(now) {
            self.probe = Some(Box::new(Probe { websocket, wire: WireQueue::default() }));
        } else {
            self.core.engine.metrics.upgrades.inc(UpgradeResult::Refused);
            close(&self.core.engine, websocket, WireQueue::default(), None);
        }
    }

    /// A read of the transport.
    fn poll_transport(&mut self, now: Instant, cx: &mut Context<'_>) -> bool {
        match &mut self.link {
            Link::Polling(polling) => {
                let aborted = polling.poll_aborted(cx).is_ready();
                if aborted {
                    *polling = Polling::default();
                    self.core.session.handle_polling_error();
                }
                aborted
            }
            Link::WebSocket(websocket) => {
                let unread = if self.blocked { self.core.mailbox.depth().1 } else { 0 };
                let paused = self.core.is_full() || self.core.wire.bytes() + unread > UNREAD_HIGH_WATER;
                // Now and then a client is heard all the same: it may have answered, or be gone.
                let listen = std::mem::take(&mut self.core.must_listen);
                self.may_have_more |= self.core.mailbox.take_arrived();
                if (paused && !listen) || !self.may_have_more || self.core.session.is_closed() {
                    return false;
                }
                let waker = Arc::clone(&self.core.mailbox).into();
                match read(websocket, &mut self.core, None, now, &mut Context::from_waker(&waker), cx) {
                    Poll::Pending => {
                        self.may_have_more = !websocket.tells_arrivals();
                        false
                    }
                    Poll::Ready(Read::Open) => true,
                    Poll::Ready(Read::Ended(code)) => {
                        self.close_code = code;
                        self.core.session.handle_websocket_end(code.is_some());
                        true
                    }
                }
            }
            Link::Gone => false,
        }
    }

    /// Whether there is something to read that nobody could be woken for: see [`roomcast_adapter::Mailbox::take_arrived`].
    fn has_arrived(&mut self) -> bool {
        let arrived = self.core.mailbox.take_arrived();
        self.may_have_more |= arrived;
        arrived
    }

    /// A read and a write of the WebSocket that wants to take over.
    fn poll_probe(&mut self, now: Instant, cx: &mut Context<'_>) -> bool {
        let Some(probe) = &mut self.probe else {
            return false;
        };
        let Probe { websocket, wire } = &mut **probe;
        if wire.bytes() > WIRE_HIGH_WATER {
            // It pings without reading the answers.
            return false;
        }
        let waker = cx.waker().clone();
        let read = read(websocket, &mut self.core, Some(wire), now, &mut Context::from_waker(&waker), cx);
        let progress = read.is_ready();
        if let Poll::Ready(Read::Ended(code)) = read {
            if self.core.session.transport() == Transport::WebSocket {
                // It completed its upgrade before it ended.
                self.close_code = code;
                self.carry_out(cx);
                self.core.session.handle_websocket_end(code.is_some());
            } else {
                self.core.session.handle_probe_lost();
                self.core.engine.metrics.upgrades.inc(UpgradeResult::Abandoned);
                self.drop_probe(code);
            }
        }
        progress
    }

    /// Writes to the probe. True if it can be read again.
    fn flush_probe(&mut self, cx: &mut Context<'_>) -> bool {
        let Some(probe) = &mut self.probe else {
            return false;
        };
        let Probe { websocket, wire } = &mut **probe;
        let was_full = wire.bytes() > WIRE_HIGH_WATER;
        if websocket.poll_flush(cx, wire, &self.core.engine.metrics).is_err() {
            self.core.session.handle_probe_lost();
            self.probe = None;
            return false;
        }
        was_full && wire.bytes() <= WIRE_HIGH_WATER
    }

    fn drop_probe(&mut self, code: Option<CloseCode>) {
        if let Some(probe) = self.probe.take() {
            close(&self.core.engine, probe.websocket, probe.wire, code);
        }
    }

    /// What others have put into the mailbox. True if there is more to do about it than to write it.
    fn poll_mail(&mut self, now: Instant, cx: &mut Context<'_>) -> bool {
        let (can_take, writable) = match &self.link {
            Link::Polling(polling) => (polling.is_pending(), polling.is_pending()),
            Link::WebSocket(_) => (self.core.wire.bytes() < WIRE_HIGH_WATER, !self.blocked),
            Link::Gone => (false, false),
        };
        self.set_writable(writable);
        if !can_take && self.core.mailbox.poll_urgent(cx).is_pending() {
            return false;
        }
        with_mailbag(|mail| {
            let core = &mut self.core;
            core.mailbox.poll_take(cx, mail).is_ready() && core.handle_mail(mail, now, cx)
        })
    }

    fn set_writable(&mut self, writable: bool) {
        if writable != self.writable {
            self.writable = writable;
            self.core.mailbox.set_writable(writable);
        }
    }

    /// What the session says has to be done. True if there was something.
    fn carry_out(&mut self, cx: &mut Context<'_>) -> bool {
        let mut progress = false;
        while let Some(output) = self.core.session.next_output() {
            progress = true;
            match output {
                Output::Ping => self.core.signal(Signal::Ping),
                Output::ReleasePoll => {
                    if self.core.wire.is_empty() {
                        self.core.signal(Signal::Noop);
                    }
                }
                Output::ProbePong => {
                    if let Some(probe) = &mut self.probe {
                        probe.wire.push(Wire::Signal(Signal::ProbePong));
                    }
                }
                Output::CloseProbe { timed_out } => {
                    let result = if timed_out { UpgradeResult::Timeout } else { UpgradeResult::Refused };
                    self.core.engine.metrics.upgrades.inc(result);
                    self.drop_probe(None);
                }
                Output::Upgraded => self.upgrade(),
                Output::Closed(reason) => self.finish(reason, cx),
            }
        }
        progress
    }

    fn upgrade(&mut self) {
        let Some(probe) = self.probe.take() else { return };
        if let Link::Polling(polling) = &mut self.link {
            polling.answer_signal(Signal::Noop);
        }
        let Probe { websocket, mut wire } = *probe;
        // What the probe had to say comes first: a part of it may be written already.
        wire.append(std::mem::take(&mut self.core.wire));
        self.core.wire = wire;
        self.core.compression = websocket.compression;
        self.link = Link::WebSocket(websocket);
        self.commands = None;
        // The table's end of the channel goes too: an upgraded session costs no more than one that began so.
        let shared = Arc::clone(&self.core.shared);
        self.core.engine.sessions.insert(Session { shared, commands: None });
        self.core.shared.set_transport(Transport::WebSocket);
        let metrics = &self.core.engine.metrics;
        metrics.upgrades.inc(UpgradeResult::Success);
        metrics.connections.of(crate::config::Transport::Polling).dec();
        metrics.connections.of(crate::config::Transport::Websocket).inc();
    }

    /// Ends the transport: what waits goes out first, unless the client is too slow for it.
    fn finish(&mut self, reason: CloseReason, cx: &mut Context<'_>) {
        self.core.mailbox.end();
        self.core.finish(reason, cx);
        self.drop_probe(None);
        match std::mem::replace(&mut self.link, Link::Gone) {
            Link::Polling(mut polling) => {
                let closed_by_client = reason == CloseReason::TransportClose;
                self.core.signal(if closed_by_client { Signal::Noop } else { Signal::Close });
                polling.answer(&mut self.core.wire, &self.core.engine.metrics);
            }
            Link::WebSocket(websocket) if !self.core.is_slow() => {
                // As servers say it (RFC 6455, section 7.4.1). Clients of Socket.IO reconnect whatever the code.
                let going_away = self.core.is_sent_away().then_some(CloseCode::GOING_AWAY);
                let (wire, code) = (std::mem::take(&mut self.core.wire), self.close_code.or(going_away));
                close(&self.core.engine, websocket, wire, code);
            }
            Link::WebSocket(_) | Link::Gone => {}
        }
    }

    /// Writes what waits. True if there is more to do now: mail can be taken again, the client can be read again, or the
    /// transport ended.
    fn flush(&mut self, cx: &mut Context<'_>) -> bool {
        match &mut self.link {
            Link::Polling(polling) if polling.is_pending() && !self.core.wire.is_empty() => {
                let metrics = &self.core.engine.metrics;
                self.core.session.poll_answered();
                let answered = polling.answer(&mut self.core.wire, metrics);
                if let Some(len) = answered {
                    metrics.bytes_sent.of(crate::config::Transport::Polling).inc_by(len as u64);
                } else {
                    self.core.session.handle_polling_error();
                }
                self.set_writable(false);
                // Either the session ends, or the mailbox has to know that only what is urgent can be done now.
                true
            }
            Link::WebSocket(_) => self.flush_websocket(cx),
            Link::Polling(_) | Link::Gone => false,
        }
    }

    fn flush_websocket(&mut self, cx: &mut Context<'_>) -> bool {
        let Link::WebSocket(websocket) = &mut self.link else {
            return false;
        };
        let was_full = self.core.wire.bytes() >= WIRE_HIGH_WATER;
        let was_blocked = self.blocked;
        match websocket.poll_flush(cx, &mut self.core.wire, &self.core.engine.metrics) {
            Ok(flushed) => {
                self.blocked = flushed == Flush::Blocked;
                self.set_writable(!self.blocked);
                let has_room = self.core.wire.bytes() < WIRE_HIGH_WATER;
                (was_full && has_room) || (was_blocked && !self.blocked)
            }
            Err(_) => {
                self.core.session.handle_websocket_end(false);
                true
            }
        }
    }

    /// Handles the next deadline, or sees to it that the task is woken then. True if it was reached.
    fn poll_deadline(&mut self, now: Instant, cx: &mut Context<'_>) -> bool {
        let Some(deadline) = self.core.deadline() else {
            return false;
        };
        let is_due = deadline <= now;
        if is_due {
            self.core.handle_timeout(now, cx);
        } else {
            self.core.engine.wheel.set(&mut self.alarm, deadline, cx.waker());
        }
        is_due
    }
}

impl Future for Connection {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = &mut *self;
        for _ in 0..TURNS {
            let now = Instant::now();
            this.core.mailbox.rouse();
            let mut progress = this.poll_commands(now, cx);
            progress |= this.core.poll_waiting(cx);
            progress |= this.poll_transport(now, cx);
            progress |= this.poll_probe(now, cx);
            progress |= this.carry_out(cx);
            progress |= this.poll_mail(now, cx);
            progress |= this.poll_deadline(now, cx);
            progress |= this.core.leave_if_settled(now, cx);
            progress |= this.carry_out(cx);
            progress |= this.flush(cx);
            progress |= this.flush_probe(cx);
            if matches!(this.link, Link::Gone) {
                return Poll::Ready(());
            }
            if !progress && !this.has_arrived() {
                return Poll::Pending;
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        // Also when a listener panicked, or the runtime goes down: nothing outside must believe that it lives.
        self.core.engine.wheel.remove(&mut self.alarm);
        self.core.abandon();
        self.core.mailbox.end();
        let shared = &self.core.shared;
        self.core.engine.sessions.remove(shared.id);
        shared.place.into_iter().for_each(|place| self.core.engine.limits.leave(place));
        self.core.engine.metrics.connections.of(metrics_transport(shared.transport())).dec();
    }
}

enum Read {
    Open,
    /// The WebSocket ended, with a code if it broke a rule.
    Ended(Option<CloseCode>),
}

/// Reads once and handles what came. `probe_wire` is where answers go while the WebSocket is no transport yet; `arrival` is
/// woken when there is more to read.
fn read(
    websocket: &mut WebSocket,
    core: &mut Core,
    mut probe_wire: Option<&mut WireQueue>,
    now: Instant,
    arrival: &mut Context<'_>,
    cx: &mut Context<'_>,
) -> Poll<Read> {
    with_scratch(|scratch| {
        let len = match websocket.poll_read(arrival, &mut scratch.buffer) {
            Poll::Pending => return Poll::Pending,
            Poll::Ready(Ok(0) | Err(_)) => return Poll::Ready(Read::Ended(None)),
            Poll::Ready(Ok(len)) => len,
        };
        core.engine.metrics.bytes_received.of(crate::config::Transport::Websocket).inc_by(len as u64);
        let mut rest = &mut scratch.buffer[..len];
        loop {
            let message = match websocket.decoder.decode(&mut rest, &mut scratch.inflater) {
                Ok(Some(message)) => message,
                Ok(None) => return Poll::Ready(Read::Open),
                Err(error) => {
                    tracing::debug!(%error, "a client broke the WebSocket protocol");
                    core.engine.metrics.violation(error.code());
                    return Poll::Ready(Read::Ended(Some(error.close_code())));
                }
            };
            // The packet after the one that completes an upgrade belongs to the session's transport.
            let is_probe = probe_wire.is_some() && core.session.transport() == Transport::Polling;
            match message {
                Message::Text(text) if is_probe => {
                    let _ = core.session.handle_text(Source::Probe, text, now);
                }
                Message::Binary(data) if is_probe => {
                    let _ = core.session.handle_binary(Source::Probe, data, now);
                }
                Message::Text(text) => core.handle_text(text, now, cx),
                Message::Binary(data) => core.handle_binary(data, now, cx),
                Message::Ping(data) => {
                    let pong = Wire::Frames(PreparedFrame::pong(data).into_bytes());
                    probe_wire.as_deref_mut().unwrap_or(&mut core.wire).push(pong);
                }
                Message::Pong(_) => {}
                Message::Close(_) => return Poll::Ready(Read::Ended(None)),
            }
            if core.session.is_closed() {
                return Poll::Ready(Read::Open);
            }
        }
    })
}

/// Says goodbye on a WebSocket in a task of its own, for two seconds at most.
fn close(engine: &Arc<Engine>, websocket: WebSocket, mut wire: WireQueue, code: Option<CloseCode>) {
    wire.push(close_frame(code));
    let linger = Linger::new(engine);
    tokio::spawn(async move {
        websocket.close(wire).await;
        drop(linger);
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The runtime adds about a hundred bytes to a task and rounds up to a multiple of 128: with this bound it takes 512.
    #[test]
    fn an_idle_connection_fits_its_size_class() {
        let size = size_of::<Connection>();
        assert!(size <= 408, "{size} bytes: what is seldom there belongs into a box");
    }
}
