//! The ways in over a broker, as the configuration has them: which of them there are, and by which links.

use std::sync::Arc;
use std::time::Duration;

use roomcast_adapter::TlsFiles;
use roomcast_adapter::cluster::BusError;
use roomcast_adapter::redis::RedisConfig;
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::backend::Node;
use crate::backend::calls::Calls;
use crate::backend::redis::{EmitterSettings, StreamSettings, listen_to_emitters, read_stream};
use crate::config::{AdapterKind, Config, Tls};

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
    Ok(Ingest { stop, tasks })
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
