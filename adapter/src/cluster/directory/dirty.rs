//! Which rooms and sockets of a namespace of this node have changed since they were last told.
//!
//! Owns names only: what has become of them is looked up when it is told, so marking costs next to nothing.

use std::hash::RandomState;
use std::sync::Arc;

use indexmap::IndexSet;
use parking_lot::Mutex;
use rustc_hash::FxBuildHasher;
use tokio::sync::Notify;

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

/// The marks, and whom to tell of the first.
#[derive(Debug)]
pub(crate) struct Dirty {
    marks: Mutex<Marks>,
    bell: Arc<Notify>,
}

impl Dirty {
    pub(crate) fn new(bell: Arc<Notify>) -> Self {
        Self { marks: Mutex::default(), bell }
    }

    pub(crate) fn room(&self, room: &Room) {
        self.mark(|marks| {
            if !marks.rooms.contains(room) {
                marks.rooms.insert(Room::clone(room));
            }
        });
    }

    pub(crate) fn socket(&self, id: SocketId) {
        self.mark(|marks| {
            marks.sockets.insert(id);
        });
    }

    fn mark(&self, mark: impl FnOnce(&mut Marks)) {
        let mut marks = self.marks.lock();
        let first = marks.rooms.is_empty() && marks.sockets.is_empty();
        mark(&mut marks);
        drop(marks);
        if first {
            self.bell.notify_one();
        }
    }

    /// Takes the marks, and leaves memory for as many.
    pub(crate) fn take(&self, spare: &mut Marks) {
        spare.rooms.clear();
        spare.sockets.clear();
        spare.rooms.shrink_to(KEEP);
        spare.sockets.shrink_to(KEEP);
        std::mem::swap(&mut *self.marks.lock(), spare);
    }
}
