//! The JSON parser of Socket.IO: `type[attachments-][namespace,][id][json]`.
//!
//! Follows socket.io-parser 4.2.7 in what it accepts, so that no client that works there fails here.

use std::borrow::Cow;

use serde::de::{self, IgnoredAny, SeqAccess, Visitor};

use super::client::Violation;
use super::packet::{AckId, Packet, PacketType};

/// Event names that a client may not send (socket.io-parser, `RESERVED_EVENTS`).
const RESERVED_EVENTS: [&str; 6] =
    ["connect", "connect_error", "disconnect", "disconnecting", "newListener", "removeListener"];

/// Decodes the text of one packet. Payloads are not validated yet.
pub(super) fn decode(text: &str, max_attachments: usize) -> Result<Packet<'_>, Violation> {
    let kind = text.bytes().next().and_then(PacketType::from_digit).ok_or(Violation::UnknownPacketType)?;
    let mut rest = &text[1..];
    let mut attachments = 0;
    if kind.is_binary() {
        let (count, after) = rest.split_once('-').ok_or(Violation::IllegalAttachments)?;
        attachments = attachment_count(count, max_attachments)?;
        rest = after;
    }
    let namespace = if rest.starts_with('/') {
        let (namespace, after) = rest.split_once(',').unwrap_or((rest, ""));
        rest = after;
        namespace
    } else {
        "/"
    };
    let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
    let (id, data) = rest.split_at(digits);
    let id = match id {
        "" => None,
        digits => Some(AckId::from_digits(digits).ok_or(Violation::InvalidAckId)?),
    };
    Ok(Packet { kind, attachments, namespace, id, data: (!data.is_empty()).then_some(data) })
}

/// The reference reads the count as a JavaScript number, so `1e1` is ten (and some clients have been seen to rely on
/// stranger things); zero is refused since it left the decoder waiting for ever (socket.io-parser 4.2.7).
fn attachment_count(text: &str, max: usize) -> Result<usize, Violation> {
    let count = text.parse::<f64>().map_err(|_| Violation::IllegalAttachments)?;
    if !count.is_finite() || count.fract() != 0.0 || count < 1.0 {
        return Err(Violation::IllegalAttachments);
    }
    if count > max as f64 {
        return Err(Violation::TooManyAttachments);
    }
    Ok(count as usize)
}

/// An event payload taken apart: its name and the text of its arguments.
#[derive(Debug, PartialEq)]
pub(super) struct EventParts<'a> {
    pub(super) name: Cow<'a, str>,
    /// The elements after the name, without brackets.
    pub(super) elements: &'a str,
}

/// Validates the payload of an event: a non-empty array that begins with a name.
pub(super) fn event(data: &str) -> Result<EventParts<'_>, Violation> {
    struct NameFirst;

    impl<'de> Visitor<'de> for NameFirst {
        type Value = &'de serde_json::value::RawValue;

        fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("an array that begins with an event name")
        }

        fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
            let name = seq.next_element()?.ok_or_else(|| de::Error::custom("no event name"))?;
            while seq.next_element::<IgnoredAny>()?.is_some() {}
            Ok(name)
        }
    }

    let mut deserializer = serde_json::Deserializer::from_str(data);
    let name = de::Deserializer::deserialize_seq(&mut deserializer, NameFirst)
        .and_then(|name| deserializer.end().map(|()| name.get()))
        .map_err(|_| Violation::InvalidPayload)?;
    let parsed = event_name(name)?;
    if RESERVED_EVENTS.contains(&&*parsed) {
        return Err(Violation::ReservedEvent);
    }
    let after_name = name.as_ptr() as usize - data.as_ptr() as usize + name.len();
    let elements = inside(&data[after_name..]);
    Ok(EventParts {
        name: parsed,
        elements: elements.strip_prefix(',').map_or(elements, str::trim_ascii_start),
    })
}

/// A string, or a number as JavaScript would turn it into a property name.
fn event_name(json: &str) -> Result<Cow<'_, str>, Violation> {
    if json.starts_with('"') {
        let plain = &json[1..json.len() - 1];
        if memchr::memchr(b'\\', plain.as_bytes()).is_none() {
            return Ok(Cow::Borrowed(plain));
        }
        return serde_json::from_str(json).map(Cow::Owned).map_err(|_| Violation::InvalidPayload);
    }
    let number: f64 = serde_json::from_str(json).map_err(|_| Violation::InvalidPayload)?;
    Ok(Cow::Owned(number.to_string()))
}

