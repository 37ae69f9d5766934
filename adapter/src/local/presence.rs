//! Which rooms are occupied on a node that is alone, for whoever listens.
//!
//! Owns the task that tells, and the wait before an empty room counts as vacated. Costs a look at a flag while nobody
//! listens. Sockets are no concern of it: the node is alive, and tells itself what becomes of them.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use parking_lot::Mutex;
use tokio::sync::{Notify, mpsc};
use tokio::time::{Instant, sleep_until};

use super::factory::Namespaces;
use super::rooms::RoomObserver;
use crate::counters::Counters;
use crate::id::SocketId;
use crate::presence::PresenceEvent;
use crate::selector::Room;

/// Events that may wait for whoever listens.
const MAX_EVENTS: usize = 65_536;

type Place = (Arc<str>, Room);

/// The rooms that changed since the task looked.
#[derive(Default)]
pub(super) struct Changes {
    is_listening: AtomicBool,
    rooms: Mutex<HashSet<Place>>,
    bell: Notify,
    /// In milliseconds.
    vacate_after: AtomicU64,
    /// The number of the listener: an earlier one has ended.
    listener: AtomicU64,
    /// The node ends: nobody waits any more whether a room stays empty.
    is_ending: AtomicBool,
}

/// Notes the changes of one namespace.
pub(super) struct Watch {
    pub(super) namespace: Arc<str>,
    pub(super) changes: Arc<Changes>,
}

impl RoomObserver for Watch {
    fn occupied(&self, room: &Room) {
        self.changes.note(&self.namespace, room);
    }

    fn vacated(&self, room: &Room) {
        self.changes.note(&self.namespace, room);
    }

    fn changed(&self, _: &Room) {}

    fn socket_changed(&self, _: SocketId) {}
}

impl Changes {
    pub(super) fn set_vacate_after(&self, vacate_after: Duration) {
        let millis = u64::try_from(vacate_after.as_millis()).unwrap_or(u64::MAX);
        self.vacate_after.store(millis, Ordering::Relaxed);
    }

    pub(super) fn end(&self) {
        self.is_ending.store(true, Ordering::Release);
        self.bell.notify_one();
    }

    fn note(&self, namespace: &Arc<str>, room: &Room) {
        if self.is_listening.load(Ordering::Acquire)
            && self.rooms.lock().insert((Arc::clone(namespace), Arc::clone(room)))
        {
            self.bell.notify_one();
        }
    }
}

/// What was told of a room.
#[derive(Debug)]
struct Told {
    number: u64,
    vacate_at: Option<Instant>,
}

/// Tells what happens until nobody listens any more. `rooms` are looked at again after each change.
struct Teller {
    namespaces: Weak<Namespaces>,
    changes: Arc<Changes>,
    counters: Arc<Counters>,
    sender: mpsc::Sender<PresenceEvent>,
    /// The rooms that count as occupied.
    occupied: HashMap<Place, Told>,
    /// When to look again at rooms that became empty. All wait equally long.
    vacating: VecDeque<(Instant, Place)>,
    listener: u64,
    /// The number of the last occupation. Begins with the time, so that numbers of an earlier life are not used again.
    number: u64,
}

/// The events from now on, beginning with the rooms that are occupied.
pub(super) fn listen(
    namespaces: &Arc<Namespaces>,
    changes: &Arc<Changes>,
    counters: &Arc<Counters>,
) -> mpsc::Receiver<PresenceEvent> {
    let (sender, receiver) = mpsc::channel(MAX_EVENTS);
    let Ok(runtime) = tokio::runtime::Handle::try_current() else { return receiver };
    let listener = changes.listener.fetch_add(1, Ordering::AcqRel) + 1;
    changes.is_listening.store(true, Ordering::Release);
    for (name, adapter) in &*namespaces.lock() {
        adapter.for_each_room(|room| changes.note(name, room));
    }
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let teller = Teller {
        namespaces: Arc::downgrade(namespaces),
        changes: Arc::clone(changes),
        counters: Arc::clone(counters),
        sender,
        occupied: HashMap::new(),
        vacating: VecDeque::new(),
        listener,
        number: u64::try_from(since.as_micros()).unwrap_or_default(),
    };
    runtime.spawn(teller.run());
    receiver
}

