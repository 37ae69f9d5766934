//! A node with one namespace, whose adapter notes what it is asked and answers as it is told.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures_util::future::BoxFuture;
use futures_util::stream::{self, StreamExt as _};
use parking_lot::Mutex;
use roomcast_adapter::{
    AckEvent, AckStream, Adapter, AdapterError, AdapterFactory, Collected, DrainError, DrainOrder, Drains,
    Host, LocalFactory, LocalSocket, NamespaceEvents, NodeInfo, NodeState, NodeTag, Once, OnceKey, Outgoing,
    PresenceEvent, RemoteSocket, Room, RoomCount, RoomPage, Selector, SocketId, Standing, Status, Tap,
    Target, TraceContext,
};
use roomcast_protocol::socketio::{AckId, Args};
use tokio::sync::{mpsc, watch};

use crate::backend::{Node, NodeStats, Phase};
use crate::metrics::Metrics;

/// What the adapter was asked to do.
#[derive(Debug, Clone)]
pub(super) enum Asked {
    Broadcast(Selector, Arc<Outgoing>),
    Join(Selector, Vec<Room>),
    Leave(Selector, Vec<Room>),
    Disconnect(Selector, bool),
    Count(String),
    Ask(Selector, String, Args, Duration),
    ServerEvent(String, Args),
}

#[derive(Default)]
pub(super) struct Script {
    pub(super) asked: Mutex<Vec<Asked>>,
    pub(super) fails_with: Option<AdapterError>,
    pub(super) missing: Vec<NodeTag>,
    /// What comes of an emit with acks. Without it they never come.
    pub(super) acks: Option<Vec<AckEvent>>,
    /// An emit with acks is awaited no more.
    pub(super) cancelled: Arc<AtomicBool>,
}

/// Notes that it was dropped.
struct Awaited(Arc<AtomicBool>);

impl Awaited {
    /// Belongs to whoever calls this.
    fn touch(&self) {}
}

impl Drop for Awaited {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Release);
    }
}

impl Script {
    fn note(&self, asked: Asked) -> Result<Collected<()>, AdapterError> {
        self.asked.lock().push(asked);
        match self.fails_with {
            Some(error) => Err(error),
            None => Ok(Collected { value: (), missing: self.missing.clone() }),
        }
    }
}

fn socket(id: SocketId) -> RemoteSocket {
    RemoteSocket {
        id,
        handshake: serde_json::json!({ "headers": { "cookie": "secret" } }),
        rooms: vec![id.as_str().into(), "a".into()],
        data: serde_json::json!({ "n": 1 }),
    }
}

fn ready<T: Send + 'static>(value: T) -> BoxFuture<'static, T> {
    Box::pin(std::future::ready(value))
}

impl Adapter for Script {
    fn add(&self, _: LocalSocket) {}

    fn remove(&self, _: SocketId) -> Vec<Room> {
        Vec::new()
    }

