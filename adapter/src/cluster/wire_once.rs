//! The bytes of the messages about calls that are carried out once.

use bytes::{BufMut, Bytes, BytesMut};

use super::{Reader, WireError, put_bytes};
use crate::id::NodeTag;
use crate::once::{Claimant, OnceKey, Progress, Record, Verdict};

/// Bytes of a record, at least.
pub(super) const MIN_RECORD: usize = 32 + 16 + NodeTag::LEN + 8 + 1 + 8;

fn put_key(out: &mut BytesMut, key: &OnceKey) {
    out.put_slice(&key.call);
    out.put_slice(&key.body);
}

fn put_answer(out: &mut BytesMut, answer: Option<&Bytes>) {
    out.put_u8(u8::from(answer.is_some()));
    if let Some(answer) = answer {
        put_bytes(out, answer);
    }
}

pub(super) fn put_claim(out: &mut BytesMut, id: u64, key: &OnceKey) {
    out.put_u64_le(id);
    put_key(out, key);
}

pub(super) fn put_claimed(out: &mut BytesMut, id: u64, verdict: &Verdict) {
    out.put_u64_le(id);
    match verdict {
        Verdict::Granted => out.put_u8(0),
        Verdict::Before(answer) => {
            out.put_u8(1);
            put_answer(out, answer.as_ref());
        }
        Verdict::Busy => out.put_u8(2),
        Verdict::Other => out.put_u8(3),
    }
}

pub(super) fn put_record(out: &mut BytesMut, record: &Record) {
    put_key(out, &record.key);
    out.put_slice(record.claimant.node.as_str().as_bytes());
    out.put_u64_le(record.claimant.number);
    out.put_u64_le(record.left);
    match &record.progress {
        Progress::InHand => out.put_u8(0),
        Progress::Done(answer) => {
            out.put_u8(1);
            put_answer(out, answer.as_ref());
        }
        Progress::Failed => out.put_u8(2),
    }
}

impl Reader {
    pub(super) fn array<const N: usize>(&mut self) -> Result<[u8; N], WireError> {
        self.take(N)?.as_ref().try_into().map_err(|_| WireError::Truncated)
    }

    pub(super) fn once_key(&mut self) -> Result<OnceKey, WireError> {
        Ok(OnceKey { call: self.array()?, body: self.array()? })
    }

    fn kept_answer(&mut self) -> Result<Option<Bytes>, WireError> {
        // A copy: the message that it came in is not kept as long.
        self.bool()?.then(|| self.bytes().map(|answer| Bytes::copy_from_slice(&answer))).transpose()
    }

    pub(super) fn verdict(&mut self) -> Result<Verdict, WireError> {
        Ok(match self.u8()? {
            0 => Verdict::Granted,
            1 => Verdict::Before(self.kept_answer()?),
            2 => Verdict::Busy,
            3 => Verdict::Other,
            _ => return Err(WireError::Invalid),
        })
    }

    pub(super) fn record(&mut self) -> Result<Record, WireError> {
        let key = self.once_key()?;
        let node = self.text(NodeTag::LEN)?.parse().map_err(|_| WireError::Invalid)?;
        let claimant = Claimant { node, number: self.u64()? };
        let left = self.u64()?;
        let progress = match self.u8()? {
            0 => Progress::InHand,
            1 => Progress::Done(self.kept_answer()?),
            2 => Progress::Failed,
            _ => return Err(WireError::Invalid),
        };
        Ok(Record { key, claimant, progress, left })
    }
}
