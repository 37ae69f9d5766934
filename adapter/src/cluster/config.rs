//! The settings of a node in a cluster.

use std::time::Duration;

/// Times and bounds of the cluster, with their defaults.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClusterConfig {
    /// How often a node says that it lives. Default 1 s.
    pub heartbeat: Duration,
    /// A node that was silent for this long is left out of requests and counts. Default 5 s; must be several heartbeats.
    pub expiry: Duration,
    /// A node that was silent for this long is gone for good, and its sockets with it: should it come back, it
    /// disconnects them and begins anew. Default 15 s; not less than `expiry`.
    pub lease: Duration,
    /// How long a new node listens for the answers to its hello before it is ready. Default 300 ms.
    pub discovery: Duration,
    /// How long a subscription outlives its last local member. Default 5 s.
    pub linger: Duration,
    /// How often a node tells the others of rooms and sockets that changed. Default 200 ms.
    pub directory_interval: Duration,
    /// How long a room has been empty in the whole cluster before it counts as vacated. Default 3 s.
    pub vacate_after: Duration,
    /// How long a request waits for the nodes. Default 5 s.
    pub request_timeout: Duration,
    /// How long a join waits for its subscription, and one attempt to subscribe for the broker. Default 5 s.
    pub subscribe_timeout: Duration,
    /// Messages that may wait for the broker. Default 65,536. A message to several subjects counts for each.
    pub outbox_items: usize,
    /// Bytes that may wait for the broker. Default 64 MiB.
    pub outbox_bytes: usize,
    /// An emit to more rooms than this is published to the whole namespace, once. Default 64.
    pub max_rooms_per_emit: usize,
    /// With more rooms than this a node listens to the subjects of their buckets instead, until it has less than half of
    /// it. 0 listens so from the start. Default 65,536.
    pub max_room_subjects: usize,
    /// The buckets of rooms. All nodes of a cluster should have the same number. Default 16,384; at least 1.
    pub hashed_subjects: u32,
    /// Numbers of the last broadcasts that are remembered of each sender, to act on their first copy only. Default
    /// 65,536, which are 8 KiB.
    pub recent_ids: usize,
    /// How long messages may wait on this node before broadcasts to the busiest rooms are shed. Default 2 s.
    pub max_lag: Duration,
    /// Requests to the other nodes that may wait for answers at once, emits with acks among them. Default 16,384.
    pub max_requests: usize,
    /// Requests of other nodes that may wait for subscriptions at once. Default 4,096.
    pub max_jobs: usize,
    /// Emits with acks of other nodes whose answers this node collects at once. More are refused. Default 65,536.
    pub max_relays: usize,
}

impl Default for ClusterConfig {
    fn default() -> Self {
        Self {
            heartbeat: Duration::from_secs(1),
            expiry: Duration::from_secs(5),
            lease: Duration::from_secs(15),
            discovery: Duration::from_millis(300),
            linger: Duration::from_secs(5),
            directory_interval: Duration::from_millis(200),
            vacate_after: Duration::from_secs(3),
            request_timeout: Duration::from_secs(5),
            subscribe_timeout: Duration::from_secs(5),
            outbox_items: 65_536,
            outbox_bytes: 64 * 1024 * 1024,
            max_rooms_per_emit: 64,
            max_room_subjects: 65_536,
            hashed_subjects: 16_384,
            recent_ids: 65_536,
            max_lag: Duration::from_secs(2),
            max_requests: 16_384,
            max_jobs: 4_096,
            max_relays: 65_536,
        }
    }
}
