//! Which rooms and sockets of a namespace of this node have changed since they were last told.
//!
//! Owns names only: what has become of them is looked up when it is told, so marking costs next to nothing.

use std::hash::RandomState;

use indexmap::IndexSet;
use parking_lot::Mutex;
use rustc_hash::FxBuildHasher;

use crate::id::SocketId;
use crate::selector::Room;

/// Names that memory is kept for.
const KEEP: usize = 16_384;

#[derive(Debug, Default)]
pub(crate) struct Marks {
    /// Names are the users' own, hence a keyed hash.
    pub(crate) rooms: IndexSet<Room, RandomState>,
    pub(crate) sockets: IndexSet<SocketId, FxBuildHasher>,
}

/// The marks, and those of the time before, for their memory.
#[derive(Debug, Default)]
pub(crate) struct Dirty(Mutex<Marks>);

impl Dirty {
    pub(crate) fn room(&self, room: &Room) {
        let mut marks = self.0.lock();
        if !marks.rooms.contains(room) {
            marks.rooms.insert(Room::clone(room));
        }
    }

    pub(crate) fn socket(&self, id: SocketId) {
        self.0.lock().sockets.insert(id);
    }

    /// Takes the marks, and leaves memory for as many.
    pub(crate) fn take(&self, spare: &mut Marks) {
        spare.rooms.clear();
        spare.sockets.clear();
        spare.rooms.shrink_to(KEEP);
        spare.sockets.shrink_to(KEEP);
        std::mem::swap(&mut *self.0.lock(), spare);
    }
}
