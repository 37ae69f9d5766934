//! The ways in over a broker, as the configuration has them: which of them there are, and by which links.

use std::sync::Arc;

use roomcast_adapter::TlsFiles;
use roomcast_adapter::cluster::BusError;
use roomcast_adapter::redis::RedisConfig;
use tokio::task::JoinSet;

use crate::backend::Node;
use crate::backend::redis::{EmitterSettings, listen_to_emitters};
use crate::config::{AdapterKind, Config, Tls};

/// Starts the ways in. They end when what is returned is dropped.
pub(super) fn start_ingest(config: &Config, node: &Arc<dyn Node>) -> Result<JoinSet<()>, BusError> {
    let mut tasks = JoinSet::new();
    if let Some(redis) = redis_config(config) {
        let ingest = &config.ingest;
        if ingest.emitter.enabled.unwrap_or(true) {
            let settings = EmitterSettings {
                key: ingest.emitter.key.clone(),
                namespaces: config.namespaces.iter().map(|rules| rules.name.as_str().into()).collect(),
                max_attachments: config.engine.max_attachments,
            };
            tasks.spawn(listen_to_emitters(&redis, node, settings)?);
        }
    }
    Ok(tasks)
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
