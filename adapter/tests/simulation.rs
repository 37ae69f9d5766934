//! Two hundred stories of the simulated cluster, and that a story is always the same.
//!
//! More of them, and one by its seed: see `adapter/examples/simulation.rs`.
#![cfg(feature = "simulation")]

use std::process::Command;

use roomcast_adapter::cluster::simulation::{Options, run};

/// Runs some seeds, and names all that fail.
fn seeds(seeds: std::ops::Range<u64>) {
    let options = Options::default();
    let failures: Vec<_> = seeds
        .filter_map(|seed| run(seed, &options).failure.map(|failure| format!("seed {seed}: {failure}")))
        .collect();
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

// In parts, so that they share the processors.

#[test]
fn seeds_0_to_49() {
    seeds(0..50);
}

#[test]
fn seeds_50_to_99() {
    seeds(50..100);
}

#[test]
fn seeds_100_to_149() {
    seeds(100..150);
}

#[test]
fn seeds_150_to_199() {
    seeds(150..200);
}

#[test]
fn a_seed_is_always_the_same_story() {
    let options = Options::default();
    for seed in 1_000..1_008 {
        assert_eq!(run(seed, &options), run(seed, &options), "seed {seed}");
    }
}

#[test]
fn different_seeds_are_different_stories() {
    let options = Options { steps: 100, ..Options::default() };
    let hashes: std::collections::BTreeSet<_> = (0..10).map(|seed| run(seed, &options).hash).collect();
    assert_eq!(hashes.len(), 10);
}

const TELL: &str = "ROOMCAST_SIMULATION_TELL";

fn story() -> String {
    let stories = (2_000..2_005).map(|seed| format!("{:?}", run(seed, &Options::default())));
    stories.collect::<Vec<_>>().join(" ")
}

/// Tells its story to the other process of the test below.
#[test]
fn another_process_tells_the_same_story() {
    let name = "another_process_tells_the_same_story";
    if let Some(file) = std::env::var_os(TELL) {
        return std::fs::write(file, story()).expect("a file for the story");
    }
    let file = std::env::temp_dir().join(format!("roomcast-story-{}", std::process::id()));
    let this = std::env::current_exe().expect("this test has a file");
    let told = Command::new(this).args(["--exact", name]).env(TELL, &file).output();
    assert!(told.expect("a process").status.success());
    let other = std::fs::read_to_string(&file);
    let _ = std::fs::remove_file(&file);
    assert_eq!(other.expect("a story"), story());
}
