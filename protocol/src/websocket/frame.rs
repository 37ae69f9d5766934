//! Frame headers (RFC 6455 section 5.2).
//!
//! Owns the layout of a header and the rules that a header alone can break. It must not know what came before: the order
//! of fragments and the size of messages are the decoder's.

use super::error::Error;

/// Which end of the connection we are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Role {
    /// We answer the handshake: what we read must be masked, what we write is not.
    Server,
    /// We opened the connection: what we read must not be masked, what we write is.
    Client,
}

/// What a frame is (RFC 6455 section 5.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum OpCode {
    /// The next fragment of a message.
    Continuation = 0x0,
    /// Text, or its first fragment.
    Text = 0x1,
    /// Bytes, or their first fragment.
    Binary = 0x2,
    /// The peer sends nothing more.
    Close = 0x8,
    /// Asks for a pong.
    Ping = 0x9,
    /// Answers a ping.
    Pong = 0xa,
}

impl OpCode {
    /// Whether this is a close, ping or pong.
    pub const fn is_control(self) -> bool {
        match self {
            Self::Close | Self::Ping | Self::Pong => true,
            Self::Continuation | Self::Text | Self::Binary => false,
        }
    }

    const fn from_nibble(nibble: u8) -> Option<Self> {
        match nibble {
            0x0 => Some(Self::Continuation),
            0x1 => Some(Self::Text),
            0x2 => Some(Self::Binary),
            0x8 => Some(Self::Close),
            0x9 => Some(Self::Ping),
            0xa => Some(Self::Pong),
            _ => None,
        }
    }
}

/// The longest payload of a control frame, in bytes (RFC 6455 section 5.5).
pub(super) const MAX_CONTROL: usize = 125;

/// The longest header: two bytes, a 64-bit length, a mask key.
pub(super) const MAX_HEADER: usize = 14;

/// A header that broke no rule of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) opcode: OpCode,
    pub(super) fin: bool,
    /// RSV1: the message is compressed. Only on the first frame of a message, and only if deflate was negotiated.
    pub(super) compressed: bool,
    /// Bytes of payload.
    pub(super) len: u64,
    /// All zero if the frame is not masked.
    pub(super) key: [u8; 4],
}

impl Header {
    /// Reads a header and its length in bytes from the beginning of `bytes`; `None` while it is incomplete.
    ///
    /// What can be refused is refused as soon as the byte that is wrong is there, so the error does not depend on how
    /// much came with it. Lengths in a longer form than needed are accepted, as by Node's `ws`.
    pub(super) fn parse(bytes: &[u8], role: Role, deflate: bool) -> Result<Option<(Self, usize)>, Error> {
        let Some(&first) = bytes.first() else { return Ok(None) };
        let opcode = OpCode::from_nibble(first & 0x0f);
        let fin = first & 0x80 != 0;
        let compressed = first & 0x40 != 0;
        let may_compress = deflate && matches!(opcode, Some(OpCode::Text | OpCode::Binary));
        if first & 0x30 != 0 || (compressed && !may_compress) {
            return Err(Error::ReservedBits);
        }
        let opcode = opcode.ok_or(Error::ReservedOpcode)?;
        if opcode.is_control() && !fin {
            return Err(Error::FragmentedControl);
        }

        let Some(&second) = bytes.get(1) else { return Ok(None) };
        let masked = match (role, second & 0x80 != 0) {
            (Role::Server, false) => return Err(Error::Unmasked),
            (Role::Client, true) => return Err(Error::Masked),
            (Role::Server, true) => true,
            (Role::Client, false) => false,
        };
        let short = second & 0x7f;
        if opcode.is_control() && usize::from(short) > MAX_CONTROL {
            return Err(Error::ControlTooLong);
        }

        let Some((len, after_len)) = read_length(short, &bytes[2..])? else { return Ok(None) };
        let (key, after_key) = if masked {
            match after_len.split_first_chunk::<4>() {
                Some((key, after_key)) => (*key, after_key),
                None => return Ok(None),
            }
        } else {
            ([0; 4], after_len)
        };
        let header = Self { opcode, fin, compressed, len, key };
        Ok(Some((header, bytes.len() - after_key.len())))
    }
}

/// The payload length, given its seven-bit form and the bytes behind it; `None` while it is incomplete.
fn read_length(short: u8, bytes: &[u8]) -> Result<Option<(u64, &[u8])>, Error> {
    match short {
        126 => Ok(bytes.split_first_chunk::<2>().map(|(len, rest)| (u16::from_be_bytes(*len).into(), rest))),
        127 if bytes.first().is_some_and(|byte| byte & 0x80 != 0) => Err(Error::LengthOverflow),
        127 => Ok(bytes.split_first_chunk::<8>().map(|(len, rest)| (u64::from_be_bytes(*len), rest))),
        _ => Ok(Some((short.into(), bytes))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn server(bytes: &[u8]) -> Result<Option<(Header, usize)>, Error> {
        Header::parse(bytes, Role::Server, true)
    }

    #[test]
    fn reads_every_length_form() {
        let header =
            |len| Header { opcode: OpCode::Binary, fin: true, compressed: false, len, key: [1, 2, 3, 4] };
        assert_eq!(server(&[0x82, 0xfd, 1, 2, 3, 4, 9]), Ok(Some((header(125), 6))));
        assert_eq!(server(&[0x82, 0xfe, 1, 0, 1, 2, 3, 4]), Ok(Some((header(256), 8))));
        let long = [0x82, 0xff, 0, 0, 0, 0, 0, 1, 0, 0, 1, 2, 3, 4];
        assert_eq!(long.len(), MAX_HEADER);
        assert_eq!(server(&long), Ok(Some((header(65536), 14))));
        for end in 0..long.len() {
            assert_eq!(server(&long[..end]), Ok(None));
        }
        // Longer than needed.
        assert_eq!(server(&[0x82, 0xfe, 0, 5, 1, 2, 3, 4]), Ok(Some((header(5), 8))));
        assert_eq!(server(&[0x82, 0xff, 0, 0, 0, 0, 0, 0, 0, 5, 1, 2, 3, 4]), Ok(Some((header(5), 14))));
    }

    #[test]
    fn refuses_at_the_byte_that_is_wrong() {
        assert_eq!(server(&[0xa1]), Err(Error::ReservedBits));
        assert_eq!(server(&[0x91]), Err(Error::ReservedBits));
        assert_eq!(server(&[0xc0]), Err(Error::ReservedBits), "RSV1 on a continuation");
        assert_eq!(server(&[0xc9]), Err(Error::ReservedBits), "RSV1 on a ping");
        assert_eq!(Header::parse(&[0xc1], Role::Server, false), Err(Error::ReservedBits));
        assert_eq!(server(&[0xc1]), Ok(None));
        for opcode in (3..8).chain(11..16) {
            assert_eq!(server(&[0x80 | opcode]), Err(Error::ReservedOpcode));
        }
        assert_eq!(server(&[0x09]), Err(Error::FragmentedControl));
        assert_eq!(server(&[0x89, 0xfe]), Err(Error::ControlTooLong));
        assert_eq!(server(&[0x81, 0x05]), Err(Error::Unmasked));
        assert_eq!(Header::parse(&[0x81, 0x85], Role::Client, false), Err(Error::Masked));
        assert_eq!(server(&[0x81, 0xff, 0x80]), Err(Error::LengthOverflow));
    }
}
