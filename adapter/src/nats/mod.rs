//! The [`Bus`](crate::cluster::Bus) over core NATS, and its configuration.
//!
//! Owns the configuration. Must not name the client crate; that is `driver.rs`. The mapping of subjects is `encode.rs`.
//!
//! NATS from 2.2 on, one server or several of one cluster, `nats://` and `tls://`. Nkeys and credential files would
//! come in as further settings and stay inside `driver.rs`.

mod driver;
mod encode;

use std::{fmt, sync::Arc};

use self::{driver::NatsDriver, encode::Subjects};
use crate::{
    broker::{Core, LinkConfig, TlsFiles, bus_by_core, hide_credentials},
    cluster::BusError,
};

/// How to reach NATS.
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct NatsConfig {
    /// One server or several with commas between: `nats://[user:password@|token@]host[:port][,...]`, or `tls://`. The
    /// first credentials in the list are used for every server. Special characters in them are percent-encoded.
    pub url: String,
    /// The first tokens of every subject: letters, digits, `_` and `-`, with single dots between, at most 100
    /// characters. Default `roomcast`.
    pub prefix: String,
    /// The certificates of TLS connections.
    pub tls: TlsFiles,
    /// Times and bounds.
    pub link: LinkConfig,
}

impl NatsConfig {
    /// The defaults, for this URL.
    pub fn new(url: impl Into<String>) -> Self {
        Self {
            url: url.into(),
            prefix: "roomcast".into(),
            tls: TlsFiles::default(),
            link: LinkConfig::default(),
        }
    }
}

impl fmt::Debug for NatsConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NatsConfig")
            .field("url", &hide_credentials(&self.url))
            .field("prefix", &self.prefix)
            .field("tls", &self.tls)
            .field("link", &self.link)
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
