//! Which messages of each sender were acted on already, so that each is acted on once.
//!
//! A message travels on several subjects when it concerns several rooms, and a broker may bring one twice. Senders number
//! what they send, so a window of bits below the highest number seen is enough. What is below the window came long ago,
//! or is so late that its copies did: it counts as a copy.

use std::collections::VecDeque;

use indexmap::IndexMap;
use rustc_hash::FxBuildHasher;

use super::message::Identity;

/// Senders that are remembered. The oldest is forgotten first.
const MAX_SENDERS: usize = 4_096;
/// Senders that are gone and remembered nevertheless: a copy of what they said may come behind their goodbye, on another
/// subject.
const MAX_GONE: usize = 64;

#[derive(Debug)]
pub(crate) struct Recent {
    senders: IndexMap<Identity, Window, FxBuildHasher>,
    /// Those that are gone, in the order of their going.
    gone: VecDeque<Identity>,
    words: usize,
}

/// The last numbers of one sender, as a ring of bits.
#[derive(Debug)]
struct Window {
    /// The highest number that came.
    highest: u64,
    bits: Box<[u64]>,
}

impl Recent {
    /// Remembers so many numbers of each sender, rounded up to whole words.
    pub(crate) fn new(numbers: usize) -> Self {
        Self { senders: IndexMap::default(), gone: VecDeque::new(), words: numbers.div_ceil(64).max(1) }
    }

    /// True the first time.
    pub(crate) fn is_new(&mut self, from: Identity, number: u64) -> bool {
        if let Some(window) = self.senders.get_mut(&from) {
            return window.is_new(number);
        }
        if self.senders.len() == MAX_SENDERS {
            self.senders.shift_remove_index(0);
        }
        // The place of number 0 is empty, so that it is new as well.
        let window = Window { highest: 0, bits: vec![0; self.words].into() };
        self.senders.entry(from).or_insert(window).is_new(number)
    }

    /// A sender is gone for good. It is forgotten when some more are.
    pub(crate) fn forget(&mut self, from: Identity) {
        self.gone.push_back(from);
        if self.gone.len() > MAX_GONE
            && let Some(oldest) = self.gone.pop_front()
        {
            self.senders.swap_remove(&oldest);
        }
    }

    /// The number of senders that are remembered.
    #[cfg(test)]
    pub(crate) fn senders(&self) -> usize {
        self.senders.len()
    }
}

impl Window {
    fn is_new(&mut self, number: u64) -> bool {
        let size = self.bits.len() as u64 * 64;
        if number > self.highest {
            // The places of the numbers between belong to others that have left the window.
            if number - self.highest >= size {
                self.bits.fill(0);
            } else {
                (self.highest + 1..=number).for_each(|later| *self.word(later) &= !(1 << (later % 64)));
            }
            self.highest = number;
        } else if self.highest - number >= size {
            return false;
        }
        let word = self.word(number);
        let new = *word & 1 << (number % 64) == 0;
        *word |= 1 << (number % 64);
        new
    }

    fn word(&mut self, number: u64) -> &mut u64 {
        let at = (number / 64) as usize % self.bits.len();
        &mut self.bits[at]
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use proptest::prelude::*;

    use super::*;

    fn node(generation: u64) -> Identity {
        Identity { tag: "aaaa".parse().unwrap(), generation }
    }

    #[test]
    fn the_first_copy_is_new_in_whatever_order() {
        let mut recent = Recent::new(128);
        for (generation, number, new) in [
            (1, 5, true),
            (1, 5, false),
            (2, 5, true),
            (1, 3, true),
            (1, 132, true),
            (1, 3, false),
            (1, 6, true),
            (1, 6, false),
            // Far ahead: everything below the window is old.
            (1, 10_000, true),
            (1, 9_873, true),
            (1, 9_872, false),
            (1, u64::MAX, true),
            (1, u64::MAX, false),
        ] {
            assert_eq!(recent.is_new(node(generation), number), new, "{generation} {number}");
        }
    }

    #[test]
    fn senders_are_bounded() {
        let mut recent = Recent::new(1);
        (0..MAX_SENDERS as u64 + 10).for_each(|generation| assert!(recent.is_new(node(generation), 1)));
        assert_eq!(recent.senders(), MAX_SENDERS);
        assert!(recent.is_new(node(0), 1));
    }

    #[test]
    fn a_copy_that_comes_behind_the_goodbye_is_not_new() {
        let mut recent = Recent::new(1);
        assert!(recent.is_new(node(0), 1));
        recent.forget(node(0));
        assert!(!recent.is_new(node(0), 1));
        (1..=MAX_GONE as u64).for_each(|generation| recent.forget(node(generation)));
        assert_eq!(recent.senders(), 0);
    }

    proptest! {
        #[test]
        fn within_the_window_it_is_a_set(numbers in proptest::collection::vec(0_u64..192, 1..400)) {
            let (mut recent, mut known) = (Recent::new(192), HashSet::new());
            for number in numbers {
                prop_assert_eq!(recent.is_new(node(1), number), known.insert(number));
            }
        }
    }
}
