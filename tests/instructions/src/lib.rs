//! Counts the instructions of small pieces of work under valgrind's callgrind, and holds them to a committed baseline.
//!
//! Owns how a case is run, counted and judged; it must not know what is measured. Instructions repeat exactly where times
//! on a shared machine do not, so a change of a few per cent can be seen, and a test can refuse it.
//!
//! A bench is a program with a list of cases and nothing else (`harness = false`):
//!
//! ```no_run
//! use roomcast_instructions::{Case, Measure};
//!
//! fn sum(measure: &mut Measure) {
//!     let numbers: Vec<u64> = (0..100).collect();
//!     measure.each(10, || numbers.iter().sum::<u64>());
//! }
//!
//! fn main() -> std::process::ExitCode {
//!     roomcast_instructions::main(env!("CARGO_MANIFEST_DIR"), &[Case { name: "sum of 100", run: sum }])
//! }
//! ```
//!
//! `cargo bench` counts and judges; `UPDATE_GOLDEN=1 cargo bench` writes `benches/instructions.txt` of the crate anew.
//! `cargo test --benches` runs each case once, so that none breaks unnoticed.

mod baseline;
mod callgrind;

use std::env;
use std::hint::black_box;
use std::path::Path;
use std::process::ExitCode;

use baseline::Baseline;

/// Makes the program run its cases in place of starting valgrind: what runs under valgrind is told so.
const COUNTED: &str = "--counted";

/// A piece of work with a name. The name is its line of the baseline.
#[derive(Clone, Copy)]
pub struct Case {
    /// What is done once, in a few words.
    pub name: &'static str,
    /// Prepares, and calls [`Measure::each`] once.
    pub run: fn(&mut Measure),
}

/// Counts one case.
#[derive(Debug, Default)]
pub struct Measure {
    times: Option<u64>,
}

impl Measure {
    /// Does the work `times` times; what counts is the mean. It has been done once before, so that what is allocated or
    /// looked up only the first time is not in it.
    ///
    /// # Panics
    ///
    /// If it is called twice, since a case is one count.
    pub fn each<T>(&mut self, times: u64, mut work: impl FnMut() -> T) {
        assert!(self.times.is_none(), "a case measures once");
        self.times = Some(times);
        black_box(work());
        counted_by_callgrind(&mut || {
            for _ in 0..times {
                black_box(work());
            }
        });
    }
}

/// What callgrind looks for by this name: the counter is put to zero on the way in, and read on the way out.
#[inline(never)]
fn counted_by_callgrind(work: &mut dyn FnMut()) {
    black_box(work)();
}

/// The function to look for.
const COUNTED_FUNCTION: &str = "roomcast_instructions::counted_by_callgrind";

/// The whole of a bench: `folder` is the crate's.
pub fn main(folder: &str, cases: &[Case]) -> ExitCode {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let is = |argument: &str| arguments.iter().any(|given| given == argument);
    if is("--list") {
        // A test runner asks which tests there are.
        return ExitCode::SUCCESS;
    }
    if is(COUNTED) || !is("--bench") {
        for case in cases {
            let mut measure = Measure::default();
            (case.run)(&mut measure);
            println!("{}\t{}", case.name, measure.times.unwrap_or_default());
        }
        return ExitCode::SUCCESS;
    }
    match judge(Path::new(folder)) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

/// How much the two counts of a case may differ, of each other: a runtime with a timer, ids that are drawn and a heap that
/// grows here or there are not the same to the instruction.
const UNEVEN: f64 = 0.01;

/// Counts all cases twice, because a count that does not repeat judges nothing, and compares with the baseline.
fn judge(folder: &Path) -> Result<bool, callgrind::Error> {
    let (first, second) = callgrind::count_twice()?;
    let (mut same, mut repeats) = (0, true);
    for (one, other) in first.iter().zip(&second) {
        let off = (one.each - other.each).abs() / one.each.max(1.0);
        same += usize::from(off == 0.0);
        if off > UNEVEN {
            println!("{}: FAILED: {} instructions, and then {}", one.name, one.each, other.each);
            repeats = false;
        }
    }
    println!("counted twice: {same} of {} cases are the same to the instruction", first.len());
    let file = folder.join("benches/instructions.txt");
    if env::var("UPDATE_GOLDEN").is_ok_and(|on| on == "1") {
        Baseline::of(&first).write(&file)?;
        println!("wrote {}", file.display());
        return Ok(repeats);
    }
    let holds = Baseline::read(&file)?.judge(&first);
    Ok(repeats && holds)
}
