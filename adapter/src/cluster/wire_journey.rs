//! The bytes of an emit that tells of its way: flags, its age in microseconds, its trace when it has one, and then what an
//! emit of the first version has.

use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};

use super::{Broadcast, Op, Reader, WireError, put_broadcast};
use crate::cluster::journey::Journey;
use crate::trace::TraceContext;

/// Where the age stands: behind the header of every message, and the flags.
pub(super) const AGE_AT: usize = 17;
const HAS_TRACE: u8 = 1;

/// More than an hour counts as that.
fn micros(age: Duration) -> u32 {
    u32::try_from(age.as_micros()).unwrap_or(u32::MAX)
}

pub(super) fn put_travelled(out: &mut BytesMut, journey: &Journey, broadcast: &Broadcast) {
    out.put_u8(if journey.trace.is_some() { HAS_TRACE } else { 0 });
    debug_assert_eq!(out.len(), AGE_AT);
    out.put_u32_le(micros(journey.age));
    if let Some(trace) = journey.trace {
        out.put_slice(&trace.to_bytes());
    }
    put_broadcast(out, broadcast);
}

/// Writes how old an emit is now that it is handed to the broker. Changes nothing when others hold the bytes too.
pub(crate) fn set_age(payload: Bytes, age: Duration) -> Bytes {
    let mut payload = match payload.try_into_mut() {
        Ok(payload) => payload,
        Err(payload) => return payload,
    };
    if let Some(place) = payload.get_mut(AGE_AT..AGE_AT + 4) {
        place.copy_from_slice(&micros(age).to_le_bytes());
    }
    payload.freeze()
}

impl Reader {
    pub(super) fn travelled(&mut self) -> Result<Broadcast, WireError> {
        let flags = self.u8()?;
        if flags > HAS_TRACE {
            return Err(WireError::Invalid);
        }
        let age = Duration::from_micros(self.u32()?.into());
        let trace = if flags == HAS_TRACE { Some(self.trace()?) } else { None };
        Ok(Broadcast { journey: Some(Journey { age, trace }), ..self.broadcast()? })
    }

    /// A trace, and an emit with acks as it is without one.
    pub(super) fn traced_ask(&mut self) -> Result<Op, WireError> {
        let traced = Some(self.trace()?);
        match self.op()? {
            Op::Ask { selector, name, args, timeout, trace: _ } => {
                Ok(Op::Ask { selector, name, args, timeout, trace: traced })
            }
            _ => Err(WireError::Invalid),
        }
    }

    fn trace(&mut self) -> Result<TraceContext, WireError> {
        let bytes = self.take(TraceContext::LEN)?;
        let bytes = bytes.as_ref().try_into().map_err(|_| WireError::Truncated)?;
        TraceContext::from_bytes(bytes).ok_or(WireError::Invalid)
    }
}
