//! Listeners of events, and what they may ask for: typed arguments, the socket, an ack.

use std::any::TypeId;
use std::collections::HashMap;
use std::future::Future;
use std::sync::Arc;
use std::task::Context;

use roomcast_protocol::socketio::{Args, ArgsError};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::emit::{AsIs, IntoArgs, ViaSerde};
use super::event::{Ack, Event};
use super::socket::Socket;
use crate::handler::{BoxFuture, DisconnectReason, Refusal, Step};

/// A listener without its types.
pub(crate) type Listener = Arc<dyn Fn(&Socket, &Event) -> Result<BoxFuture<()>, ArgsError> + Send + Sync>;

/// A listener of everything that is emitted to a socket.
pub(crate) type OutgoingListener = Arc<dyn Fn(&str, &Args) + Send + Sync>;

/// Looks at an event before the listeners.
pub(crate) type PacketMiddleware = Arc<dyn Fn(Socket, Event) -> BoxFuture<Result<(), Refusal>> + Send + Sync>;

/// Called when a socket leaves.
pub(crate) type DisconnectListener = Arc<dyn Fn(Socket, DisconnectReason) -> BoxFuture<()> + Send + Sync>;

#[derive(Clone)]
struct Entry {
    listener: Listener,
    once: bool,
}

/// The listeners of a socket, or of all sockets of a namespace.
#[derive(Default)]
pub(crate) struct Listeners {
    named: HashMap<Box<str>, Vec<Entry>>,
    any: Vec<Listener>,
    outgoing: Vec<OutgoingListener>,
    middlewares: Vec<PacketMiddleware>,
    disconnecting: Vec<DisconnectListener>,
    disconnected: Vec<DisconnectListener>,
}

impl Listeners {
    pub(crate) fn add(&mut self, name: &str, listener: Listener, once: bool) {
        self.named.entry(name.into()).or_default().push(Entry { listener, once });
    }

    pub(crate) fn remove(&mut self, name: &str) {
        self.named.remove(name);
    }

    pub(crate) fn add_any(&mut self, listener: Listener, first: bool) {
        let at = if first { 0 } else { self.any.len() };
        self.any.insert(at, listener);
    }

    pub(crate) fn remove_any(&mut self) {
        self.any.clear();
    }

    pub(crate) fn add_outgoing(&mut self, listener: OutgoingListener) {
        self.outgoing.push(listener);
    }

    pub(crate) fn remove_outgoing(&mut self) {
        self.outgoing.clear();
    }

    pub(crate) fn outgoing(&self) -> &[OutgoingListener] {
        &self.outgoing
    }

    pub(crate) fn add_middleware(&mut self, middleware: PacketMiddleware) {
        self.middlewares.push(middleware);
    }

    pub(crate) fn middlewares(&self) -> &[PacketMiddleware] {
        &self.middlewares
    }

    pub(crate) fn add_disconnecting(&mut self, listener: DisconnectListener) {
        self.disconnecting.push(listener);
    }

    pub(crate) fn add_disconnected(&mut self, listener: DisconnectListener) {
        self.disconnected.push(listener);
    }

    pub(crate) fn disconnecting(&self) -> Vec<DisconnectListener> {
        self.disconnecting.clone()
    }

    pub(crate) fn disconnected(&self) -> Vec<DisconnectListener> {
        self.disconnected.clone()
    }

    /// Appends who listens to an event: catch-all listeners first, as in the reference.
    pub(crate) fn collect(&mut self, name: &str, found: &mut Vec<Listener>) {
        found.extend(self.any.iter().cloned());
        let Some(entries) = self.named.get_mut(name) else {
            return;
        };
        found.extend(entries.iter().map(|entry| Arc::clone(&entry.listener)));
        entries.retain(|entry| !entry.once);
    }
}

/// Calls listeners in order, each polled once in place.
pub(crate) fn call_all(
    listeners: &[Listener],
    socket: &Socket,
    event: &Event,
    cx: &mut Context<'_>,
) -> Step<()> {
    let mut waiting: Vec<BoxFuture<()>> = Vec::new();
    for listener in listeners {
        match listener(socket, event) {
            Ok(mut future) => {
                if future.as_mut().poll(cx).is_pending() {
                    waiting.push(future);
                }
            }
            Err(error) => {
                tracing::debug!(event = &*event.name, %error, "arguments do not fit the listener");
                let _ = event.ack.refuse(error.code(), 400);
            }
        }
    }
    match waiting.len() {
        0 => Step::Done(()),
        1 => Step::Wait(waiting.remove(0)),
        _ => Step::Wait(Box::pin(async move {
            futures_util::future::join_all(waiting).await;
        })),
    }
}

