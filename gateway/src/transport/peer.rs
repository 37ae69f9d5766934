//! Who sends a request, and the place of its TCP connection among those that no session needs.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

use parking_lot::Mutex;
use prometheus::IntGauge;
use tokio::sync::Notify;

/// Who sends a request. Whoever learns the address of a client behind a proxy has to put it here: sockets, backends and
/// limits go by it.
#[derive(Debug, Clone)]
pub(crate) struct Peer {
    /// The port is 0 where a proxy did not tell it.
    pub(crate) address: Option<SocketAddr>,
    /// Whether it is encrypted, as far as this node, or a proxy that is trusted, can say.
    pub(crate) secure: bool,
    /// The place of its connection, where connections are counted.
    pub(crate) place: Option<Arc<PendingPlace>>,
}

impl Peer {
    /// A peer whose connection is not counted.
    pub(crate) fn new(address: Option<SocketAddr>, secure: bool) -> Self {
        Self { address, secure, place: None }
    }

    /// The request is one of a session: from now on its connection counts as the session's.
    pub(crate) fn has_session(&self) {
        if let Some(place) = &self.place {
            place.leave();
        }
    }
}

/// The TCP connections that no session needs: new ones, and those that are kept open between two requests. A connection
/// that carries a request of a session, or is its WebSocket, is bounded with the sessions.
#[derive(Debug)]
pub(crate) struct Pending {
    count: AtomicUsize,
    max: usize,
    gauge: IntGauge,
    line: Option<Line>,
}

impl Pending {
    pub(crate) fn new(max: usize, gauge: IntGauge) -> Arc<Self> {
        Arc::new(Self { count: AtomicUsize::new(0), max, gauge, line: None })
    }

    /// Of these the oldest makes room for a new one: for a port where whoever belongs there shows it at once, and anybody
    /// may fill the places.
    pub(crate) fn in_line(max: usize, gauge: IntGauge) -> Arc<Self> {
        Arc::new(Self { count: AtomicUsize::new(0), max, gauge, line: Some(Line::default()) })
    }

    /// A place for a new connection, unless all are taken.
    pub(crate) fn enter(self: &Arc<Self>) -> Option<PendingPlace> {
        let room = |count| (count < self.max).then_some(count + 1);
        match self.count.fetch_update(Ordering::Relaxed, Ordering::Relaxed, room) {
            Ok(_) => self.gauge.inc(),
            // That of the oldest goes to the new one.
            Err(_) => self.line.as_ref()?.displace_oldest()?,
        }
        let seat = Arc::new(Seat { is_held: AtomicBool::new(true), displaced: Notify::new() });
        let number = self.line.as_ref().map(|line| line.append(&seat));
        Some(PendingPlace { pending: Arc::clone(self), seat, number })
    }
}

/// Connections in the order in which they came, as long as they have their places.
#[derive(Debug, Default)]
struct Line {
    next: AtomicU64,
    seats: Mutex<BTreeMap<u64, Arc<Seat>>>,
}

impl Line {
    fn append(&self, seat: &Arc<Seat>) -> u64 {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        self.seats.lock().insert(number, Arc::clone(seat));
        number
    }

    /// Takes the place of the oldest connection away, without giving it back.
    fn displace_oldest(&self) -> Option<()> {
        let mut seats = self.seats.lock();
        loop {
            let (_, oldest) = seats.pop_first()?;
            // Unless it is just giving it back.
            if oldest.is_held.swap(false, Ordering::Relaxed) {
                oldest.displaced.notify_one();
                return Some(());
            }
        }
    }
}

#[derive(Debug)]
struct Seat {
    is_held: AtomicBool,
    displaced: Notify,
}

/// The place of one connection. Given back when the connection ends.
#[derive(Debug)]
pub(crate) struct PendingPlace {
    pending: Arc<Pending>,
    seat: Arc<Seat>,
    /// In the line, where there is one.
    number: Option<u64>,
}

impl PendingPlace {
    fn leave(&self) {
        if self.seat.is_held.swap(false, Ordering::Relaxed) {
            if let (Some(line), Some(number)) = (&self.pending.line, self.number) {
                line.seats.lock().remove(&number);
            }
            self.pending.count.fetch_sub(1, Ordering::Relaxed);
            self.pending.gauge.dec();
        }
    }

    /// Ready when a newer connection has got the place: this one is to be closed.
    pub(crate) async fn displaced(&self) {
        self.seat.displaced.notified().await;
    }

    /// The request was answered: its connection counts again, beyond the bound if need be, because its client may never
    /// read the answer. False: it should not be kept open, so that new ones always find half of the places free of those
    /// that are.
    pub(crate) fn return_from_request(&self) -> bool {
        let pending = &self.pending;
        let count = if self.seat.is_held.swap(true, Ordering::Relaxed) {
            pending.count.load(Ordering::Relaxed)
        } else {
            pending.gauge.inc();
            pending.count.fetch_add(1, Ordering::Relaxed) + 1
        };
        count <= pending.max / 2
    }
}

impl Drop for PendingPlace {
    fn drop(&mut self) {
        self.leave();
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    fn pending(max: usize) -> (Arc<Pending>, IntGauge) {
        let gauge = IntGauge::new("pending", "pending").unwrap();
        (Pending::new(max, gauge.clone()), gauge)
    }

    #[test]
    fn connections_without_a_session_are_bounded() {
        let (pending, gauge) = pending(2);
        let (first, second) = (pending.enter().unwrap(), pending.enter().unwrap());
        assert!(pending.enter().is_none());
        drop(second);
        assert!(pending.enter().is_some(), "the last one is gone again");
        first.leave();
        first.leave();
        assert_eq!(gauge.get(), 0, "it was given back once");
        let places: Vec<_> = (0..2).map_while(|_| pending.enter()).collect();
        assert_eq!((places.len(), gauge.get()), (2, 2));
    }

    #[test]
    fn in_a_line_the_oldest_stranger_makes_room_and_who_has_left_it_stays() {
        let gauge = IntGauge::new("pending", "pending").unwrap();
        let pending = Pending::in_line(2, gauge.clone());
        let is_displaced = |place: &PendingPlace| place.displaced().now_or_never().is_some();
        let node = pending.enter().unwrap();
        node.leave();
        let strangers: Vec<_> = (0..4).map(|_| pending.enter().unwrap()).collect();
        assert_eq!([0, 1, 2, 3].map(|at| is_displaced(&strangers[at])), [true, true, false, false]);
        assert!(!is_displaced(&node));
        assert_eq!(gauge.get(), 2, "a place that went to another is not given back");
        drop(strangers);
        assert_eq!((gauge.get(), pending.line.as_ref().unwrap().seats.lock().len()), (0, 0));
        assert!(Pending::in_line(0, gauge).enter().is_none());
    }

    #[test]
    fn a_connection_whose_request_was_answered_counts_again_and_is_kept_while_there_is_room() {
        let (pending, gauge) = pending(4);
        let places: Vec<_> = (0..4).map(|_| pending.enter().unwrap()).collect();
        assert!(!places[0].return_from_request(), "nor is one whose request was of no session");
        places.iter().for_each(PendingPlace::leave);
        assert_eq!(gauge.get(), 0);
        assert_eq!([0, 1, 2, 3].map(|index| places[index].return_from_request()), [true, true, false, false]);
        assert_eq!(gauge.get(), 4);
        assert!(pending.enter().is_none());
        drop(places);
        assert_eq!(gauge.get(), 0);
        assert!(pending.enter().is_some());
    }
}
