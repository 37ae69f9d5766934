//! A node's entry into the cluster and its way out.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use futures_util::future::{BoxFuture, FutureExt};
use parking_lot::Mutex;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout};

use super::directory::Cursor;
use super::journey::ClusterObserver;
use super::message::{Identity, Message, Vitals};
use super::node::Node;
use super::receive::Ear;
use super::{Bus, BusError, ClusterAdapter, ClusterConfig, subject};
use crate::adapter::{Adapter, AdapterError, AdapterFactory, NamespaceEvents, NodeInfo, Status};
use crate::counters::Counters;
use crate::host::{DrainError, DrainOrder, Drains, Host};
use crate::id::NodeTag;
use crate::once::{Once, OnceKey};
use crate::presence::PresenceEvent;
use crate::reach::Reach;
use crate::tap::Tap;

/// Tags that are tried before the node gives up. With 2^24 tags one collision is rare.
const MAX_DRAWS: usize = 8;
/// How long a node that leaves waits for what it has to publish still.
const DRAIN: Duration = Duration::from_secs(1);

/// Why a node could not enter its cluster.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ClusterError {
    /// The broker cannot be reached, or it refuses.
    #[error(transparent)]
    Bus(#[from] BusError),
    /// The operating system has no randomness.
    #[error("no randomness: {0}")]
    Random(getrandom::Error),
    /// Every tag that was drawn is another node's.
    #[error("no free node tag was found")]
    NoFreeTag,
}

impl ClusterError {
    /// A stable name for logs and metrics.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Bus(error) => error.code(),
            Self::Random(_) => "no_randomness",
            Self::NoFreeTag => "no_free_tag",
        }
    }
}

/// Makes the [`ClusterAdapter`]s of one node, and is this node in the cluster.
pub struct ClusterFactory {
    node: Arc<Node>,
    tasks: Mutex<Vec<JoinHandle<()>>>,
    directory: Mutex<Option<JoinHandle<()>>>,
}

impl ClusterFactory {
    /// Connects to the broker, finds the other nodes and a tag that none of them has. Returns once the node is ready:
    /// its subscriptions stand and the members are known. Must be called within a tokio runtime.
    ///
    /// # Errors
    ///
    /// A broker that cannot be reached is an error: a node never falls back to be alone.
    pub async fn start(bus: Arc<dyn Bus>, config: ClusterConfig) -> Result<Arc<Self>, ClusterError> {
        Self::start_with(bus, config, draw).await
    }

    /// Like `start`, with identities of the caller's.
    pub(crate) async fn start_with(
        bus: Arc<dyn Bus>,
        config: ClusterConfig,
        draw: impl FnMut() -> Result<Identity, ClusterError>,
    ) -> Result<Arc<Self>, ClusterError> {
        let mut draw = draw;
        let node = Node::new(Arc::clone(&bus), config, draw()?);
        bus.start(Arc::new(Ear(Arc::downgrade(&node)))).await?;
        let started = Self::enter(&node, draw).await;
        if started.is_err() {
            bus.close().await;
        }
        started
    }

    async fn enter(
        node: &Arc<Node>,
        draw: impl FnMut() -> Result<Identity, ClusterError>,
    ) -> Result<Arc<Self>, ClusterError> {
        claim(node, draw).await?;
        let me = node.me().tag;
        // Connecting may have taken long; nothing was due before.
        node.beat_at.store(node.now_ms(), Ordering::Release);
        node.interests.want(&subject::all());
        node.interests.want(&subject::node(me));
        let (outbox, probe) = (Arc::clone(node), Arc::clone(node));
        let tasks = vec![
            tokio::spawn(Arc::clone(node).run()),
            tokio::spawn(Arc::clone(node).run_interest()),
            tokio::spawn(async move { probe.probe.run().await }),
            tokio::spawn(async move { outbox.outbox.run(Arc::clone(&outbox.bus), &outbox.travel).await }),
        ];
        let directory = tokio::spawn(Arc::clone(node).run_directory());
        let factory = Arc::new(Self {
            node: Arc::clone(node),
            tasks: Mutex::new(tasks),
            directory: Mutex::new(Some(directory)),
        });
        node.members_known.store(true, Ordering::Release);
        node.update_status();
        let mut status = factory.status();
        let ready = status.wait_for(|status| *status == Status::Ready);
        match timeout(node.config.subscribe_timeout, ready).await {
            Ok(_) => {}
            Err(_) => return Err(BusError::Unavailable("the subscriptions do not stand".into()).into()),
        }
        tracing::info!(node = %me, others = node.members().len(), "entered the cluster");
        Ok(factory)
    }

    /// Requests for acks of other nodes that are in hand.
    #[cfg(test)]
    pub(crate) fn relays(&self) -> usize {
        self.node.relays.lock().len()
    }

    /// What this node is in its cluster.
    #[cfg(feature = "simulation")]
    pub(crate) fn in_the_cluster(&self) -> &Node {
        &self.node
    }

    /// Has what this node measures of its cluster told. The first observer stays.
    pub fn observe(&self, observer: Arc<dyn ClusterObserver>) {
        self.node.travel.observe(observer);
    }

    /// What this node counts.
    pub fn counters(&self) -> &Arc<Counters> {
        &self.node.counters
    }
}

