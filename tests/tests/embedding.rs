//! What embedded code relies on, seen from a client that is written out by hand: order, acks, and what is left when a client
//! or a listener fails.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use roomcast::{Io, Socket};
use roomcast_protocol::websocket::{Decoder, Inflater, Message, OpCode, Role, masked_frame};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;

/// Costs time only when something is broken.
const DEADLINE: Duration = Duration::from_secs(20);

async fn start(io: &Io) -> std::net::SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("an address");
    tokio::spawn(roomcast::serve(io.clone(), listener, std::future::pending()));
    address
}

async fn within<T>(what: &str, future: impl Future<Output = T>) -> T {
    match tokio::time::timeout(DEADLINE, future).await {
        Ok(value) => value,
        Err(_) => panic!("{what} took too long"),
    }
}

async fn until(what: &str, mut condition: impl FnMut() -> bool) {
    within(what, async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
}

/// A WebSocket of the client's role, at the level of Engine.IO packets.
struct Client {
    stream: TcpStream,
    decoder: Decoder,
    received: Vec<String>,
}

impl Client {
    /// Opens a session; the open packet is taken.
    async fn open(address: std::net::SocketAddr) -> Self {
        let mut stream = TcpStream::connect(address).await.expect("a connection");
        let request = "GET /socket.io/?EIO=4&transport=websocket HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\n\
                       Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
                       Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
        stream.write_all(request.as_bytes()).await.expect("a request");
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(stream.read_u8().await.expect("an answer"));
        }
        assert!(head.starts_with(b"HTTP/1.1 101"));
        let decoder = Decoder::new(Role::Client, 1_000_000, 100, None);
        let mut client = Self { stream, decoder, received: Vec::new() };
        assert!(client.receive().await.starts_with("0{"));
        client
    }

    /// Opens a session and joins `/`.
    async fn connect(address: std::net::SocketAddr) -> Self {
        let mut client = Self::open(address).await;
        client.send(&["40"]).await;
        assert!(client.receive().await.starts_with("40{"));
        client
    }

    /// Sends packets in one segment.
    async fn send(&mut self, packets: &[&str]) {
        let bytes: Vec<u8> = packets
            .iter()
            .flat_map(|packet| masked_frame(OpCode::Text, packet.as_bytes(), [1, 2, 3, 4]))
            .collect();
        self.stream.write_all(&bytes).await.expect("the server takes it");
    }

    /// The next packet.
    async fn receive(&mut self) -> String {
        within("a packet", async {
            while self.received.is_empty() {
                let mut buffer = vec![0; 64 * 1024];
                let len = self.stream.read(&mut buffer).await.expect("bytes");
                assert!(len > 0, "the server closed the connection");
                let (mut rest, mut inflater) = (&mut buffer[..len], Inflater::new());
                while let Some(message) = self.decoder.decode(&mut rest, &mut inflater).expect("frames") {
                    if let Message::Text(text) = message {
                        self.received.push(text.to_owned());
                    }
                }
            }
        })
        .await;
        self.received.remove(0)
    }
}

/// The ack of an event such as `4213["ask"]`.
fn ack_of(packet: &str) -> String {
    let id = packet.strip_prefix("42").and_then(|rest| rest.split('[').next()).expect("an event");
    format!("43{id}[]")
}

#[tokio::test]
async fn a_listener_that_panics_leaves_no_ghost() {
    let io = Io::new();
    io.on_connect(|socket: Socket| async move {
        let _ = socket.join("room").await;
        socket.on("panic", |number: u32| async move { assert_eq!(number, 0, "on purpose") });
    });
    let address = start(&io).await;
    let mut client = Client::connect(address).await;
    assert_eq!(io.to("room").count().await.value, 1);
    client.send(&["42[\"panic\",1]"]).await;
    until("the end of the connection", || io.connection_count() == 0).await;
    assert_eq!(io.to("room").count().await.value, 0);
    assert_eq!(io.of("/").local_count(), 0);
    drop(Client::connect(address).await);
}

#[tokio::test]
async fn handlers_run_to_their_end_when_the_client_has_gone() {
    let (io, go_on, done) = (Io::new(), Arc::new(Notify::new()), Arc::new(Notify::new()));
    let (wait, tell) = (Arc::clone(&go_on), Arc::clone(&done));
    io.of("/").on("save", move || {
        let (wait, tell) = (Arc::clone(&wait), Arc::clone(&tell));
        async move {
            wait.notified().await;
            tell.notify_one();
        }
    });
    let address = start(&io).await;
    let mut client = Client::connect(address).await;
    client.send(&["42[\"save\"]", "41"]).await;
    drop(client);
    until("the end of the connection", || io.connection_count() == 0).await;
    go_on.notify_one();
    within("the handler", done.notified()).await;
}

