//! Golden bytes, and that decoding is total.

use proptest::prelude::*;

use super::journey::AGE_AT;
use super::*;
use crate::cluster::directory::{Announced, Entry, Known, Part, Query, Slot, Update};
use crate::cluster::journey::Journey;
use crate::host::{DrainOrder, Drains, NodeState, Standing};
use crate::reach::{Reach, ReachKey};
use crate::trace::TraceContext;

fn from() -> Identity {
    Identity { tag: "ab-_".parse().unwrap(), generation: 0x0102_0304_0506_0708 }
}

fn id(letter: &str) -> SocketId {
    letter.repeat(20).parse().unwrap()
}

fn args(json: &str) -> Args {
    Args::from_json_array(json, vec![]).unwrap()
}

fn binary_args() -> Args {
    let json = r#"["x",{"_placeholder":true,"num":0}]"#;
    Args::from_json_array(json, vec![Bytes::from_static(b"\0\xff")]).unwrap()
}

fn selector() -> Selector {
    Selector { to: Target::Rooms(vec!["a".into(), "".into()]), except: vec!["é".into()], local: false }
}

const LISTENING: Option<Listening> = Some(Listening { exact: true, hashed: true, buckets: 16_384 });
const STANDING: Standing = Standing { state: NodeState::Draining, connections: 0x0102 };

fn update() -> Update {
    let of = Identity { tag: "dead".parse().unwrap(), generation: 3 };
    let announced = Announced { number: 9, occupied: true };
    let entries = vec![
        Entry::Count { room: "r".into(), sockets: 2 },
        Entry::Socket { id: id("a"), here: true },
        Entry::Announced { room: "r".into(), announced, fresh: true },
        Entry::KeptCount { of, room: "".into(), sockets: 1 },
        Entry::KeptSocket { of, id: id("d") },
    ];
    Update {
        session: 1,
        number: 2,
        ring: 3,
        clock: 4,
        reset: vec![Slot::new(5).unwrap()],
        authority: vec![Slot::new(4_095).unwrap()],
        handover: 6,
        taken: (7, 8),
        parts: vec![Part { namespace: "/chat".into(), entries }],
    }
}

fn sockets_query(after: Option<SocketId>) -> Query {
    Query::Sockets { namespace: "/".into(), room: "r".into(), after, limit: 10 }
}

fn known() -> Known {
    Known { sockets: 5, age: Duration::from_millis(70), missing: vec!["dead".parse().unwrap()] }
}

#[test]
fn the_sizes_of_entries_are_those_on_the_wire() {
    let with = |entries: Vec<Entry>| {
        let parts = vec![Part { namespace: "/".into(), entries }];
        encode(from(), &Message::Update(Update { parts, ..Update::default() })).len()
    };
    for entry in update().parts.remove(0).entries {
        assert_eq!(with(vec![entry.clone()]) - with(vec![]), entry.size(), "{entry:?}");
    }
    assert!(with(vec![]) < OVERHEAD + 64);
}

fn reach(address: &str) -> Reach {
    Reach { address: address.parse().unwrap(), key: ReachKey::new([0xaa; 32]) }
}

