//! A connection's outbound queue: the only thing that the adapter knows of a connection.
//!
//! Bounded in items and in bytes. A push never waits: a mailbox that is full drops what is volatile and closes the
//! connection otherwise, so that one slow client delays nobody. An idle mailbox owns no buffer.

mod queue;

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::time::{Duration, Instant};

use parking_lot::{Mutex, MutexGuard};
use roomcast_protocol::socketio::EncodedPacket;

use self::queue::Queue;
use crate::id::SocketId;
use crate::trace::TraceContext;

/// The bounds of a mailbox.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MailboxLimits {
    /// Packets and commands that may wait.
    pub max_items: usize,
    /// Bytes of packets that may wait. A packet shared by many mailboxes counts in each.
    pub max_bytes: usize,
}

impl Default for MailboxLimits {
    /// The two meet at packets of one KiB: what is smaller is bounded by its number, since each takes 24 bytes in every
    /// mailbox that it waits in.
    fn default() -> Self {
        Self { max_items: 16_384, max_bytes: 16 * 1024 * 1024 }
    }
}

/// A packet on its way to any number of connections.
#[derive(Debug)]
pub struct Outgoing {
    /// The packet in its encodings.
    pub packet: EncodedPacket,
    /// When this node emitted it or received it from another one: the start of the emit-to-write latency.
    pub emitted_at: Instant,
    /// How long it had been on its way before that, as far as that can be told; nothing when this node emitted it.
    pub travelled: Option<Duration>,
    /// The trace that it belongs to.
    pub trace: Option<TraceContext>,
    /// May be dropped when the connection cannot be written to at once.
    pub volatile: bool,
    /// May be compressed where compression was negotiated.
    pub compress: bool,
}

impl Outgoing {
    /// A packet that is kept until it is written, emitted now.
    pub fn new(packet: EncodedPacket) -> Arc<Self> {
        Arc::new(Self::now(packet))
    }

    /// The same, to be changed.
    pub fn now(packet: EncodedPacket) -> Self {
        let emitted_at = Instant::now();
        Self { packet, emitted_at, travelled: None, trace: None, volatile: false, compress: true }
    }
}

/// What waits in a mailbox, in order.
#[derive(Debug, Clone)]
pub enum Item {
    /// Write this.
    Packet(Arc<Outgoing>),
    /// The server ends a socket: DISCONNECT is written, the reason is "server namespace disconnect". With `close`, the
    /// whole connection ends after what was written so far: "forced server close".
    Disconnect {
        /// The socket.
        socket: SocketId,
        /// End the connection too.
        close: bool,
    },
    /// The connection has to end.
    Close(CloseCause),
}

/// Why a mailbox ends its connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum CloseCause {
    /// The server's own code wants it: "forced close".
    Requested,
    /// The node goes away now: "server shutting down".
    ServerShutdown,
    /// The node goes away: the same, once the acks of events that are under way are written.
    Draining,
    /// The node has more than its share of the connections: "transport close", once the acks are written. The client
    /// connects again.
    Rebalanced,
    /// More waits than `max_items` or `max_bytes`: "transport close" to the client, counted as `slow_consumer`.
    SlowConsumer,
    /// The cluster took the node for dead: "transport close" to the client, which connects again.
    Fenced,
}

/// What became of a push.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[must_use]
pub enum Push {
    /// It waits to be written.
    Queued,
    /// It was volatile and the connection cannot be written to now.
    DroppedVolatile,
    /// The mailbox is full: the connection is being closed as a slow consumer. Told once for each connection.
    Overflowed,
    /// The connection has ended or is about to.
    Closed,
}

/// A bounded queue with one consumer, the connection task.
#[derive(Debug)]
pub struct Mailbox {
    limits: MailboxLimits,
    /// The connection task wants to be woken by what comes. Set under the lock.
    asleep: AtomicBool,
    /// The task was woken for something else than mail, through the mailbox as a [`Waker`], and was not told yet.
    arrived: AtomicBool,
    inner: Mutex<Inner>,
}

#[derive(Debug)]
struct Inner {
    items: Queue,
    bytes: usize,
    state: State,
    /// False while the transport has bytes that it could not write, or no poll to answer.
    writable: bool,
    /// The connection task's.
    waker: Option<Waker>,
    /// The sleeping task cannot write: packets do not wake it.
    urgent_only: bool,
    /// A command waits, or the mailbox has overflowed: the task has to look even if it cannot write.
    urgent: bool,
}

