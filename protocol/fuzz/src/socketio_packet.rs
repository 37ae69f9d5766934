//! The Socket.IO side of a connection, fed with any messages: bounds hold, and whatever comes out can be sent on and is
//! read as the same by the next.
//!
//! Owns the judgement of one input. It must not need the fuzzer: `protocol/tests` runs it too.

use std::time::{Duration, Instant};

use roomcast_protocol::socketio::{AckId, Args, Client, ClientLimits, EncodedPacket, Incoming, Violation};

/// A namespace for what is sent on.
const NEXT: &str = "/next";

/// What a connection is told, and what is known of it from outside.
struct Connection {
    client: Client,
    limits: ClientLimits,
    now: Instant,
    /// Attachments that came since the packet that awaits them, and their bytes.
    pending: (usize, usize),
    /// Namespaces that were asked for.
    slots: Vec<usize>,
}

/// Judges one input: three bytes for the limits, then messages and decisions. Each begins with a byte that says what it
/// is and a byte with its length.
pub fn run(data: &[u8]) {
    let Some((&[attachments, bytes, namespaces], mut rest)) = data.split_first_chunk::<3>() else { return };
    let limits = ClientLimits {
        max_attachments: 1 + usize::from(attachments % 12),
        max_attachment_bytes: usize::from(bytes),
        attachment_timeout: Duration::from_secs(45),
        max_namespaces: 1 + usize::from(namespaces % 4),
    };
    let mut connection =
        Connection { client: Client::new(), limits, now: Instant::now(), pending: (0, 0), slots: Vec::new() };
    while let Some((&[what, len], after)) = rest.split_first_chunk::<2>() {
        let (message, after) = after.split_at(after.len().min(len.into()));
        rest = after;
        // A violation ends the connection.
        if connection.step(what, message).is_err() {
            return;
        }
    }
}

impl Connection {
    fn step(&mut self, what: u8, message: &[u8]) -> Result<(), Violation> {
        let slot = self.slots.get(usize::from(what >> 4)).or(self.slots.last()).copied();
        match (what % 8, slot) {
            (0..=2, _) => self.text(&String::from_utf8_lossy(message)),
            (3..=4, _) => self.binary(message),
            (5, Some(slot)) => {
                self.client.accept(slot);
                Ok(())
            }
            (6, Some(slot)) => {
                self.client.leave(slot);
                Ok(())
            }
            (7, _) => self.wait(Duration::from_secs(u64::from(what >> 3))),
            _ => Ok(()),
        }
    }

    fn text(&mut self, text: &str) -> Result<(), Violation> {
        let awaits = self.awaits();
        let incoming = self.client.handle_text(text, &self.limits, self.now);
        assert_eq!(awaits, incoming == Err(Violation::UnexpectedText), "text and attachments do not mix");
        let incoming = incoming?;
        assert!(incoming.is_none() || self.client.deadline().is_none(), "a whole packet awaits nothing");
        self.pending = (0, 0);
        if let Some(incoming) = incoming {
            let joined = self.judge(&incoming);
            self.slots.extend(joined);
        }
        Ok(())
    }

    fn binary(&mut self, message: &[u8]) -> Result<(), Violation> {
        let awaits = self.awaits();
        let incoming = self.client.handle_binary(message, &self.limits, self.now);
        assert_eq!(!awaits, incoming == Err(Violation::UnexpectedBinary), "binary comes when it is awaited");
        self.pending.0 += 1;
        self.pending.1 += message.len();
        let too_much = self.pending.1 > self.limits.max_attachment_bytes;
        assert!(!too_much || incoming.is_err(), "{} bytes are kept", self.pending.1);
        let incoming = incoming?;
        assert!(self.pending.0 <= self.limits.max_attachments, "{} attachments are kept", self.pending.0);
        if let Some(incoming) = incoming {
            assert!(!self.awaits());
            self.judge(&incoming);
        }
        Ok(())
    }

    fn wait(&mut self, time: Duration) -> Result<(), Violation> {
        self.now += time;
        let due = self.client.deadline().is_some_and(|deadline| deadline <= self.now);
        let result = self.client.handle_timeout(self.now);
        assert_eq!(
            due,
            result == Err(Violation::AttachmentTimeout),
            "attachments may take their time, and no more"
        );
        result
    }

