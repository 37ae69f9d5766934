//! Socket.IO v5: packets, their JSON form, attachments, acks and the namespaces of one connection.
//!
//! Source: the Socket.IO protocol, revision 5, and the behaviour of the reference parser (socket.io-parser 4.2.7).

mod args;
mod client;
mod encoded;
mod json;
mod packet;
mod placeholders;
mod to_json;

pub use args::{Args, ArgsError};
pub use client::{Client, ClientLimits, Incoming, Violation};
pub use encoded::{EncodedPacket, FrameError};
pub use packet::{AckId, Packet, PacketType};
