//! What the protocol costs, in instructions: frames, payloads, packets, and the state machines of one echo.

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use roomcast_instructions::{Case, Measure};
use roomcast_protocol::engineio::{Message, Session, SessionConfig, Source, Transport, records};
use roomcast_protocol::socketio::{AckId, Args, Client, ClientLimits, EncodedPacket, Incoming};
use roomcast_protocol::websocket::{
    self, DEFAULT_MAX_FRAGMENTS, Decoder, Inflater, OpCode, PreparedFrame, Role, masked_frame,
};

const MASK: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];

/// As long as a chat message, and as a document.
const SMALL: usize = 64;
const LARGE: usize = 16 * 1024;

fn main() -> ExitCode {
    let cases = [
        Case { name: "WebSocket: decode a masked text of 64 bytes", run: |m| decode(m, SMALL, 1) },
        Case { name: "WebSocket: decode a masked text of 16 KiB", run: |m| decode(m, LARGE, 1) },
        Case { name: "WebSocket: decode ten masked texts of one read", run: |m| decode(m, SMALL, 10) },
        Case { name: "WebSocket: prepare a frame of 64 bytes", run: |m| prepare(m, SMALL) },
        Case { name: "WebSocket: prepare a frame of 16 KiB", run: |m| prepare(m, LARGE) },
        Case { name: "polling: split a payload of ten packets", run: split_payload },
        Case { name: "polling: write a payload of ten packets", run: write_payload },
        Case { name: "Socket.IO: take an event", run: |m| take(m, r#"2["message","hello there",{"n":1}]"#) },
        Case {
            name: "Socket.IO: take an event with an ack",
            run: |m| take(m, r#"217["message","hello there"]"#),
        },
        Case {
            name: "Socket.IO: take an event of a namespace",
            run: |m| take(m, r#"2/chat,["message","hello"]"#),
        },
        Case { name: "Socket.IO: take an ack", run: |m| take(m, r#"317["stored",{"id":42}]"#) },
        Case { name: "Socket.IO: take an event with an attachment", run: take_binary },
        Case { name: "Socket.IO: encode an event", run: |m| encode_event(m, None) },
        Case { name: "Socket.IO: encode an event with an ack", run: |m| encode_event(m, Some(17)) },
        Case { name: "Socket.IO: encode an ack", run: encode_ack },
        Case { name: "Socket.IO: encode an event with an attachment", run: encode_binary },
        Case { name: "connection: from the bytes of an event to those of its ack", run: echo },
    ];
    roomcast_instructions::main(env!("CARGO_MANIFEST_DIR"), &cases)
}

fn decode(measure: &mut Measure, len: usize, frames: usize) {
    let bytes = masked_frame(OpCode::Text, "x".repeat(len).as_bytes(), MASK).repeat(frames);
    let mut decoder = Decoder::new(Role::Server, 1_000_000, DEFAULT_MAX_FRAGMENTS, None);
    let (mut inflater, mut buffer) = (Inflater::new(), bytes.clone());
    measure.each(100, || {
        // As a read does it: what is decoded is unmasked in place.
        buffer.copy_from_slice(&bytes);
        let mut rest = &mut buffer[..];
        let mut seen = 0;
        while let Ok(Some(message)) = decoder.decode(&mut rest, &mut inflater) {
            seen += usize::from(matches!(message, websocket::Message::Text(_)));
        }
        assert_eq!(seen, frames);
    });
}

fn prepare(measure: &mut Measure, len: usize) {
    let text = "x".repeat(len);
    measure.each(100, || PreparedFrame::text(&text));
}

fn split_payload(measure: &mut Measure) {
    let payload = [r#"42["message","hello there",{"n":1}]"#; 10].join("\u{1e}");
    measure.each(100, || records(&payload).map(str::len).sum::<usize>());
}

fn write_payload(measure: &mut Measure) {
    let packet = EncodedPacket::event("/", None, "message", &arguments());
    measure.each(100, || {
        let mut payload = Vec::with_capacity(1024);
        (0..10).for_each(|_| packet.write_records(&mut payload));
        payload
    });
}

/// A client that has joined `/` and `/chat`.
fn joined(limits: &ClientLimits, now: Instant) -> Client {
    let mut client = Client::new();
    for (slot, text) in ["0", "0/chat,"].into_iter().enumerate() {
        let connect = client.handle_text(text, limits, now);
        assert!(matches!(connect, Ok(Some(Incoming::Connect { .. }))));
        client.accept(slot);
    }
    client
}

fn take(measure: &mut Measure, text: &str) {
    let (limits, now) = (ClientLimits::default(), Instant::now());
    let mut client = joined(&limits, now);
    measure.each(100, || assert!(matches!(client.handle_text(text, &limits, now), Ok(Some(_)))));
}

fn take_binary(measure: &mut Measure) {
    let (limits, now) = (ClientLimits::default(), Instant::now());
    let mut client = joined(&limits, now);
    measure.each(100, || {
        let text = r#"51-["picture",{"_placeholder":true,"num":0}]"#;
        assert!(matches!(client.handle_text(text, &limits, now), Ok(None)));
        assert!(matches!(client.handle_binary(&[7; SMALL], &limits, now), Ok(Some(_))));
    });
}

fn arguments() -> Args {
    Args::from_json_array(r#"["hello there",{"n":1}]"#, Vec::new()).expect("an array")
}

fn encode_event(measure: &mut Measure, id: Option<u32>) {
    let args = arguments();
    measure.each(100, || EncodedPacket::event("/", id.map(AckId::from), "message", &args));
}

fn encode_ack(measure: &mut Measure) {
    let args = arguments();
    measure.each(100, || EncodedPacket::ack("/", AckId::from(17), &args));
}

fn encode_binary(measure: &mut Measure) {
    let json = r#"[{"_placeholder":true,"num":0}]"#;
    let args = Args::from_json_array(json, vec![Bytes::from_static(&[7; SMALL])]).expect("an array");
    measure.each(100, || EncodedPacket::event("/", None, "picture", &args));
}

/// All that the protocol does for an event with an ack whose handler gives the arguments back.
fn echo(measure: &mut Measure) {
    let (limits, now) = (ClientLimits::default(), Instant::now());
    let mut client = joined(&limits, now);
    let mut session = Session::new(Arc::new(SessionConfig::default()), Transport::WebSocket, now);
    let bytes = masked_frame(OpCode::Text, br#"4217["message-with-ack","hello there"]"#, MASK);
    let mut decoder = Decoder::new(Role::Server, 1_000_000, DEFAULT_MAX_FRAGMENTS, None);
    let (mut inflater, mut buffer) = (Inflater::new(), bytes.clone());
    measure.each(100, || {
        buffer.copy_from_slice(&bytes);
        let mut rest = &mut buffer[..];
        let mut answer = None;
        while let Ok(Some(websocket::Message::Text(text))) = decoder.decode(&mut rest, &mut inflater) {
            let Some(Message::Text(text)) = session.handle_text(Source::Transport, text, now) else {
                continue;
            };
            if let Ok(Some(Incoming::Event { id: Some(id), args, .. })) =
                client.handle_text(text, &limits, now)
            {
                answer = Some(EncodedPacket::ack("/", id, &args));
            }
        }
        answer.expect("an ack was wanted")
    });
}
