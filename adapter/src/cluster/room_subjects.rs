//! Which subjects the rooms of a node need: their own, those of their buckets, or both.
//!
//! Owns the number of rooms in each bucket, which is counted in either mode, so that going over needs no look at all
//! rooms at once. Called under the lock of a room's shard: everything here takes the same time however many rooms there
//! are, except where it says so.

use super::interest::{Interest, Wait};
use super::{Subject, subject};
use crate::selector::Room;

#[derive(Debug)]
pub(crate) struct RoomSubjects {
    /// Rooms are listened to by their own subjects.
    exact: bool,
    /// Rooms are listened to by those of their buckets.
    hashed: bool,
    /// Rooms with local members.
    rooms: usize,
    /// Of those, in each bucket.
    buckets: Box<[u32]>,
}

impl RoomSubjects {
    pub(crate) fn new(buckets: u32) -> Self {
        Self { exact: true, hashed: false, rooms: 0, buckets: vec![0; buckets.max(1) as usize].into() }
    }

    /// Rooms with local members.
    pub(crate) fn rooms(&self) -> usize {
        self.rooms
    }

    /// The number of buckets.
    pub(crate) fn buckets(&self) -> u32 {
        self.buckets.len() as u32
    }
}

impl Interest {
    /// A room has its first local member. True when there is something to do.
    pub(crate) fn occupied(&mut self, namespace: &str, room: &str) -> bool {
        let bucket = bucket_of(namespace, room, self.rooms.buckets());
        self.rooms.rooms += 1;
        let in_bucket = &mut self.rooms.buckets[bucket as usize];
        *in_bucket += 1;
        let first = *in_bucket == 1;
        let mut something = false;
        if self.rooms.exact {
            something |= self.want(&subject::room(namespace, room));
        }
        if self.rooms.hashed && first {
            something |= self.want(&subject::bucket(self.rooms.buckets(), bucket));
        }
        something
    }

    /// A room lost its last local member. True when there is something to do, later.
    pub(crate) fn vacated(&mut self, namespace: &str, room: &str, now: std::time::Instant) -> bool {
        let bucket = bucket_of(namespace, room, self.rooms.buckets());
        self.rooms.rooms -= 1;
        let in_bucket = &mut self.rooms.buckets[bucket as usize];
        *in_bucket -= 1;
        let last = *in_bucket == 0;
        // Whatever the mode: it may have been subscribed in another one.
        let mut something = self.release(&subject::room(namespace, room), now);
        if self.rooms.hashed && last {
            something |= self.release(&subject::bucket(self.rooms.buckets(), bucket), now);
        }
        something
    }

    /// From now on rooms that are joined need these subjects. Those of the buckets are wanted or released here, for all
    /// rooms; their own are the caller's when this is true, room by room: `prepare_room` and `release_room`.
    pub(crate) fn route(&mut self, exact: bool, hashed: bool, now: std::time::Instant) -> bool {
        let changed = std::mem::replace(&mut self.rooms.exact, exact) != exact;
        if std::mem::replace(&mut self.rooms.hashed, hashed) == hashed {
            return changed;
        }
        for bucket in 0..self.rooms.buckets() {
            if self.rooms.buckets[bucket as usize] == 0 {
                continue;
            }
            let subject = subject::bucket(self.rooms.buckets(), bucket);
            if hashed {
                self.want_prepared(&subject);
            } else {
                self.release(&subject, now);
            }
        }
        changed
    }

    /// A room that was there already needs its own subject.
    pub(crate) fn prepare_room(&mut self, namespace: &str, room: &str) {
        if self.rooms.exact {
            self.want_prepared(&subject::room(namespace, room));
        }
    }

    /// A room needs its own subject no more.
    pub(crate) fn release_room(&mut self, namespace: &str, room: &str, now: std::time::Instant) {
        if !self.rooms.exact {
            self.release(&subject::room(namespace, room), now);
        }
    }

    /// Waits until what rooms of a namespace need stands, and the namespace's own subject.
    pub(crate) fn wait_for_rooms(&mut self, own: &Subject, namespace: &str, rooms: &[Room]) -> Wait {
        let mut subjects = Vec::with_capacity(1 + rooms.len() * 2);
        subjects.push(Subject::clone(own));
        for room in rooms {
            if self.rooms.exact {
                subjects.push(subject::room(namespace, room));
            }
            if self.rooms.hashed {
                let bucket = bucket_of(namespace, room, self.rooms.buckets());
                subjects.push(subject::bucket(self.rooms.buckets(), bucket));
            }
        }
        self.wait(&subjects)
    }
}

