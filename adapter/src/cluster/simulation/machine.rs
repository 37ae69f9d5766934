//! One process of the simulated cluster: the real node, on a runtime of its own.
//!
//! Each process has its own thread of virtual time, so that it can be stopped like a process (nothing runs, its timers
//! do not fire, the clock goes on) and killed like one (its runtime is dropped with all that is in it). Whatever the node
//! spawns or sleeps for is caught thereby, without a seam in its code.

use std::pin::pin;
use std::sync::Arc;

use futures_util::StreamExt;
use futures_util::future::{BoxFuture, poll_immediate};
use parking_lot::Mutex;
use roomcast_protocol::socketio::Args;
use tokio::runtime::{Builder, Handle, Runtime};
use tokio::task::{AbortHandle, yield_now};

use super::Ms;
use super::bus::SimulatedBus;
use super::mark::{self, Number};
use super::network::Inbound;
use crate::adapter::{AckEvent, Adapter, AdapterError, AdapterFactory, Collected, Describe};
use crate::adapter::{NamespaceEvents, ServerReply, Status};
use crate::cluster::message::Identity;
use crate::cluster::{ClusterConfig, ClusterFactory};
use crate::id::{NodeTag, SocketId};

pub(super) const NAMESPACE: &str = "/";

/// How an operation ended.
#[derive(Debug)]
pub(super) enum Outcome {
    Joined(Result<bool, AdapterError>),
    Sent(Result<(), AdapterError>),
    Count(Collected<usize>),
    Fetched(Collected<Vec<SocketId>>),
    Changed(Result<Collected<()>, AdapterError>),
    Replies(Collected<Vec<NodeTag>>),
    Acks(Vec<AckEvent>),
}

/// What came by `server_side_emit`.
#[derive(Default)]
pub(super) struct Heard(Mutex<Vec<(Option<Number>, Option<ServerReply>)>>);

impl NamespaceEvents for Heard {
    fn server_side_event(&self, name: &str, _: Args, reply: Option<ServerReply>) {
        self.0.lock().push((mark::find(name.as_bytes()), reply));
    }
}

impl Heard {
    pub(super) fn take(&self) -> Vec<(Option<Number>, Option<ServerReply>)> {
        std::mem::take(&mut self.0.lock())
    }
}

/// What the sockets of a simulation say of themselves.
pub(super) struct Nobody;

impl Describe for Nobody {
    fn handshake(&self) -> serde_json::Value {
        serde_json::Value::Null
    }
    fn data(&self) -> serde_json::Value {
        serde_json::Value::Null
    }
}

/// A node that has entered its cluster.
#[derive(Clone)]
pub(super) struct Serving {
    pub(super) factory: Arc<ClusterFactory>,
    pub(super) adapter: Arc<dyn Adapter>,
    pub(super) heard: Arc<Heard>,
}

impl Serving {
    pub(super) fn generation(&self) -> u64 {
        self.factory.in_the_cluster().me().generation
    }

    /// It did not run for so long.
    pub(super) fn hangs(&self, for_: std::time::Duration) -> bool {
        self.factory.in_the_cluster().hung_for() >= for_
    }

    pub(super) fn is_ready(&self) -> bool {
        *self.factory.status().borrow() == Status::Ready
    }
}

type Entry = Arc<Mutex<Option<Result<Arc<ClusterFactory>, &'static str>>>>;
type Ended = Arc<Mutex<Vec<(Number, Ms, Outcome)>>>;

pub(super) struct Machine {
    pub(super) bus: Arc<SimulatedBus>,
    pub(super) tag: NodeTag,
    pub(super) serving: Option<Serving>,
    pub(super) paused_until: Option<Ms>,
    pub(super) paused_at: Ms,
    /// It says goodbye.
    pub(super) leaving: bool,
    /// When it learned that its connection stands.
    pub(super) up_at: Ms,
    /// When its clock stands still.
    pub(super) clock: Ms,
    pub(super) was_ready: bool,
    /// The life in which it is.
    pub(super) generation: u64,
    entry: Entry,
    ended: Ended,
    handle: Handle,
    /// Away while it runs.
    runtime: Option<Runtime>,
}

