//! The trace that something belongs to, as W3C Trace Context writes it. Owns its form; what a span is, nobody here knows.

use std::fmt;

/// The place in a trace from which further spans go out: a valid `traceparent`.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct TraceContext {
    trace: u128,
    span: u64,
    flags: u8,
}

/// The flag that says that the trace is recorded.
const SAMPLED: u8 = 1;

impl TraceContext {
    /// Bytes that [`TraceContext::to_bytes`] gives.
    pub const LEN: usize = 25;

    /// A context, unless one of the two is 0, which stands for none.
    pub fn new(trace: u128, span: u64, sampled: bool) -> Option<Self> {
        (trace != 0 && span != 0).then_some(Self { trace, span, flags: u8::from(sampled) })
    }

    /// Reads a `traceparent` header. Of a later version the part that this one knows is kept, as the specification has it.
    pub fn parse(text: &str) -> Option<Self> {
        let mut parts = text.trim().split('-');
        let version = hex(parts.next()?, 2)?;
        let (trace, span) = (hex(parts.next()?, 32)?, hex(parts.next()?, 16)?);
        let flags = hex(parts.next()?, 2)?;
        if version == 0xff || version == 0 && parts.next().is_some() {
            return None;
        }
        let context = Self::new(trace, u64::try_from(span).ok()?, false)?;
        Some(Self { flags: u8::try_from(flags).ok()?, ..context })
    }

    /// The form between nodes.
    pub fn to_bytes(self) -> [u8; Self::LEN] {
        let mut bytes = [0; Self::LEN];
        bytes[..16].copy_from_slice(&self.trace.to_be_bytes());
        bytes[16..24].copy_from_slice(&self.span.to_be_bytes());
        bytes[24] = self.flags;
        bytes
    }

    /// The opposite of [`TraceContext::to_bytes`].
    pub fn from_bytes(bytes: [u8; Self::LEN]) -> Option<Self> {
        let [head @ .., flags] = bytes;
        let number = |bytes: &[u8]| bytes.iter().fold(0, |sum, byte| sum << 8 | u128::from(*byte));
        let (trace, span) = head.split_at(16);
        let context = Self::new(number(trace), u64::try_from(number(span)).ok()?, false)?;
        Some(Self { flags, ..context })
    }

    /// The id of the trace.
    pub fn trace(self) -> u128 {
        self.trace
    }

    /// The id of the span.
    pub fn span(self) -> u64 {
        self.span
    }

    /// Whether the trace is recorded.
    pub fn is_sampled(self) -> bool {
        self.flags & SAMPLED != 0
    }

    /// The id of the trace as logs and other tools write it.
    pub fn trace_id(self) -> String {
        format!("{:032x}", self.trace)
    }
}

/// The number in exactly so many lower-case hexadecimal digits.
fn hex(text: &str, digits: usize) -> Option<u128> {
    let valid = text.len() == digits && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    valid.then(|| u128::from_str_radix(text, 16).ok()).flatten()
}

/// The `traceparent` header.
impl fmt::Display for TraceContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "00-{:032x}-{:016x}-{:02x}", self.trace, self.span, self.flags)
    }
}

impl fmt::Debug for TraceContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const VALID: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    #[test]
    fn what_is_no_trace_is_not_there() {
        let trace = TraceContext::parse(VALID).unwrap();
        assert_eq!((trace.to_string(), trace.is_sampled()), (VALID.to_owned(), true));
        assert_eq!(trace.trace_id(), "0af7651916cd43dd8448eb211c80319c");
        let later = "cc-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-what-comes";
        assert_eq!(TraceContext::parse(later), Some(trace));
        for wrong in [
            "",
            "00-0AF7651916CD43DD8448EB211C80319C-b7ad6b7169203331-01",
            "00-00000000000000000000000000000000-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-x",
            "ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331",
            "00-+af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            "00-é-b7ad6b7169203331-01",
        ] {
            assert_eq!(TraceContext::parse(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn bytes_say_the_same() {
        let trace = TraceContext::parse(VALID).unwrap();
        assert_eq!(TraceContext::from_bytes(trace.to_bytes()), Some(trace));
        assert_eq!(TraceContext::from_bytes([0; TraceContext::LEN]), None);
        assert!(TraceContext::new(1, 0, true).is_none() && TraceContext::new(0, 1, true).is_none());
    }
}
