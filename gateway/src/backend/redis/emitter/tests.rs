//! The bytes that emitters and servers of Socket.IO were seen to publish, and what must not be taken for such.

use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;
use proptest::prelude::*;
use roomcast_adapter::redis::RedisListener as _;
use roomcast_adapter::{Adapter, AdapterFactory, Selector};
use roomcast_protocol::socketio::Args;

use super::message::{Dropped, Emit, Request, broadcast, request};
use super::{Emitter, literal};
use crate::Io;
use crate::backend::{Node, NodeStats, Phase};
use crate::metrics::Metrics;

const MAX_ATTACHMENTS: usize = 10;

/// Captured from @socket.io/redis-emitter 5.1.0 and @socket.io/redis-adapter 8.3.0.
const EMITTER_EMIT: &str = "93a7656d697474657283a47479706502a46461746193a26576ab66726f6d456d6974746572c40109a36e7370a12f83a5726f6f6d7391a5726f6f6d31a5666c61677380a665786365707490";
const SERVER_TEXT: &str = "93a636743667365883a47479706502a46461746193a26576a16101a36e7370a12f83a5726f6f6d7390a665786365707490a5666c61677380";
const SERVER_BINARY_DATE_UNDEFINED: &str = "93a636743667365883a47479706502a46461746197a26576c403010203d6ff39457980c0cb3ff8000000000000f981a16bc0a36e7370a12f83a5726f6f6d7391a5726f6f6d31a665786365707490a5666c61677380";
const SERVER_FLAGS: &str = "93a636743667365883a47479706502a46461746192a26576a178a36e7370a12f83a5726f6f6d7392a5726f6f6d31a5726f6f6d32a665786365707491a27233a5666c61677382a8766f6c6174696c65c3a8636f6d7072657373c2";
const SERVER_ACK_REQUEST: &str = "85a3756964a6367436673658a9726571756573744964a62d4a6255356ea47479706507a67061636b657483a47479706502a46461746192a26576a171a36e7370a12fa46f70747383a5726f6f6d7390a665786365707490a5666c61677381a774696d656f7574cd01f4";
/// A server of the streams adapter on the same channel.
const STREAMS_FETCH: &str = "84a47479706507a46461746182a46f70747383a5726f6f6d7391a5726f6f6d31a665786365707490a5666c61677380a9726571756573744964b035643239303930316432396331333462a3756964b065666130313161333934393564363933a36e7370a12f";

fn bytes(hex: &str) -> Bytes {
    let byte = |at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap();
    (0..hex.len()).step_by(2).map(byte).collect()
}

fn here(selector: Selector) -> Selector {
    Selector { local: true, ..selector }
}

fn read(hex: &str) -> Result<Emit, Dropped> {
    broadcast(bytes(hex), "/", MAX_ATTACHMENTS)
}

