//! What waits in a mailbox. Empty it owns no memory, and neither does it with one item, which is nearly always all there is:
//! an emit to many writes that item into a line of memory that it has to touch anyhow.

use std::cell::Cell;
use std::collections::VecDeque;

use super::Item;

/// Items that a buffer may have room for which a thread keeps for the next burst.
const SPARE: usize = 64;

thread_local! {
    static BUFFER: Cell<Option<Box<Rest>>> = const { Cell::new(None) };
}

/// Items in order, which leave all at once.
#[derive(Debug, Default)]
pub(super) struct Queue {
    /// There is one while there are any.
    first: Option<Item>,
    /// Boxed: each idle connection has room for it.
    rest: Option<Box<Rest>>,
}

#[derive(Debug, Default)]
struct Rest {
    items: VecDeque<Item>,
}

impl Queue {
    pub(super) fn len(&self) -> usize {
        usize::from(self.first.is_some()) + self.rest.as_ref().map_or(0, |rest| rest.items.len())
    }

    pub(super) fn is_empty(&self) -> bool {
        self.first.is_none()
    }

    pub(super) fn push(&mut self, item: Item) {
        if self.first.is_none() {
            self.first = Some(item);
            return;
        }
        // A thread that ends has none to lend.
        let lent = || BUFFER.try_with(Cell::take).ok().flatten().unwrap_or_default();
        let rest = self.rest.get_or_insert_with(lent);
        rest.items.push_back(item);
    }

    /// Appends everything to a batch.
    pub(super) fn take_into(&mut self, batch: &mut VecDeque<Item>) {
        batch.extend(self.first.take());
        let Some(mut rest) = self.rest.take() else { return };
        batch.append(&mut rest.items);
        if rest.items.capacity() <= SPARE {
            let _ = BUFFER.try_with(|buffer| buffer.set(Some(rest)));
        }
    }

    #[cfg(test)]
    pub(super) fn capacity(&self) -> usize {
        self.rest.as_ref().map_or(0, |rest| rest.items.capacity())
    }
}

#[cfg(test)]
mod tests {
    use super::super::CloseCause;
    use super::*;

    fn item(number: u8) -> Item {
        let mut random = [0; 12];
        random[0] = number;
        let socket = crate::id::SocketId::new(crate::id::NodeTag::from_random([1, 2, 3]), random);
        Item::Disconnect { socket, close: false }
    }

    #[test]
    fn items_leave_in_order_and_leave_no_memory_behind() {
        let mut queue = Queue::default();
        let mut batch = VecDeque::from([Item::Close(CloseCause::Requested)]);
        for count in [0, 1, 2, 200, 1, 3] {
            batch.truncate(1);
            (0..count).for_each(|number| queue.push(item(number)));
            assert_eq!(queue.len(), usize::from(count));
            assert_eq!(queue.is_empty(), count == 0);
            assert!(queue.capacity() > 0 || count < 2);
            queue.take_into(&mut batch);
            assert_eq!((queue.len(), queue.capacity()), (0, 0));
            let expected = (0..count).map(|number| format!("{:?}", item(number)));
            assert!(batch.iter().skip(1).map(|item| format!("{item:?}")).eq(expected));
        }
    }
}
