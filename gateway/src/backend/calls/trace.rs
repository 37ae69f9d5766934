//! The trace that a call belongs to (W3C Trace Context). Owns what is a valid one; what is none is as if it were not there.

use std::fmt;

/// A valid `traceparent`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct TraceParent(String);

impl TraceParent {
    /// Reads a header. Of a later version the part that this one knows is kept, as the specification has it.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let text = text.trim();
        let mut parts = text.split('-');
        let (version, trace, span, flags) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
        let is_hex = |part: &str, len: usize| {
            part.len() == len && part.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
        };
        let is_some = |part: &str| part.bytes().any(|byte| byte != b'0');
        let valid = is_hex(version, 2)
            && version != "ff"
            && is_hex(trace, 32)
            && is_some(trace)
            && is_hex(span, 16)
            && is_some(span)
            && is_hex(flags, 2)
            && (version != "00" || parts.next().is_none());
        valid.then(|| Self(format!("00-{trace}-{span}-{flags}")))
    }

    /// The header.
    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }

    /// The id of the trace.
    pub(crate) fn trace_id(&self) -> &str {
        self.0.get(3..35).unwrap_or_default()
    }
}

impl fmt::Display for TraceParent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_trace_is_not_there() {
        let valid = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
        let trace = TraceParent::parse(valid).unwrap();
        assert_eq!((trace.as_str(), trace.trace_id()), (valid, "0af7651916cd43dd8448eb211c80319c"));
        let later = "cc-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-what-comes";
        assert_eq!(TraceParent::parse(later), Some(trace));
        for wrong in [
            "",
            "00-0AF7651916CD43DD8448EB211C80319C-b7ad6b7169203331-01",
            "00-00000000000000000000000000000000-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-x",
            "ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331",
            "00-é-b7ad6b7169203331-01",
        ] {
            assert_eq!(TraceParent::parse(wrong), None, "{wrong}");
        }
    }
}