impl Machine {
    /// Starts a process that enters the cluster.
    pub(super) fn start(now: Ms, number: usize, config: ClusterConfig) -> Self {
        let runtime = Builder::new_current_thread().enable_time().start_paused(true).build();
        let runtime = runtime.expect("a runtime without I/O needs nothing of the system");
        let [.., a, b, c] = (number as u64 + 1).wrapping_mul(0x0003_5717).to_be_bytes();
        let tag = NodeTag::from_random([a, b, c]);
        let identity = Identity { tag, generation: number as u64 + 1 };
        let bus = {
            let _context = runtime.enter();
            SimulatedBus::new(now)
        };
        let entry = Entry::default();
        let (into, its_bus) = (Arc::clone(&entry), Arc::clone(&bus));
        runtime.spawn(async move {
            let entered = ClusterFactory::start_with(its_bus, config, move || Ok(identity)).await;
            *into.lock() = Some(entered.map_err(|error| error.code()));
        });
        Self {
            bus,
            tag,
            serving: None,
            paused_until: None,
            paused_at: 0,
            leaving: false,
            up_at: now,
            clock: now,
            was_ready: false,
            generation: identity.generation,
            entry,
            ended: Ended::default(),
            handle: runtime.handle().clone(),
            runtime: Some(runtime),
        }
    }

    /// Calls into the node as its own code would.
    pub(super) fn within<T>(&self, call: impl FnOnce() -> T) -> T {
        let _context = self.handle.enter();
        call()
    }

    /// Waits for the end of an operation.
    pub(super) fn wait(&self, number: Number, outcome: BoxFuture<'static, Outcome>) -> AbortHandle {
        let (ended, bus) = (Arc::clone(&self.ended), Arc::clone(&self.bus));
        let wait = self.handle.spawn(async move {
            let outcome = outcome.await;
            ended.lock().push((number, bus.now(), outcome));
        });
        wait.abort_handle()
    }

    pub(super) fn take_ended(&self) -> Vec<(Number, Ms, Outcome)> {
        std::mem::take(&mut self.ended.lock())
    }

    /// The node has entered its cluster, or could not: then the answer is false.
    pub(super) fn look(&mut self) -> bool {
        let Some(entered) = self.entry.lock().take() else { return true };
        let Ok(factory) = entered else { return false };
        let heard = Arc::new(Heard::default());
        let adapter = self.within(|| factory.namespace(NAMESPACE, Arc::clone(&heard) as _));
        self.serving = Some(Serving { factory, adapter, heard });
        true
    }

    /// Says goodbye, and is over when `serving` is none again.
    pub(super) fn leave(&mut self) {
        self.leaving = true;
        let Some(serving) = self.serving.take() else { return };
        let entry = Arc::clone(&self.entry);
        self.handle.spawn(async move {
            serving.factory.shutdown().await;
            *entry.lock() = Some(Err("left"));
        });
    }

    /// Runs the process until `until`, and lets it have what comes. `each` is called after each thing, with the time.
    ///
    /// A process that was stopped finds its clock gone on. Either its timers or what waits at its connection come first:
    /// `timers_first` says which.
    pub(super) fn run(
        &mut self,
        inbox: Vec<(Ms, Inbound)>,
        until: Ms,
        timers_first: bool,
        mut each: impl FnMut(&mut Self, Ms, Inbound),
    ) {
        let Some(runtime) = self.runtime.take() else { return };
        let bus = Arc::clone(&self.bus);
        let from = until.saturating_sub(super::network::WINDOW);
        let main = async {
            if self.clock < from {
                let gap = std::time::Duration::from_millis(from - self.clock);
                let jump = pin!(tokio::time::advance(gap));
                // Once is enough to move the clock; the rest would let the timers fire.
                let _ = poll_immediate(jump).await;
                if timers_first {
                    for _ in 0..4 {
                        yield_now().await;
                    }
                }
            }
            for (at, inbound) in inbox {
                if bus.now() < at {
                    tokio::time::sleep_until(bus.instant(at)).await;
                }
                each(self, at.max(from), inbound);
            }
            tokio::time::sleep_until(bus.instant(until)).await;
        };
        runtime.block_on(main);
        self.runtime = Some(runtime);
        self.clock = until;
    }
}

/// All that a stream of acks says.
pub(super) async fn all_acks(stream: crate::adapter::AckStream) -> Outcome {
    Outcome::Acks(stream.collect().await)
}