#[derive(Debug, PartialEq, Eq)]
enum State {
    Open,
    /// Takes nothing more; what the task must still learn waits in `items`.
    Closed,
}

impl Mailbox {
    /// An empty mailbox of an open connection.
    pub fn new(limits: MailboxLimits) -> Arc<Self> {
        let inner = Inner {
            items: Queue::default(),
            bytes: 0,
            state: State::Open,
            writable: true,
            waker: None,
            urgent_only: false,
            urgent: false,
        };
        let (asleep, arrived) = (AtomicBool::new(false), AtomicBool::new(false));
        Arc::new(Self { limits, asleep, arrived, inner: Mutex::new(inner) })
    }

    /// Queues a packet, or says why not. Never waits.
    pub fn push(&self, outgoing: &Arc<Outgoing>) -> Push {
        let len = outgoing.packet.frames().len();
        let mut inner = self.inner.lock();
        if inner.state == State::Closed {
            return Push::Closed;
        }
        if outgoing.volatile && !inner.writable {
            return Push::DroppedVolatile;
        }
        // One packet always fits, however large: what may be emitted is bounded elsewhere.
        let full = inner.items.len() >= self.limits.max_items
            || (inner.bytes > 0 && inner.bytes.saturating_add(len) > self.limits.max_bytes);
        if full && outgoing.volatile {
            return Push::DroppedVolatile;
        }
        if full {
            inner.state = State::Closed;
            // Not cleared: its buffer is as long as a queue can be.
            inner.items = Queue::default();
            inner.bytes = 0;
            inner.items.push(Item::Close(CloseCause::SlowConsumer));
            inner.urgent = true;
            self.wake(inner);
            return Push::Overflowed;
        }
        inner.bytes += len;
        inner.items.push(Item::Packet(Arc::clone(outgoing)));
        self.wake(inner);
        Push::Queued
    }

    /// Queues the end of a socket behind what was pushed before it.
    pub fn disconnect(&self, socket: SocketId, close: bool) {
        self.command(Item::Disconnect { socket, close });
    }

    /// Queues the end of the connection behind what was pushed before it.
    pub fn close(&self, cause: CloseCause) {
        self.command(Item::Close(cause));
    }

    /// Commands are few, and each ends something: they are not refused for want of room.
    fn command(&self, item: Item) {
        let mut inner = self.inner.lock();
        if inner.state == State::Open {
            inner.items.push(item);
            inner.urgent = true;
            self.wake(inner);
        }
    }

    /// The consumer's side while it cannot write: nothing is taken, so that the bounds hold, but commands, and the end of
    /// the mailbox as a slow consumer, still wake the task. Ready then, and `poll_take` tells what it is.
    pub fn poll_urgent(&self, cx: &mut Context<'_>) -> Poll<()> {
        let mut inner = self.inner.lock();
        if inner.urgent {
            return Poll::Ready(());
        }
        inner.urgent_only = true;
        self.sleep(&mut inner, cx);
        Poll::Pending
    }

    /// The consumer's side: the task runs, and will look. Until it has, nobody wakes it, least of all its own handlers by
    /// what they answer.
    pub fn rouse(&self) {
        self.asleep.store(false, Ordering::Relaxed);
    }

    /// The consumer's side: appends everything that waits to `batch`. Either way the next push wakes the task: it need not
    /// look again before it sleeps.
    pub fn poll_take(&self, cx: &mut Context<'_>, batch: &mut VecDeque<Item>) -> Poll<()> {
        let mut inner = self.inner.lock();
        inner.urgent_only = false;
        self.sleep(&mut inner, cx);
        if inner.items.is_empty() {
            return Poll::Pending;
        }
        inner.bytes = 0;
        inner.urgent = false;
        inner.items.take_into(batch);
        Poll::Ready(())
    }

    /// Takes everything that waits, without asking to be woken.
    pub fn drain(&self) -> VecDeque<Item> {
        let mut inner = self.inner.lock();
        inner.bytes = 0;
        inner.urgent = false;
        let mut items = VecDeque::new();
        inner.items.take_into(&mut items);
        items
    }

    /// The consumer says whether it could write to the transport now; decides what happens to volatile packets.
    pub fn set_writable(&self, writable: bool) {
        self.inner.lock().writable = writable;
    }

    /// Whether the mailbox was used as a waker since the last call. The consumer has to ask once more after it has asked for
    /// mail: before it has, nobody knows whom to wake.
    pub fn take_arrived(&self) -> bool {
        self.arrived.load(Ordering::Acquire) && self.arrived.swap(false, Ordering::AcqRel)
    }

