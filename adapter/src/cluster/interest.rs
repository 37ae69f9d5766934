//! What this node is subscribed to: a state machine without a clock or a broker.
//!
//! Owns the wish and the state of every subject. Wishes come from the room index under its locks, so nothing here waits
//! or calls out. One operation is in flight at a time: what comes meanwhile is in the next batch, and a subscription
//! never races the end of an earlier one.

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use indexmap::IndexMap;
use tokio::sync::oneshot;

use super::Subject;

/// Subjects in one operation.
const BATCH: usize = 1_024;

/// One operation for the bus.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Operation {
    pub(crate) subscribe: bool,
    pub(crate) subjects: Vec<Subject>,
    /// What was begun before the broker went away says nothing afterwards.
    epoch: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Not subscribed; waits in the queue if it is wanted.
    Idle,
    Subscribing,
    Standing,
    Unsubscribing,
}

#[derive(Debug)]
struct Entry {
    wanted: bool,
    state: State,
    /// When the wish ended.
    released_at: Option<Instant>,
    /// Is in `lingering`, once however often it was wanted and released.
    lingers: bool,
    /// Must stand before the node is ready again.
    resync: bool,
    waiting: Vec<u64>,
}

#[derive(Debug)]
struct Waiter {
    remaining: usize,
    done: oneshot::Sender<()>,
}

/// Whether subscriptions stand.
#[derive(Debug)]
pub(crate) enum Wait {
    Standing,
    /// The receiver is ready when they do, and fails when the broker goes away.
    Pending(oneshot::Receiver<()>),
    Down,
}

#[derive(Debug)]
pub(crate) struct Interest {
    /// In an order that does not depend on the hash: it is the one in which everything is subscribed again.
    entries: IndexMap<Subject, Entry>,
    queue: VecDeque<Subject>,
    /// When to look at a subject that was released.
    lingering: VecDeque<(Instant, Subject)>,
    linger: Duration,
    up: bool,
    epoch: u64,
    resync: usize,
    /// In the order in which they came, in which they are told that the broker is away.
    waiters: BTreeMap<u64, Waiter>,
    next: u64,
}

impl Interest {
    pub(crate) fn new(linger: Duration) -> Self {
        Self {
            entries: IndexMap::new(),
            queue: VecDeque::new(),
            lingering: VecDeque::new(),
            linger,
            up: false,
            epoch: 0,
            resync: 0,
            waiters: BTreeMap::new(),
            next: 0,
        }
    }

