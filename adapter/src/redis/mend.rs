//! What a sharded link does after slots were moved, until it is whole again.
//!
//! One task for each link. What it cannot mend ends the link: a new one begins with what the cluster says then.

use std::{collections::HashMap, sync::Arc, time::Duration};

use futures_util::future;
use tokio::time;

use super::{
    connection::{Tally, Wire},
    sharded::{Displaced, Inner},
    topology::{Topology, slot},
    url::Endpoint,
};
use crate::cluster::BusError;

/// How often a message or a subscription is sent on, before it is given up.
const MAX_REDIRECTS: u32 = 10;
/// The wait before something is sent on again that came back before; it doubles. While a slot is handed over, two nodes
/// may each say for a moment that it is the other's.
const PAUSE: Duration = Duration::from_millis(2);

/// Mends whenever something is there to mend. Ends with the link.
pub(super) async fn run(inner: Arc<Inner>) {
    let _panicked = inner.site.fault.clone().raised_by_panic();
    loop {
        inner.mend.notified().await;
        if let Err(error) = inner.release_held().await {
            return inner.site.fault.raise(error.to_string());
        }
        if let Err(error) = inner.place_displaced().await {
            return inner.site.fault.raise(error.to_string());
        }
    }
}

impl Inner {
    /// Sends what was held, when nothing is in flight any more.
    async fn release_held(self: &Arc<Self>) -> Result<(), BusError> {
        let (moved, returns) = {
            let mut state = self.state.lock();
            if !state.holding || state.in_flight > 0 {
                return Ok(());
            }
            let returns = state.held.iter().map(|message| message.returns).max().unwrap_or(0);
            (std::mem::take(&mut state.moved), returns)
        };
        pause(returns).await;
        self.learn(moved).await?;
        let mut state = self.state.lock();
        let mut messages = std::mem::take(&mut state.held);
        state.holding = false;
        messages.sort_by_key(|message| message.number);
        messages.retain(|message| {
            let given_up = message.returns > MAX_REDIRECTS;
            if given_up {
                let text = format!("no node of the cluster takes slot {}", message.slot);
                message.tally.fail(BusError::Unavailable(text));
            }
            !given_up
        });
        self.transmit(&mut state, messages);
        Ok(())
    }

    /// Finds out who owns the slots, and subscribes there.
    async fn place_displaced(self: &Arc<Self>) -> Result<(), BusError> {
        let displaced = std::mem::take(&mut self.state.lock().displaced);
        let Some(attempts) = displaced.iter().map(|one| one.attempts).max() else { return Ok(()) };
        if attempts > MAX_REDIRECTS {
            return Err(BusError::Unavailable("no node of the cluster takes a subscription".into()));
        }
        pause(attempts).await;
        let owners = self.owners(&displaced).await?;
        self.learn(owners).await?;
        let (mended, done) = Tally::new();
        let mut by_call: HashMap<*const Tally, (Arc<Tally>, Vec<Box<str>>)> = HashMap::new();
        let mut state = self.state.lock();
        for one in displaced {
            if state.is_wanted(&one.channel) {
                let tally = one.tally.unwrap_or_else(|| Arc::clone(&mended));
                by_call.entry(Arc::as_ptr(&tally)).or_insert_with(|| (tally, Vec::new())).1.push(one.channel);
            }
        }
        let stood_before = by_call.contains_key(&Arc::as_ptr(&mended));
        for (tally, channels) in by_call.into_values() {
            self.subscribe(&mut state, channels, attempts, &tally);
        }
        drop(state);
        drop(mended);
        if stood_before {
            let inner = Arc::clone(self);
            tokio::spawn(async move {
                match done.await {
                    // Somebody may have published between the two subscriptions.
                    Ok(()) => inner.site.inbound.gap(),
                    Err(error) => inner.site.fault.raise(error.to_string()),
                }
            });
        }
        Ok(())
    }

    /// The owners of slots, from those who told that they are not.
    async fn owners(&self, displaced: &[Displaced]) -> Result<HashMap<u16, Endpoint>, BusError> {
        let mut owners = HashMap::new();
        let mut unknown: HashMap<u16, Vec<u16>> = HashMap::new();
        for one in displaced {
            match &one.owner {
                Some(owner) => drop(owners.insert(slot(&one.channel), owner.clone())),
                None => unknown.entry(one.told_by).or_default().push(slot(&one.channel)),
            }
        }
        for (told_by, slots) in unknown {
            let Some(node) = self.state.lock().nodes.get(usize::from(told_by)).map(Arc::clone) else {
                continue;
            };
            let answer = node.writer.call(&["CLUSTER", "SLOTS"]).await?;
            let topology = Topology::parse(&answer, node.writer.endpoint());
            let topology = topology
                .ok_or_else(|| BusError::Unavailable("CLUSTER SLOTS was not answered with slots".into()))?;
            for slot in slots {
                // If nobody owns it yet, the node of before says so again, and it is looked for once more.
                owners.extend(topology.master_of(slot).map(|owner| (slot, owner.clone())));
            }
        }
        Ok(owners)
    }

    /// Takes new owners of slots into the table, and with them the view of one of them: where one slot has gone, others
    /// often have too.
    async fn learn(self: &Arc<Self>, owners: HashMap<u16, Endpoint>) -> Result<(), BusError> {
        let Some(owner) = owners.values().next() else { return Ok(()) };
        let index = self.index(owner).await?;
        let Some(node) = self.state.lock().nodes.get(usize::from(index)).map(Arc::clone) else {
            return Ok(());
        };
        let answer = node.writer.call(&["CLUSTER", "SLOTS"]).await?;
        let view = Topology::parse(&answer, owner).unwrap_or_default();
        let mut changes = Vec::new();
        for (slots, master) in view.ranges {
            if let Some(master) = view.masters.get(master) {
                changes.push((slots, self.index(master).await?));
            }
        }
        // What was told about a slot is newer than what somebody else believes.
        for (slot, owner) in &owners {
            changes.push((*slot..=*slot, self.index(owner).await?));
        }
        let mut state = self.state.lock();
        for (slots, index) in changes {
            let (first, last) = (usize::from(*slots.start()), usize::from(*slots.end()));
            if let Some(entries) = state.slots.get_mut(first..=last) {
                entries.fill(index);
            }
        }
        Ok(())
    }

    /// The index of a node, which is connected to if it is new.
    async fn index(self: &Arc<Self>, endpoint: &Endpoint) -> Result<u16, BusError> {
        let known = self.state.lock().index_of(endpoint);
        if let Some(index) = known {
            return Ok(index);
        }
        let wires = self.wires(endpoint).await?;
        Ok(self.add(&mut self.state.lock(), wires))
    }

    /// Both connections to a node.
    async fn wires(&self, endpoint: &Endpoint) -> Result<(Wire, Wire), BusError> {
        let writer = Wire::open(&self.site.writer, endpoint, &self.dial);
        let reader = Wire::open(&self.site.reader, endpoint, &self.dial);
        future::try_join(writer, reader).await
    }
}

/// Waits before something is sent on for the second time or later.
async fn pause(times: u32) {
    if times > 1 {
        time::sleep(PAUSE * 2_u32.pow(times.min(MAX_REDIRECTS) - 2)).await;
    }
}
