//! Sending every client of a node away, so that it can end: not ready first, then no new clients, then the connections one
//! after the other.
//!
//! Owns the order and the times; the plan may change at any moment, and what was done stays done. Knows no signal and no API.

use std::future::Future;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

use super::Io;
use super::lifecycle::Plan;
use crate::connection::Leaving;
use crate::metrics::SentAway;

/// How often one looks whether the last connections have ended.
const LOOK: Duration = Duration::from_millis(10);

/// How often one looks for connections that were let in while the door was being closed.
const STRAGGLERS: Duration = Duration::from_secs(1);

/// How long connections that are cut off may take to write what is left.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// How often progress is told.
const TELL: Duration = Duration::from_secs(5);

/// Waits for a plan.
pub(super) async fn begins(plans: &mut watch::Receiver<Option<Plan>>) -> Plan {
    loop {
        if let Some(plan) = *plans.borrow_and_update() {
            return plan;
        }
        if plans.changed().await.is_err() {
            // Nobody can make one any more.
            std::future::pending::<()>().await;
        }
    }
}

/// Carries something out for no longer than the grace of the plan. False if it was not done in time.
pub(super) async fn with_grace(
    plans: &mut watch::Receiver<Option<Plan>>,
    task: impl Future<Output = ()>,
) -> bool {
    let (start, mut task) = (Instant::now(), std::pin::pin!(task));
    loop {
        let plan = begins(plans).await;
        tokio::select! {
            biased;
            () = &mut task => return true,
            () = tokio::time::sleep_until(start + plan.grace) => return false,
            Ok(()) = plans.changed() => {}
        }
    }
}

/// Sends all clients away by the plan. Ready when nobody is connected any more, or was cut off.
pub(super) async fn drain(io: &Io, plans: &mut watch::Receiver<Option<Plan>>) {
    let plan = begins(plans).await;
    let connections = io.connection_count();
    io.metrics().draining.set(1);
    tracing::info!(
        connections,
        delay_ms = plan.delay.as_millis(),
        period_ms = plan.period.as_millis(),
        "draining: not ready, and still taking clients"
    );
    let start = Instant::now();
    // Nobody would miss a node that is alone and has no connections. In a cluster, balancers and callers of the API point at
    // it all the same.
    while !(is_alone(io) && io.connection_count() == 0) && start.elapsed() < begins(plans).await.delay {
        tokio::time::sleep(LOOK).await;
    }
    io.engine().refuse_new();
    send_away(io, plans).await;
    let waited = with_grace(plans, deserted(io)).await;
    if !waited {
        let (connections, passed_on) = (io.connection_count(), io.passed_on());
        io.engine().close();
        io.leave_peers();
        if tokio::time::timeout(LAST_WORDS, deserted(io)).await.is_err() || connections + passed_on > 0 {
            tracing::warn!(connections, passed_on, "connections are cut off");
        }
    }
    tracing::info!(seconds = start.elapsed().as_secs_f64(), "drained");
}

/// Whether no other node is live.
fn is_alone(io: &Io) -> bool {
    let me = io.factory().node();
    io.factory().node_infos().iter().all(|info| info.tag == me)
}

/// Tells every connection to go, by the pace of the plan.
async fn send_away(io: &Io, plans: &mut watch::Receiver<Option<Plan>>) {
    let mut leaving = Leaving::all(io.engine(), SentAway::Drain);
    let mut tell = tokio::time::interval(TELL);
    tell.reset();
    loop {
        let plan = begins(plans).await;
        tracing::info!(connections = leaving.len(), "draining: no new clients, closing the connections");
        io.release_peers(plan.period);
        let mut going = std::pin::pin!(async {
            let begun = Instant::now();
            leaving.go(io.engine(), plan.rate, plan.period).await;
            // The WebSockets that are passed on have the whole of the period, and new ones some of the grace.
            while io.passed_on() > 0 && begun.elapsed() < plan.period {
                tokio::time::sleep(LOOK).await;
            }
        });
        loop {
            tokio::select! {
                biased;
                () = &mut going => return,
                Ok(()) = plans.changed() => break,
                _ = tell.tick() => {
                    tracing::info!(connections = io.connection_count(), "draining: closing the connections");
                }
            }
        }
    }
}

/// Ready when nobody is connected, here or through this node to another. Those who came in while the door was being closed are told to go, too.
async fn deserted(io: &Io) {
    let mut told_at = None;
    while !io.engine().is_deserted() || io.passed_on() > 0 {
        if told_at.is_none_or(|at: Instant| at.elapsed() >= STRAGGLERS) {
            Leaving::all(io.engine(), SentAway::Drain).go(io.engine(), None, Duration::ZERO).await;
            told_at = Some(Instant::now());
        }
        tokio::time::sleep(LOOK).await;
    }
}

#[cfg(test)]
#[path = "drain_tests.rs"]
mod tests;
