//! A WebSocket on its raw stream: reads into a borrowed buffer, writes many frames with one call.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::{Buf as _, Bytes};
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use roomcast_protocol::websocket::{Decoder, Negotiated, Role};
use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, DuplexStream, ReadBuf};
use tokio::net::TcpStream;

use crate::connection::{Wire, WireQueue};
use crate::metrics::Metrics;

/// Frames that one write may carry.
const MAX_SLICES: usize = 64;

/// Bytes that one connection writes before others get their share of the thread: the buffers of the system take
/// megabytes, and with a thousand connections behind, heartbeats and other rooms would wait for seconds.
const TURN_BYTES: usize = 64 * 1024;

/// How long a closed WebSocket may take to be read to its end.
const LINGER: Duration = Duration::from_secs(2);

/// A stream that can be read and written.
pub(crate) trait ReadWrite: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> ReadWrite for T {}

/// What carries a WebSocket: the TCP or TLS stream itself where it can be had, so that nothing of HTTP remains.
pub(crate) enum Stream {
    Tcp(TcpStream),
    /// TLS, or what another accept loop made of the connection. It may keep back what was written until it is flushed.
    Other {
        stream: Box<dyn ReadWrite>,
        /// It may keep one waker for both directions.
        is_foreign: bool,
    },
}

impl Stream {
    /// Takes the stream out of an upgraded HTTP connection, with the bytes that were read too far.
    pub(crate) fn from_upgraded(upgraded: Upgraded) -> (Self, Bytes) {
        let upgraded = match upgraded.downcast::<TokioIo<TcpStream>>() {
            Ok(parts) => return (Self::Tcp(parts.io.into_inner()), parts.read_buf),
            Err(upgraded) => upgraded,
        };
        let upgraded = match upgraded.downcast::<TokioIo<Box<dyn ReadWrite>>>() {
            Ok(parts) => return (Self::own(parts.io.into_inner()), parts.read_buf),
            Err(upgraded) => upgraded,
        };
        match upgraded.downcast::<TokioIo<DuplexStream>>() {
            Ok(parts) => (Self::own(Box::new(parts.io.into_inner())), parts.read_buf),
            Err(upgraded) => {
                let stream = Box::new(TokioIo::new(upgraded));
                (Self::Other { stream, is_foreign: true }, Bytes::new())
            }
        }
    }

    fn own(stream: Box<dyn ReadWrite>) -> Self {
        Self::Other { stream, is_foreign: false }
    }

    fn poll_read(&mut self, cx: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<usize>> {
        let mut buffer = ReadBuf::new(buffer);
        let read = match self {
            Self::Tcp(stream) => Pin::new(stream).poll_read(cx, &mut buffer),
            Self::Other { stream, .. } => Pin::new(stream).poll_read(cx, &mut buffer),
        };
        read.map_ok(|()| buffer.filled().len())
    }

    /// Writes, as far as the system takes it. `is_full`: it took nothing the last time.
    fn poll_write(
        &mut self,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
        is_full: bool,
    ) -> Poll<io::Result<usize>> {
        match (self, slices) {
            // `send` is cheaper than `writev`, and one frame is what most writes are. The runtime is asked only once the
            // system takes nothing: what it knows of the stream is one more place in memory that is in no cache.
            (Self::Tcp(stream), [slice]) if !is_full => {
                match SockRef::from(&*stream).send_with_flags(slice, SEND_FLAGS) {
                    Err(error) if is_temporary(&error) => Pin::new(stream).poll_write(cx, slice),
                    sent => Poll::Ready(sent),
                }
            }
            (Self::Tcp(stream), [slice]) => Pin::new(stream).poll_write(cx, slice),
            (Self::Tcp(stream), slices) => Pin::new(stream).poll_write_vectored(cx, slices),
            (Self::Other { stream, .. }, slices) => Pin::new(stream).poll_write_vectored(cx, slices),
        }
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Tcp(_) => Poll::Ready(Ok(())),
            Self::Other { stream, .. } => Pin::new(stream).poll_flush(cx),
        }
    }
}

/// As the standard library sends: where the other side is gone, that is an error, and no signal.
#[cfg(not(any(windows, target_vendor = "apple")))]
const SEND_FLAGS: i32 = libc::MSG_NOSIGNAL;
#[cfg(any(windows, target_vendor = "apple"))]
const SEND_FLAGS: i32 = 0;

