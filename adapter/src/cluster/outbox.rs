//! What waits to be published, in order.
//!
//! Owns the one queue of a node to its broker, bounded in items and in bytes, what is in flight among them. Nothing waits
//! for a place: what does not fit, or comes while the broker is away, is refused at once.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::{Notify, oneshot};

use super::journey::Travel;
use super::{Bus, Publication, Subject, wire};
use crate::adapter::AdapterError;
use crate::counters::Counters;

/// Publications in one call of the bus, at most, unless one message has more subjects.
const BATCH_ITEMS: usize = 1_024;
/// Bytes in one call of the bus, at most, unless one message is larger.
const BATCH_BYTES: usize = 1024 * 1024;

/// Learns whether the broker took a message.
pub(crate) type Confirm = oneshot::Sender<Result<(), AdapterError>>;

/// One message to one or several subjects.
struct Entry {
    subjects: Vec<Subject>,
    payload: Bytes,
    /// When what tells its age was emitted.
    emitted_at: Option<Instant>,
    confirm: Option<Confirm>,
}

impl Entry {
    fn bytes(&self) -> usize {
        self.payload.len().saturating_mul(self.subjects.len())
    }
}

#[derive(Default)]
struct State {
    queue: VecDeque<Entry>,
    items: usize,
    bytes: usize,
    up: bool,
}

pub(crate) struct Outbox {
    state: Mutex<State>,
    wake: Notify,
    idle: Notify,
    max_items: usize,
    max_bytes: usize,
    counters: Arc<Counters>,
}

impl Outbox {
    pub(crate) fn new(max_items: usize, max_bytes: usize, counters: Arc<Counters>) -> Self {
        Self {
            state: Mutex::default(),
            wake: Notify::new(),
            idle: Notify::new(),
            max_items,
            max_bytes,
            counters,
        }
    }

    /// Says whether the broker is there.
    pub(crate) fn set_up(&self, up: bool) {
        self.state.lock().up = up;
    }

    /// Queues a message. One that tells its age learns it when it is handed to the broker.
    pub(crate) fn push(
        &self,
        subjects: Vec<Subject>,
        payload: Bytes,
        emitted_at: Option<Instant>,
        confirm: Option<Confirm>,
    ) -> Result<(), AdapterError> {
        if subjects.is_empty() {
            confirm.map(|confirm| confirm.send(Ok(())));
            return Ok(());
        }
        let entry = Entry { subjects, payload, emitted_at, confirm };
        let mut state = self.state.lock();
        // One message always fits into an empty queue.
        let full = state.items > 0
            && (state.items + entry.subjects.len() > self.max_items
                || state.bytes.saturating_add(entry.bytes()) > self.max_bytes);
        if !state.up || full {
            drop(state);
            self.counters.publish_refused.add(entry.subjects.len() as u64);
            return Err(AdapterError::BrokerUnavailable);
        }
        state.items += entry.subjects.len();
        state.bytes += entry.bytes();
        self.show(&state);
        state.queue.push_back(entry);
        drop(state);
        self.wake.notify_one();
        Ok(())
    }

    /// True if what can wait should.
    pub(crate) fn is_half_full(&self) -> bool {
        let state = self.state.lock();
        state.items > self.max_items / 2 || state.bytes > self.max_bytes / 2
    }

    fn take(&self) -> Vec<Entry> {
        let mut state = self.state.lock();
        let (mut batch, mut items, mut bytes) = (Vec::new(), 0, 0);
        while let Some(next) = state.queue.front() {
            items += next.subjects.len();
            bytes += next.bytes();
            if !batch.is_empty() && (items > BATCH_ITEMS || bytes > BATCH_BYTES) {
                break;
            }
            batch.extend(state.queue.pop_front());
        }
        if batch.is_empty() && state.queue.capacity() > BATCH_ITEMS {
            state.queue = VecDeque::new();
        }
        batch
    }

    /// Publishes what comes, batch after batch. Never ends.
    pub(crate) async fn run(&self, bus: Arc<dyn Bus>, travel: &Travel) {
        loop {
            let mut batch = self.take();
            if batch.is_empty() {
                self.idle.notify_waiters();
                self.wake.notified().await;
                continue;
            }
            tell_ages(&mut batch, travel.one_way());
            let publications = batch.iter().flat_map(|entry| {
                entry
                    .subjects
                    .iter()
                    .map(|subject| Publication { subject: subject.clone(), payload: entry.payload.clone() })
            });
            let result = bus.publish(publications.collect()).await;
            if let Err(error) = &result {
                tracing::warn!(code = error.code(), messages = batch.len(), "publishing failed");
            }
            self.settle(batch, result.is_ok());
        }
    }

    fn show(&self, state: &State) {
        self.counters.outbox_items.set(state.items as u64);
        self.counters.outbox_bytes.set(state.bytes as u64);
    }

