//! The polling payload: packets separated by 0x1e (Engine.IO v4, section "Payload").

/// The records of a payload. An empty payload is one empty record, which is no packet.
pub fn records(payload: &str) -> impl Iterator<Item = &str> {
    payload.split('\u{1e}')
}
