//! The floor under every comparison: a server that does what no server can leave out, and nothing else. One thread, no
//! validation, no rooms beyond a list, no limits; one prepared frame for each emit, written straight to each stream.
//!
//!     floor PORT              one write for each delivery
//!     floor PORT coalesced    what one turn of the loop has for a socket goes out in one write
//!
//! It knows the events `join`, `broadcast` and `echo` of the load's contract (tests/README.md) and is no server for
//! anything else.

use std::collections::{HashMap, VecDeque};
use std::io::{self, IoSlice, Read as _, Write as _};
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use bytes::Bytes;
use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll, Token};
use roomcast_protocol::websocket::{Decoder, Inflater, Message, OpCode, Role, accept_key, frame};

const LISTENER: Token = Token(usize::MAX);
const PING: Duration = Duration::from_secs(25);
const READ: usize = 64 * 1024;
/// Frames that one write may carry.
const SLICES: usize = 64;

struct Connection {
    stream: TcpStream,
    decoder: Decoder,
    upgraded: bool,
    /// Waits to be written.
    queue: VecDeque<Bytes>,
    /// In `dirty` already.
    is_dirty: bool,
}

struct Floor {
    connections: Vec<Option<Connection>>,
    free: Vec<usize>,
    rooms: HashMap<String, Vec<usize>>,
    coalesced: bool,
    /// Connections that get their write at the end of the turn.
    dirty: Vec<usize>,
}

fn main() -> io::Result<()> {
    let mut arguments = std::env::args().skip(1);
    let port = match arguments.next().as_deref() {
        Some("--version") => {
            println!("floor {}", env!("CARGO_PKG_VERSION"));
            return Ok(());
        }
        port => port.and_then(|port| port.parse().ok()).unwrap_or(0),
    };
    let coalesced = arguments.next().as_deref() == Some("coalesced");
    let mut listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port).into())?;
    let mut poll = Poll::new()?;
    poll.registry().register(&mut listener, LISTENER, Interest::READABLE)?;
    let (connections, free, rooms, dirty) = Default::default();
    let mut floor = Floor { connections, free, rooms, coalesced, dirty };
    let mut events = Events::with_capacity(1024);
    let (mut buffer, mut inflater) = (vec![0; READ], Inflater::new());
    let mut ping_at = Instant::now() + PING;
    loop {
        poll.poll(&mut events, Some(ping_at.saturating_duration_since(Instant::now())))?;
        for event in &events {
            match event.token() {
                LISTENER => floor.accept(&listener, &poll)?,
                Token(index) => floor.serve(index, &mut buffer, &mut inflater),
            }
        }
        if Instant::now() >= ping_at {
            ping_at += PING;
            let ping = frame(OpCode::Text, b"2");
            (0..floor.connections.len()).for_each(|index| floor.deliver(index, &ping));
        }
        for index in std::mem::take(&mut floor.dirty) {
            floor.flush(index);
        }
    }
}