    fn awaits(&self) -> bool {
        let deadline = self.client.deadline();
        assert!(deadline.is_none_or(|deadline| deadline <= self.now + self.limits.attachment_timeout));
        deadline.is_some()
    }

    /// Judges what came out; the slot of a namespace that was asked for.
    fn judge(&self, incoming: &Incoming<'_>) -> Option<usize> {
        match incoming {
            Incoming::Connect { slot, namespace, auth } => {
                assert!(*slot < self.limits.max_namespaces, "namespaces are bounded");
                assert_eq!(self.client.namespace(*slot), *namespace);
                assert!(namespace.starts_with('/') && !namespace.contains(','), "{namespace:?}");
                assert!(auth.starts_with('{') && auth.ends_with('}'), "{auth:?}");
                return Some(*slot);
            }
            Incoming::Event { slot, name, args, id } => {
                assert!(*slot < self.limits.max_namespaces);
                assert!(
                    !["connect", "disconnect", "connect_error"].contains(&name.as_ref()),
                    "{name} is reserved"
                );
                send_on(&EncodedPacket::event(NEXT, *id, name, args), Some(name), args, *id);
            }
            Incoming::Ack { slot, id, args } => {
                assert!(*slot < self.limits.max_namespaces);
                send_on(&EncodedPacket::ack(NEXT, *id, args), None, args, Some(*id));
            }
            Incoming::Disconnect { slot } => assert!(*slot < self.limits.max_namespaces),
        }
        None
    }
}

/// What was received is encoded, carried to another node, and read there: it must be the same.
fn send_on(packet: &EncodedPacket, name: Option<&str>, args: &Args, id: Option<AckId>) {
    if !args.attachments().is_empty() {
        let json = format!("[{}]", args.elements());
        // What only JavaScript reads, such as lone surrogates, is carried on unseen.
        if let Ok(value) = serde_json::from_str::<serde_json::Value>(&json) {
            let mut numbers = Vec::new();
            placeholders(&value, &mut numbers);
            let mut first_uses = Vec::new();
            for number in numbers {
                if !first_uses.contains(&number) {
                    first_uses.push(number);
                }
            }
            assert!(
                first_uses.into_iter().eq(0..args.attachments().len()),
                "attachments in order of their use"
            );
        }
    }
    let carried = EncodedPacket::from_frames(packet.frames().clone()).expect("frames of our own");
    assert!(packet.messages().eq(carried.messages()), "frames carry all messages");

    let limits = ClientLimits::default();
    let now = Instant::now();
    let mut next = Client::new();
    let connected = next.handle_text("0/next,", &limits, now);
    assert!(matches!(connected, Ok(Some(Incoming::Connect { slot: 0, .. }))));
    next.accept(0);
    let messages: Vec<_> = carried.messages().collect();
    for (index, &(is_binary, message)) in messages.iter().enumerate() {
        let incoming = if is_binary {
            next.handle_binary(message, &limits, now)
        } else {
            let text = std::str::from_utf8(message).expect("text");
            next.handle_text(text.strip_prefix('4').expect("a message packet"), &limits, now)
        };
        let expected = match name {
            _ if index + 1 < messages.len() => None,
            Some(name) => Some(Incoming::Event { slot: 0, name: name.into(), args: args.clone(), id }),
            None => id.map(|id| Incoming::Ack { slot: 0, id, args: args.clone() }),
        };
        assert_eq!(incoming, Ok(expected), "the next node reads the same");
    }
}

fn placeholders(value: &serde_json::Value, numbers: &mut Vec<usize>) {
    match value {
        serde_json::Value::Array(items) => items.iter().for_each(|item| placeholders(item, numbers)),
        serde_json::Value::Object(map) if map.get("_placeholder") == Some(&true.into()) => {
            numbers.extend(map.get("num").and_then(serde_json::Value::as_f64).map(|number| number as usize));
        }
        serde_json::Value::Object(map) => map.values().for_each(|item| placeholders(item, numbers)),
        _ => {}
    }
}
