//! The nodes of a test.

use std::any::Any;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use futures_util::future::BoxFuture;
use parking_lot::Mutex;
use roomcast_protocol::socketio::{Args, EncodedPacket};
use serde::Serialize;
use tokio::sync::Notify;

use super::socket::{Card, PATIENCE, Received, TestSocket};
use crate::adapter::{Adapter, AdapterFactory, LocalSocket, NamespaceEvents, ServerReply};
use crate::id::SocketId;
use crate::mailbox::{Mailbox, MailboxLimits, Outgoing};
use crate::selector::{Room, Selector};

/// What other servers sent to a namespace. Answers with the node's tag.
#[derive(Default)]
pub struct Events {
    heard: Mutex<Vec<(String, Args)>>,
    bell: Notify,
    tag: String,
}

impl NamespaceEvents for Events {
    fn server_side_event(&self, name: &str, args: Args, reply: Option<ServerReply>) {
        self.heard.lock().push((name.to_owned(), args));
        self.bell.notify_waiters();
        if let Some(reply) = reply
            && name != "silent"
        {
            reply(args_of(&(self.tag.as_str(),)));
        }
    }
}

impl Events {
    /// Waits until this many have come, and gives them.
    pub async fn wait(&self, count: usize) -> Vec<(String, Args)> {
        let wait = async {
            loop {
                let bell = self.bell.notified();
                if self.heard.lock().len() >= count {
                    return self.heard.lock().clone();
                }
                bell.await;
            }
        };
        tokio::time::timeout(PATIENCE, wait).await.expect("a server-side event did not come")
    }
}

/// Nodes that know each other and are ready.
pub struct TestCluster {
    nodes: Vec<Arc<dyn AdapterFactory>>,
    next: AtomicU64,
    settle: Option<Settle>,
    /// What must live as long, such as a broker.
    _keep: Box<dyn Any + Send + Sync>,
}

/// Ends when everything that the brokers have taken is delivered.
type Settle = Box<dyn Fn() -> BoxFuture<'static, ()> + Send + Sync>;

/// Arguments of a value; a tuple is several.
pub fn args_of<T: Serialize + ?Sized>(value: &T) -> Args {
    Args::from_serialize(value).expect("a value that is JSON")
}

/// A packet of an event in a namespace.
pub fn event(namespace: &str, name: &str, args: &Args) -> Arc<Outgoing> {
    Outgoing::new(EncodedPacket::event(namespace, None, name, args))
}

impl TestCluster {
    /// Waits until each of some nodes knows all. `keep` lives as long as they do.
    pub async fn new(nodes: Vec<Arc<dyn AdapterFactory>>, keep: impl Any + Send + Sync) -> Self {
        let cluster = Self { nodes, next: AtomicU64::new(1), settle: None, _keep: Box::new(keep) };
        let all = cluster.len();
        for node in 0..all {
            cluster.wait_for_nodes(node, all).await;
        }
        cluster
    }

    /// For buses that keep no order across subjects, where a fence says nothing about other rooms: a future that ends when
    /// everything that was confirmed before is delivered.
    #[must_use]
    pub fn settled_by(mut self, settle: impl Fn() -> BoxFuture<'static, ()> + Send + Sync + 'static) -> Self {
        self.settle = Some(Box::new(settle));
        self
    }

    /// The number of nodes.
    #[expect(clippy::len_without_is_empty, reason = "a cluster has a node")]
    pub fn len(&self) -> usize {
        self.nodes.len()
    }

    /// A node. The suite counts on three; a smaller cluster has them do several duties.
    pub fn factory(&self, node: usize) -> &Arc<dyn AdapterFactory> {
        &self.nodes[node % self.nodes.len()]
    }

    /// The adapter of a namespace on a node.
    pub fn adapter(&self, node: usize, namespace: &str) -> Arc<dyn Adapter> {
        self.factory(node).namespace(namespace, Arc::new(Events::default()))
    }

    /// The namespace on all nodes, with what each hears. To be called before anything else of the namespace.
    pub async fn listen(&self, namespace: &str) -> Vec<(Arc<dyn Adapter>, Arc<Events>)> {
        let mut listening = Vec::new();
        for factory in &self.nodes {
            let events = Arc::new(Events { tag: factory.node().to_string(), ..Events::default() });
            listening.push((factory.namespace(namespace, Arc::clone(&events) as _), events));
        }
        listening
    }

