//! What a connection holds back for a while: events, while as many handlers wait as may; and mail of sockets whose client
//! does not know yet that they are connected.
//!
//! Most connections hold nothing for most of their lives, and own no memory for it then.

use std::collections::VecDeque;
use std::sync::Arc;

use roomcast_adapter::Outgoing;

use crate::namespace::{Event, Socket};

#[derive(Default)]
struct Queues {
    /// By slot, in the order in which they came.
    events: VecDeque<(usize, Socket, Event)>,
    /// By slot, in the order in which it came.
    mail: Vec<(usize, Arc<Outgoing>)>,
}

/// The two queues.
#[derive(Default)]
pub(super) struct Held(Option<Box<Queues>>);

impl Held {
    /// Events that wait.
    pub(super) fn events(&self) -> usize {
        self.0.as_ref().map_or(0, |queues| queues.events.len())
    }

    pub(super) fn push_event(&mut self, slot: usize, socket: Socket, event: Event) {
        self.0.get_or_insert_default().events.push_back((slot, socket, event));
    }

    pub(super) fn pop_event(&mut self) -> Option<(usize, Socket, Event)> {
        let event = self.0.as_mut()?.events.pop_front();
        self.let_go();
        event
    }

    /// Holds a packet back; tells how many there are now.
    pub(super) fn push_mail(&mut self, slot: usize, outgoing: Arc<Outgoing>) -> usize {
        let mail = &mut self.0.get_or_insert_default().mail;
        mail.push((slot, outgoing));
        mail.len()
    }

    /// The packets of a slot.
    pub(super) fn take_mail(&mut self, slot: usize) -> Vec<Arc<Outgoing>> {
        let Some(queues) = &mut self.0 else { return Vec::new() };
        let taken = queues.mail.extract_if(.., |(of, _)| *of == slot).map(|(_, outgoing)| outgoing).collect();
        self.let_go();
        taken
    }

    fn let_go(&mut self) {
        self.0.take_if(|queues| queues.events.is_empty() && queues.mail.is_empty());
    }
}

#[cfg(test)]
mod tests {
    use roomcast_protocol::socketio::EncodedPacket;

    use super::*;

    #[test]
    fn mail_is_kept_by_slot_and_in_order() {
        let mut held = Held::default();
        let packet = || Outgoing::new(EncodedPacket::engine_text("x"));
        let packets = [packet(), packet(), packet()];
        for (at, packet) in packets.iter().enumerate() {
            assert_eq!(held.push_mail(at % 2, Arc::clone(packet)), at + 1);
        }
        let of_first = held.take_mail(0);
        assert!(
            of_first.iter().zip([&packets[0], &packets[2]]).all(|(taken, packet)| Arc::ptr_eq(taken, packet))
        );
        assert!(held.0.is_some() && held.take_mail(0).is_empty());
        assert_eq!(held.take_mail(1).len(), 1);
        assert!(held.0.is_none(), "nothing is held, and no memory");
    }
}
