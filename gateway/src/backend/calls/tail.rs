//! `tail`: what goes through this node, for somebody who looks for a fault. Owns what is shown of it: arguments only to
//! those who ask for them.

use std::time::SystemTime;

use futures_util::Stream;
use roomcast_adapter::{Outgoing, Room, Sighted, Sighting, SocketId, Target};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::{Caller, Calls, Scope};
use crate::backend::Problem;
use crate::config::RoomPattern;

/// What to show.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct TailQuery {
    /// Only this namespace.
    namespace: Option<String>,
    /// Only emits to a room whose name matches.
    room: Option<RoomPattern>,
    /// Only events whose name matches.
    event: Option<RoomPattern>,
    /// Show arguments too: they are the users' own.
    #[serde(default)]
    payload: bool,
}

/// One line.
#[derive(Debug, Serialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub(crate) enum TailLine {
    /// An emit to sockets of this node.
    Emit {
        #[serde(flatten)]
        head: Head,
        /// "all", rooms, or one socket.
        to: Whom,
        #[serde(skip_serializing_if = "Vec::is_empty")]
        except: Vec<Room>,
    },
    /// An event of a client of this node.
    Event {
        #[serde(flatten)]
        head: Head,
        socket: SocketId,
    },
    /// So much was left out, because whoever looks is too slow.
    Lost { count: u64 },
}

/// What emits and events have in common.
#[derive(Debug, Serialize)]
pub(crate) struct Head {
    time: String,
    namespace: String,
    event: String,
    /// Of the arguments, attachments among them.
    bytes: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    args: Option<Box<RawValue>>,
}

#[derive(Debug, Serialize)]
#[serde(untagged)]
pub(crate) enum Whom {
    All(&'static str),
    Rooms(Vec<Room>),
    Socket { socket: SocketId },
}

impl Calls {
    /// Lines for as long as they are taken.
    pub(crate) fn tail(
        &self,
        caller: &Caller,
        query: TailQuery,
    ) -> Result<impl Stream<Item = TailLine> + Send + use<>, Problem> {
        caller.check_everywhere(Scope::Admin)?;
        let look = self.node.factory().tap().look();
        Ok(futures_util::stream::unfold((look, query), async |(mut look, query)| {
            loop {
                let line = match look.next().await {
                    Ok(sighting) => query.line(sighting),
                    Err(count) => Some(TailLine::Lost { count }),
                };
                if let Some(line) = line {
                    return Some((line, (look, query)));
                }
            }
        }))
    }
}

impl TailQuery {
    fn line(&self, sighting: Sighting) -> Option<TailLine> {
        let Sighting { at, namespace, what } = sighting;
        if self.namespace.as_ref().is_some_and(|wanted| **wanted != *namespace) {
            return None;
        }
        let (event, args, bytes) = match &what {
            Sighted::Emit { outgoing, .. } => read(outgoing)?,
            Sighted::Event { name, args, .. } => {
                let text = format!("[{}]", args.elements());
                let bytes = text.len() + args.attachments().iter().map(bytes::Bytes::len).sum::<usize>();
                (name.to_string(), text, bytes)
            }
        };
        if self.event.as_ref().is_some_and(|wanted| !wanted.matches(&event)) {
            return None;
        }
        let args = self.payload.then(|| RawValue::from_string(args).ok()).flatten();
        let time = humantime::format_rfc3339_millis(SystemTime::max(at, SystemTime::UNIX_EPOCH)).to_string();
        let head = Head { time, namespace: namespace.to_string(), event, bytes, args };
        match what {
            Sighted::Emit { selector, .. } => {
                let is_wanted = |room: &Room| self.room.as_ref().is_none_or(|wanted| wanted.matches(room));
                let to = match selector.to {
                    Target::Rooms(rooms) if rooms.iter().any(is_wanted) => Whom::Rooms(rooms),
                    Target::All if self.room.is_none() => Whom::All("all"),
                    Target::Socket(socket) if self.room.is_none() => Whom::Socket { socket },
                    _ => return None,
                };
                Some(TailLine::Emit { head, to, except: selector.except })
            }
            Sighted::Event { socket, .. } if self.room.is_none() => Some(TailLine::Event { head, socket }),
            Sighted::Event { .. } => None,
        }
    }
}

/// The name, the arguments as JSON, and their size, out of a packet that is encoded already.
fn read(outgoing: &Outgoing) -> Option<(String, String, usize)> {
    let (_, first) = outgoing.packet.messages().next().filter(|(is_binary, _)| !is_binary)?;
    let bytes = outgoing.packet.messages().map(|(_, message)| message.len()).sum();
    let text = std::str::from_utf8(first).ok()?;
    let values: Vec<&RawValue> = serde_json::from_str(&text[text.find('[')?..]).ok()?;
    let (name, args) = values.split_first()?;
    Some((serde_json::from_str(name.get()).ok()?, serde_json::to_string(args).ok()?, bytes))
}

#[cfg(test)]
mod tests {
    use roomcast_adapter::Selector;
    use roomcast_protocol::socketio::{Args, EncodedPacket};
    use serde_json::{Value, json};

    use super::*;

    fn emit(to: &Selector) -> Sighting {
        let args = Args::from_serialize(&(1, "two")).unwrap();
        let outgoing = Outgoing::new(EncodedPacket::event("/chat", None, "cart.add", &args));
        let what = Sighted::Emit { selector: to.clone(), outgoing };
        Sighting { at: SystemTime::UNIX_EPOCH, namespace: "/chat".into(), what }
    }

    fn line(query: Value, sighting: Sighting) -> Option<Value> {
        let query: TailQuery = serde_json::from_value(query).unwrap();
        query.line(sighting).map(|line| serde_json::to_value(&line).unwrap())
    }

    #[test]
    fn arguments_are_shown_to_those_who_ask_for_them() {
        let to = Selector::rooms(["order:1"]);
        let shown = line(json!({ "payload": true }), emit(&to)).unwrap();
        let whole = json!({
            "kind": "emit", "time": "1970-01-01T00:00:00.000Z", "namespace": "/chat", "event": "cart.add",
            "bytes": 28, "args": [1, "two"], "to": ["order:1"],
        });
        assert_eq!(shown, whole);
        assert!(line(json!({}), emit(&to)).unwrap().get("args").is_none());
    }

    #[test]
    fn what_is_not_asked_for_is_left_out() {
        let rooms = Selector::rooms(["order:1", "x"]);
        let shows = |query: Value, to: &Selector| line(query, emit(to)).is_some();
        assert!(shows(json!({ "room": "order:{id}", "event": "cart.*", "namespace": "/chat" }), &rooms));
        assert!(!shows(json!({ "room": "user:{id}" }), &rooms));
        assert!(!shows(json!({ "room": "*" }), &Selector::all()));
        assert!(shows(json!({}), &Selector::all()));
        assert!(!shows(json!({ "namespace": "/" }), &rooms));
        assert!(!shows(json!({ "event": "cart" }), &rooms));
        let what = Sighted::Event {
            socket: "AAAAAAAAAAAAAAAAAAAA".parse().unwrap(),
            name: "e".into(),
            args: Args::none(),
        };
        let event = Sighting { at: SystemTime::UNIX_EPOCH, namespace: "/".into(), what };
        let shown = line(json!({ "payload": true }), event).unwrap();
        assert_eq!((&shown["kind"], &shown["args"]), (&json!("event"), &json!([])));
    }
}
