//! A model of the cluster: real nodes over a simulated broker, in virtual time, beside a reference that knows what must
//! come of it.
//!
//! One seed is one story, and always the same one: how many nodes there are, who joins and emits what and when, how long
//! messages are under way, and what breaks. Nothing here may draw chance, time or order from anywhere else.
//!
//! [`Calm`] is the same nodes and broker without faults, to count what they say to each other.

mod bus;
mod calm;
mod finale;
mod judge;
mod machine;
mod mark;
mod model;
mod network;
mod random;
mod script;
mod trace;
mod traffic;
mod world;

use std::cell::RefCell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Once;
use std::time::Duration;

pub use self::calm::Calm;
use self::random::Random;
use self::trace::Trace;
pub use self::traffic::{Carried, Kind, Traffic};
use self::world::World;
use super::ClusterConfig;

/// Milliseconds of the simulated world.
type Ms = u64;

/// A node that stops for longer than this is not to be relied on until it is ready again.
const SHORT_PAUSE: Ms = 2_000;
/// Nothing is under way for longer than this.
const LONGEST_WAY: Ms = 20_000;
/// After the last fault, all is well within this time.
const HEALING: Ms = 35_000;

/// What a seed draws for a whole run.
#[derive(Debug, Clone)]
struct Profile {
    nodes: usize,
    shards: usize,
    config: ClusterConfig,
    length: u64,
    busy_permille: u64,
    fault_permille: u64,
    slow_permille: u64,
    loss_permille: u64,
    duplicate_permille: u64,
}

impl Profile {
    /// Nodes have so many rooms that they go over to buckets of them.
    fn hashes(&self) -> bool {
        self.config.max_room_subjects < 100
    }

    /// Nothing breaks.
    fn calm(nodes: usize, config: ClusterConfig) -> Self {
        Self {
            nodes,
            shards: 1,
            config,
            length: 0,
            busy_permille: 0,
            fault_permille: 0,
            slow_permille: 0,
            loss_permille: 0,
            duplicate_permille: 0,
        }
    }

    fn draw(random: &mut Random) -> Self {
        let mut pick = |choices: &[u64]| random.pick(choices).copied().unwrap_or_default();
        Self {
            nodes: 5 + pick(&[0, 0, 1]) as usize,
            shards: pick(&[1, 1, 3]) as usize,
            config: ClusterConfig {
                linger: Duration::from_millis(pick(&[200, 1_000, 5_000])),
                lease: Duration::from_secs(pick(&[8, 15])),
                max_rooms_per_emit: pick(&[2, 64]) as usize,
                max_room_subjects: pick(&[65_536, 65_536, 65_536, 3, 0]) as usize,
                hashed_subjects: 4,
                ..ClusterConfig::default()
            },
            // Long enough to go over to buckets and back.
            length: pick(&[1, 1, 1, 3]),
            busy_permille: pick(&[200, 350, 500]),
            fault_permille: pick(&[0, 10, 20, 40]),
            slow_permille: pick(&[0, 20, 100]),
            loss_permille: pick(&[0, 0, 0, 5]),
            duplicate_permille: pick(&[0, 20, 200]),
        }
    }
}

/// How to run a seed.
#[derive(Debug, Clone)]
pub struct Options {
    /// Turns with faults and traffic, of 40 virtual milliseconds each, before everything has to heal. Default 750; some
    /// seeds take three times as many.
    pub steps: u64,
    /// Print everything that happens.
    pub trace: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self { steps: 750, trace: false }
    }
}

/// What a run came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// The same for the same seed, always and everywhere.
    pub hash: u64,
    /// What happened, as a number of things.
    pub events: u64,
    /// What the script did.
    pub operations: u64,
    /// Virtual milliseconds.
    pub millis: u64,
    /// The first thing that went wrong.
    pub failure: Option<String>,
}

thread_local! {
    static PANIC: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// A runtime catches what panics in its tasks, so that nobody would learn of it.
fn listen_for_panics() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            PANIC.with(|panic| {
                if let Ok(mut panic) = panic.try_borrow_mut() {
                    panic.get_or_insert_with(|| info.to_string());
                }
            });
            before(info);
        }));
    });
}

/// Runs one seed to its end, or to what goes wrong first.
pub fn run(seed: u64, options: &Options) -> Report {
    listen_for_panics();
    PANIC.take();
    let mut random = Random::new(seed);
    let profile = Profile::draw(&mut random);
    let mut world = World::new(random.next(), profile, Trace::new(options.trace));
    let ended = catch_unwind(AssertUnwindSafe(|| play(&mut world, options.steps)));
    let panic = PANIC.take().or_else(|| ended.is_err().then(|| "a panic".to_owned()));
    Report {
        hash: world.trace.hash(),
        events: world.trace.events(),
        operations: world.next_number.into(),
        millis: world.now,
        failure: panic.or_else(|| world.model.failure.take()),
    }
}

fn play(world: &mut World, steps: u64) {
    for _ in 0..world.profile.nodes {
        world.start();
    }
    for _ in 0..steps * world.profile.length {
        world.turn();
        if world.model.failure.is_some() || PANIC.with_borrow(Option::is_some) {
            return;
        }
        world.act();
        world.break_something();
    }
    world.end();
}