/// What a listener takes its parameters from.
#[derive(Debug)]
pub struct EventContext<'a> {
    socket: &'a Socket,
    event: &'a Event,
    /// The arguments not yet taken.
    rest: Args,
}

/// How a parameter is found; chosen by the compiler.
#[derive(Debug)]
pub struct ViaContext;

/// A parameter of a listener: every `Deserialize` type takes the next argument of the event ([`Args`] takes all that
/// are left); [`Socket`], [`Ack`] and [`Event`] take none.
pub trait FromEvent<M>: Sized {
    /// Takes the parameter.
    fn from_event(context: &mut EventContext<'_>) -> Result<Self, ArgsError>;
}

impl<T: DeserializeOwned> FromEvent<ViaSerde> for T {
    fn from_event(context: &mut EventContext<'_>) -> Result<Self, ArgsError> {
        let value = context.rest.get(0)?;
        context.rest = context.rest.skip(1);
        Ok(value)
    }
}

impl FromEvent<AsIs> for Args {
    fn from_event(context: &mut EventContext<'_>) -> Result<Self, ArgsError> {
        Ok(std::mem::take(&mut context.rest))
    }
}

impl FromEvent<ViaContext> for Socket {
    fn from_event(context: &mut EventContext<'_>) -> Result<Self, ArgsError> {
        Ok(context.socket.clone())
    }
}

impl FromEvent<ViaContext> for Ack {
    fn from_event(context: &mut EventContext<'_>) -> Result<Self, ArgsError> {
        Ok(context.event.ack.clone())
    }
}

impl FromEvent<ViaContext> for Event {
    fn from_event(context: &mut EventContext<'_>) -> Result<Self, ArgsError> {
        Ok(context.event.clone())
    }
}

/// What a listener returns: `()` leaves the ack to the listener; every other `Serialize` value, and [`Args`], is the ack;
/// an `Err(Refusal)` is an ack of `{"error":{"message":…,"data":…}}`.
pub trait IntoAck<M> {
    /// Sends the ack.
    fn into_ack(self, ack: &Ack);
}

/// How a result becomes an ack; chosen by the compiler.
#[derive(Debug)]
pub struct ViaResult<M>(std::marker::PhantomData<M>);

impl<T: Serialize + 'static> IntoAck<ViaSerde> for T {
    fn into_ack(self, ack: &Ack) {
        if TypeId::of::<T>() != TypeId::of::<()>() {
            send_ack(ack, self);
        }
    }
}

impl IntoAck<AsIs> for Args {
    fn into_ack(self, ack: &Ack) {
        send_ack(ack, self);
    }
}

impl<M, T: IntoAck<M>> IntoAck<ViaResult<M>> for Result<T, Refusal> {
    fn into_ack(self, ack: &Ack) {
        match self {
            Ok(value) => value.into_ack(ack),
            Err(refusal) => send_ack(
                ack,
                serde_json::json!({ "error": { "message": refusal.message, "data": refusal.data } }),
            ),
        }
    }
}

fn send_ack<M>(ack: &Ack, args: impl IntoArgs<M>) {
    if let Err(error) = ack.send(args) {
        tracing::debug!(%error, "an ack was not sent");
    }
}

/// An async function that listens to an event, with up to eight parameters.
pub trait EventHandler<M>: Send + Sync + 'static {
    /// Takes the parameters from the event and starts the function.
    fn call(&self, context: &mut EventContext<'_>) -> Result<BoxFuture<()>, ArgsError>;
}

/// Removes the types of a listener.
pub(crate) fn erase<M: 'static>(handler: impl EventHandler<M>) -> Listener {
    Arc::new(move |socket, event| handler.call(&mut EventContext { socket, event, rest: event.args.clone() }))
}

macro_rules! event_handler {
    ($($param:ident $marker:ident),*) => {
        impl<F, Fut, R, MR, $($param, $marker),*> EventHandler<(Fut, R, MR, $($param, $marker),*)> for F
        where
            F: Fn($($param),*) -> Fut + Send + Sync + 'static,
            Fut: Future<Output = R> + Send + 'static,
            R: IntoAck<MR>,
            $($param: FromEvent<$marker>,)*
        {
            #[allow(non_snake_case, unused_variables, reason = "one macro for every number of parameters")]
            fn call(&self, context: &mut EventContext<'_>) -> Result<BoxFuture<()>, ArgsError> {
                $(let $param = $param::from_event(context)?;)*
                let ack = context.event.ack.clone();
                let future = self($($param),*);
                Ok(Box::pin(async move { future.await.into_ack(&ack) }))
            }
        }
    };
}

