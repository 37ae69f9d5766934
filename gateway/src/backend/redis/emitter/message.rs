//! What `@socket.io/redis-emitter`, its forerunners and its ports publish, as calls.
//!
//! Owns the formats of the classic Redis adapter of Socket.IO: broadcasts in MessagePack, and requests in JSON. What is
//! optional in the field is optional here; who is meant never is: without options nobody is, and not everybody.

use bytes::Bytes;
use roomcast_adapter::{Room, Selector, Target};
use roomcast_protocol::socketio::Args;
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::value::RawValue;

use super::msgpack::{Item, Json, Malformed, Reader};

/// Why a message is dropped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Dropped {
    /// It is in no format of Socket.IO.
    Malformed,
    /// It is a request that expects an answer. Emitters send none.
    Unsupported,
    /// It names another namespace than its channel.
    OtherNamespace,
    /// Clients would take it for an attack: a reserved name, or more binary than they take.
    Refused,
}

impl Dropped {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Malformed => "malformed",
            Self::Unsupported => "unsupported",
            Self::OtherNamespace => "other_namespace",
            Self::Refused => "refused",
        }
    }
}

impl From<Malformed> for Dropped {
    fn from(_: Malformed) -> Self {
        Self::Malformed
    }
}

/// An event for clients.
#[derive(Debug, PartialEq)]
pub(super) struct Emit {
    pub(super) selector: Selector,
    pub(super) name: String,
    pub(super) args: Args,
    pub(super) volatile: bool,
    pub(super) compress: bool,
}

/// Everything else.
#[derive(Debug, PartialEq)]
pub(super) enum Request {
    Join(Selector, Vec<Room>),
    Leave(Selector, Vec<Room>),
    Disconnect(Selector, bool),
    ServerEvent(String, Args),
}

/// Every receiver delivers to its own sockets.
fn selector(rooms: Vec<Room>, except: Vec<Room>) -> Selector {
    let to = if rooms.is_empty() { Target::All } else { Target::Rooms(rooms) };
    Selector { to, except, local: true }
}

/// Reads `[uid, packet, options]`.
pub(super) fn broadcast(payload: Bytes, namespace: &str, max_attachments: usize) -> Result<Emit, Dropped> {
    let mut reader = Reader::new(payload);
    if reader.array()? < 3 {
        return Err(Dropped::Malformed);
    }
    // Who sent it has no meaning: ports have ids of their own.
    reader.skip()?;
    let (mut event, mut is_event, mut is_here) = (None, true, namespace == "/");
    for _ in 0..reader.map()? {
        match reader.key()?.as_str() {
            // An event, or one with binary, which forerunners told apart.
            "type" => is_event = matches!(reader.next()?, Item::Int(2 | 5) | Item::Uint(2 | 5)),
            "data" => event = Some(data(&mut reader)?),
            "nsp" => is_here = reader.next()?.name().is_some_and(|name| name == namespace),
            _ => reader.skip()?,
        }
    }
    let (name, json) = event.filter(|_| is_event).ok_or(Dropped::Malformed)?;
    if !is_here {
        return Err(Dropped::OtherNamespace);
    }
    let (mut rooms, mut except, mut volatile, mut compress) = (Vec::new(), Vec::new(), false, true);
    for _ in 0..reader.map()? {
        match reader.key()?.as_str() {
            "rooms" => rooms = names(&mut reader)?,
            "except" => except = names(&mut reader)?,
            "flags" => (volatile, compress) = flags(&mut reader)?,
            _ => reader.skip()?,
        }
    }
    if !reader.is_empty() {
        return Err(Dropped::Malformed);
    }
    let args = args(&json, max_attachments)?;
    Ok(Emit { selector: selector(rooms, except), name, args, volatile, compress })
}

/// The name of an event, and its arguments as a JSON array.
fn data(reader: &mut Reader) -> Result<(String, Json), Malformed> {
    let length = reader.array()?;
    let name = reader.key()?;
    let mut json = Json::default();
    json.text.push(b'[');
    for index in 1..length {
        if index > 1 {
            json.text.push(b',');
        }
        json.push(reader)?;
    }
    json.text.push(b']');
    Ok((name, json))
}

/// Rooms, or nothing.
fn names(reader: &mut Reader) -> Result<Vec<Room>, Malformed> {
    let length = match reader.next()? {
        Item::Array(length) => length,
        Item::Nil => return Ok(Vec::new()),
        _ => return Err(Malformed),
    };
    let mut names = Vec::new();
    for _ in 0..length {
        names.push(reader.key()?.into());
    }
    Ok(names)
}