fn is_temporary(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted)
}

/// What a flush did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Flush {
    /// Nothing waits any more.
    Empty,
    /// The stream takes nothing now.
    Blocked,
    /// There is more to write, and it is the turn of others. The task is woken again.
    Yielded,
}

/// A WebSocket of the server's role.
pub(crate) struct WebSocket {
    stream: Stream,
    pub(crate) decoder: Decoder,
    pub(crate) compression: Option<Negotiated>,
    /// Bytes that came together with the handshake, seldom: boxed.
    early: Option<Box<Bytes>>,
    /// Bytes of the first queued item that are written already.
    written: usize,
    /// The stream took nothing the last time.
    is_full: bool,
}

impl WebSocket {
    pub(crate) fn new(
        upgraded: Upgraded,
        max_payload: usize,
        max_fragments: u32,
        compression: Option<Negotiated>,
    ) -> Self {
        let (stream, early) = Stream::from_upgraded(upgraded);
        // A copy: the slice would keep the whole buffer of the HTTP connection.
        let early = (!early.is_empty()).then(|| Box::new(Bytes::copy_from_slice(&early)));
        if let Stream::Tcp(stream) = &stream {
            // Coalescing is done here, by what waits, and not by the kernel, by time.
            let _ = stream.set_nodelay(true);
        }
        let decoder = Decoder::new(Role::Server, max_payload, max_fragments, compression);
        Self { stream, decoder, compression, early, written: 0, is_full: false }
    }

    /// Whether the waker of a read that was pending is woken whenever something comes, whatever is written meanwhile.
    pub(crate) fn tells_arrivals(&self) -> bool {
        !matches!(self.stream, Stream::Other { is_foreign: true, .. })
    }

    /// Reads what has come. 0: the client has ended the stream.
    pub(crate) fn poll_read(&mut self, cx: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<usize>> {
        let Some(early) = &mut self.early else {
            return self.stream.poll_read(cx, buffer);
        };
        let len = early.len().min(buffer.len());
        early.copy_to_slice(&mut buffer[..len]);
        self.early.take_if(|early| early.is_empty());
        Poll::Ready(Ok(len))
    }

    /// Writes what waits. Registers the task where the stream is full.
    pub(crate) fn poll_flush(
        &mut self,
        cx: &mut Context<'_>,
        wire: &mut WireQueue,
        metrics: &Metrics,
    ) -> io::Result<Flush> {
        let (mut oldest, mut turn) = (None, 0);
        let result = loop {
            if wire.is_empty() {
                // What was taken may not have left yet: records of TLS, or what it has to say by itself.
                break match self.stream.poll_flush(cx) {
                    Poll::Pending => Ok(Flush::Blocked),
                    Poll::Ready(flushed) => flushed.map(|()| Flush::Empty),
                };
            }
            if turn >= TURN_BYTES {
                cx.waker().wake_by_ref();
                break Ok(Flush::Yielded);
            }
            match self.poll_write(cx, wire) {
                Poll::Pending => break Ok(Flush::Blocked),
                Poll::Ready(Err(error)) => break Err(error),
                Poll::Ready(Ok(0)) => break Err(io::ErrorKind::WriteZero.into()),
                Poll::Ready(Ok(written)) => {
                    metrics.bytes_sent.of(crate::config::Transport::Websocket).inc_by(written as u64);
                    turn += written;
                    let item = self.advance(written, wire, metrics);
                    oldest = oldest.or(item);
                }
            }
        };
        if let Some((emitted_at, travelled)) = oldest {
            metrics.observe_emit_to_write(Instant::now().saturating_duration_since(emitted_at), travelled);
        }
        result
    }

    /// Offers the first frames that wait to the stream.
    fn poll_write(&mut self, cx: &mut Context<'_>, wire: &WireQueue) -> Poll<io::Result<usize>> {
        let mut slices = arrayvec::ArrayVec::<IoSlice<'_>, MAX_SLICES>::new();
        let mut offered = 0;
        for (index, item) in wire.iter().take(MAX_SLICES).enumerate() {
            if offered >= TURN_BYTES {
                break;
            }
            let skip = if index == 0 { self.written } else { 0 };
            let frames = &item.frames()[skip..];
            offered += frames.len();
            slices.push(IoSlice::new(frames));
        }
        let written = self.stream.poll_write(cx, &slices, self.is_full);
        self.is_full = written.is_pending();
        written
    }

    /// Removes what was written; tells when the first of it was emitted, and how long that had been on its way.
    fn advance(
        &mut self,
        written: usize,
        wire: &mut WireQueue,
        metrics: &Metrics,
    ) -> Option<(Instant, Option<Duration>)> {
        let mut oldest = None;
        self.written += written;
        while let Some(len) = wire.front_len().filter(|len| *len <= self.written) {
            let Some(item) = wire.pop() else { break };
            self.written -= len;
            if let Some(kind) = item.kind() {
                metrics.packets_sent.inc(kind);
            }
            oldest = oldest.or(item.outgoing().map(|outgoing| (outgoing.emitted_at, outgoing.travelled)));
        }
        oldest
    }

    /// Writes what is left, ends the stream, and waits for the client's end: closing at once would reset the connection
    /// and could destroy what was just sent.
    pub(crate) async fn close(mut self, mut wire: WireQueue) {
        let closing = async {
            while let Some(item) = wire.pop() {
                let frames = &item.frames()[std::mem::take(&mut self.written)..];
                self.write_all(frames).await?;
            }
            let mut rest = [0; 512];
            match &mut self.stream {
                Stream::Tcp(stream) => {
                    stream.shutdown().await?;
                    while stream.read(&mut rest).await? > 0 {}
                }
                Stream::Other { stream, .. } => {
                    stream.shutdown().await?;
                    while stream.read(&mut rest).await? > 0 {}
                }
            }
            io::Result::Ok(())
        };
        // Whatever happens, the stream is dropped now.
        let _ = tokio::time::timeout(LINGER, closing).await;
    }

    async fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        match &mut self.stream {
            Stream::Tcp(stream) => stream.write_all(bytes).await,
            Stream::Other { stream, .. } => stream.write_all(bytes).await,
        }
    }
}

