//! Which broadcasts of other nodes are not delivered while this node is behind: a state machine without a clock.
//!
//! A node takes what comes in one order, and its connections write by turns. When it cannot keep up, everything waits for
//! what there is too much of. So while messages or turns wait for longer than the bound, what goes to the busiest rooms is *shed*: dropped before its fan-out,
//! which costs next to nothing, so that the queue drains. What is left keeps its order.
//!
//! How much each room may have is its fair share in the sense of max-min fairness: the work that can be done is dealt
//! out so that no room has less than it wants while another one has more than it. Rooms that want little get all of it,
//! however long the node is behind.
//! Work is counted in the bytes that the members will be written, and forgets half of itself with every `HALF_LIFE`.
//!
//! Owns who is busy and what is shed. Must not know what a message is.

use std::time::{Duration, Instant};

use rustc_hash::FxHashMap;

use super::Backlog;

/// Rooms whose work is kept. The least busy one gives way to the next one that comes.
const MAX_ROOMS: usize = 128;
/// In this time the work that was counted loses half of its weight.
const HALF_LIFE: Duration = Duration::from_millis(500);
/// How often what was counted is brought up to date, and the share with it.
const STEP: Duration = Duration::from_millis(10);
/// What is written to a member beside the packet, in bytes that take as long.
const OVERHEAD: usize = 256;
/// A node is behind only when messages have waited for too long for this part of the bound: one that was stopped, and
/// finds old messages in its queue, has lost no time.
const PERSISTENCE: u32 = 4;
/// A node is behind no more when messages wait for less than this part of the bound.
const RELIEF: f64 = 0.25;
/// The part of the work that was done that is dealt out again: with all of it, a queue would not become shorter.
const DEALT: f64 = 0.9;
/// At so many times the bound it was not enough to shed what goes to the busiest rooms: everything is shed.
const HARD: f64 = 4.0;
/// Warnings are this far apart.
const WARN_EVERY: Duration = Duration::from_secs(10);
/// A queue that is this full is as bad as one that is late.
const FULL: f64 = 0.5;

/// What becomes of a broadcast.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    Deliver,
    /// Its room has had its share.
    ShedRoom,
    /// The node is so far behind that all broadcasts are shed.
    ShedAny,
}

/// What a broadcast asks for.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Work {
    /// Which room it is for, or which namespace.
    pub(crate) room: u64,
    /// Sockets of this node that it goes to, about.
    pub(crate) recipients: usize,
    /// Bytes of its frames.
    pub(crate) bytes: usize,
}

impl Work {
    /// Also what goes to nobody has to be looked at.
    fn cost(self) -> f64 {
        (self.recipients + 1) as f64 * (self.bytes + OVERHEAD) as f64
    }
}

/// The work for one room, weighted by its age.
#[derive(Debug, Default)]
struct Load {
    offered: f64,
    delivered: f64,
}

#[derive(Debug)]
pub(crate) struct Overload {
    max_lag: Duration,
    rooms: FxHashMap<u64, Load>,
    total: Load,
    updated_at: Option<Instant>,
    /// Since when messages have waited for too long.
    late_since: Option<Instant>,
    /// What a room may have; nothing, while the node is not behind.
    share: Option<f64>,
    /// What every room may have, however long the node is behind: a part of what was done when that began.
    least_share: f64,
    warned_at: Option<Instant>,
}

impl Overload {
    pub(crate) fn new(max_lag: Duration) -> Self {
        Self {
            max_lag: max_lag.max(Duration::from_millis(1)),
            rooms: FxHashMap::default(),
            total: Load::default(),
            updated_at: None,
            late_since: None,
            share: None,
            least_share: 0.0,
            warned_at: None,
        }
    }

    /// True while broadcasts may be shed.
    pub(crate) fn is_behind(&self) -> bool {
        self.share.is_some()
    }

    /// True if somebody should be told, who was not told of late: a flood comes in waves.
    pub(crate) fn warns(&mut self, now: Instant) -> bool {
        let told = self.warned_at.is_some_and(|at| now.saturating_duration_since(at) < WARN_EVERY);
        if !told {
            self.warned_at = Some(now);
        }
        !told
    }

