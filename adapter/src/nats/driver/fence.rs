//! Round trips, on one server and across the servers of its cluster.
//!
//! A fence is a numbered message from a connection to an inbox of its own. A server handles what a connection sends in
//! order, so a fence that came back stands behind all that was sent before it. The [probes](super::probes) at the other
//! servers listen to the same inbox: interest and messages of an account go from server to server in order, so a
//! probe that got the fence proves that its server knows what was subscribed to before it.
//!
//! Owns who waits for which fence, and at which servers. Must not connect.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

use async_nats::Client;
use bytes::Bytes;
use futures_util::StreamExt;
use parking_lot::Mutex;
use rustc_hash::FxHashMap;
use tokio::sync::{Notify, oneshot};

use super::{closed, unavailable};
use crate::cluster::BusError;

/// Whom to tell that a request was done.
pub(super) type Reply = oneshot::Sender<Result<(), BusError>>;

/// A client with its round trips.
#[derive(Clone)]
pub(super) struct Connection {
    client: Client,
    fence: Arc<Fence>,
}

impl Connection {
    /// Begins to listen for answers to fences. Must be called on the runtime of the connection.
    pub(super) async fn new(client: Client, fence: Arc<Fence>) -> Result<Self, BusError> {
        let inbox = client.new_inbox();
        let mut answers = client.subscribe(inbox.clone()).await.map_err(unavailable)?;
        fence.waiting.lock().inbox = inbox;
        let answered = Arc::clone(&fence);
        tokio::spawn(async move {
            while let Some(answer) = answers.next().await {
                // The client's event task, which may have a complaint to tell, was woken before and runs now.
                tokio::task::yield_now().await;
                if let Some(number) = number(&answer.payload) {
                    answered.pass(number);
                }
            }
        });
        Ok(Self { client, fence })
    }

    pub(super) fn client(&self) -> &Client {
        &self.client
    }

    pub(super) fn max_payload(&self) -> usize {
        self.client.max_payload()
    }

    /// Where the fences of this connection go.
    pub(super) fn inbox(&self) -> String {
        self.fence.waiting.lock().inbox.clone()
    }

    /// Who waits here.
    pub(super) fn fences(&self) -> &Arc<Fence> {
        &self.fence
    }

    /// Queues a fence. The replies are given when it was passed.
    pub(super) async fn fence(&self, purpose: Purpose, replies: Vec<Reply>) {
        if replies.is_empty() {
            return;
        }
        let number = self.fence.waiting.lock().wait(purpose, replies);
        if let Err(error) = self.send(number).await {
            let given_up = self.fence.waiting.lock().waiters.remove(&number);
            answer_all(given_up.map(|waiter| waiter.replies).unwrap_or_default(), &Err(error));
        }
    }

    /// Sends a fence that nobody waits for, so that servers which missed one hear another.
    pub(super) async fn nudge(&self) {
        let number = self.fence.waiting.lock().number();
        // A connection that is lost is noticed elsewhere.
        let _ = self.send(number).await;
    }

    async fn send(&self, number: u64) -> Result<(), BusError> {
        let payload = Bytes::copy_from_slice(&number.to_be_bytes());
        self.client.publish(self.inbox(), payload).await.map_err(unavailable)
    }

    pub(super) async fn round_trip(&self) -> Result<(), BusError> {
        let (reply, answer) = oneshot::channel();
        self.fence(Purpose::Ping, vec![reply]).await;
        answer.await.unwrap_or_else(|_| Err(closed()))
    }
}

/// The number of a fence.
pub(super) fn number(payload: &[u8]) -> Option<u64> {
    <[u8; 8]>::try_from(payload).ok().map(u64::from_be_bytes)
}

/// What a fence stands behind.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Purpose {
    /// Something that the server may refuse.
    Request,
    /// The same, which the other servers of the cluster have to know too.
    Spread,
    Ping,
}

