//! The bytes of messages between nodes.
//!
//! Layout: magic `RC`, a version byte, a kind byte, the sender's tag (4) and generation (8), then the message. Numbers
//! are little-endian, texts and lists carry a `u32` of their length. Decoding is total: whatever the bytes are, it gives
//! a message or an error, and it allocates no more than the bytes allow.

use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use roomcast_protocol::socketio::Args;

use super::message::{Answer, Broadcast, Envelope, Identity, Listening, Message, Op, Vitals};
use crate::id::{NodeTag, SocketId};
use crate::selector::{Room, Selector, Target};

const MAGIC: [u8; 2] = *b"RC";
/// The latest version. A message carries the version that brought its layout, and a node understands all up to its own: so
/// nodes of different versions are one cluster while it is upgraded, as far as the older ones go. A layout never changes;
/// a new one is a new kind.
pub(crate) const VERSION: u8 = 4;
/// The version that brought addresses of nodes, drains and the ages of emits.
pub(crate) const VERSION_3: u8 = 3;
/// The version that brought traces of emits with acks.
pub(crate) const VERSION_4: u8 = 4;
/// Bytes of a message that are not its contents, at most; what remains of the broker's limit may be filled.
pub(crate) const OVERHEAD: usize = 64;

/// Why bytes are no message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum WireError {
    #[error("not a message of a node")]
    Foreign,
    #[error("a message of another version")]
    Version,
    #[error("a message that ends too early")]
    Truncated,
    #[error("a message that is not valid")]
    Invalid,
}

/// Writes a message.
pub(crate) fn encode(from: Identity, message: &Message) -> Bytes {
    let mut out = BytesMut::with_capacity(OVERHEAD + payload_hint(message));
    out.put_slice(&MAGIC);
    let (version, kind) = version_and_kind(message);
    out.put_u8(version);
    out.put_u8(kind);
    out.put_slice(from.tag.as_str().as_bytes());
    out.put_u64_le(from.generation);
    match message {
        Message::Hello | Message::Heartbeat | Message::Goodbye => {}
        Message::Vitals(vitals) => put_vitals(&mut out, vitals),
        Message::Buried { generation: number }
        | Message::Cancel { id: number }
        | Message::Heard { number } => {
            out.put_u64_le(*number);
        }
        Message::Listens { number, listening } => {
            out.put_u64_le(*number);
            put_listening(&mut out, *listening);
        }
        Message::Broadcast(broadcast) => match &broadcast.journey {
            Some(journey) => journey::put_travelled(&mut out, journey, broadcast),
            None => put_broadcast(&mut out, broadcast),
        },
        Message::ServerEvent { namespace, name, args } => {
            put_str(&mut out, namespace);
            put_str(&mut out, name);
            put_args(&mut out, args);
        }
        Message::Request { id, namespace, op } => {
            out.put_u64_le(*id);
            put_str(&mut out, namespace);
            if let Op::Ask { trace: Some(trace), .. } = op {
                out.put_slice(&trace.to_bytes());
            }
            put_op(&mut out, op);
        }
        Message::Response { id, last, answer } => {
            out.put_u64_le(*id);
            out.put_u8(u8::from(*last));
            put_answer(&mut out, answer);
        }
        Message::Update(update) => directory::put_update(&mut out, update),
        Message::Resync { session } => out.put_u64_le(*session),
        Message::Query { id, query } => directory::put_query(&mut out, *id, query),
        Message::Found { id, known } => directory::put_found(&mut out, *id, known.as_ref()),
        Message::Claim { id, key } => once::put_claim(&mut out, *id, key),
        Message::Claimed { id, verdict } => once::put_claimed(&mut out, *id, verdict),
        Message::Settled(records) => put_list(&mut out, records, once::put_record),
        Message::Reach(known) => reach::put_reach(&mut out, known),
        Message::Drain { id, order } => host::put_drain(&mut out, *id, *order),
        Message::Draining { id, drains } => host::put_draining(&mut out, *id, *drains),
    }
    out.freeze()
}

