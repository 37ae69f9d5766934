//! The examples of RFC 6455 section 5.7 and RFC 7692 section 7.2.3, byte for byte.

#[path = "../fuzz/src/websocket_decoder.rs"]
#[allow(dead_code, unreachable_pub, reason = "shared with the fuzz target")]
mod harness;

use harness::{Owned, Setup};
use roomcast_protocol::websocket::{Deflater, OpCode, PreparedFrame, Role, frame, masked_frame};

const KEY: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];

fn client(bytes: &[u8]) -> Vec<Owned> {
    decode(Role::Client, bytes)
}

fn server(bytes: &[u8]) -> Vec<Owned> {
    decode(Role::Server, bytes)
}

fn decode(role: Role, bytes: &[u8]) -> Vec<Owned> {
    let setup = Setup { role, max_message: 1 << 20, max_fragments: 100, deflate: true };
    let (messages, error) = setup.decode(bytes, []);
    assert_eq!(error, None);
    messages
}

fn hello() -> Owned {
    Owned::Text("Hello".to_owned())
}

#[test]
fn single_frame_unmasked_text() {
    let bytes = [0x81, 0x05, 0x48, 0x65, 0x6c, 0x6c, 0x6f];
    assert_eq!(PreparedFrame::text("Hello").as_ref(), bytes);
    assert_eq!(client(&bytes), [hello()]);
}

#[test]
fn single_frame_masked_text() {
    let bytes = [0x81, 0x85, 0x37, 0xfa, 0x21, 0x3d, 0x7f, 0x9f, 0x4d, 0x51, 0x58];
    assert_eq!(masked_frame(OpCode::Text, b"Hello", KEY), bytes);
    assert_eq!(server(&bytes), [hello()]);
}

#[test]
fn fragmented_unmasked_text() {
    assert_eq!(client(&[0x01, 0x03, 0x48, 0x65, 0x6c, 0x80, 0x02, 0x6c, 0x6f]), [hello()]);
}

#[test]
fn unmasked_ping_and_masked_pong() {
    let ping = [0x89, 0x05, 0x48, 0x65, 0x6c, 0x6c, 0x6f];
    assert_eq!(PreparedFrame::ping(b"Hello").as_ref(), ping);
    assert_eq!(client(&ping), [Owned::Ping(b"Hello".to_vec())]);
    let pong = [0x8a, 0x85, 0x37, 0xfa, 0x21, 0x3d, 0x7f, 0x9f, 0x4d, 0x51, 0x58];
    assert_eq!(masked_frame(OpCode::Pong, b"Hello", KEY), pong);
    assert_eq!(server(&pong), [Owned::Pong(b"Hello".to_vec())]);
}

#[test]
fn long_unmasked_binary() {
    for (len, header) in
        [(256, &[0x82, 0x7e, 0x01, 0x00][..]), (65_536, &[0x82, 0x7f, 0, 0, 0, 0, 0, 1, 0, 0])]
    {
        let payload = vec![0xa5; len];
        let bytes = [header, &payload].concat();
        assert!(frame(OpCode::Binary, &payload) == bytes, "{len} bytes");
        assert!(client(&bytes) == [Owned::Binary(payload)], "{len} bytes");
    }
}

#[test]
fn compressed_messages_of_rfc_7692() {
    let one_block = [0xc1, 0x07, 0xf2, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00];
    assert_eq!(client(&one_block), [hello()], "section 7.2.3.1");
    assert_eq!(
        PreparedFrame::deflated(&mut Deflater::new(6, 15), OpCode::Text, b"Hello").as_ref(),
        one_block
    );

    let fragments = [0x41, 0x03, 0xf2, 0x48, 0xcd, 0x80, 0x04, 0xc9, 0xc9, 0x07, 0x00];
    assert_eq!(client(&fragments), [hello()], "section 7.2.3.1, in two frames");

    // Without context takeover the second message of section 7.2.3.2 is the same as the first.
    assert_eq!(client(&[one_block, one_block].concat()), [hello(), hello()]);

    let stored = [0xc1, 0x0b, 0x00, 0x05, 0x00, 0xfa, 0xff, 0x48, 0x65, 0x6c, 0x6c, 0x6f, 0x00];
    assert_eq!(client(&stored), [hello()], "section 7.2.3.3");
    let final_block = [0xc1, 0x08, 0xf3, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00, 0x00];
    assert_eq!(client(&final_block), [hello()], "section 7.2.3.4");
    let two_blocks =
        [0xc1, 0x0d, 0xf2, 0x48, 0x05, 0x00, 0x00, 0x00, 0xff, 0xff, 0xca, 0xc9, 0xc9, 0x07, 0x00];
    assert_eq!(client(&two_blocks), [hello()], "section 7.2.3.5");
    assert_eq!(client(&[0xc1, 0x01, 0x00]), [Owned::Text(String::new())], "section 7.2.3.6");
}
