//! The local adapter as an [`Adapter`]: a cluster of one.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::{BoxFuture, FutureExt, ready};
use futures_util::stream::StreamExt;
use roomcast_protocol::socketio::{AckId, Args};

use super::{Acks, Collector, LocalAdapter, deadline_of, rooms_of};
use crate::adapter::{AckStream, Adapter, AdapterError, Collected, LocalSocket, RemoteSocket};
use crate::id::SocketId;
use crate::mailbox::Outgoing;
use crate::presence::{RoomCount, RoomPage};
use crate::selector::{Room, Selector};
use crate::trace::TraceContext;

fn complete<T>(value: T) -> Collected<T> {
    Collected { value, missing: Vec::new() }
}

impl Adapter for LocalAdapter {
    fn add(&self, socket: LocalSocket) {
        // Ids are random: one that is here already is a mistake of the caller, which must not leave a ghost in a room.
        self.remove(socket.id);
        let id = socket.id;
        self.sockets.insert(socket);
        self.observe_socket(id);
    }

    fn remove(&self, id: SocketId) -> Vec<Room> {
        let rooms = {
            let mut shard = self.sockets.write(id);
            let Some(entry) = shard.remove(&id) else { return Vec::new() };
            entry.rooms.iter().for_each(|room| self.rooms.remove(room, id));
            rooms_of(id, &entry)
        };
        self.acks.gone(id);
        self.observe_socket(id);
        rooms
    }

    fn join(&self, id: SocketId, rooms: &[Room]) -> BoxFuture<'static, Result<bool, AdapterError>> {
        ready(Ok(self.join_local(id, rooms))).boxed()
    }

    fn leave(&self, id: SocketId, room: &str) {
        self.leave_local(id, room);
    }

    fn rooms_of(&self, id: SocketId) -> Vec<Room> {
        self.sockets.read(id).get(&id).map_or_else(Vec::new, |entry| rooms_of(id, entry))
    }

    fn is_member(&self, id: SocketId, room: &str) -> bool {
        let shard = self.sockets.read(id);
        shard.get(&id).is_some_and(|entry| room == id.as_str() || entry.rooms.contains(room))
    }

    fn local_count(&self) -> usize {
        self.sockets.len()
    }

    fn local_room_count(&self) -> usize {
        self.rooms.len()
    }

    fn broadcast(&self, selector: &Selector, outgoing: &Arc<Outgoing>) -> Result<(), AdapterError> {
        self.deliver(selector, outgoing);
        Ok(())
    }

    fn broadcast_confirmed(
        &self,
        selector: &Selector,
        outgoing: &Arc<Outgoing>,
    ) -> BoxFuture<'static, Result<(), AdapterError>> {
        self.deliver(selector, outgoing);
        ready(Ok(())).boxed()
    }

    fn broadcast_with_ack(
        &self,
        selector: &Selector,
        name: &str,
        args: &Args,
        timeout: Duration,
        _: Option<TraceContext>,
    ) -> AckStream {
        let deadline = deadline_of(timeout);
        let collector = Collector::new(self.node, [self.node]);
        let ack = self.ask(selector, name, args, Arc::clone(&collector) as _);
        let table = Arc::clone(&self.acks);
        Acks::new(collector, deadline, move || ack.into_iter().for_each(|ack| table.cancel(ack))).boxed()
    }

    fn ack(&self, id: SocketId, ack: AckId, args: Args) {
        self.acks.ack(id, ack, args);
    }

    fn owes_acks(&self, id: SocketId) -> bool {
        self.acks.owes(id)
    }

    fn fetch_sockets(&self, selector: &Selector) -> BoxFuture<'static, Collected<Vec<RemoteSocket>>> {
        ready(complete(self.fetch(selector))).boxed()
    }

    fn count_sockets(&self, selector: &Selector) -> BoxFuture<'static, Collected<usize>> {
        ready(complete(self.count(selector))).boxed()
    }

    fn room_count(&self, room: &str) -> BoxFuture<'static, RoomCount> {
        let sockets = self.members(room);
        ready(RoomCount { sockets, exact: true, age: Duration::ZERO, missing: Vec::new() }).boxed()
    }

    fn rooms(&self, after: Option<&str>, limit: usize) -> BoxFuture<'static, RoomPage> {
        let rooms = self.room_page(after, limit);
        ready(RoomPage { rooms, exact: true, ..RoomPage::default() }).boxed()
    }

    fn room_sockets(
        &self,
        room: &str,
        after: Option<SocketId>,
        limit: usize,
    ) -> BoxFuture<'static, Collected<Vec<RemoteSocket>>> {
        ready(complete(self.page(room, after, limit))).boxed()
    }

    fn sockets_join(
        &self,
        selector: &Selector,
        rooms: &[Room],
    ) -> BoxFuture<'static, Result<Collected<()>, AdapterError>> {
        self.join_selected(selector, rooms);
        ready(Ok(complete(()))).boxed()
    }

    fn sockets_leave(
        &self,
        selector: &Selector,
        rooms: &[Room],
    ) -> BoxFuture<'static, Result<Collected<()>, AdapterError>> {
        self.leave_selected(selector, rooms);
        ready(Ok(complete(()))).boxed()
    }

    fn disconnect_sockets(
        &self,
        selector: &Selector,
        close: bool,
    ) -> BoxFuture<'static, Result<Collected<()>, AdapterError>> {
        self.disconnect_selected(selector, close);
        ready(Ok(complete(()))).boxed()
    }

    fn server_side_emit(&self, _name: &str, _args: &Args) -> Result<(), AdapterError> {
        Ok(())
    }

    fn server_side_emit_with_ack(
        &self,
        _name: &str,
        _args: &Args,
        _timeout: Duration,
    ) -> BoxFuture<'static, Collected<Vec<Args>>> {
        ready(complete(Vec::new())).boxed()
    }
}
