//! The session in virtual time.

use super::*;

struct Virtual {
    session: Session,
    now: Instant,
}

impl Virtual {
    fn new(transport: Transport) -> Self {
        let now = Instant::now();
        Self { session: Session::new(Arc::new(SessionConfig::default()), transport, now), now }
    }

    fn sleep(&mut self, time: Duration) -> Vec<Output> {
        let end = self.now + time;
        let mut outputs = Vec::new();
        while let Some(deadline) = self.session.deadline().filter(|deadline| *deadline <= end) {
            assert!(deadline >= self.now, "deadlines do not lie in the past");
            self.now = deadline;
            self.session.handle_timeout(self.now);
            outputs.extend(self.outputs());
        }
        self.now = end;
        outputs
    }

    fn outputs(&mut self) -> Vec<Output> {
        std::iter::from_fn(|| self.session.next_output()).collect()
    }

    fn text(&mut self, text: &'static str) -> Option<Message<'static>> {
        self.session.handle_text(Source::Transport, text, self.now)
    }

    fn probe(&mut self, text: &'static str) -> Vec<Output> {
        assert_eq!(self.session.handle_text(Source::Probe, text, self.now), None);
        self.outputs()
    }
}

const SECOND: Duration = Duration::from_secs(1);

#[test]
fn open_packet_announces_the_upgrade_on_polling_only() {
    let config = SessionConfig::default();
    assert_eq!(
        config.open_packet("abc", Transport::Polling),
        r#"0{"sid":"abc","upgrades":["websocket"],"pingInterval":25000,"pingTimeout":20000,"maxPayload":1000000}"#
    );
    assert!(config.open_packet("abc", Transport::WebSocket).contains(r#""upgrades":[]"#));
    let no_upgrades = SessionConfig { allow_upgrades: false, ..SessionConfig::default() };
    assert!(no_upgrades.open_packet("abc", Transport::Polling).contains(r#""upgrades":[]"#));
}

#[test]
fn the_server_pings_and_the_client_has_to_answer() {
    let mut client = Virtual::new(Transport::WebSocket);
    assert_eq!(client.sleep(24 * SECOND), []);
    assert_eq!(client.sleep(SECOND), [Output::Ping]);
    client.sleep(19 * SECOND);
    assert_eq!(client.text("3"), None);
    assert_eq!(client.sleep(25 * SECOND), [Output::Ping]);
    assert_eq!(client.sleep(20 * SECOND), [Output::Closed(CloseReason::PingTimeout)]);
    assert_eq!(client.session.deadline(), None);
}

#[test]
fn another_packet_extends_the_timeout_once() {
    let mut client = Virtual::new(Transport::WebSocket);
    assert_eq!(client.sleep(25 * SECOND), [Output::Ping]);
    client.sleep(15 * SECOND);
    assert_eq!(client.text("4x"), Some(Message::Text("x")));
    assert_eq!(client.sleep(15 * SECOND), []);
    client.text("4x");
    assert_eq!(client.sleep(5 * SECOND), [Output::Closed(CloseReason::PingTimeout)]);
}

#[test]
fn a_ping_from_the_client_is_an_error_and_other_packets_are_ignored() {
    let mut client = Virtual::new(Transport::WebSocket);
    for ignored in ["3", "0", "5", "6", "1"] {
        assert_eq!(client.text(ignored), None);
        assert_eq!(client.outputs(), []);
    }
    client.text("2");
    assert_eq!(client.outputs(), [Output::Closed(CloseReason::TransportError)]);
    assert_eq!(client.text("4late"), None);
}

#[test]
fn what_is_no_packet_ends_the_session() {
    for bad in ["", "x", "b%"] {
        let mut client = Virtual::new(Transport::Polling);
        client.text(bad);
        assert_eq!(client.outputs(), [Output::Closed(CloseReason::ParseError)]);
    }
}

#[test]
fn one_poll_at_a_time() {
    let mut client = Virtual::new(Transport::Polling);
    assert!(client.session.handle_poll(false));
    client.session.poll_answered();
    assert!(client.session.handle_poll(false));
    assert!(!client.session.handle_poll(false));
    assert_eq!(client.outputs(), [Output::Closed(CloseReason::TransportError)]);
}

#[test]
fn a_poll_that_cannot_be_held_any_longer_is_released_and_the_session_goes_on() {
    let mut client = Virtual::new(Transport::Polling);
    client.session.release_poll();
    assert_eq!(client.outputs(), [], "there is none");
    assert!(client.session.handle_poll(false));
    client.session.release_poll();
    client.session.release_poll();
    assert_eq!(client.outputs(), [Output::ReleasePoll]);
    client.session.poll_answered();
    assert!(client.session.handle_poll(false) && client.session.is_open());
    client.session.handle_polling_error();
    client.session.release_poll();
    assert_eq!(client.outputs(), [Output::Closed(CloseReason::TransportError)]);
}

#[test]
fn a_polling_client_closes_with_a_packet() {
    let mut client = Virtual::new(Transport::Polling);
    assert!(client.session.handle_poll(false));
    client.text("1");
    assert_eq!(client.outputs(), [Output::Closed(CloseReason::TransportClose)]);
}

#[test]
fn upgrade() {
    let mut client = Virtual::new(Transport::Polling);
    assert!(client.session.handle_probe_opened(client.now));
    assert!(!client.session.handle_probe_opened(client.now), "one at a time");
    assert_eq!(client.probe("2probe"), [Output::ProbePong]);
    assert!(client.session.handle_poll(false));
    let tenth = Duration::from_millis(100);
    assert_eq!(client.sleep(tenth), [Output::ReleasePoll]);
    client.session.poll_answered();
    assert_eq!(client.sleep(tenth), [], "no poll, nothing to release");
    assert_eq!(client.probe("5"), [Output::Upgraded]);
    assert_eq!(client.session.transport(), Transport::WebSocket);
    assert!(!client.session.handle_probe_opened(client.now), "nothing left to upgrade to");
    assert_eq!(client.sleep(25 * SECOND), [Output::Ping], "the heartbeat goes on");
}

#[test]
fn many_probes_at_once_have_one_answer() {
    let mut client = Virtual::new(Transport::Polling);
    assert!(client.session.handle_probe_opened(client.now));
    for _ in 0..100 {
        assert_eq!(client.session.handle_text(Source::Probe, "2probe", client.now), None);
    }
    client.session.handle_text(Source::Probe, "5", client.now);
    assert_eq!(client.outputs(), [Output::ProbePong, Output::Upgraded]);
}

#[test]
fn an_upgrade_that_stalls_costs_only_its_websocket() {
    let mut client = Virtual::new(Transport::Polling);
    assert!(client.session.handle_probe_opened(client.now));
    assert_eq!(client.probe("2probe"), [Output::ProbePong]);
    assert_eq!(client.sleep(10 * SECOND), [Output::CloseProbe { timed_out: true }]);
    assert!(client.session.is_open());
    assert!(client.session.handle_probe_opened(client.now), "it may try again");
    for wrong in ["4x", "2", "3probe", "junk", ""] {
        assert_eq!(client.probe(wrong), [Output::CloseProbe { timed_out: false }], "{wrong}");
        assert!(client.session.is_open());
        assert!(client.session.handle_probe_opened(client.now));
    }
    client.session.handle_probe_lost();
    assert_eq!(client.outputs(), []);
    assert!(client.session.is_open());
}

#[test]
fn a_session_that_ends_takes_its_probe_along() {
    let mut client = Virtual::new(Transport::Polling);
    assert!(client.session.handle_probe_opened(client.now));
    client.session.handle_polling_error();
    assert_eq!(
        client.outputs(),
        [Output::CloseProbe { timed_out: false }, Output::Closed(CloseReason::TransportError)]
    );
    assert_eq!(client.probe("5"), []);
}

#[test]
fn closing_waits_for_a_poll() {
    let mut client = Virtual::new(Transport::Polling);
    client.session.close(false, client.now);
    assert_eq!(client.outputs(), []);
    assert_eq!(client.text("4ignored"), None);
    assert!(client.session.handle_poll(false));
    assert_eq!(client.outputs(), [Output::Closed(CloseReason::ForcedClose)]);

    let mut gone = Virtual::new(Transport::Polling);
    gone.session.close(false, gone.now);
    assert_eq!(gone.sleep(30 * SECOND), [Output::Closed(CloseReason::ForcedClose)]);

    let mut websocket = Virtual::new(Transport::WebSocket);
    websocket.session.close(true, websocket.now);
    assert_eq!(websocket.outputs(), [Output::Closed(CloseReason::ForcedClose)]);
}

#[test]
fn what_is_unsent_has_an_answer_of_its_own_before_the_close() {
    let mut client = Virtual::new(Transport::Polling);
    assert!(client.session.handle_poll(false));
    client.session.close(true, client.now);
    assert_eq!(client.outputs(), []);
    client.session.poll_answered();
    assert!(client.session.handle_poll(true), "still something");
    assert_eq!(client.outputs(), []);
    client.session.poll_answered();
    assert!(client.session.handle_poll(false));
    assert_eq!(client.outputs(), [Output::Closed(CloseReason::ForcedClose)]);
}

#[test]
fn closing_while_upgrading_ends_on_the_websocket() {
    let mut client = Virtual::new(Transport::Polling);
    assert!(client.session.handle_probe_opened(client.now));
    client.session.close(false, client.now);
    assert_eq!(client.probe("5"), [Output::Upgraded, Output::Closed(CloseReason::ForcedClose)]);
}

#[test]
fn cve_ghsa_cgwc_unsolicited_pongs_add_no_timers() {
    let mut client = Virtual::new(Transport::WebSocket);
    for _ in 0..1000 {
        client.text("3");
    }
    assert_eq!(client.sleep(25 * SECOND), [Output::Ping]);
}

#[test]
fn a_deferred_pong_gets_its_full_time() {
    let mut client = Virtual::new(Transport::WebSocket);
    client.sleep(44 * SECOND);
    client.session.defer_pong(client.now);
    assert_eq!(client.sleep(19 * SECOND), []);
    assert_eq!(client.sleep(SECOND), [Output::Closed(CloseReason::PingTimeout)]);
}

#[test]
fn a_session_is_small() {
    assert!(size_of::<Session>() <= 128, "{}", size_of::<Session>());
}
