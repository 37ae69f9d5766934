//! Attacks on WebSocket servers that are known by number or name, and what each comes to here.

#[path = "../fuzz/src/websocket_decoder.rs"]
#[allow(dead_code, unreachable_pub, reason = "shared with the fuzz target")]
mod harness;

use std::time::{Duration, Instant};

use harness::{Owned, Setup};
use roomcast_protocol::websocket::handshake::{DeflateConfig, negotiate, validate};
use roomcast_protocol::websocket::{
    CloseCode, DEFAULT_MAX_FRAGMENTS, Decoder, Deflater, Error, Inflater, Message, OpCode, Role,
    masked_fragment, masked_frame,
};

const KEY: [u8; 4] = [1, 2, 3, 4];

const SERVER: Setup =
    Setup { role: Role::Server, max_message: 1_000_000, max_fragments: DEFAULT_MAX_FRAGMENTS, deflate: true };

fn fragment(first: bool, fin: bool, payload: &[u8]) -> Vec<u8> {
    masked_fragment(if first { OpCode::Binary } else { OpCode::Continuation }, fin, false, payload, KEY)
}

/// Feeds one read and returns how many messages it completed.
fn feed(decoder: &mut Decoder, inflater: &mut Inflater, mut bytes: Vec<u8>) -> Result<usize, Error> {
    let mut rest = &mut bytes[..];
    let mut count = 0;
    while decoder.decode(&mut rest, inflater)?.is_some() {
        count += 1;
    }
    Ok(count)
}

#[test]
fn cve_2026_48779_tiny_fragments_are_bounded() {
    let (mut decoder, mut inflater) = (SERVER.decoder(), Inflater::new());
    feed(&mut decoder, &mut inflater, fragment(true, false, b"x")).unwrap();
    for sent in 1..DEFAULT_MAX_FRAGMENTS {
        assert_eq!(feed(&mut decoder, &mut inflater, fragment(false, false, b"x")), Ok(0), "fragment {sent}");
        assert!(decoder.memory() <= 512 + 2 * sent as usize, "{} bytes of {sent}", decoder.memory());
    }
    let error = feed(&mut decoder, &mut inflater, fragment(false, true, b"x")).unwrap_err();
    assert_eq!(error, Error::TooManyFragments);
    assert_eq!(error.close_code(), CloseCode::POLICY_VIOLATION);
    assert_eq!(decoder.memory(), 0);
}

#[test]
fn cve_2026_48779_as_many_fragments_as_allowed_are_a_message() {
    let setup = Setup { max_fragments: 3, ..SERVER };
    let message = |fragments: usize| {
        let frames = (1..=fragments).map(|n| fragment(n == 1, n == fragments, b"x"));
        setup.decode(&frames.collect::<Vec<_>>().concat(), [])
    };
    assert_eq!(message(3), (vec![Owned::Binary(b"xxx".to_vec())], None));
    assert_eq!(message(4), (vec![], Some(Error::TooManyFragments)));
}

#[test]
fn cve_2026_48779_empty_fragments_are_bounded_too() {
    let setup = Setup { max_fragments: 100, ..SERVER };
    let frames: Vec<u8> = (0..200).flat_map(|n| fragment(n == 0, false, b"")).collect();
    assert_eq!(setup.decode(&frames, []), (vec![], Some(Error::TooManyFragments)));
}

/// A message that arrives byte by byte costs as much as its bytes, not their square.
#[test]
fn cve_2026_48779_slow_continuation_costs_linear_time_and_memory() {
    let (mut decoder, mut inflater) = (SERVER.decoder(), Inflater::new());
    let text = "ж".repeat(500_000);
    let bytes = masked_frame(OpCode::Text, text.as_bytes(), KEY);
    let started = Instant::now();
    let (last, before) = bytes.split_last().unwrap();
    for (received, byte) in before.iter().enumerate() {
        assert_eq!(feed(&mut decoder, &mut inflater, vec![*byte]), Ok(0));
        assert!(decoder.memory() <= 512 + 2 * received);
    }
    assert_eq!(feed(&mut decoder, &mut inflater, vec![*last]), Ok(1));
    assert_eq!(decoder.memory(), 0, "an idle decoder owns nothing");
    // A million copies of half a megabyte would take a minute and more.
    assert!(started.elapsed() < Duration::from_secs(20), "{:?}", started.elapsed());
}

#[test]
fn a_header_allocates_nothing_for_what_it_announces() {
    let setup = Setup { max_message: usize::MAX, ..SERVER };
    let (mut decoder, mut inflater) = (setup.decoder(), Inflater::new());
    let header = vec![0x82, 0xff, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1, 2, 3, 4, 0];
    assert_eq!(feed(&mut decoder, &mut inflater, header), Ok(0));
    assert!(decoder.memory() < 512, "{} bytes", decoder.memory());
}

#[test]
fn what_is_announced_beyond_the_bound_is_refused_by_its_header() {
    let setup = Setup { max_message: 100, ..SERVER };
    assert_eq!(setup.decode(&[0x82, 0xfe, 0, 101, 1, 2, 3, 4], []), (vec![], Some(Error::MessageTooBig)));
    // The sum of the fragments counts.
    let fragments = [fragment(true, false, &[0; 60]), fragment(false, true, &[0; 41])].concat();
    assert_eq!(setup.decode(&fragments, []), (vec![], Some(Error::MessageTooBig)));
    assert_eq!(Error::MessageTooBig.close_code(), CloseCode::TOO_BIG);
}

