//! The description of the API is the one that is written down, and names no call that is not there.

use axum::http::StatusCode;
use serde_json::Value;

use super::super::openapi::document;
use super::node::TestNode;
use super::{get, json};

#[tokio::test]
async fn the_description_is_the_golden_one() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/reference/openapi.json");
    let text = format!("{:#}\n", document());
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(path, &text).unwrap();
    }
    let golden = std::fs::read_to_string(path).unwrap_or_default();
    assert!(
        text == golden,
        "docs/reference/openapi.json is not what the code says: run with UPDATE_GOLDEN=1"
    );
    let served = get(TestNode::new(), "/openapi.json").await;
    assert_eq!(served.status, StatusCode::OK);
    assert_eq!(served.json(), document());
}

/// Either is enough, and the document says of each what it is.
#[test]
fn every_credential_is_described() {
    let document = document();
    let schemes = &document["components"]["securitySchemes"];
    let kinds = document["security"].as_array().unwrap().iter().map(|one| {
        let (name, scopes) = one.as_object().unwrap().iter().next().unwrap();
        assert_eq!(scopes, &json!([]), "{name}");
        schemes[name]["type"].as_str().unwrap()
    });
    assert_eq!(kinds.collect::<Vec<_>>(), ["http", "mutualTLS"]);
}

/// Every reference leads somewhere.
#[test]
fn every_reference_leads_somewhere() {
    fn walk<'a>(value: &'a Value, found: &mut Vec<&'a str>) {
        match value {
            Value::Object(map) => {
                found.extend(map.get("$ref").and_then(Value::as_str));
                map.values().for_each(|value| walk(value, found));
            }
            Value::Array(items) => items.iter().for_each(|item| walk(item, found)),
            _ => {}
        }
    }
    let document = document();
    let mut found = Vec::new();
    walk(&document, &mut found);
    assert!(found.len() > 50, "{}", found.len());
    for reference in found {
        let pointer = reference.strip_prefix('#').unwrap();
        assert!(document.pointer(pointer).is_some(), "{reference}");
    }
    assert_eq!(document["openapi"], json!("3.1.0"));
}