    /// The consumer is gone: nothing more is taken, what waits is dropped.
    pub fn end(&self) {
        let mut inner = self.inner.lock();
        inner.state = State::Closed;
        inner.items = Queue::default();
        inner.bytes = 0;
        inner.waker = None;
    }

    /// Packets and commands that wait, and their bytes.
    pub fn depth(&self) -> (usize, usize) {
        let inner = self.inner.lock();
        (inner.items.len(), inner.bytes)
    }

    /// From here on the task has to be woken. The lock is held: whoever pushes next sees it.
    fn sleep(&self, inner: &mut Inner, cx: &Context<'_>) {
        if !inner.waker.as_ref().is_some_and(|waker| waker.will_wake(cx.waker())) {
            inner.waker = Some(cx.waker().clone());
        }
        self.asleep.store(true, Ordering::Relaxed);
    }

    /// Wakes the task outside the lock, if it sleeps and can do something.
    fn wake(&self, inner: MutexGuard<'_, Inner>) {
        if !self.asleep.load(Ordering::Relaxed) || (inner.urgent_only && !inner.urgent) {
            return;
        }
        self.asleep.store(false, Ordering::Relaxed);
        let waker = inner.waker.clone();
        drop(inner);
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

/// Wakes the consumer for something else than mail, such as bytes of its client, and notes that: it is told why it runs, so
/// that it need not try a read whenever there is mail.
impl Wake for Mailbox {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.arrived.store(true, Ordering::Release);
        let waker = self.inner.lock().waker.clone();
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;

    use roomcast_protocol::socketio::Args;

    use super::*;

    struct CountWakes(AtomicUsize);

    impl Wake for CountWakes {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }

    fn packet(volatile: bool) -> Arc<Outgoing> {
        let packet = EncodedPacket::event("/", None, "e", &Args::none());
        Arc::new(Outgoing { volatile, ..Outgoing::now(packet) })
    }

    fn mailbox(max_items: usize, max_bytes: usize) -> Arc<Mailbox> {
        Mailbox::new(MailboxLimits { max_items, max_bytes })
    }

    fn take(mailbox: &Mailbox) -> VecDeque<Item> {
        let mut batch = VecDeque::new();
        let _ = mailbox.poll_take(&mut Context::from_waker(Waker::noop()), &mut batch);
        batch
    }

    #[test]
    fn one_wake_for_a_burst() {
        let wakes = Arc::new(CountWakes(AtomicUsize::new(0)));
        let waker = Waker::from(Arc::clone(&wakes));
        let mailbox = mailbox(10, 1000);
        let mut batch = VecDeque::new();
        assert!(mailbox.poll_take(&mut Context::from_waker(&waker), &mut batch).is_pending());
        for _ in 0..3 {
            assert_eq!(mailbox.push(&packet(false)), Push::Queued);
        }
        assert_eq!(wakes.0.load(Ordering::SeqCst), 1);
        assert!(mailbox.poll_take(&mut Context::from_waker(&waker), &mut batch).is_ready());
        assert_eq!(batch.len(), 3);
        assert_eq!(mailbox.depth(), (0, 0));
    }

    /// What handlers answer while their connection runs is taken in the same turn.
    #[test]
    fn a_task_that_runs_is_not_woken_by_what_it_is_about_to_take() {
        let wakes = Arc::new(CountWakes(AtomicUsize::new(0)));
        let waker = Waker::from(Arc::clone(&wakes));
        let (mailbox, mut batch) = (mailbox(10, 1000), VecDeque::new());
        let cx = &mut Context::from_waker(&waker);
        assert!(mailbox.poll_take(cx, &mut batch).is_pending());
        mailbox.rouse();
        assert_eq!(mailbox.push(&packet(false)), Push::Queued);
        assert!(mailbox.poll_take(cx, &mut batch).is_ready());
        assert_eq!(wakes.0.load(Ordering::SeqCst), 0);
        // It sleeps without another look.
        assert_eq!(mailbox.push(&packet(false)), Push::Queued);
        assert_eq!(wakes.0.load(Ordering::SeqCst), 1);
    }

    #[test]
    fn a_consumer_that_has_asked_for_mail_is_woken_for_other_things_too() {
        let wakes = Arc::new(CountWakes(AtomicUsize::new(0)));
        let waker = Waker::from(Arc::clone(&wakes));
        let (mailbox, mut batch) = (mailbox(10, 1000), VecDeque::new());
        let other = Waker::from(Arc::clone(&mailbox));
        other.wake_by_ref();
        assert!(mailbox.poll_take(&mut Context::from_waker(&waker), &mut batch).is_pending());
        assert_eq!((mailbox.take_arrived(), mailbox.take_arrived()), (true, false));
        other.wake_by_ref();
        assert_eq!((mailbox.take_arrived(), wakes.0.load(Ordering::SeqCst)), (true, 1));
        mailbox.end();
        other.wake_by_ref();
        assert_eq!(wakes.0.load(Ordering::SeqCst), 1);
    }

    #[test]
    fn volatile_is_dropped_first_and_then_the_connection_goes() {
        let len = packet(false).packet.frames().len();
        for mailbox in [mailbox(2, usize::MAX), mailbox(100, 2 * len)] {
            assert_eq!(mailbox.push(&packet(true)), Push::Queued);
            assert_eq!(mailbox.push(&packet(false)), Push::Queued);
            assert_eq!(mailbox.push(&packet(true)), Push::DroppedVolatile);
            assert_eq!(mailbox.push(&packet(false)), Push::Overflowed);
            assert_eq!(mailbox.push(&packet(false)), Push::Closed);
            assert!(matches!(take(&mailbox).pop_front(), Some(Item::Close(CloseCause::SlowConsumer))));
        }
    }

    #[test]
    fn a_slow_consumer_holds_no_buffer_while_it_is_ended() {
        let mailbox = mailbox(1_000, usize::MAX);
        (0..1_000).for_each(|_| assert_eq!(mailbox.push(&packet(false)), Push::Queued));
        assert_eq!(mailbox.push(&packet(false)), Push::Overflowed);
        assert!(mailbox.inner.lock().items.capacity() < 10);
    }

    #[test]
    fn one_packet_fits_however_large() {
        assert_eq!(mailbox(10, 1).push(&packet(false)), Push::Queued);
    }

    #[test]
    fn a_task_that_cannot_write_is_woken_by_what_is_urgent_only() {
        let wakes = Arc::new(CountWakes(AtomicUsize::new(0)));
        let waker = Waker::from(Arc::clone(&wakes));
        let mailbox = mailbox(2, 1000);
        assert!(mailbox.poll_urgent(&mut Context::from_waker(&waker)).is_pending());
        assert_eq!(mailbox.push(&packet(false)), Push::Queued);
        assert_eq!(mailbox.push(&packet(false)), Push::Queued);
        assert_eq!(wakes.0.load(Ordering::SeqCst), 0);
        assert_eq!(mailbox.push(&packet(false)), Push::Overflowed);
        assert_eq!(wakes.0.load(Ordering::SeqCst), 1);
        assert!(mailbox.poll_urgent(&mut Context::from_waker(&waker)).is_ready());
    }

    #[test]
    fn commands_are_urgent() {
        let wakes = Arc::new(CountWakes(AtomicUsize::new(0)));
        let waker = Waker::from(Arc::clone(&wakes));
        let mailbox = mailbox(10, 1000);
        assert_eq!(mailbox.push(&packet(false)), Push::Queued);
        assert!(mailbox.poll_urgent(&mut Context::from_waker(&waker)).is_pending());
        mailbox.close(CloseCause::ServerShutdown);
        assert_eq!(wakes.0.load(Ordering::SeqCst), 1);
        assert!(mailbox.poll_urgent(&mut Context::from_waker(&waker)).is_ready());
        assert_eq!(take(&mailbox).len(), 2);
        assert!(mailbox.poll_urgent(&mut Context::from_waker(&waker)).is_pending());
    }

    #[test]
    fn volatile_waits_for_nothing() {
        let mailbox = mailbox(10, 1000);
        mailbox.set_writable(false);
        assert_eq!(mailbox.push(&packet(true)), Push::DroppedVolatile);
        assert_eq!(mailbox.push(&packet(false)), Push::Queued);
    }

    #[test]
    fn commands_keep_their_place() {
        let mailbox = mailbox(1, 1000);
        let socket = "AAAAAAAAAAAAAAAAAAAA".parse().unwrap();
        assert_eq!(mailbox.push(&packet(false)), Push::Queued);
        mailbox.disconnect(socket, true);
        mailbox.end();
        assert!(take(&mailbox).is_empty());
        assert_eq!(mailbox.push(&packet(false)), Push::Closed);
    }
}
