//! `roomcast drain`: a node sends its clients away and ends.

use std::time::Duration;

use serde_json::json;

use super::look::{escaped, text};
use super::remote::{CliError, Node};

/// `roomcast drain`.
pub(super) async fn drain(
    asked: &Node,
    node: Option<&str>,
    delay: Option<&str>,
    period: Option<&str>,
) -> Result<String, CliError> {
    let node = match node {
        Some(node) => node.to_owned(),
        None => text(&asked.get("/v1/nodes").await?["node"]),
    };
    let times = [("delay", delay), ("period", period)];
    let body = times.into_iter().filter_map(|(name, time)| Some((name.to_owned(), json!(time?))));
    let path = format!("/v1/nodes/{}/drain", escaped(&node));
    let answer = asked.post(&path, &serde_json::Value::Object(body.collect()), Duration::ZERO).await?;
    if asked.wants_json() {
        return Ok(answer.to_string());
    }
    let already = if answer["already"] == true { "was draining already" } else { "drains" };
    Ok(format!("{node} {already}, with {} connections", text(&answer["connections"])))
}
