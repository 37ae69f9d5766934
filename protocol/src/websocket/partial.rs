//! What a decoder keeps of an incomplete message.
//!
//! Owns the bytes that were received of the header, frame and message under way. It must not allocate for what a header
//! merely announces: memory follows what was received.

use super::error::Error;
use super::frame::{Header, MAX_HEADER, OpCode};
use super::mask;
use super::utf8::{TextBuffer, growth};

/// An incomplete header, frame or message. Boxed, and only there while something is incomplete.
#[derive(Debug, Default)]
pub(super) struct Partial {
    header: [u8; MAX_HEADER],
    header_len: u8,
    /// The frame whose payload is being received.
    pub(super) frame: Option<Frame>,
    /// The message under way.
    pub(super) message: Option<Assembly>,
    /// The payload of a control frame under way.
    pub(super) control: Vec<u8>,
    /// What was handed out, to be let go of before anything else is done.
    pub(super) delivered: Delivered,
}

/// What the caller may still hold a reference into.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) enum Delivered {
    #[default]
    Nothing,
    Message,
    Control,
}

/// A frame whose payload is being received.
#[derive(Debug)]
pub(super) struct Frame {
    opcode: OpCode,
    fin: bool,
    /// Bytes of payload to come.
    remaining: u64,
    /// The key for the next byte.
    key: [u8; 4],
}

/// A message in more than one frame, or in more than one read.
#[derive(Debug)]
pub(super) struct Assembly {
    pub(super) fragments: u32,
    pub(super) body: Body,
}

/// The bytes of a message.
#[derive(Debug)]
pub(super) enum Body {
    Text(TextBuffer),
    Binary(Vec<u8>),
    /// Inflated when it is complete, so that no inflate state is kept per connection.
    Deflated {
        text: bool,
        bytes: Vec<u8>,
    },
}

/// What the end of a frame completed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Completed {
    /// A fragment; the message goes on.
    Fragment,
    Message,
    Control(OpCode),
}

impl Body {
    fn new(opcode: OpCode, compressed: bool) -> Self {
        let text = opcode == OpCode::Text;
        match (compressed, text) {
            (true, _) => Self::Deflated { text, bytes: Vec::new() },
            (false, true) => Self::Text(TextBuffer::default()),
            (false, false) => Self::Binary(Vec::new()),
        }
    }

    /// Bytes received.
    pub(super) fn len(&self) -> usize {
        match self {
            Self::Text(text) => text.len(),
            Self::Binary(bytes) | Self::Deflated { bytes, .. } => bytes.len(),
        }
    }

    fn capacity(&self) -> usize {
        match self {
            Self::Text(text) => text.capacity(),
            Self::Binary(bytes) | Self::Deflated { bytes, .. } => bytes.capacity(),
        }
    }

    /// Appends a piece of a message that will not grow beyond `limit` bytes.
    fn push(&mut self, piece: &[u8], limit: usize) -> Result<(), Error> {
        match self {
            Self::Text(text) => text.push(piece, limit)?,
            Self::Binary(bytes) | Self::Deflated { bytes, .. } => {
                let needed = bytes.len() + piece.len();
                bytes.reserve_exact(growth(bytes.len(), bytes.capacity(), needed, limit));
                bytes.extend_from_slice(piece);
            }
        }
        Ok(())
    }
}

impl Partial {
    /// Lets go of what was delivered. Returns whether anything is left.
    pub(super) fn settle(&mut self) -> bool {
        match std::mem::take(&mut self.delivered) {
            Delivered::Nothing => {}
            Delivered::Message => self.message = None,
            Delivered::Control => self.control = Vec::new(),
        }
        self.header_len > 0 || self.frame.is_some() || self.message.is_some()
    }

    /// Bytes of heap behind this partial, itself included.
    pub(super) fn memory(&self) -> usize {
        let body = self.message.as_ref().map_or(0, |message| message.body.capacity());
        size_of::<Self>() + self.control.capacity() + body
    }

    pub(super) fn has_header_bytes(&self) -> bool {
        self.header_len > 0
    }

    /// Adds one byte of a header and returns all of it that is there.
    pub(super) fn push_header_byte(&mut self, byte: u8) -> &[u8] {
        let len = usize::from(self.header_len);
        self.header[len] = byte;
        self.header_len += 1;
        &self.header[..=len]
    }

    pub(super) fn clear_header(&mut self) {
        self.header_len = 0;
    }

    /// Starts the frame of an admitted header.
    pub(super) fn begin(&mut self, header: &Header) {
        self.frame =
            Some(Frame { opcode: header.opcode, fin: header.fin, remaining: header.len, key: header.key });
        if header.opcode.is_control() {
            return;
        }
        let message = self.message.get_or_insert_with(|| Assembly {
            fragments: 0,
            body: Body::new(header.opcode, header.compressed),
        });
        message.fragments = message.fragments.saturating_add(1);
    }

    /// Takes what `input` has of the payload of the frame under way, and says what that completed; `None` if the frame is
    /// not complete or there is none.
    pub(super) fn receive(
        &mut self,
        input: &mut &mut [u8],
        max_message: usize,
    ) -> Result<Option<Completed>, Error> {
        let Some(frame) = &mut self.frame else { return Ok(None) };
        let len = usize::try_from(frame.remaining).unwrap_or(usize::MAX).min(input.len());
        let piece = input.split_off_mut(..len).unwrap_or_default();
        mask::apply(piece, frame.key);
        frame.key = mask::rotate(frame.key, len);
        frame.remaining -= len as u64;

        if frame.opcode.is_control() {
            self.control.extend_from_slice(piece);
        } else if let Some(message) = &mut self.message {
            // The last fragment tells how long the message will be.
            let limit = if frame.fin {
                usize::try_from(frame.remaining)
                    .unwrap_or(usize::MAX)
                    .saturating_add(message.body.len() + len)
            } else {
                max_message
            };
            message.body.push(piece, limit.min(max_message))?;
        }
        if frame.remaining > 0 {
            return Ok(None);
        }
        let completed = match (frame.opcode, frame.fin) {
            (OpCode::Close | OpCode::Ping | OpCode::Pong, _) => Completed::Control(frame.opcode),
            (_, true) => Completed::Message,
            (_, false) => Completed::Fragment,
        };
        self.frame = None;
        Ok(Some(completed))
    }
}