fn payload_hint(message: &Message) -> usize {
    match message {
        Message::Broadcast(broadcast) => broadcast.frames.len() + 64,
        Message::Update(update) => update.size(),
        Message::Settled(records) => records.iter().map(crate::once::Record::size).sum(),
        _ => 0,
    }
}

fn version_and_kind(message: &Message) -> (u8, u8) {
    match message {
        Message::Hello => (1, 0),
        Message::Heartbeat => (1, 1),
        Message::Goodbye => (1, 2),
        Message::Broadcast(Broadcast { journey: None, .. }) => (1, 3),
        Message::Broadcast(_) => (VERSION_3, 48),
        Message::ServerEvent { .. } => (1, 4),
        Message::Request { op: Op::Ask { trace: Some(_), .. }, .. } => (VERSION_4, 49),
        Message::Request { .. } => (1, 5),
        Message::Response { .. } => (1, 6),
        Message::Vitals(_) => (2, 7),
        Message::Buried { .. } => (2, 8),
        Message::Update(_) => (2, 9),
        Message::Resync { .. } => (2, 10),
        Message::Query { .. } => (2, 11),
        Message::Found { .. } => (2, 12),
        Message::Cancel { .. } => (2, 16),
        Message::Listens { .. } => (2, 20),
        Message::Heard { .. } => (2, 21),
        Message::Claim { .. } => (2, 32),
        Message::Claimed { .. } => (2, 33),
        Message::Settled(_) => (2, 34),
        Message::Reach(_) => (3, 40),
        Message::Drain { .. } => (VERSION_3, 44),
        Message::Draining { .. } => (VERSION_3, 45),
    }
}

fn put_bytes(out: &mut BytesMut, bytes: &[u8]) {
    // What is longer than 4 GiB is longer than any broker takes, and is refused there.
    out.put_u32_le(u32::try_from(bytes.len()).unwrap_or(u32::MAX));
    out.put_slice(bytes);
}

fn put_str(out: &mut BytesMut, text: &str) {
    put_bytes(out, text.as_bytes());
}

fn put_list<T>(out: &mut BytesMut, items: &[T], mut put: impl FnMut(&mut BytesMut, &T)) {
    out.put_u32_le(u32::try_from(items.len()).unwrap_or(u32::MAX));
    items.iter().for_each(|item| put(out, item));
}

fn put_rooms(out: &mut BytesMut, rooms: &[Room]) {
    put_list(out, rooms, |out, room| put_str(out, room));
}

fn put_args(out: &mut BytesMut, args: &Args) {
    put_str(out, args.elements());
    put_list(out, args.attachments(), |out, attachment| put_bytes(out, attachment));
}

fn put_selector(out: &mut BytesMut, selector: &Selector) {
    match &selector.to {
        Target::All => out.put_u8(0),
        Target::Rooms(rooms) => {
            out.put_u8(1);
            put_rooms(out, rooms);
        }
        // The owner of a socket is the only node that gets this: there the room of its id is enough.
        Target::Socket(id) => {
            out.put_u8(1);
            put_rooms(out, &[id.as_str().into()]);
        }
    }
    put_rooms(out, &selector.except);
}

fn put_broadcast(out: &mut BytesMut, broadcast: &Broadcast) {
    put_str(out, &broadcast.namespace);
    out.put_u64_le(broadcast.id);
    out.put_u8(u8::from(broadcast.volatile) | u8::from(broadcast.compress) << 1);
    put_selector(out, &broadcast.selector);
    out.put_slice(&broadcast.frames);
}