impl Floor {
    fn accept(&mut self, listener: &TcpListener, poll: &Poll) -> io::Result<()> {
        loop {
            let mut stream = match listener.accept() {
                Ok((stream, _)) => stream,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error),
            };
            stream.set_nodelay(true)?;
            let index = self.free.pop().unwrap_or(self.connections.len());
            let interest = Interest::READABLE | Interest::WRITABLE;
            poll.registry().register(&mut stream, Token(index), interest)?;
            let decoder = Decoder::new(Role::Server, 1_000_000, 1000, None);
            let queue = VecDeque::new();
            let connection = Some(Connection { stream, decoder, upgraded: false, queue, is_dirty: false });
            match self.connections.get_mut(index) {
                Some(place) => *place = connection,
                None => self.connections.push(connection),
            }
        }
    }

    fn serve(&mut self, index: usize, buffer: &mut [u8], inflater: &mut Inflater) {
        self.flush(index);
        loop {
            let Some(Some(connection)) = self.connections.get_mut(index) else { return };
            let len = match connection.stream.read(buffer) {
                Ok(0) => return self.close(index),
                Ok(len) => len,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(_) => return self.close(index),
            };
            if connection.upgraded {
                self.messages(index, &mut buffer[..len], inflater);
            } else {
                self.upgrade(index, &buffer[..len]);
            }
            if len < buffer.len() {
                return;
            }
        }
    }

    /// The whole head has come with the first read, or there is no connection.
    fn upgrade(&mut self, index: usize, head: &[u8]) {
        let mut headers = [httparse::EMPTY_HEADER; 32];
        let mut request = httparse::Request::new(&mut headers);
        let whole = request.parse(head).is_ok_and(|status| status.is_complete());
        let key = request.headers.iter().find(|header| header.name.eq_ignore_ascii_case("sec-websocket-key"));
        let key = key.and_then(|key| std::str::from_utf8(key.value).ok()).filter(|_| whole);
        let (Some(key), Some(Some(connection))) = (key, self.connections.get_mut(index)) else {
            return self.close(index);
        };
        let answer = format!(
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Accept: {}\r\n\r\n",
            accept_key(key)
        );
        let open = format!(
            r#"0{{"sid":"{index:020}","upgrades":[],"pingInterval":25000,"pingTimeout":20000,"maxPayload":1000000}}"#
        );
        connection.upgraded = true;
        connection.queue.push_back(answer.into());
        connection.queue.push_back(frame(OpCode::Text, open.as_bytes()));
        self.flush(index);
    }

    fn messages(&mut self, index: usize, mut rest: &mut [u8], inflater: &mut Inflater) {
        // Its own decoder, so that the others can be written to meanwhile.
        let Some(Some(connection)) = self.connections.get_mut(index) else { return };
        let fresh = Decoder::new(Role::Server, 1_000_000, 1000, None);
        let mut decoder = std::mem::replace(&mut connection.decoder, fresh);
        let mut answers = Vec::new();
        loop {
            match decoder.decode(&mut rest, inflater) {
                Ok(Some(Message::Text(text))) => self.packet(index, text, &mut answers),
                Ok(Some(Message::Binary(_) | Message::Ping(_) | Message::Pong(_))) => {}
                Ok(None) => break,
                Ok(Some(Message::Close(_))) | Err(_) => return self.close(index),
            }
        }
        let Some(Some(connection)) = self.connections.get_mut(index) else { return };
        connection.decoder = decoder;
        if !answers.is_empty() {
            connection.queue.push_back(answers.into());
            self.flush(index);
        }
    }

    fn packet(&mut self, index: usize, text: &str, answers: &mut Vec<u8>) {
        let mut answer = |text: String| answers.extend_from_slice(&frame(OpCode::Text, text.as_bytes()));
        let Some(event) = text.strip_prefix("42") else {
            if text == "40" {
                answer(format!(r#"40{{"sid":"{index:020}"}}"#));
            }
            return;
        };
        let Some((id, arguments)) = event.split_once('[') else { return };
        let Some((name, arguments)) = arguments.split_once(',') else { return };
        match name {
            r#""echo""# => answer(format!("43{id}[{arguments}")),
            r#""join""# => {
                let room = arguments.trim_end_matches(']').to_owned();
                self.rooms.entry(room).or_default().push(index);
                answer(format!("43{id}[]"));
            }
            r#""broadcast""# => {
                let Some((room, event)) = arguments.split_once(',') else { return };
                let prepared = frame(OpCode::Text, format!("42[{event}").as_bytes());
                let members = self.rooms.remove(room).unwrap_or_default();
                members
                    .iter()
                    .filter(|member| **member != index)
                    .for_each(|member| self.deliver(*member, &prepared));
                self.rooms.insert(room.to_owned(), members);
            }
            _ => {}
        }
    }

    fn deliver(&mut self, index: usize, prepared: &Bytes) {
        let Some(Some(connection)) = self.connections.get_mut(index) else { return };
        if !connection.upgraded {
            return;
        }
        connection.queue.push_back(prepared.clone());
        if !self.coalesced {
            self.flush(index);
        } else if !std::mem::replace(&mut connection.is_dirty, true) {
            self.dirty.push(index);
        }
    }

    fn flush(&mut self, index: usize) {
        let Some(Some(connection)) = self.connections.get_mut(index) else { return };
        connection.is_dirty = false;
        while let Some(first) = connection.queue.front() {
            let written = if connection.queue.len() == 1 {
                connection.stream.write(first)
            } else {
                let slices: Vec<_> =
                    connection.queue.iter().take(SLICES).map(|bytes| IoSlice::new(bytes)).collect();
                connection.stream.write_vectored(&slices)
            };
            match written {
                Ok(mut written) => {
                    while let Some(first) = connection.queue.front_mut().filter(|_| written > 0) {
                        let taken = written.min(first.len());
                        written -= taken;
                        drop(first.split_to(taken));
                        if first.is_empty() {
                            connection.queue.pop_front();
                        }
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(_) => return self.close(index),
            }
        }
        if connection.queue.capacity() > SLICES {
            connection.queue = VecDeque::new();
        }
    }

    fn close(&mut self, index: usize) {
        if self.connections[index].take().is_some() {
            self.rooms.values_mut().for_each(|members| members.retain(|member| *member != index));
            self.free.push(index);
        }
    }
}
