//! Packets of Engine.IO v4.

use std::borrow::Cow;

use base64::Engine as _;
use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};

/// The reference decodes base64 as Node does, with or without padding.
const LENIENT: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new()
        .with_decode_padding_mode(DecodePaddingMode::Indifferent)
        .with_decode_allow_trailing_bits(true),
);

/// What a client sends in a session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Packet<'a> {
    /// `0`: only servers send it; ignored.
    Open,
    /// `1`: the session ends (on polling).
    Close,
    /// `2`: a probe, or a heartbeat in the wrong direction.
    Ping(&'a str),
    /// `3`: the answer to a heartbeat.
    Pong,
    /// `4`, or binary.
    Message(Message<'a>),
    /// `5`: the upgrade is complete.
    Upgrade,
    /// `6`.
    Noop,
}

/// The payload of a message packet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Message<'a> {
    /// Text.
    Text(&'a str),
    /// Binary: borrowed from a WebSocket frame, or decoded from base64.
    Binary(Cow<'a, [u8]>),
}

/// Text that is no packet: the session ends with "parse error".
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not an Engine.IO packet")]
pub struct ParseError;

impl<'a> Packet<'a> {
    /// Decodes a text: the whole of a WebSocket text frame, or one record of a polling payload. A `b` marks base64, also
    /// on WebSocket, for clients that were told to use it.
    pub fn decode(text: &'a str) -> Result<Self, ParseError> {
        let kind = *text.as_bytes().first().ok_or(ParseError)?;
        let data = text.get(1..).ok_or(ParseError)?;
        Ok(match kind {
            b'0' => Self::Open,
            b'1' => Self::Close,
            b'2' => Self::Ping(data),
            b'3' => Self::Pong,
            b'4' => Self::Message(Message::Text(data)),
            b'5' => Self::Upgrade,
            b'6' => Self::Noop,
            b'b' => Self::Message(Message::Binary(LENIENT.decode(data).map_err(|_| ParseError)?.into())),
            _ => return Err(ParseError),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decodes_every_kind() {
        assert_eq!(Packet::decode("2probe"), Ok(Packet::Ping("probe")));
        assert_eq!(Packet::decode("3"), Ok(Packet::Pong));
        assert_eq!(Packet::decode("4€"), Ok(Packet::Message(Message::Text("€"))));
        let binary = |bytes: &[u8]| Ok(Packet::Message(Message::Binary(bytes.to_vec().into())));
        assert_eq!(Packet::decode("bAQIDBA=="), binary(&[1, 2, 3, 4]));
        assert_eq!(Packet::decode("bAQIDBA"), binary(&[1, 2, 3, 4]));
        assert_eq!(Packet::decode("b"), binary(&[]));
        for bad in ["", "7", "x", "€", "b!", " 4"] {
            assert_eq!(Packet::decode(bad), Err(ParseError), "{bad}");
        }
    }
}
