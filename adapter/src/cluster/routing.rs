//! Whether a node listens to each of its rooms or to buckets of them: a state machine without a clock or a bus. And where
//! others have to publish for that.
//!
//! A node with very many rooms listens to buckets of them by hash, so that its subscriptions are bounded. To go over, in
//! either direction, it
//!
//! 1. *prepares*: subscribes the other set beside its own. Joins wait for both from here on;
//! 2. *asks*, once the other set stands for every room: it tells all nodes that it listens to both, and each answers once
//!    it publishes to both. It asks again with each heartbeat until all have answered or are gone for good;
//! 3. *settles*: waits a little for what is under way;
//! 4. *finishes*: says that it listens to the new set alone, and lets the old one go.
//!
//! At every moment each node publishes where the other one's confirmed joins stand: until the last answer to the old set,
//! which is kept, and from the first answer on to both. What comes on both is one message with one number, so it is acted
//! on once. Answers and announcements that are lost are made up for by the next question and by the vitals, which say
//! the same with every heartbeat.
//!
//! A node of a build that knows only the rooms' own subjects cannot publish to buckets. While one is there nobody goes
//! over to buckets, and who listens to buckets goes back at once.

use std::time::{Duration, Instant};

use rustc_hash::FxHashSet;

use super::message::{Identity, Listening};

/// How long a node keeps to what it went over to, whatever its number of rooms.
pub(crate) const DWELL: Duration = Duration::from_secs(30);
/// The least time for what is under way between nodes.
const MIN_SETTLE: Duration = Duration::from_millis(100);

/// Numbers of buckets that rooms are published to. One is what a cluster has, two while the setting is rolled out; each
/// takes a copy of every emit.
const MAX_BUCKET_NUMBERS: usize = 4;

/// What another node knows of buckets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Understands {
    /// It has not said yet.
    Unknown,
    /// It publishes to the rooms' own subjects only, and listens to them.
    Nothing,
    /// It publishes wherever others listen, and listens so itself.
    Hashing(Listening),
}

/// Another node that is not gone for good.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Peer {
    pub(crate) identity: Identity,
    pub(crate) understands: Understands,
}

/// Where the other nodes listen, all together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Audience {
    /// Some listen to the rooms' own subjects.
    pub(crate) exact: bool,
    /// Some listen to buckets, of which there are so many. One number, unless nodes are configured differently.
    pub(crate) buckets: Vec<u32>,
    /// There are too many numbers of buckets for a copy to each: what is for a room goes to the whole namespace, where
    /// everybody listens.
    pub(crate) everywhere: bool,
    /// Every one of them understands emits that tell of their way.
    pub(crate) knows_journeys: bool,
    /// Every one of them understands emits with acks that tell of their trace.
    pub(crate) knows_traced_asks: bool,
}

impl Audience {
    /// `certain` says that every node was heard that is there. Otherwise they may listen anywhere.
    pub(crate) fn of(others: impl Iterator<Item = Understands>, own_buckets: u32, certain: bool) -> Self {
        let mut audience = Self {
            exact: !certain,
            buckets: Vec::new(),
            everywhere: false,
            knows_journeys: false,
            knows_traced_asks: false,
        };
        let (mut alone, mut anywhere) = (true, !certain);
        for other in others {
            alone = false;
            match other {
                Understands::Unknown => anywhere = true,
                Understands::Nothing => audience.exact = true,
                Understands::Hashing(Listening { exact, hashed, buckets }) => {
                    audience.exact |= exact;
                    if hashed {
                        audience.add(buckets);
                    }
                }
            }
        }
        // Who believes to be alone still says what it has to say.
        audience.exact |= anywhere || alone;
        if anywhere {
            audience.add(own_buckets);
        }
        audience
    }

    fn add(&mut self, buckets: u32) {
        match self.buckets.contains(&buckets) {
            true => {}
            false if self.buckets.len() < MAX_BUCKET_NUMBERS => self.buckets.push(buckets),
            false => self.everywhere = true,
        }
    }
}

/// The sets of subjects for rooms.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    /// One for each room.
    Exact,
    /// One for each bucket of rooms.
    Hashed,
}

#[derive(Debug)]
enum Phase {
    Steady,
    /// The other set is being subscribed.
    Preparing,
    /// Both stand. The others are asked to publish to both.
    Asking {
        again_at: Instant,
        heard: FxHashSet<Identity>,
    },
    /// All publish to both.
    Settling {
        until: Instant,
    },
}

/// What has to be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    /// Subscribe what `Routing::subscribes` says, for all rooms.
    Prepare,
    /// Ask all nodes, under this number.
    Ask(u64),
    /// Let go of what `Routing::subscribes` does not say any more, and tell the others.
    Finish,
    /// There are too many rooms, and another node does not understand buckets, or counts them differently. Said once.
    Refuse,
}

#[derive(Debug)]
pub(crate) struct Routing {
    limit: usize,
    buckets: u32,
    settle: Duration,
    ask_every: Duration,
    /// The set that the phase began with.
    mode: Mode,
    phase: Phase,
    /// Of the last question.
    number: u64,
    calm_until: Option<Instant>,
    refused: bool,
}

