//! The server's side of one Engine.IO session: heartbeat, transports, upgrade and close, in every state.
//!
//! The shell calls a `handle_*` method for everything that happens, then carries out [`Session::next_output`] until it is
//! empty, then sleeps until [`Session::deadline`]. Messages are returned and not queued; outgoing messages are the
//! shell's own: the session does not see them.

use std::sync::Arc;
use std::time::{Duration, Instant};

use arrayvec::ArrayVec;

use super::{Message, Packet, Transport};
use crate::limits;

/// What a server grants its sessions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SessionConfig {
    /// How long after the last pong the server pings.
    pub ping_interval: Duration,
    /// How long a ping may go unanswered.
    pub ping_timeout: Duration,
    /// How long an upgrade may take.
    pub upgrade_timeout: Duration,
    /// How long a closing polling session waits for one more poll.
    pub polling_close_timeout: Duration,
    /// The longest message accepted, in bytes.
    pub max_payload: usize,
    /// Whether polling sessions are offered WebSocket.
    pub allow_upgrades: bool,
    /// The enabled transports.
    pub transports: Vec<Transport>,
}

impl Default for SessionConfig {
    fn default() -> Self {
        Self {
            ping_interval: limits::PING_INTERVAL,
            ping_timeout: limits::PING_TIMEOUT,
            upgrade_timeout: limits::UPGRADE_TIMEOUT,
            polling_close_timeout: limits::POLLING_CLOSE_TIMEOUT,
            max_payload: limits::MAX_PAYLOAD,
            allow_upgrades: true,
            transports: vec![Transport::Polling, Transport::WebSocket],
        }
    }
}

impl SessionConfig {
    /// The open packet, `0{…}` (Engine.IO v4, section "Handshake").
    pub fn open_packet(&self, sid: &str, transport: Transport) -> String {
        let offers_upgrade = transport == Transport::Polling
            && self.allow_upgrades
            && self.transports.contains(&Transport::WebSocket);
        format!(
            r#"0{{"sid":"{sid}","upgrades":[{}],"pingInterval":{},"pingTimeout":{},"maxPayload":{}}}"#,
            if offers_upgrade { r#""websocket""# } else { "" },
            self.ping_interval.as_millis(),
            self.ping_timeout.as_millis(),
            self.max_payload,
        )
    }
}

/// Where a packet came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// The session's transport.
    Transport,
    /// A WebSocket that wants to become the transport.
    Probe,
}

/// What the shell has to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Output {
    /// Send a ping packet on the transport.
    Ping,
    /// Answer the pending poll now, with a noop packet if nothing else waits.
    ReleasePoll,
    /// Send `3probe` on the probing WebSocket.
    ProbePong,
    /// Close the probing WebSocket; the session goes on.
    CloseProbe {
        /// It took too long.
        timed_out: bool,
    },
    /// The probing WebSocket is the transport now. Answer a pending poll with a noop, and send what waits there.
    Upgraded,
    /// The session is over: end the transport. A pending poll is answered with a close packet, or with a noop if the
    /// client itself closed ([`CloseReason::TransportClose`]).
    Closed(CloseReason),
}

/// Why a session ended, as the reference names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum CloseReason {
    /// "transport error": the transport failed, or the client broke its rules.
    TransportError,
    /// "transport close": the client closed, or the transport went away.
    TransportClose,
    /// "forced close": this side closed.
    ForcedClose,
    /// "ping timeout": no pong came in time.
    PingTimeout,
    /// "parse error": something was no packet.
    ParseError,
}

impl CloseReason {
    /// The reason as the reference writes it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::TransportError => "transport error",
            Self::TransportClose => "transport close",
            Self::ForcedClose => "forced close",
            Self::PingTimeout => "ping timeout",
            Self::ParseError => "parse error",
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Open,
    /// Closed by this side; waits for a poll that takes the news.
    Closing {
        until: Instant,
    },
    Closed,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Heartbeat {
    PingAt(Instant),
    /// `extended`: another packet has shown since that the client lives, which counts once (engine.io 6.6.10).
    PongBy {
        deadline: Instant,
        extended: bool,
    },
}

/// A WebSocket is open and has to finish its upgrade.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Probing {
    /// By then.
    until: Instant,
    /// Once it has sent its probe, polls are released every [`limits::UPGRADE_NOOP_INTERVAL`] so that the client can let
    /// go of polling.
    release_at: Option<Instant>,
}

/// The state machine of one session.
#[derive(Debug)]
pub struct Session {
    config: Arc<SessionConfig>,
    transport: Transport,
    state: State,
    heartbeat: Heartbeat,
    /// Seldom there, and never for long: boxed.
    upgrade: Option<Box<Probing>>,
    /// A poll waits for its answer.
    poll_pending: bool,
    outputs: ArrayVec<Output, 4>,
}

