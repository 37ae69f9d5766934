//! Events that could not be delivered. Owns the bounded lists of them; sends nothing.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, OnceLock, Weak};
use std::time::SystemTime;

use parking_lot::Mutex;

use super::CloudEvent;
use super::backends::Backends;
use crate::metrics::{BackendDrop, Metrics};

/// How many letters of a backend are kept, and how many bytes of them, unless its configuration says otherwise.
const DEFAULT_LIMITS: (usize, usize) = (1_000, 16 << 20);

/// Why an event was not delivered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reason {
    /// It was tried for as long as events are.
    Exhausted,
    /// The backend answered 410: it wants no more.
    Gone,
    /// Too much waited for the backend.
    Overloaded,
}

impl Reason {
    /// The name in answers.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Exhausted => "exhausted",
            Self::Gone => "gone",
            Self::Overloaded => "overloaded",
        }
    }
}

/// An event that could not be delivered.
#[derive(Debug, Clone)]
pub(crate) struct DeadLetter {
    pub(crate) backend: Arc<str>,
    pub(crate) event: CloudEvent,
    pub(crate) reason: Reason,
    pub(crate) attempts: u32,
    pub(crate) at: SystemTime,
}

impl DeadLetter {
    pub(crate) fn new(backend: &str, event: CloudEvent, reason: Reason, attempts: u32) -> Self {
        Self { backend: backend.into(), event, reason, attempts, at: SystemTime::now() }
    }
}

#[derive(Default)]
struct Letters {
    letters: VecDeque<DeadLetter>,
    /// Letters and bytes.
    limits: Option<(usize, usize)>,
}

impl Letters {
    /// Linear, as the list is short and nothing here is hot.
    fn bytes(&self) -> usize {
        self.letters.iter().map(|letter| letter.event.json.len()).sum()
    }
}

/// The dead letters of a node, by backend, in memory.
pub struct DeadLetters {
    by_backend: Mutex<BTreeMap<Arc<str>, Letters>>,
    metrics: Arc<Metrics>,
    /// Where letters go again. They are made before the backends.
    backends: OnceLock<Weak<Backends>>,
}

impl std::fmt::Debug for DeadLetters {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("DeadLetters").finish_non_exhaustive()
    }
}

impl DeadLetters {
    pub(crate) fn new(metrics: &Arc<Metrics>) -> Arc<Self> {
        Arc::new(Self {
            by_backend: Mutex::default(),
            metrics: Arc::clone(metrics),
            backends: OnceLock::new(),
        })
    }

    pub(super) fn set_limits(&self, backend: &str, items: usize, bytes: usize) {
        let mut all = self.by_backend.lock();
        let letters = all.entry(backend.into()).or_default();
        letters.limits = Some((items, bytes));
        self.trim(backend, letters);
    }

    /// Keeps a letter; the oldest of its backend goes when there are too many.
    pub(crate) fn add(&self, letter: DeadLetter) {
        let mut all = self.by_backend.lock();
        let backend = Arc::clone(&letter.backend);
        self.metrics.backends.dead_letter(&backend, letter.reason.as_str());
        let letters = all.entry(Arc::clone(&backend)).or_default();
        letters.letters.push_back(letter);
        self.trim(&backend, letters);
    }

    fn trim(&self, backend: &str, letters: &mut Letters) {
        let (max_items, max_bytes) = letters.limits.unwrap_or(DEFAULT_LIMITS);
        let mut bytes = letters.bytes();
        while letters.letters.len() > max_items || bytes > max_bytes {
            let Some(oldest) = letters.letters.pop_front() else { break };
            bytes -= oldest.event.json.len();
            self.metrics.backends.dropped(backend, BackendDrop::DeadLetters, 1);
        }
        self.metrics.backends.dead_letters(backend, letters.letters.len());
    }

