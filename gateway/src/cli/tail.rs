//! `roomcast tail`: what goes through a node, as it happens.

use std::io::Write as _;

use clap::Args;
use form_urlencoded::Serializer;
use futures_util::StreamExt as _;
use serde_json::Value;

use super::remote::{CliError, Node};

/// What to show.
#[derive(Debug, Clone, Default, PartialEq, Eq, Args)]
#[group(skip)]
pub struct Tail {
    /// Only this namespace
    #[arg(long, value_name = "NAME")]
    namespace: Option<String>,
    /// Only emits to rooms of this name: "order:{id}", "order:*"
    #[arg(long, value_name = "PATTERN")]
    room: Option<String>,
    /// Only events of this name: "cart.*"
    #[arg(long, value_name = "PATTERN")]
    event: Option<String>,
    /// Show arguments too: they are your users' own
    #[arg(long)]
    payload: bool,
}

/// `roomcast tail`: prints until the node goes away or the process is ended.
pub(super) async fn tail(node: &Node, tail: &Tail) -> Result<String, CliError> {
    let mut query = Serializer::new(String::new());
    let filters = [("namespace", &tail.namespace), ("room", &tail.room), ("event", &tail.event)];
    query.extend_pairs(filters.iter().filter_map(|(name, value)| Some((name, value.as_ref()?))));
    query.append_pair("payload", if tail.payload { "true" } else { "false" });
    let response = node.stream(&format!("/v1/tail?{}", query.finish())).await?;
    let mut chunks = response.bytes_stream();
    let mut rest = Vec::new();
    while let Some(Ok(chunk)) = chunks.next().await {
        rest.extend_from_slice(&chunk);
        while let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = rest.drain(..=end).collect();
            let line = String::from_utf8_lossy(&line);
            let line = if node.wants_json() { line.trim_end().to_owned() } else { shown(line.trim_end()) };
            // Who pipes this into `head` has seen enough.
            if writeln!(std::io::stdout(), "{line}").is_err() {
                return Ok(String::new());
            }
        }
    }
    Err(CliError::Usage("the node has ended the stream".to_owned()))
}

/// A line for people: time, direction, namespace, event, whom, size.
fn shown(line: &str) -> String {
    let Ok(line) = serde_json::from_str::<Value>(line) else { return line.to_owned() };
    let text = |key: &str| line[key].as_str().unwrap_or_default();
    if line["kind"] == "lost" {
        return format!("... {} left out", line["count"]);
    }
    let who = match (&line["to"], &line["socket"]) {
        (_, Value::String(socket)) => format!("<- {socket}"),
        (Value::Array(rooms), _) => {
            let rooms: Vec<_> = rooms.iter().filter_map(Value::as_str).collect();
            format!("-> {}", rooms.join(" "))
        }
        (Value::Object(one), _) => format!("-> {}", one["socket"].as_str().unwrap_or_default()),
        _ => "-> everybody".to_owned(),
    };
    let time = text("time").split('T').next_back().unwrap_or_default();
    let args = line.get("args").map(|args| format!("  {args}")).unwrap_or_default();
    format!("{time}  {}  {}  {who}  {} B{args}", text("namespace"), text("event"), line["bytes"])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_for_people() {
        let emit = r#"{"kind":"emit","time":"1970-01-01T00:00:00.000Z","namespace":"/","event":"e","bytes":9,"to":["a","b"]}"#;
        assert_eq!(shown(emit), "00:00:00.000Z  /  e  -> a b  9 B");
        let event = r#"{"kind":"event","time":"1970-01-01T00:00:00.000Z","namespace":"/","event":"e","bytes":2,"args":[1],"socket":"S"}"#;
        assert_eq!(shown(event), "00:00:00.000Z  /  e  <- S  2 B  [1]");
        assert_eq!(shown(r#"{"kind":"lost","count":3}"#), "... 3 left out");
    }
}
