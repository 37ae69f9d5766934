//! A client in a namespace.

use std::any::{Any, TypeId};
use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use roomcast_adapter::{
    AckReport, AdapterError, Describe, Mailbox, Outgoing, Push, Room, Selector, SocketId,
};
use roomcast_protocol::engineio::Transport;
use roomcast_protocol::socketio::{Args, ArgsError, EncodedPacket};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::Handshake;
use super::broadcast::{Broadcast, DEFAULT_ACK_TIMEOUT, IntoRooms};
use super::emit::{EmitError, IntoArgs, check_event_name};
use super::listeners::Listeners;
use super::namespace::{Namespace, NamespaceInner};
use crate::connection::ConnectionShared;

/// Why a socket could not join a room.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum JoinError {
    /// The socket has left the namespace.
    #[error("the socket is disconnected")]
    Disconnected,
    /// The socket is in as many rooms as one socket may be (`engine.max_rooms_per_socket`).
    #[error("a socket may be in {0} rooms")]
    TooManyRooms(usize),
    /// The subscription of the room does not stand: emits from other nodes may be missed.
    #[error(transparent)]
    Adapter(#[from] AdapterError),
}

impl JoinError {
    /// A stable name for logs, metrics and ack errors.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Disconnected => "disconnected",
            Self::TooManyRooms(_) => "too_many_rooms",
            Self::Adapter(error) => error.code(),
        }
    }
}

/// Where a socket is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Phase {
    /// Not yet in the namespace.
    Asking,
    /// In the namespace; the client does not know it yet.
    Joined,
    /// As before, and an ack of the client is awaited: it must be told now.
    Impatient,
    /// The client knows.
    Connected,
    Disconnected,
}

pub(crate) struct SocketInner {
    id: SocketId,
    namespace: Arc<NamespaceInner>,
    connection: Arc<ConnectionShared>,
    /// The auth payload: a JSON object.
    auth: Box<str>,
    phase: AtomicU8,
    /// What few sockets have, or none in a gateway without embedded code.
    extras: Mutex<Option<Box<Extras>>>,
}

#[derive(Default)]
struct Extras {
    listeners: Listeners,
    data: Option<serde_json::Value>,
    extensions: HashMap<TypeId, Box<dyn Any + Send + Sync>>,
    /// Rooms joined by a middleware, before there was a membership to add them to.
    early_rooms: Vec<Room>,
    /// Nobody else is told of tokens, cookies and the auth payload.
    hides_credentials: bool,
}

/// A client in a namespace. Cloning is cheap, and all clones are the same socket.
#[derive(Clone)]
pub struct Socket {
    inner: Arc<SocketInner>,
}

impl Socket {
    pub(crate) fn new(
        id: SocketId,
        namespace: Arc<NamespaceInner>,
        connection: Arc<ConnectionShared>,
        auth: &str,
    ) -> Self {
        let phase = AtomicU8::new(Phase::Asking as u8);
        let inner =
            SocketInner { id, namespace, connection, auth: auth.into(), phase, extras: Mutex::new(None) };
        Self { inner: Arc::new(inner) }
    }

    /// The id of the socket, public: another socket may emit to it.
    pub fn id(&self) -> SocketId {
        self.inner.id
    }

    /// Its namespace.
    pub fn namespace(&self) -> Namespace {
        Namespace::from_inner(Arc::clone(&self.inner.namespace))
    }

    /// The request that opened the session.
    pub fn handshake(&self) -> &Handshake {
        &self.inner.connection.handshake
    }

    /// The auth payload of the client: `io(url, { auth: { token } })`.
    pub fn auth<T: DeserializeOwned>(&self) -> Result<T, ArgsError> {
        Ok(serde_json::from_str(&self.inner.auth)?)
    }

    /// The auth payload as the text of a JSON object.
    pub fn auth_json(&self) -> &str {
        &self.inner.auth
    }

    /// The present transport: it changes once, at the upgrade.
    pub fn transport(&self) -> Transport {
        self.inner.connection.transport()
    }

    /// True until it is disconnected, once the client has been let in.
    pub fn is_connected(&self) -> bool {
        matches!(self.phase(), Phase::Joined | Phase::Impatient | Phase::Connected)
    }

