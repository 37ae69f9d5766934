//! What waits for one backend: calls that clients wait for, and deliveries in the background.
//!
//! A state machine without a clock, I/O or randomness. Owns the order of each subject (one thing of a socket or a room is
//! on its way at a time), batches, the bounds, and what is tried again. Subjects do not wait for each other.
//!
//! A call waits for what its subject has on its way, but not for a delivery that failed and is tried again later: a
//! client must not wait for minutes because an earlier notice was not taken.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::Instant;

use crate::backend::events::{BackendError, CloudEvent, Reply};

/// Bytes of events in one delivery, unless a single one is longer.
const MAX_BATCH_BYTES: usize = 256 * 1024;
/// What an event costs beside its text, about.
const OVERHEAD: usize = 256;

/// Where the reply to a call goes.
pub(super) type Answer = oneshot::Sender<Result<Reply, BackendError>>;

/// How much may wait, and how events are put together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Limits {
    pub(super) items: usize,
    pub(super) bytes: usize,
    pub(super) batch_items: usize,
    pub(super) batch_delay: Duration,
    /// Requests at once.
    pub(super) concurrency: usize,
}

impl Limits {
    /// Deliveries at once: calls always have a place.
    fn deliveries(&self) -> usize {
        (self.concurrency / 2).max(1)
    }
}

/// Why something was not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Full {
    Items,
    Bytes,
}

enum Item {
    Call(Call),
    Notice(CloudEvent),
}

impl Item {
    fn event(&self) -> &CloudEvent {
        match self {
            Self::Call(call) => &call.event,
            Self::Notice(event) => event,
        }
    }

    fn is_call(&self) -> bool {
        matches!(self, Self::Call(_))
    }
}

/// A question, until when somebody waits for the reply, and where it goes.
pub(super) struct Call {
    pub(super) event: CloudEvent,
    pub(super) answer: Answer,
    pub(super) deadline: Instant,
}

/// Events that are delivered together, in order.
#[derive(Debug, Clone)]
pub(super) struct Batch {
    pub(super) events: Vec<CloudEvent>,
    /// The same for every attempt.
    pub(super) message: Arc<str>,
    /// Attempts that were made.
    pub(super) attempts: u32,
    /// When the first was made.
    pub(super) began: Instant,
}

/// Something to send.
pub(super) enum Sending {
    Call(Call),
    Batch(Batch),
}

/// Where a subject stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Place {
    /// Nowhere: nothing waits, or something is on its way.
    #[default]
    Out,
    /// Its next item is a call.
    Calls,
    /// Its next item is a notice, and a call waits behind it.
    Urgent,
    /// Its next item is a notice, which waits for company since then.
    Notices(Instant),
}

#[derive(Default)]
struct Subject {
    waiting: VecDeque<Item>,
    place: Place,
    /// Something of it is on its way.
    is_busy: bool,
    /// A delivery of it failed: its notices wait until that is over, its calls do not.
    is_retrying: bool,
}

type Name = Arc<str>;

pub(super) struct Queue {
    limits: Limits,
    subjects: HashMap<Name, Subject>,
    calls: VecDeque<Name>,
    urgent: VecDeque<Name>,
    /// In the order of time. A subject that has gone elsewhere meanwhile stands here for nothing.
    notices: VecDeque<(Instant, Name)>,
    /// Notices that wait for company. With enough of them there is no need to wait.
    gathered: usize,
    /// Deliveries that failed, by when they are tried again.
    retries: BTreeMap<(Instant, u64), Batch>,
    retry_number: u64,
    calls_out: usize,
    batches_out: usize,
    items: usize,
    bytes: usize,
    /// No delivery before, because the backend said so.
    paused_until: Option<Instant>,
    /// Nothing waits for company any more.
    is_draining: bool,
}

