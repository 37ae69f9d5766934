//! The bytes of the directory's messages.

use bytes::{Buf, BufMut, BytesMut};

use super::{Reader, WireError, put_list, put_str};
use crate::cluster::directory::{Announced, Entry, Known, Listed, Part, Query, Slot, Update};
use crate::cluster::message::Identity;
use crate::id::{NodeTag, SocketId};

pub(super) fn put_update(out: &mut BytesMut, update: &Update) {
    let Update { session, number, ring, clock, handover, taken, reset, authority, parts } = update;
    let numbers = [session, number, ring, clock, handover, &taken.0, &taken.1];
    numbers.into_iter().for_each(|number| out.put_u64_le(*number));
    for slots in [reset, authority] {
        put_list(out, slots, |out, slot| out.put_u16_le(slot.number()));
    }
    put_list(out, parts, |out, part| {
        put_str(out, &part.namespace);
        put_list(out, &part.entries, put_entry);
    });
}

fn put_entry(out: &mut BytesMut, entry: &Entry) {
    match entry {
        Entry::Count { room, sockets } => {
            out.put_u8(0);
            put_str(out, room);
            out.put_u32_le(*sockets);
        }
        Entry::Socket { id, here } => {
            out.put_u8(1);
            put_id(out, *id);
            out.put_u8(u8::from(*here));
        }
        Entry::Announced { room, announced, fresh } => {
            out.put_u8(2);
            put_str(out, room);
            out.put_u64_le(announced.number);
            out.put_u8(u8::from(announced.occupied));
            out.put_u8(u8::from(*fresh));
        }
        Entry::KeptCount { of, room, sockets } => {
            out.put_u8(3);
            put_identity(out, *of);
            put_str(out, room);
            out.put_u32_le(*sockets);
        }
        Entry::KeptSocket { of, id } => {
            out.put_u8(4);
            put_identity(out, *of);
            put_id(out, *id);
        }
    }
}

fn put_id(out: &mut BytesMut, id: SocketId) {
    out.put_slice(id.as_str().as_bytes());
}

fn put_tag(out: &mut BytesMut, tag: NodeTag) {
    out.put_slice(tag.as_str().as_bytes());
}

fn put_identity(out: &mut BytesMut, node: Identity) {
    put_tag(out, node.tag);
    out.put_u64_le(node.generation);
}

pub(super) fn put_query(out: &mut BytesMut, id: u64, query: &Query) {
    out.put_u64_le(id);
    match query {
        Query::Room { namespace, room } => {
            out.put_u8(0);
            put_str(out, namespace);
            put_str(out, room);
        }
        Query::Sockets { namespace, room, after, limit } => {
            out.put_u8(1);
            put_str(out, namespace);
            put_str(out, room);
            out.put_u8(u8::from(after.is_some()));
            if let Some(after) = after {
                put_id(out, *after);
            }
            out.put_u32_le(*limit);
        }
        Query::Rooms { namespace, after, limit } => {
            out.put_u8(2);
            put_str(out, namespace);
            out.put_u8(u8::from(after.is_some()));
            if let Some(after) = after {
                put_str(out, after);
            }
            out.put_u32_le(*limit);
        }
    }
}

pub(super) fn put_listed(out: &mut BytesMut, listed: &Listed) {
    put_list(out, &listed.rooms, |out, (room, sockets)| {
        put_str(out, room);
        out.put_u64_le(*sockets);
    });
    out.put_u64_le(u64::try_from(listed.age.as_millis()).unwrap_or(u64::MAX));
    put_list(out, &listed.missing, |out, tag| out.put_slice(tag.as_str().as_bytes()));
}

pub(super) fn put_found(out: &mut BytesMut, id: u64, known: Option<&Known>) {
    out.put_u64_le(id);
    out.put_u8(u8::from(known.is_some()));
    if let Some(known) = known {
        out.put_u64_le(known.sockets);
        out.put_u64_le(u64::try_from(known.age.as_millis()).unwrap_or(u64::MAX));
        put_list(out, &known.missing, |out, tag| put_tag(out, *tag));
    }
}

impl Reader {
    fn u16(&mut self) -> Result<u16, WireError> {
        self.0.try_get_u16_le().map_err(|_| WireError::Truncated)
    }

    fn tag(&mut self) -> Result<NodeTag, WireError> {
        self.text(NodeTag::LEN)?.parse().map_err(|_| WireError::Invalid)
    }

    fn identity(&mut self) -> Result<Identity, WireError> {
        Ok(Identity { tag: self.tag()?, generation: self.u64()? })
    }

    fn slots(&mut self) -> Result<Vec<Slot>, WireError> {
        self.list(2, |reader| Slot::new(reader.u16()?).ok_or(WireError::Invalid))
    }

    pub(super) fn update(&mut self) -> Result<Update, WireError> {
        Ok(Update {
            session: self.u64()?,
            number: self.u64()?,
            ring: self.u64()?,
            clock: self.u64()?,
            handover: self.u64()?,
            taken: (self.u64()?, self.u64()?),
            reset: self.slots()?,
            authority: self.slots()?,
            parts: self.list(8, |reader| {
                Ok(Part { namespace: reader.str()?, entries: reader.list(9, Self::entry)? })
            })?,
        })
    }

    fn entry(&mut self) -> Result<Entry, WireError> {
        Ok(match self.u8()? {
            0 => Entry::Count { room: self.str()?, sockets: self.u32()? },
            1 => Entry::Socket { id: self.id()?, here: self.bool()? },
            2 => Entry::Announced {
                room: self.str()?,
                announced: Announced { number: self.u64()?, occupied: self.bool()? },
                fresh: self.bool()?,
            },
            3 => Entry::KeptCount { of: self.identity()?, room: self.str()?, sockets: self.u32()? },
            4 => Entry::KeptSocket { of: self.identity()?, id: self.id()? },
            _ => return Err(WireError::Invalid),
        })
    }

    pub(super) fn query(&mut self) -> Result<Query, WireError> {
        match self.u8()? {
            0 => Ok(Query::Room { namespace: self.str()?, room: self.str()? }),
            1 => Ok(Query::Sockets {
                namespace: self.str()?,
                room: self.str()?,
                after: if self.bool()? { Some(self.id()?) } else { None },
                limit: self.u32()?,
            }),
            2 => Ok(Query::Rooms {
                namespace: self.str()?,
                after: if self.bool()? { Some(self.str()?) } else { None },
                limit: self.u32()?,
            }),
            _ => Err(WireError::Invalid),
        }
    }

    pub(super) fn listed(&mut self) -> Result<Listed, WireError> {
        Ok(Listed {
            rooms: self.list(12, |reader| Ok((reader.str()?, reader.u64()?)))?,
            age: std::time::Duration::from_millis(self.u64()?),
            missing: self.list(NodeTag::LEN, Self::tag)?,
        })
    }

    pub(super) fn known(&mut self) -> Result<Option<Known>, WireError> {
        if !self.bool()? {
            return Ok(None);
        }
        Ok(Some(Known {
            sockets: self.u64()?,
            age: std::time::Duration::from_millis(self.u64()?),
            missing: self.list(NodeTag::LEN, Self::tag)?,
        }))
    }
}
