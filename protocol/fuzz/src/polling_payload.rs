//! The polling payload: every record is a packet or is not, for reasons that can be told by looking, and what is put
//! together again is the same.
//!
//! Owns the judgement of one input. It must not need the fuzzer: `protocol/tests` runs it too.

use roomcast_protocol::engineio::{Message, Packet, records};
use roomcast_protocol::socketio::EncodedPacket;

/// Separates the packets of a payload (Engine.IO v4).
const SEPARATOR: &str = "\u{1e}";

/// Judges one input: the body of a POST.
pub fn run(data: &[u8]) {
    let payload = String::from_utf8_lossy(data);
    let parts: Vec<&str> = records(&payload).collect();
    assert_eq!(parts.join(SEPARATOR), payload, "records lose nothing");
    assert_eq!(parts.len(), 1 + payload.matches(SEPARATOR).count(), "one record more than separators");

    let mut messages = Vec::new();
    for record in parts {
        let packet = Packet::decode(record);
        judge(record, packet.as_ref().ok());
        if let Ok(Packet::Message(message)) = packet {
            messages.push(message);
        }
    }
    round_trip(&messages);
}

/// Says of one record what it has to be.
fn judge(record: &str, packet: Option<&Packet<'_>>) {
    let mut characters = record.chars();
    let kind = characters.next();
    let rest = characters.as_str();
    match (kind, packet) {
        (Some('0'), Some(Packet::Open))
        | (Some('1'), Some(Packet::Close))
        | (Some('3'), Some(Packet::Pong))
        | (Some('5'), Some(Packet::Upgrade))
        | (Some('6'), Some(Packet::Noop)) => {}
        (Some('2'), Some(Packet::Ping(data))) | (Some('4'), Some(Packet::Message(Message::Text(data)))) => {
            assert_eq!(*data, rest);
        }
        (Some('b'), Some(Packet::Message(Message::Binary(bytes)))) => {
            let digits = rest.trim_end_matches('=').len();
            assert_eq!(bytes.len(), digits * 3 / 4, "three bytes for four digits");
        }
        (Some('b'), None) => assert!(!is_base64(rest), "{rest:?} is base64"),
        (kind, None) => {
            assert!(!kind.is_some_and(|kind| ('0'..='6').contains(&kind)), "{record:?} is a packet");
        }
        (_, Some(packet)) => panic!("{record:?} is no {packet:?}"),
    }
}

/// True for what nobody would refuse: whole groups of digits, with or without padding.
fn is_base64(text: &str) -> bool {
    let digits = text.trim_end_matches('=');
    let padding = text.len() - digits.len();
    let is_digit = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/');
    digits.bytes().all(is_digit)
        && digits.len() % 4 != 1
        && (padding == 0 || (digits.len() + padding).is_multiple_of(4) && padding < 3)
}

/// Messages written as a server writes them are read as they were.
fn round_trip(messages: &[Message<'_>]) {
    if messages.is_empty() {
        return;
    }
    let mut payload = Vec::new();
    for message in messages {
        let packet = match message {
            Message::Text(text) => EncodedPacket::engine_text(text),
            Message::Binary(bytes) => EncodedPacket::engine_binary(bytes),
        };
        packet.write_records(&mut payload);
    }
    let payload = String::from_utf8(payload).expect("a payload is text");
    let again: Vec<_> = records(&payload).map(Packet::decode).collect();
    let expected: Vec<_> = messages.iter().cloned().map(|message| Ok(Packet::Message(message))).collect();
    assert_eq!(again, expected, "what was written is read");
}
