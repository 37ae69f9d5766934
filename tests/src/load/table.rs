//! The comparison's rows, and how they become a table of `docs/benchmarks.md`.

use std::fmt::Write as _;

use super::scenario::{Pace, Scenario, Times};

/// A line of the table: a figure, or two, of a scenario.
#[derive(Debug, Clone, Copy)]
pub(super) struct Row {
    pub(super) label: &'static str,
    /// Names in the report; several are divided by strokes in a cell.
    pub(super) figures: &'static [&'static str],
    /// What Roomcast has set itself.
    pub(super) goal: &'static str,
}

/// A scenario with the rows that come of one run of it.
pub(super) struct Measurement {
    /// What `--only` names.
    pub(super) name: &'static str,
    pub(super) scenario: Scenario,
    pub(super) rows: &'static [Row],
}

const fn row(label: &'static str, figures: &'static [&'static str], goal: &'static str) -> Row {
    Row { label, figures, goal }
}

const IDLE: &[Row] = &[
    row("idle, 10,000 WebSockets in `/`: resident bytes each", &["bytes_per_connection"], "2,000"),
    row("heartbeat, µs for each connection and second", &["idle_cpu_per_connection_and_second"], "0.3"),
];
const CONNECT: &[Row] = &[
    row("connect (handshake and namespace), µs", &["cpu_per_connect"], "55"),
    row("events lost that were sent right after 5,000 connects", &["first_events_lost"], "0"),
];
const ECHO_10: &[Row] = &[
    row("echo with ack, 100 connections × 10 under way, µs", &["cpu_per_echo"], "1.5"),
    row("the same: acks out of order", &["acks_out_of_order"], "0"),
];
const ECHO_1: &[Row] = &[row("echo with ack, 100 × 1, µs", &["cpu_per_echo"], "7.5")];
const FANOUT: &[Row] = &[
    row("fan-out to 1,000, 20 emits/s, µs per delivery", &["paced_cpu_per_delivery"], "8.4"),
    row("the same: latency p50/p99, ms", &["paced_latency_p50", "paced_latency_p99"], ""),
    row("fan-out to 1,000, saturating, µs per delivery", &["saturated_cpu_per_delivery"], "1.15"),
    row("the same: order breaks per publisher", &["deliveries_out_of_order"], "0"),
];
const FANOUT_5000: &[Row] =
    &[row("fan-out to 5,000, saturating, µs per delivery", &["saturated_cpu_per_delivery"], "1.4")];
const BINARY: &[Row] = &[
    row("attachments of 1 KiB to 1,000, 20 emits/s, µs per delivery", &["paced_cpu_per_delivery"], ""),
    row("the same, saturating", &["saturated_cpu_per_delivery"], ""),
];
const ROOMS: &[Row] = &[
    row("500 rooms of 10, 500 emits/s, µs per delivery", &["paced_cpu_per_delivery"], "15"),
    row("the same: latency p50/p99, ms", &["paced_latency_p50", "paced_latency_p99"], "0.22/0.6"),
    row("500 rooms of 10, saturating, µs per delivery", &["saturated_cpu_per_delivery"], "6.5"),
];
const CLUSTER: &[Row] = &[
    row(
        "two nodes on Redis, 500 sockets each, 20 emits/s, µs per delivery, both nodes",
        &["paced_cpu_per_delivery"],
        "8.5",
    ),
    row("the same: latency p50/p99, ms", &["paced_latency_p50", "paced_latency_p99"], ""),
    row("two nodes on Redis, saturating, µs per delivery", &["saturated_cpu_per_delivery"], "1.4"),
    row("the same: order breaks per publisher", &["deliveries_out_of_order"], "0"),
];
const POLLING: &[Row] = &[
    row("long-polling, 200 sessions: resident bytes each", &["bytes_per_session"], ""),
    row("long-polling, 20 emits/s, µs per delivery", &["paced_cpu_per_delivery"], ""),
];

/// Everything that is compared. `share` shortens all times, to see that it works.
pub(super) fn measurements(share: f64) -> Vec<Measurement> {
    let times = |payload, paced: f64, saturated: f64| Times {
        payload,
        paced: paced * share,
        saturated: saturated * share,
    };
    let pace = |times| Pace { rate: 20, window: 32, times };
    let some = |all: u32| if share < 1.0 { all / 10 } else { all };
    let echo = |window| Scenario::Echo { connections: 100, window, payload: 64, time: 4.0 * share };
    let members = some(1_000);
    let measurement = |name, scenario, rows| Measurement { name, scenario, rows };
    vec![
        measurement("idle", Scenario::Idle { connections: some(10_000), watched: 50.0 * share }, IDLE),
        measurement("connect", Scenario::Connect { connections: some(5_000) }, CONNECT),
        measurement("echo", echo(10), ECHO_10),
        measurement("echo-1", echo(1), ECHO_1),
        measurement("fanout", Scenario::Fanout { members, pace: pace(times(64, 4.0, 4.0)) }, FANOUT),
        measurement(
            "fanout-5000",
            Scenario::Fanout { members: some(5_000), pace: pace(times(64, 0.0, 4.0)) },
            FANOUT_5000,
        ),
        measurement("binary", Scenario::Binary { members, pace: pace(times(1024, 4.0, 4.0)) }, BINARY),
        measurement(
            "rooms",
            Scenario::Rooms {
                silent: 0,
                rooms: some(500),
                members: 10,
                publishers: 10,
                rate: 500,
                window: 64,
                times: times(64, 4.0, 4.0),
            },
            ROOMS,
        ),
        measurement(
            "cluster",
            Scenario::Cluster { nodes: 2, members: members / 2, pace: pace(times(64, 4.0, 4.0)) },
            CLUSTER,
        ),
        measurement("polling", Scenario::Polling { clients: 200, rate: 20, time: 4.0 * share }, POLLING),
    ]
}

/// Values of one figure in all rounds.
#[derive(Debug, Clone, Default)]
pub(super) struct Values(Vec<f64>);

impl Values {
    pub(super) fn add(&mut self, value: f64) {
        self.0.push(value);
        self.0.sort_by(f64::total_cmp);
    }

    pub(super) fn median(&self) -> Option<f64> {
        let middle = self.0.len() / 2;
        match self.0.len() {
            0 => None,
            odd if odd % 2 == 1 => Some(self.0[middle]),
            _ => Some(f64::midpoint(self.0[middle - 1], self.0[middle])),
        }
    }

    /// Half of the distance between the least and the most, in per cent of the median.
    fn spread(&self) -> f64 {
        match (self.0.first(), self.0.last(), self.median()) {
            (Some(least), Some(most), Some(median)) if median > 0.0 => (most - least) / 2.0 / median * 100.0,
            _ => 0.0,
        }
    }
}

/// A cell: the medians, and the widest spread of them.
pub(super) fn cell(figures: &[Values]) -> String {
    let medians: Vec<String> = figures.iter().filter_map(Values::median).map(number).collect();
    if medians.is_empty() {
        return String::new();
    }
    let spread = figures.iter().map(Values::spread).fold(0.0, f64::max);
    let medians = medians.join("/");
    if spread >= 0.5 { format!("{medians} ±{spread:.0} %") } else { medians }
}

/// A number with three digits that count.
fn number(value: f64) -> String {
    match value {
        0.0 => "0".to_owned(),
        _ if value >= 1000.0 => thousands(value.round() as u64),
        _ if value >= 100.0 => format!("{value:.0}"),
        _ if value >= 10.0 => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}

fn thousands(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A table of Markdown. The column of Roomcast is bold.
pub(super) fn markdown(columns: &[String], bold: &str, lines: &[(String, Vec<String>, String)]) -> String {
    let mut text = String::from("| |");
    for column in columns {
        let column = if column == bold { format!("**{column}**") } else { column.clone() };
        // Writing into a string does not fail.
        let _ = write!(text, " {column} |");
    }
    let _ = writeln!(text, " aim |\n|---|{}---|", "---|".repeat(columns.len()));
    for (label, cells, goal) in lines {
        let _ = write!(text, "| {label} |");
        for (cell, column) in cells.iter().zip(columns) {
            let cell = if column == bold && !cell.is_empty() { format!("**{cell}**") } else { cell.clone() };
            let _ = write!(text, " {cell} |");
        }
        let _ = writeln!(text, " {goal} |");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn values(values: &[f64]) -> Values {
        let mut all = Values::default();
        values.iter().for_each(|value| all.add(*value));
        all
    }

    #[test]
    fn a_cell_says_the_median_and_how_far_values_are_from_it() {
        assert_eq!(cell(&[values(&[1.3, 1.0, 1.1])]), "1.10 ±14 %");
        assert_eq!(cell(&[values(&[0.0, 0.0])]), "0");
        assert_eq!(cell(&[values(&[0.2]), values(&[29_127.4])]), "0.20/29,127");
        assert_eq!(cell(&[values(&[])]), "");
        assert_eq!(values(&[1.0, 2.0, 4.0, 3.0]).median(), Some(2.5));
    }

    #[test]
    fn a_table_is_one_of_markdown() {
        let columns = ["floor".to_owned(), "Roomcast".to_owned()];
        let line = ("echo".to_owned(), vec!["0.79".to_owned(), "1.5".to_owned()], "1.5".to_owned());
        let table = markdown(&columns, "Roomcast", &[line]);
        assert_eq!(
            table,
            "| | floor | **Roomcast** | aim |\n|---|---|---|---|\n| echo | 0.79 | **1.5** | 1.5 |\n"
        );
    }

    #[test]
    fn every_measurement_has_rows_and_a_name_of_its_own() {
        let mut names: Vec<_> = measurements(1.0).iter().map(|one| (one.name, one.rows.is_empty())).collect();
        assert!(names.iter().all(|(_, empty)| !empty));
        names.dedup();
        assert_eq!(names.len(), measurements(0.1).len());
    }
}
