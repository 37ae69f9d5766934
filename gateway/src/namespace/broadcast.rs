//! Emits to many: `io.to("room").except("other").volatile().emit(…)`.

use std::sync::Arc;
use std::time::Duration;

use roomcast_adapter::{
    AckReport, AckStream, Adapter, AdapterError, Collected, Outgoing, RemoteSocket, Room, Selector, Target,
};
use roomcast_protocol::socketio::{Args, EncodedPacket};

use super::emit::{EmitError, IntoArgs, check_event_name};

/// How long acks are awaited when nothing else is said.
pub(crate) const DEFAULT_ACK_TIMEOUT: Duration = Duration::from_secs(10);

/// A selection of sockets and what to do with them. Every step returns a new selection.
#[derive(Clone)]
#[must_use]
pub struct Broadcast {
    adapter: Arc<dyn Adapter>,
    namespace: Arc<str>,
    selector: Selector,
    volatile: bool,
    compress: bool,
    timeout: Duration,
}

impl Broadcast {
    pub(crate) fn new(adapter: Arc<dyn Adapter>, namespace: Arc<str>) -> Self {
        Self {
            adapter,
            namespace,
            selector: Selector::all(),
            volatile: false,
            compress: true,
            timeout: DEFAULT_ACK_TIMEOUT,
        }
    }

    /// Adds a room, or several: `to("a")`, `to(["a", "b"])`. A socket in several of them gets one copy.
    pub fn to(mut self, rooms: impl IntoRooms) -> Self {
        let rooms = rooms.into_rooms();
        match &mut self.selector.to {
            Target::Rooms(known) => known.extend(rooms),
            Target::All | Target::Socket(_) => self.selector.to = Target::Rooms(rooms),
        }
        self
    }

    /// The same as [`Broadcast::to`].
    pub fn within(self, rooms: impl IntoRooms) -> Self {
        self.to(rooms)
    }

    /// Leaves out the members of a room, or of several.
    pub fn except(mut self, rooms: impl IntoRooms) -> Self {
        self.selector.except.extend(rooms.into_rooms());
        self
    }

    /// Only sockets of this node.
    pub fn local(mut self) -> Self {
        self.selector.local = true;
        self
    }

    /// May be lost for a client that cannot be written to right now.
    pub fn volatile(mut self) -> Self {
        self.volatile = true;
        self
    }

    /// Whether it may be compressed where that was negotiated; it may by default.
    pub fn compress(mut self, compress: bool) -> Self {
        self.compress = compress;
        self
    }

    /// How long [`Broadcast::emit_with_ack`] waits; 10 seconds by default.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// Emits an event. An error of the adapter says that only this node's sockets were reached.
    pub fn emit<M>(&self, name: &str, args: impl IntoArgs<M>) -> Result<(), EmitError> {
        let outgoing = self.outgoing(name, args)?;
        Ok(self.adapter.broadcast(&self.selector, &outgoing)?)
    }

    /// Emits an event, and waits until the broker has taken it.
    pub async fn emit_confirmed<M>(&self, name: &str, args: impl IntoArgs<M>) -> Result<(), EmitError> {
        let outgoing = self.outgoing(name, args)?;
        let confirmed = self.adapter.broadcast_confirmed(&self.selector, &outgoing);
        Ok(confirmed.await?)
    }

    fn outgoing<M>(&self, name: &str, args: impl IntoArgs<M>) -> Result<Arc<Outgoing>, EmitError> {
        check_event_name(name)?;
        let packet = EncodedPacket::event(&self.namespace, None, name, &args.into_args()?);
        let (volatile, compress) = (self.volatile, self.compress);
        Ok(Arc::new(Outgoing { volatile, compress, ..Outgoing::now(packet) }))
    }

    /// Emits an event and collects the acks of all sockets, until all have come or the timeout is over. What is missing
    /// is named in the report; it is not an error.
    pub async fn emit_with_ack<M>(&self, name: &str, args: impl IntoArgs<M>) -> Result<AckReport, EmitError> {
        Ok(AckReport::collect(self.emit_with_acks(name, args)?).await)
    }

    /// Like [`Broadcast::emit_with_ack`], and gives each ack as it comes.
    pub fn emit_with_acks<M>(&self, name: &str, args: impl IntoArgs<M>) -> Result<AckStream, EmitError> {
        check_event_name(name)?;
        let args: Args = args.into_args()?;
        Ok(self.adapter.broadcast_with_ack(&self.selector, name, &args, self.timeout, None))
    }

    /// The selected sockets of the whole cluster.
    pub async fn fetch_sockets(&self) -> Collected<Vec<RemoteSocket>> {
        self.adapter.fetch_sockets(&self.selector).await
    }

    /// The number of selected sockets in the whole cluster.
    pub async fn count(&self) -> Collected<usize> {
        self.adapter.count_sockets(&self.selector).await
    }

    /// Makes the selected sockets join rooms. What is emitted to the rooms once this is ready arrives.
    pub async fn sockets_join(&self, rooms: impl IntoRooms) -> Result<Collected<()>, AdapterError> {
        self.adapter.sockets_join(&self.selector, &rooms.into_rooms()).await
    }

    /// Makes the selected sockets leave rooms.
    pub async fn sockets_leave(&self, rooms: impl IntoRooms) -> Result<Collected<()>, AdapterError> {
        self.adapter.sockets_leave(&self.selector, &rooms.into_rooms()).await
    }

    /// Disconnects the selected sockets; with `close`, ends their connections.
    pub async fn disconnect_sockets(&self, close: bool) -> Result<Collected<()>, AdapterError> {
        self.adapter.disconnect_sockets(&self.selector, close).await
    }
}

/// One room or several.
pub trait IntoRooms {
    /// The rooms.
    fn into_rooms(self) -> Vec<Room>;
}

impl IntoRooms for &str {
    fn into_rooms(self) -> Vec<Room> {
        vec![self.into()]
    }
}

impl IntoRooms for String {
    fn into_rooms(self) -> Vec<Room> {
        vec![self.into()]
    }
}

impl IntoRooms for &String {
    fn into_rooms(self) -> Vec<Room> {
        vec![self.as_str().into()]
    }
}

impl IntoRooms for Room {
    fn into_rooms(self) -> Vec<Room> {
        vec![self]
    }
}

impl IntoRooms for roomcast_adapter::SocketId {
    fn into_rooms(self) -> Vec<Room> {
        vec![self.as_str().into()]
    }
}

impl<R: Into<Room>> IntoRooms for Vec<R> {
    fn into_rooms(self) -> Vec<Room> {
        self.into_iter().map(Into::into).collect()
    }
}

impl<R: Into<Room>, const N: usize> IntoRooms for [R; N] {
    fn into_rooms(self) -> Vec<Room> {
        self.into_iter().map(Into::into).collect()
    }
}

impl<R: Clone + Into<Room>> IntoRooms for &[R] {
    fn into_rooms(self) -> Vec<Room> {
        self.iter().cloned().map(Into::into).collect()
    }
}
