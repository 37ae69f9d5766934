//! What clients need backends for. The one place where a client's request leaves the gateway.

use roomcast_adapter::Room;

use super::{BACKEND_UNAVAILABLE, Refused};
use crate::namespace::Socket;

/// Asks the backend whether a client may join a room whose rule is `webhook`. There is no way to a backend yet.
pub(super) async fn may_join(_socket: &Socket, _room: &Room) -> Result<(), Refused> {
    Err(BACKEND_UNAVAILABLE)
}
