//! The memory adapter's factory: a node that is alone.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures_util::future::{BoxFuture, FutureExt, ready};
use parking_lot::Mutex;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

use super::LocalAdapter;
use super::presence::{self, Changes, Watch};
use crate::adapter::{Adapter, AdapterError, AdapterFactory, NamespaceEvents, NodeInfo, Status};
use crate::counters::Counters;
use crate::host::{DrainError, DrainOrder, Drains, Host, HostSlot};
use crate::id::NodeTag;
use crate::once::{Claimant, First, Once, OnceKey, Record, Table, Verdict};
use crate::presence::PresenceEvent;
use crate::tap::Tap;

pub(super) type Namespaces = Mutex<HashMap<Arc<str>, Arc<LocalAdapter>>>;

/// How long a room has been empty before it counts as vacated, unless it is set.
const VACATE_AFTER: Duration = Duration::from_secs(3);

/// Makes [`LocalAdapter`]s. Always ready.
pub struct LocalFactory {
    node: NodeTag,
    namespaces: Arc<Namespaces>,
    changes: Arc<Changes>,
    counters: Arc<Counters>,
    tap: Arc<Tap>,
    host: HostSlot,
    status: watch::Sender<Status>,
    once: Arc<Mutex<Table>>,
    calls: AtomicU64,
    /// The beginning of the node's own time.
    epoch: Instant,
}

impl LocalFactory {
    /// A node with this tag.
    pub fn new(node: NodeTag) -> Arc<Self> {
        let (counters, changes): (Arc<Counters>, Arc<Changes>) = Default::default();
        changes.set_vacate_after(VACATE_AFTER);
        Arc::new(Self {
            node,
            namespaces: Arc::default(),
            changes,
            tap: Arc::default(),
            host: HostSlot::default(),
            once: Arc::new(Mutex::new(Table::new(Arc::clone(&counters)))),
            counters,
            status: watch::Sender::new(Status::Ready),
            calls: AtomicU64::new(0),
            epoch: Instant::now(),
        })
    }

    /// A node with a random tag.
    ///
    /// # Errors
    ///
    /// When the operating system has no randomness.
    pub fn with_random_tag() -> Result<Arc<Self>, getrandom::Error> {
        let mut random = [0; 3];
        getrandom::fill(&mut random)?;
        Ok(Self::new(NodeTag::from_random(random)))
    }

    /// How long a room has been empty before it counts as vacated.
    pub fn set_vacate_after(&self, vacate_after: Duration) {
        self.changes.set_vacate_after(vacate_after);
    }

    /// What this node counts.
    pub fn counters(&self) -> &Arc<Counters> {
        &self.counters
    }
}

impl AdapterFactory for LocalFactory {
    fn node(&self) -> NodeTag {
        self.node
    }

    fn namespace(&self, name: &str, _events: Arc<dyn NamespaceEvents>) -> Arc<dyn Adapter> {
        let mut namespaces = self.namespaces.lock();
        if let Some(adapter) = namespaces.get(name) {
            return Arc::clone(adapter) as _;
        }
        let namespace: Arc<str> = name.into();
        let watch = Watch { namespace: Arc::clone(&namespace), changes: Arc::clone(&self.changes) };
        let (counters, tap) = (Arc::clone(&self.counters), Arc::clone(&self.tap));
        let adapter = LocalAdapter::observed(self.node, name, counters, tap, Some(Arc::new(watch)));
        let adapter = Arc::new(adapter);
        namespaces.insert(namespace, Arc::clone(&adapter));
        adapter
    }

    fn status(&self) -> watch::Receiver<Status> {
        self.status.subscribe()
    }

    fn nodes(&self) -> Vec<NodeTag> {
        vec![self.node]
    }

    fn node_infos(&self) -> Vec<NodeInfo> {
        let namespaces = self.namespaces.lock();
        let sum = |count: fn(&LocalAdapter) -> usize| namespaces.values().map(|one| count(one) as u64).sum();
        vec![NodeInfo {
            tag: self.node,
            sockets: Some(sum(LocalAdapter::socket_count)),
            rooms: Some(sum(LocalAdapter::room_count)),
            standing: self.host.standing(),
            age: Duration::ZERO,
        }]
    }

    fn presence(&self) -> mpsc::Receiver<PresenceEvent> {
        presence::listen(&self.namespaces, &self.changes, &self.counters)
    }

    fn end_presence(&self) {
        self.changes.end();
    }

    fn tap(&self) -> &Arc<Tap> {
        &self.tap
    }

    fn once(&self, key: OnceKey) -> BoxFuture<'static, Result<Once, AdapterError>> {
        let claimant = Claimant { node: self.node, number: self.calls.fetch_add(1, Ordering::Relaxed) };
        let (table, epoch) = (Arc::clone(&self.once), self.epoch);
        let now = move || u64::try_from(epoch.elapsed().as_millis()).unwrap_or(u64::MAX);
        let verdict = self.once.lock().claim(key, claimant, |_| true, now());
        let once = match verdict {
            Verdict::Granted => Once::First(First::new(move |answer| {
                table.lock().take(Record::settled(key, claimant, answer), now());
                ready(()).boxed()
            })),
            Verdict::Before(answer) => Once::Before(answer),
            Verdict::Busy => Once::Busy,
            Verdict::Other => Once::Other,
        };
        ready(Ok(once)).boxed()
    }

    fn set_host(&self, host: &Arc<dyn Host>) {
        self.host.set(host);
    }

    fn drain(&self, node: NodeTag, order: DrainOrder) -> BoxFuture<'static, Result<Drains, DrainError>> {
        let told = if node == self.node { self.host.drain(order) } else { Err(DrainError::UnknownNode) };
        ready(told).boxed()
    }

    fn shutdown(&self) -> BoxFuture<'static, ()> {
        ready(()).boxed()
    }
}
