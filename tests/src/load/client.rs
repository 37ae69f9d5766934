//! A Socket.IO client over WebSocket that does as little as can be, so that a process can be thousands of them.

use std::cell::RefCell;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use roomcast_protocol::websocket::{
    DEFAULT_MAX_FRAGMENTS, Decoder, Inflater, Message, OpCode, Role, masked_frame,
};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};
use tokio::task::JoinSet;

use super::Error;

/// Connections from one address: the ephemeral ports of Linux are 28,000.
const PER_ADDRESS: usize = 20_000;

const MAX_MESSAGE: usize = 16 << 20;

/// The peer is a program of ours on the same machine: there is no proxy to be protected from.
const MASK: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];

thread_local! {
    static INFLATER: RefCell<Inflater> = RefCell::new(Inflater::new());
}

/// A connection that has joined `/`.
pub(super) struct Client {
    stream: TcpStream,
    decoder: Decoder,
    buffer: Box<[u8]>,
}

impl Client {
    /// Connects, and is in `/` when this is done. The headers are those of Node's `ws`.
    pub(super) async fn connect(server: SocketAddr, index: usize, buffer: usize) -> io::Result<Self> {
        let socket = TcpSocket::new_v4()?;
        let last = 1 + u8::try_from(index / PER_ADDRESS).unwrap_or(u8::MAX);
        socket.bind(SocketAddr::new(IpAddr::V4(Ipv4Addr::new(127, 0, 0, last)), 0))?;
        let mut stream = socket.connect(server).await?;
        stream.set_nodelay(true)?;
        let request = format!(
            "GET /socket.io/?EIO=4&transport=websocket HTTP/1.1\r\n\
             Sec-WebSocket-Version: 13\r\n\
             Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
             Connection: Upgrade\r\n\
             Upgrade: websocket\r\n\
             Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\n\
             Host: {server}\r\n\r\n"
        );
        stream.write_all(request.as_bytes()).await?;
        let decoder = Decoder::new(Role::Client, MAX_MESSAGE, DEFAULT_MAX_FRAGMENTS, None);
        let mut client = Self { stream, decoder, buffer: vec![0; buffer].into_boxed_slice() };
        client.read_head().await?;
        client.send("40").await?;
        client.expect("40{").await?;
        Ok(client)
    }

    /// Byte by byte is slow, and leaves nothing over for the frames: the head is read with a peek.
    async fn read_head(&mut self) -> io::Result<()> {
        let mut head = Vec::new();
        loop {
            let len = self.stream.peek(&mut self.buffer).await?;
            if len == 0 || head.len() > 16 * 1024 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            let before = head.len();
            head.extend_from_slice(&self.buffer[..len]);
            let end = head.windows(4).position(|window| window == b"\r\n\r\n").map(|at| at + 4);
            let taken = end.unwrap_or(head.len()) - before;
            self.stream.read_exact(&mut self.buffer[..taken]).await?;
            if end.is_some() {
                break;
            }
        }
        if head.starts_with(b"HTTP/1.1 101 ") {
            return Ok(());
        }
        Err(io::Error::other(String::from_utf8_lossy(&head).into_owned()))
    }

    pub(super) async fn send(&mut self, text: &str) -> io::Result<()> {
        self.stream.write_all(&masked_frame(OpCode::Text, text.as_bytes(), MASK)).await
    }

    /// One read: `each` gets every Engine.IO packet in it. Heartbeats are answered. Cancelling it loses nothing.
    pub(super) async fn read(&mut self, mut each: impl FnMut(&str)) -> io::Result<()> {
        let len = self.stream.read(&mut self.buffer).await?;
        if len == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let mut pings = 0;
        let mut rest = &mut self.buffer[..len];
        INFLATER.with_borrow_mut(|inflater| {
            while let Some(message) = self.decoder.decode(&mut rest, inflater).map_err(io::Error::other)? {
                match message {
                    Message::Text("2") => pings += 1,
                    Message::Text(text) => each(text),
                    Message::Close(_) => return Err(io::ErrorKind::ConnectionAborted.into()),
                    Message::Binary(_) | Message::Ping(_) | Message::Pong(_) => {}
                }
            }
            io::Result::Ok(())
        })?;
        for _ in 0..pings {
            self.send("3").await?;
        }
        Ok(())
    }

    /// Reads until a packet begins like this.
    pub(super) async fn expect(&mut self, beginning: &str) -> io::Result<()> {
        let mut found = false;
        while !found {
            self.read(|text| found |= text.starts_with(beginning)).await?;
        }
        Ok(())
    }

    /// Joins a room of the gateway, and waits until it stands.
    pub(super) async fn join(&mut self, room: &str) -> io::Result<()> {
        self.send(&format!(r#"420["room:join","{room}"]"#)).await?;
        self.expect("430[").await
    }
}

/// Opens connections, a bounded number at a time.
pub(super) async fn connect_many(
    server: SocketAddr,
    count: usize,
    at_once: usize,
    buffer: usize,
) -> Result<Vec<Client>, Error> {
    let next = Arc::new(AtomicUsize::new(0));
    let mut workers = JoinSet::new();
    for _ in 0..at_once {
        let next = Arc::clone(&next);
        workers.spawn(async move {
            let mut mine = Vec::new();
            loop {
                let index = next.fetch_add(1, Ordering::Relaxed);
                if index >= count {
                    return io::Result::Ok(mine);
                }
                mine.push(Client::connect(server, index, buffer).await?);
            }
        });
    }
    let mut clients = Vec::with_capacity(count);
    while let Some(done) = workers.join_next().await {
        clients.extend(done??);
    }
    Ok(clients)
}
