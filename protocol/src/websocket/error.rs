//! What a peer can do wrong on an open connection.
//!
//! Owns the errors of the decoder and how each is reported: a stable code for logs and metrics, and a status code for
//! the close frame.

use super::close::CloseCode;

/// Why a connection has to be failed (RFC 6455 section 7.1.7).
///
/// An error is final: the decoder returns the same one ever after and reads no further bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// An RSV bit is set that no extension gave a meaning (RFC 6455 section 5.2, RFC 7692 section 6).
    #[error("reserved bits are set")]
    ReservedBits,
    /// An opcode of 3 to 7 or 11 to 15.
    #[error("reserved opcode")]
    ReservedOpcode,
    /// A control frame without FIN (RFC 6455 section 5.5).
    #[error("fragmented control frame")]
    FragmentedControl,
    /// A control frame of more than 125 bytes (RFC 6455 section 5.5).
    #[error("control frame of more than 125 bytes")]
    ControlTooLong,
    /// A client sent a frame without a mask (RFC 6455 section 5.1).
    #[error("frame of a client is not masked")]
    Unmasked,
    /// A server sent a frame with a mask (RFC 6455 section 5.1).
    #[error("frame of a server is masked")]
    Masked,
    /// A 64-bit length with the most significant bit set (RFC 6455 section 5.2).
    #[error("frame length exceeds 63 bits")]
    LengthOverflow,
    /// A continuation without a message to continue (RFC 6455 section 5.4).
    #[error("continuation frame outside a message")]
    UnexpectedContinuation,
    /// A new message while another one is not finished (RFC 6455 section 5.4).
    #[error("data frame inside a fragmented message")]
    ExpectedContinuation,
    /// A message in more fragments than the configured bound.
    #[error("too many fragments")]
    TooManyFragments,
    /// A message, as announced, received or inflated, is longer than the configured bound.
    #[error("message too big")]
    MessageTooBig,
    /// Text, or the reason in a close frame, is not UTF-8 (RFC 6455 section 8.1).
    #[error("text is not UTF-8")]
    InvalidUtf8,
    /// A compressed message is not a DEFLATE stream as RFC 7692 section 7.2 describes it.
    #[error("compressed data is damaged")]
    InvalidDeflate,
    /// A close frame with a payload of one byte (RFC 6455 section 5.5.1).
    #[error("close frame of one byte")]
    ClosePayload,
    /// A close frame with a status code that must not be sent (RFC 6455 section 7.4).
    #[error("invalid close code")]
    CloseCode,
}

impl Error {
    /// A name that stays the same across releases, for logs and metrics.
    pub const fn code(self) -> &'static str {
        match self {
            Self::ReservedBits => "ws_reserved_bits",
            Self::ReservedOpcode => "ws_reserved_opcode",
            Self::FragmentedControl => "ws_fragmented_control",
            Self::ControlTooLong => "ws_control_too_long",
            Self::Unmasked => "ws_unmasked",
            Self::Masked => "ws_masked",
            Self::LengthOverflow => "ws_length_overflow",
            Self::UnexpectedContinuation => "ws_unexpected_continuation",
            Self::ExpectedContinuation => "ws_expected_continuation",
            Self::TooManyFragments => "ws_too_many_fragments",
            Self::MessageTooBig => "ws_message_too_big",
            Self::InvalidUtf8 => "ws_invalid_utf8",
            Self::InvalidDeflate => "ws_invalid_deflate",
            Self::ClosePayload => "ws_close_payload",
            Self::CloseCode => "ws_close_code",
        }
    }

    /// The status to put into the close frame that answers this error (RFC 6455 section 7.4.1): 1007 for bad data, 1008
    /// for too many fragments (as Node's `ws`), 1009 for too much data, 1002 for everything else.
    pub const fn close_code(self) -> CloseCode {
        match self {
            Self::InvalidUtf8 | Self::InvalidDeflate => CloseCode::INVALID_PAYLOAD,
            Self::TooManyFragments => CloseCode::POLICY_VIOLATION,
            Self::MessageTooBig => CloseCode::TOO_BIG,
            Self::ReservedBits
            | Self::ReservedOpcode
            | Self::FragmentedControl
            | Self::ControlTooLong
            | Self::Unmasked
            | Self::Masked
            | Self::LengthOverflow
            | Self::UnexpectedContinuation
            | Self::ExpectedContinuation
            | Self::ClosePayload
            | Self::CloseCode => CloseCode::PROTOCOL_ERROR,
        }
    }
}

impl From<super::utf8::InvalidUtf8> for Error {
    fn from(_: super::utf8::InvalidUtf8) -> Self {
        Self::InvalidUtf8
    }
}
