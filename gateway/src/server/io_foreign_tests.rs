//! The server on a stream that an application brought, over another accept loop.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use hyper::server::conn::http1;
use hyper_util::rt::TokioIo;
use hyper_util::service::TowerToHyperService;
use parking_lot::Mutex;
use roomcast_protocol::websocket::{OpCode, frame, masked_frame};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, DuplexStream, ReadBuf};

use super::*;

const PATIENCE: Duration = Duration::from_secs(20);

/// A stream that wakes the last one who asked, for whichever direction, as `poll_read` and `poll_write` may.
struct OneWaker {
    inner: DuplexStream,
    last: Arc<Last>,
}

#[derive(Default)]
struct Last(Mutex<Option<Waker>>);

impl Wake for Last {
    fn wake(self: Arc<Self>) {
        let waker = self.0.lock().take();
        waker.into_iter().for_each(Waker::wake);
    }
}

impl OneWaker {
    fn poll<T>(
        &mut self,
        cx: &Context<'_>,
        poll: impl FnOnce(Pin<&mut DuplexStream>, &mut Context<'_>) -> Poll<T>,
    ) -> Poll<T> {
        *self.last.0.lock() = Some(cx.waker().clone());
        let waker = Waker::from(Arc::clone(&self.last));
        poll(Pin::new(&mut self.inner), &mut Context::from_waker(&waker))
    }
}

impl AsyncRead for OneWaker {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.poll(cx, |inner, cx| inner.poll_read(cx, buffer))
    }
}

impl AsyncWrite for OneWaker {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.poll(cx, |inner, cx| inner.poll_write(cx, bytes))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll(cx, |inner, cx| inner.poll_flush(cx))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll(cx, |inner, cx| inner.poll_shutdown(cx))
    }
}

#[tokio::test]
async fn a_stream_with_one_waker_for_both_directions_is_heard() {
    let io = Io::new();
    io.on_connect(|socket: Socket| async move {
        socket.on("echo", |text: String| async move { text });
    });
    let (mut client, inner) = tokio::io::duplex(64 * 1024);
    let stream = OneWaker { inner, last: Arc::default() };
    let service = TowerToHyperService::new(io.router());
    let connection = http1::Builder::new().serve_connection(TokioIo::new(stream), service);
    tokio::spawn(connection.with_upgrades());
    let request = "GET /socket.io/?EIO=4&transport=websocket HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\n\
                   Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
                   Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
    let talk = async {
        client.write_all(request.as_bytes()).await.unwrap();
        let mut heard = Vec::new();
        let say = |text: &str| masked_frame(OpCode::Text, text.as_bytes(), [1, 2, 3, 4]);
        // Each is said when what was said before was answered, so that the server sleeps in between.
        for (said, answer) in [
            (None, &b"\"maxPayload\":1000000}"[..]),
            (Some(say("40")), b"\"}"),
            (Some(say(r#"421["echo","a"]"#)), &frame(OpCode::Text, br#"431["a"]"#)),
            (Some(say(r#"422["echo","b"]"#)), &frame(OpCode::Text, br#"432["b"]"#)),
        ] {
            if let Some(said) = said {
                client.write_all(&said).await.unwrap();
            }
            heard.clear();
            while !heard.ends_with(answer) {
                assert!(client.read_buf(&mut heard).await.unwrap() > 0, "the server is there");
            }
        }
    };
    tokio::time::timeout(PATIENCE, talk).await.expect("an answer");
}