    /// The rooms of the socket, its id among them.
    pub fn rooms(&self) -> Vec<Room> {
        self.inner.namespace.adapter().rooms_of(self.id())
    }

    /// Joins a room, or several. Once this is ready, what any node of the cluster emits to the room arrives.
    pub async fn join(&self, rooms: impl IntoRooms) -> Result<(), JoinError> {
        let rooms = rooms.into_rooms();
        let adapter = self.inner.namespace.adapter();
        let max = self.inner.namespace.max_rooms_per_socket();
        if self.phase() == Phase::Asking {
            return self.extras(|extras| {
                if extras.early_rooms.len() + rooms.len() > max {
                    return Err(JoinError::TooManyRooms(max));
                }
                extras.early_rooms.extend(rooms);
                Ok(())
            });
        }
        // The room of its own id does not count, nor do rooms that it is in already.
        let own = adapter.rooms_of(self.id());
        let new = rooms.iter().filter(|room| !own.contains(room)).count();
        if own.len().saturating_sub(1) + new > max {
            return Err(JoinError::TooManyRooms(max));
        }
        let joined = adapter.join(self.id(), &rooms);
        if joined.await? { Ok(()) } else { Err(JoinError::Disconnected) }
    }

    /// Joins rooms before the socket is in its namespace. The first is the gateway's own, and not counted.
    pub(crate) fn join_before(&self, rooms: Vec<Room>) -> Result<(), JoinError> {
        let max = self.inner.namespace.max_rooms_per_socket();
        self.extras(|extras| {
            if extras.early_rooms.len() + rooms.len() > max.saturating_add(1) {
                return Err(JoinError::TooManyRooms(max));
            }
            extras.early_rooms.extend(rooms);
            Ok(())
        })
    }

    /// Leaves a room.
    pub fn leave(&self, room: &str) {
        self.inner.namespace.adapter().leave(self.id(), room);
    }

    /// Emits an event to this client. A tuple is several arguments, `()` none, everything else one.
    pub fn emit<M>(&self, name: &str, args: impl IntoArgs<M>) -> Result<(), EmitError> {
        self.emitter().emit(name, args)
    }

    /// Emits an event to this client and waits for its ack, for 10 seconds at most ([`Socket::timeout`]).
    pub async fn emit_with_ack<M>(&self, name: &str, args: impl IntoArgs<M>) -> Result<Args, EmitError> {
        self.emitter().emit_with_ack(name, args).await
    }

    fn emitter(&self) -> SocketEmitter {
        SocketEmitter { socket: self.clone(), volatile: false, compress: true, timeout: DEFAULT_ACK_TIMEOUT }
    }

    /// The next emit may be lost if the client cannot be written to right now.
    pub fn volatile(&self) -> SocketEmitter {
        SocketEmitter { volatile: true, ..self.emitter() }
    }

    /// Whether the next emit may be compressed.
    pub fn compress(&self, compress: bool) -> SocketEmitter {
        SocketEmitter { compress, ..self.emitter() }
    }

    /// How long the next emit waits for its ack.
    pub fn timeout(&self, timeout: Duration) -> SocketEmitter {
        SocketEmitter { timeout, ..self.emitter() }
    }

    /// Everybody in the namespace but this socket.
    pub fn broadcast(&self) -> Broadcast {
        self.namespace().broadcast().except(self.id())
    }

    /// The members of a room, or of several, but this socket.
    pub fn to(&self, rooms: impl IntoRooms) -> Broadcast {
        self.broadcast().to(rooms)
    }

    /// The same as [`Socket::to`].
    pub fn within(&self, rooms: impl IntoRooms) -> Broadcast {
        self.to(rooms)
    }

    /// Everybody but this socket and the members of a room, or of several.
    pub fn except(&self, rooms: impl IntoRooms) -> Broadcast {
        self.broadcast().except(rooms)
    }

    /// Everybody on this node but this socket.
    pub fn local(&self) -> Broadcast {
        self.broadcast().local()
    }

