//! How costs grow: one figure over a number that grows. What is flat stays payable; where a curve bends is where a limit is.

use std::fs;
use std::path::PathBuf;

use clap::Args;

use super::plot::{Labels, svg};
use super::scenario::{Pace, Scenario, Times};
use super::server::Setup;
use super::table::Values;
use super::{Error, require_quiet};

/// Which curves.
#[derive(Debug, Clone, Args)]
pub(crate) struct Growth {
    /// How often each point is measured; its median counts.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=100))]
    rounds: u32,
    /// Only these curves.
    #[arg(long, value_delimiter = ',', value_name = "NAMES")]
    only: Vec<String>,
    /// The first two points of each, and short, to see that it works. The figures are worth nothing.
    #[arg(long)]
    quick: bool,
    /// Writes each curve as a picture into this folder. Refused on a machine that is busy.
    #[arg(long, value_name = "FOLDER", conflicts_with = "quick")]
    write: Option<PathBuf>,
}

struct Curve {
    /// The picture's name.
    name: &'static str,
    labels: Labels<'static>,
    /// Its name in the report.
    figure: &'static str,
    points: Vec<(u32, Scenario)>,
}

/// Measures, prints a line for each point, and writes the pictures where that was asked for.
pub(crate) fn grow(growth: &Growth, setup: &Setup) -> Result<(), Error> {
    if growth.write.is_some() {
        require_quiet(setup.pinned)?;
    }
    let mut curves = curves(if growth.quick { 0.1 } else { 1.0 });
    curves.retain(|curve| growth.only.is_empty() || growth.only.iter().any(|name| name == curve.name));
    for mut curve in curves {
        if growth.quick {
            curve.points.truncate(2);
        }
        println!("{}: {} over {}", curve.name, curve.labels.y, curve.labels.x);
        let mut points = Vec::new();
        for (number, scenario) in &curve.points {
            let mut values = Values::default();
            for _ in 0..growth.rounds {
                let report = scenario.run(setup)?;
                report
                    .values()
                    .filter(|(name, _)| *name == curve.figure)
                    .for_each(|(_, value)| values.add(value));
            }
            let median = values.median().ok_or("the scenario has no such figure")?;
            println!("{number:>10} {median:>12.3}");
            points.push((f64::from(*number), median));
        }
        if let (Some(folder), Some(picture)) = (&growth.write, svg(&curve.labels, &points)) {
            fs::create_dir_all(folder)?;
            fs::write(folder.join(format!("{}.svg", curve.name)), picture)?;
        }
    }
    Ok(())
}

/// All curves. `share` shortens all times.
fn curves(share: f64) -> Vec<Curve> {
    let times = |paced: f64, saturated: f64| Times {
        payload: 64,
        paced: paced * share,
        saturated: saturated * share,
    };
    // Always some 32,000 deliveries are under way, so that only the number of members changes.
    let saturated =
        |members: u32| Pace { rate: 20, window: (32_000 / members).max(2), times: times(0.0, 3.0) };
    let fanout = |members| (members, Scenario::Fanout { members, pace: saturated(members) });
    let room = |rooms: u32| {
        // More rooms than a process has descriptors: each socket is in ten, and one of them is emitted to.
        let silent = if rooms > 10_000 { 9 } else { 0 };
        let (members, publishers, rate, window) = (1, 1, 1_000, 64);
        let times = times(3.0, 0.0);
        let emitted_to = rooms / (silent + 1);
        (rooms, Scenario::Rooms { rooms: emitted_to, members, silent, publishers, rate, window, times })
    };
    let node = |nodes| {
        let pace = Pace { rate: 20, window: 32, times: times(3.0, 0.0) };
        (nodes, Scenario::Cluster { nodes, members: 1_000 / nodes, pace })
    };
    let idle = |connections| (connections, Scenario::Idle { connections, watched: 0.0 });
    vec![
        Curve {
            name: "members",
            labels: Labels {
                title: "Fan-out, saturating",
                x: "members of the room",
                y: "µs of CPU per delivery",
            },
            figure: "saturated_cpu_per_delivery",
            points: [10, 100, 1_000, 5_000, 15_000].map(fanout).into(),
        },
        Curve {
            name: "rooms",
            labels: Labels {
                title: "1,000 emits a second to rooms of one",
                x: "rooms",
                y: "µs of CPU per emit",
            },
            figure: "paced_cpu_per_delivery",
            points: [10, 100, 1_000, 10_000, 100_000].map(room).into(),
        },
        Curve {
            name: "nodes",
            labels: Labels {
                title: "20 emits a second to a room of 1,000 on all nodes",
                x: "nodes",
                y: "µs of CPU of all nodes per delivery",
            },
            figure: "paced_cpu_per_delivery",
            points: [1, 2, 3, 4, 5].map(node).into(),
        },
        Curve {
            name: "connections",
            labels: Labels { title: "Idle WebSockets", x: "connections", y: "resident bytes per connection" },
            figure: "bytes_per_connection",
            points: [1_000, 5_000, 10_000, 15_000].map(idle).into(),
        },
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_curve_grows() {
        for curve in curves(1.0) {
            assert!(
                curve.points.is_sorted_by_key(|point| point.0) && curve.points.len() > 2,
                "{}",
                curve.name
            );
        }
    }
}
