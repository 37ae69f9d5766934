//! The [`Bus`](crate::cluster::Bus) over Redis publish/subscribe, and its configuration.
//!
//! Owns the mapping of subjects to channels. Redis and Valkey from version 6 on, which speak RESP3: one server, the master
//! that Sentinels know, or a cluster, there by sharded publish/subscribe from version 7 on.
//!
//! One server is spoken to through fred (`single.rs`). Sharded publish/subscribe has a connection of its own
//! (`connection.rs`, `resp.rs`), because fred throws away that a slot was moved from under a sharded subscription;
//! `docs/decisions/0009-redis-cluster-links.md` tells more.
//!
//! # Channels
//!
//! A subject `s` travels on the channel `<prefix>:<s>`, the subject's bytes as they are. A prefix contains no colon, so
//! two deployments with different prefixes never meet on a channel.

mod client;
mod connection;
mod driver;
mod health;
mod mend;
mod resp;
mod sentinel;
mod sharded;
mod single;
mod topology;
mod url;

use std::{fmt, sync::Arc};

pub use self::{
    client::{RedisClient, RedisConnection, RedisListener},
    resp::Frame as RedisReply,
};

use self::driver::RedisDriver;
use crate::{
    broker::{Core, LinkConfig, TlsFiles, bus_by_core, hide_credentials},
    cluster::BusError,
};

/// The longest payload. Redis itself takes 512 MiB, but disconnects a subscriber whose output buffer passes
/// `client-output-buffer-limit pubsub`, 32 MiB by default.
const MAX_PAYLOAD: usize = 16 * 1024 * 1024;

/// How to reach Redis.
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct RedisConfig {
    /// One server: `redis://[user[:password]@]host[:port][/database]`. The database has no meaning for publish/subscribe
    /// beyond the permission to select it.
    ///
    /// The master that Sentinels know by a name:
    /// `redis-sentinel://[user:password@]host[:port],host[:port][/database]?sentinelServiceName=NAME`, and
    /// `&sentinelUsername=` and `&sentinelPassword=` where Sentinel itself asks for them.
    ///
    /// A cluster, of which some nodes are named: `redis-cluster://[user:password@]host[:port],host[:port]`.
    ///
    /// With TLS: `rediss://`, `rediss-sentinel://` and `rediss-cluster://`.
    pub url: String,
    /// What every channel begins with: letters, digits, `.`, `_` and `-`, at most 100. Default `roomcast`.
    pub prefix: String,
    /// The certificates of TLS connections.
    pub tls: TlsFiles,
    /// By which commands of a Redis Cluster. Default [`PubSub::Auto`].
    pub pubsub: PubSub,
    /// Times and bounds.
    pub link: LinkConfig,
}

/// Which publish/subscribe a Redis Cluster is used by.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum PubSub {
    /// Sharded where every master is of version 7 or later, otherwise classic.
    #[default]
    Auto,
    /// SPUBLISH and SSUBSCRIBE: a message goes to the node of its channel, and only there. Order holds for each room.
    Sharded,
    /// PUBLISH and SUBSCRIBE: every message goes to every node of the cluster. Order holds across rooms too.
    Classic,
}

impl RedisConfig {
    /// The defaults, for this URL.
    pub fn new(url: impl Into<String>) -> Self {
        Self {
            url: url.into(),
            prefix: "roomcast".into(),
            tls: TlsFiles::default(),
            pubsub: PubSub::Auto,
            link: LinkConfig::default(),
        }
    }
}

impl fmt::Debug for RedisConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisConfig")
            .field("url", &hide_credentials(&self.url))
            .field("prefix", &self.prefix)
            .field("tls", &self.tls)
            .field("pubsub", &self.pubsub)
            .field("link", &self.link)
            .finish()
    }
}

/// The bus over Redis.
pub struct RedisBus {
    core: Arc<Core<RedisDriver>>,
}

impl RedisBus {
    /// Checks the configuration; nothing is connected yet.
    pub fn new(config: &RedisConfig) -> Result<Self, BusError> {
        let channels = Channels::new(&config.prefix)?;
        let driver = RedisDriver::new(config, channels)?;
        Ok(Self { core: Core::new(driver, config.link.clone()) })
    }
}

bus_by_core!(RedisBus);

/// Subjects to channels and back.
#[derive(Debug, Clone)]
struct Channels {
    /// With its colon.
    prefix: Arc<str>,
}

impl Channels {
    fn new(prefix: &str) -> Result<Self, BusError> {
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
        if prefix.is_empty() || prefix.len() > 100 || !prefix.bytes().all(allowed) {
            let text = format!("the prefix {prefix:?} must be 1 to 100 letters, digits, `.`, `_` and `-`");
            return Err(BusError::Configuration(text));
        }
        Ok(Self { prefix: format!("{prefix}:").into() })
    }

    fn channel(&self, subject: &str) -> String {
        [&*self.prefix, subject].concat()
    }

    fn subject<'a>(&self, channel: &'a str) -> Option<&'a str> {
        channel.strip_prefix(&*self.prefix)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn channels_are_prefix_colon_subject() {
        let channels = Channels::new("roomcast").expect("a good prefix");
        assert_eq!(channels.channel("room/lobby"), "roomcast:room/lobby");
        assert_eq!(channels.channel("*?[a] \u{1f600}"), "roomcast:*?[a] \u{1f600}");
        assert_eq!(channels.subject("roomcast:a:b"), Some("a:b"));
        assert_eq!(channels.subject("roomcast2:a"), None);
    }

    #[test]
    fn prefixes_that_could_meet_are_refused() {
        for prefix in ["", "a:b", "__keyspace@0__", "with space", "\u{e9}", &"x".repeat(101)] {
            assert!(matches!(Channels::new(prefix), Err(BusError::Configuration(_))), "{prefix:?}");
        }
    }

    #[test]
    fn configuration_errors_are_found_before_connecting() {
        for url in [
            "",
            "nats://localhost",
            "redis-sentinel://localhost",
            "redis://",
            "redis://:secret@host:notaport",
        ] {
            let error = RedisBus::new(&RedisConfig::new(url)).expect_err(url);
            assert!(matches!(error, BusError::Configuration(_)), "{url}: {error}");
            assert!(!error.to_string().contains("secret"), "{error}");
        }
    }

    #[test]
    fn debug_hides_credentials() {
        let config = RedisConfig::new("redis://user:secret@localhost:6379/1");
        assert!(!format!("{config:?}").contains("secret"));
    }

    proptest! {
        #[test]
        fn subjects_come_back(a in any::<String>(), b in any::<String>()) {
            let channels = Channels::new("p").expect("a good prefix");
            let channel = channels.channel(&a);
            prop_assert_eq!(channels.subject(&channel), Some(&*a));
            prop_assert_eq!(a == b, channel == channels.channel(&b));
        }
    }
}
