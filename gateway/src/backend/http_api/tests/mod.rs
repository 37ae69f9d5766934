//! Every call against a scripted adapter: what is asked of it, and what is answered.

mod callers;
mod calls;
mod console;
mod node;
mod openapi;

use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::http::{HeaderMap, Method, Request, StatusCode, header};
use http_body_util::BodyExt as _;
use roomcast_adapter::Selector;
use serde_json::{Value, json};
use tower::ServiceExt as _;

use self::node::{Asked, TestNode};
use super::{Callers, Settings, router};
use crate::backend::Phase;
use crate::config::{Config, Secret};

fn settings() -> Settings {
    let config = Config::default();
    Settings::new(&config, Callers::new(&config.api, &Arc::default()))
}

struct Answer {
    status: StatusCode,
    headers: HeaderMap,
    text: String,
}

impl Answer {
    fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|error| panic!("{error}: {}", self.text))
    }

    /// Checks that this is a problem with a status and a code.
    #[track_caller]
    fn is_problem(&self, status: u16, code: &str) {
        assert_eq!(self.status.as_u16(), status, "{}", self.text);
        assert_eq!(self.headers[header::CONTENT_TYPE], "application/problem+json");
        let problem = self.json();
        assert_eq!(problem["code"], code);
        assert_eq!(problem["status"], status);
        assert_eq!(problem["type"], "about:blank");
        assert!(!problem["detail"].as_str().unwrap().is_empty());
        assert!(problem["title"].is_string());
    }
}

async fn ask(router: Router, request: Request<Body>) -> Answer {
    let (parts, body) = router.oneshot(request).await.unwrap().into_parts();
    let text = String::from_utf8(body.collect().await.unwrap().to_bytes().to_vec()).unwrap();
    Answer { status: parts.status, headers: parts.headers, text }
}

async fn call(node: TestNode, method: Method, path: &str, body: &str) -> Answer {
    let request = Request::builder().method(method).uri(path).body(Body::from(body.to_owned())).unwrap();
    ask(router(Arc::new(node), settings()), request).await
}

async fn post(path: &str, body: &str) -> Answer {
    call(TestNode::new(), Method::POST, path, body).await
}

async fn get(node: TestNode, path: &str) -> Answer {
    call(node, Method::GET, path, "").await
}

/// Posts to a node of its own and gives what its adapter was asked.
async fn asked(path: &str, body: &str) -> (Answer, Vec<Asked>) {
    let node = TestNode::new();
    let adapter = Arc::clone(&node.adapter);
    let answer = call(node, Method::POST, path, body).await;
    let asked = adapter.asked.lock().clone();
    (answer, asked)
}

/// What an emit makes of a body: the selector, the packets as polling records, volatile, compress.
async fn emitted(body: &str) -> (Selector, String, bool, bool) {
    let (answer, asked) = asked("/v1/emit", body).await;
    assert_eq!(answer.status, StatusCode::ACCEPTED, "{body}: {}", answer.text);
    assert_eq!(answer.headers[header::CONTENT_TYPE], "application/json");
    assert_eq!(answer.json()["id"].as_str().unwrap().len(), 16);
    let [Asked::Broadcast(selector, outgoing)] = asked.as_slice() else { panic!("{asked:?}") };
    let mut records = Vec::new();
    outgoing.packet.write_records(&mut records);
    (selector.clone(), String::from_utf8(records).unwrap(), outgoing.volatile, outgoing.compress)
}

