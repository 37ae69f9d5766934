//! Load on servers: what connections, echoes, emits and slow clients cost, and whether everything arrives once and in
//! order. `load fanout` measures one server, `load compare` all of them side by side. Figures go to standard output,
//! `--json` for machines; the exit status is 1 when a bound does not hold.
//!
//! Owns the command line only. Servers run in processes of their own (`tests/load/targets/`). Everything is on the loopback
//! interface, bounded, and ends by itself.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

#[path = "../load/mod.rs"]
mod load;

use load::{Comparison, Error, Growth, Scenario, Setup, Target};

#[derive(Parser)]
#[command(about = "What a server costs: connections, echoes, emits to rooms and clusters, slow clients")]
struct Cli {
    /// Writes one JSON object.
    #[arg(long, global = true)]
    json: bool,
    /// The server that is measured: the name of a file in tests/load/targets, or the path of another one.
    #[arg(long, global = true, value_name = "NAME", default_value = "roomcast")]
    target: String,
    /// Another program in place of the target's own.
    #[arg(long, global = true, value_name = "PATH")]
    bin: Option<PathBuf>,
    /// Servers on core 0, this program on core 1.
    #[arg(long, global = true)]
    pin: bool,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    #[command(flatten)]
    Scenario(Scenario),
    /// All servers, each row alternately on each of them.
    Compare(Comparison),
    /// One figure over a number that grows: members, rooms, nodes, connections.
    Grow(Growth),
    /// The servers that can be measured.
    Targets,
    /// Clients of one node of `spread`, in a process of their own.
    #[command(hide = true)]
    Hold { address: SocketAddr, connections: usize, join: String },
}

fn main() -> ExitCode {
    match run(&Cli::parse()) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("load: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(cli: &Cli) -> Result<ExitCode, Error> {
    if cli.pin {
        load::pin_self()?;
    }
    match &cli.command {
        Command::Scenario(scenario) => Ok(scenario.run(&setup(cli)?)?.print(cli.json)),
        Command::Grow(growth) => load::grow(growth, &setup(cli)?).map(|()| ExitCode::SUCCESS),
        Command::Compare(comparison) => load::compare(comparison, cli.pin),
        Command::Hold { address, connections, join } => {
            load::hold(*address, *connections, join).map(|()| ExitCode::SUCCESS)
        }
        Command::Targets => {
            load::names().iter().for_each(|name| println!("{name}"));
            Ok(ExitCode::SUCCESS)
        }
    }
}

fn setup(cli: &Cli) -> Result<Setup, Error> {
    let target = Target::load(&cli.target)?;
    let target = match &cli.bin {
        Some(program) => target.with_program(program),
        None => target,
    };
    Ok(Setup { target, pinned: cli.pin })
}
