//! What a node was told about its end: by signals, by the API, or by who runs it.
//!
//! Owns the plan and who may change it. Carrying it out is `drain`'s.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use roomcast_adapter::DrainOrder;
use tokio::sync::{mpsc, watch};

use super::drain::begins;
use crate::config::{Config, Drain};

/// How long a node that is to end at once may still take: for clients that are just being told, and for the goodbye.
const LAST_MOMENT: Duration = Duration::from_millis(1500);

/// A reason to end that comes from outside of the cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stop {
    /// SIGTERM: as it is configured.
    Terminate,
    /// SIGINT: somebody at a terminal waits for it.
    Interrupt,
}

/// How a node ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Plan {
    /// How long it still takes clients.
    pub(super) delay: Duration,
    /// Connections that are closed per second, unless that would take longer than `period`; only that counts without it.
    pub(super) rate: Option<u32>,
    pub(super) period: Duration,
    /// How long acks, and then backends, are waited for.
    pub(super) grace: Duration,
}

impl Plan {
    /// Nothing is waited for.
    const AT_ONCE: Self =
        Self { delay: Duration::ZERO, rate: None, period: Duration::ZERO, grace: Duration::ZERO };

    fn configured(drain: &Drain) -> Self {
        Self { delay: drain.delay, rate: Some(drain.rate), period: drain.period, grace: drain.grace }
    }

    fn ordered(drain: &Drain, order: DrainOrder) -> Self {
        let configured = Self::configured(drain);
        let delay = order.delay.unwrap_or(configured.delay);
        match order.period {
            // Who names a period means it, with few connections as well.
            Some(period) => Self { delay, period, rate: None, ..configured },
            None => Self { delay, ..configured },
        }
    }
}

/// Whether the node goes on, and how it ends.
pub(super) struct Lifecycle {
    config: watch::Receiver<Arc<Config>>,
    plan: watch::Sender<Option<Plan>>,
    /// A second reason to end came.
    cut: AtomicBool,
}

impl Lifecycle {
    pub(super) fn new(config: watch::Receiver<Arc<Config>>) -> Self {
        Self { config, plan: watch::Sender::new(None), cut: AtomicBool::new(false) }
    }

    /// The plan, as soon as there is one.
    pub(super) fn plan(&self) -> watch::Receiver<Option<Plan>> {
        self.plan.subscribe()
    }

    pub(super) fn is_ending(&self) -> bool {
        self.plan.borrow().is_some()
    }

    /// Whether it was told to end at once, whatever is under way.
    pub(super) fn is_cut(&self) -> bool {
        self.cut.load(Ordering::Relaxed)
    }

    /// The API says so. False if the node is ending already: then nothing changes.
    pub(super) fn order(&self, order: DrainOrder) -> bool {
        let plan = Plan::ordered(&self.config.borrow().drain, order);
        self.plan.send_if_modified(|current| {
            let first = current.is_none();
            current.get_or_insert(plan);
            first
        })
    }

    /// Does a part of the start, unless the node is told to end meanwhile: what it waits for may never come.
    pub(super) async fn unless_ending<T>(&self, part: impl Future<Output = T>) -> Option<T> {
        let mut plans = self.plan();
        tokio::select! {
            biased;
            done = part => Some(done),
            _ = begins(&mut plans) => None,
        }
    }

    /// Hands on what comes from outside. The first reason to end takes the place of what the API said, as whoever sends it
    /// waits with a time of its own; the second one means at once. Ready when the node has to end, whatever it still waits
    /// for.
    pub(super) async fn obey(&self, stops: &mut mpsc::Receiver<Stop>) {
        let mut told = false;
        while let Some(stop) = stops.recv().await {
            let plan = match stop {
                _ if told => {
                    self.cut.store(true, Ordering::Relaxed);
                    Plan::AT_ONCE
                }
                Stop::Terminate => {
                    let configured = Plan::configured(&self.config.borrow().drain);
                    // The balancers have heard of it, or had the time to.
                    let delay = if self.is_ending() { Duration::ZERO } else { configured.delay };
                    Plan { delay, ..configured }
                }
                Stop::Interrupt => Plan { grace: self.config.borrow().drain.grace, ..Plan::AT_ONCE },
            };
            self.plan.send_replace(Some(plan));
            if self.is_cut() {
                tokio::time::sleep(LAST_MOMENT).await;
                return;
            }
            told = true;
        }
        std::future::pending::<()>().await;
    }
}

