//! RFC 6455 framing and RFC 7692 compression, for both ends of a connection.

mod close;
mod error;
mod frame;
mod mask;
mod utf8;

pub use close::CloseCode;
pub use error::Error;
pub use frame::{OpCode, Role};
