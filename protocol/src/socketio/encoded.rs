//! An outgoing packet, encoded once for all its receivers.
//!
//! Server frames are unmasked (RFC 6455, section 5.1), so the bytes of a packet are the same for every WebSocket. They
//! are laid out as the frames themselves: for JSON a text frame `4<packet>`, then a binary frame for each attachment.
//! A polling record is a slice of the same bytes, and the bus carries them to other nodes as they are.

use std::ops::Range;
use std::sync::OnceLock;

use base64::Engine as _;
use bytes::Bytes;

use super::Args;
use super::packet::{AckId, PacketType};
use crate::websocket::{OpCode, write_header};

/// Separates the packets of a polling payload (Engine.IO v4).
const RECORD_SEPARATOR: u8 = 0x1e;

/// What a text is put together from: `4`, the type, attachments and a hyphen, a namespace and a comma, an id, and at most
/// five parts of data.
const MAX_PARTS: usize = 12;

/// One packet, as the WebSocket frames that carry it.
#[derive(Debug)]
pub struct EncodedPacket {
    /// The frames of all messages, one after the other.
    frames: Bytes,
    /// Where in `frames` the payload of the first message is: the Engine.IO packet `4…`, or binary.
    first: Range<usize>,
    /// True when the first message is binary too.
    first_is_binary: bool,
    /// Where the payloads of the binary messages after it are.
    attachments: Vec<Range<usize>>,
    /// The frames again, compressed by the first connection that wants them so.
    deflated: OnceLock<Bytes>,
}

/// Why bytes are not the frames of a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not the frames of a packet")]
pub struct FrameError;

impl EncodedPacket {
    /// CONNECT: grants a namespace. `data` is the JSON object of the reply, such as `{"sid":"…"}`.
    pub fn connect(namespace: &str, data: &str) -> Self {
        Self::packet(PacketType::Connect, namespace, None, &[data], &[])
    }

    /// CONNECT_ERROR: refuses a namespace. `data` is a JSON object with `message` and, if any, `data`.
    pub fn connect_error(namespace: &str, data: &str) -> Self {
        Self::packet(PacketType::ConnectError, namespace, None, &[data], &[])
    }

    /// DISCONNECT: the server leaves a namespace.
    pub fn disconnect(namespace: &str) -> Self {
        Self::packet(PacketType::Disconnect, namespace, None, &[], &[])
    }

    /// EVENT, or BINARY_EVENT when there are attachments. With an id, the receiver is asked for an ack.
    pub fn event(namespace: &str, id: Option<AckId>, name: &str, args: &Args) -> Self {
        let kind = if args.attachments().is_empty() { PacketType::Event } else { PacketType::BinaryEvent };
        let name = serde_json::to_string(name).expect("a string is JSON");
        let comma = if args.is_empty() { "" } else { "," };
        let data = ["[", &name, comma, args.elements(), "]"];
        Self::packet(kind, namespace, id, &data, args.attachments())
    }

    /// ACK, or BINARY_ACK when there are attachments.
    pub fn ack(namespace: &str, id: AckId, args: &Args) -> Self {
        let kind = if args.attachments().is_empty() { PacketType::Ack } else { PacketType::BinaryAck };
        Self::packet(kind, namespace, Some(id), &["[", args.elements(), "]"], args.attachments())
    }

    /// A text message of Engine.IO that is no Socket.IO packet.
    pub fn engine_text(text: &str) -> Self {
        Self::build(OpCode::Text, &[b"4", text.as_bytes()], &[])
    }

    /// A binary message of Engine.IO that is no Socket.IO packet.
    pub fn engine_binary(data: &[u8]) -> Self {
        let mut frames = Vec::with_capacity(header_len(data.len()) + data.len());
        let first = write_frame(&mut frames, OpCode::Binary, &[data]);
        Self {
            frames: frames.into(),
            first,
            first_is_binary: true,
            attachments: Vec::new(),
            deflated: OnceLock::new(),
        }
    }

    fn packet(
        kind: PacketType,
        namespace: &str,
        id: Option<AckId>,
        data: &[&str],
        attachments: &[Bytes],
    ) -> Self {
        let digit = [kind.digit()];
        let (mut count, mut number) = (Decimal::new(), Decimal::new());
        let long;
        let mut parts = arrayvec::ArrayVec::<&[u8], MAX_PARTS>::new();
        parts.push(b"4");
        parts.push(&digit);
        if !attachments.is_empty() {
            parts.push(count.write(attachments.len() as u64));
            parts.push(b"-");
        }
        if namespace != "/" {
            parts.push(namespace.as_bytes());
            parts.push(b",");
        }
        if let Some(id) = id {
            parts.push(match id.as_u64() {
                Some(id) => number.write(id),
                None => {
                    long = id.to_string();
                    long.as_bytes()
                }
            });
        }
        parts.extend(data.iter().map(|part| part.as_bytes()));
        Self::build(OpCode::Text, &parts, attachments)
    }

