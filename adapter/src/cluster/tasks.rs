//! What a node does by itself: its heartbeat, the answers to hellos, the acks, and the subscriptions.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures_util::future::{join, join_all};
use tokio::time::{Instant, MissedTickBehavior, sleep, timeout};

use super::message::{Identity, Message};
use super::node::Node;
use super::relay::Relay;
use super::{BusError, Publication, Subject, subject, wire};

/// The pause after a subscription that failed.
const RETRY: Duration = Duration::from_millis(100);

impl Node {
    /// Publishes past the queue, so that a full one does not make this node look dead. Gives up after a heartbeat.
    pub(crate) async fn announce(&self, subject: Subject, messages: &[Message]) -> Result<(), BusError> {
        let me = self.me();
        let publications = messages
            .iter()
            .map(|message| Publication { subject: Arc::clone(&subject), payload: wire::encode(me, message) });
        let publish = self.bus.publish(publications.collect());
        let published = timeout(self.config.heartbeat, publish).await;
        // Waiting for a slow broker is no hang. What took as long as the expiry was one.
        if self.hung_for() < self.config.expiry {
            self.beat_at.store(self.now_ms(), Ordering::Release);
        }
        published.unwrap_or_else(|_| Err(BusError::Unavailable("no answer within a heartbeat".into())))
    }

    /// Says that this node lives, and how it is.
    pub(crate) async fn announce_life(&self, subject: Subject) -> Result<(), BusError> {
        self.announce(subject, &[Message::Heartbeat, Message::Vitals(self.vitals())]).await
    }

    /// The cluster task. Never ends.
    pub(crate) async fn run(self: Arc<Self>) {
        let mut heartbeat = tokio::time::interval(self.config.heartbeat);
        heartbeat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut discovered_at: Option<Instant> = None;
        let mut known_at = Some(Instant::now() + self.config.expiry);
        loop {
            let (discovery, knowledge) = (at(discovered_at), at(known_at));
            let routing = at(self.next_rerouting());
            tokio::select! {
                // In this order, so that what happens is a matter of the input alone: the timers are rare, the bell is not.
                biased;
                _ = heartbeat.tick() => {
                    self.notice_a_hang();
                    self.beat().await;
                }
                () = discovery => {
                    discovered_at = None;
                    // Unless the broker went away meanwhile, and everything begins again.
                    if self.interests.state.lock().is_ready() {
                        known_at = Some(Instant::now() + self.config.expiry);
                        self.members_known.store(true, Ordering::Release);
                        self.update_status();
                    }
                }
                () = knowledge => {
                    known_at = None;
                    let known = self.members_known.load(Ordering::Acquire);
                    self.audience_known.store(known, Ordering::Release);
                    self.refresh_audience();
                }
                () = routing => {}
                () = self.wake.notified() => {}
            }
            self.notice_a_hang();
            self.answer_greeters().await;
            self.answer_reach().await;
            self.flush_relays();
            self.hand_over_calls();
            if self.resynced.swap(false, Ordering::AcqRel) {
                discovered_at = self.greet_again().await;
            }
            self.route().await;
        }
    }

    async fn beat(&self) {
        if let (Err(error), ()) = join(self.announce_life(subject::all()), self.say_reach()).await {
            tracing::debug!(code = error.code(), "heartbeat failed");
        }
        let now = Instant::now();
        self.end_relays(|relay| relay.is_over(now));
    }

    /// A process that was stopped, or starved, comes back with a view of the cluster that is long out of date, and the
    /// cluster has a newer one of it.
    fn notice_a_hang(&self) {
        let hung = self.hung_for();
        self.beat_at.store(self.now_ms(), Ordering::Release);
        if hung < self.config.expiry {
            return;
        }
        self.counters.hung.add(1);
        tracing::warn!(millis = hung.as_millis(), "this node did not run");
        let alone = {
            let mut membership = self.membership.lock();
            membership.hear(Instant::now().into_std());
            membership.tags().is_empty()
        };
        if alone {
            return;
        }
        self.forget_audience();
        if hung >= self.config.lease {
            self.fence();
        } else {
            self.members_known.store(false, Ordering::Release);
            self.resynced.store(self.interests.state.lock().is_ready(), Ordering::Release);
            self.update_status();
        }
    }

