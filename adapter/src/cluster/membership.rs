//! Who else is in the cluster: a state machine without a clock.
//!
//! Owns the other nodes, by what they say themselves; subscribers of the broker are never counted. A node is a member
//! from its first heartbeat. After `expiry` of silence it is left out of requests and counts, and comes back with its
//! next heartbeat. After `lease` of silence it is gone for good: its sockets count as disconnected, and should it say
//! something later it is told so, and begins a new life.
//!
//! Silence is judged by this node's own echo. What this node said to all comes back to it behind everything that others
//! said before, so a member is silent only when our echo from after its time has come and nothing of it has. A node that
//! is behind with reading, or cut off from the broker, hears no echo and takes nobody for dead.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use indexmap::IndexMap;
use rustc_hash::FxBuildHasher;

use super::message::{Identity, Listening, Vitals};
use super::routing::{Audience, Peer, Understands};
use super::wire::{VERSION_3, VERSION_4};
use crate::id::NodeTag;
use crate::reach::Reach;

/// Dead nodes that are remembered, to tell them when they come back. The oldest is forgotten first.
const MAX_GRAVES: usize = 4_096;
/// Other nodes that are kept. More than this are no cluster, but somebody who makes nodes up.
const MAX_MEMBERS: usize = 4_096;

/// Another node.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Member {
    pub(crate) generation: u64,
    pub(crate) heard_at: Instant,
    /// False when it is silent.
    pub(crate) live: bool,
    /// What it says of itself; nothing when it is of the first version.
    pub(crate) vitals: Option<Vitals>,
    /// Where it is reached past the broker, if it has said so.
    pub(crate) reach: Option<Reach>,
    /// It lives and never says how it is. Vitals come with each heartbeat, so the second one tells.
    taciturn: bool,
}

impl Member {
    fn understands(&self) -> Understands {
        match self.vitals {
            Some(vitals) => vitals.listening.map_or(Understands::Nothing, Understands::Hashing),
            None if self.taciturn => Understands::Nothing,
            None => Understands::Unknown,
        }
    }

    /// Whether it is of a version that tells where it is reached.
    pub(crate) fn understands_reach(&self) -> bool {
        self.vitals.is_some_and(|vitals| vitals.version >= VERSION_3)
    }
}

/// What changed.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Change {
    Joined(NodeTag),
    /// It is silent, or left: nobody waits for it.
    Left(NodeTag),
    /// It is gone for good, and its sockets with it. Comes after `Left`.
    Gone(Identity),
    /// It is gone for good and does not know it.
    Revenant(Identity),
    /// There are too many nodes: it is not one of them.
    Refused(NodeTag),
}

#[derive(Debug)]
pub(crate) struct Membership {
    members: BTreeMap<NodeTag, Member>,
    /// The last generation of nodes that are gone. After a goodbye, too, a heartbeat on another subject may come late.
    graves: IndexMap<NodeTag, u64, FxBuildHasher>,
    expiry: Duration,
    lease: Duration,
}

impl Membership {
    pub(crate) fn new(expiry: Duration, lease: Duration) -> Self {
        Self { members: BTreeMap::new(), graves: IndexMap::default(), expiry, lease: lease.max(expiry) }
    }

    /// A node said that it lives. A later generation takes the place of an earlier one, which must have died.
    pub(crate) fn heartbeat(&mut self, from: Identity, now: Instant) -> Vec<Change> {
        let Identity { tag, generation } = from;
        if self.graves.get(&tag).is_some_and(|grave| generation <= *grave) {
            return vec![Change::Revenant(from)];
        }
        let mut changes = Vec::new();
        let fresh =
            Member { generation, heard_at: now, live: true, vitals: None, reach: None, taciturn: false };
        let full = self.members.len() >= MAX_MEMBERS;
        match self.members.get_mut(&tag) {
            Some(known) if known.generation > generation => return changes,
            Some(known) if known.generation == generation => {
                known.heard_at = now;
                known.taciturn = known.vitals.is_none();
                if std::mem::replace(&mut known.live, true) {
                    return changes;
                }
            }
            Some(known) => {
                let old = std::mem::replace(known, fresh);
                if old.live {
                    changes.push(Change::Left(tag));
                }
                changes.push(Change::Gone(Identity { tag, generation: old.generation }));
            }
            None if full => return vec![Change::Refused(tag)],
            None => {
                self.members.insert(tag, fresh);
            }
        }
        changes.push(Change::Joined(tag));
        changes
    }

    /// A node said how it is. Says nothing about whether it lives: that is its heartbeat's.
    pub(crate) fn vitals(&mut self, from: Identity, vitals: Vitals) {
        if let Some(known) =
            self.members.get_mut(&from.tag).filter(|known| known.generation == from.generation)
        {
            known.vitals = Some(vitals);
        }
    }

    /// A node said where it listens for rooms. False when nothing else is known of it yet.
    pub(crate) fn listens(&mut self, from: Identity, listening: Listening) -> bool {
        let known = self.members.get_mut(&from.tag).filter(|known| known.generation == from.generation);
        let vitals = known.and_then(|known| known.vitals.as_mut());
        vitals.map(|vitals| vitals.listening = Some(listening)).is_some()
    }