    /// The letters of one backend or of all, the oldest of each first, without the first `skip`.
    pub(crate) fn list(&self, backend: Option<&str>, skip: usize, limit: usize) -> (Vec<DeadLetter>, usize) {
        let all = self.by_backend.lock();
        let of = |name: &Arc<str>| backend.is_none_or(|backend| backend == &**name);
        let chosen = || all.iter().filter(|(name, _)| of(name)).flat_map(|(_, one)| &one.letters);
        (chosen().skip(skip).take(limit).cloned().collect(), chosen().count())
    }

    /// Sends letters again: those of a backend or of all, with one of these ids or with any. The ids of those that their
    /// backends took, and how many were not taken and stay.
    pub(crate) fn replay(&self, backend: Option<&str>, ids: Option<&[String]>) -> (Vec<Arc<str>>, usize) {
        let Some(backends) = self.backends.get().and_then(Weak::upgrade) else { return (Vec::new(), 0) };
        let (mut taken, mut kept) = (Vec::new(), 0);
        for letter in self.take(backend, ids) {
            let notified = backends.get(&letter.backend).map(|backend| backend.notify(letter.event.clone()));
            if matches!(notified, Some(Ok(()))) {
                taken.push(letter.event.id);
            } else {
                kept += 1;
                self.put_back(letter);
            }
        }
        (taken, kept)
    }

    pub(super) fn set_backends(&self, backends: &Arc<Backends>) {
        let _ = self.backends.set(Arc::downgrade(backends));
    }

    fn put_back(&self, letter: DeadLetter) {
        let mut all = self.by_backend.lock();
        let backend = Arc::clone(&letter.backend);
        let letters = all.entry(Arc::clone(&backend)).or_default();
        letters.letters.push_back(letter);
        self.trim(&backend, letters);
    }

    /// Takes letters out: those of a backend or of all, with one of these ids or with any.
    fn take(&self, backend: Option<&str>, ids: Option<&[String]>) -> Vec<DeadLetter> {
        let mut all = self.by_backend.lock();
        let mut taken = Vec::new();
        for (name, letters) in all.iter_mut() {
            if backend.is_some_and(|backend| backend != &**name) {
                continue;
            }
            let is_meant =
                |letter: &DeadLetter| ids.is_none_or(|ids| ids.iter().any(|id| **id == *letter.event.id));
            let (out, kept) = std::mem::take(&mut letters.letters).into_iter().partition(is_meant);
            letters.letters = kept;
            taken.extend::<VecDeque<_>>(out);
            self.trim(name, letters);
        }
        taken
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn letter(backend: &str, id: &str) -> DeadLetter {
        DeadLetter::new(backend, CloudEvent::for_test("socket/a", id), Reason::Exhausted, 6)
    }

    fn ids(letters: &[DeadLetter]) -> Vec<&str> {
        letters.iter().map(|letter| &*letter.event.id).collect()
    }

    #[test]
    fn letters_are_kept_by_backend_and_the_oldest_go_first() {
        let letters = DeadLetters::new(&Arc::new(Metrics::new()));
        letters.set_limits("a", 2, 1 << 20);
        for id in ["1", "2", "3"] {
            letters.add(letter("a", id));
        }
        letters.add(letter("b", "4"));
        let (all, total) = letters.list(None, 0, 10);
        assert_eq!((ids(&all), total), (vec!["2", "3", "4"], 3));
        let (page, total) = letters.list(None, 1, 1);
        assert_eq!((ids(&page), total), (vec!["3"], 3));
        assert_eq!(letters.list(Some("b"), 0, 10).1, 1);
        letters.set_limits("b", 2, 1);
        assert_eq!(letters.list(Some("b"), 0, 10).1, 0, "bytes are bounded too");
        let some = letters.take(None, Some(&["3".to_owned(), "9".to_owned()]));
        assert_eq!(ids(&some), ["3"]);
        assert_eq!(ids(&letters.take(Some("a"), None)), ["2"]);
        assert_eq!(letters.list(None, 0, 10).1, 0);
    }
}