    fn next(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    /// The subject is wanted. True when there is something to do.
    pub(crate) fn want(&mut self, subject: &Subject) -> bool {
        if let Some(entry) = self.entries.get_mut(subject) {
            entry.wanted = true;
            return false;
        }
        // While the broker is away, everything has to stand before the node is ready.
        let resync = !self.up;
        self.resync += usize::from(resync);
        let entry = Entry {
            wanted: true,
            state: State::Idle,
            released_at: None,
            lingers: false,
            resync,
            waiting: Vec::new(),
        };
        self.entries.insert(subject.clone(), entry);
        self.queue.push_back(subject.clone());
        true
    }

    /// The subject is wanted no more. True when there is something to do, later.
    pub(crate) fn release(&mut self, subject: &str, now: Instant) -> bool {
        let Some(entry) = self.entries.get_mut(subject) else { return false };
        (entry.wanted, entry.released_at) = (false, Some(now));
        if entry.state != State::Standing || std::mem::replace(&mut entry.lingers, true) {
            return false;
        }
        self.lingering.push_back((now + self.linger, subject.into()));
        true
    }

    /// Waits until subscriptions stand. A subject that nobody wants any more is not waited for.
    pub(crate) fn wait(&mut self, subjects: &[Subject]) -> Wait {
        if !self.up {
            return Wait::Down;
        }
        let waiter = self.next();
        let mut remaining = 0;
        for subject in subjects {
            if let Some(entry) = self.entries.get_mut(subject)
                && entry.state != State::Standing
            {
                entry.waiting.push(waiter);
                remaining += 1;
            }
        }
        if remaining == 0 {
            return Wait::Standing;
        }
        let (done, receiver) = oneshot::channel();
        self.waiters.insert(waiter, Waiter { remaining, done });
        Wait::Pending(receiver)
    }

    /// The next operation. Its end must be told before another is asked for.
    pub(crate) fn next_operation(&mut self, now: Instant) -> Option<Operation> {
        if !self.up {
            return None;
        }
        let mut subjects = Vec::new();
        while subjects.len() < BATCH {
            let Some(subject) = self.queue.pop_front() else { break };
            let Some(entry) = self.entries.get_mut(&subject) else { continue };
            if entry.wanted {
                entry.state = State::Subscribing;
                subjects.push(subject);
            } else {
                self.forget(&subject);
            }
        }
        if !subjects.is_empty() {
            return Some(Operation { subscribe: true, subjects, epoch: self.epoch });
        }
        while subjects.len() < BATCH && self.next_timeout().is_some_and(|end| end <= now) {
            let Some((_, subject)) = self.lingering.pop_front() else { break };
            let Some(entry) = self.entries.get_mut(&subject) else { continue };
            entry.lingers = false;
            if entry.wanted || entry.state != State::Standing {
                continue;
            }
            match entry.released_at.map(|released_at| released_at + self.linger) {
                // It was wanted and released again meanwhile.
                Some(end) if end > now => {
                    entry.lingers = true;
                    self.lingering.push_back((end, subject));
                }
                _ => {
                    entry.state = State::Unsubscribing;
                    subjects.push(subject);
                }
            }
        }
        let operation = Operation { subscribe: false, subjects, epoch: self.epoch };
        (!operation.subjects.is_empty()).then_some(operation)
    }

    /// When to ask for the next operation, if nothing happens before.
    pub(crate) fn next_timeout(&self) -> Option<Instant> {
        self.lingering.front().map(|(end, _)| *end)
    }

    /// An operation ended. A subscription that failed is queued again.
    pub(crate) fn done(&mut self, operation: Operation, ok: bool, now: Instant) {
        if operation.epoch != self.epoch {
            return;
        }
        if !ok {
            // Whoever gave up waiting is forgotten, or they would pile up behind a broker that hangs.
            self.waiters.retain(|_, waiter| !waiter.done.is_closed());
        }
        for subject in operation.subjects {
            match (operation.subscribe, ok) {
                (true, true) => self.stands(subject, now),
                (true, false) => self.requeue(subject),
                // A subscription that did not end brings messages that reach nobody: harmless.
                (false, _) if self.entries.get(&subject).is_some_and(|entry| entry.wanted) => {
                    self.requeue(subject);
                }
                (false, _) => self.forget(&subject),
            }
        }
    }

    fn requeue(&mut self, subject: Subject) {
        if let Some(entry) = self.entries.get_mut(&subject) {
            entry.state = State::Idle;
            entry.waiting.retain(|id| self.waiters.contains_key(id));
            self.queue.push_back(subject);
        }
    }

    fn stands(&mut self, subject: Subject, now: Instant) {
        let Some(entry) = self.entries.get_mut(&subject) else { return };
        entry.state = State::Standing;
        self.resync -= usize::from(std::mem::take(&mut entry.resync));
        let waiting = std::mem::take(&mut entry.waiting);
        if !entry.wanted {
            entry.lingers = true;
            self.lingering.push_back((now + self.linger, subject));
        }
        self.settle(waiting);
    }

    fn forget(&mut self, subject: &str) {
        if let Some(entry) = self.entries.swap_remove(subject) {
            self.resync -= usize::from(entry.resync);
            self.settle(entry.waiting);
        }
    }

    fn settle(&mut self, waiting: Vec<u64>) {
        for id in waiting {
            let Some(waiter) = self.waiters.get_mut(&id) else { continue };
            waiter.remaining -= 1;
            if waiter.remaining == 0
                && let Some(waiter) = self.waiters.remove(&id)
            {
                // Whoever waited may have given up.
                let _ = waiter.done.send(());
            }
        }
    }

    /// The broker went away, and the subscriptions with it. Nobody waits for them any more.
    pub(crate) fn down(&mut self) {
        self.up = false;
        self.epoch += 1;
        self.waiters.clear();
        self.lingering.clear();
        self.entries.retain(|_, entry| entry.wanted);
        self.queue = self.entries.keys().cloned().collect();
        self.resync = self.entries.len();
        for entry in self.entries.values_mut() {
            (entry.state, entry.resync, entry.lingers) = (State::Idle, true, false);
            entry.waiting.clear();
        }
    }

    /// The broker is there.
    pub(crate) fn up(&mut self) {
        self.up = true;
    }

    /// True when the broker is there and everything stands that was wanted when it came.
    pub(crate) fn is_ready(&self) -> bool {
        self.up && self.resync == 0
    }

    /// The number of subjects that are wanted or still subscribed.
    #[cfg(any(test, feature = "simulation"))]
    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    /// The number of those who wait for subscriptions.
    #[cfg(feature = "simulation")]
    pub(crate) fn waiters(&self) -> usize {
        self.waiters.len()
    }
}

#[cfg(test)]
#[path = "interest_tests.rs"]
mod tests;
