//! Calls that are carried out once in the whole cluster.
//!
//! Owns who keeps a call: the two live nodes that score highest for its key. Whoever wants to carry it out asks both, the
//! higher one first, and goes ahead when one of them agrees and none of them knows it. So a call is known as long as one
//! of the two lives, and when the members change, what is known goes to those who keep it then. Locks here are leaves.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use futures_util::future::{BoxFuture, FutureExt as _, join_all};
use parking_lot::Mutex;
use tokio::sync::oneshot;
use tokio::time::timeout;

use super::message::{Answer, Message};
use super::node::Node;
use super::outbox::Confirm;
use super::relay::chunks;
use super::subject;
use crate::adapter::{AdapterError, Status};
use crate::counters::Counters;
use crate::id::NodeTag;
use crate::once::{Claimant, First, Once, OnceKey, Progress, Record, Table, Verdict};

/// Bytes of one message about calls, at most, also where the broker takes more.
const MAX_MESSAGE: usize = 256 * 1024;

/// What a node has of it.
pub(crate) struct Kept {
    table: Mutex<Table>,
    /// The members for whom everything that this node knows is where it belongs, in order.
    members: Mutex<Vec<NodeTag>>,
    /// The members have changed.
    stale: AtomicBool,
}

impl Kept {
    pub(crate) fn new(counters: Arc<Counters>) -> Self {
        Self {
            table: Mutex::new(Table::new(counters)),
            members: Mutex::default(),
            // Nobody is known yet.
            stale: AtomicBool::new(true),
        }
    }

    /// The members have changed.
    pub(crate) fn members_changed(&self) {
        self.stale.store(true, Ordering::Release);
    }
}

/// The nodes that keep a call, the first one to be asked first.
fn keepers(key: &OnceKey, members: &[NodeTag]) -> Vec<NodeTag> {
    let mut scored: Vec<_> = members.iter().map(|tag| (score(key, *tag), *tag)).collect();
    scored.sort_unstable_by(|a, b| b.cmp(a));
    scored.truncate(2);
    scored.into_iter().map(|(_, tag)| tag).collect()
}

