//! What this node is subscribed to: a state machine without a clock or a broker.
//!
//! Owns the wish and the state of every subject. Wishes come from the room index under its locks, so nothing here waits
//! or calls out. One operation is in flight at a time: what comes meanwhile is in the next batch, and a subscription
//! never races the end of an earlier one.
//!
//! Under load operations keep their distance, so that joins and leaves of many sockets share one. The first one after a
//! pause begins at once.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::hash::RandomState;
use std::time::{Duration, Instant};

use indexmap::IndexMap;
use tokio::sync::oneshot;

use super::room_subjects::RoomSubjects;
use super::{Subject, subject};

/// Subjects in one operation.
const BATCH: usize = 1_024;
/// The least time between the beginnings of two operations that subscribe, unless the second one is a full batch.
const SUBSCRIBE_EVERY: Duration = Duration::from_millis(2);
/// The same for those that let go. Nobody waits for them.
const UNSUBSCRIBE_EVERY: Duration = Duration::from_millis(100);
/// What is this much larger than its contents gives memory back.
const SHRINK_AT: usize = 4;

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
    /// Wanted no more since an attempt failed, which may stand at the broker all the same: it has to be let go.
    Doubtful,
}

/// There is one for each room: whoever waits for it is elsewhere, because few do at a time.
#[derive(Debug)]
struct Entry {
    /// When the wish ended.
    released_at: Option<Instant>,
    wanted: bool,
    state: State,
    /// Is in `lingering`, once however often it was wanted and released.
    lingers: bool,
    /// Must stand before the node is ready again.
    resync: bool,
    /// Must stand before the node can go over to it.
    prepares: bool,
    /// An attempt was made that may have come to something.
    tried: bool,
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
    /// Subjects are made of the users' own names, hence a keyed hash; the order does not depend on it.
    entries: IndexMap<Subject, Entry, RandomState>,
    queue: VecDeque<Subject>,
    /// When to look at a subject that was released.
    lingering: VecDeque<(Instant, Subject)>,
    linger: Duration,
    subscribed_at: Option<Instant>,
    unsubscribed_at: Option<Instant>,
    up: bool,
    epoch: u64,
    resync: usize,
    preparing: usize,
    /// Entries of rooms, and of buckets of rooms.
    kinds: [usize; 2],
    /// Which subjects rooms need.
    pub(super) rooms: RoomSubjects,
    /// Waiters by subject.
    waiting: HashMap<Subject, Vec<u64>>,
    /// In the order in which they came, in which they are told that the broker is away.
    waiters: BTreeMap<u64, Waiter>,
    next: u64,
}

impl Interest {
    pub(crate) fn new(linger: Duration, buckets: u32) -> Self {
        Self {
            entries: IndexMap::default(),
            queue: VecDeque::new(),
            lingering: VecDeque::new(),
            linger,
            subscribed_at: None,
            unsubscribed_at: None,
            up: false,
            epoch: 0,
            resync: 0,
            preparing: 0,
            kinds: [0; 2],
            rooms: RoomSubjects::new(buckets),
            waiting: HashMap::new(),
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
            if entry.state != State::Doubtful {
                return false;
            }
            entry.state = State::Idle;
            self.queue.push_back(subject.clone());
            return self.queue.len() == 1;
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
            prepares: false,
            tried: false,
        };
        self.entries.insert(subject.clone(), entry);
        self.queue.push_back(subject.clone());
        self.count(subject, true);
        // Otherwise the task knows already that there is something.
        self.queue.len() == 1
    }

    /// The subject is wanted, and `is_prepared` waits for it.
    pub(crate) fn want_prepared(&mut self, subject: &Subject) {
        self.want(subject);
        if let Some(entry) = self.entries.get_mut(subject)
            && entry.state != State::Standing
            && !std::mem::replace(&mut entry.prepares, true)
        {
            self.preparing += 1;
        }
    }

    /// The subject is wanted no more. True when there is something to do, later.
    pub(crate) fn release(&mut self, subject: &str, now: Instant) -> bool {
        let Some((_, subject, entry)) = self.entries.get_full_mut(subject) else { return false };
        (entry.wanted, entry.released_at) = (false, Some(now));
        if entry.state != State::Standing || std::mem::replace(&mut entry.lingers, true) {
            return false;
        }
        self.lingering.push_back((now + self.linger, subject.clone()));
        self.lingering.len() == 1
    }