fn every_message() -> Vec<Message> {
    let request = |op| Message::Request { id: 7, namespace: "/".into(), op };
    let response = |answer| Message::Response { id: u64::MAX, last: true, answer };
    let timeout = Duration::from_millis(1_500);
    vec![
        Message::Hello,
        Message::Heartbeat,
        Message::Goodbye,
        Message::Broadcast(Broadcast {
            namespace: "/chat".into(),
            id: 9,
            selector: selector(),
            volatile: true,
            compress: true,
            journey: None,
            frames: Bytes::from_static(b"\x81\x024x"),
        }),
        Message::ServerEvent { namespace: "/".into(), name: "e".into(), args: binary_args() },
        request(Op::Count(Selector::all())),
        request(Op::Fetch(selector())),
        request(Op::Join(selector(), vec!["r".into()])),
        request(Op::Leave(selector(), vec![])),
        request(Op::Disconnect(Selector::all(), true)),
        request(Op::ServerEvent { name: "e".into(), args: Args::none() }),
        request(Op::Ask {
            selector: selector(),
            name: "e".into(),
            args: args("[1,[2]]"),
            timeout,
            trace: None,
        }),
        response(Answer::Nothing),
        response(Answer::Count(3)),
        response(Answer::Sockets(vec![Bytes::from_static(b"{}"), Bytes::new()])),
        response(Answer::Reply(args("[null]"))),
        response(Answer::Asked(vec![id("a"), id("b")])),
        response(Answer::Settled(vec![(id("a"), Some(binary_args())), (id("b"), None)])),
        response(Answer::Refused),
        Message::Vitals(Vitals {
            version: 2,
            said_at: 3,
            sockets: 4,
            rooms: 5,
            listening: LISTENING,
            standing: None,
        }),
        Message::Vitals(Vitals { listening: LISTENING, standing: Some(STANDING), ..Vitals::default() }),
        Message::Vitals(Vitals { version: 2, ..Vitals::default() }),
        Message::Buried { generation: 6 },
        Message::Cancel { id: 7 },
        Message::Listens { number: 7, listening: Listening { exact: true, hashed: false, buckets: 1 } },
        Message::Heard { number: 8 },
        Message::Update(Update::default()),
        Message::Update(update()),
        Message::Resync { session: 7 },
        Message::Query { id: 1, query: Query::Room { namespace: "/".into(), room: "é".into() } },
        Message::Query { id: 2, query: sockets_query(None) },
        Message::Query { id: 3, query: sockets_query(Some(id("c"))) },
        Message::Found { id: 4, known: None },
        Message::Found { id: 5, known: Some(known()) },
        Message::Reach(reach("10.1.2.3:3002")),
        Message::Reach(reach("[fd00::1]:3002")),
        Message::Drain { id: 6, order: DrainOrder::default() },
        Message::Drain { id: 6, order: DrainOrder { delay: Some(timeout), period: None } },
        Message::Draining { id: 6, drains: Drains { already: true, connections: 7 } },
        travelled(None),
        travelled(TraceContext::new(0xabcd, 7, true)),
        request(Op::Ask {
            selector: selector(),
            name: "e".into(),
            args: args("[1,[2]]"),
            timeout,
            trace: TraceContext::new(7, 8, true),
        }),
    ]
}

fn travelled(trace: Option<TraceContext>) -> Message {
    Message::Broadcast(Broadcast {
        namespace: "/".into(),
        id: 1,
        selector: Selector::all(),
        volatile: false,
        compress: false,
        journey: Some(Journey { age: Duration::from_micros(1_500), trace }),
        frames: Bytes::from_static(b"\x81\x024x"),
    })
}

#[test]
fn an_emit_tells_its_age_when_it_is_handed_over() {
    let trace = TraceContext::new(0xabcd, 7, true);
    for trace in [None, trace] {
        let payload = set_age(encode(from(), &travelled(trace)), Duration::from_millis(70));
        let Message::Broadcast(broadcast) = decode(payload).unwrap().message else { panic!("no broadcast") };
        assert_eq!(broadcast.journey, Some(Journey { age: Duration::from_millis(70), trace }));
    }
    let shared = encode(from(), &travelled(None));
    assert_eq!(set_age(shared.clone(), Duration::from_secs(1)), shared);
    let long = set_age(encode(from(), &travelled(None)), Duration::from_secs(100_000));
    assert_eq!(long[AGE_AT..AGE_AT + 4], [0xff; 4]);
}

/// What nodes of an earlier version said, one message a line. The first ones of `every_message`.
const RECORDED: &str = include_str!("recorded/v1.hex");

