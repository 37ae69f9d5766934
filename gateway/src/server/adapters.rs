//! The adapter that is configured. Owns how settings become those of a broker's driver and of the cluster.

use std::sync::Arc;

use roomcast_adapter::cluster::{Bus, ClusterConfig, ClusterFactory};
use roomcast_adapter::nats::NatsBus;
use roomcast_adapter::redis::{PubSub, RedisBus, RedisConfig};
use roomcast_adapter::{AdapterFactory, LinkStats, LocalFactory};

use super::counters::{ReadLink, export_counters, export_link};
use super::ingest::{adapter_nats, tls_files};
use super::observe::Observer;
use super::run::RunError;
use crate::config::{AdapterKind, Config, RedisPubSub};
use crate::metrics::Metrics;
use crate::trace::Tracer;

/// Starts the adapter that is configured, and has its figures exported.
pub(super) async fn start_adapter(
    config: &Config,
    metrics: &Arc<Metrics>,
    tracer: &Tracer,
) -> Result<Arc<dyn AdapterFactory>, RunError> {
    let kind = config.adapter.kind;
    let failed = |error: Box<dyn std::error::Error + Send + Sync>| RunError::Adapter { kind, error };
    let url = config.adapter.url.as_ref().map(|url| url.expose().to_owned()).unwrap_or_default();
    let prefix = config.adapter.prefix.clone();
    let (bus, link): (Arc<dyn Bus>, ReadLink) = match kind {
        AdapterKind::Memory => {
            let factory = LocalFactory::with_random_tag().map_err(|error| failed(error.into()))?;
            factory.set_vacate_after(config.adapter.directory.vacate_after);
            export_counters(metrics, factory.counters());
            export_link(metrics, &(Arc::new(LinkStats::default) as ReadLink));
            return Ok(factory);
        }
        AdapterKind::Redis => {
            let mut redis = RedisConfig::new(url);
            redis.prefix = prefix;
            redis.tls = tls_files(&config.adapter.tls);
            redis.link.max_inbound = config.adapter.inbound.max_bytes;
            redis.pubsub = match config.adapter.redis.pubsub {
                RedisPubSub::Auto => PubSub::Auto,
                RedisPubSub::Sharded => PubSub::Sharded,
                RedisPubSub::Classic => PubSub::Classic,
            };
            let bus = Arc::new(RedisBus::new(&redis).map_err(|error| failed(error.into()))?);
            (Arc::clone(&bus) as _, Arc::new(move || bus.stats()))
        }
        AdapterKind::Nats => {
            let mut nats = adapter_nats(config);
            nats.link.max_inbound = config.adapter.inbound.max_bytes;
            let bus = Arc::new(NatsBus::new(&nats).map_err(|error| failed(error.into()))?);
            (Arc::clone(&bus) as _, Arc::new(move || bus.stats()))
        }
    };
    let factory = ClusterFactory::start(bus, cluster_config(config)).await;
    let factory = factory.map_err(|error| failed(error.into()))?;
    factory.observe(Arc::new(Observer { metrics: Arc::clone(metrics), tracer: tracer.clone() }));
    export_counters(metrics, factory.counters());
    export_link(metrics, &link);
    Ok(factory)
}

fn cluster_config(config: &Config) -> ClusterConfig {
    let adapter = &config.adapter;
    ClusterConfig {
        heartbeat: adapter.heartbeat,
        expiry: adapter.expiry,
        lease: adapter.lease,
        discovery: adapter.discovery,
        linger: adapter.linger,
        request_timeout: adapter.request_timeout,
        subscribe_timeout: adapter.subscribe_timeout,
        outbox_items: adapter.outbox.max_items,
        outbox_bytes: adapter.outbox.max_bytes,
        max_lag: adapter.inbound.max_lag,
        max_requests: adapter.max_requests,
        max_rooms_per_emit: adapter.max_rooms_per_emit,
        max_room_subjects: adapter.max_room_subjects,
        hashed_subjects: adapter.hashed_subjects,
        directory_interval: adapter.directory.interval,
        vacate_after: adapter.directory.vacate_after,
        ..ClusterConfig::default()
    }
}
