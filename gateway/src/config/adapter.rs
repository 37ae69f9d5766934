//! The cluster and its broker.

use std::path::PathBuf;
use std::time::Duration;

use super::section::section;
use super::units;
use super::{Secret, SecretUrl};

section! {
    /// How nodes become a cluster.
    pub struct Adapter {
        /// "memory" for one node alone, "redis" or "nats" for a cluster.
        kind: AdapterKind = AdapterKind::Memory,
        /// The broker, such as "redis://user:password@host:6379" or "nats://host:4222"; several servers of one cluster with
        /// commas between them; "redis-sentinel://host,host/?sentinelServiceName=NAME"; "redis-cluster://host,host"; with TLS
        /// "rediss...". "env:NAME" and "file:PATH" work too. A broker that cannot be reached at start-up is an error.
        url: Option<SecretUrl> = None; example "\"redis://127.0.0.1:6379\"",
        /// The beginning of every channel or subject. Nodes with different prefixes do not see each other.
        prefix: String = "roomcast".to_owned(),
        /// How long the other nodes may take to answer before they are named as missing.
        #[serde(with = "units::duration")]
        request_timeout: Duration = Duration::from_secs(5),
        /// Requests to the other nodes that may wait at once, emits with acks among them. More are refused with "overloaded".
        max_requests: usize = 16_384,
        /// Time between a node's signs of life.
        #[serde(with = "units::duration")]
        heartbeat: Duration = Duration::from_secs(1),
        /// After how long without a sign of life a node is left out of counts and requests.
        #[serde(with = "units::duration")]
        expiry: Duration = Duration::from_secs(5),
        /// After how long without a sign of life a node is gone for good, and its sockets with it. One that comes back later
        /// disconnects its sockets, whose clients connect again, and begins anew. Not less than expiry.
        #[serde(with = "units::duration")]
        lease: Duration = Duration::from_secs(15),
        /// How long a new node listens for the others before it is ready.
        #[serde(with = "units::duration")]
        discovery: Duration = Duration::from_millis(300),
        /// How long a join waits until its room is subscribed to at the broker.
        #[serde(with = "units::duration")]
        subscribe_timeout: Duration = Duration::from_secs(5),
        /// An emit to more rooms than this goes to all nodes of the namespace, once.
        max_rooms_per_emit: usize = 64,
        /// A node with members of more rooms than this listens to buckets of rooms at the broker, and no more to each of its
        /// rooms, until it has less than half as many. 0 is always buckets.
        max_room_subjects: usize = 65_536,
        /// The number of buckets. The same on all nodes: beside a node with another number none goes over to buckets.
        hashed_subjects: u32 = 16_384,
        /// How long a node keeps listening for a room after the last member left.
        #[serde(with = "units::duration")]
        linger: Duration = Duration::from_secs(5),
    }
    tables {
        outbox: Outbox,
        inbound: Inbound,
        nats: Nats,
        tls: Tls,
        redis: Redis,
        directory: Directory,
    }
}

section! {
    /// Counts of rooms and presence over the whole cluster.
    pub struct Directory {
        /// How often a node tells the others of rooms and sockets that changed: about how old a count may be.
        #[serde(with = "units::duration")]
        interval: Duration = Duration::from_millis(200),
        /// How long a room has been empty in the whole cluster before it counts as vacated.
        #[serde(with = "units::duration")]
        vacate_after: Duration = Duration::from_secs(3),
    }
}

section! {
    /// What may wait for the broker. When it is full, emits are refused with "broker_unavailable".
    pub struct Outbox {
        /// Messages.
        max_items: usize = 65_536,
        /// Bytes.
        #[serde(with = "units::bytes")]
        max_bytes: usize = 64 << 20,
    }
}

section! {
    /// What may wait to be delivered, of what came from the broker.
    pub struct Inbound {
        /// When messages wait for longer than this, the node drops what other nodes emit to rooms that take more than their
        /// fair share of its work, so that the others' emits are not late by much more. Counted as "room_overload".
        #[serde(with = "units::duration")]
        max_lag: Duration = Duration::from_secs(2),
        /// Bytes that may wait. The broker keeps what is beyond.
        #[serde(with = "units::bytes")]
        max_bytes: usize = 64 << 20,
    }
}

section! {
    /// Credentials for NATS that do not fit into a URL. At most one kind may be given, those in `adapter.url` included.
    pub struct Nats {
        /// A credentials file with a user's JWT and nkey. It is read again for each new connection.
        credentials_file: Option<PathBuf> = None; example "\"/etc/roomcast/node.creds\"",
        /// The seed of a user's nkey; "env:NAME" and "file:PATH" work too.
        nkey_seed: Option<Secret> = None; example "\"env:NATS_NKEY_SEED\"",
    }
}

section! {
    /// The certificates of TLS connections to the broker: PEM files, which are read again for each new connection.
    pub struct Tls {
        /// Authorities to trust instead of the system's.
        ca_file: Option<PathBuf> = None; example "\"/etc/roomcast/ca.pem\"",
        /// This node's certificate, for a broker that asks for one. It needs `key_file`.
        cert_file: Option<PathBuf> = None; example "\"/etc/roomcast/node.pem\"",
        /// The key of `cert_file`.
        key_file: Option<PathBuf> = None; example "\"/etc/roomcast/node.key\"",
    }
}

section! {
    /// What only Redis has.
    pub struct Redis {
        /// Publish/subscribe of a Redis Cluster: "sharded" sends a message only to the node of its room, and keeps order for
        /// each room; "classic" sends it to all nodes; "auto" is sharded where all nodes have Redis 7.
        pubsub: RedisPubSub = RedisPubSub::Auto,
    }
}

/// Which publish/subscribe of a Redis Cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum RedisPubSub {
    /// What the nodes can do.
    Auto,
    /// SPUBLISH and SSUBSCRIBE.
    Sharded,
    /// PUBLISH and SUBSCRIBE.
    Classic,
}

/// Which adapter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum AdapterKind {
    /// One node alone.
    Memory,
    /// Redis, Valkey or what speaks like them.
    Redis,
    /// NATS.
    Nats,
}

impl AdapterKind {
    /// The name in the configuration.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Memory => "memory",
            Self::Redis => "redis",
            Self::Nats => "nats",
        }
    }

    /// What a URL of its broker is called.
    pub(super) fn url_form(self) -> &'static str {
        match self {
            Self::Memory => "a URL",
            Self::Redis => "a URL of Redis",
            Self::Nats => "a URL of NATS",
        }
    }

    /// The schemes that a URL of its broker may have.
    pub(super) fn schemes(self) -> &'static [&'static str] {
        match self {
            Self::Memory => &[],
            Self::Redis => {
                &["redis", "rediss", "redis-cluster", "rediss-cluster", "redis-sentinel", "rediss-sentinel"]
            }
            Self::Nats => &["nats", "tls"],
        }
    }
}