    /// What becomes of a broadcast. What is delivered counts as done. `turn` is how long tasks wait for their turn.
    pub(crate) fn judge(&mut self, work: Work, backlog: Backlog, turn: Duration, now: Instant) -> Verdict {
        let queue = self.pressure(backlog.waited).max(backlog.fill / FULL);
        let pressure = queue.max(self.pressure(turn));
        self.watch(pressure, now);
        self.update(pressure, now);
        let cost = work.cost();
        self.total.offered += cost;
        let share = self.share;
        let load = self.load(work.room);
        load.offered += cost;
        let verdict = match share {
            // Not by the turn of tasks: what they have to write is in mailboxes, and is not less for it.
            Some(_) if queue >= HARD => Verdict::ShedAny,
            // Not by what this one costs, so that a room that has had nothing gets one whatever the share is.
            Some(share) if load.delivered > share => Verdict::ShedRoom,
            _ => Verdict::Deliver,
        };
        if verdict == Verdict::Deliver {
            load.delivered += cost;
            self.total.delivered += cost;
        }
        verdict
    }

    /// How far behind the node is; 1 is the bound.
    fn pressure(&self, lag: Duration) -> f64 {
        lag.as_secs_f64() / self.max_lag.as_secs_f64()
    }

    /// Finds out whether the node is behind.
    fn watch(&mut self, pressure: f64, now: Instant) {
        if pressure < RELIEF {
            self.share = None;
        }
        if pressure < 1.0 {
            self.late_since = None;
            return;
        }
        let since = *self.late_since.get_or_insert(now);
        if self.share.is_none() && now.saturating_duration_since(since) >= self.max_lag / PERSISTENCE {
            self.least_share = self.total.delivered / MAX_ROOMS as f64;
            self.share = Some(self.fair_share(pressure));
        }
    }

    /// Lets what was counted grow old.
    fn update(&mut self, pressure: f64, now: Instant) {
        let passed = now.saturating_duration_since(*self.updated_at.get_or_insert(now));
        if passed < STEP {
            return;
        }
        self.updated_at = Some(now);
        let weight = 0.5_f64.powf(passed.as_secs_f64() / HALF_LIFE.as_secs_f64());
        let age = |load: &mut Load| {
            load.offered *= weight;
            load.delivered *= weight;
        };
        age(&mut self.total);
        self.rooms.retain(|_, load| {
            age(load);
            load.offered >= 1.0
        });
        if self.share.is_some() {
            self.share = Some(self.fair_share(pressure));
        }
    }

    /// The work for a room.
    fn load(&mut self, room: u64) -> &mut Load {
        if self.rooms.len() >= MAX_ROOMS && !self.rooms.contains_key(&room) {
            let least = self.rooms.iter().min_by(|a, b| a.1.offered.total_cmp(&b.1.offered));
            if let Some(least) = least.map(|(room, _)| *room) {
                self.rooms.remove(&least);
            }
        }
        self.rooms.entry(room).or_default()
    }

    /// Deals out the work that can be done: what was done lately, and less of it the further behind the node is. Rooms
    /// that are not kept are not busy, and have what they want.
    fn fair_share(&self, pressure: f64) -> f64 {
        let mut wanted: Vec<f64> = self.rooms.values().map(|load| load.offered).collect();
        wanted.sort_unstable_by(f64::total_cmp);
        let kept: f64 = wanted.iter().sum();
        let others = (self.total.offered - kept).max(0.0);
        let mut left = (self.total.delivered * DEALT / pressure.max(1.0) - others).max(0.0);
        let mut sharing = wanted.len();
        for want in wanted {
            let share = left / sharing as f64;
            if want > share {
                return share.max(self.least_share);
            }
            left -= want;
            sharing -= 1;
        }
        f64::INFINITY
    }

    /// Rooms that are kept.
    #[cfg(test)]
    pub(crate) fn rooms(&self) -> usize {
        self.rooms.len()
    }
}
