//! Who owns which part of the directory: rendezvous hashing, the same on every node.
//!
//! Owns the way from a key to its owners. A key belongs to a slot, and a slot to the two nodes that score highest for it,
//! so when a node comes or goes only its own slots move. What is hashed here is part of the wire: it never changes.

use crate::cluster::message::Identity;
use crate::id::NodeTag;

/// The parts of the directory.
pub(crate) const SLOTS: usize = 4_096;
const NOBODY: u16 = u16::MAX;

/// A part of the directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Slot(u16);

impl Slot {
    /// The slot of a room, or of a socket by its id.
    pub(crate) fn of(namespace: &str, room: &str) -> Self {
        // FNV-1a. No text has the byte in between.
        let bytes = namespace.bytes().chain([0xff]).chain(room.bytes());
        let hash = bytes.fold(0xcbf2_9ce4_8422_2325, |hash: u64, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
        });
        Self((mix(hash) >> 52) as u16)
    }

    pub(crate) fn new(number: u16) -> Option<Self> {
        (usize::from(number) < SLOTS).then_some(Self(number))
    }

    pub(crate) fn number(self) -> u16 {
        self.0
    }

    pub(crate) fn all() -> impl Iterator<Item = Self> {
        (0..SLOTS as u16).map(Self)
    }
}

/// A set of slots.
#[derive(Debug, Clone)]
pub(crate) struct Slots(Box<[u64; SLOTS / 64]>);

impl Slots {
    pub(crate) fn none() -> Self {
        Self(Box::new([0; SLOTS / 64]))
    }

    pub(crate) fn insert(&mut self, slot: Slot) {
        self.0[usize::from(slot.0) / 64] |= 1 << (slot.0 % 64);
    }

    pub(crate) fn contains(&self, slot: Slot) -> bool {
        self.0[usize::from(slot.0) / 64] & 1 << (slot.0 % 64) != 0
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.iter().all(|word| *word == 0)
    }

    pub(crate) fn clear(&mut self) {
        self.0.fill(0);
    }
}

/// The live nodes that keep the directory, and the owners of each slot among them.
#[derive(Debug, Clone)]
pub(crate) struct Ring {
    members: Vec<Identity>,
    /// Places in `members`, the primary's first.
    owners: Vec<[u16; 2]>,
    hash: u64,
}

impl Ring {
    /// The ring of some nodes, one life of each.
    pub(crate) fn new(mut members: Vec<Identity>) -> Self {
        members.sort_unstable_by_key(|member| member.tag);
        members.truncate(usize::from(NOBODY));
        let seeds: Vec<_> = members.iter().map(|member| mix(number(member.tag))).collect();
        let owners = Slot::all().map(|slot| top_two(slot, &seeds)).collect();
        let hash =
            members.iter().fold(1, |hash, member| mix(mix(hash ^ number(member.tag)) ^ member.generation));
        Self { members, owners, hash: hash.max(1) }
    }

    /// Names the members. Never 0.
    pub(crate) fn hash(&self) -> u64 {
        self.hash
    }

    /// In the order of their tags.
    pub(crate) fn members(&self) -> &[Identity] {
        &self.members
    }

    pub(crate) fn contains(&self, node: Identity) -> bool {
        self.member(node.tag) == Some(node)
    }

    pub(crate) fn member(&self, tag: NodeTag) -> Option<Identity> {
        let at = self.members.binary_search_by_key(&tag, |member| member.tag).ok()?;
        self.members.get(at).copied()
    }

