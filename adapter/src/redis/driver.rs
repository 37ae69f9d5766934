//! How a link to Redis is made, in each of the ways in which Redis is run, and the calls on it.
//!
//! Must not know what goes over a connection; that is `connection.rs`, `single.rs` and `sharded.rs`.

use std::{sync::Arc, time::Duration};

use futures_util::{
    FutureExt, StreamExt,
    future::{self, BoxFuture},
    stream::FuturesUnordered,
};
use parking_lot::Mutex;
use tokio::runtime::Handle;
use tokio_rustls::TlsConnector;

use super::{
    Channels, MAX_PAYLOAD, PubSub, RedisConfig,
    connection::{Dial, Wire},
    health::{self, Health},
    sentinel,
    sharded::Sharded,
    single::Single,
    topology::Topology,
    url::{Endpoint, Kind, Login, Target},
};
use crate::{
    broker::{Driver, Site, TlsFiles},
    cluster::{BusError, Publication, Subject},
};

/// The first version with sharded publish/subscribe.
const SHARDED_SINCE: u32 = 7;

pub(super) struct RedisDriver {
    target: Target,
    tls: TlsFiles,
    pubsub: PubSub,
    connect_timeout: Duration,
    endpoint: String,
    channels: Channels,
    secrets: Arc<[String]>,
    /// Masters of the cluster as it was last, should those of the URL all be gone.
    known: Mutex<Vec<Endpoint>>,
}

pub(super) enum RedisLink {
    Single(Arc<Single>),
    Sharded(Sharded),
}

impl RedisDriver {
    pub(super) fn new(config: &RedisConfig, channels: Channels) -> Result<Self, BusError> {
        let target = Target::parse(&config.url)?;
        if config.pubsub == PubSub::Sharded && target.kind != Kind::Cluster {
            let text = "sharded publish/subscribe needs a Redis Cluster, by redis-cluster://";
            return Err(BusError::Configuration(text.into()));
        }
        if target.tls {
            // So that what is wrong is found at once; what counts is read for each link.
            config.tls.client_config()?;
        }
        Ok(Self {
            endpoint: target.endpoint(),
            secrets: target.secrets().into(),
            target,
            tls: config.tls.clone(),
            pubsub: config.pubsub,
            connect_timeout: config.link.connect_timeout,
            channels,
            known: Mutex::default(),
        })
    }

    /// The server that has the keys of a slot, or any of those that carry publish/subscribe. None of them is a replica.
    pub(super) async fn master(
        &self,
        runtime: &Handle,
        of_slot: Option<u16>,
    ) -> Result<(Wire, Health), BusError> {
        match &self.target.kind {
            Kind::Standalone => {
                let server = self.target.servers.first().ok_or_else(nobody)?;
                Ok((Wire::open(runtime, server, &self.dial(1).await?).await?, Health::Answers))
            }
            Kind::Sentinel { service, login } => {
                let dial = self.dial(3).await?;
                let to_sentinel = Dial { login: login.clone(), ..dial.clone() };
                let named = sentinel::masters(runtime, &self.target.servers, service, &to_sentinel).await?;
                let mut error = nobody();
                for server in named {
                    match Wire::open(runtime, &server, &dial).await {
                        Ok(wire) if wire.greeting.is_master => return Ok((wire, Health::Master)),
                        Ok(_) => error = BusError::Unavailable(format!("{server} is not a master yet")),
                        Err(other) => error = other,
                    }
                }
                Err(error)
            }
            Kind::Cluster => {
                let dial = self.dial(3).await?;
                let topology = topology(runtime, &self.seeds(), &dial).await?;
                self.known.lock().clone_from(&topology.masters);
                let server = match of_slot {
                    Some(slot) => topology.master_of(slot),
                    None => topology.masters.first(),
                };
                let wire = Wire::open(runtime, server.ok_or_else(nobody)?, &dial).await?;
                Ok((wire, if of_slot.is_some() { Health::ClusterMaster } else { Health::ClusterNode }))
            }
        }
    }

    /// The nodes of a cluster that may know the others.
    fn seeds(&self) -> Vec<Endpoint> {
        let mut seeds = self.target.servers.clone();
        seeds.extend(self.known.lock().iter().filter(|node| !self.target.servers.contains(node)).cloned());
        seeds
    }

