//! The WebSocket decoder against itself: however the bytes are cut, the outcome is the same, and the bounds hold.
//!
//! Owns the judgement of one input. It must not need the fuzzer: `protocol/tests` runs it too.

use roomcast_protocol::websocket::handshake::{CLIENT_OFFER, DeflateConfig, negotiate};
use roomcast_protocol::websocket::{CloseCode, Decoder, Error, Inflater, Message, Negotiated, Role};

/// A message that outlives its buffer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Owned {
    /// [`Message::Text`].
    Text(String),
    /// [`Message::Binary`].
    Binary(Vec<u8>),
    /// [`Message::Ping`].
    Ping(Vec<u8>),
    /// [`Message::Pong`].
    Pong(Vec<u8>),
    /// [`Message::Close`].
    Close(Option<(CloseCode, String)>),
}

impl From<Message<'_>> for Owned {
    fn from(message: Message<'_>) -> Self {
        match message {
            Message::Text(text) => Self::Text(text.to_owned()),
            Message::Binary(bytes) => Self::Binary(bytes.to_vec()),
            Message::Ping(bytes) => Self::Ping(bytes.to_vec()),
            Message::Pong(bytes) => Self::Pong(bytes.to_vec()),
            Message::Close(close) => Self::Close(close.map(|(code, reason)| (code, reason.to_owned()))),
        }
    }
}

/// What a connection with a given configuration is told.
#[derive(Debug, Clone, Copy)]
pub struct Setup {
    /// Which end we are.
    pub role: Role,
    /// The bound on messages, in bytes.
    pub max_message: usize,
    /// The bound on fragments.
    pub max_fragments: u32,
    /// Whether messages may be compressed.
    pub deflate: bool,
}

/// What `offer` negotiates with the default configuration.
pub fn negotiated(offer: &'static str) -> Option<Negotiated> {
    let mut headers = http::HeaderMap::new();
    headers.insert("sec-websocket-extensions", http::HeaderValue::from_static(offer));
    negotiate(&headers, &DeflateConfig::default())
}

impl Setup {
    /// A decoder with this configuration.
    pub fn decoder(self) -> Decoder {
        let compression = if self.deflate { negotiated(CLIENT_OFFER) } else { None };
        Decoder::new(self.role, self.max_message, self.max_fragments, compression)
    }

    /// Feeds `input` in the chunks whose lengths are given, the rest at once, and returns what came out: the messages, and
    /// the error that ended them.
    ///
    /// # Panics
    ///
    /// If a bound does not hold.
    pub fn decode(
        self,
        input: &[u8],
        chunks: impl IntoIterator<Item = usize>,
    ) -> (Vec<Owned>, Option<Error>) {
        let mut inflater = Inflater::new();
        let mut decoder = self.decoder();
        let mut messages = Vec::new();
        let mut buffer = input.to_vec();
        let mut input = &mut buffer[..];
        let mut received = 0;
        let mut chunks = chunks.into_iter();
        while !input.is_empty() {
            let len = chunks.next().unwrap_or(input.len()).clamp(1, input.len());
            let mut rest = input.split_off_mut(..len).expect("not beyond the end");
            received += len;
            loop {
                match decoder.decode(&mut rest, &mut inflater) {
                    Ok(Some(message)) => messages.push(self.check(message).into()),
                    Ok(None) => break,
                    Err(error) => {
                        let again = decoder.decode(&mut rest, &mut inflater);
                        assert_eq!(again, Err(error), "errors are final");
                        assert_eq!(decoder.memory(), 0, "a failed decoder keeps nothing");
                        return (messages, Some(error));
                    }
                }
            }
            assert!(rest.is_empty(), "a decoder takes all of its input");
            let bound = 512 + (2 * received).min(self.max_message);
            assert!(decoder.memory() <= bound, "{} bytes kept of {received}", decoder.memory());
        }
        (messages, None)
    }

    fn check(self, message: Message<'_>) -> Message<'_> {
        match message {
            Message::Text(text) => assert!(text.len() <= self.max_message),
            Message::Binary(bytes) => assert!(bytes.len() <= self.max_message),
            Message::Ping(bytes) | Message::Pong(bytes) => assert!(bytes.len() <= 125),
            Message::Close(close) => assert!(close.is_none_or(|(_, reason)| reason.len() <= 123)),
        }
        message
    }
}

/// Judges one input: four bytes that choose the configuration and the chunks, then the bytes of a connection.
pub fn run(data: &[u8]) {
    let Some((&[flags, size, fragments, seed], stream)) = data.split_first_chunk::<4>() else { return };
    let setup = Setup {
        role: if flags & 1 == 0 { Role::Server } else { Role::Client },
        deflate: flags & 2 == 0,
        max_message: usize::from(size) << (flags >> 4),
        max_fragments: fragments.into(),
    };
    let whole = setup.decode(stream, []);
    assert_eq!(setup.decode(stream, std::iter::repeat(1)), whole, "byte by byte");
    assert_eq!(setup.decode(stream, random_chunks(seed)), whole, "in chunks");
}

/// Chunk lengths from a linear congruential generator: many short ones, some long ones.
fn random_chunks(seed: u8) -> impl Iterator<Item = usize> {
    let mut state = u32::from(seed);
    std::iter::repeat_with(move || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        1 + (state >> 24) as usize % (1 << (state >> 20 & 7))
    })
}