/// With a length, so that a later version may say more.
fn put_vitals(out: &mut BytesMut, vitals: &Vitals) {
    let Vitals { version, said_at, sockets, rooms, listening, standing } = *vitals;
    let standing = standing.filter(|_| listening.is_some());
    out.put_u32_le(match (listening, standing) {
        (None, _) => 25,
        (Some(_), None) => 30,
        (Some(_), Some(_)) => 30 + host::STANDING,
    });
    out.put_u8(version);
    [said_at, sockets, rooms].into_iter().for_each(|number| out.put_u64_le(number));
    if let Some(listening) = listening {
        put_listening(out, listening);
    }
    if let Some(standing) = standing {
        host::put_standing(out, standing);
    }
}

fn put_listening(out: &mut BytesMut, listening: Listening) {
    out.put_u8(u8::from(listening.exact) | u8::from(listening.hashed) << 1);
    out.put_u32_le(listening.buckets);
}

fn put_op(out: &mut BytesMut, op: &Op) {
    match op {
        Op::Count(selector) => {
            out.put_u8(0);
            put_selector(out, selector);
        }
        Op::Fetch(selector) => {
            out.put_u8(1);
            put_selector(out, selector);
        }
        Op::Join(selector, rooms) => {
            out.put_u8(2);
            put_selector(out, selector);
            put_rooms(out, rooms);
        }
        Op::Leave(selector, rooms) => {
            out.put_u8(3);
            put_selector(out, selector);
            put_rooms(out, rooms);
        }
        Op::Disconnect(selector, close) => {
            out.put_u8(4);
            put_selector(out, selector);
            out.put_u8(u8::from(*close));
        }
        Op::ServerEvent { name, args } => {
            out.put_u8(5);
            put_str(out, name);
            put_args(out, args);
        }
        Op::Ask { selector, name, args, timeout, trace: _ } => {
            out.put_u8(6);
            put_selector(out, selector);
            put_str(out, name);
            put_args(out, args);
            out.put_u64_le(u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX));
        }
    }
}

fn put_answer(out: &mut BytesMut, answer: &Answer) {
    match answer {
        Answer::Nothing => out.put_u8(0),
        Answer::Count(count) => {
            out.put_u8(1);
            out.put_u64_le(*count);
        }
        Answer::Sockets(sockets) => {
            out.put_u8(2);
            put_list(out, sockets, |out, socket| put_bytes(out, socket));
        }
        Answer::Reply(args) => {
            out.put_u8(3);
            put_args(out, args);
        }
        Answer::Asked(ids) => {
            out.put_u8(4);
            put_list(out, ids, |out, id| out.put_slice(id.as_str().as_bytes()));
        }
        Answer::Settled(settled) => {
            out.put_u8(5);
            put_list(out, settled, |out, (id, answer)| {
                out.put_slice(id.as_str().as_bytes());
                out.put_u8(u8::from(answer.is_some()));
                if let Some(args) = answer {
                    put_args(out, args);
                }
            });
        }
        Answer::Listed(listed) => {
            out.put_u8(7);
            directory::put_listed(out, listed);
        }
        // What is no answer to a request says that there is none.
        Answer::Refused | Answer::Known(_) | Answer::Verdict(_) | Answer::Drains(_) => out.put_u8(6),
    }
}

