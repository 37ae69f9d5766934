//! The end of a run: everything heals, and then everybody must agree, nothing may be missing, and nothing may be kept.

use std::collections::BTreeSet;

use super::model::Kind;
use super::world::World;
use super::{HEALING, Ms};
use crate::adapter::AdapterFactory;
use crate::cluster::kept::Kept;
use crate::selector::{Selector, Target};

/// What is under way arrives within this time, copies among it.
const UNDER_WAY: Ms = 1_500;

impl World {
    /// Turns until something is so, or the time for it is over, and then some more for what is under way.
    fn turns_until(&mut self, is_so: fn(&Self) -> bool, within: Ms) {
        let end = self.now + within;
        while self.now < end && !is_so(self) && self.model.failure.is_none() {
            self.turn();
        }
        let settled = self.now + UNDER_WAY;
        while self.now < settled && self.model.failure.is_none() {
            self.turn();
        }
    }

    fn is_calm(&self) -> bool {
        let nodes = self.nodes();
        let is_one_with_all = |node: usize| {
            let serving = self.machines[node].as_ref().and_then(|machine| machine.serving.as_ref());
            let known = serving.map_or(0, |serving| serving.factory.nodes().len());
            self.model.is_sound(node) && known == nodes.len()
        };
        !self.somebody_starts() && self.has_ended() && nodes.iter().all(|node| is_one_with_all(*node))
    }

    fn has_ended(&self) -> bool {
        self.pending.is_empty() && self.model.open.is_empty()
    }

    fn is_empty(&self) -> bool {
        self.nodes().iter().all(|node| self.kept_by(*node).is_none())
    }

    /// Ends the faults, and holds the cluster to what it promises without them.
    pub(super) fn end(&mut self) {
        self.network.quiet = true;
        for machine in self.machines.iter_mut().flatten() {
            machine.paused_until = machine.paused_until.map(|until| until.min(self.now));
        }
        self.turns_until(Self::is_calm, HEALING);
        self.all_agree();
        self.ask_all_of_everybody();
        self.turns_until(Self::has_ended, 8_000);
        if let Some(number) = self.model.open.first().copied() {
            self.fail_open(number);
        }
        if let Some(number) = self.pending.first().copied() {
            self.model.fail(self.now, || format!("@{number}; does not end"));
        }
        self.remove_all();
        // Subscriptions outlive their rooms, and what others asked outlives the asking.
        let linger = self.profile.config.linger.as_millis() as Ms;
        self.turns_until(Self::is_empty, linger + HEALING);
        self.nothing_is_kept();
    }

    fn nodes(&self) -> Vec<usize> {
        (0..self.machines.len()).filter(|node| self.machines[*node].is_some()).collect()
    }

    fn all_agree(&mut self) {
        let now = self.now;
        let nodes = self.nodes();
        let all: BTreeSet<_> = nodes.iter().map(|node| self.model.nodes[*node].tag).collect();
        for node in nodes {
            let Some(machine) = self.machines[node].take() else { continue };
            let known: BTreeSet<_> = match &machine.serving {
                Some(serving) => serving.factory.nodes().into_iter().collect(),
                None => BTreeSet::new(),
            };
            if known != all || !self.model.is_sound(node) {
                let sound = self.model.is_sound(node);
                self.model
                    .fail(now, || format!("node {node} (sound: {sound}) knows {known:?} instead of {all:?}"));
            }
            if let Some(serving) = machine.serving.clone() {
                self.compare_rooms(&serving, node, now);
            }
            self.machines[node] = Some(machine);
        }
        // From now on there is no excuse.
        for node in &mut self.model.nodes {
            node.disturbed_at = None;
        }
        for socket in self.model.sockets.values_mut() {
            let joined = socket.rooms.values_mut().chain([&mut socket.here]);
            joined.for_each(|joined| joined.confirmed = true);
        }
    }

    /// Every node emits to all rooms and all sockets, and counts and fetches them.
    fn ask_all_of_everybody(&mut self) {
        let rooms: BTreeSet<_> =
            self.model.sockets.values().flat_map(|socket| socket.rooms.keys().cloned()).collect();
        let ids: Vec<_> = self.model.sockets.keys().copied().collect();
        let mut selectors = vec![Selector::all()];
        selectors.extend(rooms.into_iter().map(|room| Selector::rooms([room])));
        for node in self.nodes() {
            let Some(machine) = self.machines[node].take() else { continue };
            if let Some(serving) = machine.serving.clone() {
                for selector in &selectors {
                    for kind in [Kind::Emit, Kind::Count, Kind::Fetch, Kind::Ask] {
                        self.operate_on(&machine, &serving, node, kind, selector, &[]);
                    }
                }
                for id in &ids {
                    let selector = Selector { to: Target::Socket(*id), except: Vec::new(), local: false };
                    self.operate_on(&machine, &serving, node, Kind::Confirmed, &selector, &[]);
                }
                self.operate_on(&machine, &serving, node, Kind::Poll, &Selector::all(), &[]);
            }
            self.machines[node] = Some(machine);
        }
    }

    fn remove_all(&mut self) {
        for node in self.nodes() {
            let Some(machine) = self.machines[node].take() else { continue };
            self.mail(&machine, node, self.now, None, true);
            let ids: Vec<_> = self.model.sockets_of(node).map(|(id, _)| *id).collect();
            for id in ids {
                if let Some(serving) = &machine.serving {
                    machine.within(|| serving.adapter.remove(id));
                }
                self.model.remove(id, self.now);
            }
            self.machines[node] = Some(machine);
        }
    }

    /// What a node keeps that it need not, and its subscriptions at the broker.
    fn kept_by(&self, node: usize) -> Option<(Kept, usize)> {
        let serving = self.machines[node].as_ref()?.serving.as_ref()?;
        let (kept, subscriptions) = (serving.factory.kept(), self.network.subscriptions(node));
        (kept.is_something() || subscriptions != kept.subjects).then_some((kept, subscriptions))
    }

    fn nothing_is_kept(&mut self) {
        for node in self.nodes() {
            if let Some((kept, subscriptions)) = self.kept_by(node) {
                let now = self.now;
                self.model
                    .fail(now, || format!("node {node} keeps {kept:?} and {subscriptions} subscriptions"));
            }
        }
    }
}