    /// A socket on a node in a namespace that has joined rooms, with the subscriptions standing.
    pub async fn socket_in(&self, node: usize, namespace: &str, rooms: &[&str]) -> TestSocket {
        let adapter = self.adapter(node, namespace);
        let mut random = [0; 12];
        random[4..].copy_from_slice(&self.next.fetch_add(1, Ordering::Relaxed).to_be_bytes());
        let id = SocketId::new(self.factory(node).node(), random);
        let mailbox = Mailbox::new(MailboxLimits::default());
        adapter.add(LocalSocket { id, mailbox: Arc::clone(&mailbox), describe: Arc::new(Card(id)) });
        let rooms: Vec<Room> = rooms.iter().map(|room| Room::from(*room)).collect();
        assert_eq!(adapter.join(id, &rooms).await, Ok(true));
        TestSocket::new(id, mailbox, adapter)
    }

    /// A socket on a node in the main namespace.
    pub async fn socket(&self, node: usize, rooms: &[&str]) -> TestSocket {
        self.socket_in(node, "/", rooms).await
    }

    /// Emits an event without arguments from a node in the main namespace.
    pub fn emit(&self, node: usize, selector: &Selector, name: &str) {
        let emitted = self.adapter(node, "/").broadcast(selector, &event("/", name, &Args::none()));
        assert_eq!(emitted, Ok(()));
    }

    /// What each of some sockets of a namespace has received of all that was emitted before by any node.
    pub async fn received_in(&self, namespace: &str, sockets: &mut [&mut TestSocket]) -> Vec<Vec<Received>> {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        for factory in &self.nodes {
            let adapter = factory.namespace(namespace, Arc::new(Events::default()));
            let fence = event(namespace, "fence", &args_of(&(number, factory.node())));
            match self.settle {
                None => assert_eq!(adapter.broadcast(&Selector::all(), &fence), Ok(())),
                // Confirmed in the order of the emits, so those before are with the broker too.
                Some(_) => assert_eq!(adapter.broadcast_confirmed(&Selector::all(), &fence).await, Ok(())),
            }
        }
        if let Some(settle) = &self.settle {
            settle().await;
        }
        let mut all = Vec::new();
        for socket in sockets {
            let (mut received, mut fences) = (Vec::new(), 0);
            loop {
                let next = match self.settle {
                    None if fences == self.nodes.len() => break,
                    None => socket.next().await,
                    Some(_) => match socket.try_next() {
                        Some(next) => next,
                        None => break,
                    },
                };
                match next.name().as_str() {
                    "fence" if next.args()[0] == number => fences += 1,
                    "fence" => {}
                    _ => received.push(next),
                }
            }
            assert_eq!(fences, self.nodes.len(), "an emit to all is missing");
            all.push(received);
        }
        all
    }

    /// The names of the events that each socket of the main namespace has received.
    pub async fn names(&self, sockets: &mut [&mut TestSocket]) -> Vec<Vec<String>> {
        let received = self.received_in("/", sockets).await;
        received.iter().map(|events| events.iter().map(Received::name).collect()).collect()
    }

    /// Waits until a node knows this many nodes, itself among them.
    pub async fn wait_for_nodes(&self, node: usize, count: usize) {
        let known = async {
            while self.factory(node).nodes().len() != count {
                tokio::time::sleep(std::time::Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(PATIENCE, known).await.expect("the nodes do not know each other");
    }

    /// Waits until a node knows that a room has this many sockets in the whole cluster.
    pub async fn wait_for_count(&self, node: usize, room: &str, sockets: usize) {
        let adapter = self.adapter(node, "/");
        let counted = async {
            loop {
                let count = adapter.room_count(room).await;
                if count.exact && count.sockets == sockets {
                    assert!(count.missing.is_empty());
                    return;
                }
                tokio::time::sleep(std::time::Duration::from_millis(5)).await;
            }
        };
        let error = format!("node {node} does not count {sockets} sockets in {room}");
        tokio::time::timeout(PATIENCE, counted).await.expect(&error);
    }

    /// Ends all nodes.
    pub async fn shutdown(&self) {
        for node in &self.nodes {
            node.shutdown().await;
        }
    }
}
