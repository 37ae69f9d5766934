//! The ids of messages that came lately on one of several subjects. Bounded: the oldest are forgotten.

use std::collections::VecDeque;

use rustc_hash::FxHashSet;

use super::message::Identity;
use crate::id::NodeTag;

type Key = (NodeTag, u64, u64);

pub(crate) struct Recent {
    known: FxHashSet<Key>,
    order: VecDeque<Key>,
    max: usize,
}

impl Recent {
    pub(crate) fn new(max: usize) -> Self {
        Self { known: FxHashSet::default(), order: VecDeque::new(), max: max.max(1) }
    }

    /// True the first time.
    pub(crate) fn is_new(&mut self, from: Identity, id: u64) -> bool {
        let key = (from.tag, from.generation, id);
        if !self.known.insert(key) {
            return false;
        }
        if self.order.len() == self.max
            && let Some(oldest) = self.order.pop_front()
        {
            self.known.remove(&oldest);
        }
        self.order.push_back(key);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_copy_is_new_and_the_oldest_are_forgotten() {
        let node = |generation| Identity { tag: "aaaa".parse().unwrap(), generation };
        let mut recent = Recent::new(2);
        assert!(recent.is_new(node(1), 1));
        assert!(!recent.is_new(node(1), 1));
        assert!(recent.is_new(node(2), 1));
        assert!(recent.is_new(node(1), 2));
        assert!(recent.is_new(node(1), 1));
        assert_eq!((recent.known.len(), recent.order.len()), (2, 2));
    }
}
