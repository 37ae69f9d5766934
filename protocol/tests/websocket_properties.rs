//! Properties of the WebSocket codec: what is encoded is decoded, however it is cut, and no bytes do harm.

#[path = "../fuzz/src/websocket_decoder.rs"]
#[allow(dead_code, unreachable_pub, reason = "shared with the fuzz target")]
mod harness;

use std::fs;

use harness::{Owned, Setup};
use proptest::collection::vec;
use proptest::prelude::*;
use roomcast_protocol::websocket::{
    CloseCode, Deflater, OpCode, PreparedFrame, Role, frame, masked_fragment, masked_frame, write_header,
};

/// A message, how it is compressed, and where it is cut into fragments.
#[derive(Debug, Clone)]
struct Sent {
    message: Owned,
    deflate: bool,
    cuts: Vec<usize>,
    key: [u8; 4],
}

fn sent() -> impl Strategy<Value = Sent> {
    let control = || vec(any::<u8>(), 0..=125);
    let message = prop_oneof![
        4 => ".{0,300}".prop_map(Owned::Text),
        4 => vec(any::<u8>(), 0..300).prop_map(Owned::Binary),
        1 => (any::<u8>(), 0..70_000_usize).prop_map(|(byte, len)| Owned::Binary(vec![byte; len])),
        1 => control().prop_map(Owned::Ping),
        1 => control().prop_map(Owned::Pong),
    ];
    (message, any::<bool>(), vec(0..400_usize, 0..4), any::<[u8; 4]>())
        .prop_map(|(message, deflate, cuts, key)| Sent { message, deflate, cuts, key })
}

fn encode(sent: &Sent, receiver: Role, deflate: bool, out: &mut Vec<u8>) {
    let (opcode, payload) = match &sent.message {
        Owned::Text(text) => (OpCode::Text, text.as_bytes()),
        Owned::Binary(bytes) => (OpCode::Binary, &bytes[..]),
        Owned::Ping(bytes) => (OpCode::Ping, &bytes[..]),
        Owned::Pong(bytes) => (OpCode::Pong, &bytes[..]),
        Owned::Close(_) => unreachable!("not generated"),
    };
    if opcode.is_control() {
        match receiver {
            Role::Server => out.extend(masked_frame(opcode, payload, sent.key)),
            Role::Client => out.extend(frame(opcode, payload)),
        }
        return;
    }
    let deflate = deflate && sent.deflate;
    let mut deflater = Deflater::new(3, 12);
    let payload = if deflate { deflater.deflate(payload) } else { payload };
    let mut cuts: Vec<usize> = sent.cuts.iter().map(|cut| cut % (payload.len() + 1)).collect();
    cuts.push(payload.len());
    cuts.sort_unstable();
    let mut start = 0;
    for (index, &end) in cuts.iter().enumerate() {
        let piece = &payload[start..end];
        let (fin, rsv1) = (index + 1 == cuts.len(), index == 0 && deflate);
        let opcode = if index == 0 { opcode } else { OpCode::Continuation };
        match receiver {
            Role::Server => out.extend(masked_fragment(opcode, fin, rsv1, piece, sent.key)),
            Role::Client => {
                write_header(out, opcode, fin, rsv1, piece.len());
                out.extend_from_slice(piece);
            }
        }
        start = end;
        if !fin && sent.key[0] & 1 == 0 {
            // A control frame may come between fragments.
            match receiver {
                Role::Server => out.extend(masked_frame(OpCode::Pong, b"between", sent.key)),
                Role::Client => out.extend(frame(OpCode::Pong, b"between")),
            }
        }
    }
}

proptest! {
    #[test]
    fn what_is_encoded_is_decoded_however_it_is_cut(
        sent in vec(sent(), 0..8),
        server in any::<bool>(),
        deflate in any::<bool>(),
        chunks in vec(1..50_usize, 0..200),
    ) {
        let role = if server { Role::Server } else { Role::Client };
        let setup = Setup { role, max_message: 70_000, max_fragments: 5, deflate };
        let mut bytes = Vec::new();
        for sent in &sent {
            encode(sent, role, deflate, &mut bytes);
        }
        let between = Owned::Pong(b"between".to_vec());
        for (messages, error) in [setup.decode(&bytes, []), setup.decode(&bytes, chunks)] {
            let messages: Vec<Owned> = messages.into_iter().filter(|message| *message != between).collect();
            let expected: Vec<Owned> = sent.iter().map(|sent| sent.message.clone()).collect();
            prop_assert_eq!(error, None);
            prop_assert_eq!(messages, expected);
        }
    }

    #[test]
    fn close_frames_are_decoded_and_end_everything(
        code in prop_oneof![1000..=1003_u16, 1007..=1014_u16, 3000..=4999_u16],
        reason in ".{0,40}",
        after in vec(any::<u8>(), 0..20),
        chunks in vec(1..5_usize, 0..50),
    ) {
        let setup = Setup { role: Role::Client, max_message: 100, max_fragments: 5, deflate: false };
        let code = CloseCode::new(code).unwrap();
        let mut end = reason.len().min(123);
        while !reason.is_char_boundary(end) {
            end -= 1;
        }
        let bytes = [PreparedFrame::close(Some((code, &reason))).as_ref(), &after].concat();
        let expected = Owned::Close(Some((code, reason[..end].to_owned())));
        prop_assert_eq!(setup.decode(&bytes, chunks), (vec![expected], None));
    }

    #[test]
    fn arbitrary_bytes_do_no_harm(data in vec(any::<u8>(), 0..400)) {
        harness::run(&data);
    }

    /// Random bytes seldom get beyond the first header; damaged streams do.
    #[test]
    fn damaged_streams_do_no_harm(
        sent in vec(sent(), 1..4),
        settings in any::<[u8; 4]>(),
        damage in vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
    ) {
        let role = if settings[0] & 1 == 0 { Role::Server } else { Role::Client };
        let mut data = settings.to_vec();
        for sent in &sent {
            encode(sent, role, settings[0] & 2 == 0, &mut data);
        }
        for (index, value) in damage {
            if data.len() > 4 {
                let index = 4 + index.index(data.len() - 4);
                data[index] ^= value;
            }
        }
        harness::run(&data);
    }
}

#[test]
fn seeds_of_the_fuzzer_pass() {
    let seeds = fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/fuzz/seeds/websocket_decoder")).unwrap();
    let mut count = 0;
    for seed in seeds {
        harness::run(&fs::read(seed.unwrap().path()).unwrap());
        count += 1;
    }
    assert!(count > 0);
}
