//! The [`Bus`](crate::cluster::Bus) over core NATS, and its configuration.
//!
//! Owns the configuration. Must not name the client crate; that is `driver.rs`. The mapping of subjects is `encode.rs`.
//!
//! NATS from 2.2 on, one server or the servers of one cluster, `nats://` and `tls://`. Of several clusters that are joined
//! by gateways or leaf nodes only the own one is waited for when a subscription is made.

mod driver;
mod encode;

use std::{fmt, path::PathBuf, sync::Arc};

pub use self::{driver::connect_options, encode::subject_token};

use self::{driver::NatsDriver, encode::Subjects};
use crate::{
    broker::{Core, LinkConfig, TlsFiles, bus_by_core, hide_credentials},
    cluster::BusError,
};

/// How to reach NATS.
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct NatsConfig {
    /// One server or several with commas between: `nats://[user:password@|token@]host[:port][,...]`, or `tls://`, which
    /// requires TLS of all of them. Those that the servers announce are used too. The first credentials in the list are used
    /// for every server. Special characters in them are percent-encoded.
    pub url: String,
    /// The seed of a user's nkey. At most one kind of credentials may be given.
    pub nkey_seed: Option<String>,
    /// A credentials file with a user's JWT and its nkey. It is read for each link, so it may be replaced.
    pub credentials_file: Option<PathBuf>,
    /// The first tokens of every subject: letters, digits, `_` and `-`, with single dots between, at most 100
    /// characters. Default `roomcast`.
    pub prefix: String,
    /// The certificates of TLS connections. To name one requires TLS.
    pub tls: TlsFiles,
    /// Times and bounds.
    pub link: LinkConfig,
    /// What may wait inside the node.
    pub queues: NatsQueues,
}

/// What may wait between the node and a server, beside `LinkConfig::max_in_flight`.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct NatsQueues {
    /// Batches that wait for the publishing task. More are refused. Default 65,536.
    pub publications: usize,
    /// Requests to subscribe or unsubscribe that wait for their task. More are refused. Default 16,384.
    pub changes: usize,
    /// Commands that wait for a connection; the tasks wait when it is full. Default 2,048.
    pub commands: usize,
    /// Messages of one subscription that wait to be delivered. They are delivered while they are received, so that there
    /// is one at most; what does not fit would be lost, and counted as a slow consumer. Default 65,536.
    pub messages: usize,
    /// Bytes that are read at once. In a burst 128 such buffers are read before subscriptions get their turn. Default
    /// 16 KiB.
    pub read_buffer: u16,
}

impl Default for NatsQueues {
    fn default() -> Self {
        Self {
            publications: 64 * 1024,
            changes: 16 * 1024,
            commands: 2 * 1024,
            messages: 64 * 1024,
            read_buffer: 16 * 1024,
        }
    }
}

impl NatsConfig {
    /// The defaults, for this URL.
    pub fn new(url: impl Into<String>) -> Self {
        Self {
            url: url.into(),
            nkey_seed: None,
            credentials_file: None,
            prefix: "roomcast".into(),
            tls: TlsFiles::default(),
            link: LinkConfig::default(),
            queues: NatsQueues::default(),
        }
    }
}

impl fmt::Debug for NatsConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NatsConfig")
            .field("url", &hide_credentials(&self.url))
            .field("nkey_seed", &self.nkey_seed.as_ref().map(|_| "***"))
            .field("credentials_file", &self.credentials_file)
            .field("prefix", &self.prefix)
            .field("tls", &self.tls)
            .field("link", &self.link)
            .field("queues", &self.queues)
            .finish()
    }
}

/// The bus over NATS.
pub struct NatsBus {
    core: Arc<Core<NatsDriver>>,
}

impl NatsBus {
    /// Checks the configuration; nothing is connected yet.
    pub fn new(config: &NatsConfig) -> Result<Self, BusError> {
        let subjects = Subjects::new(&config.prefix)?;
        let driver = NatsDriver::new(config, subjects)?;
        Ok(Self { core: Core::new(driver, config.link.clone()) })
    }
}

bus_by_core!(NatsBus);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn configuration_errors_are_found_before_connecting() {
        for url in
            ["", ",", "redis://localhost", "nats://", "nats://:secret@host:notaport", "nats://a,ws://b"]
        {
            let error = NatsBus::new(&NatsConfig::new(url)).expect_err(url);
            assert!(matches!(error, BusError::Configuration(_)), "{url}: {error}");
            assert!(!error.to_string().contains("secret"), "{error}");
        }
    }

    #[test]
    fn debug_hides_credentials() {
        let config = NatsConfig::new("nats://user:secret@localhost:4222,nats://other-secret@b");
        assert!(!format!("{config:?}").contains("secret"));
    }
}
