//! Bytes to messages.
//!
//! Owns the order of frames, the bounds on messages, and what is kept between two reads. It must not own a read buffer,
//! reply to control frames, or inflate more than the bound allows.

use super::close::{self, CloseCode};
use super::deflate::Inflater;
use super::error::Error;
use super::frame::{Header, OpCode, Role};
use super::handshake::Negotiated;
use super::partial::{Body, Completed, Delivered, Partial};
use super::{mask, utf8};

/// What a peer sent: a whole message, or a control frame (RFC 6455 sections 5.5 and 5.6).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Message<'a> {
    /// A text message.
    Text(&'a str),
    /// A binary message.
    Binary(&'a [u8]),
    /// A ping, to be answered by a pong with the same bytes, at most 125.
    Ping(&'a [u8]),
    /// A pong.
    Pong(&'a [u8]),
    /// The peer closes; `None` if it gave no status. Nothing that follows is read.
    Close(Option<(CloseCode, &'a str)>),
}

/// The reading half of one connection.
///
/// Small, and without heap while no message is incomplete.
#[derive(Debug)]
pub struct Decoder {
    partial: Option<Box<Partial>>,
    max_message: usize,
    max_fragments: u32,
    role: Role,
    deflate: bool,
    state: State,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Open,
    Closed,
    Failed(Error),
}

/// A message that is complete, before it is known where its bytes live.
enum Ready<'buf> {
    /// A frame that was whole in the input.
    Frame { opcode: OpCode, compressed: bool, payload: &'buf [u8] },
    /// The message of the partial.
    Message,
    /// The control frame of the partial.
    Control(OpCode),
}

impl Decoder {
    /// A decoder for messages of at most `max_message` bytes, before and after inflating, in at most `max_fragments`
    /// frames each. `compression` is what the handshake negotiated.
    pub fn new(role: Role, max_message: usize, max_fragments: u32, compression: Option<Negotiated>) -> Self {
        Self {
            partial: None,
            max_message,
            max_fragments,
            role,
            deflate: compression.is_some(),
            state: State::Open,
        }
    }

    /// Takes the next message from the front of `rest`.
    ///
    /// Call it until it returns `None`: then `rest` is empty, what it held of an incomplete message is kept here, and what
    /// earlier messages used is freed. `rest` is unmasked in place, and a message that is whole in it is not copied. The
    /// inflater may be shared by all connections of a thread.
    ///
    /// After a close frame `rest` is discarded.
    ///
    /// # Errors
    ///
    /// The first thing that the peer does wrong, at the earliest byte that shows it. Errors are final: the connection is to
    /// be failed with [`Error::close_code`].
    ///
    /// # Example
    ///
    /// ```
    /// use roomcast_protocol::websocket::{Decoder, Error, Inflater, Message};
    ///
    /// fn received(decoder: &mut Decoder, inflater: &mut Inflater, buffer: &mut [u8]) -> Result<usize, Error> {
    ///     let mut bytes = 0;
    ///     let mut rest = buffer;
    ///     while let Some(message) = decoder.decode(&mut rest, inflater)? {
    ///         match message {
    ///             Message::Text(text) => bytes += text.len(),
    ///             Message::Binary(data) => bytes += data.len(),
    ///             Message::Ping(_) | Message::Pong(_) | Message::Close(_) => {}
    ///         }
    ///     }
    ///     Ok(bytes)
    /// }
    /// # use roomcast_protocol::websocket::{masked_frame, OpCode, Role};
    /// # let mut decoder = Decoder::new(Role::Server, 100, 10, None);
    /// # let mut bytes = masked_frame(OpCode::Text, b"Hello", [1, 2, 3, 4]);
    /// # assert_eq!(received(&mut decoder, &mut Inflater::new(), &mut bytes), Ok(5));
    /// ```
    pub fn decode<'a, 'buf: 'a>(
        &'a mut self,
        rest: &mut &'buf mut [u8],
        inflater: &'a mut Inflater,
    ) -> Result<Option<Message<'a>>, Error> {
        if self.partial.as_mut().is_some_and(|partial| !partial.settle()) {
            self.partial = None;
        }
        match self.state {
            State::Open => {}
            State::Closed => {
                *rest = &mut [];
                self.partial = None;
                return Ok(None);
            }
            State::Failed(error) => {
                self.partial = None;
                return Err(error);
            }
        }
        let ready = match self.advance(rest) {
            Ok(Some(ready)) => ready,
            Ok(None) => {
                inflater.trim();
                return Ok(None);
            }
            Err(error) => {
                self.state = State::Failed(error);
                self.partial = None;
                return Err(error);
            }
        };
        match present(self.partial.as_deref_mut(), ready, self.max_message, inflater) {
            Ok(message) => {
                if let Message::Close(_) = message {
                    self.state = State::Closed;
                }
                Ok(Some(message))
            }
            Err(error) => {
                self.state = State::Failed(error);
                Err(error)
            }
        }
    }

    /// Bytes of heap that an incomplete message occupies; 0 when none is.
    pub fn memory(&self) -> usize {
        self.partial.as_ref().map_or(0, |partial| partial.memory())
    }

    /// Reads on until something is complete.
    fn advance<'buf>(&mut self, rest: &mut &'buf mut [u8]) -> Result<Option<Ready<'buf>>, Error> {
        loop {
            if let Some(partial) = &mut self.partial
                && partial.frame.is_some()
            {
                match partial.receive(rest, self.max_message)? {
                    None => return Ok(None),
                    Some(Completed::Fragment) => {}
                    Some(Completed::Message) => return Ok(Some(Ready::Message)),
                    Some(Completed::Control(opcode)) => return Ok(Some(Ready::Control(opcode))),
                }
            }
            let Some(header) = self.next_header(rest)? else { return Ok(None) };
            self.admit(&header)?;
            let alone = header.opcode.is_control() || (header.fin && !self.within_message());
            if let Some(payload) = take_whole(rest, &header, alone) {
                return Ok(Some(Ready::Frame {
                    opcode: header.opcode,
                    compressed: header.compressed,
                    payload,
                }));
            }
            self.partial.get_or_insert_default().begin(&header);
        }
    }

    /// The next header, or `None` after everything there is was put by.
    fn next_header(&mut self, rest: &mut &mut [u8]) -> Result<Option<Header>, Error> {
        if !self.partial.as_ref().is_some_and(|partial| partial.has_header_bytes()) {
            if let Some((header, len)) = Header::parse(rest, self.role, self.deflate)? {
                let (_, after) = std::mem::take(rest).split_at_mut(len);
                *rest = after;
                return Ok(Some(header));
            }
            if rest.is_empty() {
                return Ok(None);
            }
        }
        let partial = self.partial.get_or_insert_default();
        while let Some(byte) = rest.split_off_first_mut() {
            let bytes = partial.push_header_byte(*byte);
            if let Some((header, _)) = Header::parse(bytes, self.role, self.deflate)? {
                partial.clear_header();
                return Ok(Some(header));
            }
        }
        Ok(None)
    }

    fn within_message(&self) -> bool {
        self.partial.as_ref().is_some_and(|partial| partial.message.is_some())
    }

    /// Whether the frame of this header may come now, and fits.
    fn admit(&self, header: &Header) -> Result<(), Error> {
        if header.opcode.is_control() {
            return Ok(());
        }
        let message = self.partial.as_ref().and_then(|partial| partial.message.as_ref());
        let (fragments, received) = match (header.opcode, message) {
            (OpCode::Continuation, None) => return Err(Error::UnexpectedContinuation),
            (OpCode::Continuation, Some(message)) => (message.fragments, message.body.len()),
            (_, Some(_)) => return Err(Error::ExpectedContinuation),
            (_, None) => (0, 0),
        };
        if header.len > (self.max_message - received.min(self.max_message)) as u64 {
            return Err(Error::MessageTooBig);
        }
        // A message in one frame is not fragmented.
        if fragments >= self.max_fragments && !(fragments == 0 && header.fin) {
            return Err(Error::TooManyFragments);
        }
        Ok(())
    }
}

/// The unmasked payload, if the frame stands alone and is whole in `rest`.
fn take_whole<'buf>(rest: &mut &'buf mut [u8], header: &Header, alone: bool) -> Option<&'buf [u8]> {
    let len = usize::try_from(header.len).ok().filter(|_| alone)?;
    let payload = rest.split_off_mut(..len)?;
    mask::apply(payload, header.key);
    Some(payload)
}