#[tokio::test]
async fn acks_pass_where_events_have_to_wait() {
    const EVENTS: usize = 300;
    let io = Io::builder().configure(|config| config.engine.max_pending_handlers = 8).build();
    let answered = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&answered);
    io.of("/").on("go", move |socket: Socket| {
        let count = Arc::clone(&count);
        async move {
            if socket.emit_with_ack("ask", ()).await.is_ok() {
                count.fetch_add(1, Ordering::SeqCst);
            }
        }
    });
    let mut client = Client::connect(start(&io).await).await;
    // More than may wait at once, and fewer than what is held back for them.
    for _ in 0..EVENTS / 60 {
        client.send(&["42[\"go\"]"; 60]).await;
        for _ in 0..60 {
            let packet = client.receive().await;
            client.send(&[&ack_of(&packet)]).await;
        }
    }
    until("all answers", || answered.load(Ordering::SeqCst) == EVENTS).await;
}

#[tokio::test]
async fn the_connect_reply_comes_first_and_an_ack_may_be_awaited_in_on_connect() {
    let io = Io::new();
    io.on_connect(|socket: Socket| async move {
        let _ = socket.emit("early", ());
        let answer = socket.emit_with_ack("ask", ()).await;
        let _ = socket.emit("answered", answer.is_ok());
    });
    let mut client = Client::open(start(&io).await).await;
    client.send(&["40"]).await;
    assert!(client.receive().await.starts_with("40{"));
    assert_eq!(client.receive().await, "42[\"early\"]");
    let ask = client.receive().await;
    client.send(&[&ack_of(&ask)]).await;
    assert_eq!(client.receive().await, "42[\"answered\",true]");
}

#[tokio::test]
async fn an_ack_is_asked_of_one_socket_only() {
    let io = Io::new();
    io.of("/").on("spy", |socket: Socket, id: String| async move { socket.join(id).await.is_ok() });
    io.of("/").on("ask-me", |socket: Socket| async move {
        let answer = socket.emit_with_ack("ask", ()).await;
        let _ = socket.emit("answered", answer.is_ok());
    });
    let address = start(&io).await;
    let mut client = Client::open(address).await;
    client.send(&["40"]).await;
    let connected = client.receive().await;
    let id = connected.trim_start_matches("40{\"sid\":\"").trim_end_matches("\"}").to_owned();
    let mut spy = Client::connect(address).await;
    spy.send(&[&format!("421[\"spy\",\"{id}\"]")]).await;
    assert_eq!(spy.receive().await, "431[true]");
    client.send(&["42[\"ask-me\"]"]).await;
    let ask = client.receive().await;
    client.send(&[&ack_of(&ask)]).await;
    assert_eq!(client.receive().await, "42[\"answered\",true]");
    // A fence: the spy's next packet is this one, so it got nothing before.
    spy.send(&["422[\"spy\",\"fence\"]"]).await;
    assert_eq!(spy.receive().await, "432[true]");
}

#[tokio::test]
async fn a_listener_that_holds_its_socket_is_let_go_with_it() {
    let (io, sentinel) = (Io::new(), Arc::new(()));
    let held = Arc::clone(&sentinel);
    io.on_connect(move |socket: Socket| {
        let held = Arc::clone(&held);
        async move {
            let own = socket.clone();
            socket.on("x", move || {
                let (_own, _held) = (own.clone(), Arc::clone(&held));
                async {}
            });
        }
    });
    let client = Client::connect(start(&io).await).await;
    assert_eq!(Arc::strong_count(&sentinel), 3);
    drop(client);
    until("the end of the listener", || Arc::strong_count(&sentinel) == 2).await;
}

#[tokio::test]
async fn one_namespace_that_waits_does_not_hold_up_another() {
    let (io, go_on) = (Io::new(), Arc::new(Notify::new()));
    let wait = Arc::clone(&go_on);
    io.of("/slow").on_connect(move |socket: Socket| {
        let wait = Arc::clone(&wait);
        async move {
            let _ = socket.emit("early", ());
            wait.notified().await;
        }
    });
    let mut client = Client::connect(start(&io).await).await;
    client.send(&["40/slow,"]).await;
    until("the socket in the slow namespace", || io.of("/slow").local_count() == 1).await;
    let _ = io.emit("meanwhile", ());
    assert_eq!(client.receive().await, "42[\"meanwhile\"]");
    go_on.notify_one();
    assert!(client.receive().await.starts_with("40/slow,{"));
    assert_eq!(client.receive().await, "42/slow,[\"early\"]");
}
