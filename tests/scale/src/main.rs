//! Large clusters on paper: what a workload needs, or the tables of `docs/operations/scaling.md`.
//!
//! Owns the command line only.

use std::fs;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};
use roomcast_scale::broker::{Layout, ServerLoad, Strain};
use roomcast_scale::constants::{self, Constants};
use roomcast_scale::node::{Bound, Machine};
use roomcast_scale::page;
use roomcast_scale::plan::{self, Plan};
use roomcast_scale::text::{number, percent};
use roomcast_scale::workload::{Rooms, Workload};

type Error = Box<dyn std::error::Error>;

#[derive(Parser)]
#[command(about = "How many nodes and which broker a number of connections needs")]
struct Cli {
    /// Another file of constants.
    #[arg(long, global = true, value_name = "FILE")]
    constants: Option<PathBuf>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// What one workload needs.
    Plan(Wanted),
    /// The page with its tables.
    Page {
        /// Into the page, in place of standard output.
        #[arg(long)]
        write: bool,
    },
}

#[derive(Args)]
struct Wanted {
    /// WebSockets in the whole cluster.
    #[arg(long)]
    connections: f64,
    /// Rooms of each connection, beside those of --own-rooms.
    #[arg(long, default_value_t = 1.0)]
    rooms: f64,
    /// Members of such a room.
    #[arg(long, default_value_t = 10.0)]
    room_size: f64,
    /// Rooms that a connection has for itself: 1 with tokens.
    #[arg(long, default_value_t = 1.0)]
    own_rooms: f64,
    /// Emits to rooms, each second.
    #[arg(long, default_value_t = 0.0)]
    room_emits: f64,
    /// Emits to rooms with acks, each second.
    #[arg(long, default_value_t = 0.0)]
    asks: f64,
    /// Emits to single sockets, each second.
    #[arg(long, default_value_t = 0.0)]
    socket_emits: f64,
    /// Emits to everybody, each second.
    #[arg(long, default_value_t = 0.0)]
    everybody_emits: f64,
    /// Questions to all nodes, each second.
    #[arg(long, default_value_t = 1.0)]
    questions: f64,
    /// Bytes of an emit.
    #[arg(long, default_value_t = 200.0)]
    payload: f64,
    /// Connections that come each second; as many go. Not given: sessions of half an hour.
    #[arg(long)]
    connects: Option<f64>,
    /// How busy cores may be, at nodes and at the broker.
    #[arg(long)]
    cpu_fill: Option<f64>,
    /// Cores of a node.
    #[arg(long)]
    node_cores: Option<f64>,
    /// Bytes of memory of a node.
    #[arg(long)]
    node_memory: Option<f64>,
    /// Descriptors of a node.
    #[arg(long)]
    node_descriptors: Option<f64>,
}

fn main() -> ExitCode {
    match run(&Cli::parse()) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("scale: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(cli: &Cli) -> Result<ExitCode, Error> {
    let file = cli.constants.clone().unwrap_or_else(constants::path);
    let (lines, constants) = constants::read(&file)?;
    match &cli.command {
        Command::Plan(wanted) => {
            let constants =
                Constants { cpu_fill: wanted.cpu_fill.unwrap_or(constants.cpu_fill), ..constants };
            Ok(show(wanted, &constants))
        }
        Command::Page { write } => {
            let path = page::path();
            let text = page::update(&fs::read_to_string(&path)?, &lines, &constants)?;
            match write {
                true => fs::write(&path, text)?,
                false => print!("{text}"),
            }
            Ok(ExitCode::SUCCESS)
        }
    }
}

impl Wanted {
    fn workload(&self) -> Workload {
        let rooms = [
            Rooms { each: self.rooms, size: self.room_size, emits: self.room_emits },
            Rooms { each: self.own_rooms, size: 1.0, emits: 0.0 },
        ];
        Workload {
            connections: self.connections,
            rooms: rooms.into_iter().filter(|rooms| rooms.each > 0.0).collect(),
            socket_emits: self.socket_emits,
            everybody_emits: self.everybody_emits,
            questions: self.questions,
            asks: self.asks,
            payload: self.payload,
            connects: self.connects.unwrap_or(self.connections / 1_800.0),
        }
    }

    /// One, if it was said what it is.
    fn machines(&self, constants: &Constants) -> Vec<Machine> {
        let (small, large) = (Machine::small(constants), Machine::large(constants));
        let machine = Machine {
            cores: self.node_cores.unwrap_or(small.cores),
            memory: self.node_memory.unwrap_or(small.memory),
            descriptors: self.node_descriptors.unwrap_or(small.descriptors),
        };
        if machine == small { vec![small, large] } else { vec![machine] }
    }
}

fn show(wanted: &Wanted, constants: &Constants) -> ExitCode {
    let workload = wanted.workload();
    match plan::plan(&workload, &wanted.machines(constants), constants) {
        Ok(plan) => {
            show_nodes(&workload, &plan, constants);
            show_traffic(&workload, &plan, constants);
            show_brokers(&workload, &plan, constants);
            ExitCode::SUCCESS
        }
        Err(wall) => {
            println!("not enough: {wall}");
            ExitCode::FAILURE
        }
    }
}

fn show_nodes(workload: &Workload, plan: &Plan, constants: &Constants) {
    let node = &plan.node;
    println!(
        "{} nodes of {} cores, {} of them spare, because of {}",
        number(plan.nodes),
        number(plan.machine.cores),
        number(plan.spare(constants)),
        plan.bound.name()
    );
    for bound in Bound::ALL {
        let alone = plan::nodes_for(bound, workload, plan, constants);
        let alone = alone.map_or_else(|| "no number".to_owned(), |nodes| nodes.to_string());
        println!(
            "  {:<12} {alone} would do; {} in use",
            bound.name(),
            percent(node.share(bound, plan.machine, constants))
        );
    }
    println!(
        "each: {} connections, {} MB, {} cores ({} writing, {} for the cluster), {} messages/s of the broker",
        number(node.connections),
        number(node.memory / 1e6),
        number(node.cpu),
        number(node.writing),
        number(node.clustering),
        number(node.received)
    );
}

fn show_traffic(workload: &Workload, plan: &Plan, constants: &Constants) {
    println!("broker, messages/s in and out:");
    for stream in workload.streams(&plan.settings, plan.nodes, constants) {
        let (published, delivered) = (stream.messages.published, stream.messages.delivered);
        if published > 0.0 {
            let about = format!("{:?}", stream.about);
            println!("  {about:<12} {} and {}", number(published), number(delivered));
        }
    }
    println!(
        "each node is subscribed to {} {}; heartbeat {} s",
        number(workload.subscriptions_of_a_node(&plan.settings, plan.nodes)),
        if workload.is_hashed(&plan.settings, plan.nodes) { "buckets" } else { "rooms" },
        plan.settings.heartbeat
    );
}

fn show_brokers(workload: &Workload, plan: &Plan, constants: &Constants) {
    println!("layouts, by their busiest server:");
    for layout in Layout::ALL {
        let server = ServerLoad::new(workload, &plan.settings, plan.nodes, layout, constants);
        let shares = Strain::ALL
            .map(|strain| format!("{} {}", strain.name(), percent(server.used(strain, layout, constants))));
        println!(
            "  {:<26} {}; {} in, {} out, {} MB/s; back in {} s{}",
            layout.name(),
            shares.join(", "),
            number(server.received),
            number(server.sent),
            number(server.bytes / 1e6),
            number(server.back_in),
            if layout == plan.layout { "  <- enough" } else { "" }
        );
    }
}