    fn settle(&self, batch: Vec<Entry>, ok: bool) {
        let items: usize = batch.iter().map(|entry| entry.subjects.len()).sum();
        let bytes: usize = batch.iter().map(Entry::bytes).sum();
        {
            let mut state = self.state.lock();
            state.items -= items;
            state.bytes -= bytes;
            self.show(&state);
        }
        if ok {
            self.counters.published.add(items as u64);
            self.counters.published_bytes.add(bytes as u64);
        } else {
            self.counters.publish_failed.add(items as u64);
        }
        for confirm in batch.into_iter().filter_map(|entry| entry.confirm) {
            // Whoever waited may have given up.
            let _ = confirm.send(if ok { Ok(()) } else { Err(AdapterError::BrokerUnavailable) });
        }
    }

    /// Publications that are queued or in flight.
    #[cfg(feature = "simulation")]
    pub(crate) fn len(&self) -> usize {
        self.state.lock().items
    }

    /// Waits until nothing is queued or in flight.
    pub(crate) async fn drained(&self) {
        loop {
            let idle = self.idle.notified();
            if self.state.lock().items == 0 {
                return;
            }
            idle.await;
        }
    }
}

/// The ages of emits when the broker will have them.
fn tell_ages(batch: &mut [Entry], one_way: Duration) {
    let now = Instant::now();
    for entry in batch {
        if let Some(emitted_at) = entry.emitted_at {
            let age = now.saturating_duration_since(emitted_at) + one_way;
            entry.payload = wire::set_age(std::mem::take(&mut entry.payload), age);
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    fn outbox(items: usize, bytes: usize) -> Outbox {
        let outbox = Outbox::new(items, bytes, Arc::default());
        outbox.set_up(true);
        outbox
    }

    fn push(outbox: &Outbox, subjects: &[&str], len: usize) -> Result<(), AdapterError> {
        let subjects = subjects.iter().map(|subject| Subject::from(*subject)).collect();
        outbox.push(subjects, vec![0; len].into(), None, None)
    }

    #[test]
    fn bounded_in_items_and_in_bytes_until_the_broker_took_them() {
        for outbox in [outbox(3, 1_000), outbox(1_000, 3)] {
            assert_eq!(push(&outbox, &["a", "b"], 1), Ok(()));
            assert_eq!(push(&outbox, &["a", "b"], 1), Err(AdapterError::BrokerUnavailable));
            assert_eq!(push(&outbox, &["a"], 1), Ok(()));
            let batch = outbox.take();
            assert_eq!(push(&outbox, &["a"], 1), Err(AdapterError::BrokerUnavailable));
            outbox.settle(batch, true);
            assert_eq!(push(&outbox, &["a"], 1), Ok(()));
            assert_eq!(push(&outbox, &[], 1), Ok(()));
            assert_eq!(outbox.counters.publish_refused.get(), 3);
            assert_eq!(outbox.counters.published.get(), 3);
        }
    }

    #[test]
    fn what_waits_shows_and_grows_older() {
        let outbox = outbox(10, 1_000);
        let emitted_at = Instant::now().checked_sub(Duration::from_secs(2));
        outbox.push(vec!["a".into(), "b".into()], vec![0; 30].into(), emitted_at, None).unwrap();
        outbox.push(vec!["a".into()], vec![0; 30].into(), None, None).unwrap();
        let shown = || (outbox.counters.outbox_items.get(), outbox.counters.outbox_bytes.get());
        assert_eq!(shown(), (3, 90));
        let mut batch = outbox.take();
        tell_ages(&mut batch, Duration::from_secs(1));
        let age = u32::from_le_bytes(batch[0].payload[17..21].try_into().unwrap());
        assert!((3_000_000..60_000_000).contains(&age), "{age}");
        assert!(batch[0].payload[..17].iter().chain(&batch[1].payload).all(|byte| *byte == 0));
        outbox.settle(batch, true);
        assert_eq!(shown(), (0, 0));
    }

    #[test]
    fn one_message_fits_however_large() {
        assert_eq!(push(&outbox(1, 1), &["a", "b"], 1_000), Ok(()));
    }

    #[test]
    fn what_comes_while_the_broker_is_away_is_refused() {
        let outbox = outbox(10, 10);
        outbox.set_up(false);
        assert_eq!(push(&outbox, &["a"], 1), Err(AdapterError::BrokerUnavailable));
    }

    #[test]
    fn batches_are_bounded_and_keep_a_message_whole() {
        let outbox = outbox(1_000_000, usize::MAX);
        for _ in 0..BATCH_ITEMS / 2 + 1 {
            push(&outbox, &["a", "b"], 1).unwrap();
        }
        push(&outbox, &["a"], 2 * BATCH_BYTES).unwrap();
        let sizes: Vec<_> =
            std::iter::repeat_with(|| outbox.take().len()).take_while(|len| *len > 0).collect();
        assert_eq!(sizes, [BATCH_ITEMS / 2, 1, 1]);
    }

    #[test]
    fn a_confirmation_says_what_the_broker_said() {
        let outbox = outbox(10, 10);
        for (ok, expected) in [(true, Ok(())), (false, Err(AdapterError::BrokerUnavailable))] {
            let (confirm, confirmed) = oneshot::channel();
            outbox.push(vec!["a".into()], Bytes::new(), None, Some(confirm)).unwrap();
            outbox.settle(outbox.take(), ok);
            assert_eq!(confirmed.now_or_never(), Some(Ok(expected)));
        }
    }
}
