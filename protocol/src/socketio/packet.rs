//! The parts of a Socket.IO packet.

use std::fmt;

/// Packet types of Socket.IO v5, with their digits on the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum PacketType {
    /// `0`: a client asks for a namespace, or a server grants it.
    Connect,
    /// `1`: either side leaves a namespace.
    Disconnect,
    /// `2`: an event without binary.
    Event,
    /// `3`: an ack without binary.
    Ack,
    /// `4`: a server refuses a namespace.
    ConnectError,
    /// `5`: an event with binary attachments.
    BinaryEvent,
    /// `6`: an ack with binary attachments.
    BinaryAck,
}

impl PacketType {
    /// The type of a digit, if it is one.
    pub fn from_digit(digit: u8) -> Option<Self> {
        Some(match digit {
            b'0' => Self::Connect,
            b'1' => Self::Disconnect,
            b'2' => Self::Event,
            b'3' => Self::Ack,
            b'4' => Self::ConnectError,
            b'5' => Self::BinaryEvent,
            b'6' => Self::BinaryAck,
            _ => return None,
        })
    }

    /// The digit of the type.
    pub fn digit(self) -> u8 {
        match self {
            Self::Connect => b'0',
            Self::Disconnect => b'1',
            Self::Event => b'2',
            Self::Ack => b'3',
            Self::ConnectError => b'4',
            Self::BinaryEvent => b'5',
            Self::BinaryAck => b'6',
        }
    }

    /// True for the types that announce attachments.
    pub fn is_binary(self) -> bool {
        matches!(self, Self::BinaryEvent | Self::BinaryAck)
    }
}

/// So many decimal digits always fit a double.
const EXACT_DIGITS: usize = 15;

/// An ack id as JavaScript keeps it: a double. Leading zeros are lost (`007` is `7`) and ids above 2^53 lose precision,
/// exactly as they do in the reference, whose clients match ids by that number.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct AckId(f64);

impl AckId {
    /// Reads decimal digits. `None` when the number is too large for a double.
    pub(crate) fn from_digits(digits: &str) -> Option<Self> {
        if digits.len() <= EXACT_DIGITS {
            // Nearly all; much cheaper.
            return digits.parse::<u64>().ok().map(|number| Self(number as f64));
        }
        digits.parse::<f64>().ok().filter(|number| number.is_finite()).map(Self)
    }

    /// The id as an integer, when it is one that this server could have given out.
    pub fn as_u64(self) -> Option<u64> {
        const MAX_SAFE_INTEGER: f64 = 9_007_199_254_740_991.0;
        (self.0 <= MAX_SAFE_INTEGER).then_some(self.0 as u64)
    }
}

impl From<u32> for AckId {
    fn from(id: u32) -> Self {
        Self(f64::from(id))
    }
}

impl fmt::Display for AckId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// One decoded packet, borrowed from the message that it came in.
#[derive(Debug, Clone, PartialEq)]
pub struct Packet<'a> {
    /// The type.
    pub kind: PacketType,
    /// The number of binary messages that follow; 0 unless the type is binary.
    pub attachments: usize,
    /// The namespace, `/` when none was written.
    pub namespace: &'a str,
    /// The ack id.
    pub id: Option<AckId>,
    /// The JSON payload, not yet looked at.
    pub data: Option<&'a str>,
}