#[test]
fn golden_bytes() {
    let header = |kind: u8| [b"RC\x01".as_slice(), &[kind], b"ab-_\x08\x07\x06\x05\x04\x03\x02\x01"].concat();
    let messages = every_message();
    assert_eq!(encode(from(), &messages[1]), header(1));
    let broadcast = b"\x05\0\0\0/chat\x09\0\0\0\0\0\0\0\x03\
        \x01\x02\0\0\0\x01\0\0\0a\0\0\0\0\x01\0\0\0\x02\0\0\0\xc3\xa9\x81\x024x";
    assert_eq!(encode(from(), &messages[3]), [&header(3), broadcast.as_slice()].concat());
    let ask = b"\x07\0\0\0\0\0\0\0\x01\0\0\0/\x06\
        \x01\x02\0\0\0\x01\0\0\0a\0\0\0\0\x01\0\0\0\x02\0\0\0\xc3\xa9\
        \x01\0\0\0e\x05\0\0\x001,[2]\0\0\0\0\xdc\x05\0\0\0\0\0\0";
    assert_eq!(encode(from(), &messages[11]), [&header(5), ask.as_slice()].concat());
    let settled = b"\xff\xff\xff\xff\xff\xff\xff\xff\x01\x05\x02\0\0\0aaaaaaaaaaaaaaaaaaaa\x01\
        \x21\0\0\0\"x\",{\"_placeholder\":true,\"num\":0}\x01\0\0\0\x02\0\0\0\0\xff\
        bbbbbbbbbbbbbbbbbbbb\0";
    assert_eq!(encode(from(), &messages[17]), [&header(6), settled.as_slice()].concat());
}

#[test]
fn what_version_1_said_is_understood_and_said_in_the_same_way() {
    let mut messages = every_message().into_iter();
    for line in RECORDED.lines() {
        let bytes: Vec<u8> =
            (0..line.len()).step_by(2).map(|at| u8::from_str_radix(&line[at..at + 2], 16).unwrap()).collect();
        let message = messages.next().unwrap();
        assert_eq!(encode(from(), &message), bytes);
        assert_eq!(decode(bytes.into()), Ok(Envelope { from: from(), message }));
    }
    // What it did not know carries a later version, which it counts and leaves alone.
    for message in messages {
        let is_of_3 = matches!(
            message,
            Message::Reach(_) | Message::Drain { .. } | Message::Draining { .. } | Message::Broadcast(_)
        );
        let is_of_4 = matches!(message, Message::Request { .. });
        let version = if is_of_4 { 4 } else { 2 + u8::from(is_of_3) };
        assert_eq!(encode(from(), &message)[2], version, "{message:?}");
    }
}

#[test]
fn a_later_version_may_say_more_of_itself() {
    let vitals = Vitals { version: 5, listening: LISTENING, standing: Some(STANDING), ..Vitals::default() };
    let mut bytes = encode(from(), &Message::Vitals(vitals)).to_vec();
    bytes[16] += 4;
    bytes.extend(b"more");
    assert_eq!(decode(bytes.into()), Ok(Envelope { from: from(), message: Message::Vitals(vitals) }));
}

#[test]
fn every_message_comes_back() {
    for message in every_message() {
        let bytes = encode(from(), &message);
        assert_eq!(decode(bytes), Ok(Envelope { from: from(), message }));
    }
}

#[test]
fn every_prefix_is_truncated_and_what_follows_is_invalid() {
    for message in every_message() {
        let bytes = encode(from(), &message);
        // The frames reach to the end, however early that is.
        let is_broadcast = matches!(message, Message::Broadcast(_));
        let end = if is_broadcast { bytes.len() - 4 } else { bytes.len() };
        for len in 0..end {
            let error = decode(bytes.slice(..len)).unwrap_err();
            let expected = if len < 2 { WireError::Foreign } else { WireError::Truncated };
            assert_eq!(error, expected, "{message:?} at {len}");
        }
        if !is_broadcast {
            assert_eq!(decode([&bytes[..], b"x"].concat().into()), Err(WireError::Invalid));
        }
    }
}

