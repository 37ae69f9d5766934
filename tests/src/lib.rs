//! What the servers that embed the library have in common.

use roomcast::{Ack, Args, Socket};

/// Listens for the two events of rooms that both contracts name (tests/README.md): `join` (room), acknowledged once the
/// socket is in it, and `broadcast` (room, event, argument), which goes to the others in the room.
pub fn serve_rooms(socket: &Socket) {
    socket.on("join", |socket: Socket, room: String, ack: Ack| async move {
        let _ = socket.join(room).await;
        let _ = ack.send(());
    });
    socket.on("broadcast", |socket: Socket, room: String, event: String, argument: Args| async move {
        let _ = socket.to(room).emit(&event, argument);
    });
}
