//! Thousands of Socket.IO clients over WebSocket in one thread: one loop over what epoll says, one buffer for all reads, and
//! no task, timer or allocation for a client that waits. A generator that costs more than a server measures itself.
//!
//! Owns sockets, frames, the opening of connections and the answers to heartbeats. Must not know what is measured.

use std::io::{self, Read as _, Write as _};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Token};
use roomcast_protocol::websocket::handshake::{self, CLIENT_OFFER};
use roomcast_protocol::websocket::{
    DEFAULT_MAX_FRAGMENTS, Decoder, Inflater, Message, Negotiated, OpCode, Role, masked_frame,
};

use super::Error;

/// Handshakes under way at once.
const OPENING: usize = 64;

const MAX_MESSAGE: usize = 16 << 20;
const MAX_HEAD: usize = 16 * 1024;
const READ: usize = 64 * 1024;

/// How long nothing may happen that is waited for.
pub(super) const PATIENCE: Duration = Duration::from_secs(15);

/// The peer is a program of ours on the same machine: there is no proxy to be protected from.
const MASK: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];

/// Any will do: what the server makes of it is checked.
const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";

/// What came for a client that has joined.
pub(super) enum Packet<'a> {
    /// A packet of Engine.IO, other than a ping.
    Text(&'a str),
    Binary(&'a [u8]),
}

/// What a client will write once what it reads has been handled.
#[derive(Default)]
pub(super) struct Outbox(Vec<u8>);

impl Outbox {
    pub(super) fn text(&mut self, text: &str) {
        self.0.extend_from_slice(&masked_frame(OpCode::Text, text.as_bytes(), MASK));
    }

    pub(super) fn binary(&mut self, data: &[u8]) {
        self.0.extend_from_slice(&masked_frame(OpCode::Binary, data, MASK));
    }
}

enum State {
    /// The answer to the upgrade, as far as it has come.
    Head(Vec<u8>),
    /// Upgraded; the open packet has to come, then the answer to CONNECT.
    Opening,
    Joined,
    Gone,
}

struct Client {
    stream: TcpStream,
    decoder: Decoder,
    state: State,
    outbox: Outbox,
    /// Does not read what comes.
    asleep: bool,
}

/// The clients.
pub(super) struct Crowd {
    poll: Poll,
    events: Events,
    clients: Vec<Client>,
    buffer: Box<[u8]>,
    inflater: Inflater,
    joined: usize,
    gone: usize,
}

impl Crowd {
    pub(super) fn new() -> Result<Self, Error> {
        Ok(Self {
            poll: Poll::new()?,
            events: Events::with_capacity(1024),
            clients: Vec::new(),
            buffer: vec![0; READ].into(),
            inflater: Inflater::new(),
            joined: 0,
            gone: 0,
        })
    }

    /// Opens `count` more clients, each at the next of the addresses, a bounded number at a time. All are in `/` when this
    /// is done; `each` gets what came meanwhile.
    pub(super) fn open(
        &mut self,
        addresses: &[SocketAddr],
        count: usize,
        mut each: impl FnMut(usize, Packet<'_>, &mut Outbox),
    ) -> Result<(), Error> {
        let (wanted, gone) = (self.clients.len() + count, self.gone);
        let mut patience = Instant::now() + PATIENCE;
        while self.joined < wanted {
            while self.clients.len() < wanted && self.clients.len() < self.joined + OPENING {
                self.connect(addresses[self.clients.len() % addresses.len()])?;
            }
            let before = self.joined;
            self.turn(Duration::from_millis(100), &mut each)?;
            if self.gone > gone {
                return Err(format!(
                    "a client was refused or sent away when {before} of {wanted} were there"
                )
                .into());
            }
            if self.joined > before {
                patience = Instant::now() + PATIENCE;
            } else if Instant::now() > patience {
                return Err(format!("only {before} of {wanted} clients could connect").into());
            }
        }
        Ok(())
    }

    /// Connects a client; the headers are those of Node's `ws`, but for a window of compression, which thousands of clients
    /// cannot keep.
    fn connect(&mut self, server: SocketAddr) -> Result<(), Error> {
        let stream = std::net::TcpStream::connect(server)?;
        stream.set_nodelay(true)?;
        stream.set_nonblocking(true)?;
        let mut stream = TcpStream::from_std(stream);
        let token = Token(self.clients.len());
        // Told of changes only, and so never again: what is not written at once can be when this says so.
        self.poll.registry().register(&mut stream, token, Interest::READABLE | Interest::WRITABLE)?;
        let request = format!(
            "GET /socket.io/?EIO=4&transport=websocket HTTP/1.1\r\n\
             Sec-WebSocket-Version: 13\r\n\
             Sec-WebSocket-Key: {KEY}\r\n\
             Connection: Upgrade\r\n\
             Upgrade: websocket\r\n\
             Sec-WebSocket-Extensions: {CLIENT_OFFER}\r\n\
             Host: {server}\r\n\r\n"
        );
        let mut client = Client {
            stream,
            decoder: Decoder::new(Role::Client, MAX_MESSAGE, DEFAULT_MAX_FRAGMENTS, None),
            state: State::Head(Vec::new()),
            outbox: Outbox(request.into_bytes()),
            asleep: false,
        };
        client.flush()?;
        self.clients.push(client);
        Ok(())
    }

    /// Waits until something comes, at most so long, and hands each packet to `each`. What that puts into the outbox, the
    /// client writes with one call.
    pub(super) fn turn(
        &mut self,
        timeout: Duration,
        mut each: impl FnMut(usize, Packet<'_>, &mut Outbox),
    ) -> Result<(), Error> {
        match self.poll.poll(&mut self.events, Some(timeout)) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => return Ok(()),
            polled => polled?,
        }
        for event in &self.events {
            let Token(index) = event.token();
            let client = &mut self.clients[index];
            if client.asleep || matches!(client.state, State::Gone) {
                continue;
            }
            let was_joined = matches!(client.state, State::Joined);
            let read = client
                .read(&mut self.buffer, &mut self.inflater, |packet, outbox| each(index, packet, outbox));
            if read.and_then(|()| client.flush()).is_err() {
                self.poll.registry().deregister(&mut client.stream)?;
                let _ = client.stream.shutdown(std::net::Shutdown::Both);
                client.state = State::Gone;
                self.gone += 1;
                self.joined -= usize::from(was_joined);
            }
            self.joined += usize::from(!was_joined && matches!(client.state, State::Joined));
        }
        Ok(())
    }

    /// Lets a client write.
    pub(super) fn send(&mut self, index: usize, write: impl FnOnce(&mut Outbox)) -> Result<(), Error> {
        let client = &mut self.clients[index];
        write(&mut client.outbox);
        Ok(client.flush()?)
    }

    /// From now on the client reads nothing.
    pub(super) fn put_to_sleep(&mut self, index: usize) {
        self.clients[index].asleep = true;
    }

    /// The client reads again. What came before is read when something more comes, or the connection ends.
    pub(super) fn wake(&mut self, index: usize) -> Result<(), Error> {
        let client = &mut self.clients[index];
        client.asleep = false;
        // Registering anew tells once more what there is.
        let registry = self.poll.registry();
        registry.deregister(&mut client.stream)?;
        Ok(registry.register(&mut client.stream, Token(index), Interest::READABLE | Interest::WRITABLE)?)
    }

    pub(super) fn len(&self) -> usize {
        self.clients.len()
    }

    /// Clients whose connection has ended, if not by us.
    pub(super) fn gone(&self) -> usize {
        self.gone
    }

    /// The connections end, all at once.
    pub(super) fn close_all(&mut self) {
        self.clients.clear();
        (self.joined, self.gone) = (0, 0);
    }
}

impl Client {
    /// Reads until there is no more.
    fn read(
        &mut self,
        buffer: &mut [u8],
        inflater: &mut Inflater,
        mut each: impl FnMut(Packet<'_>, &mut Outbox),
    ) -> io::Result<()> {
        loop {
            let len = match self.stream.read(buffer) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(len) => len,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error),
            };
            let full = len == buffer.len();
            self.take(&mut buffer[..len], inflater, &mut each)?;
            // epoll(7): a stream that gave less than was asked for has no more now.
            if !full {
                return Ok(());
            }
        }
    }

    fn take(
        &mut self,
        mut rest: &mut [u8],
        inflater: &mut Inflater,
        each: &mut impl FnMut(Packet<'_>, &mut Outbox),
    ) -> io::Result<()> {
        if let State::Head(head) = &mut self.state {
            let before = head.len();
            head.extend_from_slice(rest);
            let Some(end) = head.windows(4).position(|window| window == b"\r\n\r\n") else {
                return if head.len() > MAX_HEAD { Err(io::ErrorKind::InvalidData.into()) } else { Ok(()) };
            };
            let negotiated = upgraded(head)?;
            self.decoder = Decoder::new(Role::Client, MAX_MESSAGE, DEFAULT_MAX_FRAGMENTS, negotiated);
            rest = &mut rest[end + 4 - before..];
            self.state = State::Opening;
        }
        let Self { decoder, state, outbox, .. } = self;
        while let Some(message) = decoder.decode(&mut rest, inflater).map_err(io::Error::other)? {
            match (message, &*state) {
                (Message::Text("2"), _) => outbox.text("3"),
                (Message::Text(text), State::Joined) => each(Packet::Text(text), outbox),
                (Message::Text(text), _) if text.starts_with("0{") => outbox.text("40"),
                (Message::Text(text), _) if text.starts_with("40{") => {
                    *state = State::Joined;
                    each(Packet::Text(text), outbox);
                }
                (Message::Text(_), _) => return Err(io::ErrorKind::ConnectionRefused.into()),
                (Message::Binary(data), _) => each(Packet::Binary(data), outbox),
                (Message::Close(_), _) => return Err(io::ErrorKind::ConnectionAborted.into()),
                (Message::Ping(_) | Message::Pong(_), _) => {}
            }
        }
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
        let bytes = &mut self.outbox.0;
        while !bytes.is_empty() {
            match self.stream.write(bytes) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(written) if written == bytes.len() => bytes.clear(),
                Ok(written) => drop(bytes.drain(..written)),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error),
            }
        }
        if bytes.capacity() > 4 * READ {
            *bytes = Vec::new();
        }
        Ok(())
    }
}

/// What the answer to an upgrade makes of the extension that was offered.
fn upgraded(head: &[u8]) -> io::Result<Option<Negotiated>> {
    let mut headers = [httparse::EMPTY_HEADER; 32];
    let mut response = httparse::Response::new(&mut headers);
    response.parse(head).map_err(io::Error::other)?;
    let mut map = HeaderMap::new();
    for header in response.headers {
        let name = HeaderName::from_bytes(header.name.as_bytes()).map_err(io::Error::other)?;
        map.append(name, HeaderValue::from_bytes(header.value).map_err(io::Error::other)?);
    }
    let status = StatusCode::from_u16(response.code.unwrap_or_default()).map_err(io::Error::other)?;
    handshake::verify_response(status, &map, KEY, true).map_err(io::Error::other)
}
