//! The bytes of what concerns the process behind a node.

use std::time::Duration;

use bytes::{BufMut, BytesMut};

use super::{Reader, WireError};
use crate::host::{DrainOrder, Drains, NodeState, Standing};

/// Bytes of a standing.
pub(super) const STANDING: u32 = 1 + 8;

/// Stands for a time that was not said.
const UNSAID: u64 = u64::MAX;

pub(super) fn put_standing(out: &mut BytesMut, standing: Standing) {
    out.put_u8(match standing.state {
        NodeState::Ready => 0,
        NodeState::Unready => 1,
        NodeState::Draining => 2,
    });
    out.put_u64_le(standing.connections);
}

pub(super) fn put_drain(out: &mut BytesMut, id: u64, order: DrainOrder) {
    out.put_u64_le(id);
    for time in [order.delay, order.period] {
        let millis = time.map(|time| u64::try_from(time.as_millis()).unwrap_or(UNSAID));
        out.put_u64_le(millis.unwrap_or(UNSAID));
    }
}

pub(super) fn put_draining(out: &mut BytesMut, id: u64, drains: Drains) {
    out.put_u64_le(id);
    out.put_u8(u8::from(drains.already));
    out.put_u64_le(drains.connections);
}

impl Reader {
    pub(super) fn standing(&mut self) -> Result<Standing, WireError> {
        let state = match self.u8()? {
            0 => NodeState::Ready,
            // A later version may know more of them: all mean that new clients go elsewhere.
            2 => NodeState::Draining,
            _ => NodeState::Unready,
        };
        Ok(Standing { state, connections: self.u64()? })
    }

    pub(super) fn drain_order(&mut self) -> Result<DrainOrder, WireError> {
        Ok(DrainOrder { delay: self.time()?, period: self.time()? })
    }

    fn time(&mut self) -> Result<Option<Duration>, WireError> {
        let millis = self.u64()?;
        Ok((millis != UNSAID).then(|| Duration::from_millis(millis)))
    }

    pub(super) fn drains(&mut self) -> Result<Drains, WireError> {
        Ok(Drains { already: self.bool()?, connections: self.u64()? })
    }
}
