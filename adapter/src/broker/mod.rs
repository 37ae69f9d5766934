//! What every broker driver needs and none should write again: connection lifetimes, bounds and counters.
//!
//! A driver knows how one [`Link`](Driver::Link), connections for publishing and for receiving, is made and used.
//! [`Core`] owns when: it connects, notices that a link died, takes it apart completely, reports, and connects again.
//! Nothing here names a client crate or knows what subjects mean.
//!
//! A link that died is never repaired. Client crates have reconnection of their own, and retry commands or
//! subscribe again by themselves while doing so, which would deliver late what was already reported as refused. So a
//! link lives on two threads of its own ([`DriverRuntime`]), and its end is the end of their runtimes: no task, socket
//! or queued command of the client survives it. What it reads is delivered on a third thread ([`delivery`]).

mod core;
mod delivery;
mod inbound;
#[cfg(feature = "nats")]
mod inline;
mod runtime;
mod tls;

use std::{sync::Arc, time::Duration};

use futures_util::future::BoxFuture;
use tokio::runtime::Handle;

#[cfg(feature = "nats")]
pub(crate) use self::inline::Inline;
pub use self::tls::TlsFiles;
pub(crate) use self::{
    core::Core,
    inbound::{Fault, Inbound},
};
use crate::cluster::{BusError, Publication, Subject};

/// Bounds and intervals of the connections to a broker.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct LinkConfig {
    /// How long one attempt to connect may take, authentication included. Default 5 s.
    pub connect_timeout: Duration,
    /// How long the broker may take to confirm a batch or a ping. After that the connection counts as lost. Default 2 s.
    pub publish_timeout: Duration,
    /// How long subscriptions may take to stand. They wait behind the messages that are on their way. Default 5 s.
    pub subscribe_timeout: Duration,
    /// How often both connections are pinged, which is how a silent partition is noticed. Default 3 s.
    pub keepalive_interval: Duration,
    /// The first wait before connecting again; it doubles. Default 50 ms.
    pub reconnect_min: Duration,
    /// The longest wait between two attempts to connect. Default 1 s.
    pub reconnect_max: Duration,
    /// How many bytes, overhead included, may be published and not yet confirmed. More is refused. Default 64 MiB.
    pub max_in_flight: usize,
    /// How many bytes, overhead included, may have come and wait to be delivered. The broker keeps the rest. Default
    /// 64 MiB.
    pub max_inbound: usize,
}

impl Default for LinkConfig {
    fn default() -> Self {
        Self {
            connect_timeout: Duration::from_secs(5),
            publish_timeout: Duration::from_secs(2),
            subscribe_timeout: Duration::from_secs(5),
            keepalive_interval: Duration::from_secs(3),
            reconnect_min: Duration::from_millis(50),
            reconnect_max: Duration::from_secs(1),
            max_in_flight: 64 * 1024 * 1024,
            max_inbound: 64 * 1024 * 1024,
        }
    }
}

/// What a driver has counted since it was made.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct LinkStats {
    /// Messages that were handed to the sink.
    pub received: u64,
    /// Messages that were read, and are not handed to the sink yet.
    pub waiting: u64,
    /// Messages that came from the broker and were dropped before the sink saw them, at least.
    pub lost: u64,
    /// How often subscriptions were interrupted while the link stood, as when a cluster moves a slot.
    pub gaps: u64,
    /// How often a link died.
    pub outages: u64,
    /// Publications that were refused or not confirmed.
    pub refused: u64,
    /// Times that messages were dropped because this node was slow, as far as the broker or the client said so.
    pub slow_consumer: u64,
    /// Times that a server of the broker's cluster was given up: until it answers, subscriptions are confirmed without
    /// knowing whether they stand there.
    pub uncovered: u64,
}

/// Where a link is made: the threads for its two connections, and whom it reports to.
pub(crate) struct Site {
    /// The thread of the subscribing connection.
    pub(crate) reader: Handle,
    /// The thread of the publishing connection, apart, so that a burst of messages does not delay publishing.
    pub(crate) writer: Handle,
    /// Takes the messages.
    pub(crate) inbound: Inbound,
    /// Takes the news that a connection is lost.
    pub(crate) fault: Fault,
}

