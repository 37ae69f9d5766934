//! What the adapters count. Owns the numbers only: whoever exports them gives them names and labels.

use std::sync::atomic::{AtomicU64, Ordering};

/// A number that only grows, or one that is counted elsewhere.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds to the number.
    pub fn add(&self, count: u64) {
        if count > 0 {
            self.0.fetch_add(count, Ordering::Relaxed);
        }
    }

    /// The number now.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// A number that comes and goes.
#[derive(Debug, Default)]
pub struct Gauge(AtomicU64);

impl Gauge {
    /// Sets the number.
    pub(crate) fn set(&self, number: impl Into<u64>) {
        self.0.store(number.into(), Ordering::Relaxed);
    }

    /// Raises the number.
    pub(crate) fn up(&self, count: u64) {
        self.0.fetch_add(count, Ordering::Relaxed);
    }

    /// Lowers the number, by no more than it was raised.
    pub(crate) fn down(&self, count: u64) {
        self.0.fetch_sub(count, Ordering::Relaxed);
    }

    /// The number now.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Everything that an adapter factory counts, over all namespaces since it was made.
#[derive(Debug, Default)]
pub struct Counters {
    /// Packets that were put into a mailbox of this node.
    pub deliveries: Counter,
    /// Volatile packets that a mailbox did not take.
    pub volatile_dropped: Counter,
    /// Connections that were ended because their mailbox was full.
    pub overflowed: Counter,
    /// Packets for connections that had ended already.
    pub closed: Counter,
    /// Packets that were shed because this node was behind and their room had had its share.
    pub room_overload: Counter,
    /// Packets that were shed because this node was so far behind that it delivered no broadcasts of other nodes.
    pub node_overload: Counter,
    /// Messages with packets that were shed.
    pub shed: Counter,
    /// Times that this node was behind so that it began to shed.
    pub overloads: Counter,
    /// Broadcasts that asked nobody because too many acks were awaited.
    pub acks_refused: Counter,
    /// Acks that sockets of this node owe, now.
    pub acks_awaited: Gauge,
    /// Messages that the broker took.
    pub published: Counter,
    /// Bytes of the messages that the broker took.
    pub published_bytes: Counter,
    /// Messages that were refused at once: the broker is away, or the queue to it is full.
    pub publish_refused: Counter,
    /// Messages that were too large for the broker.
    pub publish_too_large: Counter,
    /// Messages that were queued, and that the broker did not take.
    pub publish_failed: Counter,
    /// Messages to the broker that wait or are in flight, now; one to several subjects counts for each.
    pub outbox_items: Gauge,
    /// Their bytes.
    pub outbox_bytes: Gauge,
    /// Messages that came from other nodes.
    pub received: Counter,
    /// Bytes of the messages that came from other nodes.
    pub received_bytes: Counter,
    /// Copies of a message that had come already on another subject.
    pub duplicate: Counter,
    /// Messages without the magic bytes.
    pub malformed_foreign: Counter,
    /// Messages of another version of the wire format.
    pub malformed_version: Counter,
    /// Messages that end too early.
    pub malformed_truncated: Counter,
    /// Messages that are wrong in another way.
    pub malformed_invalid: Counter,
    /// Requests to the other nodes.
    pub requests: Counter,
    /// Requests that some node did not answer.
    pub requests_incomplete: Counter,
    /// Requests that were not sent, because too many waited for answers.
    pub requests_overflowed: Counter,
    /// Requests of other nodes that were not taken, because too many were in hand.
    pub requests_refused: Counter,
    /// Times the broker went away.
    pub broker_down: Counter,
    /// Subscription attempts that failed and were begun again.
    pub subscribe_failed: Counter,
    /// Other nodes that were found.
    pub members_joined: Counter,
    /// Signs of life of nodes that were not taken, because there were too many nodes.
    pub members_refused: Counter,
    /// Other nodes that said goodbye or were silent for too long.
    pub members_left: Counter,
    /// Other nodes that are gone for good: they said goodbye, or were silent for longer than their lease.
    pub members_gone: Counter,
    /// Times this node had to disconnect its sockets, because the others took it for dead.
    pub fenced: Counter,
    /// Times this node did not run for longer than the expiry.
    pub hung: Counter,
    /// Updates of the directory that were sent to other nodes.
    pub directory_sent: Counter,
    /// Updates of the directory that came from other nodes and were taken.
    pub directory_received: Counter,
    /// Updates that could not be taken, because some before them were lost: the sender begins anew.
    pub directory_gaps: Counter,
    /// Rooms and sockets that this node keeps for the cluster, now.
    pub directory_records: Gauge,
    /// Sockets of dead nodes that this node told of.
    pub sockets_reaped: Counter,
    /// What happened in the cluster.
    pub presence_events: Counter,
    /// Of that, what was not told, because whoever listens was behind.
    pub presence_dropped: Counter,
    /// Calls that were carried out before, and were not again.
    pub once_repeated: Counter,
    /// Calls that were forgotten before their time, because there were too many.
    pub once_evicted: Counter,
    /// Messages about calls that could not be sent to whoever keeps them.
    pub once_lost: Counter,
    /// Calls that this node remembers, now.
    pub once_kept: Gauge,
    /// Messages of another node that has this node's tag.
    pub tag_conflicts: Counter,
    /// Subscriptions at the broker to single rooms, and to buckets of rooms; those that are being made or let go too.
    pub subscribed_rooms: Gauge,
    /// See `subscribed_rooms`.
    pub subscribed_buckets: Gauge,
    /// 1 while this node listens to buckets of rooms.
    pub hashed: Gauge,
    /// Times this node went over from rooms to buckets or back.
    pub routing_switches: Counter,
    /// Times this node had too many rooms and could not go over to buckets.
    pub routing_refused: Counter,
    /// Times the others had so many settings of their buckets that rooms' messages went to all nodes.
    pub routing_crowded: Counter,
    /// Answers of other nodes that were not taken, because they said too much: they count as missing.
    pub answers_refused: Counter,
    /// Subscriptions that were made.
    pub subscribed: Counter,
    /// Subscriptions that were let go.
    pub unsubscribed: Counter,
}
