//! What an event costs in the whole of the engine, in instructions: from the bytes that a client wrote to those that clients
//! read, through the connection's task, the namespace, its listener and the mailboxes. Sockets are pipes in memory, so
//! the kernel's part is not in it; the client's, which is small, is.

use std::process::ExitCode;

use hyper::server::conn::http1;
use hyper_util::rt::TokioIo;
use hyper_util::service::TowerToHyperService;
use roomcast::{Ack, Args, Io, Socket};
use roomcast_instructions::{Case, Measure};
use roomcast_protocol::websocket::{OpCode, frame, masked_frame};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream};
use tokio::runtime::{Builder, Runtime};

const MASK: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];

/// What a pipe holds: more than anything that is written at once here.
const PIPE: usize = 64 * 1024;

fn main() -> ExitCode {
    let cases = [
        Case { name: "an event with an ack, echoed", run: |m| echo(m, 1) },
        Case { name: "ten events with acks in one read, echoed", run: |m| echo(m, 10) },
        Case { name: "an emit of a client to a room of 100, written", run: to_room },
        Case { name: "a client connects, joins / and goes", run: come_and_go },
        Case { name: "an emit answers a poll, and the next poll waits", run: poll },
    ];
    roomcast_instructions::main(env!("CARGO_MANIFEST_DIR"), &cases)
}

/// A server in this thread.
struct Server {
    runtime: Runtime,
    io: Io,
}

impl Server {
    fn start() -> Self {
        let runtime = Builder::new_current_thread().enable_time().build().expect("a runtime");
        let io = Io::new();
        io.on_connect(|socket: Socket| async move {
            socket.on("echo", |args: Args| async move { args });
            socket.on("join", |socket: Socket, room: String, ack: Ack| async move {
                let _ = socket.join(room).await;
                let _ = ack.send(());
            });
            socket.on("broadcast", |socket: Socket, room: String, event: String, args: Args| async move {
                let _ = socket.to(room).emit(&event, args);
            });
        });
        Self { runtime, io }
    }

    /// A connection that nothing was said on.
    fn connection(&self) -> Client {
        let (client, server) = tokio::io::duplex(PIPE);
        let service = TowerToHyperService::new(self.io.router());
        // The date is written anew each second, whatever that is worth here.
        let connection =
            http1::Builder::new().auto_date_header(false).serve_connection(TokioIo::new(server), service);
        tokio::spawn(connection.with_upgrades());
        Client { stream: client, buffer: vec![0; PIPE] }
    }

    /// A client that has joined `/`.
    fn client(&self) -> Client {
        self.runtime.block_on(async {
            let mut client = self.connection();
            let request = "GET /socket.io/?EIO=4&transport=websocket HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\n\
                           Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
                           Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
            client.stream.write_all(request.as_bytes()).await.expect("a pipe");
            client.read_until(b"\"maxPayload\":1000000}").await;
            client.send("40").await;
            client.read_until(b"\"}").await;
            client
        })
    }
}

struct Client {
    stream: DuplexStream,
    buffer: Vec<u8>,
}

impl Client {
    async fn send(&mut self, text: &str) {
        self.stream.write_all(&masked_frame(OpCode::Text, text.as_bytes(), MASK)).await.expect("a pipe");
    }

    /// What comes may come in several reads; here it ends like this.
    async fn read_until(&mut self, end: &[u8]) -> &[u8] {
        let mut len = 0;
        while !self.buffer[..len].ends_with(end) {
            let read = self.stream.read(&mut self.buffer[len..]).await.expect("a pipe");
            assert!(read > 0, "the server is there");
            len += read;
        }
        &self.buffer[..len]
    }

    /// Reads just so many bytes.
    async fn read(&mut self, len: usize) {
        self.stream.read_exact(&mut self.buffer[..len]).await.expect("a pipe");
    }
}

fn echo(measure: &mut Measure, events: usize) {
    let server = Server::start();
    let mut client = server.client();
    let sent = masked_frame(OpCode::Text, br#"427["echo","hello there"]"#, MASK).repeat(events);
    let answer = frame(OpCode::Text, br#"437["hello there"]"#).len() * events;
    measure.each(100, || {
        server.runtime.block_on(async {
            client.stream.write_all(&sent).await.expect("a pipe");
            client.read(answer).await;
        });
    });
}

fn to_room(measure: &mut Measure) {
    let server = Server::start();
    let mut members: Vec<Client> = (0..100).map(|_| server.client()).collect();
    server.runtime.block_on(async {
        for member in &mut members {
            member.send(r#"420["join","room"]"#).await;
            member.read_until(b"[]").await;
        }
    });
    let mut emitter = server.client();
    let sent = masked_frame(OpCode::Text, br#"42["broadcast","room","message","hello there"]"#, MASK);
    let delivery = frame(OpCode::Text, br#"42["message","hello there"]"#).len();
    measure.each(10, || {
        server.runtime.block_on(async {
            emitter.stream.write_all(&sent).await.expect("a pipe");
            for member in &mut members {
                member.read(delivery).await;
            }
        });
    });
}

fn come_and_go(measure: &mut Measure) {
    let server = Server::start();
    measure.each(10, || {
        drop(server.client());
        // The server sees the end of the pipe.
        server.runtime.block_on(async {
            while server.io.of("/").local_count() > 0 {
                tokio::task::yield_now().await;
            }
        });
    });
}

/// One connection does: a client sends nothing else while it polls.
fn poll(measure: &mut Measure) {
    const PATH: &str = "/socket.io/?EIO=4&transport=polling";
    let server = Server::start();
    let (mut client, get) = server.runtime.block_on(async {
        let mut client = server.connection();
        let open = format!("GET {PATH} HTTP/1.1\r\nHost: x\r\n\r\n");
        client.stream.write_all(open.as_bytes()).await.expect("a pipe");
        let open = String::from_utf8_lossy(client.read_until(b"}").await).into_owned();
        let (_, open) = open.split_once("\r\n\r\n0").expect("an open packet");
        let open: serde_json::Value = serde_json::from_str(open).expect("JSON");
        let sid = open["sid"].as_str().expect("a session");
        let post = format!("POST {PATH}&sid={sid} HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n40");
        client.stream.write_all(post.as_bytes()).await.expect("a pipe");
        client.read_until(b"ok").await;
        let get = format!("GET {PATH}&sid={sid} HTTP/1.1\r\nHost: x\r\n\r\n");
        client.stream.write_all(get.as_bytes()).await.expect("a pipe");
        client.read_until(b"\"}").await;
        (client, get)
    });
    measure.each(100, || {
        server.runtime.block_on(async {
            client.stream.write_all(get.as_bytes()).await.expect("a pipe");
            // Until it is held.
            for _ in 0..8 {
                tokio::task::yield_now().await;
            }
            server.io.of("/").emit("message", "hello there").expect("a name that is free");
            client.read_until(br#"42["message","hello there"]"#).await;
        });
    });
}
