//! A raw WebSocket echo server for conformance suites: `ws_echo 127.0.0.1:0` prints the address that it listens on.
//!
//! Owns the few lines of HTTP that an upgrade takes and the loop around `roomcast_protocol::websocket`. It must not know
//! Engine.IO, and is no example of a server that faces the internet: nothing here times out.

use std::cell::RefCell;
use std::error::Error;
use std::io;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Response, StatusCode, Version};
use roomcast_protocol::websocket::handshake::{negotiate, validate};
use roomcast_protocol::websocket::{
    self, DEFAULT_MAX_FRAGMENTS, Decoder, DeflateConfig, Deflater, Inflater, Message, Negotiated, OpCode,
    PreparedFrame, Role,
};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

/// The largest message of the Autobahn suite is 16 MiB.
const MAX_MESSAGE: usize = 16 << 20;

const MAX_HEAD: usize = 16 * 1024;

const READ_BUFFER: usize = 64 * 1024;

const DEFLATE: DeflateConfig = DeflateConfig { threshold: 1, level: 6, max_window_bits: 15 };

thread_local! {
    static INFLATER: RefCell<Inflater> = RefCell::new(Inflater::new());
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let address = std::env::args().nth(1).ok_or("usage: ws_echo ADDRESS")?;
    let listener = TcpListener::bind(address).await?;
    println!("{}", listener.local_addr()?);
    loop {
        let (stream, _) = listener.accept().await?;
        tokio::spawn(async move {
            if let Err(error) = serve(stream).await {
                eprintln!("{error}");
            }
        });
    }
}

async fn serve(mut stream: TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut buffer = Vec::new();
    let Some(head_len) = read_head(&mut stream, &mut buffer).await? else { return Ok(()) };
    let (response, accepted) = match parse_head(&buffer[..head_len]) {
        Some((method, version, headers)) => answer(&method, version, &headers),
        None => (refusal(StatusCode::BAD_REQUEST, None), None),
    };
    stream.write_all(&response_bytes(&response)).await?;
    match accepted {
        Some(compression) => echo(stream, buffer.split_off(head_len), compression).await,
        None => Ok(()),
    }
}

/// Reads until the empty line; the length of the head with it. `None` if the peer goes away or sends too much.
async fn read_head(stream: &mut TcpStream, buffer: &mut Vec<u8>) -> io::Result<Option<usize>> {
    loop {
        if let Some(end) = buffer.windows(4).position(|window| window == b"\r\n\r\n") {
            return Ok(Some(end + 4));
        }
        if buffer.len() > MAX_HEAD || stream.read_buf(buffer).await? == 0 {
            return Ok(None);
        }
    }
}

fn parse_head(head: &[u8]) -> Option<(Method, Version, HeaderMap)> {
    let mut lines = std::str::from_utf8(head).ok()?.trim_end().split("\r\n");
    let mut request = lines.next()?.split(' ');
    let method = request.next()?.parse().ok()?;
    let _target = request.next()?;
    let version = match request.next()? {
        "HTTP/1.1" => Version::HTTP_11,
        "HTTP/1.0" => Version::HTTP_10,
        _ => return None,
    };
    let mut headers = HeaderMap::new();
    for line in lines {
        let (name, value) = line.split_once(':')?;
        headers.append(HeaderName::try_from(name).ok()?, HeaderValue::from_str(value.trim()).ok()?);
    }
    Some((method, version, headers))
}

/// The response, and what was negotiated if it accepts.
fn answer(
    method: &Method,
    version: Version,
    headers: &HeaderMap,
) -> (Response<()>, Option<Option<Negotiated>>) {
    match validate(method, version, headers) {
        Ok(request) => {
            let compression = negotiate(headers, &DEFLATE);
            let mut response = Response::new(());
            *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
            *response.headers_mut() = request.response_headers(compression);
            (response, Some(compression))
        }
        Err(error) => (refusal(error.status(), error.response_header()), None),
    }
}