/// What is hashed here is part of the wire: it never changes. (FNV-1a, and the finalizer of SplitMix64.)
fn score(key: &OnceKey, tag: NodeTag) -> u64 {
    let bytes = tag.as_str().bytes().chain(key.call);
    let mut bits = bytes.fold(0xcbf2_9ce4_8422_2325, |hash: u64, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    bits = (bits ^ bits >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    bits = (bits ^ bits >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    bits ^ bits >> 31
}

impl Node {
    /// The live nodes, this one among them, in order.
    fn everybody(&self) -> Vec<NodeTag> {
        let mut everybody = self.members();
        everybody.push(self.me().tag);
        everybody.sort_unstable();
        everybody
    }

    /// Asks whether a call is new, and takes it in hand if it is. An error says that nobody could tell, and that nothing
    /// was done.
    pub(crate) async fn once(self: Arc<Self>, key: OnceKey) -> Result<Once, AdapterError> {
        if *self.status.borrow() != Status::Ready {
            return Err(AdapterError::BrokerUnavailable);
        }
        let claimant = Claimant { node: self.me().tag, number: self.requests.next_id() };
        let keepers = keepers(&key, &self.everybody());
        let first = First::new({
            let (node, keepers) = (Arc::clone(&self), keepers.clone());
            move |answer| node.settle(&keepers, key, claimant, answer)
        });
        let mut granted = false;
        for keeper in keepers {
            let verdict = match keeper == claimant.node {
                true => Some(self.judge(key, claimant)),
                false => self.ask_keeper(keeper, key, claimant.number).await,
            };
            match verdict {
                None => {}
                Some(Verdict::Granted) => granted = true,
                // Dropping `first` takes back what the other one has agreed to.
                Some(Verdict::Before(answer)) => return Ok(Once::Before(answer)),
                Some(Verdict::Busy) => return Ok(Once::Busy),
                Some(Verdict::Other) => return Ok(Once::Other),
            }
        }
        if granted { Ok(Once::First(first)) } else { Err(AdapterError::BrokerUnavailable) }
    }

    /// What this node knows of a call.
    fn judge(&self, key: OnceKey, claimant: Claimant) -> Verdict {
        let members = self.everybody();
        self.once.table.lock().claim(key, claimant, |node| members.contains(&node), self.now_ms())
    }

    async fn ask_keeper(self: &Arc<Self>, keeper: NodeTag, key: OnceKey, id: u64) -> Option<Verdict> {
        match self.ask(keeper, id, &Message::Claim { id, key }, self.config.heartbeat).await {
            Ok(Some(Answer::Verdict(verdict))) => Some(verdict),
            _ => None,
        }
    }

    /// Another node wants to carry a call out.
    pub(crate) fn claimed_by(&self, from: NodeTag, id: u64, key: OnceKey) {
        let verdict = self.judge(key, Claimant { node: from, number: id });
        // Should this get lost, the other node goes by what the other keeper says.
        let _ = self.publish(vec![subject::node(from)], &Message::Claimed { id, verdict }, None);
    }

    /// Tells the keepers what became of a call, those who have come since among them.
    fn settle(
        &self,
        asked: &[NodeTag],
        key: OnceKey,
        claimant: Claimant,
        answer: Option<Bytes>,
    ) -> BoxFuture<'static, ()> {
        let mut to = keepers(&key, &self.everybody());
        to.extend(asked.iter().filter(|tag| !to.contains(tag)).copied().collect::<Vec<_>>());
        let record = Record::settled(key, claimant, answer);
        let mut taken = Vec::new();
        for keeper in to {
            if keeper == self.me().tag {
                self.once.table.lock().take(record.clone(), self.now_ms());
            } else {
                let (confirm, confirmed) = oneshot::channel();
                self.tell_keeper(keeper, vec![record.clone()], Some(confirm));
                taken.push(confirmed);
            }
        }
        let patience = self.config.request_timeout;
        // What the broker does not take is counted, and there is nothing more to do about it.
        async move { drop(timeout(patience, join_all(taken)).await) }.boxed()
    }

    fn tell_keeper(&self, keeper: NodeTag, records: Vec<Record>, mut confirm: Option<Confirm>) {
        let max = self.room_for_contents().min(MAX_MESSAGE);
        for records in chunks(records, Record::size, max) {
            let message = Message::Settled(records);
            if let Err(error) = self.publish(vec![subject::node(keeper)], &message, confirm.take()) {
                self.counters.once_lost.add(1);
                tracing::debug!(code = error.code(), "a keeper was not told of calls");
            }
        }
    }

    /// Takes what other nodes know of calls.
    pub(crate) fn settled_elsewhere(&self, records: Vec<Record>) {
        let (mut table, now) = (self.once.table.lock(), self.now_ms());
        records.into_iter().for_each(|record| table.take(record, now));
    }

    /// When the members have changed: tells new keepers what they have to know. Of several that could, the first does.
    pub(crate) fn hand_over_calls(&self) {
        if !self.once.stale.swap(false, Ordering::AcqRel) {
            return;
        }
        let (now, me) = (self.everybody(), self.me().tag);
        let before = std::mem::replace(&mut *self.once.members.lock(), now.clone());
        if before == now || self.once.table.lock().is_empty() {
            return;
        }
        let mut told: BTreeMap<NodeTag, Vec<Record>> = BTreeMap::new();
        for record in self.once.table.lock().records(self.now_ms()) {
            let was = keepers(&record.key, &before);
            if was.iter().find(|tag| now.contains(tag)) != Some(&me) || record.progress == Progress::Failed {
                continue;
            }
            for keeper in keepers(&record.key, &now).into_iter().filter(|tag| !was.contains(tag)) {
                told.entry(keeper).or_default().push(record.clone());
            }
        }
        told.into_iter().for_each(|(keeper, records)| self.tell_keeper(keeper, records, None));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_node_finds_the_same_two_keepers() {
        let tags: Vec<NodeTag> = ["aaaa", "bbbb", "cccc", "dddd"].map(|tag| tag.parse().unwrap()).to_vec();
        let reversed: Vec<_> = tags.iter().rev().copied().collect();
        let mut kept = BTreeMap::new();
        for number in 0..=255 {
            let key = OnceKey { call: [number; 32], body: [0; 16] };
            let two = keepers(&key, &tags);
            assert_eq!(two, keepers(&key, &reversed));
            assert!(two.len() == 2 && two[0] != two[1]);
            // Of those that stay, the order stays.
            let rest: Vec<_> = tags.iter().copied().filter(|tag| *tag != two[0]).collect();
            assert_eq!(keepers(&key, &rest)[0], two[1]);
            two.into_iter().for_each(|tag| *kept.entry(tag).or_insert(0) += 1);
        }
        assert!(kept.values().all(|count| (90..170).contains(count)), "{kept:?}");
        // Of the wire: nodes of other releases must find them too.
        let key = OnceKey { call: [7; 32], body: [0; 16] };
        assert_eq!(keepers(&key, &tags), GOLDEN.map(|tag| tag.parse().unwrap()));
        assert!(keepers(&key, &[]).is_empty());
    }

    /// Calculated apart from this code.
    const GOLDEN: [&str; 2] = ["bbbb", "dddd"];
}
