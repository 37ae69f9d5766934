//! The console as it is served: a page, what it is made of, and its figures.

use axum::http::{StatusCode, header};
use serde_json::json;

use super::get;
use super::node::TestNode;
use crate::admin::ASSETS;

#[tokio::test]
async fn the_console_is_one_page_that_fetches_nothing_from_elsewhere() {
    let answer = get(TestNode::new(), "/console").await;
    assert_eq!(answer.headers[header::CONTENT_TYPE], "text/html; charset=utf-8");
    let policy = answer.headers[header::CONTENT_SECURITY_POLICY].to_str().unwrap();
    assert!(policy.starts_with("default-src 'none'; script-src 'nonce-"), "{policy}");
    let nonce = policy.split("'nonce-").nth(1).unwrap().split('\'').next().unwrap();
    let elements =
        ["<script", "<style", "rel=\"stylesheet\""].map(|element| answer.text.matches(element).count());
    assert_eq!(answer.text.matches(&format!("nonce=\"{nonce}\"")).count(), elements.iter().sum::<usize>());
    assert!(!answer.text.contains("__NONCE__"));
    assert_eq!(elsewhere(&answer.text), Vec::<String>::new());
    let other = get(TestNode::new(), "/console").await;
    assert_ne!(
        answer.headers[header::CONTENT_SECURITY_POLICY],
        other.headers[header::CONTENT_SECURITY_POLICY]
    );
}

/// What names another place, makes markup of text, or is style and script in an attribute, which the policy forbids.
fn elsewhere(text: &str) -> Vec<String> {
    let suspects =
        ["http://", "https://", "src=\"", "@import", " style=\"", " onclick=\"", "innerHTML", "eval("];
    // The namespace of SVG is a name, not an address to fetch.
    let fine = ["http://www.w3.org/2000/svg", "src=\"console/"];
    let found = suspects.iter().flat_map(|suspect| text.match_indices(suspect));
    let found = found.map(|(at, _)| text[at..].chars().take(60).collect::<String>());
    found.filter(|text| !fine.iter().any(|fine| text.starts_with(fine))).collect()
}

#[tokio::test]
async fn what_the_console_is_made_of() {
    let page = get(TestNode::new(), "/console").await.text;
    for (name, kind, text) in ASSETS {
        let answer = get(TestNode::new(), &format!("/console/assets/{name}")).await;
        assert_eq!((answer.status, &answer.text), (StatusCode::OK, &(*text).to_owned()), "{name}");
        assert_eq!(answer.headers[header::CONTENT_TYPE], kind);
        assert_eq!(elsewhere(text), Vec::<String>::new(), "{name}");
        let others = ASSETS.iter().map(|(_, _, text)| *text).chain([page.as_str()]);
        assert!(others.filter(|text| text.contains(&format!("/{name}\""))).count() > 0, "nobody uses {name}");
    }
    for unknown in ["nope.js", "..%2Fmod.rs", "%ff"] {
        let answer = get(TestNode::new(), &format!("/console/assets/{unknown}")).await;
        assert_eq!(answer.status, StatusCode::NOT_FOUND, "{unknown}");
    }
}

#[tokio::test]
async fn the_figures_of_the_console() {
    let stats = get(TestNode::new(), "/console/stats").await.json();
    assert_eq!(
        (&stats["node"], &stats["adapter"], &stats["ready"]),
        (&json!("AAAA"), &json!("memory"), &json!(true))
    );
    assert_eq!((&stats["sockets"], &stats["rooms"]), (&json!(7), &json!(2)));
    assert_eq!(stats["namespaces"][1], json!({ "name": "/chat", "sockets": 4 }));
    assert_eq!(stats["connections"], json!({ "polling": 0, "websocket": 0 }));
    assert_eq!(stats["totals"]["deliveries"], 0);
    let nodes = json!([
        { "id": "AAAA", "state": "draining", "sockets": 3, "rooms": 2, "age_seconds": 1.0 },
        { "id": "BBBB", "state": null, "sockets": null, "rooms": null, "age_seconds": 1.0 },
    ]);
    assert_eq!(stats["nodes"], nodes);
    let buckets = stats["totals"]["emit_to_write_buckets"].as_array().unwrap();
    assert_eq!(buckets.last(), Some(&json!([null, 0])));
    assert!(buckets.len() > 10);
}
