//! What was read from the broker and is not delivered yet: a bounded queue, and the thread that empties it.
//!
//! A driver reads as fast as the broker sends, whatever delivery takes, so that what waits is here, where it can be
//! seen: with every message goes for how long it has waited. When the queue is full the reader waits, and the broker
//! feels it through TCP. Owns order and bounds; what is delivered, and what is not, is the sink's.

use std::{
    collections::VecDeque,
    io,
    sync::{Arc, atomic::Ordering},
    thread,
    time::Instant,
};

use bytes::Bytes;
use parking_lot::{Condvar, Mutex};
use tokio::{runtime::Handle, sync::oneshot};

use super::{Fault, inbound::Counters};
use crate::cluster::{Backlog, BusSink};

/// What a message costs of the bound beside its payload and its subject, in bytes.
const OVERHEAD: usize = 256;
/// A queue that is empty keeps no more room than for so many messages.
const KEPT: usize = 1_024;

/// The messages of one link, in the order of their arrival.
pub(super) struct Queue {
    max_bytes: usize,
    state: Mutex<State>,
    arrived: Condvar,
    taken: Condvar,
}

#[derive(Default)]
struct State {
    messages: VecDeque<Message>,
    bytes: usize,
    closed: bool,
}

struct Message {
    subject: Box<str>,
    payload: Bytes,
    arrived_at: Instant,
}

impl Message {
    fn cost(&self) -> usize {
        self.subject.len() + self.payload.len() + OVERHEAD
    }
}

impl Queue {
    pub(super) fn new(max_bytes: usize) -> Self {
        Self { max_bytes, state: Mutex::default(), arrived: Condvar::new(), taken: Condvar::new() }
    }

    /// Queues a message, and waits while there is no room for it. One that is larger than the bound goes alone. False
    /// says that the queue is closed.
    pub(super) fn push(&self, subject: &str, payload: Bytes) -> bool {
        let message = Message { subject: subject.into(), payload, arrived_at: Instant::now() };
        let cost = message.cost();
        let mut state = self.state.lock();
        while !state.closed && state.bytes > 0 && state.bytes + cost > self.max_bytes {
            self.taken.wait(&mut state);
        }
        if state.closed {
            return false;
        }
        state.bytes += cost;
        state.messages.push_back(message);
        drop(state);
        self.arrived.notify_one();
        true
    }

    /// The next message, and how full the queue was with it. Waits for one; nothing, when the queue is closed and empty.
    fn pop(&self) -> Option<(Message, f64)> {
        let mut state = self.state.lock();
        let message = loop {
            match state.messages.pop_front() {
                Some(message) => break message,
                None if state.closed => return None,
                None => self.arrived.wait(&mut state),
            }
        };
        let fill = (state.bytes as f64 / self.max_bytes.max(1) as f64).min(1.0);
        state.bytes = state.bytes.saturating_sub(message.cost());
        if state.messages.is_empty() && state.messages.capacity() > KEPT {
            state.messages = VecDeque::new();
        }
        drop(state);
        self.taken.notify_one();
        Some((message, fill))
    }

    /// Takes nothing more. What waits is still delivered.
    pub(super) fn close(&self) {
        self.state.lock().closed = true;
        self.arrived.notify_all();
        self.taken.notify_all();
    }
}

/// The thread that delivers what is in a queue. Dropping it closes the queue; [`end`](Self::end) also waits.
pub(super) struct Delivery {
    queue: Arc<Queue>,
    ended: oneshot::Receiver<()>,
}

impl Delivery {
    /// Starts a thread of this name. `home` is the runtime in which the bus was started: what the sink spawns belongs
    /// there.
    pub(super) fn start(
        name: String,
        queue: &Arc<Queue>,
        sink: Arc<dyn BusSink>,
        home: Handle,
        counters: Arc<Counters>,
        fault: Fault,
    ) -> io::Result<Self> {
        let (end, ended) = oneshot::channel::<()>();
        let closes = Closes(Arc::clone(queue));
        thread::Builder::new().name(name).spawn(move || {
            let _panicked = fault.raised_by_panic();
            let _home = home.enter();
            while let Some((message, fill)) = closes.0.pop() {
                let backlog = Backlog { waited: message.arrived_at.elapsed(), fill };
                sink.message(&message.subject, message.payload, backlog);
                counters.received.fetch_add(1, Ordering::Relaxed);
            }
            drop((closes, end));
        })?;
        Ok(Self { queue: Arc::clone(queue), ended })
    }