impl Routing {
    pub(crate) fn new(limit: usize, buckets: u32, settle: Duration, ask_every: Duration) -> Self {
        Self {
            limit,
            buckets,
            settle: settle.max(MIN_SETTLE),
            ask_every,
            mode: Mode::Exact,
            phase: Phase::Steady,
            number: 0,
            calm_until: None,
            refused: false,
        }
    }

    /// What the node says of itself.
    pub(crate) fn listening(&self) -> Listening {
        let both = matches!(self.phase, Phase::Asking { .. } | Phase::Settling { .. });
        Listening {
            exact: both || self.mode == Mode::Exact,
            hashed: both || self.mode == Mode::Hashed,
            buckets: self.buckets,
        }
    }

    /// What has to stand for a join: the rooms' own subjects, and those of their buckets.
    pub(crate) fn subscribes(&self) -> (bool, bool) {
        let both = !matches!(self.phase, Phase::Steady);
        (both || self.mode == Mode::Exact, both || self.mode == Mode::Hashed)
    }

    /// The next thing to do. `prepared` says that everything stands that was to be subscribed by `Step::Prepare`.
    pub(crate) fn step(
        &mut self,
        now: Instant,
        rooms: usize,
        prepared: bool,
        peers: &[Peer],
    ) -> Option<Step> {
        let left_behind = peers.iter().any(|peer| peer.understands == Understands::Nothing);
        let answered = |heard: &FxHashSet<Identity>, peer: &Peer| match peer.understands {
            // It publishes to the rooms' own subjects whatever it is told, and that is what is left.
            Understands::Nothing => self.mode == Mode::Hashed,
            _ => heard.contains(&peer.identity),
        };
        match &mut self.phase {
            Phase::Steady => return self.steady(now, rooms, left_behind, peers),
            // Everything that it listened to before still stands, and everybody still publishes to it.
            _ if self.mode == Mode::Exact && left_behind => return Some(self.finish(Mode::Exact, now)),
            Phase::Preparing if prepared => {
                self.number += 1;
                self.phase = Phase::Asking { again_at: now + self.ask_every, heard: FxHashSet::default() };
                return Some(Step::Ask(self.number));
            }
            Phase::Preparing => {}
            Phase::Asking { heard, .. } if peers.iter().all(|peer| answered(heard, peer)) => {
                self.phase = Phase::Settling { until: now + self.settle };
            }
            Phase::Asking { again_at, .. } if *again_at <= now => {
                *again_at = now + self.ask_every;
                return Some(Step::Ask(self.number));
            }
            Phase::Asking { .. } => {}
            Phase::Settling { until } if *until <= now => {
                let target = match self.mode {
                    Mode::Exact => Mode::Hashed,
                    Mode::Hashed => Mode::Exact,
                };
                return Some(self.finish(target, now));
            }
            Phase::Settling { .. } => {}
        }
        None
    }

    fn steady(&mut self, now: Instant, rooms: usize, left_behind: bool, peers: &[Peer]) -> Option<Step> {
        let calm = self.calm_until.is_none_or(|until| until <= now);
        match self.mode {
            Mode::Exact => {
                self.refused &= self.is_over(rooms);
                if !self.is_over(rooms) || !calm {
                    return None;
                }
                let agrees = |peer: &Peer| match peer.understands {
                    Understands::Hashing(listening) => listening.buckets == self.buckets,
                    _ => false,
                };
                if !peers.iter().all(agrees) {
                    let unknown = peers.iter().any(|peer| peer.understands == Understands::Unknown);
                    let said = unknown || std::mem::replace(&mut self.refused, true);
                    return (!said).then_some(Step::Refuse);
                }
                self.refused = false;
            }
            Mode::Hashed if left_behind || (calm && rooms.saturating_mul(2) < self.limit) => {}
            Mode::Hashed => return None,
        }
        self.phase = Phase::Preparing;
        Some(Step::Prepare)
    }

    fn is_over(&self, rooms: usize) -> bool {
        rooms > self.limit || self.limit == 0
    }

    fn finish(&mut self, mode: Mode, now: Instant) -> Step {
        (self.mode, self.phase, self.calm_until) = (mode, Phase::Steady, Some(now + DWELL));
        Step::Finish
    }

    /// Another node publishes to both. True when that was waited for.
    pub(crate) fn heard(&mut self, from: Identity, number: u64) -> bool {
        match &mut self.phase {
            Phase::Asking { heard, .. } if number == self.number => heard.insert(from),
            _ => false,
        }
    }

    /// A new life of the node: what the others know of the last one does not count.
    pub(crate) fn reborn(&mut self, now: Instant) {
        if matches!(self.phase, Phase::Asking { .. } | Phase::Settling { .. }) {
            self.number += 1;
            self.phase = Phase::Asking { again_at: now, heard: FxHashSet::default() };
        }
    }

    /// When to ask for the next step, if nothing happens before.
    pub(crate) fn next_timeout(&self) -> Option<Instant> {
        match self.phase {
            Phase::Asking { again_at, .. } => Some(again_at),
            Phase::Settling { until } => Some(until),
            Phase::Steady | Phase::Preparing => None,
        }
    }
}

#[cfg(test)]
#[path = "routing_unit_tests.rs"]
mod tests;
