//! Calls that are carried out once, however often and on whatever node they are asked for.
//!
//! Owns the words, and the table of what was carried out lately. Who keeps which call in a cluster is told in
//! `cluster/once.rs`; what a call is, only its hashes say.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;

use crate::counters::Counters;
use crate::id::NodeTag;

/// How long a call is remembered.
pub const REMEMBERED: Duration = Duration::from_secs(300);
/// Longer answers are not kept: who asks again learns only that the call was carried out.
pub const MAX_ANSWER: usize = 64 * 1024;
/// Calls that a node remembers. The oldest are forgotten first, and counted.
const MAX_CALLS: usize = 65_536;
/// Bytes of their answers. Likewise.
const MAX_BYTES: usize = 64 * 1024 * 1024;

/// Names a call: hashes, so that nobody else can make two that are the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct OnceKey {
    /// Of who calls and of the key that they chose.
    pub call: [u8; 32],
    /// Of what is to be done.
    pub body: [u8; 16],
}

/// What is known of a call.
#[derive(Debug)]
pub enum Once {
    /// It is new. Whoever asked has to carry it out, and others wait for that.
    First(First),
    /// It was carried out, and this was the answer; nothing, if that was too long to be kept.
    Before(Option<Bytes>),
    /// Somebody carries it out now.
    Busy,
    /// The same key came with something else to do.
    Other,
}

/// What becomes of a call that is in hand. It is told at once; the future is ready when the broker has it.
type Settle = Box<dyn FnOnce(Option<Bytes>) -> BoxFuture<'static, ()> + Send + Sync>;

/// A call that is in hand. When this is dropped the call has failed: it counts as never asked for.
pub struct First(Option<Settle>);

impl First {
    pub(crate) fn new(
        settle: impl FnOnce(Option<Bytes>) -> BoxFuture<'static, ()> + Send + Sync + 'static,
    ) -> Self {
        Self(Some(Box::new(settle)))
    }

    /// The call was carried out. Ready when those who remember it have been told: whoever answers before may die with
    /// what only it knows.
    pub async fn done(mut self, answer: Bytes) {
        if let Some(settle) = self.0.take() {
            settle(Some(answer)).await;
        }
    }
}

impl Drop for First {
    fn drop(&mut self) {
        if let Some(settle) = self.0.take() {
            // Nobody waits for it to be heard.
            drop(settle(None));
        }
    }
}

impl fmt::Debug for First {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("First")
    }
}

/// Who carries a call out: a node, and a number of its own for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Claimant {
    pub(crate) node: NodeTag,
    pub(crate) number: u64,
}

/// How far a call is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Progress {
    InHand,
    Done(Option<Bytes>),
    Failed,
}

/// What one node tells another of a call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Record {
    pub(crate) key: OnceKey,
    pub(crate) claimant: Claimant,
    pub(crate) progress: Progress,
    /// How long it is to be remembered, in milliseconds.
    pub(crate) left: u64,
}

impl Record {
    /// What became of a call just now. An answer that is too long is left out.
    pub(crate) fn settled(key: OnceKey, claimant: Claimant, answer: Option<Bytes>) -> Self {
        let keep = |answer: Bytes| Some(answer).filter(|answer| answer.len() <= MAX_ANSWER);
        let progress = answer.map_or(Progress::Failed, |answer| Progress::Done(keep(answer)));
        Self { key, claimant, progress, left: remembered() }
    }

    /// About its length on the wire.
    pub(crate) fn size(&self) -> usize {
        80 + answer_len(&self.progress)
    }
}

/// What whoever keeps a call says to who wants to carry it out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Verdict {
    Granted,
    Before(Option<Bytes>),
    Busy,
    Other,
}

fn remembered() -> u64 {
    u64::try_from(REMEMBERED.as_millis()).unwrap_or(u64::MAX)
}

fn answer_len(progress: &Progress) -> usize {
    match progress {
        Progress::Done(Some(answer)) => answer.len(),
        Progress::Done(None) | Progress::InHand | Progress::Failed => 0,
    }
}

