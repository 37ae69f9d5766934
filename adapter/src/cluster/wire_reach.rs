//! The bytes of what nodes say about where they are reached.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use bytes::{Buf as _, BufMut as _, BytesMut};

use super::{Reader, WireError};
use crate::reach::{Reach, ReachKey};

/// With a length, so that a later version may say more.
pub(super) fn put_reach(out: &mut BytesMut, reach: &Reach) {
    let len = |address: usize| u32::try_from(1 + address + 2 + ReachKey::LEN).unwrap_or(u32::MAX);
    match reach.address.ip() {
        IpAddr::V4(ip) => {
            out.put_u32_le(len(4));
            out.put_u8(4);
            out.put_slice(&ip.octets());
        }
        IpAddr::V6(ip) => {
            out.put_u32_le(len(16));
            out.put_u8(6);
            out.put_slice(&ip.octets());
        }
    }
    out.put_u16_le(reach.address.port());
    out.put_slice(reach.key.expose());
}

impl Reader {
    /// An address at which nobody can listen is none.
    pub(super) fn reach(&mut self) -> Result<Reach, WireError> {
        let mut known = Self(self.bytes()?);
        let ip: IpAddr = match known.u8()? {
            4 => Ipv4Addr::from(known.array::<4>()?).into(),
            6 => Ipv6Addr::from(known.array::<16>()?).into(),
            _ => return Err(WireError::Invalid),
        };
        let port = known.0.try_get_u16_le().map_err(|_| WireError::Truncated)?;
        let key = ReachKey::new(known.array()?);
        if ip.is_unspecified() || ip.is_multicast() || port == 0 {
            return Err(WireError::Invalid);
        }
        Ok(Reach { address: SocketAddr::new(ip, port), key })
    }
}
