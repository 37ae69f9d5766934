//! Requests to the other nodes that wait for answers.
//!
//! Owns who has yet to answer. A request ends when everybody has, or has died; the deadline is whoever waits' own. What
//! did not come is named, and never hides what did.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;
use rustc_hash::FxHashMap;
use tokio::sync::oneshot;

use super::message::Answer;
use crate::id::NodeTag;

/// Answers of one node to one request. Each has up to what the broker takes in a message.
const MAX_PARTS: usize = 1_024;

/// What came of a request.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Outcome {
    pub(crate) answers: Vec<Answer>,
    pub(crate) missing: Vec<NodeTag>,
}

struct Pending {
    /// Who has yet to answer, and in how many parts it has so far.
    waiting: BTreeMap<NodeTag, usize>,
    outcome: Outcome,
    done: Option<oneshot::Sender<()>>,
}

impl Pending {
    fn finish_if_complete(&mut self) {
        if self.waiting.is_empty()
            && let Some(done) = self.done.take()
        {
            // Whoever waited may have given up.
            let _ = done.send(());
        }
    }
}

#[derive(Default)]
pub(crate) struct Requests {
    next: AtomicU64,
    pending: Mutex<FxHashMap<u64, Pending>>,
}

impl Requests {
    /// A new request id.
    pub(crate) fn next_id(&self) -> u64 {
        self.next.fetch_add(1, Ordering::Relaxed)
    }

    /// Begins to wait for nodes. The receiver is ready when all have answered or died.
    pub(crate) fn begin(&self, id: u64, nodes: impl IntoIterator<Item = NodeTag>) -> oneshot::Receiver<()> {
        let (done, receiver) = oneshot::channel();
        let mut pending = Pending {
            waiting: nodes.into_iter().map(|node| (node, 0)).collect(),
            outcome: Outcome::default(),
            done: Some(done),
        };
        pending.finish_if_complete();
        self.pending.lock().insert(id, pending);
        receiver
    }

    /// A node answered. With `last` it has no more to say. False when it says too much: then it is not waited for.
    pub(crate) fn answer(&self, id: u64, from: NodeTag, last: bool, answer: Answer) -> bool {
        let mut pending = self.pending.lock();
        let Some(request) = pending.get_mut(&id) else { return true };
        let Some(parts) = request.waiting.get_mut(&from) else { return true };
        *parts += 1;
        let too_much = *parts > MAX_PARTS;
        let answer = if too_much { Answer::Refused } else { answer };
        match answer {
            Answer::Refused => {
                request.waiting.remove(&from);
                request.outcome.missing.push(from);
            }
            Answer::Nothing => {}
            answer => request.outcome.answers.push(answer),
        }
        if last {
            request.waiting.remove(&from);
        }
        request.finish_if_complete();
        !too_much
    }

    /// A node died: nobody waits for it any more.
    pub(crate) fn node_lost(&self, node: NodeTag) {
        for request in self.pending.lock().values_mut() {
            if request.waiting.remove(&node).is_some() {
                request.outcome.missing.push(node);
                request.finish_if_complete();
            }
        }
    }

    /// Ends a request. Whoever has not answered is missing.
    pub(crate) fn finish(&self, id: u64) -> Outcome {
        let Some(Pending { waiting, mut outcome, .. }) = self.pending.lock().remove(&id) else {
            return Outcome::default();
        };
        outcome.missing.extend(waiting.into_keys());
        outcome.missing.sort_unstable();
        outcome
    }

    /// Requests that have not ended.
    #[cfg(feature = "simulation")]
    pub(crate) fn len(&self) -> usize {
        self.pending.lock().len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tag(text: &str) -> NodeTag {
        text.parse().unwrap()
    }

    #[test]
    fn a_request_ends_when_all_have_answered_or_died() {
        let requests = Requests::default();
        let mut done = requests.begin(7, [tag("aaaa"), tag("bbbb"), tag("cccc")]);
        requests.answer(7, tag("aaaa"), false, Answer::Count(1));
        requests.answer(7, tag("aaaa"), true, Answer::Count(2));
        requests.answer(7, tag("aaaa"), true, Answer::Count(99));
        requests.answer(7, tag("zzzz"), true, Answer::Count(99));
        requests.answer(8, tag("bbbb"), true, Answer::Count(99));
        requests.answer(7, tag("cccc"), true, Answer::Nothing);
        assert!(done.try_recv().is_err());
        requests.node_lost(tag("bbbb"));
        assert_eq!(done.try_recv(), Ok(()));
        let answers = vec![Answer::Count(1), Answer::Count(2)];
        assert_eq!(requests.finish(7), Outcome { answers, missing: vec![tag("bbbb")] });
        assert_eq!(requests.finish(7), Outcome::default());
    }

    #[test]
    fn a_node_that_never_ends_is_not_waited_for() {
        let requests = Requests::default();
        let mut done = requests.begin(1, [tag("aaaa")]);
        assert!((0..MAX_PARTS).all(|_| requests.answer(1, tag("aaaa"), false, Answer::Count(1))));
        assert!(done.try_recv().is_err());
        assert!(!requests.answer(1, tag("aaaa"), false, Answer::Count(1)));
        assert_eq!(done.try_recv(), Ok(()));
        let outcome = requests.finish(1);
        assert_eq!((outcome.answers.len(), outcome.missing), (MAX_PARTS, vec![tag("aaaa")]));
    }

    #[test]
    fn whoever_has_not_answered_is_missing() {
        let requests = Requests::default();
        let _done = requests.begin(1, [tag("bbbb"), tag("aaaa")]);
        requests.answer(1, tag("bbbb"), true, Answer::Refused);
        assert_eq!(requests.finish(1).missing, [tag("aaaa"), tag("bbbb")]);
        assert_eq!(requests.begin(2, []).try_recv(), Ok(()));
    }
}