impl Teller {
    async fn run(mut self) {
        loop {
            let next = self.vacating.front().map(|(at, _)| *at);
            let due = async {
                match next {
                    Some(at) => sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                () = self.sender.closed() => return,
                () = self.changes.bell.notified() => {}
                () = due => {}
            }
            let is_ending = self.changes.is_ending.load(Ordering::Acquire);
            if !self.look(Instant::now()) {
                return;
            }
            if is_ending {
                return self.vacate_all().await;
            }
        }
    }

    /// No room outlives the node.
    async fn vacate_all(self) {
        for ((namespace, room), Told { number, .. }) in self.occupied {
            self.counters.presence_events.add(1);
            let _ = self.sender.send(PresenceEvent::RoomVacated { namespace, room, number }).await;
        }
    }

    /// Looks at the rooms that changed, and at those whose time has come. False if the node has ended.
    fn look(&mut self, now: Instant) -> bool {
        if self.changes.listener.load(Ordering::Acquire) != self.listener {
            // What rang is the other one's to look at.
            self.changes.bell.notify_one();
            return false;
        }
        let Some(namespaces) = self.namespaces.upgrade() else { return false };
        let changed = std::mem::take(&mut *self.changes.rooms.lock());
        for place in changed {
            self.look_at(&namespaces, place, now);
        }
        while self.vacating.front().is_some_and(|(at, _)| *at <= now) {
            let Some((at, place)) = self.vacating.pop_front() else { break };
            // It may have been occupied and empty again meanwhile: then a later entry stands for it.
            if self.occupied.get(&place).is_some_and(|told| told.vacate_at == Some(at))
                && let Some(told) = self.occupied.remove(&place)
            {
                let (namespace, room) = place;
                self.tell(PresenceEvent::RoomVacated { namespace, room, number: told.number });
            }
        }
        true
    }

    fn look_at(&mut self, namespaces: &Namespaces, place: Place, now: Instant) {
        let adapter = namespaces.lock().get(&place.0).cloned();
        let is_occupied = adapter.is_some_and(|adapter| adapter.joined(&place.1) > 0);
        match (self.occupied.get_mut(&place), is_occupied) {
            (Some(told), true) => told.vacate_at = None,
            (Some(told), false) => {
                let wait = Duration::from_millis(self.changes.vacate_after.load(Ordering::Relaxed));
                told.vacate_at = Some(now + wait);
                self.vacating.push_back((now + wait, place));
            }
            (None, true) => {
                self.number += 1;
                let number = self.number;
                self.occupied.insert(place.clone(), Told { number, vacate_at: None });
                let (namespace, room) = place;
                self.tell(PresenceEvent::RoomOccupied { namespace, room, number });
            }
            // It was occupied for less than a look.
            (None, false) => {}
        }
    }

    fn tell(&self, event: PresenceEvent) {
        self.counters.presence_events.add(1);
        if self.sender.try_send(event).is_err() {
            self.counters.presence_dropped.add(1);
        }
    }
}

#[cfg(test)]
mod tests {
    use roomcast_protocol::socketio::Args;

    use super::*;
    use crate::NodeTag;
    use crate::adapter::{Adapter, AdapterFactory, Describe, LocalSocket, NamespaceEvents, ServerReply};
    use crate::local::LocalFactory;
    use crate::mailbox::{Mailbox, MailboxLimits};

    struct Nothing;

    impl NamespaceEvents for Nothing {
        fn server_side_event(&self, _: &str, _: Args, _: Option<ServerReply>) {}
    }

    impl Describe for Nothing {
        fn handshake(&self) -> serde_json::Value {
            serde_json::Value::Null
        }

        fn data(&self) -> serde_json::Value {
            serde_json::Value::Null
        }
    }

    fn socket(adapter: &dyn Adapter, id: &str) -> SocketId {
        let id = id.parse().unwrap();
        let mailbox = Mailbox::new(MailboxLimits::default());
        adapter.add(LocalSocket { id, mailbox, describe: Arc::new(Nothing) });
        id
    }

    #[tokio::test(start_paused = true)]
    async fn rooms_are_occupied_at_once_and_vacated_after_a_while() {
        let factory = LocalFactory::new(NodeTag::from_random([1, 2, 3]));
        let adapter = factory.namespace("/", Arc::new(Nothing));
        let (a, b) = (socket(&*adapter, "AAAAAAAAAAAAAAAAAAAA"), socket(&*adapter, "AAAAAAAAAAAAAAAAAAAB"));
        let _ = adapter.join(a, &["before".into()]).await;
        factory.set_vacate_after(Duration::from_secs(3));
        let mut events = factory.presence();
        let occupied = |room: &str| match room {
            "before" | "r" | "late" => room.to_owned(),
            other => panic!("{other}"),
        };
        let Some(PresenceEvent::RoomOccupied { room, number: first, .. }) = events.recv().await else {
            panic!()
        };
        assert_eq!(occupied(&room), "before");

        let _ = adapter.join(a, &["r".into()]).await;
        let _ = adapter.join(b, &["r".into()]).await;
        let Some(PresenceEvent::RoomOccupied { room, number, .. }) = events.recv().await else { panic!() };
        assert_eq!(&*room, "r");
        assert!(number > first);
        // Empty for less than the wait: nothing is told.
        let start = Instant::now();
        adapter.leave(a, "r");
        adapter.leave(b, "r");
        tokio::time::sleep(Duration::from_secs(2)).await;
        let _ = adapter.join(a, &["r".into()]).await;
        tokio::time::sleep(Duration::from_secs(2)).await;
        assert!(events.try_recv().is_err());
        adapter.remove(a);
        let mut vacated = Vec::new();
        while vacated.len() < 2 {
            let Some(PresenceEvent::RoomVacated { room, number, .. }) = events.recv().await else { panic!() };
            vacated.push((room.to_string(), number));
        }
        vacated.sort();
        assert_eq!(vacated, [("before".to_owned(), first), ("r".to_owned(), number)]);
        assert_eq!(start.elapsed().as_secs(), 7);

        let _ = adapter.join(b, &["r".into()]).await;
        let Some(PresenceEvent::RoomOccupied { number: again, .. }) = events.recv().await else { panic!() };
        assert!(again > number);
    }

    #[tokio::test(start_paused = true)]
    async fn at_the_end_of_the_node_all_rooms_are_vacated_at_once() {
        let factory = LocalFactory::new(NodeTag::from_random([1, 2, 3]));
        let adapter = factory.namespace("/", Arc::new(Nothing));
        let mut events = factory.presence();
        let a = socket(&*adapter, "AAAAAAAAAAAAAAAAAAAA");
        let _ = adapter.join(a, &["r".into()]).await;
        let Some(PresenceEvent::RoomOccupied { number: first, .. }) = events.recv().await else { panic!() };
        let start = Instant::now();
        adapter.remove(a);
        factory.end_presence();
        let Some(PresenceEvent::RoomVacated { room, number, .. }) = events.recv().await else { panic!() };
        assert_eq!((&*room, number, start.elapsed()), ("r", first, Duration::ZERO));
        assert!(events.recv().await.is_none());
    }
}
