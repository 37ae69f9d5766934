//! Messages to bytes.
//!
//! Owns the layout of outgoing frames. It must not choose mask keys: they are arguments, from a source that the peer
//! cannot predict (RFC 6455 section 10.3).

use bytes::Bytes;

use super::close::{self, CloseCode};
use super::deflate::{Deflater, deflated_frame};
use super::frame::{MAX_CONTROL, MAX_HEADER, OpCode};
use super::mask;

/// The longest header of an unmasked frame, in bytes.
pub const MAX_SERVER_HEADER: usize = 10;

/// Appends the header of an unmasked frame with `len` bytes of payload (RFC 6455 section 5.2).
pub fn write_header(out: &mut Vec<u8>, opcode: OpCode, fin: bool, rsv1: bool, len: usize) {
    write_masked_header(out, opcode, fin, rsv1, len, 0);
}

fn write_masked_header(out: &mut Vec<u8>, opcode: OpCode, fin: bool, rsv1: bool, len: usize, mask_bit: u8) {
    out.push(u8::from(fin) << 7 | u8::from(rsv1) << 6 | opcode as u8);
    match (u8::try_from(len), u16::try_from(len)) {
        (Ok(short @ 0..=125), _) => out.push(mask_bit | short),
        (_, Ok(len)) => {
            out.push(mask_bit | 126);
            out.extend_from_slice(&len.to_be_bytes());
        }
        _ => {
            out.push(mask_bit | 127);
            out.extend_from_slice(&(len as u64).to_be_bytes());
        }
    }
}

/// A whole unmasked frame, as a server sends it.
///
/// A control frame carries at most 125 bytes (RFC 6455 section 5.5); what exceeds them is cut.
pub fn frame(opcode: OpCode, payload: &[u8]) -> Bytes {
    let payload = fitting(opcode, payload);
    let mut out = Vec::with_capacity(MAX_SERVER_HEADER + payload.len());
    write_header(&mut out, opcode, true, false, payload.len());
    out.extend_from_slice(payload);
    // Exact: a frame may stay in the queues of many connections.
    out.shrink_to_fit();
    out.into()
}

/// A whole masked frame, as a client sends it. A control frame carries at most 125 bytes; what exceeds them is cut.
pub fn masked_frame(opcode: OpCode, payload: &[u8], key: [u8; 4]) -> Vec<u8> {
    masked_fragment(opcode, true, false, fitting(opcode, payload), key)
}

/// A masked frame with every bit given: to send fragments, and compressed messages (`rsv1` on the first fragment).
pub fn masked_fragment(opcode: OpCode, fin: bool, rsv1: bool, payload: &[u8], key: [u8; 4]) -> Vec<u8> {
    let mut out = Vec::with_capacity(MAX_HEADER + payload.len());
    write_masked_header(&mut out, opcode, fin, rsv1, payload.len(), 0x80);
    out.extend_from_slice(&key);
    let start = out.len();
    out.extend_from_slice(payload);
    mask::apply(&mut out[start..], key);
    out
}

fn fitting(opcode: OpCode, payload: &[u8]) -> &[u8] {
    if opcode.is_control() { &payload[..payload.len().min(MAX_CONTROL)] } else { payload }
}

/// A server frame that was encoded once and can be sent to any number of connections.
///
/// Server frames are not masked, so the same bytes serve everybody; a clone shares them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PreparedFrame(Bytes);

impl PreparedFrame {
    /// A text message.
    pub fn text(text: &str) -> Self {
        Self(frame(OpCode::Text, text.as_bytes()))
    }

    /// A binary message.
    pub fn binary(payload: &[u8]) -> Self {
        Self(frame(OpCode::Binary, payload))
    }

    /// A ping with at most 125 bytes; what exceeds them is cut.
    pub fn ping(payload: &[u8]) -> Self {
        Self(frame(OpCode::Ping, payload))
    }

    /// A pong with the bytes of the ping that it answers.
    pub fn pong(payload: &[u8]) -> Self {
        Self(frame(OpCode::Pong, payload))
    }

    /// A close frame. A reason beyond 123 bytes is cut at a character boundary.
    pub fn close(close: Option<(CloseCode, &str)>) -> Self {
        Self(frame(OpCode::Close, &close::payload(close)))
    }

    /// A compressed message, for connections that negotiated permessage-deflate with a window of at least that of the
    /// deflater ([`Negotiated::shares_frames`](super::Negotiated::shares_frames)).
    pub fn deflated(deflater: &mut Deflater, opcode: OpCode, payload: &[u8]) -> Self {
        Self(deflated_frame(deflater, opcode, payload))
    }

    /// Header and payload.
    pub fn as_bytes(&self) -> &Bytes {
        &self.0
    }

    /// Header and payload.
    pub fn into_bytes(self) -> Bytes {
        self.0
    }
}

impl AsRef<[u8]> for PreparedFrame {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl From<PreparedFrame> for Bytes {
    fn from(frame: PreparedFrame) -> Self {
        frame.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_are_as_short_as_they_can_be() {
        let header = |len| {
            let mut out = Vec::new();
            write_header(&mut out, OpCode::Binary, true, false, len);
            out
        };
        assert_eq!(header(125), [0x82, 125]);
        assert_eq!(header(126), [0x82, 126, 0, 126]);
        assert_eq!(header(65_535), [0x82, 126, 0xff, 0xff]);
        assert_eq!(header(65_536), [0x82, 127, 0, 0, 0, 0, 0, 1, 0, 0]);
        assert_eq!(header(65_536).len(), MAX_SERVER_HEADER);
    }

    #[test]
    fn control_frames_are_cut_to_what_is_allowed() {
        assert_eq!(PreparedFrame::ping(&[7; 200]).as_bytes().len(), 2 + 125);
        assert_eq!(
            PreparedFrame::close(Some((CloseCode::NORMAL, &"é".repeat(99)))).as_bytes().len(),
            2 + 124
        );
        assert_eq!(PreparedFrame::close(None).as_ref(), [0x88, 0]);
    }

    #[test]
    fn clones_share_their_bytes() {
        let frame = PreparedFrame::text("Hello");
        assert_eq!(frame.as_ref().as_ptr(), frame.clone().as_ref().as_ptr());
    }
}
