//! One event for a backend, as a CloudEvent 1.0 in its JSON form. Owns ids, the order of a socket's events, and the bodies
//! that the contract promises. Which backend gets it, and how, is told elsewhere.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::SystemTime;

use roomcast_adapter::{PresenceEvent, Room, SocketId, TraceContext};
use roomcast_protocol::socketio::Args;
use serde::Serialize;
use serde_json::value::RawValue;
use serde_json::{Map, Value};

use crate::backend::clients::Member;
use crate::handler::DisconnectReason;
use crate::namespace::Socket;

/// The reason of a disconnection that the dead node could not tell itself.
const NODE_LOST: &str = "node lost";
/// The `sequence` of the event with which another node ends a socket: behind everything that its own node said of it.
const LAST_SEQUENCE: u64 = i32::MAX as u64;
/// What Engine.IO itself puts into the query of a handshake.
const ENGINE_QUERY: [&str; 5] = ["EIO", "transport", "t", "sid", "b64"];

/// What an event is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Kind {
    /// A client asks to be let in.
    Connect,
    /// A client sent an event.
    Event,
    /// A client asks for a room.
    Join,
    /// A socket is in its namespace.
    Connected,
    /// A socket is gone.
    Disconnected,
    /// A room got its first member.
    Occupied,
    /// A room has no member any more.
    Vacated,
}

impl Kind {
    /// The `type` of the CloudEvent.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Connect => "roomcast.connect",
            Self::Event => "roomcast.event",
            Self::Join => "roomcast.join",
            Self::Connected => "roomcast.connected",
            Self::Disconnected => "roomcast.disconnected",
            Self::Occupied => "roomcast.room.occupied",
            Self::Vacated => "roomcast.room.vacated",
        }
    }
}

/// An event for a backend. Cloning is cheap.
#[allow(
    dead_code,
    reason = "a webhook carries the JSON form; other transports have subjects and headers to fill"
)]
#[derive(Debug, Clone)]
pub(crate) struct CloudEvent {
    /// The same each time that this one thing is told, by whichever node; of nothing else. May hold any character.
    pub(crate) id: Arc<str>,
    pub(crate) kind: Kind,
    pub(crate) namespace: Arc<str>,
    /// `socket/<sid>` or `room/<room>`. What is of one subject arrives in order.
    pub(crate) subject: Arc<str>,
    pub(crate) socket: Option<SocketId>,
    pub(crate) user: Option<Arc<str>>,
    /// The name of the client's event, for [`Kind::Event`].
    pub(crate) event: Option<Arc<str>>,
    /// The trace of which it is a part (W3C Trace Context).
    pub(crate) trace: Option<TraceContext>,
    /// All of it, in the JSON form of CloudEvents.
    pub(crate) json: Arc<str>,
}

/// The JSON form.
#[derive(Serialize)]
struct Envelope<'a, D> {
    specversion: &'static str,
    id: &'a str,
    #[serde(rename = "type")]
    kind: &'static str,
    source: String,
    subject: &'a str,
    time: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    sequence: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    traceparent: Option<String>,
    datacontenttype: &'static str,
    data: D,
}

/// What every event of a socket says of it.
#[derive(Serialize)]
struct SocketData<'a> {
    namespace: &'a str,
    socket: SocketId,
    #[serde(skip_serializing_if = "Option::is_none")]
    user: Option<&'a str>,
    #[serde(flatten)]
    more: More<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    rooms: Option<Vec<Room>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    state: Option<&'a Value>,
}

/// What is of one kind of event only.
#[derive(Serialize)]
#[serde(untagged)]
enum More<'a> {
    Connect {
        auth: &'a RawValue,
        headers: Map<String, Value>,
        query: Map<String, Value>,
        #[serde(skip_serializing_if = "Option::is_none")]
        peer: Option<String>,
        #[serde(skip_serializing_if = "Option::is_none")]
        claims: Option<&'a Map<String, Value>>,
    },
    Event {
        event: &'a str,
        args: &'a RawValue,
        wants_ack: bool,
    },
    Join {
        room: &'a str,
    },
    Connected {},
    Disconnected {
        reason: &'a str,
    },
}

#[derive(Serialize)]
struct RoomData<'a> {
    namespace: &'a str,
    room: &'a str,
}

/// The number of a socket's last event.
#[derive(Default)]
struct Sequence(u64);

/// What is told of a client that asks to be let in.
pub(crate) struct Asking {
    pub(crate) headers: Map<String, Value>,
    pub(crate) query: Map<String, Value>,
}

