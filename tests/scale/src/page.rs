//! The tables of `docs/operations/scaling.md`. Owns what is in them and their place between marks.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use crate::broker::{Layout, ServerLoad};
use crate::constants::{Constant, Constants, Kind};
use crate::node::{Machine, NodeLoad};
use crate::plan::{Plan, Wall, plan};
use crate::text::{number, percent};
use crate::workload::{About, Rooms, Settings, Workload, sum};

const SIZES: [f64; 3] = [1e6, 1e7, 1e8];
/// Emits to rooms, for each client and minute.
const RATES: [f64; 3] = [0.01, 0.1, 1.0];
const ROOM_SIZES: [f64; 3] = [10.0, 100.0, 10_000.0];
const CLUSTERS: [f64; 8] = [3.0, 10.0, 50.0, 100.0, 200.0, 500.0, 1_000.0, 4_000.0];

/// Why a page is as it was.
#[derive(Debug, thiserror::Error)]
pub enum PageError {
    /// It has no place for a table.
    #[error("the page has no marks for {0:?}")]
    Marks(&'static str),
}

/// The page of this repository.
pub fn path() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/operations/scaling.md")
}

/// The page with its tables written anew.
///
/// # Errors
///
/// A page without a place for one of them.
pub fn update(page: &str, lines: &[Constant], constants: &Constants) -> Result<String, PageError> {
    let tables = [
        ("constants", constants_table(lines)),
        ("1 M", sizes_table(SIZES[0], constants)),
        ("10 M", sizes_table(SIZES[1], constants)),
        ("100 M", sizes_table(SIZES[2], constants)),
        ("heartbeats", heartbeats_table(constants)),
        ("everybody", everybody_table(constants)),
        ("machine", machine_table(constants)),
    ];
    tables.into_iter().try_fold(page.to_owned(), |page, (name, table)| {
        replaced(&page, name, &table).ok_or(PageError::Marks(name))
    })
}

fn replaced(page: &str, name: &str, table: &str) -> Option<String> {
    let (begin, end) = (format!("<!-- scale, {name}: begin -->"), format!("<!-- scale, {name}: end -->"));
    let (before, rest) = page.split_once(&begin)?;
    let (_, after) = rest.split_once(&end)?;
    Some(format!("{before}{begin}\n\n{table}\n{end}{after}"))
}

/// What the tables take for granted: each client is in a room of its own, as those with tokens are, and in one of the size;
/// sessions last half an hour, somebody announces something to everybody once a minute and asks all nodes once a second.
pub fn workload(connections: f64, rate: f64, size: f64) -> Workload {
    Workload {
        connections,
        rooms: vec![
            Rooms { each: 1.0, size, emits: connections * rate / 60.0 },
            Rooms { each: 1.0, size: 1.0, emits: 0.0 },
        ],
        socket_emits: 0.0,
        everybody_emits: 1.0 / 60.0,
        questions: 1.0,
        asks: 0.0,
        payload: 200.0,
        connects: connections / 1_800.0,
    }
}

/// Small nodes, and large ones where small ones are too many.
fn machines(constants: &Constants) -> [Machine; 2] {
    [Machine::small(constants), Machine::large(constants)]
}

fn sizes_table(connections: f64, constants: &Constants) -> String {
    let mut text = String::from(
        "| emits per client and minute | rooms of | emits/s | writes/s | nodes | cores of each | decided by | of them busy | \
         broker sends/s | for the cluster itself | broker | its busiest server | heartbeat | rooms by |\n\
         |---|---|---|---|---|---|---|---|---|---|---|---|---|---|\n",
    );
    for rate in RATES {
        for size in ROOM_SIZES {
            let workload = workload(connections, rate, size);
            let _ = write!(
                text,
                "| {rate} | {} | {} | {} |",
                number(size),
                number(workload.emits()),
                number(workload.deliveries())
            );
            match plan(&workload, &machines(constants), constants) {
                Ok(plan) => row(&mut text, &workload, &plan, constants),
                Err(wall) => wall_row(&mut text, &workload, wall, constants),
            }
        }
    }
    text
}

fn row(text: &mut String, workload: &Workload, plan: &Plan, constants: &Constants) {
    let streams = workload.streams(&plan.settings, plan.nodes, constants);
    let of_itself: f64 = streams
        .iter()
        .filter(|stream| matches!(stream.about, About::Membership | About::Directory))
        .map(|stream| stream.messages.delivered)
        .sum();
    let (strain, _) = plan.server.worst(plan.layout, constants);
    let _ = writeln!(
        text,
        " {} | {} | {} | {} | {} | {} | {} | {} of {} | {} s | {} |",
        number(plan.nodes),
        number(plan.machine.cores),
        plan.bound.name(),
        number(plan.node.cpu),
        number(sum(&streams).delivered),
        number(of_itself),
        plan.layout.name(),
        percent(plan.server.used(strain, plan.layout, constants)),
        strain.name(),
        plan.settings.heartbeat,
        rooms_by(workload, plan),
    );
}

fn rooms_by(workload: &Workload, plan: &Plan) -> &'static str {
    match (workload.is_hashed(&plan.settings, plan.nodes), plan.settings.max_room_subjects.is_finite()) {
        (true, _) => "bucket",
        (false, true) => "subject",
        (false, false) => "subject, limit raised",
    }
}