/// Those who wait for fences.
#[derive(Default)]
pub(super) struct Fence {
    waiting: Mutex<Waiting>,
    /// A peer did not pass at once.
    behind: Notify,
}

#[derive(Default)]
struct Waiting {
    inbox: String,
    next: u64,
    /// The last that came back.
    passed: u64,
    /// By number.
    waiters: BTreeMap<u64, Waiter>,
    /// Other servers, by id, with a probe that has got a fence.
    peers: FxHashMap<String, Peer>,
    /// The last refusal that the server sent. It names no request, so those hear of it that wait for the next fence.
    complaint: Option<String>,
}

struct Waiter {
    purpose: Purpose,
    replies: Vec<Reply>,
    passed: bool,
}

struct Peer {
    /// The last that came there.
    passed: u64,
    /// Since when it owes one that has come back here.
    behind: Option<Instant>,
    given_up: Arc<Notify>,
}

impl Waiting {
    fn number(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    fn wait(&mut self, purpose: Purpose, replies: Vec<Reply>) -> u64 {
        let number = self.number();
        self.waiters.insert(number, Waiter { purpose, replies, passed: false });
        number
    }

    /// Takes those out that have waited for every server. Fences come back in order, so they are the first.
    fn release(&mut self) -> Vec<Reply> {
        let reached = self.peers.values().map(|peer| peer.passed).min().unwrap_or(u64::MAX);
        let mut released = Vec::new();
        while let Some(first) = self.waiters.first_entry() {
            if *first.key() > reached || !first.get().passed {
                break;
            }
            released.append(&mut first.remove().replies);
        }
        released
    }
}

impl Fence {
    /// Takes note of a refusal.
    pub(super) fn complain(&self, what: String) {
        self.waiting.lock().complaint = Some(what);
    }

    /// A fence came back.
    fn pass(&self, number: u64) {
        let mut waiting = self.waiting.lock();
        waiting.passed = waiting.passed.max(number);
        let mut is_behind = false;
        for peer in waiting.peers.values_mut().filter(|peer| peer.passed < number) {
            peer.behind.get_or_insert_with(Instant::now);
            is_behind = true;
        }
        let (mut answered, mut result) = (Vec::new(), Ok(()));
        let purpose = waiting.waiters.get(&number).map(|waiter| waiter.purpose);
        if matches!(purpose, Some(Purpose::Request | Purpose::Spread)) {
            result = waiting.complaint.take().map_or(Ok(()), |complaint| Err(BusError::Refused(complaint)));
        }
        match (purpose, &result) {
            (Some(Purpose::Spread), Ok(())) => {
                waiting.waiters.entry(number).and_modify(|waiter| waiter.passed = true);
            }
            _ => answered = waiting.waiters.remove(&number).map(|waiter| waiter.replies).unwrap_or_default(),
        }
        let released = waiting.release();
        drop(waiting);
        answer_all(answered, &result);
        answer_all(released, &Ok(()));
        if is_behind {
            self.behind.notify_one();
        }
    }

    /// From now on this server is waited for. What is returned tells that it no longer is.
    pub(super) fn add_peer(&self, server: &str, passed: u64) -> Arc<Notify> {
        let given_up = Arc::new(Notify::new());
        let peer = Peer { passed, behind: None, given_up: Arc::clone(&given_up) };
        self.waiting.lock().peers.insert(server.to_owned(), peer);
        given_up
    }

    /// A fence came to the probe at a server.
    pub(super) fn pass_at(&self, server: &str, number: u64) {
        let mut waiting = self.waiting.lock();
        let due = waiting.passed;
        let Some(peer) = waiting.peers.get_mut(server) else { return };
        peer.passed = peer.passed.max(number);
        // Slow is not silent.
        peer.behind = (peer.passed < due).then(Instant::now);
        let released = waiting.release();
        drop(waiting);
        answer_all(released, &Ok(()));
    }