/// The bucket of a room: FNV-1a of 64 bits over namespace, a zero byte and room, folded to 32 bits. Every node and every
/// version must compute it alike.
pub(crate) fn bucket_of(namespace: &str, room: &str, buckets: u32) -> u32 {
    let bytes = namespace.bytes().chain([0]).chain(room.bytes());
    let hash = bytes.fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    });
    ((hash ^ hash >> 32) as u32) % buckets.max(1)
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::*;

    #[test]
    fn buckets_never_change() {
        for (namespace, room, bucket) in
            [("/", "lobby", 15829), ("/", "", 15517), ("/chat", "lobby", 5533), ("/", "\u{e4}\0b", 7120)]
        {
            assert_eq!(bucket_of(namespace, room, 16_384), bucket, "{namespace} {room}");
        }
        assert_eq!(bucket_of("/", "x", 1), 0);
        let mut counts = [0_u32; 1_000];
        (0..100_000).for_each(|n| counts[bucket_of("/", &format!("user:{n}"), 1_000) as usize] += 1);
        assert!(counts.iter().all(|count| (50..200).contains(count)), "{counts:?}");
    }

    fn interest(buckets: u32) -> (Interest, Instant) {
        let mut interest = Interest::new(Duration::from_secs(5), buckets);
        interest.up();
        (interest, Instant::now())
    }

    fn subscribe(interest: &mut Interest, now: &mut Instant) -> Vec<String> {
        *now += Duration::from_secs(1);
        let Some(operation) = interest.next_operation(*now) else { return Vec::new() };
        assert!(operation.subscribe);
        let names = operation.subjects.iter().map(ToString::to_string).collect();
        interest.done(operation, true, *now);
        names
    }

    #[test]
    fn a_bucket_is_wanted_while_one_room_of_it_is() {
        let (mut interest, mut now) = interest(1);
        interest.route(false, true, now);
        interest.occupied("/", "a");
        interest.occupied("/", "b");
        assert_eq!(subscribe(&mut interest, &mut now), ["hash/1/0"]);
        interest.vacated("/", "a", now);
        assert_eq!(interest.next_timeout(), None);
        interest.vacated("/", "b", now);
        assert_eq!(interest.next_timeout(), Some(now + Duration::from_secs(5)));
    }

    #[test]
    fn going_over_prepares_what_was_there_and_waits_for_both() {
        let (mut interest, mut now) = interest(1);
        interest.occupied("/", "a");
        assert_eq!(subscribe(&mut interest, &mut now), ["room//\0a"]);
        assert!(interest.is_prepared());
        interest.route(true, true, now);
        assert!(!interest.is_prepared());
        interest.occupied("/", "b");
        let own = Subject::from("ns//");
        let Wait::Pending(mut wait) = interest.wait_for_rooms(&own, "/", &["b".into()]) else { panic!() };
        assert_eq!(subscribe(&mut interest, &mut now), ["hash/1/0", "room//\0b"]);
        assert!(interest.is_prepared() && wait.try_recv().is_ok());
        // Back, after a room that came and went.
        interest.route(false, true, now);
        interest.vacated("/", "b", now);
        interest.release_room("/", "a", now);
        interest.route(true, true, now);
        interest.prepare_room("/", "a");
        assert!(interest.is_prepared(), "it was not let go yet");
        assert_eq!(interest.rooms.rooms(), 1);
    }

    #[test]
    fn an_outage_in_the_middle_leaves_nothing_to_wait_for_but_being_ready() {
        let (mut interest, mut now) = interest(4);
        interest.occupied("/", "a");
        subscribe(&mut interest, &mut now);
        interest.route(true, true, now);
        interest.down();
        assert!(!interest.is_prepared());
        interest.up();
        assert!(!interest.is_prepared());
        assert_eq!(subscribe(&mut interest, &mut now).len(), 2);
        assert!(interest.is_ready() && interest.is_prepared());
    }
}