    /// How servers are spoken to. `of` is the number of attempts that the time has to do for.
    async fn dial(&self, of: u32) -> Result<Dial, BusError> {
        let tls = match self.target.tls {
            false => None,
            true => {
                let files = self.tls.clone();
                let read = tokio::task::spawn_blocking(move || files.client_config()).await;
                let read = read.map_err(|_| BusError::Unavailable("the TLS files were not read".into()))?;
                Some(TlsConnector::from(Arc::new(read?)))
            }
        };
        Ok(Dial {
            tls,
            login: self.target.login.clone(),
            database: self.target.database,
            timeout: self.connect_timeout / of,
            secrets: Arc::clone(&self.secrets),
        })
    }

    async fn single(
        &self,
        server: &Endpoint,
        dial: &Dial,
        site: &Site,
        health: Health,
    ) -> Result<RedisLink, BusError> {
        let link = Single::connect(server, dial, site, health, self.channels.clone()).await?;
        Ok(RedisLink::Single(link))
    }

    async fn standalone(&self, site: &Site) -> Result<RedisLink, BusError> {
        let dial = self.dial(1).await?;
        let server = self.target.servers.first().ok_or_else(nobody)?;
        let seen = Wire::open(&site.writer, server, &dial).await?;
        if seen.greeting.mode == "sentinel" {
            let text = format!("{server} is a Sentinel; its URL begins with redis-sentinel://");
            return Err(BusError::Configuration(text));
        }
        self.single(server, &dial, site, Health::Answers).await
    }

    async fn by_sentinel(&self, site: &Site, service: &str, login: &Login) -> Result<RedisLink, BusError> {
        let dial = self.dial(3).await?;
        let to_sentinel = Dial { login: login.clone(), ..dial.clone() };
        let servers = &self.target.servers;
        let named = sentinel::masters(&site.writer, servers, service, &to_sentinel).await?;
        let mut error = nobody();
        // One after the other: of two that believe to be the master, that of most Sentinels is.
        for server in named {
            match Wire::open(&site.writer, &server, &dial).await {
                Ok(seen) if seen.greeting.is_master => {
                    match self.single(&server, &dial, site, Health::Master).await {
                        Ok(link) => return Ok(link),
                        Err(other) => error = other,
                    }
                }
                Ok(_) => error = BusError::Unavailable(format!("{server} is not a master yet")),
                Err(other) => error = other,
            }
        }
        Err(error)
    }

    async fn by_cluster(&self, site: Site) -> Result<RedisLink, BusError> {
        let dial = self.dial(3).await?;
        let topology = topology(&site.writer, &self.seeds(), &dial).await?;
        let slots = topology.table().map_err(|slot| {
            BusError::Unavailable(format!("no node of the cluster at {} serves slot {slot}", self.endpoint))
        })?;
        self.known.lock().clone_from(&topology.masters);
        if self.pubsub == PubSub::Classic {
            return self.by_any_node(&site, topology.masters, &dial).await;
        }
        let all = topology.masters.iter().map(|master| node_wires(&site, master, &dial));
        let all = future::try_join_all(all).await?;
        if let Some((demoted, _)) = all.iter().find(|(writer, _)| !writer.greeting.is_master) {
            return Err(BusError::Unavailable(format!("{} is not a master any more", demoted.endpoint())));
        }
        if all.iter().all(|(writer, _)| writer.greeting.major >= SHARDED_SINCE) {
            let link = Sharded::start(all, slots, site, dial, self.channels.clone());
            return Ok(RedisLink::Sharded(link));
        }
        if self.pubsub == PubSub::Sharded {
            let text = "sharded publish/subscribe needs Redis 7 on every node";
            return Err(BusError::Configuration(text.into()));
        }
        drop(all);
        self.by_any_node(&site, topology.masters, &dial).await
    }

    /// Classic publish/subscribe on a cluster reaches all nodes from any. Both connections go to one, for the order.
    async fn by_any_node(
        &self,
        site: &Site,
        mut masters: Vec<Endpoint>,
        dial: &Dial,
    ) -> Result<RedisLink, BusError> {
        let mut random = [0; 8];
        // Without randomness all go to the first one, which works too.
        let _ = getrandom::fill(&mut random);
        let first = u64::from_le_bytes(random) % masters.len().max(1) as u64;
        masters.rotate_left(usize::try_from(first).unwrap_or(0));
        let mut error = nobody();
        for master in masters {
            match node_wires(site, &master, dial).await {
                Ok(_) => match self.single(&master, dial, site, Health::ClusterNode).await {
                    Ok(link) => return Ok(link),
                    Err(other) => error = other,
                },
                Err(other) => error = other,
            }
        }
        Err(error)
    }
}

fn nobody() -> BusError {
    BusError::Unavailable("no server to connect to".into())
}

