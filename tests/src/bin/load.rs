//! Load on one node: `load idle` says what a connection costs that does nothing, `load fanout` what an emit to a large
//! room costs. Figures go to standard output, `--json` for machines; the exit status is 1 when a bound does not hold.
//!
//! Owns the command line only. The server runs in a process of its own: this binary again, with a hidden subcommand that
//! runs the gateway, or another binary (`--bin`). Everything is on the loopback interface and ends by itself.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, Subcommand};

#[path = "../load/mod.rs"]
mod load;

/// Whatever hangs ends then.
const TIME_LIMIT: Duration = Duration::from_secs(240);

#[derive(Parser)]
#[command(about = "What a node costs: idle connections, and emits to a large room")]
struct Cli {
    /// Write one JSON object.
    #[arg(long, global = true)]
    json: bool,
    /// The `roomcast` binary to measure, in place of this one's own gateway. Tasks are not counted then.
    #[arg(long, global = true, value_name = "PATH")]
    bin: Option<PathBuf>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Memory, tasks and CPU of connections that do nothing.
    Idle {
        /// How many.
        #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(100..=18_000))]
        connections: u32,
    },
    /// CPU, writes and encodings of emits to one room.
    Fanout {
        /// Members of the room.
        #[arg(long, default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(10..=15_000))]
        sockets: u32,
        /// Emits of the saturating part.
        #[arg(long, default_value_t = 500, value_parser = clap::value_parser!(u32).range(10..=20_000))]
        emits: u32,
    },
    /// The server that is measured.
    #[command(hide = true)]
    Server { port: u16, api_port: u16 },
}

#[tokio::main]
async fn main() -> ExitCode {
    let cli = Cli::parse();
    let bin = cli.bin.as_deref();
    let measured = async {
        match cli.command {
            Command::Idle { connections } => load::idle(bin, connections as usize).await,
            Command::Fanout { sockets, emits } => load::fanout(bin, sockets as usize, u64::from(emits)).await,
            Command::Server { port, api_port } => {
                let () = load::serve(port, api_port).await?;
                Ok(load::Report::default())
            }
        }
    };
    match tokio::time::timeout(TIME_LIMIT, measured).await {
        Ok(Ok(report)) => report.print(cli.json),
        Ok(Err(error)) => {
            eprintln!("load: {error}");
            ExitCode::FAILURE
        }
        Err(_) => {
            eprintln!("load: not done after {TIME_LIMIT:?}");
            ExitCode::FAILURE
        }
    }
}