/// Cores for writing alone, when there is no plan.
fn wall_row(text: &mut String, workload: &Workload, wall: Wall, constants: &Constants) {
    let cores = number(workload.deliveries() * constants.delivery_us / 1e6);
    let _ = writeln!(text, " – | | **none**: {wall}; {cores} cores for the writes | | | | | | | |");
}

/// What a cluster costs that does nothing.
fn heartbeats_table(constants: &Constants) -> String {
    let mut text = String::from(
        "| nodes | broker sends/s | Redis, one core | NATS, 5 servers, each | a core of each node | heartbeat with which \
         one Redis is half busy |\n|---|---|---|---|---|---|\n",
    );
    let (idle, settings) = (Workload::default(), Settings::default());
    for nodes in CLUSTERS {
        let sent = sum(&idle.streams(&settings, nodes, constants)).delivered;
        let cpu = |layout| ServerLoad::new(&idle, &settings, nodes, layout, constants).cpu;
        let node = NodeLoad::new(&idle, &settings, nodes, Layout::Redis(1), constants);
        let redis = cpu(Layout::Redis(1));
        let heartbeat = redis / (constants.redis_cores * 0.5);
        let heartbeat = if heartbeat <= 1.0 { "1 s".to_owned() } else { format!("{} s", number(heartbeat)) };
        let _ = writeln!(
            text,
            "| {} | {} | {} | {} | {} | {heartbeat} |",
            number(nodes),
            number(sent),
            percent(redis / constants.redis_cores),
            percent(cpu(Layout::Nats(5)) / constants.nats_cores),
            percent(node.clustering),
        );
    }
    text
}

/// One announcement.
fn everybody_table(constants: &Constants) -> String {
    let mut text = String::from(
        "| clients | nodes | broker sends | written within | writing every |\n|---|---|---|---|---|\n",
    );
    for connections in SIZES {
        let workload = workload(connections, RATES[0], ROOM_SIZES[0]);
        let Ok(plan) = plan(&workload, &machines(constants), constants) else { continue };
        // All cores write what half of them may be used for later.
        let burst = |us: f64| plan.node.connections * us / 1e6 / plan.machine.cores;
        let every = burst(constants.delivery_us) / constants.cpu_fill;
        let _ = writeln!(
            text,
            "| {} | {} | {} | {} to {} s | {} s |",
            number(connections),
            number(plan.nodes),
            number(plan.nodes),
            number(burst(constants.delivery_saturated_us)),
            number(burst(constants.delivery_us)),
            number(every),
        );
    }
    text
}

/// A million connections on one machine.
fn machine_table(constants: &Constants) -> String {
    let all = 1e6;
    let gigabytes = |bytes: f64| format!("{} GB", number(bytes / 1e9));
    let cores = |us: f64| format!("{} cores", number(us / 1e6));
    let seconds = |us: f64| format!("{} s of one core", number(us / 1e6));
    let rooms =
        2.0 * (constants.owned_room_bytes + constants.membership_bytes) + constants.owned_socket_bytes;
    let rows = [
        ("memory of the process, idle WebSockets", gigabytes(all * constants.connection_bytes)),
        ("memory of the kernel, one end of each TCP connection", gigabytes(all * constants.kernel_bytes)),
        ("two rooms each, one of them its own: index and directory, on one node", gigabytes(all * rooms)),
        ("heartbeats, all the time", cores(all * constants.heartbeat_us)),
        ("all connect once", seconds(all * constants.connect_us)),
        ("one announcement to all, nothing else to do", seconds(all * constants.delivery_us)),
        ("the same, when several wait for each client", seconds(all * constants.delivery_saturated_us)),
        ("one event a minute for each client", cores(all / 60.0 * constants.delivery_us)),
        ("descriptors", number(all)),
        ("addresses of a balancer, with 64,512 ports each", number((all / 64_512.0).ceil())),
    ];
    let mut text = String::from("| | 1,000,000 connections |\n|---|---|\n");
    for (what, value) in rows {
        let _ = writeln!(text, "| {what} | {value} |");
    }
    text
}

fn constants_table(lines: &[Constant]) -> String {
    let mut text = String::from("| constant | | is | from | when |\n|---|---|---|---|---|\n");
    for line in lines {
        let kind = match line.kind {
            Kind::Measured => "measured",
            Kind::Published => "published",
            Kind::Counted => "counted",
            Kind::Assumed => "**assumed**",
            Kind::Chosen => "chosen",
        };
        let _ = writeln!(
            text,
            "| `{}` | {} {} | {} | {kind}: {} | {} |",
            line.name,
            number(line.value),
            line.unit,
            line.what,
            line.how,
            line.when
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::constants;

    #[test]
    fn the_page_has_the_tables_that_the_program_writes() {
        let (lines, constants) = constants::read(&constants::path()).unwrap();
        let page = fs::read_to_string(path()).unwrap();
        let written = update(&page, &lines, &constants).unwrap();
        assert!(page == written, "write them anew: cargo run -p roomcast-scale -- page --write");
    }

    #[test]
    fn only_what_is_between_the_marks_is_replaced() {
        let page = "a\n<!-- scale, x: begin -->\nold\n<!-- scale, x: end -->\nb\n";
        let new = replaced(page, "x", "| new |\n").unwrap();
        assert_eq!(new, "a\n<!-- scale, x: begin -->\n\n| new |\n\n<!-- scale, x: end -->\nb\n");
        assert_eq!(replaced(&new, "x", "| new |\n"), Some(new));
        assert_eq!(replaced(page, "y", "z"), None);
    }
}