event_handler!();
event_handler!(A1 M1);
event_handler!(A1 M1, A2 M2);
event_handler!(A1 M1, A2 M2, A3 M3);
event_handler!(A1 M1, A2 M2, A3 M3, A4 M4);
event_handler!(A1 M1, A2 M2, A3 M3, A4 M4, A5 M5);
event_handler!(A1 M1, A2 M2, A3 M3, A4 M4, A5 M5, A6 M6);
event_handler!(A1 M1, A2 M2, A3 M3, A4 M4, A5 M5, A6 M6, A7 M7);
event_handler!(A1 M1, A2 M2, A3 M3, A4 M4, A5 M5, A6 M6, A7 M7, A8 M8);

/// The methods by which a socket, or all sockets of a namespace, are listened to.
macro_rules! listener_methods {
    () => {
        /// Listens to an event. The parameters are typed: see [`FromEvent`](crate::FromEvent); what is returned is the
        /// ack: see [`IntoAck`](crate::IntoAck).
        pub fn on<M: 'static>(&self, name: &str, handler: impl EventHandler<M>) -> &Self {
            self.with_listeners(|listeners| listeners.add(name, erase(handler), false));
            self
        }

        /// Listens to the next event of this name only.
        pub fn once<M: 'static>(&self, name: &str, handler: impl EventHandler<M>) -> &Self {
            self.with_listeners(|listeners| listeners.add(name, erase(handler), true));
            self
        }

        /// Removes the listeners of an event.
        pub fn off(&self, name: &str) -> &Self {
            self.with_listeners(|listeners| listeners.remove(name));
            self
        }

        /// Listens to every event, before the listeners of its name. Take an [`Event`](crate::Event) to learn the name.
        pub fn on_any<M: 'static>(&self, handler: impl EventHandler<M>) -> &Self {
            self.with_listeners(|listeners| listeners.add_any(erase(handler), false));
            self
        }

        /// Like `on_any`, and before the other catch-all listeners.
        pub fn prepend_any<M: 'static>(&self, handler: impl EventHandler<M>) -> &Self {
            self.with_listeners(|listeners| listeners.add_any(erase(handler), true));
            self
        }

        /// Removes the catch-all listeners.
        pub fn off_any(&self) -> &Self {
            self.with_listeners(Listeners::remove_any);
            self
        }

        /// Looks at every event before the listeners do. An error keeps the event from them, and is the ack of a client
        /// that wants one.
        pub fn use_packet<F, Fut>(&self, middleware: F) -> &Self
        where
            F: Fn(Socket, Event) -> Fut + Send + Sync + 'static,
            Fut: Future<Output = Result<(), Refusal>> + Send + 'static,
        {
            let middleware: PacketMiddleware =
                Arc::new(move |socket, event| Box::pin(middleware(socket, event)));
            self.with_listeners(|listeners| listeners.add_middleware(middleware));
            self
        }

        /// Called when a socket is about to leave; it is still in its rooms.
        pub fn on_disconnecting<F, Fut>(&self, listener: F) -> &Self
        where
            F: Fn(Socket, DisconnectReason) -> Fut + Send + Sync + 'static,
            Fut: Future<Output = ()> + Send + 'static,
        {
            let listener: DisconnectListener =
                Arc::new(move |socket, reason| Box::pin(listener(socket, reason)));
            self.with_listeners(|listeners| listeners.add_disconnecting(listener));
            self
        }

        /// Called when a socket has left.
        pub fn on_disconnect<F, Fut>(&self, listener: F) -> &Self
        where
            F: Fn(Socket, DisconnectReason) -> Fut + Send + Sync + 'static,
            Fut: Future<Output = ()> + Send + 'static,
        {
            let listener: DisconnectListener =
                Arc::new(move |socket, reason| Box::pin(listener(socket, reason)));
            self.with_listeners(|listeners| listeners.add_disconnected(listener));
            self
        }
    };
}

impl Socket {
    listener_methods!();

    /// Listens to every event that is emitted to this socket by itself (not by a broadcast, which does not look at its
    /// receivers; and not acks). Called in place.
    pub fn on_any_outgoing(&self, listener: impl Fn(&str, &Args) + Send + Sync + 'static) -> &Self {
        self.with_listeners(|listeners| listeners.add_outgoing(Arc::new(listener)));
        self
    }

    /// Removes the listeners of outgoing events.
    pub fn off_any_outgoing(&self) -> &Self {
        self.with_listeners(Listeners::remove_outgoing);
        self
    }
}

impl super::Namespace {
    listener_methods!();
}

impl super::ParentNamespace {
    listener_methods!();
}