impl Queue {
    pub(super) fn new(limits: Limits) -> Self {
        Self {
            limits,
            subjects: HashMap::new(),
            calls: VecDeque::new(),
            urgent: VecDeque::new(),
            notices: VecDeque::new(),
            gathered: 0,
            retries: BTreeMap::new(),
            retry_number: 0,
            calls_out: 0,
            batches_out: 0,
            items: 0,
            bytes: 0,
            paused_until: None,
            is_draining: false,
        }
    }

    pub(super) fn set_limits(&mut self, limits: Limits) {
        self.limits = limits;
    }

    /// Items and bytes that wait or are on their way.
    pub(super) fn load(&self) -> (usize, usize) {
        (self.items, self.bytes)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.items == 0
    }

    /// From now on nothing waits for company, and what failed is tried once more at once.
    pub(super) fn drain(&mut self, now: Instant) {
        self.is_draining = true;
        let retries = std::mem::take(&mut self.retries);
        self.retries = retries.into_iter().map(|((_, number), batch)| ((now, number), batch)).collect();
    }

    /// No delivery for a while, as the backend asked.
    pub(super) fn pause(&mut self, until: Instant) {
        self.paused_until = self.paused_until.max(Some(until));
    }

    /// A client asks.
    pub(super) fn call(&mut self, call: Call, now: Instant) -> Result<(), Full> {
        self.room_for(&call.event)?;
        self.push(Item::Call(call), now);
        Ok(())
    }

    /// Something is to be told.
    pub(super) fn notice(&mut self, event: CloudEvent, now: Instant) -> Result<(), Full> {
        self.room_for(&event)?;
        self.push(Item::Notice(event), now);
        Ok(())
    }

    fn room_for(&self, event: &CloudEvent) -> Result<(), Full> {
        if self.items >= self.limits.items {
            return Err(Full::Items);
        }
        // A single event is always taken, however long it is.
        if self.bytes > 0 && self.bytes + cost(event) > self.limits.bytes {
            return Err(Full::Bytes);
        }
        Ok(())
    }

    fn push(&mut self, item: Item, now: Instant) {
        self.items += 1;
        self.bytes += cost(item.event());
        let name = Arc::clone(&item.event().subject);
        let is_call = item.is_call();
        let subject = self.subjects.entry(Arc::clone(&name)).or_default();
        subject.waiting.push_back(item);
        match subject.place {
            Place::Notices(_) if is_call => {
                subject.place = Place::Urgent;
                self.gathered -= notices_ahead(subject);
                self.urgent.push_back(name);
            }
            Place::Notices(_) => self.gathered += 1,
            Place::Calls | Place::Urgent => {}
            Place::Out => self.list(&name, now),
        }
    }

    /// Puts a subject where it is served, if it can be.
    fn list(&mut self, name: &Name, now: Instant) {
        let Some(subject) = self.subjects.get_mut(name) else { return };
        if subject.is_busy {
            return;
        }
        if subject.is_retrying && subject.waiting.front().is_some_and(|item| !item.is_call()) {
            // A call overtakes what is delivered later.
            let call = subject.waiting.iter().position(Item::is_call);
            let Some(call) = call.and_then(|at| subject.waiting.remove(at)) else { return };
            subject.waiting.push_front(call);
        }
        subject.place = match subject.waiting.front() {
            Some(Item::Call(_)) => {
                self.calls.push_back(Arc::clone(name));
                Place::Calls
            }
            Some(Item::Notice(_)) if subject.waiting.iter().any(Item::is_call) => {
                self.urgent.push_back(Arc::clone(name));
                Place::Urgent
            }
            Some(Item::Notice(_)) => {
                self.gathered += subject.waiting.len();
                self.notices.push_back((now, Arc::clone(name)));
                Place::Notices(now)
            }
            None => {
                if !subject.is_retrying {
                    self.subjects.remove(name);
                }
                return;
            }
        };
    }

