//! RFC 6455 framing and RFC 7692 compression, for both ends of a connection.
//!
//! This module owns what happens between the bytes of a connection and whole messages: the opening handshake, frame
//! headers, masking, UTF-8 validation, close codes and permessage-deflate. It knows nothing of Engine.IO, never reads a
//! socket, and never answers by itself: replying to a ping or a close frame is the caller's decision.
//!
//! An idle connection owns nothing here but a [`Decoder`], which has no heap of its own. Bytes are read into a buffer
//! that is borrowed for as long as they are in flight; what is left of an incomplete message moves into the decoder.
//!
//! ```
//! use roomcast_protocol::websocket::{Decoder, Inflater, Message, Role, DEFAULT_MAX_FRAGMENTS};
//!
//! # fn main() -> Result<(), roomcast_protocol::websocket::Error> {
//! let mut inflater = Inflater::new(); // one per thread
//! let mut decoder = Decoder::new(Role::Server, 1_000_000, DEFAULT_MAX_FRAGMENTS, None); // one per connection
//!
//! // What one read returned: a whole masked text frame and the beginning of a ping.
//! let mut buffer = [0x81, 0x85, 0x37, 0xfa, 0x21, 0x3d, 0x7f, 0x9f, 0x4d, 0x51, 0x58, 0x89];
//! let mut rest = &mut buffer[..];
//! let mut seen = Vec::new();
//! while let Some(message) = decoder.decode(&mut rest, &mut inflater)? {
//!     match message {
//!         Message::Text(text) => seen.push(text.to_owned()),
//!         Message::Binary(_) | Message::Ping(_) | Message::Pong(_) | Message::Close(_) => {}
//!     }
//! }
//! assert_eq!(seen, ["Hello"]);
//! assert!(rest.is_empty(), "what is incomplete is kept by the decoder");
//! # Ok(())
//! # }
//! ```

mod close;
mod decoder;
mod deflate;
mod encoder;
mod error;
mod extension;
mod frame;
pub mod handshake;
mod mask;
mod partial;
mod utf8;

pub use close::CloseCode;
pub use decoder::{Decoder, Message};
pub use deflate::{Deflater, Inflater, deflated_frame};
pub use encoder::{MAX_SERVER_HEADER, PreparedFrame, frame, masked_fragment, masked_frame, write_header};
pub use error::Error;
pub use frame::{OpCode, Role};
pub use handshake::{DeflateConfig, Negotiated, accept_key};

/// How many fragments one message may have unless configured otherwise: 131 072, the default of Node's `ws`.
///
/// A fragment costs its sender as little as two bytes and the receiver a pass through the frame parser
/// (CVE-2026-48779).
pub const DEFAULT_MAX_FRAGMENTS: u32 = 131_072;