#[tokio::test]
async fn emit_golden_bodies() {
    let to_rooms = Selector::rooms(["order:42"]);
    let cases = [
        (
            r#"{"event":"paid","args":[{"z":1,"a":[2]}],"to":{"rooms":["order:42"]}}"#,
            r#"42["paid",{"z":1,"a":[2]}]"#,
        ),
        (r#"{"event":"paid","to":{"rooms":["order:42"]}}"#, r#"42["paid"]"#),
        (r#"{"namespace":"/","event":"p","args":[],"to":{"rooms":["order:42"]}}"#, r#"42["p"]"#),
        (
            r#"{"namespace":"/chat","event":"p","args":["é",null],"to":{"rooms":["order:42"]}}"#,
            "42/chat,[\"p\",\"é\",null]",
        ),
        (r#"{"namespace":"chat","event":"p","args":[1],"to":{"rooms":["order:42"]}}"#, r#"42/chat,["p",1]"#),
        (
            r#"{"event":"p","args":[{"file":{"$bin":"AQID"}},"x"],"to":{"rooms":["order:42"]}}"#,
            "451-[\"p\",{\"file\":{\"_placeholder\":true,\"num\":0}},\"x\"]\u{1e}bAQID",
        ),
        (
            r#"{"event":"p","args":[{"\u0024bin":"AQID"}],"to":{"rooms":["order:42"]}}"#,
            "451-[\"p\",{\"_placeholder\":true,\"num\":0}]\u{1e}bAQID",
        ),
        // No binary is meant here: it goes out as it came.
        (r#"{"event":"p","args":["$bin"],"to":{"rooms":["order:42"]}}"#, r#"42["p","$bin"]"#),
    ];
    for (body, packet) in cases {
        assert_eq!(emitted(body).await, (to_rooms.clone(), packet.to_owned(), false, true));
    }
}

#[tokio::test]
async fn emit_selectors_and_flags() {
    let all = r#"{"event":"e","to":"all","except":{"rooms":["r"],"users":["u7"],"sockets":["AAAAAAAAAAAAAAAAAAAA"]}}"#;
    let except = ["r", "user:u7", "AAAAAAAAAAAAAAAAAAAA"].map(Into::into).to_vec();
    assert_eq!(emitted(all).await.0, Selector { except, ..Selector::all() });
    let users = r#"{"event":"e","to":{"users":["u7"]},"except":{},"volatile":true,"compress":false}"#;
    assert_eq!(emitted(users).await, (Selector::rooms(["user:u7"]), r#"42["e"]"#.to_owned(), true, false));
}

#[tokio::test]
async fn what_no_emit_may_be_is_refused_before_anybody_is_reached() {
    let eleven = vec![json!({ "$bin": "" }); 11];
    let eleven = json!({ "event": "e", "to": "all", "args": eleven }).to_string();
    let cases = [
        (422, r#"{"event":"e"}"#),
        (422, r#"{"event":"e","to":null}"#),
        (422, r#"{"event":"e","to":{}}"#),
        (422, r#"{"event":"e","to":{"rooms":[],"users":[],"sockets":[]}}"#),
        (422, r#"{"event":"e","to":{"rooms":[""]}}"#),
        (422, r#"{"event":"e","to":"everybody"}"#),
        (422, r#"{"event":"e","to":{"sockets":["short"]}}"#),
        (422, r#"{"event":"e","to":"all","except":"all"}"#),
        (422, r#"{"to":"all"}"#),
        (422, r#"{"event":"","to":"all"}"#),
        (422, r#"{"event":1,"to":"all"}"#),
        (422, r#"{"event":"connect","to":"all"}"#),
        (422, r#"{"event":"disconnecting","to":"all"}"#),
        (422, r#"{"event":"newListener","to":"all"}"#),
        (422, r#"{"event":"e","to":"all","args":{"a":1}}"#),
        (422, r#"{"event":"e","to":"all","args":"x"}"#),
        (422, r#"{"event":"e","to":"all","argz":[]}"#),
        (422, r#"{"event":"e","to":"all","args":[{"$bin":"AQID"},{"_placeholder":true,"num":9}]}"#),
        (422, eleven.as_str()),
        (422, "[]"),
        (400, ""),
        (400, "event=e"),
        (400, r#"{"event":"e","to":"all""#),
        (400, r#"{"event":"e","to":"all","args":[01]}"#),
        (400, r#"{"event":"e","to":"all"} x"#),
    ];
    for (status, body) in cases {
        let (answer, asked) = asked("/v1/emit", body).await;
        answer.is_problem(status, "invalid_request");
        assert!(asked.is_empty(), "{body}");
    }
    post("/v1/emit", r#"{"namespace":"/nope","event":"e","to":"all"}"#).await.is_problem(404, "not_found");
}

#[tokio::test]
async fn bodies_are_bounded_and_json() {
    let send = |body: String, kind: &str| {
        let request =
            Request::post("/v1/emit").header(header::CONTENT_TYPE, kind).body(Body::from(body)).unwrap();
        ask(router(Arc::new(TestNode::new()), Settings { max_body: 64, ..settings() }), request)
    };
    let fits = r#"{"event":"e","to":"all"}"#;
    for kind in
        ["application/json", "Application/JSON; charset=utf-8", "application/vnd.x+json", "text/plain"]
    {
        assert_eq!(send(fits.to_owned(), kind).await.status, StatusCode::ACCEPTED, "{kind}");
    }
    send(" ".repeat(41) + fits, "application/json").await.is_problem(413, "payload_too_large");
    send(fits.to_owned(), "application/xml").await.is_problem(415, "unsupported_media_type");
    send(fits.to_owned(), "application/msgpack").await.is_problem(400, "invalid_request");
}

#[tokio::test]
async fn without_the_broker_calls_say_so() {
    let bodies = [
        ("/v1/emit", r#"{"event":"e","to":"all"}"#),
        ("/v1/join", r#"{"to":"all","rooms":["a"]}"#),
        ("/v1/leave", r#"{"to":"all","rooms":["a"]}"#),
        ("/v1/disconnect", r#"{"to":"all"}"#),
    ];
    for (path, body) in bodies {
        let answer = call(TestNode::without_broker(), Method::POST, path, body).await;
        answer.is_problem(503, "broker_unavailable");
    }
    let count = get(TestNode::without_broker(), "/v1/rooms/a").await;
    assert_eq!((count.status, &count.json()["exact"]), (StatusCode::OK, &json!(false)));
}

#[tokio::test]
async fn sockets_are_managed() {
    let to = r#""to":{"users":["u7"]},"except":{"rooms":["x"]}"#;
    let selector = Selector { except: vec!["x".into()], ..Selector::rooms(["user:u7"]) };
    let rooms = vec!["a".into(), "b".into()];

    let (answer, seen) = asked("/v1/join", &format!(r#"{{{to},"rooms":["a","b"]}}"#)).await;
    assert_eq!(answer.status, StatusCode::ACCEPTED);
    assert!(answer.json().get("missing_nodes").is_none());
    assert!(matches!(seen.as_slice(), [Asked::Join(to, of)] if *to == selector && *of == rooms), "{seen:?}");

    let (answer, seen) = asked("/v1/leave", &format!(r#"{{{to},"rooms":["a","b"]}}"#)).await;
    assert_eq!(answer.status, StatusCode::ACCEPTED);
    assert!(matches!(seen.as_slice(), [Asked::Leave(to, of)] if *to == selector && *of == rooms), "{seen:?}");

    let (answer, seen) =
        asked("/v1/disconnect", &format!(r#"{{{to},"close":true,"reason":"banned"}}"#)).await;
    assert_eq!(answer.status, StatusCode::ACCEPTED);
    assert!(matches!(seen.as_slice(), [Asked::Disconnect(to, true)] if *to == selector), "{seen:?}");

    for (path, body) in [
        ("/v1/join", r#"{"to":"all"}"#),
        ("/v1/join", r#"{"to":"all","rooms":[]}"#),
        ("/v1/leave", r#"{"to":"all","rooms":[""]}"#),
        ("/v1/leave", r#"{"rooms":["a"]}"#),
        ("/v1/disconnect", "{}"),
    ] {
        let (answer, seen) = asked(path, body).await;
        answer.is_problem(422, "invalid_request");
        assert!(seen.is_empty(), "{path} {body}");
    }
}

#[tokio::test]
async fn a_node_that_did_not_answer_is_named() {
    let node = TestNode::with_silent_neighbour();
    let answer = call(node, Method::POST, "/v1/join", r#"{"to":"all","rooms":["a"]}"#).await;
    assert_eq!((answer.status, &answer.json()["missing_nodes"]), (StatusCode::ACCEPTED, &json!(["BBBB"])));
    let count = get(TestNode::with_silent_neighbour(), "/v1/rooms/a").await.json();
    assert_eq!((&count["exact"], &count["missing_nodes"]), (&json!(false), &json!(["BBBB"])));
}

#[tokio::test]
async fn rooms_are_counted() {
    let node = TestNode::new();
    let adapter = Arc::clone(&node.adapter);
    let answer = get(node, "/v1/rooms/order%3A42%2Fx?namespace=%2Fchat").await;
    assert_eq!(answer.status, StatusCode::OK);
    let mut body = answer.json();
    let as_of = body.as_object_mut().unwrap().remove("as_of").unwrap();
    assert_eq!(as_of.as_str().unwrap().len(), "2026-11-22T00:00:00.000Z".len());
    let expected = json!({ "namespace": "/chat", "room": "order:42/x", "sockets": 7, "exact": true, "missing_nodes": [] });
    assert_eq!(body, expected);
    let asked = adapter.asked.lock().clone();
    assert!(matches!(asked.as_slice(), [Asked::Count(of)] if of == "order:42/x"));
    get(TestNode::new(), "/v1/rooms/a?namespace=/nope").await.is_problem(404, "not_found");
    get(TestNode::new(), "/v1/rooms/%ff").await.is_problem(422, "invalid_request");
}

#[tokio::test]
async fn sockets_of_a_room_come_in_pages() {
    let first = get(TestNode::new(), "/v1/rooms/a/sockets?limit=2").await.json();
    let socket = |id: &str| json!({ "id": id, "rooms": [id, "a"], "data": { "n": 1 } });
    let (one, two) = (socket("AAAAAAAAAAAAAAAAAAAA"), socket("AAAAAAAAAAAAAAAAAAAB"));
    let cursor = "AAAAAAAAAAAAAAAAAAAB";
    let expected = json!({ "namespace": "/", "room": "a", "sockets": [one, two], "cursor": cursor, "missing_nodes": [] });
    assert_eq!(first, expected);
    let path = format!("/v1/rooms/a/sockets?limit=2&cursor={cursor}");
    let last = get(TestNode::with_silent_neighbour(), &path).await.json();
    assert_eq!(last["sockets"], json!([socket("BBBBAAAAAAAAAAAAAAAA")]));
    assert_eq!((last.get("cursor"), &last["missing_nodes"]), (None, &json!(["BBBB"])));
    for wrong in ["limit=0", "limit=1001", "limit=x", "cursor=short"] {
        let path = format!("/v1/rooms/a/sockets?{wrong}");
        get(TestNode::new(), &path).await.is_problem(422, "invalid_request");
    }
    get(TestNode::new(), "/v1/rooms/a/sockets?namespace=/nope").await.is_problem(404, "not_found");
}

#[tokio::test]
async fn nodes_are_listed() {
    let answer = get(TestNode::new(), "/v1/nodes").await;
    let mut body = answer.json();
    for node in body["nodes"].as_array_mut().unwrap() {
        let as_of = node.as_object_mut().unwrap().remove("as_of").unwrap();
        assert_eq!(as_of.as_str().unwrap().len(), "2026-11-22T00:00:00.000Z".len());
    }
    let known = json!({ "id": "AAAA", "state": "draining", "connections": 2, "sockets": 3, "rooms": 2 });
    // One of an older version says less.
    let nodes = json!([known, { "id": "BBBB" }]);
    assert_eq!(body, json!({ "node": "AAAA", "nodes": nodes }));
}

#[tokio::test]
async fn unknown_paths_and_methods_are_problems() {
    get(TestNode::new(), "/v1/nope").await.is_problem(404, "not_found");
    get(TestNode::new(), "/").await.is_problem(404, "not_found");
    let answer = get(TestNode::new(), "/v1/emit").await;
    answer.is_problem(405, "method_not_allowed");
    assert_eq!(answer.headers[header::ALLOW], "POST");
}

#[tokio::test]
async fn keys_are_required_where_there_are_any() {
    let with_key = |path: &str, authorization: Option<&str>| {
        let keys = vec![Secret::new("0123456789abcdef"), Secret::new("another-long-secret")];
        let callers = Callers::new(&crate::config::Api { keys, ..Default::default() }, &Arc::default());
        let mut request = Request::get(path);
        if let Some(authorization) = authorization {
            request = request.header(header::AUTHORIZATION, authorization);
        }
        ask(
            router(Arc::new(TestNode::new()), Settings { callers, ..settings() }),
            request.body(Body::empty()).unwrap(),
        )
    };
    for path in ["/v1/nodes", "/v1/nope", "/console/stats"] {
        for wrong in
            [None, Some("Bearer 0123456789abcde"), Some("Basic 0123456789abcdef"), Some("0123456789abcdef")]
        {
            let answer = with_key(path, wrong).await;
            answer.is_problem(401, "unauthorized");
            assert_eq!(answer.headers[header::WWW_AUTHENTICATE], "Bearer realm=\"roomcast\"");
        }
    }
    assert_eq!(with_key("/v1/nodes", Some("Bearer 0123456789abcdef")).await.status, StatusCode::OK);
    assert_eq!(with_key("/v1/nodes", Some("bearer another-long-secret")).await.status, StatusCode::OK);
    for open in ["/livez", "/readyz", "/metrics", "/console", "/console/assets/main.js"] {
        assert_eq!(with_key(open, None).await.status, StatusCode::OK, "{open}");
    }
}

#[tokio::test]
async fn a_page_of_another_site_may_not_emit() {
    let request = Request::post("/v1/emit")
        .header(header::ORIGIN, "https://evil.example")
        .header(header::HOST, "127.0.0.1:3001")
        .body(Body::from(r#"{"event":"e","to":"all"}"#))
        .unwrap();
    let node = TestNode::new();
    let adapter = Arc::clone(&node.adapter);
    ask(router(Arc::new(node), settings()), request).await.is_problem(403, "forbidden");
    assert!(adapter.asked.lock().is_empty());
}

#[tokio::test]
async fn probes_and_metrics() {
    assert_eq!(get(TestNode::new(), "/livez").await.json(), json!({ "alive": true }));
    assert_eq!(get(TestNode::new(), "/readyz").await.json(), json!({ "ready": true, "node": "AAAA" }));
    let in_phase = |phase| TestNode { phase, ..TestNode::new() };
    let full_and_cut_off = TestNode { phase: Phase::Full, ..TestNode::without_broker() };
    let draining_and_cut_off = TestNode { phase: Phase::Draining, ..TestNode::without_broker() };
    for (node, reason) in [
        (in_phase(Phase::Starting), "not_serving"),
        (in_phase(Phase::Draining), "draining"),
        (in_phase(Phase::Full), "full"),
        (TestNode::without_broker(), "broker_unavailable"),
        (full_and_cut_off, "broker_unavailable"),
        (draining_and_cut_off, "draining"),
    ] {
        let answer = get(node, "/readyz").await;
        assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(
            answer.json(),
            json!({ "ready": false, "reason": reason, "node": "AAAA", "connections": 5 })
        );
    }

    let node: Arc<TestNode> = Arc::new(TestNode::new());
    let router = router(node, settings());
    let emit = Request::post("/v1/emit").body(Body::from(r#"{"event":"e","to":"all"}"#)).unwrap();
    ask(router.clone(), emit).await;
    ask(router.clone(), Request::get("/v1/nope").body(Body::empty()).unwrap()).await;
    let metrics = ask(router, Request::get("/metrics").body(Body::empty()).unwrap()).await;
    assert_eq!(metrics.headers[header::CONTENT_TYPE], "text/plain; version=0.0.4; charset=utf-8");
    for line in [
        "roomcast_api_requests_total{call=\"emit\",status=\"202\"} 1",
        "roomcast_api_requests_total{call=\"unknown\",status=\"404\"} 1",
    ] {
        assert!(metrics.text.contains(line), "{}", metrics.text);
    }
}