fn refusal(status: StatusCode, header: Option<(HeaderName, HeaderValue)>) -> Response<()> {
    let mut response = Response::new(());
    *response.status_mut() = status;
    response.headers_mut().extend(header);
    response.headers_mut().insert(http::header::CONNECTION, HeaderValue::from_static("close"));
    response.headers_mut().insert(http::header::CONTENT_LENGTH, HeaderValue::from_static("0"));
    response
}

fn response_bytes(response: &Response<()>) -> Vec<u8> {
    let mut bytes = format!("HTTP/1.1 {}\r\n", response.status()).into_bytes();
    for (name, value) in response.headers() {
        bytes.extend_from_slice(name.as_str().as_bytes());
        bytes.extend_from_slice(b": ");
        bytes.extend_from_slice(value.as_bytes());
        bytes.extend_from_slice(b"\r\n");
    }
    bytes.extend_from_slice(b"\r\n");
    bytes
}

/// What becomes of a connection after one read.
enum Next {
    Read,
    Close,
}

async fn echo(mut stream: TcpStream, early: Vec<u8>, compression: Option<Negotiated>) -> io::Result<()> {
    let mut decoder = Decoder::new(Role::Server, MAX_MESSAGE, DEFAULT_MAX_FRAGMENTS, compression);
    let mut deflater = compression.map(|compression| Deflater::new(DEFLATE.level, compression.window_bits()));
    let mut buffer = early;
    loop {
        let (replies, next) = replies(&mut decoder, deflater.as_mut(), &mut buffer);
        for reply in replies {
            stream.write_all(&reply).await?;
        }
        match next {
            Next::Close => return close(stream, buffer).await,
            Next::Read => {}
        }
        buffer.clear();
        buffer.reserve(READ_BUFFER);
        if stream.read_buf(&mut buffer).await? == 0 {
            return Ok(());
        }
    }
}

/// Answers everything in one read buffer.
fn replies(
    decoder: &mut Decoder,
    mut deflater: Option<&mut Deflater>,
    input: &mut [u8],
) -> (Vec<Bytes>, Next) {
    INFLATER.with_borrow_mut(|inflater| {
        let mut replies = Vec::new();
        let mut rest = input;
        loop {
            match decoder.decode(&mut rest, inflater) {
                Ok(None) => return (replies, Next::Read),
                Ok(Some(Message::Text(text))) => {
                    replies.push(data(deflater.as_deref_mut(), OpCode::Text, text.as_bytes()));
                }
                Ok(Some(Message::Binary(bytes))) => {
                    replies.push(data(deflater.as_deref_mut(), OpCode::Binary, bytes));
                }
                Ok(Some(Message::Ping(bytes))) => replies.push(PreparedFrame::pong(bytes).into_bytes()),
                Ok(Some(Message::Pong(_))) => {}
                Ok(Some(Message::Close(close))) => {
                    replies.push(PreparedFrame::close(close).into_bytes());
                    return (replies, Next::Close);
                }
                Err(error) => {
                    let close = Some((error.close_code(), error.code()));
                    replies.push(PreparedFrame::close(close).into_bytes());
                    return (replies, Next::Close);
                }
            }
        }
    })
}

fn data(deflater: Option<&mut Deflater>, opcode: OpCode, payload: &[u8]) -> Bytes {
    match deflater {
        Some(deflater) if payload.len() >= DEFLATE.threshold => {
            websocket::deflated_frame(deflater, opcode, payload)
        }
        _ => websocket::frame(opcode, payload),
    }
}

/// The server closes TCP first (RFC 6455 section 7.1.1), but reads what is under way: a reset would take the close frame
/// with it.
async fn close(mut stream: TcpStream, mut buffer: Vec<u8>) -> io::Result<()> {
    stream.shutdown().await?;
    loop {
        buffer.clear();
        if stream.read_buf(&mut buffer).await? == 0 {
            return Ok(());
        }
    }
}
