//! The handler of embedded code: middlewares, `on_connect` and listeners.

use std::future::Future;
use std::sync::Arc;
use std::task::{Context, Poll};

use parking_lot::{Mutex, RwLock};
use roomcast_adapter::ServerReply;
use roomcast_protocol::socketio::Args;

use super::listeners::{DisconnectListener, Listeners, PacketMiddleware, call_all};
use super::{Event, Namespace, Socket};
use crate::handler::{BoxFuture, DisconnectReason, NamespaceHandler, Refusal, Step};

type Middleware = Arc<dyn Fn(Socket) -> BoxFuture<Result<(), Refusal>> + Send + Sync>;
type ConnectListener = Arc<dyn Fn(Socket) -> BoxFuture<()> + Send + Sync>;
type ServerListener = Arc<dyn Fn(&Namespace, &str, Args, Option<ServerReply>) + Send + Sync>;

/// What embedded code has attached to a namespace. Children of a pattern share it with their parent.
#[derive(Default)]
pub(crate) struct Code {
    middlewares: RwLock<Vec<Middleware>>,
    on_connect: RwLock<Vec<ConnectListener>>,
    listeners: Mutex<Listeners>,
    on_server_event: RwLock<Vec<ServerListener>>,
}

impl Code {
    pub(crate) fn add_middleware<F, Fut>(&self, middleware: F)
    where
        F: Fn(Socket) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<(), Refusal>> + Send + 'static,
    {
        self.middlewares.write().push(Arc::new(move |socket| Box::pin(middleware(socket))));
    }

    pub(crate) fn add_on_connect<F, Fut>(&self, listener: F)
    where
        F: Fn(Socket) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = ()> + Send + 'static,
    {
        self.on_connect.write().push(Arc::new(move |socket| Box::pin(listener(socket))));
    }

    pub(crate) fn add_server_listener(
        &self,
        listener: impl Fn(&Namespace, &str, Args, Option<ServerReply>) + Send + Sync + 'static,
    ) {
        self.on_server_event.write().push(Arc::new(listener));
    }

    pub(crate) fn with_listeners<R>(&self, change: impl FnOnce(&mut Listeners) -> R) -> R {
        change(&mut self.listeners.lock())
    }

    fn disconnect_listeners(
        &self,
        socket: &Socket,
        which: fn(&Listeners) -> Vec<DisconnectListener>,
    ) -> Vec<DisconnectListener> {
        let mut listeners = which(&self.listeners.lock());
        listeners.extend(socket.read_listeners(|own| which(own)).unwrap_or_default());
        listeners
    }

    fn packet_middlewares(&self, socket: &Socket) -> Vec<PacketMiddleware> {
        let mut middlewares = self.listeners.lock().middlewares().to_vec();
        let own = socket.read_listeners(|own| own.middlewares().to_vec());
        middlewares.extend(own.unwrap_or_default());
        middlewares
    }

    fn dispatch(&self, socket: &Socket, event: &Event, cx: &mut Context<'_>) -> Step<()> {
        let mut found = Vec::new();
        self.listeners.lock().collect(&event.name, &mut found);
        socket.read_listeners(|own| own.collect(&event.name, &mut found));
        call_all(&found, socket, event, cx)
    }
}

/// Starts futures in order and waits for those that have to.
fn start_all(futures: Vec<BoxFuture<()>>, cx: &mut Context<'_>) -> Step<()> {
    let mut waiting = Vec::new();
    for mut future in futures {
        if future.as_mut().poll(cx).is_pending() {
            waiting.push(future);
        }
    }
    if waiting.is_empty() {
        return Step::Done(());
    }
    Step::Wait(Box::pin(async move {
        futures_util::future::join_all(waiting).await;
    }))
}

/// The handler itself: a shared [`Code`].
pub(crate) struct CodeHandler(pub(crate) Arc<Code>);

impl NamespaceHandler for CodeHandler {
    fn admit(&self, socket: &Socket, cx: &mut Context<'_>) -> Step<Result<(), Refusal>> {
        let middlewares = self.0.middlewares.read().clone();
        if middlewares.is_empty() {
            return Step::Done(Ok(()));
        }
        let socket = socket.clone();
        Step::start(
            async move {
                for middleware in middlewares {
                    middleware(socket.clone()).await?;
                }
                Ok(())
            },
            cx,
        )
    }

    fn connected(&self, socket: &Socket, cx: &mut Context<'_>) -> Step<()> {
        let listeners = self.0.on_connect.read().clone();
        start_all(listeners.iter().map(|listener| listener(socket.clone())).collect(), cx)
    }

    fn event(&self, socket: &Socket, event: Event, cx: &mut Context<'_>) -> Step<()> {
        let middlewares = self.0.packet_middlewares(socket);
        if middlewares.is_empty() {
            return self.0.dispatch(socket, &event, cx);
        }
        let (code, socket) = (Arc::clone(&self.0), socket.clone());
        Step::start(
            async move {
                for middleware in middlewares {
                    if let Err(refusal) = middleware(socket.clone(), event.clone()).await {
                        let error = serde_json::json!({ "message": refusal.message, "data": refusal.data });
                        let _ = event.ack.send(serde_json::json!({ "error": error }));
                        return;
                    }
                }
                let mut step = None;
                std::future::poll_fn(|cx| {
                    step = Some(code.dispatch(&socket, &event, cx));
                    Poll::Ready(())
                })
                .await;
                if let Some(Step::Wait(future)) = step {
                    future.await;
                }
            },
            cx,
        )
    }

    fn disconnecting(&self, socket: &Socket, reason: DisconnectReason, cx: &mut Context<'_>) -> Step<()> {
        let listeners = self.0.disconnect_listeners(socket, Listeners::disconnecting);
        start_all(listeners.iter().map(|listener| listener(socket.clone(), reason)).collect(), cx)
    }

    fn disconnected(&self, socket: &Socket, reason: DisconnectReason, cx: &mut Context<'_>) -> Step<()> {
        let listeners = self.0.disconnect_listeners(socket, Listeners::disconnected);
        start_all(listeners.iter().map(|listener| listener(socket.clone(), reason)).collect(), cx)
    }

    fn server_event(&self, namespace: &Namespace, name: &str, args: Args, reply: Option<ServerReply>) {
        let listeners = self.0.on_server_event.read().clone();
        let mut reply = reply;
        for listener in listeners {
            listener(namespace, name, args.clone(), reply.take());
        }
    }
}
