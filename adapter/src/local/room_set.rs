//! The rooms of one socket. Most sockets are in a few: those are a short list, which takes a fraction of a hash table's
//! memory and is searched as quickly. Keeps the order of joining.

use std::hash::RandomState;

use indexmap::IndexSet;

use crate::selector::Room;

/// With more rooms than these a socket gets a table.
const FEW: usize = 16;

#[derive(Debug)]
pub(crate) enum RoomSet {
    Few(Vec<Room>),
    /// Names are the users' own, hence a keyed hash.
    Many(Box<IndexSet<Room, RandomState>>),
}

impl Default for RoomSet {
    fn default() -> Self {
        Self::Few(Vec::new())
    }
}

impl RoomSet {
    pub(crate) fn contains(&self, room: &str) -> bool {
        match self {
            Self::Few(rooms) => rooms.iter().any(|known| **known == *room),
            Self::Many(rooms) => rooms.contains(room),
        }
    }

    /// Adds a room that is not in the set.
    pub(crate) fn push(&mut self, room: Room) {
        match self {
            Self::Few(rooms) if rooms.len() < FEW => {
                if rooms.len() == rooms.capacity() {
                    // A vector of its own accord begins with room for four.
                    rooms.reserve_exact(rooms.len().max(1));
                }
                rooms.push(room);
            }
            Self::Few(rooms) => {
                let rooms = std::mem::take(rooms).into_iter().chain([room]);
                *self = Self::Many(Box::new(rooms.collect()));
            }
            Self::Many(rooms) => {
                rooms.insert(room);
            }
        }
    }

    /// Takes a room out. The others keep their order.
    pub(crate) fn take(&mut self, room: &str) -> Option<Room> {
        match self {
            Self::Few(rooms) => {
                let at = rooms.iter().position(|known| **known == *room)?;
                Some(rooms.remove(at))
            }
            Self::Many(rooms) => {
                let taken = rooms.shift_take(room)?;
                // Well below the bound, so that one room that comes and goes does not turn one into the other.
                if rooms.len() <= FEW / 2 {
                    *self = Self::Few(std::mem::take(&mut **rooms).into_iter().collect());
                }
                Some(taken)
            }
        }
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Room> {
        let (few, many) = match self {
            Self::Few(rooms) => (Some(rooms), None),
            Self::Many(rooms) => (None, Some(rooms)),
        };
        few.into_iter().flatten().chain(many.into_iter().flat_map(|rooms| rooms.iter()))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Beside a plain list, through both forms and back.
        #[test]
        fn a_set_is_a_list_without_repetitions(steps in proptest::collection::vec((any::<bool>(), 0..40_u8), 0..300)) {
            let (mut set, mut list) = (RoomSet::default(), Vec::<Room>::new());
            for (join, number) in steps {
                let room = Room::from(format!("r{number}"));
                prop_assert_eq!(set.contains(&room), list.contains(&room));
                if join && !set.contains(&room) {
                    set.push(Room::clone(&room));
                    list.push(room);
                } else if !join {
                    let at = list.iter().position(|known| *known == room);
                    prop_assert_eq!(set.take(&room), at.map(|at| list.remove(at)));
                }
                prop_assert!(set.iter().eq(list.iter()));
            }
        }
    }

    #[test]
    fn a_table_is_for_many_rooms_only() {
        assert_eq!(size_of::<RoomSet>(), size_of::<Vec<Room>>());
        let mut set = RoomSet::default();
        (0..=FEW).for_each(|number| set.push(format!("r{number}").into()));
        assert!(matches!(set, RoomSet::Many(_)));
        (0..=FEW / 2).for_each(|number| drop(set.take(&format!("r{number}"))));
        assert!(matches!(&set, RoomSet::Few(rooms) if rooms.len() == FEW / 2));
    }
}