    fn build(opcode: OpCode, first: &[&[u8]], attachments: &[Bytes]) -> Self {
        let first_len = first.iter().map(|part| part.len()).sum::<usize>();
        let frame_len = |len| header_len(len) + len;
        let binary_len: usize = attachments.iter().map(|part| frame_len(part.len())).sum();
        // Exact: a buffer that is full needs no second allocation to be shared.
        let mut frames = Vec::with_capacity(frame_len(first_len) + binary_len);
        let first = write_frame(&mut frames, opcode, first);
        let attachments =
            attachments.iter().map(|part| write_frame(&mut frames, OpCode::Binary, &[part])).collect();
        Self { frames: frames.into(), first, first_is_binary: false, attachments, deflated: OnceLock::new() }
    }

    /// Takes frames from another node. They are untrusted: the layout is checked, the JSON is not.
    pub fn from_frames(frames: Bytes) -> Result<Self, FrameError> {
        let (first_is_binary, first, mut at) = read_frame(&frames, 0)?;
        let text = &frames[first.clone()];
        if !first_is_binary && (text.first() != Some(&b'4') || simdutf8::basic::from_utf8(text).is_err()) {
            return Err(FrameError);
        }
        let mut attachments = Vec::new();
        while at < frames.len() {
            let (is_binary, payload, end) = read_frame(&frames, at)?;
            if !is_binary {
                return Err(FrameError);
            }
            attachments.push(payload);
            at = end;
        }
        Ok(Self { frames, first, first_is_binary, attachments, deflated: OnceLock::new() })
    }

    /// All WebSocket frames of the packet, in order.
    pub fn frames(&self) -> &Bytes {
        &self.frames
    }

    /// The messages of the packet, in order: whether each is binary, and its payload. A text payload is the whole
    /// Engine.IO packet, beginning with `4`.
    pub fn messages(&self) -> impl Iterator<Item = (bool, &[u8])> {
        std::iter::once((self.first_is_binary, &self.frames[self.first.clone()]))
            .chain(self.attachments.iter().map(|part| (true, &self.frames[part.clone()])))
    }

    /// The frames in the form that `compress` makes, once for all receivers: they must share its parameters.
    pub fn deflated_with(&self, compress: impl FnOnce(&Self) -> Bytes) -> &Bytes {
        self.deflated.get_or_init(|| compress(self))
    }

    /// Appends the packet to a polling payload: records separated by 0x1e, binary as `b<base64>` (Engine.IO v4,
    /// section "Payload").
    pub fn write_records(&self, payload: &mut Vec<u8>) {
        for (is_binary, message) in self.messages() {
            if !payload.is_empty() {
                payload.push(RECORD_SEPARATOR);
            }
            if is_binary {
                write_base64(payload, message);
            } else {
                payload.extend_from_slice(message);
            }
        }
    }
}

/// The bytes before a payload of this length (RFC 6455, section 5.2).
fn header_len(len: usize) -> usize {
    match len {
        0..=125 => 2,
        126..=0xffff => 4,
        _ => 10,
    }
}

/// Appends an unmasked frame; tells where its payload is.
fn write_frame(frames: &mut Vec<u8>, opcode: OpCode, parts: &[&[u8]]) -> Range<usize> {
    write_header(frames, opcode, true, false, parts.iter().map(|part| part.len()).sum());
    let start = frames.len();
    parts.iter().for_each(|part| frames.extend_from_slice(part));
    start..frames.len()
}

/// Room for the digits of a number.
struct Decimal([u8; 20]);

impl Decimal {
    fn new() -> Self {
        Self([b'0'; 20])
    }

    fn write(&mut self, mut number: u64) -> &[u8] {
        let mut start = self.0.len() - 1;
        loop {
            self.0[start] = b'0' + (number % 10) as u8;
            number /= 10;
            if number == 0 {
                return &self.0[start..];
            }
            start -= 1;
        }
    }
}

fn write_base64(payload: &mut Vec<u8>, binary: &[u8]) {
    payload.push(b'b');
    let start = payload.len();
    payload.resize(start + binary.len().div_ceil(3) * 4, 0);
    base64::engine::general_purpose::STANDARD
        .encode_slice(binary, &mut payload[start..])
        .expect("the slice has the length of the encoding");
}

