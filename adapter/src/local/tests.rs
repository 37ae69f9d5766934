//! Properties of the local adapter that only its inside shows; its behaviour is held by the conformance suite.

use std::collections::VecDeque;
use std::sync::Barrier;
use std::task::{Context, Waker};

use super::*;
use crate::adapter::{Adapter, Describe, LocalSocket};
use crate::mailbox::{Item, MailboxLimits};
use crate::selector::Target;

struct Nobody;

impl Describe for Nobody {
    fn handshake(&self) -> serde_json::Value {
        serde_json::Value::Null
    }
    fn data(&self) -> serde_json::Value {
        serde_json::Value::Null
    }
}

/// Counts how often each room was said to be occupied, minus how often it was vacated.
#[derive(Default)]
struct Observer(parking_lot::Mutex<std::collections::BTreeMap<Room, i32>>);

impl RoomObserver for Observer {
    fn occupied(&self, room: &Room) {
        let mut rooms = self.0.lock();
        let count = rooms.entry(Arc::clone(room)).or_default();
        *count += 1;
        assert_eq!(*count, 1, "{room} was occupied twice");
    }
    fn vacated(&self, room: &Room) {
        let count = self.0.lock().insert(Arc::clone(room), 0);
        assert_eq!(count, Some(1), "{room} was vacated while empty");
    }
    fn changed(&self, _: &Room) {}
    fn socket_changed(&self, _: SocketId) {}
}

fn node() -> NodeTag {
    "NODE".parse().unwrap()
}

fn id(number: u32) -> SocketId {
    let mut random = [0; 12];
    random[..4].copy_from_slice(&number.to_be_bytes());
    SocketId::new(node(), random)
}

fn adapter() -> (LocalAdapter, Arc<Observer>) {
    let observer = Arc::new(Observer::default());
    (LocalAdapter::observed(node(), "/", Arc::default(), Arc::default(), Some(observer.clone())), observer)
}

fn add(adapter: &LocalAdapter, number: u32) -> Arc<Mailbox> {
    let mailbox = Mailbox::new(MailboxLimits::default());
    adapter.add(LocalSocket { id: id(number), mailbox: mailbox.clone(), describe: Arc::new(Nobody) });
    mailbox
}

fn packet() -> Arc<Outgoing> {
    Outgoing::new(EncodedPacket::event("/", None, "e", &Args::none()))
}

fn depth(mailbox: &Mailbox) -> usize {
    let mut batch = VecDeque::new();
    let _ = mailbox.poll_take(&mut Context::from_waker(Waker::noop()), &mut batch);
    batch.into_iter().filter(|item| matches!(item, Item::Packet(_))).count()
}

#[test]
fn all_receivers_share_one_encoding() {
    let (adapter, _) = adapter();
    let mailboxes: Vec<_> = (0..1000).map(|number| add(&adapter, number)).collect();
    (0..1000).for_each(|number| {
        adapter.join_local(id(number), &["room".into()]);
    });
    let outgoing = packet();
    adapter.broadcast(&Selector::rooms(["room"]), &outgoing).unwrap();
    for mailbox in &mailboxes {
        let Some(Item::Packet(received)) = mailbox.drain().pop_front() else { panic!("nothing came") };
        assert!(Arc::ptr_eq(&received, &outgoing), "the packet itself, not a copy");
    }
    assert_eq!(Arc::strong_count(&outgoing), 1);
}

#[test]
fn one_socket_is_one_socket() {
    let (adapter, _) = adapter();
    let (one, other) = (add(&adapter, 0), add(&adapter, 1));
    adapter.join_local(id(1), &[id(0).as_str().into()]);
    adapter.broadcast(&Selector::local_socket(id(0)), &packet()).unwrap();
    assert_eq!((depth(&one), depth(&other)), (1, 0));
}

#[test]
fn a_socket_in_several_target_rooms_is_served_once() {
    let (adapter, _) = adapter();
    let mailboxes: Vec<_> = (0..4).map(|number| add(&adapter, number)).collect();
    let own = Room::from(id(3).as_str());
    adapter.join_local(id(0), &["a".into(), "b".into(), own.clone()]);
    adapter.join_local(id(1), &["b".into()]);
    adapter.join_local(id(2), &["b".into(), "c".into()]);
    for many in [0, 40] {
        // Beyond a number of rooms another method is used.
        let filler: Vec<Room> = (0..many).map(|number| Room::from(format!("filler {number}"))).collect();
        adapter.join_local(id(0), &filler);
        let mut to = vec!["a".into(), "b".into(), "b".into(), own.clone()];
        to.extend(filler);
        let selector = Selector { to: Target::Rooms(to), except: vec!["c".into()], local: false };
        adapter.deliver(&selector, &packet());
        let depths: Vec<_> = mailboxes.iter().map(|mailbox| depth(mailbox)).collect();
        assert_eq!(depths, [1, 1, 0, 1]);
    }
    assert_eq!(adapter.counters.deliveries.get(), 6);
}

#[test]
fn rooms_that_are_empty_are_gone_and_their_memory_too() {
    let (adapter, observer) = adapter();
    add(&adapter, 1);
    let rooms: Vec<Room> = (0..10_000).map(|number| Room::from(format!("room {number}"))).collect();
    adapter.join_local(id(1), &rooms);
    assert_eq!(adapter.rooms.len(), rooms.len());
    assert_eq!(adapter.remove(id(1)).len(), rooms.len() + 1);
    assert_eq!(adapter.rooms.len(), 0);
    assert!(adapter.rooms.capacity() <= 64 * sockets::SHARDS, "{}", adapter.rooms.capacity());
    assert!(observer.0.lock().values().all(|count| *count == 0));
}

#[test]
fn a_join_that_races_a_remove_leaves_no_ghost() {
    const THREADS: u32 = 8;
    let (adapter, observer) = adapter();
    let barrier = Barrier::new(THREADS as usize);
    std::thread::scope(|scope| {
        for thread in 0..THREADS {
            let (adapter, barrier) = (&adapter, &barrier);
            scope.spawn(move || {
                let rooms = ["a".into(), "b".into(), "c".into()];
                let selector = Selector::rooms(["c", "a", id(thread / 2).as_str()]);
                barrier.wait();
                for _ in 0..2_000 {
                    // Two threads for each socket: one joins what the other removes.
                    if thread % 2 == 0 {
                        add(adapter, thread / 2);
                        adapter.deliver(&selector, &packet());
                        adapter.remove(id(thread / 2));
                    } else {
                        adapter.join_local(id(thread / 2), &rooms);
                        adapter.leave_local(id(thread / 2), "b");
                        adapter.deliver(&Selector::all(), &packet());
                    }
                }
            });
        }
    });
    for thread in 0..THREADS {
        adapter.remove(id(thread / 2));
    }
    assert_eq!((adapter.rooms.len(), adapter.local_count()), (0, 0));
    assert!(observer.0.lock().values().all(|count| *count == 0));
}

#[test]
fn acks_of_sockets_that_leave_at_the_same_time_all_end() {
    let (adapter, _) = adapter();
    std::thread::scope(|scope| {
        let adapter = &adapter;
        scope.spawn(move || {
            for number in 0..3_000 {
                add(adapter, number);
                adapter.remove(id(number));
            }
        });
        for _ in 0..1_000 {
            let collector = Collector::new(node(), [node()]);
            adapter.ask(&Selector::all(), "e", &Args::none(), collector);
        }
    });
    assert_eq!(adapter.acks.awaited(), 0);
}