    /// What can be sent now. `message` makes the id of a new delivery.
    pub(super) fn next(&mut self, now: Instant, message: impl FnOnce() -> String) -> Option<Sending> {
        if self.calls_out + self.batches_out >= self.limits.concurrency {
            return None;
        }
        if let Some(call) = self.next_call(now) {
            self.calls_out += 1;
            return Some(Sending::Call(call));
        }
        if !self.may_deliver(now) {
            return None;
        }
        self.paused_until = None;
        let due = self.retries.first_entry().filter(|entry| entry.key().0 <= now);
        let batch = match due {
            Some(entry) => entry.remove(),
            None => self.gather(now, message)?,
        };
        self.batches_out += 1;
        Some(Sending::Batch(batch))
    }

    fn may_deliver(&self, now: Instant) -> bool {
        self.batches_out < self.limits.deliveries() && self.paused_until.is_none_or(|until| until <= now)
    }

    fn next_call(&mut self, now: Instant) -> Option<Call> {
        while let Some(name) = self.calls.pop_front() {
            let Some(subject) = self.subjects.get_mut(&name) else { continue };
            subject.place = Place::Out;
            match subject.waiting.pop_front() {
                Some(Item::Call(call)) if !call.answer.is_closed() => {
                    subject.is_busy = true;
                    return Some(call);
                }
                // Nobody waits for it any more.
                Some(Item::Call(call)) => self.forget(&call.event),
                Some(notice @ Item::Notice(_)) => subject.waiting.push_front(notice),
                None => {}
            }
            self.list(&name, now);
        }
        None
    }

    /// Takes all calls that could be sent now, when nothing is.
    pub(super) fn fail_calls(&mut self, now: Instant) -> Vec<Call> {
        let mut failed = Vec::new();
        while let Some(call) = self.next_call(now) {
            self.forget(&call.event);
            let name = Arc::clone(&call.event.subject);
            failed.push(call);
            self.free(&name, now);
        }
        failed
    }

    /// Puts a new delivery together, if there is reason for one.
    fn gather(&mut self, now: Instant, message: impl FnOnce() -> String) -> Option<Batch> {
        let is_due = !self.urgent.is_empty()
            || self.is_draining
            || self.gathered >= self.limits.batch_items
            || self.first_notice().is_some_and(|since| since + self.limits.batch_delay <= now);
        if !is_due {
            return None;
        }
        let (mut events, mut bytes) = (Vec::new(), 0);
        while events.len() < self.limits.batch_items && bytes < MAX_BATCH_BYTES {
            let Some(name) = self.next_subject() else { break };
            let Some(subject) = self.subjects.get_mut(&name) else { continue };
            if matches!(subject.place, Place::Notices(_)) {
                self.gathered -= notices_ahead(subject);
            }
            subject.place = Place::Out;
            subject.is_busy = true;
            while events.len() < self.limits.batch_items && bytes < MAX_BATCH_BYTES {
                match subject.waiting.pop_front() {
                    Some(Item::Notice(event)) => {
                        bytes += event.json.len();
                        events.push(event);
                    }
                    Some(call) => {
                        subject.waiting.push_front(call);
                        break;
                    }
                    None => break,
                }
            }
        }
        (!events.is_empty()).then(|| Batch { events, message: message().into(), attempts: 0, began: now })
    }

    /// Since when the first notice waits for company.
    fn first_notice(&mut self) -> Option<Instant> {
        while let Some((since, name)) = self.notices.front() {
            let place = self.subjects.get(name).map(|subject| subject.place);
            if place == Some(Place::Notices(*since)) {
                return Some(*since);
            }
            self.notices.pop_front();
        }
        None
    }

    fn next_subject(&mut self) -> Option<Name> {
        while let Some(name) = self.urgent.pop_front() {
            if self.subjects.get(&name).is_some_and(|subject| subject.place == Place::Urgent) {
                return Some(name);
            }
        }
        self.first_notice()?;
        self.notices.pop_front().map(|(_, name)| name)
    }

    /// A call has its answer.
    pub(super) fn call_done(&mut self, event: &CloudEvent, now: Instant) {
        self.calls_out -= 1;
        self.forget(event);
        self.free(&event.subject, now);
    }

