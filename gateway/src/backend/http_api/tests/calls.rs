//! What the calls do beyond `emit`: batches, acks, servers, single sockets, repetitions, formats.

use std::sync::atomic::Ordering;
use std::time::Duration;

use roomcast_adapter::{AckEvent, SocketId};
use roomcast_protocol::socketio::Args;

use super::node::tag;
use super::*;

fn id(last: char) -> SocketId {
    format!("{}{last}", "A".repeat(19)).parse().unwrap()
}

fn args(value: &str) -> Args {
    Args::from_serialize(&(value, 1)).unwrap()
}

/// Posts to a router that stays, with headers.
async fn send(router: &Router, path: &str, headers: &[(&str, &str)], body: impl Into<Body>) -> Answer {
    let mut request = Request::post(path);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    ask(router.clone(), request.body(body.into()).unwrap()).await
}

#[tokio::test]
async fn each_item_of_a_batch_is_judged_on_its_own() {
    let body = r#"{"items":[{"event":"a","to":"all"},{"event":"b"},{"event":"c","to":"all","namespace":"/nope"},7,
        {"event":"d","args":[{"z":1,"a":2}],"to":{"rooms":["x"]}}]}"#;
    let (answer, asked) = asked("/v1/emit/batch", body).await;
    assert_eq!(answer.status, StatusCode::OK);
    let body = answer.json();
    let results = body["results"].as_array().unwrap();
    let of = |at: usize| (results[at]["status"].as_u64().unwrap(), results[at]["problem"]["code"].as_str());
    let statuses: Vec<_> = (0..results.len()).map(of).collect();
    let invalid = Some("invalid_request");
    assert_eq!(
        statuses,
        [(202, None), (422, invalid), (404, Some("not_found")), (422, invalid), (202, None)]
    );
    assert_eq!(results[0]["id"].as_str().unwrap().len(), 16);
    assert!(results[1].get("id").is_none() && results[0].get("problem").is_none());
    let packets: Vec<_> = asked
        .iter()
        .map(|asked| match asked {
            Asked::Broadcast(_, outgoing) => {
                let mut records = Vec::new();
                outgoing.packet.write_records(&mut records);
                String::from_utf8(records).unwrap()
            }
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(packets, [r#"42["a"]"#, r#"42["d",{"z":1,"a":2}]"#]);

    let many = |count| {
        let items = vec![json!({ "event": "e", "to": "all" }); count];
        json!({ "items": items }).to_string()
    };
    assert_eq!(post("/v1/emit/batch", &many(1_000)).await.json()["results"].as_array().unwrap().len(), 1_000);
    post("/v1/emit/batch", &many(1_001)).await.is_problem(422, "invalid_request");
    let broken = call(TestNode::without_broker(), Method::POST, "/v1/emit/batch", &many(1)).await.json();
    assert_eq!(broken["results"][0]["problem"]["code"], "broker_unavailable");
}

fn acks() -> Vec<AckEvent> {
    vec![
        AckEvent::Asked(vec![id('A'), id('B'), id('C')]),
        AckEvent::Ack(id('B'), args("b")),
        AckEvent::Gone(id('C')),
        AckEvent::Ack(id('B'), args("again")),
        AckEvent::LostNode(tag("BBBB")),
        AckEvent::Ack(id('A'), Args::from_serialize(&(serde_bytes(),)).unwrap()),
        AckEvent::Asked(vec![id('D')]),
    ]
}

/// Three bytes that serialize as such.
fn serde_bytes() -> bytes::Bytes {
    bytes::Bytes::from_static(b"\x01\x02\x03")
}

const ASK: &str = r#"{"event":"ask","args":["?"],"to":{"rooms":["a"]},"timeout":250}"#;

#[tokio::test]
async fn acks_come_with_who_did_not_answer() {
    let node = TestNode::with_acks(acks());
    let adapter = Arc::clone(&node.adapter);
    let answer = call(node, Method::POST, "/v1/request", ASK).await;
    assert_eq!(answer.status, StatusCode::OK, "{}", answer.text);
    let expected = json!({
        "acks": [{ "socket": id('B'), "args": ["b", 1] }, { "socket": id('A'), "args": [{ "$bin": "AQID" }] }],
        "expected": 4, "received": 2, "timed_out": [id('C'), id('D')], "lost_nodes": ["BBBB"],
    });
    assert_eq!(answer.json(), expected);
    let asked = adapter.asked.lock().clone();
    let [Asked::Ask(to, name, args, timeout)] = asked.as_slice() else { panic!("{asked:?}") };
    assert_eq!((to, name.as_str(), args.elements()), (&Selector::rooms(["a"]), "ask", "\"?\""));
    assert_eq!(*timeout, Duration::from_millis(250));

    for (expect, received) in [(r#""first""#, 1), ("1", 1), ("2", 2), ("9", 2), (r#""all""#, 2), ("null", 2)]
    {
        let body = format!(r#"{{"event":"e","to":"all","expect":{expect}}}"#);
        let answer = call(TestNode::with_acks(acks()), Method::POST, "/v1/request", &body).await.json();
        assert_eq!(answer["received"], received, "{expect}");
        // Whoever was not waited for has not timed out.
        let enough = received == 1 || expect == "2";
        assert_eq!(answer["timed_out"].as_array().unwrap().is_empty(), enough, "{expect}");
    }
    for wrong in
        [r#""expect":0"#, r#""expect":"some""#, r#""expect":[]"#, r#""timeout":0"#, r#""timeout":60001"#]
    {
        let body = format!(r#"{{"event":"e","to":"all",{wrong}}}"#);
        post("/v1/request", &body).await.is_problem(422, "invalid_request");
    }
    post("/v1/request", r#"{"event":"e"}"#).await.is_problem(422, "invalid_request");
}

#[tokio::test]
async fn acks_come_by_lines_as_they_come() {
    let lines = [("accept", "application/x-ndjson")];
    let router = router(Arc::new(TestNode::with_acks(acks())), settings());
    let answer = send(&router, "/v1/request", &lines, ASK).await;
    assert_eq!(answer.headers[header::CONTENT_TYPE], "application/x-ndjson");
    let lines: Vec<Value> = answer.text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines.len(), 3);
    assert_eq!(lines[0], json!({ "socket": id('B'), "args": ["b", 1] }));
    assert_eq!((&lines[2]["done"], &lines[2]["received"]), (&json!(true), &json!(2)));
    let keyed = [("accept", "application/x-ndjson"), ("idempotency-key", "k")];
    send(&router, "/v1/request", &keyed, ASK).await.is_problem(422, "invalid_request");
    send(&router, "/v1/request", &[("accept", "application/x-ndjson")], "{}")
        .await
        .is_problem(422, "invalid_request");
}

#[tokio::test]
async fn a_caller_that_goes_away_cancels_the_request() {
    for accept in ["application/x-ndjson", "application/json"] {
        let node = TestNode::new();
        let cancelled = Arc::clone(&node.adapter.cancelled);
        let adapter = Arc::clone(&node.adapter);
        let request = Request::post("/v1/request").header("accept", accept).body(Body::from(ASK)).unwrap();
        let answer = router(Arc::new(node), settings()).oneshot(request);
        let mut answer = Box::pin(answer);
        let begun = futures_util::poll!(&mut answer);
        assert_eq!(adapter.asked.lock().len(), 1);
        assert!(!cancelled.load(Ordering::Acquire));
        drop((begun, answer));
        assert!(cancelled.load(Ordering::Acquire), "{accept}");
    }
}

#[tokio::test]
async fn servers_are_emitted_to() {
    let (answer, seen) = asked("/v1/server-emit", r#"{"event":"reload","args":[1]}"#).await;
    assert_eq!(answer.status, StatusCode::ACCEPTED);
    assert_eq!(answer.json().as_object().unwrap().len(), 1);
    assert!(
        matches!(seen.as_slice(), [Asked::ServerEvent(name, args)] if name == "reload" && args.elements() == "1")
    );
    let node = TestNode::with_silent_neighbour();
    let answer = call(node, Method::POST, "/v1/server-emit", r#"{"event":"ping","ack":true}"#).await;
    assert_eq!(answer.status, StatusCode::OK);
    let body = answer.json();
    assert_eq!((&body["acks"], &body["missing_nodes"]), (&json!([["pong", 1]]), &json!(["BBBB"])));
    post("/v1/server-emit", r#"{"event":""}"#).await.is_problem(422, "invalid_request");
}

#[tokio::test]
async fn rooms_come_in_pages() {
    let mut first = get(TestNode::with_silent_neighbour(), "/v1/rooms?limit=2&namespace=/chat").await.json();
    assert!(first.as_object_mut().unwrap().remove("as_of").is_some());
    let rooms = json!([{ "room": "a", "sockets": 1 }, { "room": "order:1", "sockets": 2 }]);
    let expected = json!({
        "namespace": "/chat", "rooms": rooms, "cursor": "order:1", "exact": false, "missing_nodes": ["BBBB"],
    });
    assert_eq!(first, expected);
    let last = get(TestNode::new(), "/v1/rooms?limit=2&cursor=order%3A1").await.json();
    assert_eq!((last["rooms"].as_array().unwrap().len(), last.get("cursor")), (1, None));
    assert_eq!(last["exact"], true);
    get(TestNode::new(), "/v1/rooms?limit=0").await.is_problem(422, "invalid_request");
}

#[tokio::test]
async fn one_socket_is_shown() {
    let answer = get(TestNode::new(), &format!("/v1/sockets/{}?namespace=chat", id('A'))).await;
    let expected = json!({ "namespace": "/chat", "node": "AAAA", "id": id('A'), "rooms": [id('A'), "a"], "data": { "n": 1 } });
    assert_eq!((answer.status, answer.json()), (StatusCode::OK, expected));
    get(TestNode::new(), &format!("/v1/sockets/{}", id('B'))).await.is_problem(404, "not_found");
    get(TestNode::new(), "/v1/sockets/short").await.is_problem(422, "invalid_request");
    let there = "BBBBAAAAAAAAAAAAAAAA";
    get(TestNode::new(), &format!("/v1/sockets/{there}")).await.is_problem(404, "not_found");
    let silent = TestNode::with_silent_neighbour();
    get(silent, &format!("/v1/sockets/{there}")).await.is_problem(503, "broker_unavailable");
}

#[tokio::test]
async fn the_sockets_of_a_user_are_listed_and_disconnected() {
    let page = get(TestNode::new(), "/v1/users/u%2F7/sockets?limit=2").await.json();
    assert_eq!((&page["room"], page["sockets"].as_array().unwrap().len()), (&json!("user:u/7"), 2));
    assert!(page["cursor"].is_string());
    get(TestNode::new(), "/v1/users/u7/sockets?limits=2").await.is_problem(422, "invalid_request");

    let node = TestNode::with_silent_neighbour();
    let adapter = Arc::clone(&node.adapter);
    let answer = call(node, Method::DELETE, "/v1/users/u7/sockets?close=true&reason=banned", "").await;
    assert_eq!((answer.status, &answer.json()["missing_nodes"]), (StatusCode::OK, &json!(["BBBB"])));
    let asked = adapter.asked.lock().clone();
    assert!(matches!(asked.as_slice(), [Asked::Disconnect(to, true)] if *to == Selector::rooms(["user:u7"])));
}

#[tokio::test]
async fn a_node_is_told_to_drain() {
    for (body, already) in [("", false), ("{}", false), (r#"{"delay":"1s","period":"2m"}"#, true)] {
        let answer = post("/v1/nodes/BBBB/drain", body).await;
        assert_eq!(answer.status, StatusCode::OK, "{body}");
        let expected = json!({ "node": "BBBB", "state": "draining", "already": already, "connections": 7 });
        assert_eq!(answer.json(), expected);
    }
    for nobody in ["none", "much-too-long", "%C3%A9"] {
        post(&format!("/v1/nodes/{nobody}/drain"), "").await.is_problem(404, "not_found");
    }
    post("/v1/nodes/CCCC/drain", "").await.is_problem(409, "node_too_old");
    post("/v1/nodes/AAAA/drain", "").await.is_problem(503, "broker_unavailable");
    for body in [r#"{"period":"soon"}"#, r#"{"period":60}"#, r#"{"delay":"25h"}"#, r#"{"rate":1}"#] {
        post("/v1/nodes/BBBB/drain", body).await.is_problem(422, "invalid_request");
    }
    get(TestNode::new(), "/v1/nodes/BBBB/drain").await.is_problem(405, "method_not_allowed");
}

#[tokio::test]
async fn a_call_with_a_key_is_carried_out_once() {
    let node = TestNode::new();
    let adapter = Arc::clone(&node.adapter);
    let router = router(Arc::new(node), settings());
    let key = [("idempotency-key", "order-42")];
    let body = r#"{"event":"paid","to":"all"}"#;
    let (first, again) =
        tokio::join!(send(&router, "/v1/emit", &key, body), send(&router, "/v1/emit", &key, body));
    let (first, again) =
        if first.json().get("duplicate").is_some() { (again, first) } else { (first, again) };
    assert_eq!((first.status, again.status), (StatusCode::ACCEPTED, StatusCode::ACCEPTED));
    assert_eq!(first.json()["id"], again.json()["id"]);
    assert_eq!((first.json().get("duplicate"), &again.json()["duplicate"]), (None, &json!(true)));
    assert_eq!(adapter.asked.lock().len(), 1);

    let other = r#"{"event":"paid","to":{"rooms":["a"]}}"#;
    send(&router, "/v1/emit", &key, other).await.is_problem(409, "idempotency_mismatch");
    send(&router, "/v1/request", &key, body).await.is_problem(409, "idempotency_mismatch");
    assert_eq!(adapter.asked.lock().len(), 1);
    let fresh = send(&router, "/v1/emit", &[("idempotency-key", "order-43")], body).await.json();
    assert_ne!(fresh["id"], first.json()["id"]);
    for wrong in ["", &"k".repeat(256)] {
        send(&router, "/v1/emit", &[("idempotency-key", wrong)], body)
            .await
            .is_problem(422, "invalid_request");
    }
}

#[tokio::test]
async fn a_call_that_failed_is_not_remembered() {
    let node = TestNode::without_broker();
    let adapter = Arc::clone(&node.adapter);
    let router = router(Arc::new(node), settings());
    for count in 1..=2 {
        let key = [("idempotency-key", "k")];
        let answer = send(&router, "/v1/emit", &key, r#"{"event":"e","to":"all"}"#).await;
        answer.is_problem(503, "broker_unavailable");
        assert_eq!(adapter.asked.lock().len(), count);
    }
}

#[tokio::test]
async fn messagepack_carries_binary_both_ways() {
    let node = TestNode::with_acks(acks());
    let adapter = Arc::clone(&node.adapter);
    let router = router(Arc::new(node), settings());
    // {"event":"e","args":[bin 01 02 03],"to":"all"}
    let body = b"\x83\xa5event\xa1e\xa4args\x91\xc4\x03\x01\x02\x03\xa2to\xa3all".as_slice();
    let headers = [("content-type", "application/msgpack"), ("accept", "application/msgpack")];
    let mut request = Request::post("/v1/request");
    for (name, value) in headers {
        request = request.header(name, value);
    }
    let response = router.clone().oneshot(request.body(Body::from(body)).unwrap()).await.unwrap();
    assert_eq!(response.headers()[header::CONTENT_TYPE], "application/msgpack");
    let bytes = response.into_body().collect().await.unwrap().to_bytes();
    assert!(bytes.windows(5).any(|part| part == b"\xc4\x03\x01\x02\x03"), "{bytes:x?}");
    let asked = adapter.asked.lock().clone();
    let [Asked::Ask(_, _, args, _)] = asked.as_slice() else { panic!("{asked:?}") };
    assert_eq!(args.attachments(), [serde_bytes()]);

    let emit = send(&router, "/v1/emit", &headers[..1], body).await;
    assert_eq!(
        (emit.status, &emit.headers[header::CONTENT_TYPE]),
        (StatusCode::ACCEPTED, &"application/json".parse().unwrap())
    );
    let refused = send(&router, "/v1/emit", &headers, b"\xc1".as_slice()).await;
    refused.is_problem(400, "invalid_request");
}

#[tokio::test]
async fn a_trace_comes_back() {
    let trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let router = router(Arc::new(TestNode::new()), settings());
    let body = r#"{"event":"e","to":"all"}"#;
    let answer = send(&router, "/v1/emit", &[("traceparent", trace)], body).await;
    assert_eq!(answer.headers["traceparent"], trace);
    let refused = send(&router, "/v1/emit", &[("traceparent", trace)], "{").await;
    assert_eq!(refused.headers["traceparent"], trace);
    let none = send(&router, "/v1/emit", &[("traceparent", "00-xyz")], body).await;
    assert_eq!((none.status, none.headers.get("traceparent")), (StatusCode::ACCEPTED, None));
}
