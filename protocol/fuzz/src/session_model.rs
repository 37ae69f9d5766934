//! A session under any sequence of events, against what its contract promises.
//!
//! The model remembers facts (when the last ping went out, whether the client was asked to go), not states, and says of
//! every output whether the facts allow it. Owns the judgement of one input. It must not need the fuzzer:
//! `protocol/tests` runs it too.

use std::sync::Arc;
use std::time::{Duration, Instant};

use roomcast_protocol::engineio::{CloseReason, Output, Session, SessionConfig, Source, Transport};

/// What an event may bring about.
#[derive(Debug, Default, Clone, Copy)]
struct Cause {
    /// The reason with which the session may end.
    end: Option<CloseReason>,
    /// It has to end if it is open.
    must_end: bool,
    probe_ping: bool,
    upgrade: bool,
    /// The probing WebSocket may have to go.
    close_probe: bool,
    timeout: bool,
}

/// What is known from outside.
struct Model {
    session: Session,
    config: Arc<SessionConfig>,
    now: Instant,
    transport: Transport,
    /// When a ping may go out at the earliest.
    ping_from: Instant,
    /// The last ping that no pong has answered.
    pinged_at: Option<Instant>,
    /// This side asked for the end.
    close_wanted: Option<Instant>,
    /// A WebSocket is trying to take over since then, and has sent its probe.
    probing: Option<(Instant, bool)>,
    poll_pending: bool,
    ended: Option<CloseReason>,
}

/// Judges one input: a byte for the transport, then events of one byte for what and one for how long after the last.
pub fn run(data: &[u8]) {
    let Some((&first, events)) = data.split_first() else { return };
    let transport = if first & 1 == 0 { Transport::Polling } else { Transport::WebSocket };
    let config = Arc::new(SessionConfig::default());
    let now = Instant::now();
    let mut model = Model {
        session: Session::new(Arc::clone(&config), transport, now),
        ping_from: now + config.ping_interval,
        config,
        now,
        transport,
        pinged_at: None,
        close_wanted: None,
        probing: None,
        poll_pending: false,
        ended: None,
    };
    for event in events.chunks_exact(2) {
        model.now += Duration::from_millis(u64::from(event[1]).pow(2));
        let cause = model.event(event[0]);
        model.settle(cause);
    }
    model.runs_out();
}

impl Model {
    /// One event, if the shell could bring it about now.
    fn event(&mut self, what: u8) -> Cause {
        let now = self.now;
        let polling = self.transport == Transport::Polling;
        let open = self.ended.is_none();
        let mut cause = Cause::default();
        match what % 16 {
            0 if polling => self.poll(&mut cause),
            1 if self.poll_pending => {
                self.session.poll_answered();
                self.poll_pending = false;
            }
            2 => self.text("4hello", &mut cause),
            3 => self.text("3", &mut cause),
            4 => self.text("2", &mut cause),
            5 => self.text("1", &mut cause),
            6 => self.text(if what & 16 == 0 { "x" } else { "" }, &mut cause),
            7 => {
                let message = self.session.handle_binary(Source::Transport, b"\x01", now);
                assert_eq!(
                    message.is_some(),
                    open && self.close_wanted.is_none(),
                    "messages are for open sessions"
                );
            }
            8 => {
                let welcome = self.session.handle_probe_opened(now);
                assert_eq!(welcome, polling && open && self.probing.is_none(), "one transport, one probe");
                if welcome {
                    self.probing = Some((now, false));
                }
            }
            9 if self.probing.is_some() => self.probe("2probe", &mut cause),
            10 if self.probing.is_some() => self.probe("5", &mut cause),
            11 if self.probing.is_some() => {
                self.probe(["2", "4x", "", "6"][usize::from(what >> 6)], &mut cause);
            }
            12 if self.probing.is_some() => {
                self.session.handle_probe_lost();
                self.probing = None;
            }
            13 if what & 16 == 0 => self.close(&mut cause),
            13 => {
                self.session.abort();
                cause = Cause::end(CloseReason::TransportClose);
            }
            14 if polling => {
                self.session.handle_polling_error();
                cause = Cause::end(CloseReason::TransportError);
            }
            14 => {
                let failed = what & 16 == 0;
                self.session.handle_websocket_end(failed);
                let reason = if failed { CloseReason::TransportError } else { CloseReason::TransportClose };
                cause = Cause::end(reason);
            }
            // The deadline, neither early nor late.
            15 if let Some(deadline) = self.session.deadline() => {
                self.now = self.now.max(deadline);
                cause = self.timeout();
            }
            _ => {}
        }
        cause
    }

    fn poll(&mut self, cause: &mut Cause) {
        let accepted = self.session.handle_poll(false);
        assert_eq!(accepted, !self.poll_pending, "one poll at a time");
        if !accepted {
            *cause = Cause::end(CloseReason::TransportError);
        } else if self.close_wanted.is_some() {
            *cause = Cause::end(CloseReason::ForcedClose);
        }
        self.poll_pending = true;
    }

    fn close(&mut self, cause: &mut Cause) {
        self.session.close(false, self.now);
        if self.ended.is_some() {
            return;
        }
        self.close_wanted.get_or_insert(self.now);
        let can_tell = self.transport == Transport::WebSocket || self.poll_pending;
        if can_tell {
            *cause = Cause::end(CloseReason::ForcedClose);
        }
        assert_eq!(self.session.is_closed(), can_tell, "a polling client is told by its next poll");
        assert!(!self.session.is_open());
    }

