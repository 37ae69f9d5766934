//! Properties of Engine.IO: the polling payload, and the session against the contract that the fuzzer checks too.

#[path = "../fuzz/src/polling_payload.rs"]
#[allow(dead_code, unreachable_pub, reason = "shared with the fuzz target")]
mod polling_payload;
#[path = "../fuzz/src/session_model.rs"]
#[allow(dead_code, unreachable_pub, reason = "shared with the fuzz target")]
mod session_model;

use std::fs;

use proptest::prelude::*;
use roomcast_protocol::engineio::{Message, Packet, records};
use roomcast_protocol::socketio::EncodedPacket;

type Judge = fn(&[u8]);

/// A message as it may be sent: text has no separator in it, as JSON never has.
#[derive(Debug, Clone)]
enum Sent {
    Text(String),
    Binary(Vec<u8>),
}

fn sent() -> impl Strategy<Value = Sent> {
    prop_oneof![
        "[^\u{1e}]{0,40}".prop_map(Sent::Text),
        prop::collection::vec(any::<u8>(), 0..40).prop_map(Sent::Binary),
    ]
}

proptest! {
    #[test]
    fn a_payload_is_read_as_it_was_written(messages in prop::collection::vec(sent(), 1..10)) {
        let mut payload = Vec::new();
        for message in &messages {
            let packet = match message {
                Sent::Text(text) => EncodedPacket::engine_text(text),
                Sent::Binary(bytes) => EncodedPacket::engine_binary(bytes),
            };
            packet.write_records(&mut payload);
        }
        let payload = String::from_utf8(payload).unwrap();
        let read: Vec<_> = records(&payload).map(|record| Packet::decode(record).unwrap()).collect();
        prop_assert_eq!(read.len(), messages.len());
        for (packet, message) in read.into_iter().zip(&messages) {
            let expected = match message {
                Sent::Text(text) => Message::Text(text),
                Sent::Binary(bytes) => Message::Binary(bytes.into()),
            };
            prop_assert_eq!(packet, Packet::Message(expected));
        }
    }

    #[test]
    fn any_payload_is_judged_alike(records in prop::collection::vec("[0-7b]?[ -~é]{0,12}={0,2}", 0..8)) {
        polling_payload::run(records.join("\u{1e}").as_bytes());
    }

    #[test]
    fn any_session_keeps_its_contract(events in prop::collection::vec(any::<u8>(), 0..200)) {
        session_model::run(&events);
    }
}

#[test]
fn seeds_of_the_fuzzer_pass() {
    let judges: [(&str, Judge); 2] =
        [("polling_payload", polling_payload::run), ("session_model", session_model::run)];
    for (name, judge) in judges {
        let seeds = fs::read_dir(format!("{}/fuzz/seeds/{name}", env!("CARGO_MANIFEST_DIR"))).unwrap();
        let judged = seeds.map(|seed| judge(&fs::read(seed.unwrap().path()).unwrap())).count();
        assert!(judged > 0, "{name} has seeds");
    }
}
