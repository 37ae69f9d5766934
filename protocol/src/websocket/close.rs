//! Close frames (RFC 6455 sections 5.5.1 and 7.4).
//!
//! Owns which status codes may be on the wire and the layout of a close payload. It must not decide when to close.

use super::error::Error;
use super::utf8;

/// A status code that may appear in a close frame: 1000 to 1003, 1007 to 1014, 3000 to 4999 (RFC 6455 section 7.4, IANA
/// registry of close codes).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct CloseCode(u16);

impl CloseCode {
    /// 1000: the purpose of the connection is fulfilled.
    pub const NORMAL: Self = Self(1000);
    /// 1001: the endpoint goes away, for instance a server that shuts down.
    pub const GOING_AWAY: Self = Self(1001);
    /// 1002: a protocol error.
    pub const PROTOCOL_ERROR: Self = Self(1002);
    /// 1003: a kind of data that the endpoint cannot accept.
    pub const UNSUPPORTED_DATA: Self = Self(1003);
    /// 1007: data that is not what its type says, such as text that is not UTF-8.
    pub const INVALID_PAYLOAD: Self = Self(1007);
    /// 1008: a message that violates the policy of the endpoint.
    pub const POLICY_VIOLATION: Self = Self(1008);
    /// 1009: a message that is too big to process.
    pub const TOO_BIG: Self = Self(1009);
    /// 1010: the client expected an extension that was not negotiated.
    pub const EXTENSION_REQUIRED: Self = Self(1010);
    /// 1011: an unexpected condition on the server.
    pub const INTERNAL_ERROR: Self = Self(1011);
    /// 1012: the server restarts.
    pub const SERVICE_RESTART: Self = Self(1012);
    /// 1013: try again later.
    pub const TRY_AGAIN_LATER: Self = Self(1013);

    /// The code, or `None` if it must not be sent: below 1000, reserved (1004, 1005, 1006, 1015), unassigned, or above
    /// 4999.
    pub const fn new(code: u16) -> Option<Self> {
        match code {
            1000..=1003 | 1007..=1014 | 3000..=4999 => Some(Self(code)),
            _ => None,
        }
    }

    /// The number on the wire.
    pub const fn get(self) -> u16 {
        self.0
    }
}

impl From<CloseCode> for u16 {
    fn from(code: CloseCode) -> Self {
        code.0
    }
}

/// Reads the payload of a close frame.
pub(super) fn parse(payload: &[u8]) -> Result<Option<(CloseCode, &str)>, Error> {
    let Some((code, reason)) = payload.split_first_chunk::<2>() else {
        return if payload.is_empty() { Ok(None) } else { Err(Error::ClosePayload) };
    };
    let code = CloseCode::new(u16::from_be_bytes(*code)).ok_or(Error::CloseCode)?;
    let reason = utf8::validate(reason).map_err(|_| Error::InvalidUtf8)?;
    Ok(Some((code, reason)))
}

/// The payload of a close frame. A reason beyond the 123 bytes that fit is cut at a character boundary.
pub(super) fn payload(close: Option<(CloseCode, &str)>) -> Vec<u8> {
    let Some((code, reason)) = close else { return Vec::new() };
    let end = (0..=reason.len().min(123)).rev().find(|&end| reason.is_char_boundary(end)).unwrap_or(0);
    let reason = &reason[..end];
    let mut payload = Vec::with_capacity(2 + reason.len());
    payload.extend_from_slice(&code.0.to_be_bytes());
    payload.extend_from_slice(reason.as_bytes());
    payload
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_it_writes() {
        assert_eq!(parse(&payload(None)), Ok(None));
        assert_eq!(parse(&payload(Some((CloseCode::NORMAL, "")))), Ok(Some((CloseCode::NORMAL, ""))));
        let close = Some((CloseCode::GOING_AWAY, "grüße"));
        assert_eq!(parse(&payload(close)), Ok(close));
    }

    #[test]
    fn refuses_bad_payloads() {
        assert_eq!(parse(&[3]), Err(Error::ClosePayload));
        assert_eq!(parse(&[3, 0xe8, 0xff]), Err(Error::InvalidUtf8));
        for code in [0, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 65535_u16] {
            assert_eq!(parse(&code.to_be_bytes()), Err(Error::CloseCode), "{code}");
        }
    }

    #[test]
    fn a_long_reason_is_cut_between_characters() {
        let bytes = payload(Some((CloseCode::NORMAL, &"€".repeat(100))));
        assert_eq!(bytes.len(), 125);
        let bytes = payload(Some((CloseCode::NORMAL, &"é".repeat(100))));
        assert_eq!(bytes.len(), 124);
        assert!(parse(&bytes).is_ok());
    }
}