    /// Waits until subscriptions stand. A subject that nobody wants any more is not waited for.
    pub(crate) fn wait(&mut self, subjects: &[Subject]) -> Wait {
        if !self.up {
            return Wait::Down;
        }
        let waiter = self.next();
        let mut remaining = 0;
        for subject in subjects {
            if self.entries.get(subject).is_some_and(|entry| entry.state != State::Standing) {
                self.waiting.entry(subject.clone()).or_default().push(waiter);
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
        if self.subscribed_at.is_none_or(|at| at + SUBSCRIBE_EVERY <= now) || self.queue.len() >= BATCH {
            let subjects = self.take_wanted(now);
            if !subjects.is_empty() {
                self.subscribed_at = Some(now);
                return Some(Operation { subscribe: true, subjects, epoch: self.epoch });
            }
        }
        let due = |at: usize| self.lingering.get(at).is_some_and(|(end, _)| *end <= now);
        if self.unsubscribed_at.is_some_and(|at| at + UNSUBSCRIBE_EVERY > now) && !due(BATCH - 1) {
            return None;
        }
        let subjects = self.take_released(now);
        if subjects.is_empty() {
            return None;
        }
        self.unsubscribed_at = Some(now);
        Some(Operation { subscribe: false, subjects, epoch: self.epoch })
    }

    fn take_wanted(&mut self, now: Instant) -> Vec<Subject> {
        let mut subjects = Vec::new();
        while subjects.len() < BATCH {
            let Some(subject) = self.queue.pop_front() else { break };
            let Some(entry) = self.entries.get_mut(&subject) else { continue };
            if entry.wanted {
                (entry.state, entry.tried) = (State::Subscribing, true);
                subjects.push(subject);
            } else if entry.tried {
                self.doubt(subject, now);
            } else {
                self.forget(&subject);
            }
        }
        if self.queue.is_empty() && self.queue.capacity() > BATCH * SHRINK_AT {
            self.queue = VecDeque::new();
        }
        subjects
    }

    fn take_released(&mut self, now: Instant) -> Vec<Subject> {
        let mut subjects = Vec::new();
        while subjects.len() < BATCH && self.lingering.front().is_some_and(|(end, _)| *end <= now) {
            let Some((_, subject)) = self.lingering.pop_front() else { break };
            let Some(entry) = self.entries.get_mut(&subject) else { continue };
            entry.lingers = false;
            if entry.wanted || !matches!(entry.state, State::Standing | State::Doubtful) {
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
        if self.lingering.is_empty() && self.lingering.capacity() > BATCH * SHRINK_AT {
            self.lingering = VecDeque::new();
        }
        subjects
    }

    /// When to ask for the next operation, if nothing happens before.
    pub(crate) fn next_timeout(&self) -> Option<Instant> {
        if !self.up {
            return None;
        }
        let subscribe = self.queue.front().and(self.subscribed_at).map(|at| at + SUBSCRIBE_EVERY);
        let unsubscribe = self
            .lingering
            .front()
            .map(|(end, _)| self.unsubscribed_at.map_or(*end, |at| (at + UNSUBSCRIBE_EVERY).max(*end)));
        subscribe.into_iter().chain(unsubscribe).min()
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
            if let Some(waiting) = self.waiting.get_mut(&subject) {
                waiting.retain(|id| self.waiters.contains_key(id));
            }
            self.queue.push_back(subject);
        }
    }

    fn stands(&mut self, subject: Subject, now: Instant) {
        let Some(entry) = self.entries.get_mut(&subject) else { return };
        entry.state = State::Standing;
        self.resync -= usize::from(std::mem::take(&mut entry.resync));
        self.preparing -= usize::from(std::mem::take(&mut entry.prepares));
        let waiting = self.waiting.remove(&subject);
        if !entry.wanted {
            entry.lingers = true;
            self.lingering.push_back((now + self.linger, subject));
        }
        self.settle(waiting.unwrap_or_default());
    }

    fn doubt(&mut self, subject: Subject, now: Instant) {
        let Some(entry) = self.entries.get_mut(&subject) else { return };
        entry.state = State::Doubtful;
        self.resync -= usize::from(std::mem::take(&mut entry.resync));
        self.preparing -= usize::from(std::mem::take(&mut entry.prepares));
        let waiting = self.waiting.remove(&subject);
        if !std::mem::replace(&mut entry.lingers, true) {
            self.lingering.push_back((now, subject));
        }
        self.settle(waiting.unwrap_or_default());
    }

    fn forget(&mut self, subject: &str) {
        if let Some(entry) = self.entries.swap_remove(subject) {
            self.resync -= usize::from(entry.resync);
            self.preparing -= usize::from(entry.prepares);
            self.count(subject, false);
            let waiting = self.waiting.remove(subject);
            self.settle(waiting.unwrap_or_default());
            if self.entries.capacity() > BATCH && self.entries.len() * SHRINK_AT < self.entries.capacity() {
                self.entries.shrink_to(self.entries.len() * 2);
            }
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
        self.waiting.clear();
        self.lingering.clear();
        // Nothing is held back when it comes again.
        (self.subscribed_at, self.unsubscribed_at, self.preparing) = (None, None, 0);
        let released: Vec<_> = self.entries.extract_if(.., |_, entry| !entry.wanted).collect();
        released.iter().for_each(|(subject, _)| self.count(subject, false));
        self.queue = self.entries.keys().cloned().collect();
        self.resync = self.entries.len();
        for entry in self.entries.values_mut() {
            (entry.state, entry.resync) = (State::Idle, true);
            (entry.lingers, entry.prepares, entry.tried) = (false, false, false);
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

    /// True when everything stands that the node prepares to go over to.
    pub(crate) fn is_prepared(&self) -> bool {
        self.is_ready() && self.preparing == 0
    }

    fn count(&mut self, subject: &str, more: bool) {
        let Some(kind) = [subject::ROOM, subject::BUCKET].iter().position(|kind| subject.starts_with(kind))
        else {
            return;
        };
        self.kinds[kind] = if more { self.kinds[kind] + 1 } else { self.kinds[kind] - 1 };
    }

    /// Rooms that are wanted or still subscribed, and buckets of rooms.
    pub(crate) fn kinds(&self) -> [usize; 2] {
        self.kinds
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
