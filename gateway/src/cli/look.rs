//! `roomcast rooms` and `roomcast nodes`: what there is, for people or as JSON.

use form_urlencoded::Serializer;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::Value;

use super::remote::{CliError, Node};
use super::table::table;

/// `roomcast nodes`.
pub(super) async fn nodes(node: &Node) -> Result<String, CliError> {
    let answer = node.get("/v1/nodes").await?;
    if node.wants_json() {
        return Ok(answer.to_string());
    }
    let me = &answer["node"];
    let rows: Vec<_> = items(&answer["nodes"])
        .map(|item| {
            let here = if &item["id"] == me { "*" } else { "" };
            vec![
                text(&item["id"]),
                text(&item["state"]),
                text(&item["connections"]),
                text(&item["sockets"]),
                text(&item["rooms"]),
                text(&item["as_of"]),
                here.into(),
            ]
        })
        .collect();
    Ok(table(&["node", "state", "connections", "sockets", "rooms", "as of", ""], &rows))
}

/// `roomcast rooms`: all of them, or who is in one.
pub(super) async fn rooms(
    node: &Node,
    namespace: Option<&str>,
    room: Option<&str>,
    limit: usize,
) -> Result<String, CliError> {
    let mut query = Serializer::new(String::new());
    query.extend_pairs(namespace.map(|namespace| ("namespace", namespace)));
    query.append_pair("limit", &limit.to_string());
    let query = query.finish();
    let path = match room {
        None => format!("/v1/rooms?{query}"),
        Some(room) => format!("/v1/rooms/{}/sockets?{query}", escaped(room)),
    };
    let answer = node.get(&path).await?;
    if node.wants_json() {
        return Ok(answer.to_string());
    }
    let mut shown = match room {
        None => {
            let rows: Vec<_> = items(&answer["rooms"])
                .map(|item| vec![text(&item["room"]), text(&item["sockets"])])
                .collect();
            table(&["room", "sockets"], &rows)
        }
        Some(_) => {
            let rooms = |item: &Value| items(&item["rooms"]).map(text).collect::<Vec<_>>().join(" ");
            let rows: Vec<_> =
                items(&answer["sockets"]).map(|item| vec![text(&item["id"]), rooms(item)]).collect();
            table(&["socket", "rooms"], &rows)
        }
    };
    if !answer["cursor"].is_null() {
        shown.push_str("\nthere are more: --limit shows up to 1000");
    }
    let missing: Vec<_> = items(&answer["missing_nodes"]).map(text).collect();
    if !missing.is_empty() {
        shown.push_str(&format!("\nno answer from {}", missing.join(" ")));
    }
    Ok(shown)
}

fn items(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

pub(super) fn text(value: &Value) -> String {
    match value {
        Value::Null => "?".to_owned(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

/// What does not stand for itself in a segment of a path (RFC 3986, section 3.3).
const SEGMENT: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

pub(super) fn escaped(segment: &str) -> String {
    utf8_percent_encode(segment, SEGMENT).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_rooms_are_segments_of_a_path() {
        assert_eq!(escaped("order:42/é ?"), "order%3A42%2F%C3%A9%20%3F");
    }
}
