//! What a client may send, and the security record of the protocol.

use super::*;

struct Connection {
    client: Client,
    limits: ClientLimits,
    now: Instant,
}

impl Connection {
    fn new() -> Self {
        Self { client: Client::new(), limits: ClientLimits::default(), now: Instant::now() }
    }

    /// In `/` already.
    fn joined() -> Self {
        let mut connection = Self::new();
        assert!(matches!(connection.text("0"), Ok(Some(Incoming::Connect { slot: 0, .. }))));
        connection.client.accept(0);
        connection
    }

    fn text<'a>(&mut self, text: &'a str) -> Result<Option<Incoming<'a>>, Violation> {
        self.client.handle_text(text, &self.limits, self.now)
    }

    fn binary(&mut self, data: &[u8]) -> Result<Option<Incoming<'static>>, Violation> {
        self.client.handle_binary(data, &self.limits, self.now)
    }
}

fn args(elements: &str, attachments: &[&'static [u8]]) -> Args {
    Args::from_validated(
        Bytes::copy_from_slice(elements.as_bytes()),
        attachments.iter().map(|part| Bytes::from_static(part)).collect(),
    )
}

#[test]
fn connect_carries_an_object_or_nothing() {
    let mut connection = Connection::new();
    let expected = Incoming::Connect { slot: 0, namespace: "/", auth: "{}" };
    assert_eq!(connection.text("0"), Ok(Some(expected)));
    let expected = Incoming::Connect { slot: 1, namespace: "/chat", auth: r#"{"token":1}"# };
    assert_eq!(connection.text(r#"0/chat,{"token":1}"#), Ok(Some(expected)));
    for bad in ["0[]", r#"0"x""#, "0null", "0{", "0{}x"] {
        assert_eq!(Connection::new().text(bad), Err(Violation::InvalidPayload), "{bad}");
    }
}

#[test]
fn packets_out_of_order_close_the_connection() {
    let out_of_order = Err(Violation::OutOfOrder);
    assert_eq!(Connection::new().text(r#"2["a"]"#), out_of_order);
    assert_eq!(Connection::new().text("31[1]"), out_of_order);
    assert_eq!(Connection::new().text("1"), out_of_order);
    assert_eq!(Connection::joined().text("0"), out_of_order);
    assert_eq!(Connection::joined().text("4{}"), out_of_order);
    assert_eq!(Connection::joined().text(r#"2/other,["a"]"#), out_of_order);
    let mut waiting = Connection::new();
    waiting.text("0").unwrap();
    assert_eq!(waiting.text(r#"2["a"]"#), out_of_order);
    assert_eq!(waiting.text("0"), out_of_order);
    assert_eq!(Connection::joined().text("1{}"), Err(Violation::InvalidPayload));
}

#[test]
fn events_and_acks() {
    let mut connection = Connection::joined();
    let event = Incoming::Event { slot: 0, name: "a".into(), args: args("1,2", &[]), id: Some(7.into()) };
    assert_eq!(connection.text(r#"2007["a",1,2]"#), Ok(Some(event)));
    let ack = Incoming::Ack { slot: 0, id: 3.into(), args: args("", &[]) };
    assert_eq!(connection.text("33[]"), Ok(Some(ack)));
    assert_eq!(connection.text("3[]"), Ok(None));
    assert_eq!(connection.text("2"), Ok(None), "an event without payload is tolerated");
    assert_eq!(connection.text("1"), Ok(Some(Incoming::Disconnect { slot: 0 })));
    assert_eq!(connection.text("2[\"late\"]"), Err(Violation::OutOfOrder));
    assert!(matches!(connection.text("0"), Ok(Some(Incoming::Connect { slot: 0, .. }))));
}

#[test]
fn attachments_complete_a_packet() {
    let mut connection = Connection::joined();
    let elements = r#"{"_placeholder":true,"num":0},{"_placeholder":true,"num":1}"#;
    let packet = format!(r#"52-["a",{elements}]"#);
    assert_eq!(connection.text(&packet), Ok(None));
    assert_eq!(connection.binary(b"x"), Ok(None));
    let expected =
        Incoming::Event { slot: 0, name: "a".into(), args: args(elements, &[b"x", b"y"]), id: None };
    assert_eq!(connection.binary(b"y"), Ok(Some(expected)));
    assert_eq!(connection.binary(b"z"), Err(Violation::UnexpectedBinary));
}

#[test]
fn text_while_attachments_are_awaited_is_refused() {
    let mut connection = Connection::joined();
    assert_eq!(connection.text(r#"51-["a"]"#), Ok(None));
    assert_eq!(connection.text(r#"2["b"]"#), Err(Violation::UnexpectedText));
}

#[test]
fn a_namespace_that_the_server_ended_is_as_one_never_joined() {
    let mut connection = Connection::joined();
    connection.client.leave(0);
    assert_eq!(connection.text(r#"2["a"]"#), Err(Violation::OutOfOrder));
    assert!(matches!(connection.text("0"), Ok(Some(Incoming::Connect { slot: 0, .. }))));
}

#[test]
fn namespaces_are_bounded_and_left_ones_make_room() {
    let mut connection = Connection::new();
    connection.limits.max_namespaces = 2;
    connection.text("0/a").unwrap();
    connection.text("0/b").unwrap();
    assert_eq!(connection.text("0/c"), Err(Violation::TooManyNamespaces));
    connection.client.leave(0);
    let expected = Incoming::Connect { slot: 0, namespace: "/c", auth: "{}" };
    assert_eq!(connection.text("0/c"), Ok(Some(expected)));
}

#[test]
fn cve_2026_69185_zero_attachments_are_refused() {
    assert_eq!(Connection::joined().text(r#"50-["a"]"#), Err(Violation::IllegalAttachments));
    assert_eq!(Connection::joined().text("60-[]"), Err(Violation::IllegalAttachments));
}

#[test]
fn cve_2026_33151_attachments_are_bounded_in_number_bytes_and_time() {
    for count in ["11", "1000000000"] {
        let packet = format!(r#"5{count}-["a"]"#);
        assert_eq!(Connection::joined().text(&packet), Err(Violation::TooManyAttachments));
    }
    let mut connection = Connection::joined();
    connection.limits.max_attachment_bytes = 10;
    connection.text(r#"53-["a"]"#).unwrap();
    assert_eq!(connection.binary(&[0; 8]), Ok(None));
    assert_eq!(connection.binary(&[0; 8]), Err(Violation::TooManyAttachments));

    let mut slow = Connection::joined();
    slow.text(r#"52-["a"]"#).unwrap();
    let deadline = slow.client.deadline().unwrap();
    assert_eq!(slow.client.handle_timeout(deadline - Duration::from_millis(1)), Ok(()));
    assert_eq!(slow.client.handle_timeout(deadline), Err(Violation::AttachmentTimeout));
}

#[test]
fn cve_2023_32695_the_event_name_is_a_string_or_a_number() {
    for bad in [r#"2[{"toString":1}]"#, "2[[]]", "2[null]", "2[]", "2{}", "2null", "2[true]"] {
        assert_eq!(Connection::joined().text(bad), Err(Violation::InvalidPayload), "{bad}");
    }
    assert!(matches!(Connection::joined().text("2[1]"), Ok(Some(Incoming::Event { .. }))));
}

#[test]
fn cve_2022_2421_placeholders_are_indexes() {
    for num in [r#""splice""#, r#""__proto__""#, "1", "-1", "{}", "null"] {
        let mut connection = Connection::joined();
        let packet = format!(r#"51-["a",{{"x":[{{"_placeholder":true,"num":{num}}}]}}]"#);
        assert_eq!(connection.text(&packet), Ok(None));
        assert_eq!(connection.binary(b"x"), Err(Violation::IllegalAttachments), "{num}");
    }
}

#[test]
fn cve_2024_38355_an_event_named_error_is_an_event() {
    let event = Connection::joined().text(r#"2["error"]"#).unwrap().map(|incoming| format!("{incoming:?}"));
    assert!(event.is_some());
}

#[test]
fn prototype_names_are_names() {
    for name in ["__proto__", "constructor", "toString"] {
        let packet = format!(r#"2["{name}",{{"{name}":1}}]"#);
        assert!(matches!(Connection::joined().text(&packet), Ok(Some(Incoming::Event { .. }))));
        let connect = format!("0/{name}");
        assert!(matches!(Connection::new().text(&connect), Ok(Some(Incoming::Connect { .. }))));
    }
}