#[test]
fn what_is_foreign_or_of_another_version_is_told_apart() {
    assert_eq!(decode(Bytes::from_static(b"hello")), Err(WireError::Foreign));
    assert_eq!(decode(Bytes::from_static(b"RC\x05\0aaaa")), Err(WireError::Version));
    assert_eq!(decode(Bytes::from_static(b"RC\0\0aaaa")), Err(WireError::Version));
    assert_eq!(decode(Bytes::from_static(b"RC\x02\0aaaa\0\0\0\0\0\0\0\0")), Err(WireError::Invalid));
    assert_eq!(decode(Bytes::from_static(b"RC\x01\x63aaaa\0\0\0\0\0\0\0\0")), Err(WireError::Invalid));
    assert_eq!(decode(Bytes::from_static(b"RC\x01\0aa a\0\0\0\0\0\0\0\0")), Err(WireError::Invalid));
}

#[test]
fn a_list_that_says_to_be_longer_than_the_message_allocates_nothing() {
    let mut bytes =
        encode(from(), &Message::Response { id: 1, last: true, answer: Answer::Asked(vec![]) }).to_vec();
    let at = bytes.len() - 4;
    bytes[at..].copy_from_slice(&u32::MAX.to_le_bytes());
    assert_eq!(decode(bytes.into()), Err(WireError::Truncated));
}

proptest! {
    #[test]
    fn any_bytes_decode_to_something(version in 1_u8..=VERSION, kind in 0_u8..52, body in proptest::collection::vec(any::<u8>(), 0..200)) {
        let mut bytes = encode(from(), &Message::Hello).to_vec();
        (bytes[2], bytes[3]) = (version, kind);
        bytes.extend(body);
        let _ = decode(bytes.into());
    }

    #[test]
    fn any_change_of_a_message_decodes_to_something(
        which in 0..every_message().len(),
        changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8),
    ) {
        let mut bytes = encode(from(), &every_message()[which]).to_vec();
        for (at, byte) in changes {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        if let Ok(envelope) = decode(bytes.into()) {
            // What was understood can be said again.
            prop_assert_eq!(decode(encode(envelope.from, &envelope.message)), Ok(envelope));
        }
    }
}

/// The bytes of a list of rooms, and of the question for it.
#[test]
fn rooms_golden_bytes() {
    use crate::cluster::directory::Listed;
    let query = |after| Query::Rooms { namespace: "/".into(), after, limit: 10 };
    let listed = Listed {
        rooms: vec![("r".into(), 2)],
        age: Duration::from_millis(70),
        missing: vec!["dead".parse().unwrap()],
    };
    let answer = Message::Response { id: 3, last: true, answer: Answer::Listed(listed) };
    let cases = [
        (Message::Query { id: 3, query: query(None) }, "030000000000000002010000002f000a000000"),
        (
            Message::Query { id: 3, query: query(Some("r".into())) },
            "030000000000000002010000002f0101000000720a000000",
        ),
        (answer, "03000000000000000107010000000100000072020000000000000046000000000000000100000064656164"),
    ];
    for (message, contents) in cases {
        let bytes = encode(from(), &message);
        let hex: String = bytes[16..].iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(hex, contents, "{message:?}");
        for end in 16..bytes.len() {
            assert!(decode(bytes.slice(..end)).is_err(), "{message:?} {end}");
        }
        assert_eq!(decode(bytes).unwrap().message, message);
    }
}

/// The bytes of where a node is reached.
#[test]
fn reach_golden_bytes() {
    let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let key = "aa".repeat(32);
    let bytes = encode(from(), &Message::Reach(reach("10.1.2.3:3002")));
    assert_eq!(hex(&bytes[..4]), "52430328");
    assert_eq!(hex(&bytes[16..]), format!("27000000040a010203ba0b{key}"));
    let bytes = encode(from(), &Message::Reach(reach("[fd00::1]:3002")));
    assert_eq!(hex(&bytes[16..]), format!("3300000006fd000000000000000000000000000001ba0b{key}"));
    for nowhere in ["0.0.0.0:1", "[::]:1", "224.0.0.1:1", "10.1.2.3:0"] {
        assert_eq!(decode(encode(from(), &Message::Reach(reach(nowhere)))), Err(WireError::Invalid));
    }
    // A later version may say more.
    let mut bytes = encode(from(), &Message::Reach(reach("10.1.2.3:3002"))).to_vec();
    bytes[16] += 4;
    bytes.extend(b"more");
    assert_eq!(decode(bytes.into()).unwrap().message, Message::Reach(reach("10.1.2.3:3002")));
}

