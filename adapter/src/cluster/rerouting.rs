//! How a node goes over to other subjects for its rooms, and what it knows of where the others listen: what `routing`
//! decides is done here.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use tokio::time::Instant;

use super::message::Message;
use super::node::Node;
use super::routing::Step;
use super::subject;

impl Node {
    /// Goes on with what is to be done for the routing of rooms. Part of the cluster task.
    pub(crate) async fn route(&self) {
        // Prepare, ask, settle and finish may follow each other at once; never in a circle, because of the dwell.
        while let Some(step) = self.next_step() {
            match step {
                Step::Prepare => self.follow_routing(),
                Step::Ask(number) => self.ask_to_publish(number).await,
                Step::Finish => {
                    self.follow_routing();
                    let listening = self.routing.lock().listening();
                    self.counters.routing_switches.add(1);
                    self.counters.hashed.set(listening.hashed);
                    tracing::info!(hashed = listening.hashed, "rooms are routed in another way");
                    if let Err(error) = self.announce_life(subject::all()).await {
                        tracing::debug!(code = error.code(), "the others hear it with the next heartbeat");
                    }
                }
                Step::Refuse => {
                    self.counters.routing_refused.add(1);
                    tracing::warn!(
                        "too many rooms for a subscription each, but another node does not know buckets of rooms, \
                         or has another adapter.hashed_subjects"
                    );
                }
            }
        }
    }

    fn next_step(&self) -> Option<Step> {
        let (rooms, ready, prepared) = {
            let interest = self.interests.state.lock();
            (interest.rooms.rooms(), interest.is_ready(), interest.is_prepared())
        };
        // During an outage nobody can be asked, and everything is subscribed anew afterwards.
        if !ready {
            return None;
        }
        let peers = self.membership.lock().peers();
        self.routing.lock().step(Instant::now().into_std(), rooms, prepared, &peers)
    }

    /// When `route` has to be called, if nothing happens before. During an outage nothing is to be done.
    pub(crate) fn next_rerouting(&self) -> Option<Instant> {
        let ready = self.interests.state.lock().is_ready();
        ready.then(|| self.routing.lock().next_timeout()).flatten().map(Instant::from)
    }

    /// Subscribes what rooms need from now on, and lets go of what they do not need any more.
    fn follow_routing(&self) {
        let (exact, hashed) = self.routing.lock().subscribes();
        let now = Instant::now().into_std();
        let changed = self.interests.state.lock().route(exact, hashed, now);
        if changed {
            let namespaces: Vec<_> = self.namespaces.read().values().map(Arc::clone).collect();
            for namespace in namespaces {
                // Rooms that come or go meanwhile see to themselves.
                namespace.local.for_each_room(|room| {
                    let mut interest = self.interests.state.lock();
                    match exact {
                        true => interest.prepare_room(&namespace.name, room),
                        false => interest.release_room(&namespace.name, room, now),
                    }
                });
            }
        }
        self.interests.wake.notify_one();
    }

    async fn ask_to_publish(&self, number: u64) {
        let listening = self.routing.lock().listening();
        if let Err(error) = self.announce(subject::all(), &[Message::Listens { number, listening }]).await {
            tracing::debug!(code = error.code(), "the others are asked again with the next heartbeat");
        }
    }

    /// Finds out where room emits have to be published.
    pub(crate) fn refresh_audience(&self) {
        let mut audience = self.audience.write();
        let certain = self.audience_known.load(Ordering::Acquire);
        let before = audience.everywhere;
        *audience = self.membership.lock().audience(self.config.hashed_subjects.max(1), certain);
        if audience.everywhere && !before {
            self.counters.routing_crowded.add(1);
            tracing::warn!(
                "the nodes have too many settings of adapter.hashed_subjects: what is for a room goes to all nodes"
            );
        }
    }

    /// Whether emits to other nodes may tell of their way.
    pub(crate) fn tells_journeys(&self) -> bool {
        self.audience.read().knows_journeys
    }

    /// Whether emits with acks may tell of their trace.
    pub(crate) fn tells_traced_asks(&self) -> bool {
        self.audience.read().knows_traced_asks
    }

    /// Others may have come or gone over unheard: until all have had the time to say so, they may listen anywhere.
    pub(crate) fn forget_audience(&self) {
        self.audience_known.store(false, Ordering::Release);
        self.refresh_audience();
    }
}
