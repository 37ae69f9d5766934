//! The ways in over a broker, as the configuration has them: which of them there are, and by which links.

use std::sync::Arc;
use std::time::Duration;

use roomcast_adapter::TlsFiles;
use roomcast_adapter::cluster::BusError;
use roomcast_adapter::nats::NatsConfig;
use roomcast_adapter::redis::RedisConfig;
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::backend::Node;
use crate::backend::calls::Calls;
use crate::backend::nats::{NatsLink, serve_calls};
use crate::backend::redis::{EmitterSettings, StreamSettings, listen_to_emitters, read_stream};
use crate::config::{AdapterKind, Config, SecretUrl, Tls};
use crate::metrics::Metrics;

/// How long what was begun may take when the node stops.
const STOP_TIMEOUT: Duration = Duration::from_secs(5);

/// The ways in that are there. They end when this is dropped.
pub(super) struct Ingest {
    stop: watch::Sender<bool>,
    tasks: JoinSet<()>,
}

impl Ingest {
    /// Takes nothing more, and finishes what was begun.
    pub(super) async fn stop(self) {
        self.stop.send_replace(true);
        let _ = tokio::time::timeout(STOP_TIMEOUT, self.tasks.join_all()).await;
    }
}

/// Starts the ways in.
pub(super) fn start_ingest(
    config: &Config,
    node: &Arc<dyn Node>,
    calls: &Arc<Calls>,
    nats: Option<NatsLink>,
) -> Result<Ingest, BusError> {
    let mut tasks = JoinSet::new();
    let stop = watch::Sender::new(false);
    if let Some(redis) = redis_config(config) {
        let ingest = &config.ingest;
        if ingest.emitter.enabled.unwrap_or(true) {
            let settings = EmitterSettings {
                key: ingest.emitter.key.clone(),
                namespaces: config.namespaces.iter().map(|rules| rules.name.as_str().into()).collect(),
                max_attachments: config.engine.max_attachments,
            };
            tasks.spawn(listen_to_emitters(&redis, node, settings, stop.subscribe())?);
        }
        if ingest.stream.enabled {
            let settings = stream_settings(config);
            tasks.spawn(read_stream(&redis, node, calls, settings, stop.subscribe())?);
        }
    }
    if let Some(link) = nats {
        let max_calls = config.ingest.nats.max_calls;
        tasks.spawn(serve_calls(link, Arc::clone(calls), max_calls, stop.subscribe()));
    }
    Ok(Ingest { stop, tasks })
}

/// The client for backends on NATS, if there is a NATS.
pub(super) async fn connect_nats(
    config: &Config,
    metrics: &Arc<Metrics>,
) -> Result<Option<NatsLink>, BusError> {
    match nats_config(config) {
        Some(nats) if config.ingest.nats.enabled.unwrap_or(true) => {
            NatsLink::connect(&nats, metrics).await.map(Some)
        }
        _ => Ok(None),
    }
}

/// The NATS that backends use, if there is one.
fn nats_config(config: &Config) -> Option<NatsConfig> {
    let (own, adapter) = (&config.ingest.nats, &config.adapter);
    let mut nats = match &own.url {
        Some(url) => {
            let mut nats = NatsConfig::new(url.expose());
            nats.tls = tls_files(&own.tls);
            nats.credentials_file.clone_from(&own.credentials_file);
            nats.nkey_seed = own.nkey_seed.as_ref().map(|seed| seed.expose().to_owned());
            nats
        }
        None if adapter.kind == AdapterKind::Nats => adapter_nats(config),
        None => return None,
    };
    nats.prefix = own.prefix.clone().unwrap_or_else(|| adapter.prefix.clone());
    Some(nats)
}

/// The adapter's NATS.
pub(super) fn adapter_nats(config: &Config) -> NatsConfig {
    let adapter = &config.adapter;
    let mut nats = NatsConfig::new(adapter.url.as_ref().map(SecretUrl::expose).unwrap_or_default());
    nats.prefix.clone_from(&adapter.prefix);
    nats.tls = tls_files(&adapter.tls);
    nats.credentials_file.clone_from(&adapter.nats.credentials_file);
    nats.nkey_seed = adapter.nats.nkey_seed.as_ref().map(|seed| seed.expose().to_owned());
    nats
}

fn stream_settings(config: &Config) -> StreamSettings {
    let stream = &config.ingest.stream;
    StreamSettings {
        key: stream.key.clone().unwrap_or_else(|| format!("{}:emit", config.adapter.prefix)),
        group: stream.group.clone(),
        batch: stream.batch,
        claim_after: stream.claim_after,
        max_deliveries: stream.max_deliveries,
        window: stream.window,
        max_dead: stream.max_dead,
        max_body: config.api.max_body,
    }
}

/// The Redis that backends use, if there is one.
fn redis_config(config: &Config) -> Option<RedisConfig> {
    let (own, adapter) = (&config.ingest.redis, &config.adapter);
    let (url, tls) = match &own.url {
        Some(url) => (url, &own.tls),
        None if adapter.kind == AdapterKind::Redis => (adapter.url.as_ref()?, &adapter.tls),
        None => return None,
    };
    let mut redis = RedisConfig::new(url.expose());
    redis.prefix.clone_from(&adapter.prefix);
    redis.tls = tls_files(tls);
    Some(redis)
}

pub(super) fn tls_files(tls: &Tls) -> TlsFiles {
    let mut files = TlsFiles::default();
    files.ca_file.clone_from(&tls.ca_file);
    files.cert_file.clone_from(&tls.cert_file);
    files.key_file.clone_from(&tls.key_file);
    files
}