/// The signals that end a process, as they come.
pub(super) fn signals() -> mpsc::Receiver<Stop> {
    let (tell, stops) = mpsc::channel(2);
    #[cfg(unix)]
    {
        use tokio::signal::unix::{SignalKind, signal};
        let kinds = [(SignalKind::terminate(), Stop::Terminate), (SignalKind::interrupt(), Stop::Interrupt)];
        for (kind, stop) in kinds {
            match signal(kind) {
                Ok(mut signals) => {
                    let tell = tell.clone();
                    tokio::spawn(async move {
                        while signals.recv().await.is_some() && tell.send(stop).await.is_ok() {}
                    });
                }
                Err(error) => {
                    tracing::error!(%error, ?stop, "a signal is not heard: it ends the node at once");
                }
            }
        }
    }
    #[cfg(not(unix))]
    tokio::spawn(async move {
        while tokio::signal::ctrl_c().await.is_ok() && tell.send(Stop::Interrupt).await.is_ok() {}
    });
    stops
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn lifecycle() -> Lifecycle {
        let drain = Drain { delay: SECOND, rate: 7, period: 2 * SECOND, grace: 3 * SECOND };
        let config = Config { drain, ..Config::default() };
        Lifecycle::new(watch::channel(Arc::new(config)).1)
    }

    /// The plan after these reasons to end.
    fn after(lifecycle: &Lifecycle, stops: &[Stop]) -> Plan {
        let (tell, mut told) = mpsc::channel(8);
        stops.iter().for_each(|stop| tell.try_send(*stop).unwrap());
        let mut obey = std::pin::pin!(lifecycle.obey(&mut told));
        let mut cx = std::task::Context::from_waker(std::task::Waker::noop());
        assert!(obey.as_mut().poll(&mut cx).is_pending());
        lifecycle.plan().borrow().unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn sigterm_drains_sigint_is_quick_and_the_second_signal_means_at_once() {
        let configured = Plan { delay: SECOND, rate: Some(7), period: 2 * SECOND, grace: 3 * SECOND };
        assert_eq!(after(&lifecycle(), &[Stop::Terminate]), configured);
        let quick = after(&lifecycle(), &[Stop::Interrupt]);
        assert_eq!((quick.delay, quick.period, quick.grace), (Duration::ZERO, Duration::ZERO, 3 * SECOND));
        for first in [Stop::Terminate, Stop::Interrupt] {
            for second in [Stop::Terminate, Stop::Interrupt] {
                let lifecycle = lifecycle();
                after(&lifecycle, &[first]);
                assert!(!lifecycle.is_cut());
                assert_eq!(after(&lifecycle, &[first, second]), Plan::AT_ONCE);
                assert!(lifecycle.is_cut());
            }
        }
    }

    #[test]
    fn the_api_is_heard_once_and_a_signal_goes_over_it() {
        let lifecycle = lifecycle();
        assert!(!lifecycle.is_ending());
        assert!(lifecycle.order(DrainOrder { delay: None, period: Some(60 * SECOND) }));
        let plan = Plan { delay: SECOND, rate: None, period: 60 * SECOND, grace: 3 * SECOND };
        assert_eq!(*lifecycle.plan().borrow(), Some(plan));
        assert!(lifecycle.is_ending() && !lifecycle.order(DrainOrder::default()));
        assert_eq!(*lifecycle.plan().borrow(), Some(plan));
        let plan = after(&lifecycle, &[Stop::Terminate]);
        assert_eq!((plan.delay, plan.period), (Duration::ZERO, 2 * SECOND));
    }

    #[tokio::test(start_paused = true)]
    async fn what_still_waits_after_the_second_signal_is_not_waited_for() {
        let lifecycle = lifecycle();
        let (tell, mut told) = mpsc::channel(8);
        tell.try_send(Stop::Terminate).unwrap();
        assert!(tokio::time::timeout(3600 * SECOND, lifecycle.obey(&mut told)).await.is_err());
        let (tell, mut told) = mpsc::channel(8);
        for stop in [Stop::Terminate, Stop::Interrupt] {
            tell.try_send(stop).unwrap();
        }
        tokio::time::timeout(2 * SECOND, lifecycle.obey(&mut told)).await.unwrap();
        assert!(lifecycle.is_cut());
    }

    #[test]
    fn an_order_without_times_is_as_configured() {
        let lifecycle = lifecycle();
        assert!(lifecycle.order(DrainOrder { delay: Some(Duration::ZERO), period: None }));
        let plan = Plan { delay: Duration::ZERO, rate: Some(7), period: 2 * SECOND, grace: 3 * SECOND };
        assert_eq!(*lifecycle.plan().borrow(), Some(plan));
    }
}
