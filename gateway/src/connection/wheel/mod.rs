//! The deadlines of all connections of a node: a hashed timing wheel (Varghese and Lauck, 1987), turned by one task.
//!
//! A deadline is 32 bytes in a table, in place of a timer of the runtime: no allocation of its own, and no walk through
//! memory that nothing has touched since the last heartbeat. Deadlines are rounded up to a tick, so that many of them share
//! a wake of the thread.

mod table;

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::task::Waker;
use std::time::{Duration, Instant};

use arrayvec::ArrayVec;
use parking_lot::Mutex;
use tokio::sync::Notify;

use self::table::{Record, Table};

/// What a deadline may be late by: long enough that many heartbeats share a wake, and so short that their answers come while
/// what they touched is in the caches.
const TICK: Duration = Duration::from_millis(10);

/// Records that are looked at before the table is let go of for others.
const BATCH: usize = 64;

/// A connection's place in the wheel, to be given back by [`Wheel::remove`].
#[derive(Debug, Default)]
pub(super) struct Alarm {
    record: Option<Record>,
    /// How often alarms had been lost when it was set.
    losses: u32,
    deadline: Option<Instant>,
}

/// Wakes connections at their deadlines.
pub(crate) struct Wheel {
    origin: Instant,
    table: Mutex<Table>,
    /// How often what was set has been lost, with the runtime of the task that was to tell.
    losses: AtomicU32,
    /// Something is due before that task meant to wake.
    earlier: Notify,
}

impl Wheel {
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self {
            origin: Instant::now(),
            table: Mutex::default(),
            losses: AtomicU32::new(0),
            earlier: Notify::new(),
        })
    }

    /// Wakes the task once, at the deadline; an earlier call no longer holds. For a task that asks in every turn, with the same
    /// waker: a deadline that is set already costs nothing.
    ///
    /// Whoever is woken has reached its deadline, since ticks of deadlines are rounded up, those of the clock down, and the
    /// task looks at the clock after it was woken. It would not be woken a second time.
    pub(super) fn set(self: &Arc<Self>, alarm: &mut Alarm, deadline: Instant, waker: &Waker) {
        if alarm.deadline == Some(deadline) && alarm.losses == self.losses.load(Ordering::Relaxed) {
            return;
        }
        let due = ticks(deadline.saturating_duration_since(self.origin) + (TICK - Duration::from_nanos(1)));
        let mut table = self.table.lock();
        (alarm.deadline, alarm.losses) = (Some(deadline), self.losses.load(Ordering::Relaxed));
        let is_turned = table.wakes_at.is_some();
        if !is_turned {
            table.begin(ticks(self.origin.elapsed()));
        }
        let replaced = table.set(&mut alarm.record, due, waker);
        let is_earlier = table.wakes_at.is_none_or(|tick| due < tick);
        if is_earlier {
            table.wakes_at = Some(due);
        }
        drop(table);
        // Not under the lock: it may be the last that is left of a task.
        drop(replaced);
        if !is_turned {
            tokio::spawn(turn(Turning::of(self)));
        } else if is_earlier {
            self.earlier.notify_one();
        }
    }

    /// Gives the place back.
    pub(super) fn remove(&self, alarm: &mut Alarm) {
        let removed = std::mem::take(alarm).record.map(|record| self.table.lock().remove(record));
        drop(removed);
    }

    /// Wakes what is due. When to come again, unless nothing is set: then nobody turns the wheel any more.
    fn advance(&self) -> Option<Instant> {
        loop {
            let mut due = ArrayVec::<Waker, BATCH>::new();
            let mut table = self.table.lock();
            let is_done = table.advance(ticks(self.origin.elapsed()), &mut due);
            if is_done {
                table.wakes_at = table.next();
            }
            let next = table.wakes_at;
            drop(table);
            due.into_iter().for_each(Waker::wake);
            if is_done {
                return next.map(|tick| self.origin + time(tick));
            }
        }
    }
}

/// The task that turns the wheel for as long as something is set.
async fn turn(mut turning: Turning) {
    let wheel = Arc::clone(&turning.wheel);
    while let Some(next) = wheel.advance() {
        tokio::select! {
            () = tokio::time::sleep_until(next.into()) => {}
            () = wheel.earlier.notified() => {}
        }
    }
    turning.has_ended = true;
}

/// That a task turns the wheel. When its runtime ends before the wheel is empty, or before the task began, the connections
/// of other runtimes set their alarms anew: a server can be shared by several.
struct Turning {
    wheel: Arc<Wheel>,
    /// The wheel was empty. It may be turned by another task by now.
    has_ended: bool,
}

impl Turning {
    fn of(wheel: &Arc<Wheel>) -> Self {
        Self { wheel: Arc::clone(wheel), has_ended: false }
    }
}

impl Drop for Turning {
    fn drop(&mut self) {
        if self.has_ended {
            return;
        }
        let mut table = self.wheel.table.lock();
        table.wakes_at = None;
        self.wheel.losses.fetch_add(1, Ordering::Relaxed);
        let lost = table.clear();
        drop(table);
        lost.into_iter().for_each(Waker::wake);
    }
}

/// Whole ticks of a time.
fn ticks(time: Duration) -> u64 {
    const NANOS: u64 = TICK.as_nanos() as u64;
    // Divided in two steps: a division of 128 bits takes as long as the rest.
    time.as_secs() * (1_000_000_000 / NANOS) + u64::from(time.subsec_nanos()) / NANOS
}

fn time(ticks: u64) -> Duration {
    const MILLIS: u64 = TICK.as_millis() as u64;
    Duration::from_millis(ticks * MILLIS)
}

#[cfg(test)]
mod tests;
