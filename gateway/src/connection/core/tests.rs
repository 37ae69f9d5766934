//! The core of a connection in virtual time: texts of a client go in, what would be written comes out.

use std::task::Waker;
use std::time::Duration;

use http::{HeaderMap, Uri};
use parking_lot::Mutex;
use roomcast_adapter::{LocalFactory, NodeTag};
use tokio::sync::Semaphore;

use super::*;
use crate::config::Config;
use crate::metrics::Metrics;
use crate::namespace::{Ack, Handshake, Namespace, Socket};

fn cx() -> Context<'static> {
    Context::from_waker(Waker::noop())
}

/// A client on a WebSocket and its connection.
struct Peer {
    core: Core,
    now: Instant,
}

impl Peer {
    fn new(change: impl FnOnce(&mut Config)) -> Self {
        let mut config = Config::default();
        change(&mut config);
        let factory = LocalFactory::new(NodeTag::from_random([1, 2, 3]));
        let engine = Engine::new(config, factory, Arc::new(Metrics::new()), None);
        let handshake = Handshake::new(&Uri::from_static("/"), &HeaderMap::new(), None, false);
        let shared = engine.shared(handshake, Transport::WebSocket, None);
        let now = Instant::now();
        let mut peer = Self { core: Core::new(&engine, shared, now), now };
        assert!(peer.read()[0].starts_with('0'), "the open packet");
        peer
    }

    fn of(&self, namespace: &str) -> Namespace {
        self.core.engine.registry.of(namespace)
    }

    fn say(&mut self, text: &str) {
        self.core.handle_text(text, self.now, &mut cx());
    }

    /// Lets the connection take its mail.
    fn deliver(&mut self) {
        let mut items = VecDeque::new();
        if self.core.shared.mailbox.poll_take(&mut cx(), &mut items).is_ready() {
            self.core.handle_mail(&mut items, self.now, &mut cx());
        }
    }

    /// Lets handlers go on until all wait.
    fn work(&mut self) {
        while self.core.poll_waiting(&mut cx()) {}
    }

    fn leaves(&mut self) -> bool {
        self.core.leave_if_settled(self.now, &mut cx())
    }

    /// What would have been written by now; ids of sockets are left out.
    fn read(&mut self) -> Vec<String> {
        let frames = std::iter::from_fn(|| self.core.wire.pop());
        let texts = frames.map(|wire| {
            let frame = wire.frames();
            let header = if frame[1] < 126 { 2 } else { 4 };
            let text = str::from_utf8(&frame[header..]).unwrap();
            text.split(r#"{"sid""#).next().unwrap().to_owned()
        });
        texts.collect()
    }
}

/// What handlers wait for, and what they have done.
#[derive(Clone)]
struct Work {
    gate: Arc<Semaphore>,
    done: Arc<Mutex<Vec<u32>>>,
}

impl Work {
    fn new() -> Self {
        Self { gate: Arc::new(Semaphore::new(0)), done: Arc::default() }
    }

    async fn pass(&self) {
        self.gate.acquire().await.unwrap().forget();
    }

    fn let_pass(&self, count: usize) {
        self.gate.add_permits(count);
    }

