//! Namespaces, sockets, broadcasts, events: what the JavaScript API calls by the same names.
//!
//! Knows rooms through the [`Adapter`](roomcast_adapter::Adapter) and connections through their mailbox. Knows no
//! transport and no HTTP.

mod broadcast;
mod code;
mod emit;
mod event;
mod handshake;
mod listeners;
#[allow(clippy::module_inception, reason = "it is the namespace itself")]
mod namespace;
mod registry;
mod socket;

pub use broadcast::{Broadcast, IntoRooms};
pub(crate) use emit::check_event_name;
pub use emit::{AsIs, EmitError, IntoArgs, ViaSerde};
pub use event::{Ack, Event};
pub use handshake::Handshake;
pub use listeners::{EventContext, EventHandler, FromEvent, IntoAck, ViaContext, ViaResult};
pub use namespace::Namespace;
pub(crate) use namespace::NamespaceInner;
pub use registry::ParentNamespace;
pub(crate) use registry::Registry;
pub(crate) use socket::Phase;
pub use socket::{JoinError, Socket, SocketEmitter};