    /// This server is not waited for any more.
    pub(super) fn remove_peer(&self, server: &str) {
        let mut waiting = self.waiting.lock();
        waiting.peers.remove(server);
        let released = waiting.release();
        drop(waiting);
        answer_all(released, &Ok(()));
    }

    /// Gives up those that have been silent for so long; their number.
    pub(super) fn give_up_silent(&self, limit: Duration) -> u64 {
        let mut waiting = self.waiting.lock();
        let mut count = 0;
        waiting.peers.retain(|_, peer| {
            let is_silent = peer.behind.is_some_and(|since| since.elapsed() >= limit);
            if is_silent {
                peer.given_up.notify_one();
                count += 1;
            }
            !is_silent
        });
        let released = waiting.release();
        drop(waiting);
        answer_all(released, &Ok(()));
        count
    }

    /// Whether a server owes a fence.
    pub(super) fn is_behind(&self) -> bool {
        self.waiting.lock().peers.values().any(|peer| peer.behind.is_some())
    }

    /// Waits until a server owes a fence, which it does for a moment each time.
    pub(super) async fn behind(&self) {
        self.behind.notified().await;
    }
}

fn answer_all(replies: Vec<Reply>, result: &Result<(), BusError>) {
    for reply in replies {
        // Nobody may be waiting any more.
        let _ = reply.send(result.clone());
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::oneshot::Receiver;

    use super::*;

    fn ask(fence: &Fence, purpose: Purpose) -> (u64, Receiver<Result<(), BusError>>) {
        let (reply, answer) = oneshot::channel();
        (fence.waiting.lock().wait(purpose, vec![reply]), answer)
    }

    #[test]
    fn what_spreads_waits_for_every_server_and_the_rest_does_not() {
        let fence = Fence::default();
        fence.add_peer("b", 0);
        fence.add_peer("c", 0);
        let (ping, mut pinged) = ask(&fence, Purpose::Ping);
        let (spread, mut stands) = ask(&fence, Purpose::Spread);
        fence.pass(ping);
        assert_eq!(pinged.try_recv(), Ok(Ok(())));
        fence.pass(spread);
        fence.pass_at("b", spread);
        fence.pass_at("c", ping);
        assert!(stands.try_recv().is_err());
        // One that came later does as well, should this one have been lost on the way.
        fence.pass_at("c", spread + 1);
        assert_eq!(stands.try_recv(), Ok(Ok(())));
    }

    #[test]
    fn a_server_that_passed_first_does_not_confirm_alone() {
        let fence = Fence::default();
        fence.add_peer("b", 0);
        let (spread, mut stands) = ask(&fence, Purpose::Spread);
        fence.pass_at("b", spread);
        assert!(stands.try_recv().is_err());
        fence.pass(spread);
        assert_eq!(stands.try_recv(), Ok(Ok(())));
    }

    #[test]
    fn servers_that_are_gone_or_silent_are_not_waited_for() {
        let fence = Fence::default();
        fence.add_peer("b", 0);
        fence.add_peer("c", 0);
        let (spread, mut stands) = ask(&fence, Purpose::Spread);
        // Nobody owes what the own server has not handled yet.
        assert_eq!(fence.give_up_silent(Duration::ZERO), 0);
        fence.pass(spread);
        fence.remove_peer("b");
        assert!(stands.try_recv().is_err());
        assert!(fence.is_behind());
        assert_eq!(fence.give_up_silent(Duration::from_secs(60)), 0);
        assert_eq!(fence.give_up_silent(Duration::ZERO), 1);
        assert_eq!(stands.try_recv(), Ok(Ok(())));
    }

    #[test]
    fn a_refusal_is_told_without_waiting_for_others() {
        let fence = Fence::default();
        fence.add_peer("b", 0);
        let (spread, mut stands) = ask(&fence, Purpose::Spread);
        fence.complain("no".into());
        fence.pass(spread);
        assert_eq!(stands.try_recv(), Ok(Err(BusError::Refused("no".into()))));
    }
}