impl Session {
    /// An open session. The shell sends the open packet.
    pub fn new(config: Arc<SessionConfig>, transport: Transport, now: Instant) -> Self {
        let heartbeat = Heartbeat::PingAt(now + config.ping_interval);
        Self {
            config,
            transport,
            state: State::Open,
            heartbeat,
            upgrade: None,
            poll_pending: false,
            outputs: ArrayVec::new(),
        }
    }

    /// The present transport.
    pub fn transport(&self) -> Transport {
        self.transport
    }

    /// True until the session closes, or is asked to.
    pub fn is_open(&self) -> bool {
        self.state == State::Open
    }

    /// True once the session is over.
    pub fn is_closed(&self) -> bool {
        self.state == State::Closed
    }

    /// True while a poll waits for its answer.
    pub fn poll_pending(&self) -> bool {
        self.poll_pending
    }

    /// True while a WebSocket is trying to take over.
    pub fn is_upgrading(&self) -> bool {
        self.upgrade.is_some()
    }

    /// What has to be done next.
    pub fn next_output(&mut self) -> Option<Output> {
        self.outputs.pop_at(0)
    }

    /// When [`Session::handle_timeout`] has to be called.
    pub fn deadline(&self) -> Option<Instant> {
        let state = match self.state {
            State::Closed => return None,
            State::Closing { until } => until,
            State::Open => match self.heartbeat {
                Heartbeat::PingAt(at) => at,
                Heartbeat::PongBy { deadline, .. } => deadline,
            },
        };
        let upgrade = self
            .upgrade
            .as_ref()
            .map(|probing| probing.release_at.unwrap_or(probing.until).min(probing.until));
        Some(upgrade.map_or(state, |upgrade| upgrade.min(state)))
    }