impl Asking {
    /// The headers that a backend wants to see, and the client's own query.
    pub(crate) fn of(socket: &Socket, wanted: &[String]) -> Self {
        let handshake = socket.handshake();
        let headers = handshake.headers().filter(|(name, _)| wanted.iter().any(|wanted| wanted == name));
        let headers = headers.map(|(name, value)| (name.to_owned(), value.into())).collect();
        let query = handshake.query().filter(|(name, _)| !ENGINE_QUERY.contains(&&**name));
        let query = query.map(|(name, value)| (name.into_owned(), value.into())).collect();
        Self { headers, query }
    }
}

/// An address as backends read it: with a port where it is known.
fn peer(address: SocketAddr) -> String {
    if address.port() == 0 { address.ip().to_string() } else { address.to_string() }
}

impl CloudEvent {
    /// A client asks to be let in.
    pub(crate) fn connect(socket: &Socket, asking: Asking, trace: Option<TraceContext>) -> Self {
        let member = Member::of(socket);
        let auth: &RawValue = serde_json::from_str(socket.auth_json()).unwrap_or(RawValue::NULL);
        let more = More::Connect {
            auth,
            headers: asking.headers,
            query: asking.query,
            peer: socket.handshake().address().map(peer),
            claims: member.as_ref().and_then(|member| member.claims.as_deref()),
        };
        Self::of_socket(Kind::Connect, socket, None, &member, None, trace, more)
    }

    /// A client sent an event.
    pub(crate) fn event(
        socket: &Socket,
        name: &Arc<str>,
        args: &Args,
        wants_ack: bool,
        trace: Option<TraceContext>,
    ) -> Self {
        let text = match args.attachments().is_empty() {
            true => format!("[{}]", args.elements()),
            false => args.to_json_array().map_or_else(|_| "[]".to_owned(), |array| array.to_string()),
        };
        let args: &RawValue = serde_json::from_str(&text).unwrap_or(RawValue::NULL);
        let more = More::Event { event: name, args, wants_ack };
        let rooms = Some(rooms_of(socket));
        Self {
            event: Some(Arc::clone(name)),
            ..Self::of_socket(Kind::Event, socket, rooms, &Member::of(socket), None, trace, more)
        }
    }

    /// A client asks for a room.
    pub(crate) fn join(socket: &Socket, room: &str, trace: Option<TraceContext>) -> Self {
        let rooms = Some(rooms_of(socket));
        Self::of_socket(Kind::Join, socket, rooms, &Member::of(socket), None, trace, More::Join { room })
    }

    /// A socket is in its namespace.
    pub(crate) fn connected(socket: &Socket, trace: Option<TraceContext>) -> Self {
        let rooms = Some(rooms_of(socket));
        Self::of_socket(Kind::Connected, socket, rooms, &Member::of(socket), None, trace, More::Connected {})
    }

    /// A socket is about to leave, and still in its rooms.
    pub(crate) fn disconnected(
        socket: &Socket,
        reason: DisconnectReason,
        trace: Option<TraceContext>,
    ) -> Self {
        let namespace = Arc::clone(socket.namespace_inner().name());
        // Another node may say that this socket is gone, should this one be taken for dead: it is one event.
        let id = PresenceEvent::SocketGone { namespace, socket: socket.id(), node: socket.id().node() }.id();
        let reason = match reason {
            DisconnectReason::NodeFenced => NODE_LOST,
            reason => reason.as_str(),
        };
        let (rooms, more) = (Some(rooms_of(socket)), More::Disconnected { reason });
        Self::of_socket(Kind::Disconnected, socket, rooms, &Member::of(socket), Some(id), trace, more)
    }

    /// Something that happened in the cluster.
    pub(crate) fn presence(event: &PresenceEvent) -> Self {
        let id = event.id();
        match event {
            PresenceEvent::RoomOccupied { namespace, room, .. } => {
                Self::of_room(Kind::Occupied, &id, namespace, room)
            }
            PresenceEvent::RoomVacated { namespace, room, .. } => {
                Self::of_room(Kind::Vacated, &id, namespace, room)
            }
            PresenceEvent::SocketGone { namespace, socket, .. } => {
                let more = More::Disconnected { reason: NODE_LOST };
                let data =
                    SocketData { namespace, socket: *socket, user: None, more, rooms: None, state: None };
                let subject = format!("socket/{socket}");
                let (of, number) = (Some(*socket), Some(LAST_SEQUENCE));
                Self::new(Kind::Disconnected, &id, namespace, &subject, of, number, None, data)
            }
        }
    }

    fn of_room(kind: Kind, id: &str, namespace: &Arc<str>, room: &Room) -> Self {
        let data = RoomData { namespace, room };
        Self::new(kind, id, namespace, &format!("room/{room}"), None, None, None, data)
    }