#[test]
fn a_decompression_bomb_ends_at_the_bound() {
    let bomb = Deflater::new(9, 15).deflate(&vec![0; 100_000_000]).to_vec();
    assert!(bomb.len() < 120_000);
    let frame = masked_fragment(OpCode::Binary, true, true, &bomb, KEY);
    assert_eq!(SERVER.decode(&frame, []), (vec![], Some(Error::MessageTooBig)));
    assert_eq!(SERVER.decode(&frame, std::iter::repeat(1000)), (vec![], Some(Error::MessageTooBig)));
}

/// CVE-2022-21676 and its relatives: frames that crashed Engine.IO servers.
#[test]
fn cve_2022_21676_reserved_bits_are_a_protocol_error() {
    for first in [0xa1, 0x91, 0xb1, 0xf1, 0xc9, 0xc0, 0xe2] {
        let (messages, error) = SERVER.decode(&[first, 0x80, 1, 2, 3, 4], []);
        assert_eq!((messages, error), (vec![], Some(Error::ReservedBits)), "{first:#x}");
    }
    let plain = Setup { deflate: false, ..SERVER };
    assert_eq!(plain.decode(&[0xc1, 0x80, 1, 2, 3, 4], []), (vec![], Some(Error::ReservedBits)));
    assert_eq!(Error::ReservedBits.close_code(), CloseCode::PROTOCOL_ERROR);
}

/// CVE-2022-41940, CVE-2023-31125: garbage after the handshake.
#[test]
fn cve_2022_41940_garbage_after_the_handshake_is_an_error() {
    for garbage in
        [&b"GET / HTTP/1.1\r\n\r\n"[..], b"\r\n\r\n", &[0xff; 64], &[0x16, 0x03, 0x01, 0x02], &[0; 64]]
    {
        let (messages, error) = SERVER.decode(garbage, []);
        assert!(messages.is_empty() && error.is_some(), "{garbage:x?}: {error:?}");
    }
}

/// CVE-2021-32640, CVE-2016-10542, CVE-2016-10518, CVE-2024-37890: headers that cost more than their length.
#[test]
fn cve_2021_32640_long_headers_cost_linear_time() {
    let long = |pattern: &str| http::HeaderValue::from_str(&pattern.repeat(100_000 / pattern.len())).unwrap();
    let started = Instant::now();
    for pattern in [" ", "a,", "\"", "permessage-deflate; ", "permessage-deflate, ", "\\\"", "b ;= ", ";"] {
        let mut headers = http::HeaderMap::new();
        for name in ["upgrade", "connection", "sec-websocket-key", "sec-websocket-extensions"] {
            headers.insert(name, long(pattern));
        }
        let _ = negotiate(&headers, &DeflateConfig::default());
        headers.insert("sec-websocket-version", long("1"));
        assert!(validate(&http::Method::GET, http::Version::HTTP_11, &headers).is_err());
    }
    assert!(started.elapsed() < Duration::from_secs(5), "{:?}", started.elapsed());
}

#[test]
fn fragmentation_rules_are_kept() {
    let text = masked_frame(OpCode::Text, b"x", KEY);
    let ping = masked_frame(OpCode::Ping, b"p", KEY);
    assert_eq!(SERVER.decode(&fragment(false, true, b"x"), []).1, Some(Error::UnexpectedContinuation));
    let inside = [fragment(true, false, b"x"), text].concat();
    assert_eq!(SERVER.decode(&inside, []).1, Some(Error::ExpectedContinuation));
    let between = [fragment(true, false, b"x"), ping, fragment(false, true, b"y")].concat();
    let expected = vec![Owned::Ping(b"p".to_vec()), Owned::Binary(b"xy".to_vec())];
    assert_eq!(SERVER.decode(&between, []), (expected.clone(), None));
    assert_eq!(SERVER.decode(&between, std::iter::repeat(1)), (expected, None));
}

#[test]
fn invalid_text_fails_at_the_byte_that_shows_it() {
    // Autobahn 6.4: the surrogate half is refused before the frame, let alone the message, is complete.
    let mut bytes = masked_fragment(OpCode::Text, false, false, "κόσμε".as_bytes(), KEY);
    bytes.extend(masked_fragment(
        OpCode::Continuation,
        false,
        false,
        &[0xed, 0xa0, 0x80, b'x', b'x'],
        [0; 4],
    ));
    bytes.truncate(bytes.len() - 3);
    assert_eq!(SERVER.decode(&bytes, []), (vec![], Some(Error::InvalidUtf8)));
    bytes.pop();
    assert_eq!(SERVER.decode(&bytes, []), (vec![], None));
    let split = [
        masked_fragment(OpCode::Text, false, false, &[0xe2, 0x82], KEY),
        masked_fragment(OpCode::Continuation, true, false, &[], KEY),
    ];
    assert_eq!(SERVER.decode(&split.concat(), []), (vec![], Some(Error::InvalidUtf8)));
    assert_eq!(Error::InvalidUtf8.close_code(), CloseCode::INVALID_PAYLOAD);
}

#[test]
fn a_whole_message_is_borrowed_from_the_input() {
    let (mut decoder, mut inflater) = (SERVER.decoder(), Inflater::new());
    let mut bytes = masked_frame(OpCode::Binary, b"zero copy", KEY);
    let range = bytes.as_ptr_range();
    let mut rest = &mut bytes[..];
    let Ok(Some(Message::Binary(payload))) = decoder.decode(&mut rest, &mut inflater) else { panic!() };
    assert_eq!(payload, b"zero copy");
    assert!(range.contains(&payload.as_ptr()));
    assert_eq!(decoder.memory(), 0);
}