    /// A text came: the whole of a WebSocket text message, or one record of a polling payload.
    pub fn handle_text<'a>(&mut self, source: Source, text: &'a str, now: Instant) -> Option<Message<'a>> {
        match (Packet::decode(text), source) {
            (Ok(packet), Source::Transport) => self.handle_packet(packet, now),
            (Err(_), Source::Transport) => {
                self.finish(CloseReason::ParseError);
                None
            }
            (packet, Source::Probe) => {
                self.handle_probe(packet.as_ref().ok(), now);
                None
            }
        }
    }

    /// A binary WebSocket message came.
    pub fn handle_binary<'a>(&mut self, source: Source, data: &'a [u8], now: Instant) -> Option<Message<'a>> {
        let packet = Packet::Message(Message::Binary(data.into()));
        match source {
            Source::Transport => self.handle_packet(packet, now),
            Source::Probe => {
                self.handle_probe(None, now);
                None
            }
        }
    }

    fn handle_packet<'a>(&mut self, packet: Packet<'a>, now: Instant) -> Option<Message<'a>> {
        if self.state == State::Closed {
            return None;
        }
        if packet == Packet::Close && self.transport == Transport::Polling {
            self.finish(CloseReason::TransportClose);
            return None;
        }
        if self.state != State::Open {
            return None;
        }
        if let (Heartbeat::PongBy { deadline, extended }, true) =
            (&mut self.heartbeat, packet != Packet::Pong)
            && !*extended
        {
            *deadline = now + self.config.ping_timeout;
            *extended = true;
        }
        match packet {
            // Since v4 the server pings.
            Packet::Ping(_) => self.finish(CloseReason::TransportError),
            Packet::Pong => self.heartbeat = Heartbeat::PingAt(now + self.config.ping_interval),
            Packet::Message(message) => return Some(message),
            Packet::Open | Packet::Close | Packet::Upgrade | Packet::Noop => {}
        }
        None
    }

    fn handle_probe(&mut self, packet: Option<&Packet<'_>>, now: Instant) {
        let Some(probing) = &mut self.upgrade else {
            return;
        };
        match packet {
            Some(Packet::Ping("probe")) => {
                probing.release_at = Some(now + limits::UPGRADE_NOOP_INTERVAL);
                // Many probes may come before the shell looks: one answer is enough, and the outputs are bounded.
                if !self.outputs.contains(&Output::ProbePong) {
                    self.outputs.push(Output::ProbePong);
                }
            }
            Some(Packet::Upgrade) => {
                self.upgrade = None;
                self.transport = Transport::WebSocket;
                self.poll_pending = false;
                self.heartbeat = Heartbeat::PingAt(now + self.config.ping_interval);
                self.outputs.push(Output::Upgraded);
                if matches!(self.state, State::Closing { .. }) {
                    self.finish(CloseReason::ForcedClose);
                }
            }
            _ => self.abandon_upgrade(false),
        }
    }

    /// A WebSocket opened to take the session over. False if it must be closed: there is one already, or none is needed.
    #[must_use]
    pub fn handle_probe_opened(&mut self, now: Instant) -> bool {
        let welcome =
            self.transport == Transport::Polling && self.upgrade.is_none() && self.state != State::Closed;
        if welcome {
            self.upgrade =
                Some(Box::new(Probing { until: now + self.config.upgrade_timeout, release_at: None }));
        }
        welcome
    }

    /// The probing WebSocket went away, or broke its protocol.
    pub fn handle_probe_lost(&mut self) {
        self.upgrade = None;
    }

    fn abandon_upgrade(&mut self, timed_out: bool) {
        if self.is_upgrading() {
            self.upgrade = None;
            self.outputs.push(Output::CloseProbe { timed_out });
        }
    }

    /// A poll came. False if another one is pending: it is to be answered with HTTP 400, and the session is over.
    ///
    /// A session that is closing ends with the poll after the one that took what was `unsent`.
    #[must_use]
    pub fn handle_poll(&mut self, unsent: bool) -> bool {
        if self.poll_pending {
            self.finish(CloseReason::TransportError);
            return false;
        }
        self.poll_pending = true;
        if matches!(self.state, State::Closing { .. }) && !unsent {
            self.finish(CloseReason::ForcedClose);
        }
        true
    }

    /// The pending poll was answered.
    pub fn poll_answered(&mut self) {
        self.poll_pending = false;
    }

    /// Whoever passes the pending poll on cannot hold it any longer: it is answered now, and its client polls again.
    pub fn release_poll(&mut self) {
        let is_asked = self.outputs.contains(&Output::ReleasePoll);
        if self.poll_pending && self.state != State::Closed && !is_asked {
            self.outputs.push(Output::ReleasePoll);
        }
    }

    /// A poll or a post broke off, two posts overlapped, or a post had a wrong type.
    pub fn handle_polling_error(&mut self) {
        self.finish(CloseReason::TransportError);
    }

    /// The WebSocket transport ended: closed by the client, or failed.
    pub fn handle_websocket_end(&mut self, failed: bool) {
        self.finish(if failed { CloseReason::TransportError } else { CloseReason::TransportClose });
    }

    /// This side wants to end the session. What is `unsent` goes out first. On polling it has an answer of its own, and the
    /// close packet comes with the next poll, as in the reference: clients act on a close packet before they act on the
    /// messages that came with it.
    pub fn close(&mut self, unsent: bool, now: Instant) {
        if self.state != State::Open {
            return;
        }
        if self.transport == Transport::WebSocket || (self.poll_pending && !unsent) {
            self.finish(CloseReason::ForcedClose);
        } else {
            self.state = State::Closing { until: now + self.config.polling_close_timeout };
        }
    }

    /// This side gives the session up at once: nothing more is sent.
    pub fn abort(&mut self) {
        self.finish(CloseReason::TransportClose);
    }

    /// The client could not be heard for reasons of this side: a pong that is due gets its full time again.
    pub fn defer_pong(&mut self, now: Instant) {
        if let Heartbeat::PongBy { deadline, .. } = &mut self.heartbeat {
            *deadline = now + self.config.ping_timeout;
        }
    }

    /// The time that [`Session::deadline`] gave has come.
    pub fn handle_timeout(&mut self, now: Instant) {
        match self.state {
            State::Closed => return,
            State::Closing { until } if until <= now => return self.finish(CloseReason::ForcedClose),
            State::Closing { .. } => {}
            State::Open => match self.heartbeat {
                Heartbeat::PingAt(at) if at <= now => {
                    self.heartbeat =
                        Heartbeat::PongBy { deadline: now + self.config.ping_timeout, extended: false };
                    self.outputs.push(Output::Ping);
                }
                Heartbeat::PongBy { deadline, .. } if deadline <= now => {
                    return self.finish(CloseReason::PingTimeout);
                }
                _ => {}
            },
        }
        let Some(probing) = &mut self.upgrade else { return };
        if probing.until <= now {
            self.abandon_upgrade(true);
        } else if probing.release_at.is_some_and(|at| at <= now) {
            probing.release_at = Some(now + limits::UPGRADE_NOOP_INTERVAL);
            if self.poll_pending {
                self.outputs.push(Output::ReleasePoll);
            }
        }
    }

    fn finish(&mut self, reason: CloseReason) {
        if self.state == State::Closed {
            return;
        }
        self.state = State::Closed;
        self.abandon_upgrade(false);
        self.outputs.push(Output::Closed(reason));
    }
}

#[cfg(test)]
mod tests;
