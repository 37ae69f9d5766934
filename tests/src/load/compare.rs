//! All servers side by side: each row alternately on each of them, in rounds, so that what the machine does meanwhile
//! concerns all alike.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use clap::Args;

use super::server::{Setup, version};
use super::table::{Measurement, Values, cell, markdown, measurements};
use super::{Error, Report, Scenario, Target, require_quiet};

/// Where the table stands in a page.
const BEGIN: &str = "<!-- load compare: begin -->";
const END: &str = "<!-- load compare: end -->";

/// A column: the first of these targets that can run a scenario.
const COLUMNS: [&[&str]; 6] = [
    &["floor"],
    &["floor-coalesced"],
    &["roomcast", "roomcast-library"],
    &["socketioxide"],
    &["socketio"],
    &["python-socketio"],
];
/// Values by measurement, column and figure.
type Cells = BTreeMap<(&'static str, usize, String), Values>;

const OURS: &str = "Roomcast";

/// What is compared.
#[derive(Debug, Clone, Args)]
pub(crate) struct Comparison {
    /// How often each row is measured on each server.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=100))]
    rounds: u32,
    /// Only these measurements.
    #[arg(long, value_delimiter = ',', value_name = "NAMES")]
    only: Vec<String>,
    /// Only these columns, by the names of their targets.
    #[arg(long, value_delimiter = ',', value_name = "TARGETS")]
    targets: Vec<String>,
    /// Everything short and small, to see that it works. The figures are worth nothing.
    #[arg(long)]
    quick: bool,
    /// Appends each report to this file as it comes, a line of JSON each.
    #[arg(long, value_name = "FILE")]
    log: Option<PathBuf>,
    /// Writes the table into this page, between its marks. Refused on a machine that is busy.
    #[arg(long, value_name = "PAGE", conflicts_with = "quick")]
    write: Option<PathBuf>,
}

struct Column {
    title: String,
    targets: Vec<Target>,
}

impl Column {
    fn load(names: &[&str]) -> Result<Self, Error> {
        let targets = names.iter().map(|name| Target::load(name)).collect::<Result<Vec<_>, _>>()?;
        let title = targets.first().map(|target| target.title.clone()).unwrap_or_default();
        Ok(Self { title, targets })
    }

    fn target(&self, scenario: &Scenario) -> Option<&Target> {
        self.targets.iter().find(|target| scenario.fits(target))
    }
}

impl Comparison {
    fn keep(&self, round: u32, measurement: &str, target: &str, report: &Report) -> Result<(), Error> {
        let Some(path) = &self.log else { return Ok(()) };
        let line = serde_json::json!({
            "round": round, "measurement": measurement, "target": target, "report": report.to_json(),
        });
        let mut file = fs::OpenOptions::new().create(true).append(true).open(path)?;
        Ok(writeln!(file, "{line}")?)
    }
}

/// Measures, prints the table, and writes it where that was asked for. Fails if Roomcast lost anything or broke an order.
pub(crate) fn compare(comparison: &Comparison, pinned: bool) -> Result<ExitCode, Error> {
    if comparison.write.is_some() {
        require_quiet(pinned)?;
    }
    let wanted = |names: &&&[&str]| {
        comparison.targets.is_empty()
            || names.iter().any(|name| comparison.targets.iter().any(|target| target == name))
    };
    let columns =
        COLUMNS.iter().filter(wanted).map(|names| Column::load(names)).collect::<Result<Vec<_>, _>>()?;
    let mut measurements = measurements(if comparison.quick { 0.1 } else { 1.0 });
    measurements
        .retain(|one| comparison.only.is_empty() || comparison.only.iter().any(|name| name == one.name));

    let mut results = Results { cells: Cells::new(), sound: true };
    for round in 1..=comparison.rounds {
        for measurement in &measurements {
            for (at, column) in columns.iter().enumerate() {
                let Some(target) = column.target(&measurement.scenario) else { continue };
                eprintln!("round {round} of {}: {}, {}", comparison.rounds, measurement.name, target.title);
                let report = measurement.scenario.run(&Setup { target: target.clone(), pinned });
                if let Ok(report) = &report {
                    comparison.keep(round, measurement.name, &target.title, report)?;
                }
                results.take((measurement.name, at), report, column.title == OURS, comparison.quick);
            }
        }
    }
    let text = page(comparison, &columns, &measurements, &results.cells)?;
    println!("{text}");
    if let Some(page) = &comparison.write {
        write(page, &text)?;
    }
    Ok(if results.sound { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// What came of all runs.
struct Results {
    cells: Cells,
    /// Roomcast held its bounds.
    sound: bool,
}

impl Results {
    /// Of others a bound that does not hold is a figure of the table, and a failure an empty cell.
    fn take(
        &mut self,
        (measurement, column): (&'static str, usize),
        report: Result<Report, Error>,
        ours: bool,
        quick: bool,
    ) {
        let report = match report {
            Ok(report) => report,
            Err(error) => {
                eprintln!("FAILED: {error}");
                self.sound &= !ours;
                return;
            }
        };
        // Short runs are no judges of times and bytes.
        let judged = |name: &&str| !quick || name.contains("lost") || name.contains("order");
        for name in report.broken().filter(judged).filter(|_| ours) {
            eprintln!("FAILED: {name}");
            self.sound = false;
        }
        for (name, value) in report.values() {
            self.cells.entry((measurement, column, name.to_owned())).or_default().add(value);
        }
    }
}

/// The table with its date, machine, versions and command.
fn page(
    comparison: &Comparison,
    columns: &[Column],
    measurements: &[Measurement],
    values: &Cells,
) -> Result<String, Error> {
    let mut lines = Vec::new();
    for measurement in measurements {
        for row in measurement.rows {
            let cells = (0..columns.len()).map(|column| {
                let of = |name: &&str| values.get(&(measurement.name, column, (*name).to_owned())).cloned();
                cell(&row.figures.iter().map(|name| of(name).unwrap_or_default()).collect::<Vec<_>>())
            });
            lines.push((row.label.to_owned(), cells.collect(), row.goal.to_owned()));
        }
    }
    let titles: Vec<String> = columns.iter().map(|column| column.title.clone()).collect();
    let targets = columns.iter().filter_map(|column| column.targets.first());
    let mut versions = targets.map(version).collect::<Result<Vec<_>, _>>()?;
    versions.dedup();
    let versions = versions.join("; ");
    Ok(format!(
        "{}, {}. {}; {}. Medians of {} round(s); ± is half of the distance between the least and the most.\n\n{}",
        output("date", &["-u", "+%F"])?,
        machine()?,
        versions,
        output("redis-server", &["--version"])?.split_whitespace().take(3).collect::<Vec<_>>().join(" "),
        comparison.rounds,
        markdown(&titles, OURS, &lines)
    ))
}

fn output(program: &str, arguments: &[&str]) -> Result<String, Error> {
    let output =
        Command::new(program).args(arguments).output().map_err(|error| format!("{program}: {error}"))?;
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

/// The machine in a few words.
fn machine() -> Result<String, Error> {
    let text = fs::read_to_string("/proc/cpuinfo")?;
    let model =
        text.lines().find(|line| line.starts_with("model name")).and_then(|line| line.split_once(": "));
    let cores = text.lines().filter(|line| line.starts_with("processor")).count();
    let kernel = output("uname", &["-sr"])?;
    // Behind the hyphen is who built it.
    let kernel = kernel.split('-').next().unwrap_or_default();
    Ok(format!("{cores} cores of {}, {kernel}", model.map_or("an unknown processor", |(_, model)| model)))
}

fn write(path: &Path, table: &str) -> Result<(), Error> {
    let page = fs::read_to_string(path)?;
    let page = replaced(&page, table).ok_or_else(|| format!("{} has no marks {BEGIN}", path.display()))?;
    Ok(fs::write(path, page)?)
}

fn replaced(page: &str, table: &str) -> Option<String> {
    let (before, rest) = page.split_once(BEGIN)?;
    let (_, after) = rest.split_once(END)?;
    Some(format!("{before}{BEGIN}\n\n{table}\n{END}{after}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_between_the_marks_is_replaced() {
        let page = format!("above\n{BEGIN}\nold\n{END}\nbelow\n");
        let new = replaced(&page, "| new |\n").unwrap();
        assert_eq!(new, format!("above\n{BEGIN}\n\n| new |\n\n{END}\nbelow\n"));
        assert_eq!(replaced(&new, "| new |\n"), Some(new));
        assert_eq!(replaced("no marks", "x"), None);
    }

    #[test]
    fn every_column_has_its_targets() {
        for names in COLUMNS {
            let column = Column::load(names).unwrap();
            assert!(!column.title.is_empty());
        }
        let ours = Column::load(COLUMNS[2]).unwrap();
        assert_eq!(ours.title, OURS);
        for measurement in measurements(1.0) {
            assert!(ours.target(&measurement.scenario).is_some(), "{}", measurement.name);
        }
    }
}
