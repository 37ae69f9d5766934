//! Entries of a stream, as Redis gives them. Owns their form; what they ask for is not looked at.

use bytes::Bytes;
use roomcast_adapter::redis::RedisReply;
use sha2::{Digest as _, Sha256};

/// One entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) id: String,
    pub(super) fields: Vec<(Bytes, Bytes)>,
}

impl Entry {
    /// A field, the first of its name.
    pub(super) fn field(&self, name: &str) -> Option<&Bytes> {
        self.fields.iter().find(|(field, _)| field == name).map(|(_, value)| value)
    }
}

fn bytes(frame: &RedisReply) -> Option<Bytes> {
    match frame {
        RedisReply::Bytes(bytes) => Some(bytes.clone()),
        _ => None,
    }
}

/// From the answers of XREADGROUP to one stream: nothing when the time was over.
pub(super) fn of_read(reply: &RedisReply) -> Vec<Entry> {
    // A map in RESP3: the name of the stream, and its entries.
    reply.list().and_then(|streams| streams.get(1)).map(of_range).unwrap_or_default()
}

/// From the answers of XCLAIM and XRANGE. One that was deleted meanwhile has no fields, or is not there.
pub(super) fn of_range(reply: &RedisReply) -> Vec<Entry> {
    let entry = |entry: &RedisReply| {
        let [id, fields] = entry.list()? else { return None };
        let fields = fields.list().unwrap_or_default().chunks_exact(2);
        let fields = fields.filter_map(|pair| Some((bytes(pair.first()?)?, bytes(pair.get(1)?)?)));
        Some(Entry { id: id.text()?.to_owned(), fields: fields.collect() })
    };
    reply.list().unwrap_or_default().iter().filter_map(entry).collect()
}

/// An entry that was read and not acknowledged: its id, and how often it was given out.
pub(super) fn of_pending(reply: &RedisReply) -> Vec<(String, u32)> {
    let pending = |entry: &RedisReply| {
        let [id, _, _, deliveries] = entry.list()? else { return None };
        Some((id.text()?.to_owned(), u32::try_from(deliveries.integer()?).unwrap_or(u32::MAX)))
    };
    reply.list().unwrap_or_default().iter().filter_map(pending).collect()
}

/// Consumers that have nothing to acknowledge and were not seen for so many milliseconds, from XINFO CONSUMERS.
pub(super) fn of_consumers(reply: &RedisReply, idle: i64) -> Vec<String> {
    let gone = |consumer: &RedisReply| {
        let pairs = consumer.list()?;
        let value = |key: &str| {
            pairs.chunks_exact(2).find(|pair| pair.first().and_then(RedisReply::text) == Some(key))?.get(1)
        };
        let is_gone = value("pending")?.integer()? == 0 && value("idle")?.integer()? > idle;
        is_gone.then(|| value("name")?.text().map(str::to_owned))?
    };
    reply.list().unwrap_or_default().iter().filter_map(gone).collect()
}

/// Where it is noted what became of an idempotency key: in the slot of the stream, so that both change at once.
pub(super) fn note_of(stream: &str, key: &[u8]) -> String {
    let digest = Sha256::digest(key);
    let hex: String = digest.iter().take(16).map(|byte| format!("{byte:02x}")).collect();
    let has_tag = stream.find('{').is_some_and(|open| {
        stream.get(open + 1..).and_then(|rest| rest.find('}')).is_some_and(|length| length > 0)
    });
    if has_tag { format!("{stream}:key:{hex}") } else { format!("{{{stream}}}:key:{hex}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(text: &'static str) -> RedisReply {
        RedisReply::Bytes(Bytes::from_static(text.as_bytes()))
    }

    fn list(items: Vec<RedisReply>) -> RedisReply {
        RedisReply::List(items)
    }

    #[test]
    fn answers_are_read() {
        let entry = list(vec![text("1-0"), list(vec![text("body"), text("{}"), text("key"), text("k")])]);
        let deleted = list(vec![text("2-0"), RedisReply::Null]);
        let entries = of_read(&list(vec![text("stream"), list(vec![entry, deleted, RedisReply::Null])]));
        assert_eq!(entries.len(), 2);
        assert_eq!(entries[0].field("body"), Some(&Bytes::from_static(b"{}")));
        assert_eq!((entries[0].field("none"), entries[1].fields.len()), (None, 0));
        assert!(of_read(&RedisReply::Null).is_empty());

        let pending = list(vec![text("1-0"), text("a"), RedisReply::Integer(9), RedisReply::Integer(3)]);
        assert_eq!(of_pending(&list(vec![pending, text("x")])), [("1-0".to_owned(), 3)]);

        let consumer = |name, pending, idle| {
            list(vec![
                text("name"),
                text(name),
                text("pending"),
                RedisReply::Integer(pending),
                text("idle"),
                RedisReply::Integer(idle),
            ])
        };
        let consumers = list(vec![consumer("a", 0, 100), consumer("b", 1, 100), consumer("c", 0, 5)]);
        assert_eq!(of_consumers(&consumers, 50), ["a"]);
    }

    #[test]
    fn notes_are_in_the_slot_of_their_stream() {
        let digest = "2c70e12b7a0646f92279f427c7b38e73";
        assert_eq!(note_of("roomcast:emit", b"key"), format!("{{roomcast:emit}}:key:{digest}"));
        assert_eq!(note_of("{app}:emit", b"key"), format!("{{app}}:emit:key:{digest}"));
        assert_eq!(note_of("{}:emit", b"key"), format!("{{{{}}:emit}}:key:{digest}"));
    }
}