    /// A text of the client on its transport.
    fn text(&mut self, text: &str, cause: &mut Cause) {
        let listening = self.ended.is_none() && self.close_wanted.is_none();
        let message = self.session.handle_text(Source::Transport, text, self.now);
        assert_eq!(message.is_some(), listening && text == "4hello", "messages are for open sessions");
        match text {
            "1" if self.transport == Transport::Polling => *cause = Cause::end(CloseReason::TransportClose),
            "" | "x" => *cause = Cause::end(CloseReason::ParseError),
            "2" if listening => *cause = Cause::end(CloseReason::TransportError),
            "3" if listening => {
                self.pinged_at = None;
                self.ping_from = self.now + self.config.ping_interval;
            }
            _ => {}
        }
    }

    /// A text on the probing WebSocket.
    fn probe(&mut self, text: &str, cause: &mut Cause) {
        let message = self.session.handle_text(Source::Probe, text, self.now);
        assert_eq!(message, None, "a probe carries no messages");
        match text {
            "2probe" => {
                cause.probe_ping = true;
                self.probing = self.probing.map(|(since, _)| (since, true));
            }
            "5" => {
                cause.upgrade = true;
                // A session that waits for a poll to say goodbye says it now.
                cause.end = self.close_wanted.map(|_| CloseReason::ForcedClose);
                cause.must_end = cause.end.is_some();
            }
            _ => cause.close_probe = true,
        }
    }

    fn timeout(&mut self) -> Cause {
        self.session.handle_timeout(self.now);
        let mut cause = Cause { timeout: true, ..Cause::default() };
        let unanswered = self.pinged_at.is_some_and(|at| at + self.config.ping_timeout <= self.now);
        let waited = self.close_wanted.is_some_and(|at| at + self.config.polling_close_timeout <= self.now);
        if waited {
            cause.end = Some(CloseReason::ForcedClose);
        } else if unanswered && self.close_wanted.is_none() {
            cause.end = Some(CloseReason::PingTimeout);
        }
        let since = self.probing.map(|(since, _)| since);
        cause.close_probe = since.is_some_and(|since| since + self.config.upgrade_timeout <= self.now);
        cause
    }

    /// Takes the outputs, and asks whether the session and the model agree.
    fn settle(&mut self, cause: Cause) {
        while let Some(output) = self.session.next_output() {
            assert_eq!(self.ended, None, "{output:?} after the end");
            self.output(output, cause);
        }
        assert!(!cause.must_end || self.ended.is_some(), "{cause:?} ends a session");
        assert_eq!(self.session.is_closed(), self.ended.is_some(), "the end is told");
        assert_eq!(self.session.is_open(), self.ended.is_none() && self.close_wanted.is_none());
        assert_eq!(self.session.transport(), self.transport);
        assert_eq!(self.session.is_upgrading(), self.probing.is_some());
        assert!(self.ended.is_some() || self.session.poll_pending() == self.poll_pending);
        match self.session.deadline() {
            None => assert!(self.ended.is_some(), "what lives has a deadline"),
            Some(deadline) => {
                assert!(self.ended.is_none(), "what is over waits for nothing");
                assert!(!cause.timeout || deadline > self.now, "a timeout leaves nothing due");
                let longest = self.config.polling_close_timeout.max(self.config.ping_interval);
                assert!(deadline <= self.now + longest, "deadlines are near");
            }
        }
    }

    fn output(&mut self, output: Output, cause: Cause) {
        match output {
            Output::Ping => {
                assert!(cause.timeout && self.now >= self.ping_from, "a ping that is not due");
                assert!(self.pinged_at.is_none(), "one ping at a time");
                assert!(self.close_wanted.is_none(), "a session that goes is not asked");
                self.pinged_at = Some(self.now);
            }
            Output::ReleasePoll => {
                assert!(cause.timeout && self.poll_pending);
                assert!(self.probing.is_some_and(|(_, proved)| proved), "polls are released for a probe");
            }
            Output::ProbePong => assert!(cause.probe_ping, "an answer to nothing"),
            Output::CloseProbe { .. } => {
                assert!(self.probing.take().is_some(), "a probe is closed once");
                assert!(cause.close_probe || self.session.is_closed(), "{cause:?} closes no probe");
            }
            Output::Upgraded => {
                assert!(cause.upgrade && self.probing.take().is_some(), "no upgrade without a probe");
                assert_eq!(self.transport, Transport::Polling, "one upgrade");
                self.transport = Transport::WebSocket;
                self.poll_pending = false;
                self.pinged_at = None;
                self.ping_from = self.now + self.config.ping_interval;
            }
            Output::Closed(reason) => {
                assert_eq!(Some(reason), cause.end, "{cause:?}");
                self.ended = Some(reason);
            }
        }
    }

    /// A client that is heard no more is gone after one ping at most, whatever happened before.
    fn runs_out(&mut self) {
        let until =
            self.now + self.config.ping_interval + 2 * self.config.ping_timeout + Duration::from_secs(1);
        while let Some(deadline) = self.session.deadline() {
            assert!(deadline <= until, "a session that nobody uses lives on");
            self.now = self.now.max(deadline);
            let cause = self.timeout();
            self.settle(cause);
        }
        assert!(self.ended.is_some());
    }
}

impl Cause {
    fn end(reason: CloseReason) -> Self {
        Self { end: Some(reason), must_end: true, close_probe: true, ..Self::default() }
    }
}
