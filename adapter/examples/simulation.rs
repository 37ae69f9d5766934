//! The simulation of the cluster from the command line.
//!
//!     cargo run -p roomcast-adapter --features simulation --example simulation -- --seeds 1000
//!     cargo run -p roomcast-adapter --features simulation --example simulation -- --seed 42 --trace
#![allow(clippy::print_stdout, reason = "a program for the command line")]

use std::process::ExitCode;
use std::time::Instant;

use roomcast_adapter::cluster::simulation::{Options, run};

const USAGE: &str = "simulation [--seed FIRST] [--seeds COUNT] [--steps COUNT] [--trace]";

struct Arguments {
    first: u64,
    count: u64,
    options: Options,
}

fn arguments() -> Option<Arguments> {
    let mut arguments = Arguments { first: 0, count: 1, options: Options::default() };
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        let mut number = || words.next()?.parse().ok();
        match word.as_str() {
            "--seed" => arguments.first = number()?,
            "--seeds" => arguments.count = number()?,
            "--steps" => arguments.options.steps = number()?,
            "--trace" => arguments.options.trace = true,
            _ => return None,
        }
    }
    Some(arguments)
}

fn main() -> ExitCode {
    let Some(Arguments { first, count, options }) = arguments() else {
        println!("{USAGE}");
        return ExitCode::from(2);
    };
    let (started, mut failed, mut operations, mut millis) = (Instant::now(), 0, 0, 0);
    for seed in first..first.saturating_add(count) {
        let report = run(seed, &options);
        operations += report.operations;
        millis += report.millis;
        if let Some(failure) = &report.failure {
            failed += 1;
            println!("seed {seed}: {failure}");
        }
        if count == 1 {
            println!("seed {seed}: hash {:016x}, {} events", report.hash, report.events);
        }
    }
    println!(
        "{count} seeds, {failed} failed: {operations} operations in {} virtual s and {:.1} s",
        millis / 1_000,
        started.elapsed().as_secs_f64(),
    );
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
