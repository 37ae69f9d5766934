//! Properties of Socket.IO packets: what is encoded is read as the same, whatever it holds and however it travels.

#[path = "../fuzz/src/socketio_packet.rs"]
#[allow(dead_code, unreachable_pub, reason = "shared with the fuzz target")]
mod socketio_packet;

use std::fs;
use std::time::Instant;

use bytes::Bytes;
use proptest::prelude::*;
use roomcast_protocol::socketio::{AckId, Args, Client, ClientLimits, EncodedPacket, Incoming};
use serde_json::Value;

/// JSON with binary in it, as the `{"$bin":"…"}` that `Args` takes.
fn json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i32>().prop_map(Value::from),
        any::<String>().prop_map(Value::from),
        prop_oneof![Just("AQI="), Just(""), Just("/+8=")]
            .prop_map(|base64| serde_json::json!({ "$bin": base64 })),
    ];
    leaf.prop_recursive(3, 16, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::vec(("[a-z]{1,4}", inner), 0..4)
                .prop_map(|entries| Value::Object(entries.into_iter().collect())),
        ]
    })
}

fn args() -> impl Strategy<Value = Args> {
    prop::collection::vec(json(), 0..5)
        .prop_map(|values| Args::from_json_values(values).expect("JSON is JSON"))
}

fn event_name() -> impl Strategy<Value = String> {
    any::<String>().prop_filter("names of a client", |name| {
        !["connect", "connect_error", "disconnect", "disconnecting", "newListener", "removeListener"]
            .contains(&name.as_str())
    })
}

/// Feeds a packet to a client that has joined the namespace; what came out.
fn receive(packet: &EncodedPacket, namespace: &str) -> Incoming<'static> {
    let limits = ClientLimits { max_attachments: 1000, ..ClientLimits::default() };
    let now = Instant::now();
    let mut client = Client::new();
    client.handle_text(&format!("0{namespace},"), &limits, now).expect("a CONNECT");
    client.accept(0);
    let mut last = None;
    for (is_binary, message) in packet.messages() {
        assert!(last.is_none(), "attachments come before the event");
        let incoming = if is_binary {
            client.handle_binary(message, &limits, now).expect("an attachment")
        } else {
            client
                .handle_text(std::str::from_utf8(&message[1..]).expect("text"), &limits, now)
                .expect("a packet")
        };
        last = incoming.map(into_owned);
    }
    last.expect("a whole packet")
}

fn into_owned(incoming: Incoming<'_>) -> Incoming<'static> {
    match incoming {
        Incoming::Event { slot, name, args, id } => {
            Incoming::Event { slot, name: name.into_owned().into(), args, id }
        }
        Incoming::Ack { slot, id, args } => Incoming::Ack { slot, id, args },
        other => panic!("{other:?} is neither event nor ack"),
    }
}

proptest! {
    #[test]
    fn an_event_is_read_as_it_was_written(
        name in event_name(),
        args in args(),
        id in prop::option::of(any::<u32>()),
        namespace in "/[a-z0-9_-]{0,8}",
    ) {
        let id = id.map(AckId::from);
        let packet = EncodedPacket::event(&namespace, id, &name, &args);
        let carried = EncodedPacket::from_frames(packet.frames().clone()).unwrap();
        let expected = Incoming::Event { slot: 0, name: name.into(), args, id };
        prop_assert_eq!(receive(&packet, &namespace), expected.clone());
        prop_assert_eq!(receive(&carried, &namespace), expected);
    }

    #[test]
    fn an_ack_is_read_as_it_was_written(args in args(), id in any::<u32>()) {
        let id = AckId::from(id);
        let packet = EncodedPacket::ack("/a", id, &args);
        prop_assert_eq!(receive(&packet, "/a"), Incoming::Ack { slot: 0, id, args });
    }

    #[test]
    fn arguments_survive_as_json_values(values in prop::collection::vec(json(), 0..5)) {
        let args = Args::from_json_values(values.clone()).unwrap();
        prop_assert_eq!(args.len(), values.len());
        prop_assert_eq!(args.to_json_array().unwrap(), Value::from(values));
    }

    #[test]
    fn no_bytes_are_frames_by_accident(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
        let bytes = Bytes::from(bytes);
        if let Ok(packet) = EncodedPacket::from_frames(bytes.clone()) {
            let payloads: usize = packet.messages().map(|(_, message)| message.len()).sum();
            prop_assert!(payloads < bytes.len());
        }
    }
}

#[test]
fn seeds_of_the_fuzzer_pass() {
    let seeds = fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/fuzz/seeds/socketio_packet")).unwrap();
    let judged = seeds.map(|seed| socketio_packet::run(&fs::read(seed.unwrap().path()).unwrap())).count();
    assert!(judged > 0, "there are seeds");
}