/// Reads a message. Frames and attachments are slices of `payload`.
pub(crate) fn decode(payload: Bytes) -> Result<Envelope, WireError> {
    let mut reader = Reader(payload);
    if reader.take(2).map_err(|_| WireError::Foreign)? != MAGIC[..] {
        return Err(WireError::Foreign);
    }
    let version = reader.u8()?;
    if !(1..=VERSION).contains(&version) {
        return Err(WireError::Version);
    }
    let kind = reader.u8()?;
    let tag = reader.text(NodeTag::LEN)?.parse().map_err(|_| WireError::Invalid)?;
    let from = Identity { tag, generation: reader.u64()? };
    let message = match kind {
        0 => Message::Hello,
        1 => Message::Heartbeat,
        2 => Message::Goodbye,
        3 => Message::Broadcast(reader.broadcast()?),
        4 => Message::ServerEvent { namespace: reader.str()?, name: reader.str()?, args: reader.args()? },
        5 => Message::Request { id: reader.u64()?, namespace: reader.str()?, op: reader.op()? },
        6 => Message::Response { id: reader.u64()?, last: reader.bool()?, answer: reader.answer()? },
        7 => Message::Vitals(reader.vitals()?),
        8 => Message::Buried { generation: reader.u64()? },
        9 => Message::Update(reader.update()?),
        10 => Message::Resync { session: reader.u64()? },
        11 => Message::Query { id: reader.u64()?, query: reader.query()? },
        12 => Message::Found { id: reader.u64()?, known: reader.known()? },
        16 => Message::Cancel { id: reader.u64()? },
        20 => Message::Listens { number: reader.u64()?, listening: reader.listening()? },
        21 => Message::Heard { number: reader.u64()? },
        32 => Message::Claim { id: reader.u64()?, key: reader.once_key()? },
        33 => Message::Claimed { id: reader.u64()?, verdict: reader.verdict()? },
        34 => Message::Settled(reader.list(once::MIN_RECORD, Reader::record)?),
        40 => Message::Reach(reader.reach()?),
        44 => Message::Drain { id: reader.u64()?, order: reader.drain_order()? },
        45 => Message::Draining { id: reader.u64()?, drains: reader.drains()? },
        48 => Message::Broadcast(reader.travelled()?),
        49 => Message::Request { id: reader.u64()?, namespace: reader.str()?, op: reader.traced_ask()? },
        _ => return Err(WireError::Invalid),
    };
    if reader.0.has_remaining() || version_and_kind(&message).0 != version {
        return Err(WireError::Invalid);
    }
    Ok(Envelope { from, message })
}

struct Reader(Bytes);

impl Reader {
    fn take(&mut self, len: usize) -> Result<Bytes, WireError> {
        if self.0.len() < len {
            return Err(WireError::Truncated);
        }
        Ok(self.0.split_to(len))
    }

    fn u8(&mut self) -> Result<u8, WireError> {
        self.0.try_get_u8().map_err(|_| WireError::Truncated)
    }

    fn u32(&mut self) -> Result<u32, WireError> {
        self.0.try_get_u32_le().map_err(|_| WireError::Truncated)
    }

    fn u64(&mut self) -> Result<u64, WireError> {
        self.0.try_get_u64_le().map_err(|_| WireError::Truncated)
    }