/// Turns what is ready into what the caller sees.
fn present<'a>(
    partial: Option<&'a mut Partial>,
    ready: Ready<'a>,
    max_message: usize,
    inflater: &'a mut Inflater,
) -> Result<Message<'a>, Error> {
    match (ready, partial) {
        (Ready::Frame { opcode, compressed: true, payload }, _) => {
            data(opcode == OpCode::Text, inflater.inflate(payload, max_message)?)
        }
        (Ready::Frame { opcode, compressed: false, payload }, _) => plain(opcode, payload),
        (Ready::Control(opcode), Some(partial)) => {
            partial.delivered = Delivered::Control;
            plain(opcode, &partial.control)
        }
        (Ready::Message, Some(Partial { message: Some(message), delivered, .. })) => {
            *delivered = Delivered::Message;
            match &message.body {
                Body::Text(text) => Ok(Message::Text(text.finish()?)),
                Body::Binary(bytes) => Ok(Message::Binary(bytes)),
                Body::Deflated { text, bytes } => data(*text, inflater.inflate(bytes, max_message)?),
            }
        }
        (Ready::Message | Ready::Control(_), _) => {
            unreachable!("what is ready was received into the partial")
        }
    }
}

fn data(text: bool, payload: &[u8]) -> Result<Message<'_>, Error> {
    Ok(if text { Message::Text(utf8::validate(payload)?) } else { Message::Binary(payload) })
}

fn plain(opcode: OpCode, payload: &[u8]) -> Result<Message<'_>, Error> {
    match opcode {
        OpCode::Text => data(true, payload),
        // A continuation never stands alone.
        OpCode::Binary | OpCode::Continuation => data(false, payload),
        OpCode::Ping => Ok(Message::Ping(payload)),
        OpCode::Pong => Ok(Message::Pong(payload)),
        OpCode::Close => Ok(Message::Close(close::parse(payload)?)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_decoder_is_small() {
        assert!(size_of::<Decoder>() <= 64, "{} bytes", size_of::<Decoder>());
    }
}