    fn join(&self, _: SocketId, _: &[Room]) -> BoxFuture<'static, Result<bool, AdapterError>> {
        ready(Ok(false))
    }

    fn leave(&self, _: SocketId, _: &str) {}

    fn rooms_of(&self, _: SocketId) -> Vec<Room> {
        Vec::new()
    }

    fn is_member(&self, _: SocketId, _: &str) -> bool {
        false
    }

    fn local_room_count(&self) -> usize {
        0
    }

    fn local_count(&self) -> usize {
        0
    }

    fn broadcast(&self, selector: &Selector, outgoing: &Arc<Outgoing>) -> Result<(), AdapterError> {
        self.note(Asked::Broadcast(selector.clone(), Arc::clone(outgoing))).map(drop)
    }

    fn broadcast_confirmed(
        &self,
        selector: &Selector,
        outgoing: &Arc<Outgoing>,
    ) -> BoxFuture<'static, Result<(), AdapterError>> {
        ready(self.broadcast(selector, outgoing))
    }

    fn broadcast_with_ack(
        &self,
        to: &Selector,
        name: &str,
        args: &Args,
        timeout: Duration,
        _: Option<TraceContext>,
    ) -> AckStream {
        let _ = self.note(Asked::Ask(to.clone(), name.to_owned(), args.clone(), timeout));
        let awaited = Awaited(Arc::clone(&self.cancelled));
        let events = stream::iter(self.acks.clone().unwrap_or_default());
        let rest = if self.acks.is_some() { stream::empty().boxed() } else { stream::pending().boxed() };
        Box::pin(events.chain(rest).inspect(move |_| awaited.touch()))
    }

    fn ack(&self, _: SocketId, _: AckId, _: Args) {}

    fn owes_acks(&self, _: SocketId) -> bool {
        false
    }

    fn fetch_sockets(&self, selector: &Selector) -> BoxFuture<'static, Collected<Vec<RemoteSocket>>> {
        let Target::Socket(wanted) = selector.to else { unreachable!("sockets are listed by pages") };
        // Somebody else has joined the room of its id.
        let other = socket("AAAAAAAAAAAAAAAAAAAC".parse().unwrap());
        let known = (wanted.as_str() == "AAAAAAAAAAAAAAAAAAAA").then(|| socket(wanted));
        let value = std::iter::once(other).chain(known).collect();
        ready(Collected { value, missing: self.missing.clone() })
    }

    fn count_sockets(&self, _: &Selector) -> BoxFuture<'static, Collected<usize>> {
        ready(Collected { value: 0, missing: Vec::new() })
    }

    fn room_sockets(
        &self,
        _: &str,
        after: Option<SocketId>,
        limit: usize,
    ) -> BoxFuture<'static, Collected<Vec<RemoteSocket>>> {
        // There are three.
        let ids = ["AAAAAAAAAAAAAAAAAAAA", "AAAAAAAAAAAAAAAAAAAB", "BBBBAAAAAAAAAAAAAAAA"];
        let ids = ids.map(|id| id.parse::<SocketId>().unwrap());
        let ids = ids.into_iter().filter(|id| after.is_none_or(|after| *id > after)).take(limit);
        ready(Collected { value: ids.map(socket).collect(), missing: self.missing.clone() })
    }

    fn room_count(&self, room: &str) -> BoxFuture<'static, RoomCount> {
        let _ = self.note(Asked::Count(room.to_owned()));
        let (missing, age) = (self.missing.clone(), Duration::from_secs(1));
        ready(RoomCount { sockets: 7, exact: missing.is_empty(), age, missing })
    }

    fn rooms(&self, after: Option<&str>, limit: usize) -> BoxFuture<'static, RoomPage> {
        // There are three.
        let rooms = [("a", 1), ("order:1", 2), ("order:2", 3)].into_iter();
        let rooms = rooms.filter(|(room, _)| after.is_none_or(|after| *room > after)).take(limit);
        let rooms = rooms.map(|(room, sockets)| (room.into(), sockets)).collect();
        let (missing, age) = (self.missing.clone(), Duration::from_secs(1));
        ready(RoomPage { rooms, exact: missing.is_empty(), age, missing })
    }

    fn sockets_join(
        &self,
        selector: &Selector,
        rooms: &[Room],
    ) -> BoxFuture<'static, Result<Collected<()>, AdapterError>> {
        ready(self.note(Asked::Join(selector.clone(), rooms.to_vec())))
    }

    fn sockets_leave(
        &self,
        selector: &Selector,
        rooms: &[Room],
    ) -> BoxFuture<'static, Result<Collected<()>, AdapterError>> {
        ready(self.note(Asked::Leave(selector.clone(), rooms.to_vec())))
    }

    fn disconnect_sockets(
        &self,
        selector: &Selector,
        close: bool,
    ) -> BoxFuture<'static, Result<Collected<()>, AdapterError>> {
        ready(self.note(Asked::Disconnect(selector.clone(), close)))
    }

    fn server_side_emit(&self, name: &str, args: &Args) -> Result<(), AdapterError> {
        self.note(Asked::ServerEvent(name.to_owned(), args.clone())).map(drop)
    }

    fn server_side_emit_with_ack(
        &self,
        name: &str,
        args: &Args,
        _: Duration,
    ) -> BoxFuture<'static, Collected<Vec<Args>>> {
        let _ = self.note(Asked::ServerEvent(name.to_owned(), args.clone()));
        let answer = Args::from_serialize(&("pong", 1)).unwrap();
        ready(Collected { value: vec![answer], missing: self.missing.clone() })
    }
}

/// A node that is alone remembers calls as one of a cluster does.
struct Factory(watch::Sender<Status>, Arc<LocalFactory>);

fn factory(status: Status) -> Arc<dyn AdapterFactory> {
    Arc::new(Factory(watch::channel(status).0, LocalFactory::new(tag("AAAA"))))
}