    /// Belongs to the trace of the handshake, unless to one that goes on from there.
    fn of_socket(
        kind: Kind,
        socket: &Socket,
        rooms: Option<Vec<Room>>,
        member: &Option<Member>,
        id: Option<String>,
        trace: Option<TraceContext>,
        more: More<'_>,
    ) -> Self {
        let (namespace, of) = (socket.namespace_inner().name(), socket.id());
        let sequence = socket.update(|Sequence(last)| {
            *last += 1;
            *last
        });
        let id = id.unwrap_or_else(|| format!("{of}-{sequence}"));
        let user = member.as_ref().and_then(|member| member.user.clone());
        let state = member.as_ref().and_then(|member| member.state.as_deref());
        let data = SocketData { namespace, socket: of, user: user.as_deref(), more, rooms, state };
        let (subject, trace) = (format!("socket/{of}"), trace.or_else(|| trace_of(socket)));
        let event = Self::new(kind, &id, namespace, &subject, Some(of), Some(sequence), trace, data);
        Self { user, ..event }
    }

    #[expect(clippy::too_many_arguments, reason = "the fields of an event")]
    fn new(
        kind: Kind,
        id: &str,
        namespace: &Arc<str>,
        subject: &str,
        socket: Option<SocketId>,
        sequence: Option<u64>,
        trace: Option<TraceContext>,
        data: impl Serialize,
    ) -> Self {
        let envelope = Envelope {
            specversion: "1.0",
            id,
            kind: kind.as_str(),
            source: source_of(namespace),
            subject,
            time: humantime::format_rfc3339_millis(SystemTime::now()).to_string(),
            sequence: sequence.map(|number| number.to_string()),
            traceparent: trace.map(|trace| trace.to_string()),
            datacontenttype: "application/json",
            data,
        };
        let json = serde_json::to_string(&envelope).expect("strings, numbers and JSON are JSON");
        Self {
            id: id.into(),
            kind,
            namespace: Arc::clone(namespace),
            subject: subject.into(),
            socket,
            user: None,
            event: None,
            trace,
            json: json.into(),
        }
    }
}

#[cfg(test)]
impl CloudEvent {
    /// An event that is nobody's.
    pub(crate) fn for_test(subject: &str, id: &str) -> Self {
        Self::new(Kind::Event, id, &"/".into(), subject, None, Some(1), None, serde_json::json!({}))
    }
}

/// `/ns/` and the namespace, percent-encoded: a reference to a URI.
fn source_of(namespace: &str) -> String {
    let encoded: String = form_urlencoded::byte_serialize(namespace.as_bytes()).collect();
    format!("/ns/{}", encoded.replace('+', "%20"))
}

/// The rooms of a socket, without that of its own.
fn rooms_of(socket: &Socket) -> Vec<Room> {
    let id = socket.id();
    socket.rooms().into_iter().filter(|room| **room != *id.as_str()).collect()
}

/// The trace that the handshake came with, if it is one (W3C Trace Context, "traceparent Header").
pub(crate) fn trace_of(socket: &Socket) -> Option<TraceContext> {
    TraceContext::parse(socket.handshake().header("traceparent")?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(event: &CloudEvent) -> Value {
        serde_json::from_str(&event.json).unwrap()
    }

    #[test]
    fn a_room_is_told_of_as_the_contract_says() {
        let (namespace, room): (Arc<str>, Room) = ("/a é".into(), "r\"1".into());
        let occupied = PresenceEvent::RoomOccupied { namespace, room, number: 7 };
        let event = CloudEvent::presence(&occupied);
        let json = read(&event);
        assert_eq!(json["specversion"], "1.0");
        assert_eq!(json["type"], "roomcast.room.occupied");
        assert_eq!(json["id"], occupied.id());
        assert_eq!(json["source"], "/ns/%2Fa%20%C3%A9");
        assert_eq!(json["subject"], "room/r\"1");
        assert_eq!(json["data"], serde_json::json!({ "namespace": "/a é", "room": "r\"1" }));
        assert!(json.get("sequence").is_none() && json.get("traceparent").is_none());
        assert!(humantime::parse_rfc3339(json["time"].as_str().unwrap()).is_ok());
    }

    #[test]
    fn a_socket_of_a_dead_node_is_told_of_last() {
        let socket: SocketId = "AAAAAAAAAAAAAAAAAAAA".parse().unwrap();
        let gone = PresenceEvent::SocketGone { namespace: "/".into(), socket, node: socket.node() };
        let event = CloudEvent::presence(&gone);
        let json = read(&event);
        assert_eq!((&*event.id, &*event.subject), (&*gone.id(), "socket/AAAAAAAAAAAAAAAAAAAA"));
        assert_eq!(
            (&json["type"], &json["sequence"]),
            (&"roomcast.disconnected".into(), &"2147483647".into())
        );
        let data = serde_json::json!({ "namespace": "/", "socket": socket, "reason": "node lost" });
        assert_eq!(json["data"], data);
    }
}