/// The bytes of what concerns the process behind a node.
#[test]
fn host_golden_bytes() {
    let (delay, period) = (Duration::from_millis(3), Duration::from_millis(0x0102));
    let unsaid = "ff".repeat(8);
    let vitals = Vitals { version: 3, listening: LISTENING, standing: Some(STANDING), ..Vitals::default() };
    let cases = [
        (
            Message::Vitals(vitals),
            "0207",
            format!("2700000003{}0300400000020201000000000000", "00".repeat(24)),
        ),
        (
            Message::Drain { id: 3, order: DrainOrder { delay: Some(delay), period: Some(period) } },
            "032c",
            "030000000000000003000000000000000201000000000000".to_owned(),
        ),
        (
            Message::Drain { id: 3, order: DrainOrder::default() },
            "032c",
            format!("0300000000000000{unsaid}{unsaid}"),
        ),
        (
            Message::Draining { id: 3, drains: Drains { already: true, connections: 2 } },
            "032d",
            "0300000000000000010200000000000000".to_owned(),
        ),
    ];
    for (message, head, contents) in cases {
        let bytes = encode(from(), &message);
        let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        assert_eq!(hex(&bytes[2..4]), head);
        assert_eq!(hex(&bytes[16..]), contents, "{message:?}");
        assert_eq!(decode(bytes).unwrap().message, message);
    }
}

/// The bytes of what is said about calls that are carried out once.
#[test]
fn once_golden_bytes() {
    use crate::once::{Claimant, OnceKey, Progress, Record, Verdict};
    let key = OnceKey { call: [0xaa; 32], body: [0xbb; 16] };
    let claimant = Claimant { node: "ab-_".parse().unwrap(), number: 5 };
    let record = |progress| Record { key, claimant, progress, left: 7 };
    let (call, body) = ("aa".repeat(32), "bb".repeat(16));
    let who = "61622d5f05000000000000000700000000000000";
    let cases = [
        (Message::Claim { id: 3, key }, 32, format!("0300000000000000{call}{body}")),
        (Message::Claimed { id: 3, verdict: Verdict::Granted }, 33, "030000000000000000".to_owned()),
        (
            Message::Claimed { id: 3, verdict: Verdict::Before(Some("x".into())) },
            33,
            "030000000000000001010100000078".to_owned(),
        ),
        (Message::Claimed { id: 3, verdict: Verdict::Before(None) }, 33, "03000000000000000100".to_owned()),
        (Message::Claimed { id: 3, verdict: Verdict::Busy }, 33, "030000000000000002".to_owned()),
        (Message::Claimed { id: 3, verdict: Verdict::Other }, 33, "030000000000000003".to_owned()),
        (
            Message::Settled(vec![
                record(Progress::InHand),
                record(Progress::Done(Some("x".into()))),
                record(Progress::Failed),
            ]),
            34,
            format!("03000000{call}{body}{who}00{call}{body}{who}01010100000078{call}{body}{who}02"),
        ),
    ];
    for (message, kind, contents) in cases {
        let bytes = encode(from(), &message);
        let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        assert_eq!(hex(&bytes[..4]), format!("524302{kind:02x}"));
        assert_eq!(hex(&bytes[16..]), contents, "{message:?}");
        for end in 16..bytes.len() {
            assert!(decode(bytes.slice(..end)).is_err(), "{message:?} {end}");
        }
        assert_eq!(decode(bytes).unwrap().message, message);
    }
}