#[test]
fn captured_broadcasts() {
    let emit = read(EMITTER_EMIT).unwrap();
    assert_eq!(emit.selector, here(Selector::rooms(["room1"])));
    assert_eq!((emit.name.as_str(), emit.volatile, emit.compress), ("ev", false, true));
    assert_eq!(emit.args.elements(), r#""fromEmitter",{"_placeholder":true,"num":0}"#);
    assert_eq!(emit.args.attachments(), [Bytes::from_static(&[9])]);

    let emit = read(SERVER_TEXT).unwrap();
    assert_eq!((emit.selector, emit.args.elements()), (here(Selector::all()), "\"a\",1"));

    let emit = read(SERVER_BINARY_DATE_UNDEFINED).unwrap();
    let expected = r#"{"_placeholder":true,"num":0},"2000-06-13T00:00:00.000Z",null,1.5,-7,{"k":null}"#;
    assert_eq!(emit.args.elements(), expected);
    assert_eq!(emit.args.attachments(), [Bytes::from_static(&[1, 2, 3])]);

    let emit = read(SERVER_FLAGS).unwrap();
    let mut expected = here(Selector::rooms(["room1", "room2"]));
    expected.except = vec!["r3".into()];
    assert_eq!((emit.selector, emit.volatile, emit.compress), (expected, true, false));
}

/// `[uid, {type, data, nsp}, options]`, as ports in other languages have it.
fn written(packet: rmpv::Value, options: rmpv::Value) -> Bytes {
    let message = rmpv::Value::Array(vec!["emitter".into(), packet, options]);
    let mut out = Vec::new();
    rmpv::encode::write_value(&mut out, &message).unwrap();
    out.into()
}

fn map(entries: Vec<(&str, rmpv::Value)>) -> rmpv::Value {
    rmpv::Value::Map(entries.into_iter().map(|(key, value)| (key.into(), value)).collect())
}

fn list(items: Vec<rmpv::Value>) -> rmpv::Value {
    rmpv::Value::Array(items)
}

#[test]
fn what_older_emitters_leave_out_or_write_differently() {
    // No `except`, a flag for senders, another order of the keys, an event with binary as a type of its own.
    let packet = map(vec![("data", list(vec!["ev".into()])), ("nsp", "/".into()), ("type", 5.into())]);
    let options =
        map(vec![("flags", map(vec![("broadcast", true.into())])), ("rooms", list(vec!["a".into()]))]);
    let emit = broadcast(written(packet, options), "/", MAX_ATTACHMENTS).unwrap();
    assert_eq!((emit.selector, emit.volatile), (here(Selector::rooms(["a"])), false));
    // No namespace, no flags, rooms that are numbers; what a later version may add.
    let packet =
        map(vec![("type", 2.into()), ("data", list(vec!["ev".into()])), ("x", list(vec![1.into()]))]);
    let rooms = list(vec![42.into(), (-1).into(), 1.5.into(), 3.0.into()]);
    let options = map(vec![("rooms", rooms), ("except", rmpv::Value::Nil)]);
    let emit = broadcast(written(packet.clone(), options.clone()), "/", MAX_ATTACHMENTS).unwrap();
    assert_eq!(emit.selector, here(Selector::rooms(["42", "-1", "1.5", "3"])));
    assert_eq!(emit.args, Args::none());
    assert_eq!(broadcast(written(packet, options), "/chat", MAX_ATTACHMENTS), Err(Dropped::OtherNamespace));
    // PHP's empty object.
    let packet = map(vec![("type", 2.into()), ("data", list(vec!["ev".into()])), ("nsp", "/chat".into())]);
    let options = map(vec![("rooms", list(vec![])), ("flags", list(vec![]))]);
    let emit = broadcast(written(packet, options), "/chat", MAX_ATTACHMENTS).unwrap();
    assert_eq!(emit.selector, here(Selector::all()));
}

#[test]
fn broadcasts_that_are_none() {
    let event = || map(vec![("type", 2.into()), ("data", list(vec!["ev".into()]))]);
    let binary = list((0..12).map(|_| rmpv::Value::Binary(vec![1])).collect());
    let many = map(vec![("type", 2.into()), ("data", list(vec!["ev".into(), binary]))]);
    let cases = [
        (event(), rmpv::Value::Nil, Dropped::Malformed),
        (event(), map(vec![("rooms", "a".into())]), Dropped::Malformed),
        (event(), map(vec![("rooms", list(vec![list(vec![])]))]), Dropped::Malformed),
        (map(vec![("type", 3.into()), ("data", list(vec!["ev".into()]))]), map(vec![]), Dropped::Malformed),
        (map(vec![("type", 2.into())]), map(vec![]), Dropped::Malformed),
        (map(vec![("data", list(vec![]))]), map(vec![]), Dropped::Malformed),
        (many, map(vec![]), Dropped::Refused),
    ];
    for (packet, options, expected) in cases {
        let told = format!("{packet} {options}");
        assert_eq!(broadcast(written(packet, options), "/", MAX_ATTACHMENTS), Err(expected), "{told}");
    }
    // What a server of the streams adapter says on the same channel, JSON, and a message that goes on.
    for hex in [STREAMS_FETCH, "7b7d", "", &format!("{EMITTER_EMIT}00")] {
        assert_eq!(read(hex), Err(Dropped::Malformed), "{hex}");
    }
}

#[test]
fn captured_requests() {
    let rooms = |names: &[&str]| names.iter().map(|name| (*name).into()).collect::<Vec<_>>();
    let room1 = || here(Selector::rooms(["room1"]));
    let cases = [
        (
            r#"{"type":2,"opts":{"rooms":["room1"],"except":[]},"rooms":["zz"]}"#,
            Ok(Request::Join(room1(), rooms(&["zz"]))),
        ),
        (
            r#"{"uid":"6t6g6X","type":3,"opts":{"rooms":["room1"],"except":[]},"rooms":["r8",9]}"#,
            Ok(Request::Leave(room1(), rooms(&["r8", "9"]))),
        ),
        (
            r#"{"uid":"6t6g6X","type":4,"opts":{"rooms":["room1"],"except":[]},"close":true}"#,
            Ok(Request::Disconnect(room1(), true)),
        ),
        (
            r#"{"type":2,"sid":"Up93OBEZ2kdptp-PAAAA","room":"r"}"#,
            Ok(Request::Join(here(Selector::rooms(["Up93OBEZ2kdptp-PAAAA"])), rooms(&["r"]))),
        ),
        (
            r#"{"uid":"emitter","type":6,"data":["hello","em",{"a":1.50}]}"#,
            Ok(Request::ServerEvent(
                "hello".to_owned(),
                Args::from_json_array(r#"["em",{"a":1.50}]"#, Vec::new()).unwrap(),
            )),
        ),
        (r#"{"uid":"6t6g6X","requestId":"8wp92i","type":6,"data":["hello","w"]}"#, Err(Dropped::Unsupported)),
        (r#"{"uid":"6t6g6X","requestId":"RZu8nm","type":1}"#, Err(Dropped::Unsupported)),
        (
            r#"{"uid":"6t6g6X","requestId":"oDwgm9","type":5,"opts":{"rooms":["room1"],"except":[]}}"#,
            Err(Dropped::Unsupported),
        ),
        // Nobody is meant, and not everybody.
        (r#"{"type":4,"close":true}"#, Err(Dropped::Malformed)),
        (r#"{"type":4,"sid":"","close":true}"#, Err(Dropped::Malformed)),
        (r#"{"type":6,"data":[]}"#, Err(Dropped::Malformed)),
        (r#"{"type":6,"data":[{}]}"#, Err(Dropped::Malformed)),
        (r#"{"type":99}"#, Err(Dropped::Malformed)),
        (r#"{"type":"#, Err(Dropped::Malformed)),
        ("", Err(Dropped::Malformed)),
    ];
    for (json, expected) in cases {
        assert_eq!(request(json.as_bytes()), expected, "{json}");
    }
    assert_eq!(request(&bytes(SERVER_ACK_REQUEST)), Err(Dropped::Unsupported));
}

#[test]
fn patterns_match_their_namespace_only() {
    assert_eq!(literal("/a*b?[c]\\"), "/a\\*b\\?\\[c\\]\\\\");
    assert_eq!(literal("/plain-name#1"), "/plain-name#1");
}

/// A node without a cluster.
struct TestNode(Io);

impl Node for TestNode {
    fn adapter(&self, namespace: &str) -> Option<Arc<dyn Adapter>> {
        self.0.get(namespace).map(|namespace| Arc::clone(namespace.adapter()))
    }

    fn server_side_event(&self, namespace: &str, name: &str, args: Args) {
        if let Some(namespace) = self.0.get(namespace) {
            namespace.server_side_event(name, args);
        }
    }

    fn factory(&self) -> &Arc<dyn AdapterFactory> {
        self.0.factory()
    }

    fn phase(&self) -> Phase {
        Phase::Serving
    }

    fn connections(&self) -> usize {
        self.0.connection_count()
    }

    fn metrics(&self) -> &Arc<Metrics> {
        self.0.metrics()
    }

    fn stats(&self) -> NodeStats {
        NodeStats::default()
    }
}

fn emitter(io: &Io) -> Emitter {
    let node: Arc<dyn Node> = Arc::new(TestNode(io.clone()));
    Emitter::new(&node, "socket.io", ["/".into(), "/a".into(), "/a#b".into()], MAX_ATTACHMENTS)
}

#[test]
fn server_events_reach_listeners_and_everything_is_counted() {
    let io = Io::new();
    let heard = Arc::new(Mutex::new(Vec::new()));
    let hearing = Arc::clone(&heard);
    io.of("/").on_server_event(move |_, name, args, reply| {
        assert!(reply.is_none());
        hearing.lock().push((name.to_owned(), args.elements().to_owned()));
    });
    let emitter = emitter(&io);
    let event = r#"{"uid":"emitter","type":6,"data":["hello","em"]}"#;
    let say = |pattern: &str, payload: Bytes| emitter.message(pattern, "", payload);
    say("socket.io-request#/#", event.into());
    assert_eq!(*heard.lock(), [("hello".to_owned(), "\"em\"".to_owned())]);
    say("socket.io#/#*", bytes(EMITTER_EMIT));
    say("socket.io#/#*", Bytes::from_static(b"nonsense"));
    // The namespace of the message counts, not that of a pattern that happens to match its channel too.
    say("socket.io#/a#*", bytes(EMITTER_EMIT));
    say("unknown", Bytes::new());
    let reserved = EMITTER_EMIT.replace("93a26576", "93aa646973636f6e6e656374");
    say("socket.io#/#*", bytes(&reserved));
    let text = io.metrics().render();
    for (result, count) in [("done", 2), ("malformed", 1), ("other_namespace", 1), ("refused", 1)] {
        let series = format!(
            "roomcast_ingest_messages_total{{result=\"{result}\",source=\"redis_emitter\"}} {count}\n"
        );
        assert!(text.contains(&series), "{series} in {text}");
    }
}

proptest! {
    #[test]
    fn nothing_that_is_read_ends_a_node(mut payload in proptest::collection::vec(any::<u8>(), 0..300)) {
        let _ = broadcast(payload.clone().into(), "/", MAX_ATTACHMENTS);
        let _ = request(&payload);
        payload.insert(0, b'{');
        let _ = request(&payload);
    }

    /// Real messages with bytes that were changed, lost or added.
    #[test]
    fn spoilt_messages_do_not_either(
        which in 0usize..4,
        edits in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>(), 0u8..3), 1..6),
    ) {
        let hex = [EMITTER_EMIT, SERVER_TEXT, SERVER_BINARY_DATE_UNDEFINED, SERVER_FLAGS][which];
        let mut payload = bytes(hex).to_vec();
        for (at, byte, how) in edits {
            let at = at.index(payload.len());
            match how {
                0 => payload[at] = byte,
                1 => payload.insert(at, byte),
                _ if payload.len() > 1 => drop(payload.remove(at)),
                _ => {}
            }
        }
        if let Ok(emit) = broadcast(payload.into(), "/", MAX_ATTACHMENTS) {
            let text = format!("[{}]", emit.args.elements());
            prop_assert!(serde_json::from_str::<serde_json::Value>(&text).is_ok());
            prop_assert!(emit.selector.local);
        }
    }
}
