//! What happened, in order: a hash of all of it, and the lines themselves for whoever asks.

use super::Ms;
use super::random::mix;

/// The story of one run.
#[derive(Debug, Default)]
pub(super) struct Trace {
    hash: u64,
    events: u64,
    print: bool,
}

impl Trace {
    pub(super) fn new(print: bool) -> Self {
        Self { print, ..Self::default() }
    }

    /// Something happened to a node.
    pub(super) fn note(&mut self, at: Ms, node: usize, what: &'static str, details: [u64; 2]) {
        self.events += 1;
        let name = what.bytes().fold(0, |hash: u64, byte| hash.wrapping_mul(31).wrapping_add(byte.into()));
        for number in [at, node as u64, name, details[0], details[1]] {
            self.hash = mix(self.hash ^ number).wrapping_add(number);
        }
        if self.print {
            #[expect(clippy::print_stdout, reason = "whoever replays a seed asked for it")]
            {
                println!("{at:>8} ms  node {node:<2} {what:<20} {} {}", details[0], details[1]);
            }
        }
    }

    pub(super) fn hash(&self) -> u64 {
        self.hash
    }

    pub(super) fn events(&self) -> u64 {
        self.events
    }
}