/// A close frame with a code, or without one as the reference closes.
pub(crate) fn close_frame(code: Option<roomcast_protocol::websocket::CloseCode>) -> Wire {
    let close = roomcast_protocol::websocket::PreparedFrame::close(code.map(|code| (code, "")));
    Wire::Frames(close.into_bytes())
}

#[cfg(test)]
mod tests {
    use std::task::{Wake, Waker};

    use roomcast_protocol::websocket::{OpCode, PreparedFrame, frame};

    use super::*;

    struct CountWakes(std::sync::atomic::AtomicUsize);

    impl Wake for CountWakes {
        fn wake(self: std::sync::Arc<Self>) {
            self.0.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
        }
    }

    fn websocket(stream: Stream) -> WebSocket {
        let decoder = Decoder::new(Role::Server, 1_000, 1, None);
        WebSocket { stream, decoder, compression: None, early: None, written: 0, is_full: false }
    }

    /// A turn ends after its bytes, wakes the task for the next one, and nothing is lost between them.
    #[tokio::test]
    async fn a_connection_with_much_to_write_lets_others_have_their_turn() {
        let (stream, mut client) = tokio::io::duplex(usize::MAX >> 1);
        let mut websocket = websocket(Stream::own(Box::new(stream)));
        let mut wire = WireQueue::default();
        let frame = PreparedFrame::pong(&[0; 100]).into_bytes();
        let count = 3 * TURN_BYTES / frame.len();
        (0..count).for_each(|_| wire.push(Wire::Frames(frame.clone())));
        let wakes = std::sync::Arc::new(CountWakes(0.into()));
        let waker = Waker::from(std::sync::Arc::clone(&wakes));
        let (mut cx, metrics) = (Context::from_waker(&waker), Metrics::new());

        let before = wire.bytes();
        assert_eq!(websocket.poll_flush(&mut cx, &mut wire, &metrics).unwrap(), Flush::Yielded);
        let turn = before - wire.bytes();
        assert!((TURN_BYTES..2 * TURN_BYTES).contains(&turn), "{turn}");
        assert_eq!(wakes.0.load(std::sync::atomic::Ordering::SeqCst), 1);
        while websocket.poll_flush(&mut cx, &mut wire, &metrics).unwrap() == Flush::Yielded {}
        assert!(wire.is_empty());
        drop(websocket);
        let mut written = Vec::new();
        client.read_to_end(&mut written).await.unwrap();
        assert_eq!(written, frame.repeat(count));
    }