    /// Ends the socket, after what was emitted to it; with `close`, also the connection and the client's other
    /// namespaces. The client does not reconnect by itself.
    pub fn disconnect(&self, close: bool) {
        self.inner.connection.mailbox.disconnect(self.id(), close);
    }

    /// The data attached to the socket, which other nodes see in `fetch_sockets`.
    pub fn data<T: DeserializeOwned>(&self) -> Option<T> {
        let extras = self.inner.extras.lock();
        let data = extras.as_ref()?.data.clone()?;
        drop(extras);
        serde_json::from_value(data).ok()
    }

    /// Attaches data to the socket, which other nodes see in `fetch_sockets`.
    pub fn set_data(&self, data: impl Serialize) -> Result<(), ArgsError> {
        let data = serde_json::to_value(data)?;
        self.extras(|extras| extras.data = Some(data));
        Ok(())
    }

    /// Keeps a value of a type of your own with the socket, on this node only.
    pub fn insert<T: Send + Sync + 'static>(&self, value: T) {
        // What was there ends outside the lock.
        let before = self.extras(|extras| extras.extensions.insert(TypeId::of::<T>(), Box::new(value)));
        drop(before);
    }

    /// A clone of the value that was kept with [`Socket::insert`].
    pub fn get<T: Clone + 'static>(&self) -> Option<T> {
        let extras = self.inner.extras.lock();
        extras.as_ref()?.extensions.get(&TypeId::of::<T>())?.downcast_ref::<T>().cloned()
    }

    /// Forgets the value that was kept with [`Socket::insert`].
    pub(crate) fn remove<T: 'static>(&self) {
        let mut extras = self.inner.extras.lock();
        let value = extras.as_mut().and_then(|extras| extras.extensions.remove(&TypeId::of::<T>()));
        drop(extras);
        drop(value);
    }

    /// Keeps tokens, cookies and the auth payload from those who ask about the socket.
    pub(crate) fn hide_credentials(&self) {
        self.extras(|extras| extras.hides_credentials = true);
    }

    /// Changes the value of a type that is kept with the socket, after making it if there is none. `change` must return at
    /// once.
    pub(crate) fn update<T: Default + Send + Sync + 'static, R>(
        &self,
        change: impl FnOnce(&mut T) -> R,
    ) -> R {
        self.extras(|extras| {
            let kept = extras.extensions.entry(TypeId::of::<T>()).or_insert_with(|| Box::new(T::default()));
            change(kept.downcast_mut::<T>().expect("it is kept under its own type"))
        })
    }

    fn extras<R>(&self, change: impl FnOnce(&mut Extras) -> R) -> R {
        change(self.inner.extras.lock().get_or_insert_default())
    }

    /// Changes the listeners of this socket.
    pub(crate) fn with_listeners<R>(&self, change: impl FnOnce(&mut Listeners) -> R) -> R {
        self.extras(|extras| change(&mut extras.listeners))
    }

    /// Reads the listeners of this socket, if it has any.
    pub(crate) fn read_listeners<R>(&self, read: impl FnOnce(&mut Listeners) -> R) -> Option<R> {
        self.inner.extras.lock().as_mut().map(|extras| read(&mut extras.listeners))
    }

    /// Lets the listeners go. They may hold the socket, and end outside the lock.
    pub(crate) fn drop_listeners(&self) {
        let listeners = self.inner.extras.lock().as_mut().map(|extras| std::mem::take(&mut extras.listeners));
        drop(listeners);
    }

    pub(crate) fn take_early_rooms(&self) -> Vec<Room> {
        let mut extras = self.inner.extras.lock();
        extras.as_mut().map(|extras| std::mem::take(&mut extras.early_rooms)).unwrap_or_default()
    }

    pub(crate) fn phase(&self) -> Phase {
        match self.inner.phase.load(Ordering::Acquire) {
            0 => Phase::Asking,
            1 => Phase::Joined,
            2 => Phase::Impatient,
            3 => Phase::Connected,
            _ => Phase::Disconnected,
        }
    }

    pub(crate) fn set_phase(&self, phase: Phase) {
        self.inner.phase.store(phase as u8, Ordering::Release);
    }

    /// The client must be able to answer: tell it now that it is connected, if it does not know.
    fn hurry(&self) {
        let (from, to) = (Phase::Joined as u8, Phase::Impatient as u8);
        let _ = self.inner.phase.compare_exchange(from, to, Ordering::AcqRel, Ordering::Acquire);
    }

    pub(crate) fn namespace_inner(&self) -> &Arc<NamespaceInner> {
        &self.inner.namespace
    }

    pub(crate) fn mailbox(&self) -> &Arc<Mailbox> {
        &self.inner.connection.mailbox
    }

    pub(crate) fn describe(&self) -> Arc<dyn Describe> {
        self.inner.clone()
    }
}