    /// A delivery was taken, or is given up.
    pub(super) fn batch_done(&mut self, batch: &Batch, now: Instant) {
        self.batches_out -= 1;
        batch.events.iter().for_each(|event| self.forget(event));
        for event in &batch.events {
            if let Some(subject) = self.subjects.get_mut(&event.subject) {
                subject.is_retrying = false;
            }
            // After the first attempt it is not what is on its way.
            if batch.attempts == 0 {
                self.free(&event.subject, now);
            } else {
                self.relist(&event.subject, now);
            }
        }
    }

    /// A delivery failed, and is tried again.
    pub(super) fn retry(&mut self, batch: Batch, at: Instant, now: Instant) {
        self.batches_out -= 1;
        let is_first = batch.attempts == 0;
        for event in &batch.events {
            if let Some(subject) = self.subjects.get_mut(&event.subject) {
                subject.is_retrying = true;
            }
            if is_first {
                self.free(&event.subject, now);
            }
        }
        self.retry_number += 1;
        self.retries.insert((at, self.retry_number), Batch { attempts: batch.attempts + 1, ..batch });
    }

    fn free(&mut self, name: &Name, now: Instant) {
        if let Some(subject) = self.subjects.get_mut(name) {
            subject.is_busy = false;
        }
        self.relist(name, now);
    }

    fn relist(&mut self, name: &Name, now: Instant) {
        if self.subjects.get(name).is_some_and(|subject| subject.place == Place::Out) {
            self.list(name, now);
        }
    }

    fn forget(&mut self, event: &CloudEvent) {
        self.items -= 1;
        self.bytes -= cost(event);
    }

    /// When something may be sent that may not now. `None` also when everything waits for an answer.
    pub(super) fn deadline(&mut self) -> Option<Instant> {
        if self.batches_out >= self.limits.deliveries() {
            return None;
        }
        let gathered = self.first_notice().map(|since| since + self.limits.batch_delay);
        let retry = self.retries.first_key_value().map(|((at, _), _)| *at);
        // Without a pause these would be on their way.
        let urgent = self.paused_until.filter(|_| !self.urgent.is_empty());
        let next = [gathered, retry, urgent].into_iter().flatten().min()?;
        Some(self.paused_until.map_or(next, |until| until.max(next)))
    }

    /// Takes everything out that is not on its way and that nobody waits for, with the attempts that were made.
    pub(super) fn take_notices(&mut self) -> Vec<(CloudEvent, u32)> {
        let mut taken = Vec::new();
        for (_, batch) in std::mem::take(&mut self.retries) {
            let attempts = batch.attempts;
            taken.extend(batch.events.into_iter().map(|event| (event, attempts)));
        }
        let mut idle = Vec::new();
        for (name, subject) in &mut self.subjects {
            let (calls, notices): (VecDeque<_>, _) =
                std::mem::take(&mut subject.waiting).into_iter().partition(Item::is_call);
            subject.waiting = calls;
            taken.extend::<VecDeque<_>>(
                notices.into_iter().map(|item: Item| (item.event().clone(), 0)).collect(),
            );
            subject.is_retrying = false;
            if matches!(subject.place, Place::Notices(_) | Place::Urgent) {
                subject.place = Place::Out;
            }
            idle.push(Arc::clone(name));
        }
        (self.gathered, self.notices, self.urgent) = (0, VecDeque::new(), VecDeque::new());
        taken.iter().for_each(|(event, _)| self.forget(event));
        let now = Instant::now();
        idle.iter().for_each(|name| self.relist(name, now));
        taken
    }
}

/// The notices that go out before the next call.
fn notices_ahead(subject: &Subject) -> usize {
    subject.waiting.iter().take_while(|item| !item.is_call()).count()
}

fn cost(event: &CloudEvent) -> usize {
    event.json.len() + OVERHEAD
}

#[cfg(test)]
#[path = "queue_tests.rs"]
mod tests;