#[derive(Debug)]
struct Entry {
    body: [u8; 16],
    claimant: Claimant,
    progress: Progress,
    until: u64,
}

/// The calls that a node remembers. Ordered, so that it is the same in every run.
#[derive(Debug)]
pub(crate) struct Table {
    entries: BTreeMap<[u8; 32], Entry>,
    /// The same by the time of their forgetting.
    by_time: BTreeSet<(u64, [u8; 32])>,
    bytes: usize,
    counters: Arc<Counters>,
}

impl Table {
    pub(crate) fn new(counters: Arc<Counters>) -> Self {
        Self { entries: BTreeMap::new(), by_time: BTreeSet::new(), bytes: 0, counters }
    }

    /// Somebody wants to carry a call out. One whose node is gone has left it undone, as far as anybody knows.
    pub(crate) fn claim(
        &mut self,
        key: OnceKey,
        claimant: Claimant,
        is_live: impl Fn(NodeTag) -> bool,
        now: u64,
    ) -> Verdict {
        self.forget(now);
        if let Some(entry) = self.entries.get(&key.call) {
            let abandoned = entry.progress == Progress::InHand && !is_live(entry.claimant.node);
            match &entry.progress {
                _ if abandoned => {}
                _ if entry.body != key.body => return Verdict::Other,
                Progress::Done(answer) => {
                    self.counters.once_repeated.add(1);
                    return Verdict::Before(answer.clone());
                }
                Progress::InHand | Progress::Failed if entry.claimant == claimant => return Verdict::Granted,
                Progress::InHand | Progress::Failed => return Verdict::Busy,
            }
        }
        self.put(key, claimant, Progress::InHand, now.saturating_add(remembered()));
        Verdict::Granted
    }

    /// Takes what another node, or this one, says of a call.
    pub(crate) fn take(&mut self, record: Record, now: u64) {
        self.forget(now);
        let Record { key, claimant, progress, left } = record;
        let known = self.entries.get(&key.call).map(|entry| (&entry.progress, entry.claimant));
        match (&progress, known) {
            // The first to be done was.
            (_, Some((Progress::Done(_), _))) | (Progress::InHand, Some(_)) | (Progress::Failed, None) => {
                return;
            }
            (Progress::Failed, Some((_, of))) if of != claimant => return,
            (Progress::Failed, Some(_)) => return self.remove(&key.call),
            (Progress::InHand, None) | (Progress::Done(_), _) => {}
        }
        if answer_len(&progress) <= MAX_ANSWER {
            self.put(key, claimant, progress, now.saturating_add(left.min(remembered())));
        }
    }

    /// What is known of every call.
    pub(crate) fn records(&self, now: u64) -> impl Iterator<Item = Record> + '_ {
        self.entries.iter().map(move |(call, entry)| Record {
            key: OnceKey { call: *call, body: entry.body },
            claimant: entry.claimant,
            progress: entry.progress.clone(),
            left: entry.until.saturating_sub(now),
        })
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    fn put(&mut self, key: OnceKey, claimant: Claimant, progress: Progress, until: u64) {
        self.remove(&key.call);
        self.bytes += answer_len(&progress);
        self.by_time.insert((until, key.call));
        self.entries.insert(key.call, Entry { body: key.body, claimant, progress, until });
        while self.entries.len() > MAX_CALLS || self.bytes > MAX_BYTES {
            let Some((_, oldest)) = self.by_time.first().copied() else { break };
            self.remove(&oldest);
            self.counters.once_evicted.add(1);
        }
        self.counters.once_kept.set(self.entries.len() as u64);
    }

    fn remove(&mut self, call: &[u8; 32]) {
        if let Some(entry) = self.entries.remove(call) {
            self.by_time.remove(&(entry.until, *call));
            self.bytes -= answer_len(&entry.progress);
        }
        self.counters.once_kept.set(self.entries.len() as u64);
    }