impl fmt::Debug for Socket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Socket")
            .field("id", &self.id())
            .field("namespace", &self.inner.namespace.name())
            .finish_non_exhaustive()
    }
}

impl PartialEq for Socket {
    fn eq(&self, other: &Self) -> bool {
        self.id() == other.id()
    }
}

impl Eq for Socket {}

impl Describe for SocketInner {
    fn handshake(&self) -> serde_json::Value {
        let hides = self.extras.lock().as_ref().is_some_and(|extras| extras.hides_credentials);
        if hides {
            self.connection.handshake.to_public_json()
        } else {
            self.connection.handshake.to_json(&self.auth)
        }
    }

    fn data(&self) -> serde_json::Value {
        let extras = self.extras.lock();
        extras.as_ref().and_then(|extras| extras.data.clone()).unwrap_or_else(|| serde_json::json!({}))
    }
}

/// An emit to one socket with flags: `socket.timeout(…).emit_with_ack(…)`.
#[derive(Clone)]
#[must_use]
pub struct SocketEmitter {
    socket: Socket,
    volatile: bool,
    compress: bool,
    timeout: Duration,
}

impl SocketEmitter {
    /// The emit may be lost if the client cannot be written to right now.
    pub fn volatile(self) -> Self {
        Self { volatile: true, ..self }
    }

    /// Whether the emit may be compressed.
    pub fn compress(self, compress: bool) -> Self {
        Self { compress, ..self }
    }

    /// How long to wait for the ack.
    pub fn timeout(self, timeout: Duration) -> Self {
        Self { timeout, ..self }
    }

    /// Emits an event to the socket.
    pub fn emit<M>(&self, name: &str, args: impl IntoArgs<M>) -> Result<(), EmitError> {
        check_event_name(name)?;
        let args = args.into_args()?;
        self.notify_outgoing(name, &args);
        let packet = EncodedPacket::event(self.socket.inner.namespace.name(), None, name, &args);
        let (volatile, compress) = (self.volatile, self.compress);
        let outgoing = Arc::new(Outgoing { volatile, compress, ..Outgoing::now(packet) });
        match self.socket.mailbox().push(&outgoing) {
            Push::Queued | Push::DroppedVolatile => Ok(()),
            Push::Overflowed | Push::Closed => Err(EmitError::Disconnected),
        }
    }

    /// Emits an event to the socket and waits for its ack.
    pub async fn emit_with_ack<M>(&self, name: &str, args: impl IntoArgs<M>) -> Result<Args, EmitError> {
        check_event_name(name)?;
        let args = args.into_args()?;
        self.notify_outgoing(name, &args);
        self.socket.hurry();
        // Not the room of this id: others may have joined it.
        let selector = Selector::local_socket(self.socket.id());
        let adapter = self.socket.inner.namespace.adapter();
        let acks = adapter.broadcast_with_ack(&selector, name, &args, self.timeout, None);
        let report = AckReport::collect(acks).await;
        let mine = report.acks.into_iter().find(|(socket, _)| *socket == self.socket.id());
        match mine {
            Some((_, args)) => Ok(args),
            None if self.socket.is_connected() => Err(EmitError::Timeout),
            None => Err(EmitError::Disconnected),
        }
    }

    fn notify_outgoing(&self, name: &str, args: &Args) {
        let listeners = self.socket.read_listeners(|listeners| listeners.outgoing().to_vec());
        for listener in listeners.unwrap_or_default() {
            listener(name, args);
        }
    }
}