    /// A stream that takes everything, and gives it on only when it is flushed and the other side has room.
    struct Keeping {
        inner: tokio::io::DuplexStream,
        kept: Vec<u8>,
    }

    impl AsyncRead for Keeping {
        fn poll_read(
            mut self: Pin<&mut Self>,
            cx: &mut Context<'_>,
            buffer: &mut ReadBuf<'_>,
        ) -> Poll<io::Result<()>> {
            Pin::new(&mut self.inner).poll_read(cx, buffer)
        }
    }

    impl AsyncWrite for Keeping {
        fn poll_write(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
            bytes: &[u8],
        ) -> Poll<io::Result<usize>> {
            self.kept.extend_from_slice(bytes);
            Poll::Ready(Ok(bytes.len()))
        }

        fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
            let this = &mut *self;
            while !this.kept.is_empty() {
                let written = std::task::ready!(Pin::new(&mut this.inner).poll_write(cx, &this.kept))?;
                this.kept.drain(..written);
            }
            Poll::Ready(Ok(()))
        }

        fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
            Pin::new(&mut self.inner).poll_shutdown(cx)
        }
    }

    /// As TLS does: what it took is not sent yet, and somebody has to come back for it.
    #[tokio::test]
    async fn what_a_stream_keeps_back_is_flushed_when_there_is_room() {
        let (inner, mut client) = tokio::io::duplex(64);
        let mut websocket = websocket(Stream::own(Box::new(Keeping { inner, kept: Vec::new() })));
        let (mut wire, metrics) = (WireQueue::default(), Metrics::new());
        let frame = PreparedFrame::pong(&[7; 100]).into_bytes();
        wire.push(Wire::Frames(frame.clone()));
        let wakes = std::sync::Arc::new(CountWakes(0.into()));
        let waker = Waker::from(std::sync::Arc::clone(&wakes));
        let mut cx = Context::from_waker(&waker);
        let mut flush = || websocket.poll_flush(&mut cx, &mut wire, &metrics).unwrap();
        assert_eq!(flush(), Flush::Blocked, "64 of its bytes have left");
        let mut read = vec![0; frame.len()];
        client.read_exact(&mut read[..64]).await.unwrap();
        assert!(wakes.0.load(std::sync::atomic::Ordering::SeqCst) > 0, "the task is woken for the rest");
        assert_eq!(flush(), Flush::Empty);
        client.read_exact(&mut read[64..]).await.unwrap();
        assert_eq!(read, frame);
    }
    /// A single frame is given to the system past the runtime, which has to tell all the same when there is room for more.
    #[tokio::test]
    async fn the_rest_of_a_frame_is_written_when_the_system_has_room() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let connecting = TcpStream::connect(listener.local_addr().unwrap());
        let (client, accepted) = tokio::join!(connecting, listener.accept());
        let (mut client, mut websocket) = (client.unwrap(), websocket(Stream::Tcp(accepted.unwrap().0)));
        let (mut wire, metrics) = (WireQueue::default(), Metrics::new());
        // More than both sides' buffers hold.
        let frame = frame(OpCode::Binary, &vec![7; 32 * 1024 * 1024]);
        wire.push(Wire::Frames(frame.clone()));
        let mut blocked = 0;
        let writing = std::future::poll_fn(|cx| {
            loop {
                match websocket.poll_flush(cx, &mut wire, &metrics).unwrap() {
                    Flush::Empty => return Poll::Ready(()),
                    Flush::Blocked => {
                        blocked += 1;
                        return Poll::Pending;
                    }
                    Flush::Yielded => {}
                }
            }
        });
        let reading = async {
            let mut read = vec![0; frame.len()];
            client.read_exact(&mut read).await.unwrap();
            read
        };
        let both = async { tokio::join!(writing, reading) };
        let ((), read) = tokio::time::timeout(Duration::from_secs(60), both).await.expect("it is woken");
        assert!(read == frame, "the bytes are others");
        assert!(blocked > 0, "nothing had to wait");
    }
}