    fn forget(&mut self, now: u64) {
        while let Some((_, oldest)) = self.by_time.first().copied().filter(|(until, _)| *until <= now) {
            self.remove(&oldest);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(call: u8, body: u8) -> OnceKey {
        OnceKey { call: [call; 32], body: [body; 16] }
    }

    fn of(node: &str, number: u64) -> Claimant {
        Claimant { node: node.parse().unwrap(), number }
    }

    fn table() -> Table {
        Table::new(Arc::default())
    }

    fn done(call: u8, answer: &'static [u8]) -> Record {
        Record::settled(key(call, 1), of("aaaa", 1), Some(Bytes::from_static(answer)))
    }

    #[test]
    fn the_first_carries_it_out_and_others_get_its_answer() {
        let (mut table, live) = (table(), |_| true);
        assert_eq!(table.claim(key(1, 1), of("aaaa", 1), live, 0), Verdict::Granted);
        assert_eq!(
            table.claim(key(1, 1), of("aaaa", 1), live, 0),
            Verdict::Granted,
            "a copy of the question"
        );
        assert_eq!(table.claim(key(1, 1), of("aaaa", 2), live, 0), Verdict::Busy);
        assert_eq!(table.claim(key(1, 2), of("bbbb", 1), live, 0), Verdict::Other);
        table.take(done(1, b"x"), 10);
        assert_eq!(table.claim(key(1, 1), of("bbbb", 1), live, 10), Verdict::Before(Some("x".into())));
        assert_eq!(table.claim(key(1, 2), of("bbbb", 1), live, 10), Verdict::Other);
        let forgotten = 10 + remembered();
        assert_eq!(table.claim(key(1, 2), of("bbbb", 1), live, forgotten - 1), Verdict::Other);
        assert_eq!(table.claim(key(1, 2), of("bbbb", 1), live, forgotten), Verdict::Granted);
    }

    #[test]
    fn what_failed_or_was_left_behind_is_carried_out_by_the_next() {
        let mut table = table();
        assert_eq!(table.claim(key(1, 1), of("aaaa", 1), |_| true, 0), Verdict::Granted);
        table.take(Record::settled(key(1, 1), of("bbbb", 9), None), 0);
        assert_eq!(table.claim(key(1, 1), of("bbbb", 1), |_| true, 0), Verdict::Busy, "not theirs to let go");
        table.take(Record::settled(key(1, 1), of("aaaa", 1), None), 0);
        assert_eq!(table.claim(key(1, 1), of("bbbb", 1), |_| true, 0), Verdict::Granted);
        assert_eq!(
            table.claim(key(1, 1), of("cccc", 1), |node| node != of("bbbb", 0).node, 0),
            Verdict::Granted
        );
        // It was not dead after all: the first answer that comes is the answer.
        table.take(Record { claimant: of("bbbb", 1), ..done(1, b"b") }, 0);
        table.take(Record { claimant: of("cccc", 1), ..done(1, b"c") }, 0);
        assert_eq!(table.claim(key(1, 1), of("dddd", 1), |_| true, 0), Verdict::Before(Some("b".into())));
    }

    #[test]
    fn answers_and_calls_are_bounded() {
        let mut table = table();
        let long = Bytes::from(vec![0; MAX_ANSWER + 1]);
        table.take(Record::settled(key(1, 1), of("aaaa", 1), Some(long.clone())), 0);
        assert_eq!(table.claim(key(1, 1), of("aaaa", 2), |_| true, 0), Verdict::Before(None));
        let lie = Record { progress: Progress::Done(Some(long)), ..done(2, b"") };
        table.take(lie, 0);
        assert_eq!(table.claim(key(2, 1), of("aaaa", 2), |_| true, 0), Verdict::Granted);

        for number in 0..MAX_CALLS as u64 + 10 {
            let mut call = [0; 32];
            call[..8].copy_from_slice(&number.to_le_bytes());
            let key = OnceKey { call, body: [0; 16] };
            assert_eq!(table.claim(key, of("aaaa", number), |_| true, number), Verdict::Granted);
        }
        assert_eq!((table.entries.len(), table.by_time.len()), (MAX_CALLS, MAX_CALLS));
        assert_eq!(table.counters.once_evicted.get(), 12);
        assert_eq!(table.bytes, 0);
    }
}