    /// Waits until everything that was read is delivered.
    pub(super) async fn end(mut self) {
        self.queue.close();
        // The sender is dropped, never used.
        let _ = (&mut self.ended).await;
    }
}

impl Drop for Delivery {
    fn drop(&mut self) {
        self.queue.close();
    }
}

/// Lets the reader go when the thread ends, also by a panic.
struct Closes(Arc<Queue>);

impl Drop for Closes {
    fn drop(&mut self) {
        self.0.close();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::BusState;

    /// Delivers nothing before it is opened.
    #[derive(Default)]
    struct Gate {
        closed: Mutex<()>,
        seen: Mutex<Vec<(Bytes, Backlog)>>,
    }

    impl BusSink for Gate {
        fn message(&self, _: &str, payload: Bytes, backlog: Backlog) {
            drop(self.closed.lock());
            assert_ne!(&*payload, b"panic");
            self.seen.lock().push((payload, backlog));
        }

        fn state(&self, _: BusState) {}
    }

    fn start(queue: &Arc<Queue>, sink: &Arc<Gate>, fault: &Fault) -> Delivery {
        let (sink, home) = (Arc::clone(sink) as Arc<dyn BusSink>, Handle::current());
        Delivery::start("deliver".into(), queue, sink, home, Arc::default(), fault.clone()).expect("a thread")
    }

    fn payload(number: u32) -> Bytes {
        number.to_be_bytes().to_vec().into()
    }

    #[tokio::test]
    async fn what_was_read_is_delivered_in_order_and_at_the_end() {
        let (queue, sink) = (Arc::new(Queue::new(usize::MAX)), Arc::new(Gate::default()));
        let delivery = start(&queue, &sink, &Fault::new());
        let gate = sink.closed.lock();
        assert!((0..1_000).all(|number| queue.push("", payload(number))));
        drop(gate);
        delivery.end().await;
        assert!(!queue.push("", payload(0)));
        let seen = sink.seen.lock();
        assert!(
            seen.iter().map(|(payload, _)| payload).eq((0..1_000).map(payload).collect::<Vec<_>>().iter())
        );
        // Those behind the gate have waited longer than the first one of all.
        assert!(seen.windows(2).any(|pair| pair[0].1.waited < pair[1].1.waited));
    }

    #[tokio::test]
    async fn a_reader_waits_while_the_queue_is_full_and_is_let_go_when_it_is_closed() {
        let (queue, sink) = (Arc::new(Queue::new(3 * (OVERHEAD + 4))), Arc::new(Gate::default()));
        let delivery = start(&queue, &sink, &Fault::new());
        let gate = sink.closed.lock();
        assert!(queue.push("", payload(0)));
        // In hand, and no more in the queue.
        while queue.state.lock().bytes > 0 {
            thread::yield_now();
        }
        assert!((1..4).all(|number| queue.push("", payload(number))));
        let reads = Arc::clone(&queue);
        let reader = thread::spawn(move || (4..8).all(|number| reads.push("", payload(number))));
        drop(gate);
        let fills = loop {
            if let Some(seen) = Some(sink.seen.lock()).filter(|seen| seen.len() == 8) {
                break seen.iter().map(|(_, backlog)| backlog.fill).collect::<Vec<_>>();
            }
            thread::yield_now();
        };
        assert!(reader.join().expect("no panic"));
        assert!((fills[1] - 1.0).abs() < 1e-9 && fills[7] < 1.0, "{fills:?}");
        let gate = sink.closed.lock();
        let reads = Arc::clone(&queue);
        let reader = thread::spawn(move || (0..6).all(|number| reads.push("", payload(number))));
        queue.close();
        assert!(!reader.join().expect("no panic"));
        drop(gate);
        delivery.end().await;
    }

    #[tokio::test]
    async fn a_panic_gives_the_link_up_and_lets_the_reader_go() {
        let (queue, sink, fault) = (Arc::new(Queue::new(1)), Arc::new(Gate::default()), Fault::new());
        let delivery = start(&queue, &sink, &fault);
        queue.push("", Bytes::from_static(b"panic"));
        while queue.push("", payload(0)) {}
        delivery.end().await;
        assert!(fault.raised().is_some_and(|reason| reason.contains("panicked")));
    }
}