/// Validates the payload of an ack, an array, and gives its elements.
pub(super) fn ack(data: &str) -> Result<&str, Violation> {
    let data = data.trim_ascii();
    if !data.starts_with('[') || serde_json::from_str::<IgnoredAny>(data).is_err() {
        return Err(Violation::InvalidPayload);
    }
    Ok(inside(&data[1..]).trim_ascii_start())
}

/// Validates the payload of a CONNECT: an object.
pub(super) fn connect(data: &str) -> Result<&str, Violation> {
    let data = data.trim_ascii();
    if !data.starts_with('{') || serde_json::from_str::<IgnoredAny>(data).is_err() {
        return Err(Violation::InvalidPayload);
    }
    Ok(data)
}

/// What stands before the closing bracket of an array that was validated.
fn inside(tail: &str) -> &str {
    let tail = tail.trim_ascii();
    tail.strip_suffix(']').unwrap_or(tail).trim_ascii()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packet(text: &str) -> Packet<'_> {
        decode(text, 10).unwrap()
    }

    #[test]
    fn decodes_every_part() {
        assert_eq!(
            packet(r#"51-/admin,456["project:delete",{"_placeholder":true,"num":0}]"#),
            Packet {
                kind: PacketType::BinaryEvent,
                attachments: 1,
                namespace: "/admin",
                id: Some(AckId::from(456)),
                data: Some(r#"["project:delete",{"_placeholder":true,"num":0}]"#),
            }
        );
        assert_eq!(packet("0").namespace, "/");
        assert_eq!(packet("0/admin").namespace, "/admin");
        assert_eq!(packet("0/admin,").namespace, "/admin");
        assert_eq!(packet(r#"0/admin,{"a":1}"#).data, Some(r#"{"a":1}"#));
        assert_eq!(packet("2007[1]").id.unwrap().to_string(), "7");
        assert_eq!(packet("2100000000000000000000[1]").id.unwrap().to_string(), "100000000000000000000");
    }

    #[test]
    fn attachment_counts_are_javascript_numbers_in_range() {
        assert_eq!(decode("51e1-[1]", 10).unwrap().attachments, 10);
        for bad in ["5", "5[1]", "5-[1]", "50-[1]", "5-1-[1]", "51.5-[1]", "5x-[1]", "5NaN-[1]", "5inf-[1]"] {
            assert_eq!(decode(bad, 10).unwrap_err(), Violation::IllegalAttachments, "{bad}");
        }
        for bad in ["511-[1]", "51000000000-[1]"] {
            assert_eq!(decode(bad, 10).unwrap_err(), Violation::TooManyAttachments, "{bad}");
        }
        assert_eq!(decode("9", 10).unwrap_err(), Violation::UnknownPacketType);
        assert_eq!(decode("", 10).unwrap_err(), Violation::UnknownPacketType);
        assert_eq!(decode("é", 10).unwrap_err(), Violation::UnknownPacketType);
    }

    #[test]
    fn events_need_a_name_that_is_not_reserved() {
        let parts = event(r#"["a" , 1 , [2] ]"#).unwrap();
        assert_eq!((parts.name.as_ref(), parts.elements), ("a", "1 , [2]"));
        assert_eq!(event(r#"["a"]"#).unwrap().elements, "");
        assert_eq!(event(r#"["\u0061\n",1]"#).unwrap().name, "a\n");
        assert_eq!(event("[7.0,1]").unwrap().name, "7");
        for bad in ["[]", "null", "{}", "[{}]", "[null]", "[[1]]", r#"["a""#, r#"["a"]x"#, r#""a""#, "[true]"]
        {
            assert_eq!(event(bad).unwrap_err(), Violation::InvalidPayload, "{bad}");
        }
        for name in RESERVED_EVENTS {
            assert_eq!(event(&format!(r#"["{name}"]"#)).unwrap_err(), Violation::ReservedEvent);
        }
        assert_eq!(event(r#"["connec\u0074"]"#).unwrap_err(), Violation::ReservedEvent);
    }

    #[test]
    fn lone_surrogates_pass_through_as_in_javascript() {
        assert_eq!(event(r#"["a","\ud800"]"#).unwrap().elements, r#""\ud800""#);
    }

    #[test]
    fn deep_nesting_costs_no_stack() {
        let deep = format!(r#"["a",{}{}]"#, "[".repeat(100_000), "]".repeat(100_000));
        let elements = event(&deep).unwrap().elements;
        assert_eq!(elements.len(), 200_000);
        // Whoever decodes it gets an error at 128 levels.
        assert!(serde_json::from_str::<serde_json::Value>(elements).is_err());
    }
}
