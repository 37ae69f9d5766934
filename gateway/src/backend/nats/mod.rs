//! NATS between the gateway and backends: calls of backends as a micro service, and what goes to them.
//!
//! Owns the client that both share, beside the adapter's connections. It connects by itself, again and again; while it
//! does, calls of backends wait at the server or find no responder, and backends count as unavailable.
//!
//! # Subjects
//!
//! `P` is the prefix. Backends call on `P.emit`, `P.request`, `P.join`, `P.leave`, `P.disconnect` and
//! `P.get.{room,socket,user}`, and listen on `P.in.>`. Names of namespaces and events are one token each, by the rule of
//! [`roomcast_adapter::nats::subject_token`]: letters, digits and `-_/:=@+~` stand for themselves, every other byte is `%`
//! and two capital hexadecimal digits, and what is longer than 200 characters ends with a digest. Values of headers
//! are written by the same rule.

mod outward;
mod service;

use std::sync::Arc;
use std::time::Duration;

use async_nats::connection::State;
use async_nats::{Client, Event};
use roomcast_adapter::cluster::BusError;
use roomcast_adapter::nats::{NatsConfig, connect_options};
use tokio::sync::watch;

use super::ingest::{Source, Tally};
use crate::metrics::Metrics;

pub(crate) use outward::NatsBackend;
pub(crate) use service::serve_calls;

/// Messages of one subscription that wait to be worked on. More are dropped by the client, and counted.
const QUEUE: usize = 4_096;
/// Commands that wait for the connection.
const COMMANDS: usize = 2_048;
/// The longest pause between two attempts to connect.
const RECONNECT_MAX: Duration = Duration::from_secs(2);

/// The client of the backends' side.
#[derive(Clone)]
pub(crate) struct NatsLink {
    client: Client,
    prefix: Arc<str>,
    up: watch::Receiver<bool>,
    tally: Tally,
}

impl NatsLink {
    /// Begins to connect. An error is one of the configuration: a server that is away is waited for.
    pub(crate) async fn connect(config: &NatsConfig, metrics: &Arc<Metrics>) -> Result<Self, BusError> {
        let (options, servers) = connect_options(config).await?;
        let (sender, up) = watch::channel(false);
        let tally = Tally::new(metrics, Source::Nats);
        let events = tally.clone();
        let options = options
            .name("roomcast-backends")
            .subscription_capacity(QUEUE)
            .client_capacity(COMMANDS)
            .retry_on_initial_connect()
            .reconnect_delay_callback(|attempts| {
                let doubled = Duration::from_millis(50).saturating_mul(1 << attempts.min(10));
                doubled.min(RECONNECT_MAX).mul_f64(rand::random_range(0.5..1.0))
            })
            .event_callback(move |event| {
                match event {
                    Event::Connected => {
                        sender.send_replace(true);
                        events.up(true);
                    }
                    Event::Disconnected | Event::Closed => {
                        sender.send_replace(false);
                        events.up(false);
                        events.count("link_lost");
                        tracing::warn!("the connection to NATS for backends is down");
                    }
                    Event::SlowConsumer(_) => events.count("dropped"),
                    event => tracing::warn!(%event, "NATS says"),
                }
                std::future::ready(())
            });
        let client = Box::pin(options.connect(servers)).await;
        let client = client.map_err(|error| BusError::Configuration(error.to_string()))?;
        Ok(Self { client, prefix: config.prefix.as_str().into(), up, tally })
    }

    fn is_up(&self) -> bool {
        self.client.connection_state() == State::Connected
    }

    /// Waits until there is a connection.
    async fn until_up(&self) {
        // An error says that the client is gone, and with it whatever waits here.
        let _ = self.up.clone().wait_for(|up| *up).await;
    }
}

impl std::fmt::Debug for NatsLink {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("NatsLink").field("prefix", &self.prefix).finish_non_exhaustive()
    }
}