/// Finds a tag that no live node has, and becomes a member under it.
async fn claim(
    node: &Arc<Node>,
    mut draw: impl FnMut() -> Result<Identity, ClusterError>,
) -> Result<(), ClusterError> {
    node.bus.subscribe(vec![subject::all()]).await?;
    for _ in 0..MAX_DRAWS {
        node.conflict.store(false, Ordering::Release);
        let mine = subject::node(node.me().tag);
        node.bus.subscribe(vec![mine.clone()]).await?;
        node.announce(subject::all(), &[Message::Hello]).await?;
        tokio::time::sleep(node.config.discovery).await;
        if !node.conflict.load(Ordering::Acquire) {
            node.claimed.store(true, Ordering::Release);
            // The others know this node before it is ready.
            node.announce_life(subject::all()).await?;
            return Ok(());
        }
        tracing::warn!(node = %node.me().tag, "another node has this tag: drawing again");
        node.bus.unsubscribe(vec![mine]).await?;
        *node.identity.write() = draw()?;
    }
    Err(ClusterError::NoFreeTag)
}

/// A random tag, and a generation that is later than those of earlier lives.
fn draw() -> Result<Identity, ClusterError> {
    let mut random = [0; 6];
    getrandom::fill(&mut random).map_err(ClusterError::Random)?;
    let [tag @ .., a, b, c] = random;
    let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let millis = u64::try_from(since_epoch.as_millis()).unwrap_or_default();
    let low = u64::from(a) << 16 | u64::from(b) << 8 | u64::from(c);
    // The random bits tell two lives apart that began in the same millisecond.
    Ok(Identity { tag: NodeTag::from_random(tag), generation: millis << 20 | low & 0xf_ffff })
}

impl AdapterFactory for ClusterFactory {
    fn node(&self) -> NodeTag {
        self.node.me().tag
    }

    fn namespace(&self, name: &str, events: Arc<dyn NamespaceEvents>) -> Arc<dyn Adapter> {
        let namespace = self.node.namespace(name, events);
        Arc::new(ClusterAdapter::new(Arc::clone(&self.node), namespace))
    }

    fn status(&self) -> watch::Receiver<Status> {
        self.node.status.subscribe()
    }

    fn tap(&self) -> &Arc<Tap> {
        &self.node.tap
    }

    fn nodes(&self) -> Vec<NodeTag> {
        let mut nodes = self.node.members();
        nodes.push(self.node.me().tag);
        nodes.sort_unstable();
        nodes
    }

    fn node_infos(&self) -> Vec<NodeInfo> {
        let now = Instant::now().into_std();
        let info = |tag, vitals: Option<Vitals>, age| NodeInfo {
            tag,
            sockets: vitals.map(|vitals| vitals.sockets),
            rooms: vitals.map(|vitals| vitals.rooms),
            standing: vitals.and_then(|vitals| vitals.standing),
            age,
        };
        let membership = self.node.membership.lock();
        let others = membership
            .live()
            .map(|(tag, member)| info(tag, member.vitals, now.saturating_duration_since(member.heard_at)));
        let mut infos: Vec<_> = others.collect();
        drop(membership);
        infos.push(info(self.node.me().tag, Some(self.node.vitals()), Duration::ZERO));
        infos.sort_unstable_by_key(|info| info.tag);
        infos
    }

    fn presence(&self) -> mpsc::Receiver<PresenceEvent> {
        self.node.directory.listen()
    }

    fn end_presence(&self) {
        match self.node.stopped.load(Ordering::Acquire) {
            true => self.node.directory.stop_listening(),
            false => self.node.directory.end(),
        }
    }

    fn once(&self, key: OnceKey) -> BoxFuture<'static, Result<Once, AdapterError>> {
        Arc::clone(&self.node).once(key).boxed()
    }

    fn announce_reach(&self, reach: Reach) -> BoxFuture<'static, ()> {
        Arc::clone(&self.node).announce_reach(reach).boxed()
    }

    fn reach_of(&self, node: NodeTag) -> Option<Reach> {
        self.node.reach_of(node)
    }

    fn set_host(&self, host: &Arc<dyn Host>) {
        self.node.host.set(host);
    }

    fn drain(&self, node: NodeTag, order: DrainOrder) -> BoxFuture<'static, Result<Drains, DrainError>> {
        Arc::clone(&self.node).drain(node, order).boxed()
    }

    fn shutdown(&self) -> BoxFuture<'static, ()> {
        let node = Arc::clone(&self.node);
        let tasks = std::mem::take(&mut *self.tasks.lock());
        let directory = self.directory.lock().take();
        async move {
            if node.stopped.swap(true, Ordering::AcqRel) {
                return;
            }
            node.update_status();
            if let Some(directory) = directory {
                // Two turns at once would give two updates the same number.
                directory.abort();
                let _ = directory.await;
            }
            // The others learn what became of its sockets from this node itself.
            node.directory_turn(&mut Cursor::default()).await;
            // What cannot be published within the time is lost, as it would be with the node.
            let _ = timeout(DRAIN, node.outbox.drained()).await;
            tasks.iter().for_each(JoinHandle::abort);
            if let Err(error) = node.announce(subject::all(), &[Message::Goodbye]).await {
                tracing::debug!(code = error.code(), "no goodbye");
            }
            node.outbox.set_up(false);
            node.bus.close().await;
        }
        .boxed()
    }
}

impl Drop for ClusterFactory {
    fn drop(&mut self) {
        self.tasks.lock().iter().chain(self.directory.lock().as_ref()).for_each(JoinHandle::abort);
    }
}