/// How a broker is spoken to, on connections that stand.
///
/// The returned futures are polled once before the call that asked for them returns, and must have queued their
/// commands by then: the order of the calls is the order on the wire.
pub(crate) trait Driver: Send + Sync + 'static {
    /// The broker's name in logs and threads.
    const NAME: &'static str;
    /// What a publication that waits costs of `max_in_flight` beside its payload and subject, in bytes.
    const PUBLICATION_OVERHEAD: usize;
    /// Two connections.
    type Link: Send + Sync + 'static;

    /// The address without credentials, for messages.
    fn endpoint(&self) -> &str;
    /// Makes both connections; the caller bounds the time.
    fn connect(&self, site: Site) -> BoxFuture<'_, Result<Self::Link, BusError>>;
    /// See [`Bus::publish`](crate::cluster::Bus::publish).
    fn publish(link: Arc<Self::Link>, batch: Vec<Publication>) -> BoxFuture<'static, Result<(), BusError>>;
    /// See [`Bus::subscribe`](crate::cluster::Bus::subscribe).
    fn subscribe(link: Arc<Self::Link>, subjects: Vec<Subject>) -> BoxFuture<'static, Result<(), BusError>>;
    /// See [`Bus::unsubscribe`](crate::cluster::Bus::unsubscribe).
    fn unsubscribe(link: Arc<Self::Link>, subjects: Vec<Subject>)
    -> BoxFuture<'static, Result<(), BusError>>;
    /// A round trip on the publishing connection.
    fn ping_writer(link: Arc<Self::Link>) -> BoxFuture<'static, Result<(), BusError>>;
    /// A round trip on the subscribing connection.
    fn ping_reader(link: Arc<Self::Link>) -> BoxFuture<'static, Result<(), BusError>>;
    /// The longest payload.
    fn max_payload(&self) -> usize;
}

/// Takes secrets out of a text that somebody will read. Client crates do not put them there today.
pub(crate) fn redact(text: String, secrets: &[String]) -> String {
    secrets.iter().filter(|secret| !secret.is_empty()).fold(text, |text, secret| {
        if text.contains(secret.as_str()) { text.replace(secret.as_str(), "***") } else { text }
    })
}

/// Hides the credentials of one or several URLs.
pub(crate) fn hide_credentials(urls: &str) -> String {
    let hidden: Vec<String> = urls
        .split(',')
        .map(|url| {
            let (scheme, rest) = url.split_once("://").map_or(("", url), |(scheme, rest)| (scheme, rest));
            let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
            // The last `@`, so that an unescaped one inside a password hides more rather than less.
            let start = rest.rfind('@').map_or(0, |at| at + 1);
            let hidden = if start == 0 { "" } else { "***@" };
            let shown = if start > end { &rest[start..] } else { &rest[start..end] };
            let separator = if scheme.is_empty() { "" } else { "://" };
            format!("{scheme}{separator}{hidden}{shown}")
        })
        .collect();
    hidden.join(",")
}

/// Makes a public type a [`Bus`](crate::cluster::Bus) by its field `core`.
macro_rules! bus_by_core {
    ($bus:ty) => {
        impl $bus {
            /// What was counted so far.
            pub fn stats(&self) -> $crate::LinkStats {
                self.core.stats()
            }
        }

        impl std::fmt::Debug for $bus {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.debug_struct(stringify!($bus)).field("stats", &self.stats()).finish_non_exhaustive()
            }
        }

        impl Drop for $bus {
            fn drop(&mut self) {
                self.core.begin_close();
            }
        }

        impl $crate::cluster::Bus for $bus {
            fn start(
                &self,
                sink: std::sync::Arc<dyn $crate::cluster::BusSink>,
            ) -> futures_util::future::BoxFuture<'_, Result<(), $crate::cluster::BusError>> {
                Box::pin(std::sync::Arc::clone(&self.core).start(sink))
            }

            fn publish(
                &self,
                batch: Vec<$crate::cluster::Publication>,
            ) -> futures_util::future::BoxFuture<'_, Result<(), $crate::cluster::BusError>> {
                self.core.publish(batch)
            }

            fn subscribe(
                &self,
                subjects: Vec<$crate::cluster::Subject>,
            ) -> futures_util::future::BoxFuture<'_, Result<(), $crate::cluster::BusError>> {
                self.core.subscribe(subjects)
            }

            fn unsubscribe(
                &self,
                subjects: Vec<$crate::cluster::Subject>,
            ) -> futures_util::future::BoxFuture<'_, Result<(), $crate::cluster::BusError>> {
                self.core.unsubscribe(subjects)
            }

            fn max_payload(&self) -> usize {
                self.core.max_payload()
            }

            fn ping(&self) -> futures_util::future::BoxFuture<'_, Result<(), $crate::cluster::BusError>> {
                Box::pin(self.core.ping())
            }

            fn close(&self) -> futures_util::future::BoxFuture<'_, ()> {
                Box::pin(self.core.close())
            }
        }
    };
}

pub(crate) use bus_by_core;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_are_hidden_wherever_the_at_sign_is() {
        for (url, shown) in [
            ("redis://localhost:6379/3", "redis://localhost:6379"),
            ("redis://user:secret@localhost/3", "redis://***@localhost"),
            ("nats://secret@a:1,nats://u:secret@b:2", "nats://***@a:1,nats://***@b:2"),
            ("a:1,b:2", "a:1,b:2"),
            ("nats://u:sec/ret@host:1", "nats://***@host:1"),
            ("redis://host?password=secret", "redis://host"),
            ("secret@host", "***@host"),
        ] {
            assert_eq!(hide_credentials(url), shown);
        }
    }

    #[test]
    fn secrets_are_redacted() {
        assert_eq!(redact("bad hunter2 here".into(), &["hunter2".into(), String::new()]), "bad *** here");
    }
}