    /// Events `do` with a number wait, and are acknowledged when they are done.
    fn listen(&self, socket: &Socket) {
        let work = self.clone();
        socket.on("do", move |number: u32, ack: Ack| {
            let work = work.clone();
            async move {
                work.pass().await;
                work.done.lock().push(number);
                let _ = ack.send(number);
            }
        });
    }
}

/// A namespace whose listener of connections waits.
fn slow(peer: &Peer, name: &str) -> Work {
    let work = Work::new();
    let gate = work.clone();
    peer.of(name).on_connect(move |_| {
        let gate = gate.clone();
        async move { gate.pass().await }
    });
    work
}

/// A namespace with work for its clients.
fn busy(peer: &Peer, name: &str) -> Work {
    let work = Work::new();
    let listener = work.clone();
    peer.of(name).on_connect(move |socket| {
        listener.listen(&socket);
        async {}
    });
    work
}

#[test]
fn mail_waits_for_the_connect_reply_and_that_of_other_namespaces_does_not() {
    let mut peer = Peer::new(|_| {});
    let work = slow(&peer, "/slow");
    peer.of("/fast");
    peer.say("40/slow,");
    peer.say("40/fast,");
    peer.of("/slow").emit("a", 1).unwrap();
    peer.of("/fast").emit("b", 2).unwrap();
    peer.of("/slow").emit("c", 3).unwrap();
    peer.deliver();
    assert_eq!(peer.read(), ["40/fast,", r#"42/fast,["b",2]"#]);
    work.let_pass(1);
    peer.work();
    assert_eq!(peer.read(), ["40/slow,", r#"42/slow,["a",1]"#, r#"42/slow,["c",3]"#]);
}

#[test]
fn who_is_refused_after_a_while_may_ask_again() {
    let mut peer = Peer::new(|_| {});
    let work = Work::new();
    let (gate, asked) = (work.clone(), Arc::clone(&work.done));
    peer.of("/").use_middleware(move |_| {
        let (gate, asked) = (gate.clone(), Arc::clone(&asked));
        async move {
            gate.pass().await;
            asked.lock().push(0);
            if asked.lock().len() > 1 { Ok(()) } else { Err("not yet".into()) }
        }
    });
    peer.say("40");
    peer.of("/").emit("a", 1).unwrap();
    peer.deliver();
    work.let_pass(2);
    peer.work();
    assert_eq!(peer.read(), [r#"44{"message":"not yet"}"#]);
    peer.say("40");
    peer.of("/").emit("a", 2).unwrap();
    peer.deliver();
    assert_eq!(peer.read(), ["40", r#"42["a",2]"#]);
}

#[test]
fn more_held_mail_than_a_mailbox_takes_ends_the_connection() {
    let mut peer = Peer::new(|config| config.mailbox.max_items = 2);
    let _work = slow(&peer, "/");
    peer.say("40");
    for number in 0..2 {
        peer.of("/").emit("a", number).unwrap();
        peer.deliver();
        assert!(!peer.core.is_slow());
    }
    peer.of("/").emit("a", 2).unwrap();
    peer.deliver();
    assert!(peer.core.is_slow());
    assert!(peer.core.session.is_closed());
    assert_eq!(peer.of("/").local_count(), 0);
}

#[test]
fn beyond_the_handlers_that_may_wait_events_are_held_in_their_order() {
    let mut peer = Peer::new(|config| config.engine.max_pending_handlers = 2);
    let work = busy(&peer, "/");
    peer.say("40");
    let held = 2 * 8;
    for number in 0..2 + held {
        assert!(!peer.core.is_full(), "{number}");
        peer.say(&format!(r#"42["do",{number}]"#));
    }
    assert!(peer.core.is_full());
    work.let_pass(1);
    peer.work();
    assert!(!peer.core.is_full());
    work.let_pass(1 + held);
    peer.work();
    assert_eq!(*work.done.lock(), Vec::from_iter(0..2 + held as u32));
}

#[test]
fn who_is_told_to_go_ends_what_is_under_way_and_hears_nothing_new() {
    let mut peer = Peer::new(|_| {});
    let work = busy(&peer, "/");
    peer.of("/other");
    peer.say("40");
    peer.say(r#"421["do",1]"#);
    peer.read();
    peer.core.shared.mailbox.close(CloseCause::Draining);
    peer.deliver();
    assert!(!peer.leaves(), "a handler waits");
    peer.say(r#"422["do",2]"#);
    peer.say("40/other,");
    work.let_pass(2);
    peer.work();
    assert!(peer.leaves());
    assert!(peer.core.is_sent_away());
    assert_eq!(*work.done.lock(), [1]);
    assert_eq!(peer.read(), ["431[1]"]);
}

#[test]
fn the_grace_of_who_is_told_to_go_ends() {
    let grace = Duration::from_secs(2);
    let mut peer = Peer::new(|config| config.drain.grace = grace);
    let _work = busy(&peer, "/");
    peer.say("40");
    peer.say(r#"42["do",1]"#);
    peer.core.shared.mailbox.close(CloseCause::Rebalanced);
    peer.deliver();
    assert_eq!(peer.core.deadline(), Some(peer.now + grace));
    peer.core.handle_timeout(peer.now + grace, &mut cx());
    assert!(peer.core.is_sent_away());
    assert_eq!(peer.of("/").local_count(), 0);
}

#[test]
fn a_client_that_joins_nothing_in_time_is_closed() {
    let timeout = Duration::from_secs(3);
    let silent = |joins: bool| {
        let mut peer = Peer::new(|config| config.engine.connect_timeout = timeout);
        peer.of("/");
        if joins {
            peer.say("40");
        }
        peer.core.handle_timeout(peer.now + timeout, &mut cx());
        peer.core.session.is_closed()
    };
    assert!(silent(false));
    assert!(!silent(true));
}

#[test]
fn a_server_that_ends_a_connection_says_goodbye_in_every_namespace() {
    let mut peer = Peer::new(|_| {});
    let _work = slow(&peer, "/slow");
    peer.of("/").on_connect(|socket| async move {
        socket.on("bye", |socket: Socket, close: bool| async move { socket.disconnect(close) });
    });
    peer.say("40");
    peer.say("40/slow,");
    peer.say(r#"42["bye",false]"#);
    peer.deliver();
    assert_eq!(peer.read(), ["40", "41"]);
    peer.say("40");
    peer.say(r#"42["bye",true]"#);
    peer.deliver();
    assert_eq!(peer.read(), ["40", "41", "40/slow,", "41/slow,"]);
    assert!(peer.core.session.is_closed());
}