    /// The owners of a slot, the primary first.
    pub(crate) fn owners(&self, slot: Slot) -> impl Iterator<Item = Identity> + '_ {
        let owners = self.owners.get(usize::from(slot.0)).copied().unwrap_or([NOBODY; 2]);
        owners.into_iter().filter_map(|at| self.members.get(usize::from(at)).copied())
    }

    pub(crate) fn primary(&self, slot: Slot) -> Option<Identity> {
        self.owners(slot).next()
    }

    /// The slots of which a node is an owner.
    pub(crate) fn slots_of(&self, node: Identity) -> Slots {
        let mut slots = Slots::none();
        Slot::all().filter(|slot| self.owns(node, *slot)).for_each(|slot| slots.insert(slot));
        slots
    }

    pub(crate) fn owns(&self, node: Identity, slot: Slot) -> bool {
        self.owners(slot).any(|owner| owner == node)
    }
}

fn top_two(slot: Slot, seeds: &[u64]) -> [u16; 2] {
    let (mut best, mut owners) = ([0; 2], [NOBODY; 2]);
    for (at, seed) in seeds.iter().enumerate() {
        let score = mix(seed ^ u64::from(slot.0));
        let at = at as u16;
        if owners[0] == NOBODY || score > best[0] {
            (best, owners) = ([score, best[0]], [at, owners[0]]);
        } else if owners[1] == NOBODY || score > best[1] {
            (best[1], owners[1]) = (score, at);
        }
    }
    owners
}

fn number(tag: NodeTag) -> u64 {
    tag.as_str().bytes().fold(0, |number, byte| number << 8 | u64::from(byte))
}

/// The finalizer of SplitMix64.
fn mix(mut bits: u64) -> u64 {
    bits = bits.wrapping_add(0x9e37_79b9_7f4a_7c15);
    bits = (bits ^ bits >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    bits = (bits ^ bits >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    bits ^ bits >> 31
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nodes(count: u8) -> Vec<Identity> {
        let node = |number| Identity { tag: NodeTag::from_random([7, number, 9]), generation: 1 };
        (0..count).map(node).collect()
    }

    #[test]
    fn every_node_finds_the_same_owners() {
        let mut reversed = nodes(5);
        reversed.reverse();
        let (ring, other) = (Ring::new(nodes(5)), Ring::new(reversed));
        assert_eq!((ring.hash(), &ring.owners), (other.hash(), &other.owners));
        // Of the wire: nodes of other releases must find them too.
        assert_eq!(Slot::of("/", "lobby").number(), GOLDEN.0);
        assert_eq!(Slot::of("/chat", "é").number(), GOLDEN.1);
        assert_eq!(ring.hash(), GOLDEN.2);
        assert_ne!(Slot::of("a", "bc"), Slot::of("ab", "c"));
    }

    /// Calculated apart from this code.
    const GOLDEN: (u16, u16, u64) = (537, 2169, 0x8053_9ab6_2ddc_6fcc);

    #[test]
    fn slots_are_spread_and_two_nodes_own_each() {
        for count in 2..12 {
            let ring = Ring::new(nodes(count));
            let mut owned = vec![0_usize; usize::from(count)];
            for slot in Slot::all() {
                let owners: Vec<_> = ring.owners(slot).collect();
                assert!(owners.len() == 2 && owners[0] != owners[1]);
                owned[usize::from(ring.owners[usize::from(slot.0)][0])] += 1;
            }
            let fair = SLOTS / usize::from(count);
            assert!(owned.iter().all(|own| (fair * 7 / 10..fair * 13 / 10).contains(own)), "{owned:?}");
        }
        let alone = Ring::new(nodes(1));
        assert!(Slot::all().all(|slot| alone.owners(slot).count() == 1));
        assert!(Slot::all().all(|slot| Ring::new(Vec::new()).primary(slot).is_none()));
    }

    #[test]
    fn only_the_slots_of_a_node_move_with_it() {
        let (with, without) = (Ring::new(nodes(6)), Ring::new(nodes(5)));
        let newcomer = nodes(6)[5];
        for slot in Slot::all() {
            let kept: Vec<_> = with.owners(slot).filter(|owner| *owner != newcomer).collect();
            assert!(without.owners(slot).zip(kept).all(|(before, after)| before == after));
        }
        assert_ne!(with.hash(), without.hash());
    }
}
