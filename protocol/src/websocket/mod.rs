//! RFC 6455 framing and RFC 7692 compression, for both ends of a connection.

mod close;
mod error;
mod extension;
mod frame;
pub mod handshake;
mod mask;
mod utf8;

pub use close::CloseCode;
pub use error::Error;
pub use frame::{OpCode, Role};
pub use handshake::{DeflateConfig, Negotiated, accept_key};