    /// A node said where it is reached. True when it is the first that is heard of it; when nothing else is known of it
    /// yet, it is not kept.
    pub(crate) fn reach(&mut self, from: Identity, reach: Reach) -> bool {
        let known = self.members.get_mut(&from.tag).filter(|known| known.generation == from.generation);
        known.is_some_and(|known| known.reach.replace(reach).is_none())
    }

    /// Where a node is reached that is not gone for good. One that is silent may be cut off from the broker only.
    pub(crate) fn reach_of(&self, tag: NodeTag) -> Option<Reach> {
        self.members.get(&tag)?.reach.clone()
    }

    /// The other nodes that are not gone for good, silent ones among them: what they publish may be on its way, and they
    /// may come back.
    pub(crate) fn peers(&self) -> Vec<Peer> {
        let peers = self.members.iter().map(|(tag, member)| Peer {
            identity: Identity { tag: *tag, generation: member.generation },
            understands: member.understands(),
        });
        peers.collect()
    }

    /// Where the other nodes listen, silent ones among them.
    pub(crate) fn audience(&self, own_buckets: u32, certain: bool) -> Audience {
        let audience = Audience::of(self.members.values().map(Member::understands), own_buckets, certain);
        Audience {
            knows_journeys: certain && self.all_understand(VERSION_3),
            knows_traced_asks: certain && self.all_understand(VERSION_4),
            ..audience
        }
    }

    /// Whether every other node, silent ones among them, has said that it understands this version of the wire format.
    fn all_understand(&self, version: u8) -> bool {
        self.members.values().all(|member| member.vitals.is_some_and(|vitals| vitals.version >= version))
    }

    /// A node leaves.
    pub(crate) fn goodbye(&mut self, from: Identity) -> Vec<Change> {
        let Some(known) = self.members.get(&from.tag).filter(|known| known.generation <= from.generation)
        else {
            return Vec::new();
        };
        let (live, generation) = (known.live, known.generation);
        self.members.remove(&from.tag);
        bury(&mut self.graves, from.tag, generation);
        let left = live.then_some(Change::Left(from.tag));
        left.into_iter().chain([Change::Gone(Identity { tag: from.tag, generation })]).collect()
    }

    /// What this node said to all at `echo` came back to it. Lets go of those that were silent for too long.
    pub(crate) fn echo(&mut self, echo: Instant) -> Vec<Change> {
        let mut changes = Vec::new();
        let (graves, expiry, lease) = (&mut self.graves, self.expiry, self.lease);
        self.members.retain(|tag, member| {
            let silence = echo.saturating_duration_since(member.heard_at);
            if member.live && silence >= expiry {
                member.live = false;
                changes.push(Change::Left(*tag));
            }
            let gone = !member.live && silence >= lease;
            if gone {
                bury(graves, *tag, member.generation);
                changes.push(Change::Gone(Identity { tag: *tag, generation: member.generation }));
            }
            !gone
        });
        changes
    }

    /// This node could not hear and does again: everybody has the whole time to be heard.
    pub(crate) fn hear(&mut self, now: Instant) {
        self.members.values_mut().for_each(|member| member.heard_at = now);
    }

    /// True if the node lives.
    pub(crate) fn contains(&self, tag: NodeTag) -> bool {
        self.members.get(&tag).is_some_and(|member| member.live)
    }

    /// The other nodes that live, in the order of their tags.
    pub(crate) fn live(&self) -> impl Iterator<Item = (NodeTag, &Member)> {
        self.members.iter().filter(|(_, member)| member.live).map(|(tag, member)| (*tag, member))
    }

    /// True if the node is not gone for good.
    pub(crate) fn is_known(&self, node: Identity) -> bool {
        self.members.get(&node.tag).is_some_and(|member| member.generation == node.generation)
    }

    /// The other nodes that are not gone for good.
    pub(crate) fn known(&self) -> Vec<Identity> {
        let known = self.members.iter();
        known.map(|(tag, member)| Identity { tag: *tag, generation: member.generation }).collect()
    }

    /// The other nodes that live.
    pub(crate) fn tags(&self) -> Vec<NodeTag> {
        self.live().map(|(tag, _)| tag).collect()
    }
}

fn bury(graves: &mut IndexMap<NodeTag, u64, FxBuildHasher>, tag: NodeTag, generation: u64) {
    if graves.len() == MAX_GRAVES {
        graves.shift_remove_index(0);
    }
    graves.insert(tag, generation);
}

#[cfg(test)]
mod tests {
    use super::*;

    const EXPIRY: Duration = Duration::from_secs(5);
    const LEASE: Duration = Duration::from_secs(15);
    const SECOND: Duration = Duration::from_secs(1);

    fn node(tag: &str, generation: u64) -> Identity {
        Identity { tag: tag.parse().unwrap(), generation }
    }

    fn joined(tag: &str) -> Change {
        Change::Joined(tag.parse().unwrap())
    }

    fn left(tag: &str) -> Change {
        Change::Left(tag.parse().unwrap())
    }