impl AdapterFactory for Factory {
    fn node(&self) -> NodeTag {
        tag("AAAA")
    }

    fn namespace(&self, _: &str, _: Arc<dyn NamespaceEvents>) -> Arc<dyn Adapter> {
        unreachable!("the test node has its one namespace")
    }

    fn status(&self) -> watch::Receiver<Status> {
        self.0.subscribe()
    }

    fn nodes(&self) -> Vec<NodeTag> {
        vec![tag("BBBB"), tag("AAAA")]
    }

    fn node_infos(&self) -> Vec<NodeInfo> {
        let age = Duration::from_secs(1);
        let standing = Some(Standing { state: NodeState::Draining, connections: 2 });
        let here = NodeInfo { tag: tag("AAAA"), sockets: Some(3), rooms: Some(2), standing, age };
        vec![here, NodeInfo { tag: tag("BBBB"), sockets: None, rooms: None, standing: None, age }]
    }

    fn presence(&self) -> mpsc::Receiver<PresenceEvent> {
        mpsc::channel(1).1
    }

    fn end_presence(&self) {}

    fn tap(&self) -> &Arc<Tap> {
        self.1.tap()
    }

    fn once(&self, key: OnceKey) -> BoxFuture<'static, Result<Once, AdapterError>> {
        self.1.once(key)
    }

    fn set_host(&self, _: &Arc<dyn Host>) {}

    /// Only BBBB can be told so.
    fn drain(&self, node: NodeTag, order: DrainOrder) -> BoxFuture<'static, Result<Drains, DrainError>> {
        ready(match node.as_str() {
            "AAAA" => Err(DrainError::NoAnswer),
            "BBBB" => Ok(Drains { already: order.period.is_some(), connections: 7 }),
            "CCCC" => Err(DrainError::TooOld),
            _ => Err(DrainError::UnknownNode),
        })
    }

    fn shutdown(&self) -> BoxFuture<'static, ()> {
        ready(())
    }
}

pub(super) fn tag(text: &str) -> NodeTag {
    text.parse().unwrap()
}

/// A node that has the namespace `/chat` beside `/`, both with the same adapter.
pub(super) struct TestNode {
    pub(super) adapter: Arc<Script>,
    pub(super) factory: Arc<dyn AdapterFactory>,
    pub(super) metrics: Arc<Metrics>,
    pub(super) phase: Phase,
}

impl TestNode {
    pub(super) fn new() -> Self {
        let adapter = Script::default();
        Self {
            adapter: Arc::new(adapter),
            factory: factory(Status::Ready),
            metrics: Arc::new(Metrics::new()),
            phase: Phase::Serving,
        }
    }

    /// A node that has lost its broker.
    pub(super) fn without_broker() -> Self {
        let adapter = Script { fails_with: Some(AdapterError::BrokerUnavailable), ..Script::default() };
        let factory = factory(Status::Unavailable);
        Self { adapter: Arc::new(adapter), factory, ..Self::new() }
    }

    /// A node whose clients answer so.
    pub(super) fn with_acks(acks: Vec<AckEvent>) -> Self {
        let adapter = Script { acks: Some(acks), ..Script::default() };
        Self { adapter: Arc::new(adapter), ..Self::new() }
    }

    /// A node whose neighbour does not answer.
    pub(super) fn with_silent_neighbour() -> Self {
        let adapter = Script { missing: vec![tag("BBBB")], ..Script::default() };
        Self { adapter: Arc::new(adapter), ..Self::new() }
    }
}

impl Node for TestNode {
    fn adapter(&self, namespace: &str) -> Option<Arc<dyn Adapter>> {
        ["/", "/chat"].contains(&namespace).then(|| Arc::clone(&self.adapter) as Arc<dyn Adapter>)
    }

    fn server_side_event(&self, _: &str, _: &str, _: Args) {}

    fn factory(&self) -> &Arc<dyn AdapterFactory> {
        &self.factory
    }

    fn phase(&self) -> Phase {
        self.phase
    }

    fn connections(&self) -> usize {
        5
    }

    fn metrics(&self) -> &Arc<Metrics> {
        &self.metrics
    }

    fn stats(&self) -> NodeStats {
        NodeStats {
            adapter: "memory",
            rooms: 2,
            namespaces: vec![("/".to_owned(), 3), ("/chat".to_owned(), 4)],
        }
    }
}
