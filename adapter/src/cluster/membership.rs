//! Who else is in the cluster: a state machine without a clock.
//!
//! Owns the other nodes that live, by what they say themselves. A node is a member from its first heartbeat until its
//! goodbye, or until it was silent for too long. Subscribers of the broker are never counted.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::message::Identity;
use crate::id::NodeTag;

#[derive(Debug)]
struct Member {
    generation: u64,
    expires_at: Instant,
}

/// What changed.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Change {
    Joined(NodeTag),
    Left(NodeTag),
}

#[derive(Debug)]
pub(crate) struct Membership {
    members: BTreeMap<NodeTag, Member>,
    expiry: Duration,
    /// While this node cannot hear, silence says nothing about the others.
    deaf: bool,
}

impl Membership {
    pub(crate) fn new(expiry: Duration) -> Self {
        Self { members: BTreeMap::new(), expiry, deaf: false }
    }

    /// A node said that it lives. A later generation takes the place of an earlier one, which must have died.
    pub(crate) fn heartbeat(&mut self, from: Identity, now: Instant) -> Vec<Change> {
        let member = Member { generation: from.generation, expires_at: now + self.expiry };
        match self.members.get_mut(&from.tag) {
            Some(known) if known.generation > from.generation => Vec::new(),
            Some(known) => {
                let replaced = known.generation < from.generation;
                *known = member;
                if replaced { vec![Change::Left(from.tag), Change::Joined(from.tag)] } else { Vec::new() }
            }
            None => {
                self.members.insert(from.tag, member);
                vec![Change::Joined(from.tag)]
            }
        }
    }

    /// A node leaves.
    pub(crate) fn goodbye(&mut self, from: Identity) -> Vec<Change> {
        match self.members.get(&from.tag) {
            Some(known) if known.generation <= from.generation => {
                self.members.remove(&from.tag);
                vec![Change::Left(from.tag)]
            }
            _ => Vec::new(),
        }
    }

    /// Lets go of those that were silent for too long.
    pub(crate) fn expire(&mut self, now: Instant) -> Vec<Change> {
        if self.deaf {
            return Vec::new();
        }
        let dead = self.members.iter().filter(|(_, member)| member.expires_at <= now);
        let dead: Vec<_> = dead.map(|(tag, _)| *tag).collect();
        self.members.retain(|_, member| member.expires_at > now);
        dead.into_iter().map(Change::Left).collect()
    }

    /// This node lost the broker: nobody expires for now.
    pub(crate) fn deafen(&mut self) {
        self.deaf = true;
    }

    /// This node hears again: everybody has the whole time to be heard.
    pub(crate) fn hear(&mut self, now: Instant) {
        self.deaf = false;
        self.members.values_mut().for_each(|member| member.expires_at = now + self.expiry);
    }

    pub(crate) fn contains(&self, tag: NodeTag) -> bool {
        self.members.contains_key(&tag)
    }

    /// The other nodes that live.
    pub(crate) fn tags(&self) -> Vec<NodeTag> {
        self.members.keys().copied().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EXPIRY: Duration = Duration::from_secs(5);
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
        let (mut members, mut now) = (Membership::new(EXPIRY), Instant::now());
        assert_eq!(members.heartbeat(node("aaaa", 1), now), [joined("aaaa")]);
        assert_eq!(members.heartbeat(node("bbbb", 1), now), [joined("bbbb")]);
        for _ in 0..10 {
            now += SECOND;
            assert!(members.heartbeat(node("aaaa", 1), now).is_empty());
            members.expire(now);
        }
        assert_eq!(members.tags(), ["aaaa".parse().unwrap()]);
        assert!(members.expire(now + EXPIRY - Duration::from_nanos(1)).is_empty());
        assert_eq!(members.expire(now + EXPIRY), [left("aaaa")]);
    }

    #[test]
    fn a_later_generation_takes_the_place_of_an_earlier_one() {
        let (mut members, now) = (Membership::new(EXPIRY), Instant::now());
        members.heartbeat(node("aaaa", 5), now);
        assert!(members.heartbeat(node("aaaa", 4), now).is_empty());
        assert!(members.goodbye(node("aaaa", 4)).is_empty());
        assert_eq!(members.heartbeat(node("aaaa", 6), now), [left("aaaa"), joined("aaaa")]);
        assert_eq!(members.goodbye(node("aaaa", 6)), [left("aaaa")]);
        assert!(members.goodbye(node("aaaa", 6)).is_empty());
    }

    #[test]
    fn nobody_dies_while_this_node_is_deaf() {
        let (mut members, now) = (Membership::new(EXPIRY), Instant::now());
        members.heartbeat(node("aaaa", 1), now);
        members.deafen();
        let later = now + 10 * EXPIRY;
        assert!(members.expire(later).is_empty());
        members.hear(later);
        assert!(members.expire(later + EXPIRY - SECOND).is_empty());
        assert_eq!(members.expire(later + EXPIRY), [left("aaaa")]);
    }
}