    #[test]
    fn a_node_lives_while_it_is_heard() {
        let (mut members, mut now) = (Membership::new(EXPIRY, LEASE), Instant::now());
        assert_eq!(members.heartbeat(node("aaaa", 1), now), [joined("aaaa")]);
        assert_eq!(members.heartbeat(node("bbbb", 1), now), [joined("bbbb")]);
        for _ in 0..10 {
            now += SECOND;
            assert!(members.heartbeat(node("aaaa", 1), now).is_empty());
            members.echo(now);
        }
        assert_eq!(members.tags(), ["aaaa".parse().unwrap()]);
        assert!(members.echo(now + EXPIRY - Duration::from_nanos(1)).is_empty());
        assert_eq!(members.echo(now + EXPIRY), [left("aaaa"), Change::Gone(node("bbbb", 1))]);
    }

    #[test]
    fn a_silent_node_comes_back_before_its_lease_is_over_and_not_after() {
        let (mut members, now) = (Membership::new(EXPIRY, LEASE), Instant::now());
        members.heartbeat(node("aaaa", 3), now);
        assert_eq!(members.echo(now + EXPIRY), [left("aaaa")]);
        assert!(!members.contains("aaaa".parse().unwrap()));
        let back = now + LEASE - SECOND;
        assert_eq!(members.heartbeat(node("aaaa", 3), back), [joined("aaaa")]);
        assert_eq!(members.echo(back + LEASE), [left("aaaa"), Change::Gone(node("aaaa", 3))]);
        for generation in 2..=3 {
            let revenant = node("aaaa", generation);
            assert_eq!(members.heartbeat(revenant, back + LEASE), [Change::Revenant(revenant)]);
        }
        assert_eq!(members.heartbeat(node("aaaa", 4), back + LEASE), [joined("aaaa")]);
        assert_eq!(members.goodbye(node("aaaa", 4)), [left("aaaa"), Change::Gone(node("aaaa", 4))]);
        let late = node("aaaa", 4);
        assert_eq!(members.heartbeat(late, back + LEASE), [Change::Revenant(late)]);
        assert!(!members.is_known(late) && members.tags().is_empty());
    }

    #[test]
    fn a_later_generation_takes_the_place_of_an_earlier_one() {
        let (mut members, now) = (Membership::new(EXPIRY, LEASE), Instant::now());
        members.heartbeat(node("aaaa", 5), now);
        members.vitals(node("aaaa", 5), Vitals { sockets: 7, ..Vitals::default() });
        assert!(members.heartbeat(node("aaaa", 4), now).is_empty());
        assert!(members.goodbye(node("aaaa", 4)).is_empty());
        let changes = members.heartbeat(node("aaaa", 6), now);
        assert_eq!(changes, [left("aaaa"), Change::Gone(node("aaaa", 5)), joined("aaaa")]);
        members.vitals(node("aaaa", 5), Vitals::default());
        assert!(members.live().all(|(_, member)| member.vitals.is_none()));
    }

    #[test]
    fn nobody_dies_while_this_node_hears_no_echo() {
        let (mut members, now) = (Membership::new(EXPIRY, LEASE), Instant::now());
        let echo = now;
        members.heartbeat(node("aaaa", 1), now);
        // Late, because this node is behind with reading: its own echo is late as well.
        members.heartbeat(node("aaaa", 1), now + 10 * EXPIRY);
        assert!(members.echo(echo + 9 * EXPIRY).is_empty());
        let later = now + 20 * EXPIRY;
        members.hear(later);
        assert!(members.echo(later + EXPIRY - SECOND).is_empty());
        assert_eq!(members.echo(later + EXPIRY), [left("aaaa")]);
    }

    fn made_up(number: u32) -> Identity {
        let [_, random @ ..] = number.to_be_bytes();
        Identity { tag: NodeTag::from_random(random), generation: 1 }
    }

    #[test]
    fn graves_are_bounded() {
        let (mut members, now) = (Membership::new(EXPIRY, LEASE), Instant::now());
        for number in 0..MAX_GRAVES as u32 + 5 {
            members.heartbeat(made_up(number), now);
            members.goodbye(made_up(number));
        }
        assert_eq!((members.graves.len(), members.members.len()), (MAX_GRAVES, 0));
    }

    #[test]
    fn members_are_bounded_until_some_are_gone() {
        let (mut members, now) = (Membership::new(EXPIRY, LEASE), Instant::now());
        let real = node("aaaa", 1);
        members.heartbeat(real, now);
        let many = 1..MAX_MEMBERS as u32 + 5;
        let refused = many.map(|number| members.heartbeat(made_up(number), now));
        let refused = refused.filter(|changes| matches!(changes[..], [Change::Refused(_)])).count();
        assert_eq!((refused, members.members.len()), (5, MAX_MEMBERS));
        // Those who are known are heard, and the others in their place.
        assert!(members.heartbeat(real, now + LEASE).is_empty());
        members.echo(now + LEASE);
        assert_eq!(members.known(), [real]);
        assert_eq!(members.heartbeat(node("bbbb", 1), now + LEASE), [joined("bbbb")]);
    }
}