/// A publishing and a subscribing connection to one server.
async fn wires(site: &Site, server: &Endpoint, dial: &Dial) -> Result<(Wire, Wire), BusError> {
    let writer = Wire::open(&site.writer, server, dial);
    let reader = Wire::open(&site.reader, server, dial);
    future::try_join(writer, reader).await
}

/// The same to a node of a cluster, if the cluster works by its eyes: one that has just come back may not know yet. What
/// is asked later is asked here too, so that a user that may not ask is told so.
async fn node_wires(site: &Site, server: &Endpoint, dial: &Dial) -> Result<(Wire, Wire), BusError> {
    let (mut writer, mut reader) = wires(site, server, dial).await?;
    writer.call(&["ROLE"]).await?;
    reader.call(&["ECHO", "roomcast"]).await?;
    match writer.call(&["CLUSTER", "INFO"]).await?.text().is_some_and(health::is_working) {
        true => Ok((writer, reader)),
        false => Err(BusError::Unavailable(format!("{server} is not part of a working cluster"))),
    }
}

/// The topology as the first of the seeds that answers tells it. All are asked at the same time.
async fn topology(runtime: &Handle, seeds: &[Endpoint], dial: &Dial) -> Result<Topology, BusError> {
    let ask = async |seed: &Endpoint| {
        let mut wire = Wire::open(runtime, seed, dial).await?;
        if wire.greeting.mode != "cluster" {
            let text =
                format!("{seed} is not a node of a Redis Cluster; without one the URL begins with redis://");
            return Err(BusError::Configuration(text));
        }
        let answer = wire.call(&["CLUSTER", "SLOTS"]).await?;
        Topology::parse(&answer, seed).ok_or_else(|| {
            BusError::Unavailable(format!("{seed}: CLUSTER SLOTS was not answered with slots"))
        })
    };
    let mut asking: FuturesUnordered<_> = seeds.iter().map(ask).collect();
    let mut error = nobody();
    while let Some(answer) = asking.next().await {
        match answer {
            Ok(topology) => return Ok(topology),
            // What is wrong with us says more than who is not there.
            Err(other @ BusError::Unavailable(_)) => {
                if matches!(error, BusError::Unavailable(_)) {
                    error = other;
                }
            }
            Err(other) => error = other,
        }
    }
    Err(error)
}

impl Driver for RedisDriver {
    const NAME: &'static str = "redis";
    // fred's future of one command is 6.5 KiB.
    const PUBLICATION_OVERHEAD: usize = 8 * 1024;
    type Link = RedisLink;

    fn endpoint(&self) -> &str {
        &self.endpoint
    }

    fn connect(&self, site: Site) -> BoxFuture<'_, Result<RedisLink, BusError>> {
        async move {
            match &self.target.kind {
                Kind::Standalone => self.standalone(&site).await,
                Kind::Sentinel { service, login } => self.by_sentinel(&site, service, login).await,
                Kind::Cluster => self.by_cluster(site).await,
            }
        }
        .boxed()
    }

    fn publish(link: Arc<RedisLink>, batch: Vec<Publication>) -> BoxFuture<'static, Result<(), BusError>> {
        match &*link {
            RedisLink::Single(link) => Arc::clone(link).publish(batch),
            RedisLink::Sharded(link) => link.publish(batch),
        }
    }

    fn subscribe(link: Arc<RedisLink>, subjects: Vec<Subject>) -> BoxFuture<'static, Result<(), BusError>> {
        match &*link {
            RedisLink::Single(link) => Arc::clone(link).subscribe(subjects),
            RedisLink::Sharded(link) => link.subscribe(&subjects),
        }
    }

    fn unsubscribe(link: Arc<RedisLink>, subjects: Vec<Subject>) -> BoxFuture<'static, Result<(), BusError>> {
        match &*link {
            RedisLink::Single(link) => Arc::clone(link).unsubscribe(subjects),
            RedisLink::Sharded(link) => link.unsubscribe(&subjects),
        }
    }

    fn ping_writer(link: Arc<RedisLink>) -> BoxFuture<'static, Result<(), BusError>> {
        match &*link {
            RedisLink::Single(link) => Arc::clone(link).ping_writer(),
            RedisLink::Sharded(link) => link.ping_writer(),
        }
    }

    fn ping_reader(link: Arc<RedisLink>) -> BoxFuture<'static, Result<(), BusError>> {
        match &*link {
            RedisLink::Single(link) => Arc::clone(link).ping_reader(),
            RedisLink::Sharded(link) => link.ping_reader(),
        }
    }

    fn max_payload(&self) -> usize {
        MAX_PAYLOAD
    }
}