    fn bool(&mut self) -> Result<bool, WireError> {
        match self.u8()? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(WireError::Invalid),
        }
    }

    fn len(&mut self) -> Result<usize, WireError> {
        let len = self.u32()?;
        usize::try_from(len).map_err(|_| WireError::Truncated)
    }

    fn bytes(&mut self) -> Result<Bytes, WireError> {
        let len = self.len()?;
        self.take(len)
    }

    fn text(&mut self, len: usize) -> Result<String, WireError> {
        String::from_utf8(self.take(len)?.into()).map_err(|_| WireError::Invalid)
    }

    fn str(&mut self) -> Result<Arc<str>, WireError> {
        let bytes = self.bytes()?;
        std::str::from_utf8(&bytes).map(Arc::from).map_err(|_| WireError::Invalid)
    }

    /// A list whose items take at least `min` bytes each.
    fn list<T>(
        &mut self,
        min: usize,
        mut item: impl FnMut(&mut Self) -> Result<T, WireError>,
    ) -> Result<Vec<T>, WireError> {
        let len = self.len()?;
        if len > self.0.len() / min {
            return Err(WireError::Truncated);
        }
        (0..len).map(|_| item(self)).collect()
    }

    fn rooms(&mut self) -> Result<Vec<Room>, WireError> {
        self.list(4, Self::str)
    }

    fn id(&mut self) -> Result<SocketId, WireError> {
        self.text(SocketId::LEN)?.parse().map_err(|_| WireError::Invalid)
    }

    fn args(&mut self) -> Result<Args, WireError> {
        let elements = self.str()?;
        let attachments = self.list(4, Self::bytes)?;
        if elements.is_empty() && attachments.is_empty() {
            return Ok(Args::none());
        }
        Args::from_json_array(&format!("[{elements}]"), attachments).map_err(|_| WireError::Invalid)
    }

    fn selector(&mut self) -> Result<Selector, WireError> {
        let to = if self.bool()? { Target::Rooms(self.rooms()?) } else { Target::All };
        Ok(Selector { to, except: self.rooms()?, local: false })
    }

    fn broadcast(&mut self) -> Result<Broadcast, WireError> {
        let (namespace, id, flags) = (self.str()?, self.u64()?, self.u8()?);
        if flags > 3 {
            return Err(WireError::Invalid);
        }
        let selector = self.selector()?;
        let frames = std::mem::take(&mut self.0);
        let (volatile, compress) = (flags & 1 != 0, flags & 2 != 0);
        Ok(Broadcast { namespace, id, selector, volatile, compress, journey: None, frames })
    }

    fn vitals(&mut self) -> Result<Vitals, WireError> {
        let mut known = Self(self.bytes()?);
        let (version, said_at) = (known.u8()?, known.u64()?);
        let (sockets, rooms) = (known.u64()?, known.u64()?);
        let listening = known.0.has_remaining().then(|| known.listening()).transpose()?;
        let standing = known.0.has_remaining().then(|| known.standing()).transpose()?;
        Ok(Vitals { version, said_at, sockets, rooms, listening, standing })
    }

    fn listening(&mut self) -> Result<Listening, WireError> {
        let (how, buckets) = (self.u8()?, self.u32()?);
        if !(1..=3).contains(&how) || buckets == 0 {
            return Err(WireError::Invalid);
        }
        Ok(Listening { exact: how & 1 != 0, hashed: how & 2 != 0, buckets })
    }

    fn op(&mut self) -> Result<Op, WireError> {
        Ok(match self.u8()? {
            0 => Op::Count(self.selector()?),
            1 => Op::Fetch(self.selector()?),
            2 => Op::Join(self.selector()?, self.rooms()?),
            3 => Op::Leave(self.selector()?, self.rooms()?),
            4 => Op::Disconnect(self.selector()?, self.bool()?),
            5 => Op::ServerEvent { name: self.str()?, args: self.args()? },
            6 => Op::Ask {
                selector: self.selector()?,
                name: self.str()?,
                args: self.args()?,
                timeout: Duration::from_millis(self.u64()?),
                trace: None,
            },
            _ => return Err(WireError::Invalid),
        })
    }

    fn answer(&mut self) -> Result<Answer, WireError> {
        Ok(match self.u8()? {
            0 => Answer::Nothing,
            1 => Answer::Count(self.u64()?),
            2 => Answer::Sockets(self.list(4, Self::bytes)?),
            3 => Answer::Reply(self.args()?),
            4 => Answer::Asked(self.list(SocketId::LEN, Self::id)?),
            5 => Answer::Settled(self.list(SocketId::LEN + 1, |reader| {
                let id = reader.id()?;
                let answer = if reader.bool()? { Some(reader.args()?) } else { None };
                Ok((id, answer))
            })?),
            6 => Answer::Refused,
            7 => Answer::Listed(self.listed()?),
            _ => return Err(WireError::Invalid),
        })
    }
}

#[path = "wire_directory.rs"]
mod directory;
#[path = "wire_host.rs"]
mod host;
#[path = "wire_journey.rs"]
mod journey;
#[path = "wire_once.rs"]
mod once;
#[path = "wire_reach.rs"]
mod reach;

pub(crate) use journey::set_age;

#[cfg(test)]
#[path = "wire_tests.rs"]
mod tests;