    /// Answers all at once: one after the other, a slow broker would keep the heartbeat waiting for all of them.
    async fn answer_greeters(&self) {
        let greeters = std::mem::take(&mut *self.greeters.lock());
        let revenants = std::mem::take(&mut *self.revenants.lock());
        if greeters.is_empty() && revenants.is_empty() {
            return;
        }
        let life = [Message::Heartbeat, Message::Vitals(self.vitals())];
        let lives = greeters.into_iter().map(|tag| self.announce(subject::node(tag), &life));
        let burials = revenants.into_iter().map(|Identity { tag, generation }| async move {
            self.announce(subject::node(tag), &[Message::Buried { generation }]).await
        });
        let (answered, buried) = join(join_all(lives), join_all(burials)).await;
        for error in answered.into_iter().chain(buried).filter_map(Result::err) {
            tracing::debug!(
                code = error.code(),
                "a hello was not answered, or a node not told that it is dead"
            );
        }
    }

    /// After an outage: says that this node lives, and asks who else does. When the answers will have come.
    async fn greet_again(&self) -> Option<Instant> {
        let heartbeat = self.announce_life(subject::all()).await;
        // In a new life nobody knows yet where this node is.
        self.say_reach().await;
        let hello = self.announce(subject::all(), &[Message::Hello]).await;
        if heartbeat.and(hello).is_err() {
            // The next attempt is a turn of the loop away, at the latest with the next heartbeat.
            self.resynced.store(self.interests.state.lock().is_ready(), Ordering::Release);
            return None;
        }
        Some(Instant::now() + self.config.discovery)
    }

    fn flush_relays(&self) {
        let relays = std::mem::take(&mut *self.ready_relays.lock());
        relays.iter().for_each(|relay| relay.flush());
    }

    /// Forgets the relays for which `over` says so: nobody waits for what their sockets answer.
    pub(crate) fn end_relays(&self, over: impl Fn(&Relay) -> bool) {
        let mut ended = Vec::new();
        self.relays.lock().retain(|relay| {
            let over = over(relay);
            if over {
                ended.push(Arc::clone(relay));
            }
            !over
        });
        ended.iter().for_each(|relay| relay.cancel());
    }

    /// The task of the subscriptions. Never ends.
    pub(crate) async fn run_interest(self: Arc<Self>) {
        let (mut was_ready, mut was_prepared) = (true, true);
        loop {
            let (operation, next, ready, prepared) = {
                let mut interest = self.interests.state.lock();
                let operation = interest.next_operation(Instant::now().into_std());
                let [rooms, buckets] = interest.kinds();
                self.counters.subscribed_rooms.set(rooms as u64);
                self.counters.subscribed_buckets.set(buckets as u64);
                (operation, interest.next_timeout(), interest.is_ready(), interest.is_prepared())
            };
            if ready && !was_ready {
                self.resynced.store(true, Ordering::Release);
                self.wake.notify_one();
            }
            if prepared && !was_prepared {
                self.wake.notify_one();
            }
            (was_ready, was_prepared) = (ready, prepared);
            self.update_status();
            let Some(operation) = operation else {
                tokio::select! {
                    biased;
                    () = self.interests.wake.notified() => {}
                    () = at(next.map(Instant::from)) => {}
                }
                continue;
            };
            let subjects = operation.subjects.clone();
            let call = match operation.subscribe {
                true => self.bus.subscribe(subjects),
                false => self.bus.unsubscribe(subjects),
            };
            let ok = matches!(timeout(self.config.subscribe_timeout, call).await, Ok(Ok(())));
            let failed = operation.subscribe && !ok;
            let (subscribed, count) = (operation.subscribe, operation.subjects.len() as u64);
            self.interests.state.lock().done(operation, ok, Instant::now().into_std());
            match subscribed {
                true if ok => self.counters.subscribed.add(count),
                true => {}
                false => self.counters.unsubscribed.add(count),
            }
            if failed {
                self.counters.subscribe_failed.add(1);
                sleep(RETRY).await;
            }
        }
    }
}

/// Ready at this time; never, if there is none.
async fn at(time: Option<Instant>) {
    match time {
        Some(time) => tokio::time::sleep_until(time).await,
        None => std::future::pending().await,
    }
}
