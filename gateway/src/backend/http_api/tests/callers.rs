//! What callers with limits may do, call by call.

use super::*;
use crate::config::{Api, ApiKey, ApiScope, RoomPattern};

const SECRET: &str = "0123456789abcdef";

fn key() -> ApiKey {
    let scopes = vec![ApiScope::Emit, ApiScope::Read, ApiScope::Admin];
    ApiKey { name: "shop".to_owned(), secret: Some(Secret::new(SECRET)), scopes, ..ApiKey::default() }
}

fn routes(key: ApiKey) -> (Router, Arc<node::Script>) {
    let callers = Callers::new(&Api { named_keys: vec![key], ..Api::default() }, &Arc::default());
    let node = TestNode::new();
    let adapter = Arc::clone(&node.adapter);
    (router(Arc::new(node), Settings { callers, ..settings() }), adapter)
}

async fn send(router: &Router, method: &str, path: &str, body: &str) -> Answer {
    let request = Request::builder()
        .method(method)
        .uri(path)
        .header(header::AUTHORIZATION, format!("Bearer {SECRET}"))
        .body(Body::from(body.to_owned()))
        .unwrap();
    ask(router.clone(), request).await
}

/// Every call, with the scope that it needs.
const CALLS: [(&str, &str, &str, &str); 16] = [
    ("emit", "POST", "/v1/emit", r#"{"event":"e","to":{"rooms":["order:1"]}}"#),
    ("emit", "POST", "/v1/emit/batch", r#"{"items":[]}"#),
    ("emit", "POST", "/v1/server-emit", r#"{"event":"e"}"#),
    (
        "emit",
        "POST",
        "/v1/request",
        r#"{"event":"e","to":{"rooms":["order:1"]},"expect":"first","timeout":1}"#,
    ),
    ("admin", "POST", "/v1/join", r#"{"to":{"rooms":["order:1"]},"rooms":["order:2"]}"#),
    ("admin", "POST", "/v1/leave", r#"{"to":{"rooms":["order:1"]},"rooms":["order:2"]}"#),
    ("admin", "POST", "/v1/disconnect", r#"{"to":{"rooms":["order:1"]}}"#),
    ("admin", "DELETE", "/v1/users/u7/sockets", ""),
    ("read", "GET", "/v1/rooms", ""),
    ("read", "GET", "/v1/rooms/order:1", ""),
    ("read", "GET", "/v1/rooms/order:1/sockets", ""),
    ("read", "GET", "/v1/sockets/AAAAAAAAAAAAAAAAAAAA", ""),
    ("read", "GET", "/v1/users/u7/sockets", ""),
    ("read", "GET", "/v1/nodes", ""),
    ("admin", "GET", "/v1/tail", ""),
    ("admin", "POST", "/v1/nodes/BBBB/drain", ""),
];

#[tokio::test]
async fn every_call_needs_its_scope() {
    for granted in [ApiScope::Emit, ApiScope::Read, ApiScope::Admin] {
        let name = format!("{granted:?}").to_lowercase();
        let (router, adapter) = routes(ApiKey { scopes: vec![granted], ..key() });
        for (scope, method, path, body) in CALLS {
            if scope == name {
                continue;
            }
            send(&router, method, path, body).await.is_problem(403, "forbidden");
            assert!(adapter.asked.lock().is_empty(), "{path}");
        }
    }
}

#[tokio::test]
async fn patterns_of_rooms_leave_no_other_way() {
    let rooms = ["order:{id}", "user:u7"].map(RoomPattern::from).to_vec();
    let (router, adapter) = routes(ApiKey { rooms, ..key() });
    let refused = [
        ("POST", "/v1/emit", r#"{"event":"e","to":"all"}"#),
        ("POST", "/v1/emit", r#"{"event":"e","to":{"rooms":["order:1","lobby"]}}"#),
        ("POST", "/v1/emit", r#"{"event":"e","to":{"users":["u8"]}}"#),
        ("POST", "/v1/emit", r#"{"event":"e","to":{"sockets":["AAAAAAAAAAAAAAAAAAAA"]}}"#),
        ("POST", "/v1/request", r#"{"event":"e","to":"all"}"#),
        ("POST", "/v1/server-emit", r#"{"event":"e"}"#),
        ("POST", "/v1/join", r#"{"to":{"rooms":["order:1"]},"rooms":["lobby"]}"#),
        ("POST", "/v1/join", r#"{"to":{"rooms":["lobby"]},"rooms":["order:1"]}"#),
        ("POST", "/v1/leave", r#"{"to":"all","rooms":["order:1"]}"#),
        ("POST", "/v1/disconnect", r#"{"to":{"users":["u8"]}}"#),
        ("DELETE", "/v1/users/u8/sockets", ""),
        ("GET", "/v1/rooms/lobby", ""),
        ("GET", "/v1/rooms/lobby/sockets", ""),
        ("GET", "/v1/users/u8/sockets", ""),
        ("GET", "/v1/sockets/AAAAAAAAAAAAAAAAAAAA", ""),
        ("GET", "/v1/nodes", ""),
        ("GET", "/v1/tail", ""),
        ("POST", "/v1/nodes/BBBB/drain", ""),
    ];
    for (method, path, body) in refused {
        send(&router, method, path, body).await.is_problem(403, "forbidden");
        assert!(adapter.asked.lock().is_empty(), "{path} {body}");
    }
    let batch = r#"{"items":[{"event":"e","to":"all"},{"event":"e","to":{"rooms":["order:1"]}}]}"#;
    let results = send(&router, "POST", "/v1/emit/batch", batch).await.json();
    assert_eq!(
        (&results["results"][0]["status"], &results["results"][1]["status"]),
        (&json!(403), &json!(202))
    );
    let except = r#"{"event":"e","to":{"users":["u7"]},"except":{"rooms":["lobby"]}}"#;
    assert_eq!(send(&router, "POST", "/v1/emit", except).await.status, StatusCode::ACCEPTED);
    let sockets = send(&router, "GET", "/v1/rooms/order:1/sockets?limit=1", "").await.json();
    let rooms = send(&router, "GET", "/v1/rooms?limit=2", "").await.json();
    assert_eq!(
        (&rooms["rooms"], &rooms["cursor"]),
        (&json!([{ "room": "order:1", "sockets": 2 }]), &json!("order:1"))
    );
    // It is in the room "a", too, which is none of this caller's business.
    assert_eq!(sockets["sockets"][0]["rooms"], json!(["AAAAAAAAAAAAAAAAAAAA"]));
}

#[tokio::test]
async fn patterns_of_namespaces_hide_the_others() {
    let (router, adapter) = routes(ApiKey { namespaces: vec!["/ch*".into()], ..key() });
    for namespace in ["/", "/nope"] {
        let body = json!({ "namespace": namespace, "event": "e", "to": "all" }).to_string();
        send(&router, "POST", "/v1/emit", &body).await.is_problem(403, "forbidden");
        send(&router, "GET", &format!("/v1/rooms/a?namespace={namespace}"), "")
            .await
            .is_problem(403, "forbidden");
    }
    assert!(adapter.asked.lock().is_empty());
    let body = r#"{"namespace":"chat","event":"e","to":"all"}"#;
    assert_eq!(send(&router, "POST", "/v1/emit", body).await.status, StatusCode::ACCEPTED);
    send(&router, "GET", "/v1/nodes", "").await.is_problem(403, "forbidden");
}

#[tokio::test]
async fn too_many_calls_are_told_when_to_come_again() {
    let (router, adapter) = routes(ApiKey { rate: Some(3), ..key() });
    let emit = r#"{"event":"e","to":"all"}"#;
    let batch =
        json!({ "items": [{ "event": "e", "to": "all" }, { "event": "e", "to": "all" }] }).to_string();
    assert_eq!(send(&router, "POST", "/v1/emit", emit).await.status, StatusCode::ACCEPTED);
    assert_eq!(send(&router, "POST", "/v1/emit/batch", &batch).await.status, StatusCode::OK);
    let answer = send(&router, "POST", "/v1/emit/batch", &batch).await;
    answer.is_problem(429, "rate_limited");
    assert_eq!(answer.headers[header::RETRY_AFTER], "1");
    assert_eq!(adapter.asked.lock().len(), 3);
}
