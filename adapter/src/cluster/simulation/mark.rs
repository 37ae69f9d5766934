//! The numbers by which the model knows its operations again, wherever they come by.
//!
//! Everything that the script sends carries `@<number>;` as plain text: the name of an event, or a room that nobody is
//! in among the excepted ones. So the model reads neither the wire format nor what a node makes of it.

use std::sync::Arc;

use roomcast_protocol::socketio::EncodedPacket;

/// The number of an operation.
pub(super) type Number = u32;

pub(super) fn mark(number: Number) -> String {
    format!("@{number};")
}

pub(super) fn room(number: Number) -> Arc<str> {
    mark(number).into()
}

/// The number of the operation that these bytes belong to.
pub(super) fn find(bytes: &[u8]) -> Option<Number> {
    let mut rest = bytes;
    while let Some(at) = rest.iter().position(|byte| *byte == b'@') {
        rest = rest.get(at + 1..)?;
        let digits = rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
        if digits > 0 && rest.get(digits) == Some(&b';') {
            return std::str::from_utf8(&rest[..digits]).ok()?.parse().ok();
        }
    }
    None
}

/// The operation of a packet, and the ack that it asks for.
pub(super) fn of_packet(packet: &EncodedPacket) -> Option<(Number, Option<u32>)> {
    let (_, text) = packet.messages().next()?;
    let number = find(text)?;
    let rest = text.strip_prefix(b"42")?;
    let digits = rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
    let ack = std::str::from_utf8(&rest[..digits]).ok()?.parse().ok();
    Some((number, ack))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_is_found_again() {
        for (bytes, expected) in [
            (&b"..@17;.."[..], Some(17)),
            (b"@@1@23;", Some(23)),
            (b"@;", None),
            (b"@12", None),
            (b"@", None),
            (b"", None),
        ] {
            assert_eq!(find(bytes), expected);
        }
    }
}