/// `volatile` and `compress`; the others concern who sends.
fn flags(reader: &mut Reader) -> Result<(bool, bool), Malformed> {
    let length = match reader.next()? {
        Item::Map(length) => length,
        // An empty array is what PHP makes of an empty object.
        Item::Nil | Item::Array(0) => return Ok((false, true)),
        _ => return Err(Malformed),
    };
    let (mut volatile, mut compress) = (false, true);
    for _ in 0..length {
        match reader.key()?.as_str() {
            "volatile" => volatile = truth(reader)?,
            "compress" => compress = truth(reader)?,
            _ => reader.skip()?,
        }
    }
    Ok((volatile, compress))
}

/// A flag, which is one value.
fn truth(reader: &mut Reader) -> Result<bool, Malformed> {
    match reader.next()? {
        Item::Array(_) | Item::Map(_) => Err(Malformed),
        item => Ok(item.is_true()),
    }
}

fn args(json: &Json, max_attachments: usize) -> Result<Args, Dropped> {
    if json.attachments.len() > max_attachments {
        return Err(Dropped::Refused);
    }
    let text = std::str::from_utf8(&json.text).map_err(|_| Dropped::Malformed)?;
    Args::from_json_array(text, json.attachments.clone()).map_err(|_| Dropped::Malformed)
}

/// A room as anybody may write it.
#[derive(Deserialize)]
#[serde(untagged)]
enum Name {
    Text(String),
    Number(serde_json::Number),
}

fn rooms(names: Option<Vec<Name>>) -> Vec<Room> {
    let text = |name| match name {
        Name::Text(text) => text,
        Name::Number(number) => number.to_string(),
    };
    names.unwrap_or_default().into_iter().map(|name| text(name).into()).collect()
}

#[derive(Deserialize)]
struct Options {
    rooms: Option<Vec<Name>>,
    except: Option<Vec<Name>>,
}

#[derive(Deserialize)]
struct Body {
    #[serde(rename = "type")]
    kind: u8,
    #[serde(rename = "requestId")]
    request_id: Option<IgnoredAny>,
    opts: Option<Options>,
    rooms: Option<Vec<Name>>,
    sid: Option<String>,
    room: Option<Name>,
    close: Option<bool>,
    data: Option<Vec<Box<RawValue>>>,
}

/// Reads a request: JSON, or MessagePack where it wants acks, which no emitter does.
pub(super) fn request(payload: &[u8]) -> Result<Request, Dropped> {
    if payload.first() != Some(&b'{') {
        let is_map = matches!(Reader::new(Bytes::copy_from_slice(payload)).next(), Ok(Item::Map(_)));
        return Err(if is_map { Dropped::Unsupported } else { Dropped::Malformed });
    }
    let body: Body = serde_json::from_slice(payload).map_err(|_| Dropped::Malformed)?;
    // One socket, as forerunners say it, or the members of rooms.
    let meant = |sid: Option<String>, opts: Option<Options>| match (opts, sid) {
        (Some(opts), _) => Ok(selector(rooms(opts.rooms), rooms(opts.except))),
        (None, Some(sid)) if !sid.is_empty() => Ok(selector(vec![sid.into()], Vec::new())),
        (None, _) => Err(Dropped::Malformed),
    };
    let moved = rooms(body.rooms.or_else(|| body.room.map(|room| vec![room])));
    match body.kind {
        2 => Ok(Request::Join(meant(body.sid, body.opts)?, moved)),
        3 => Ok(Request::Leave(meant(body.sid, body.opts)?, moved)),
        4 => Ok(Request::Disconnect(meant(body.sid, body.opts)?, body.close.unwrap_or(false))),
        6 if body.request_id.is_none() => server_event(body.data.unwrap_or_default()),
        0 | 1 | 5..=7 => Err(Dropped::Unsupported),
        _ => Err(Dropped::Malformed),
    }
}

fn server_event(data: Vec<Box<RawValue>>) -> Result<Request, Dropped> {
    let mut data = data.into_iter();
    let name = data.next().and_then(|name| serde_json::from_str::<String>(name.get()).ok());
    let name = name.ok_or(Dropped::Malformed)?;
    let args: Vec<Box<RawValue>> = data.collect();
    let text = serde_json::to_string(&args).map_err(|_| Dropped::Malformed)?;
    let args = Args::from_json_array(&text, Vec::new()).map_err(|_| Dropped::Malformed)?;
    Ok(Request::ServerEvent(name, args))
}
