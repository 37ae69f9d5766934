//! `roomcast emit`: an event from the command line, to try things out.

use std::time::Duration;

use clap::Args;
use serde_json::{Value, json};

use super::remote::{CliError, Node};

/// What to emit, and to whom.
#[derive(Debug, Clone, Default, PartialEq, Eq, Args)]
#[group(skip)]
pub struct Emit {
    /// The event
    event: String,
    /// Its arguments: each is JSON, or else a text
    args: Vec<String>,
    /// To a room; may be given several times, as the next two
    #[arg(long = "room", value_name = "ROOM")]
    rooms: Vec<String>,
    /// To all sockets of a user
    #[arg(long = "user", value_name = "USER")]
    users: Vec<String>,
    /// To one socket
    #[arg(long = "socket", value_name = "ID")]
    sockets: Vec<String>,
    /// To everybody in the namespace
    #[arg(long, conflicts_with_all = ["rooms", "users", "sockets"])]
    all: bool,
    /// But not to a room
    #[arg(long = "except", value_name = "ROOM")]
    except: Vec<String>,
    /// The namespace
    #[arg(long, value_name = "NAME", default_value = "/")]
    namespace: String,
    /// May be lost by clients that cannot take it at once
    #[arg(long)]
    volatile: bool,
    /// Ask for acks, and wait for them so long
    #[arg(long, value_name = "DURATION", num_args = 0..=1, default_missing_value = "5s", require_equals = true,
          value_parser = humantime::parse_duration, conflicts_with = "volatile")]
    ack: Option<Duration>,
}

impl Emit {
    fn body(&self) -> Result<Value, CliError> {
        let to = if self.all {
            json!("all")
        } else if self.rooms.is_empty() && self.users.is_empty() && self.sockets.is_empty() {
            let detail = "to whom? give --room, --user or --socket, or say --all";
            return Err(CliError::Usage(detail.to_owned()));
        } else {
            json!({ "rooms": self.rooms, "users": self.users, "sockets": self.sockets })
        };
        let arg = |text: &String| serde_json::from_str(text).unwrap_or_else(|_| Value::String(text.clone()));
        let args: Vec<_> = self.args.iter().map(arg).collect();
        let mut body = json!({ "namespace": self.namespace, "event": self.event, "args": args, "to": to });
        if !self.except.is_empty() {
            body["except"] = json!({ "rooms": self.except });
        }
        match self.ack {
            Some(ack) => body["timeout"] = json!(u64::try_from(ack.as_millis()).unwrap_or(u64::MAX)),
            None => body["volatile"] = json!(self.volatile),
        }
        Ok(body)
    }
}

/// `roomcast emit`.
pub(super) async fn emit(node: &Node, emit: &Emit) -> Result<String, CliError> {
    let body = emit.body()?;
    let path = if emit.ack.is_some() { "/v1/request" } else { "/v1/emit" };
    let answer = node.post(path, &body, emit.ack.unwrap_or_default()).await?;
    if node.wants_json() {
        return Ok(answer.to_string());
    }
    if emit.ack.is_none() {
        return Ok(format!("emitted as {}", answer["id"].as_str().unwrap_or_default()));
    }
    let mut lines = Vec::new();
    for ack in answer["acks"].as_array().into_iter().flatten() {
        lines.push(format!("{}  {}", ack["socket"].as_str().unwrap_or_default(), ack["args"]));
    }
    lines.push(format!("{} of {} answered", answer["received"], answer["expected"]));
    Ok(lines.join("\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_are_json_or_text() {
        let emit = Emit {
            event: "e".into(),
            args: vec!["1".into(), "{\"a\":2}".into(), "plain text".into(), "\"3\"".into()],
            rooms: vec!["r".into()],
            namespace: "/".into(),
            ..Emit::default()
        };
        let body = emit.body().unwrap();
        assert_eq!(body["args"], json!([1, { "a": 2 }, "plain text", "3"]));
        assert_eq!(body["to"], json!({ "rooms": ["r"], "users": [], "sockets": [] }));
        assert!(
            Emit { rooms: Vec::new(), ..emit.clone() }.body().is_err(),
            "nobody by mistake, not everybody"
        );
        let ack = Emit { ack: Some(Duration::from_secs(2)), all: true, rooms: Vec::new(), ..emit };
        assert_eq!(ack.body().unwrap()["timeout"], 2000);
    }
}