/// Reads the unmasked, unfragmented frame at `at`: whether it is binary, where its payload is, and where it ends.
fn read_frame(frames: &[u8], at: usize) -> Result<(bool, Range<usize>, usize), FrameError> {
    let header = frames.get(at..).ok_or(FrameError)?;
    let is_binary = match header.first() {
        Some(0x81) => false,
        Some(0x82) => true,
        _ => return Err(FrameError),
    };
    let big_endian = |bytes: &[u8]| bytes.iter().fold(0_usize, |len, byte| len << 8 | usize::from(*byte));
    let (header_len, len) = match *header.get(1).ok_or(FrameError)? {
        len @ 0..=125 => (2, usize::from(len)),
        126 => (4, big_endian(header.get(2..4).ok_or(FrameError)?)),
        127 => (10, big_endian(header.get(2..10).ok_or(FrameError)?)),
        _ => return Err(FrameError),
    };
    let start = at + header_len;
    let end = start.checked_add(len).filter(|end| *end <= frames.len()).ok_or(FrameError)?;
    Ok((is_binary, start..end, end))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn records(packet: &EncodedPacket) -> String {
        let mut payload = Vec::new();
        packet.write_records(&mut payload);
        String::from_utf8(payload).unwrap()
    }

    fn binary_args() -> Args {
        Args::from_serialize(&("x", Bytes::from_static(b"\x01\x02\x03\x04"))).unwrap()
    }

    #[test]
    fn golden_packets() {
        let args = Args::from_serialize(&(1, "a")).unwrap();
        let event = |namespace, id| EncodedPacket::event(namespace, id, "e\"v", &args);
        assert_eq!(records(&event("/", None)), r#"42["e\"v",1,"a"]"#);
        assert_eq!(records(&event("/admin", Some(AckId::from(13)))), r#"42/admin,13["e\"v",1,"a"]"#);
        assert_eq!(records(&EncodedPacket::event("/", None, "e", &Args::none())), r#"42["e"]"#);
        assert_eq!(records(&EncodedPacket::ack("/", AckId::from(7), &args)), r#"437[1,"a"]"#);
        assert_eq!(records(&EncodedPacket::connect("/", r#"{"sid":"x"}"#)), r#"40{"sid":"x"}"#);
        assert_eq!(records(&EncodedPacket::disconnect("/admin")), "41/admin,");
        assert_eq!(
            records(&EncodedPacket::event("/a", Some(AckId::from(5)), "e", &binary_args())),
            "451-/a,5[\"e\",\"x\",{\"_placeholder\":true,\"num\":0}]\x1ebAQIDBA=="
        );
        assert_eq!(
            records(&EncodedPacket::event("/", None, "e", &binary_args())),
            "451-[\"e\",\"x\",{\"_placeholder\":true,\"num\":0}]\x1ebAQIDBA=="
        );
    }

    #[test]
    fn frames_are_text_then_binary() {
        let packet = EncodedPacket::event("/", None, "e", &binary_args());
        let frames = packet.frames();
        assert_eq!(frames[0], 0x81);
        assert_eq!(&frames[frames.len() - 6..], b"\x82\x04\x01\x02\x03\x04");
    }

    #[test]
    fn frames_survive_the_bus_at_every_header_length() {
        for len in [0, 1, 125, 126, 65_535, 65_536] {
            let args = Args::from_serialize(&("x".repeat(len), Bytes::from(vec![7; len]))).unwrap();
            let sent = EncodedPacket::event("/", None, "e", &args);
            let received = EncodedPacket::from_frames(sent.frames().clone()).unwrap();
            assert!(sent.messages().eq(received.messages()), "{len}");
        }
        let binary = EncodedPacket::engine_binary(b"\x00");
        assert_eq!(records(&EncodedPacket::from_frames(binary.frames().clone()).unwrap()), "bAA==");
    }

    #[test]
    fn bytes_that_are_no_frames_are_refused() {
        let bad: [&'static [u8]; 8] = [
            b"",
            b"\x81",
            b"\x81\x05abc",
            b"\x81\x01x",
            b"\x81\x02\x34\xff",
            b"\x81\x024x\x81\x014",
            b"\x81\x7f\xff\xff\xff\xff\xff\xff\xff\xff4",
            b"\x81\x82abcd4x",
        ];
        for bytes in bad {
            assert_eq!(
                EncodedPacket::from_frames(Bytes::from_static(bytes)).unwrap_err(),
                FrameError,
                "{bytes:?}"
            );
        }
    }
    #[test]
    fn a_packet_is_compressed_once_for_all_its_receivers() {
        let packet = EncodedPacket::event("/", None, "x", &Args::none());
        let mut times = 0;
        let receivers = [(); 3].map(|()| {
            let frames = packet.deflated_with(|packet| {
                times += 1;
                Bytes::copy_from_slice(packet.frames())
            });
            frames.as_ptr()
        });
        assert_eq!(times, 1);
        assert!(receivers.iter().all(|frames| *frames == receivers[0]), "a receiver has a copy");
    }
}
