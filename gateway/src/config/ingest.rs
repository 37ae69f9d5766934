//! How backends reach the gateway over a broker, beside the HTTP API.

use std::path::PathBuf;
use std::time::Duration;

use super::section::section;
use super::units;
use super::{Secret, SecretUrl, Tls};

section! {
    /// How backends reach the gateway over a broker. Whoever may write there may emit anything.
    pub struct Ingest {}
    tables {
        redis: IngestRedis,
        emitter: IngestEmitter,
        stream: IngestStream,
        nats: IngestNats,
    }
}

section! {
    /// The Redis of emitters and of the stream.
    pub struct IngestRedis {
        /// Its URL, in the forms of `adapter.url`. Where it is not given, it is the adapter's Redis, with the certificates of
        /// `adapter.tls`.
        url: Option<SecretUrl> = None; example "\"redis://127.0.0.1:6379\"",
    }
    tables {
        tls: Tls,
    }
}

section! {
    /// What @socket.io/redis-emitter and its ports publish.
    pub struct IngestEmitter {
        /// Whether the gateway listens. Where it is not given, it does when there is a Redis: that of the adapter, or
        /// `ingest.redis.url`.
        enabled: Option<bool> = None; example "true",
        /// What the emitters' channels begin with: their option `key`.
        key: String = "socket.io".to_owned(),
    }
}

section! {
    /// Calls that backends write into a stream of Redis: XADD roomcast:emit * body JSON key KEY.
    pub struct IngestStream {
        /// Whether the gateway reads it.
        enabled: bool = false,
        /// The stream. Where it is not given, it is `adapter.prefix` and ":emit". Entries that cannot be carried out go to the
        /// stream of this name and ":dead".
        key: Option<String> = None; example "\"roomcast:emit\"",
        /// The consumer group, the same on all nodes.
        group: String = "roomcast".to_owned(),
        /// Entries that are read at once.
        batch: usize = 64,
        /// After how long without an acknowledgement another node takes an entry over.
        #[serde(with = "units::duration")]
        claim_after: Duration = Duration::from_secs(30),
        /// How often an entry is tried, before it goes to the dead ones.
        max_deliveries: u32 = 5,
        /// For how long a key is remembered: what comes with it again within this time is not emitted again.
        #[serde(with = "units::duration")]
        window: Duration = Duration::from_secs(300),
        /// The most entries that are kept of the dead ones.
        max_dead: usize = 10_000,
    }
}

section! {
    /// NATS: calls of backends, and what goes to them.
    pub struct IngestNats {
        /// Whether the gateway uses it. Where it is not given, it does when there is a NATS: that of the adapter, or
        /// `ingest.nats.url`.
        enabled: Option<bool> = None; example "true",
        /// Its URL, in the forms of `adapter.url`. Where it is not given, it is the adapter's NATS, with its credentials and
        /// certificates.
        url: Option<SecretUrl> = None; example "\"nats://127.0.0.1:4222\"",
        /// The first tokens of every subject. Where it is not given, it is `adapter.prefix`.
        prefix: Option<String> = None; example "\"roomcast\"",
        /// Calls that are worked on at once. More wait at the server.
        max_calls: usize = 256,
        /// A credentials file for `url`.
        credentials_file: Option<PathBuf> = None; example "\"/etc/roomcast/backend.creds\"",
        /// The seed of a user's nkey for `url`; "env:NAME" and "file:PATH" work too.
        nkey_seed: Option<Secret> = None; example "\"env:NATS_NKEY_SEED\"",
    }
    tables {
        tls: Tls,
    }
}
