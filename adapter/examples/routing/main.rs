//! What the routing of rooms costs on a real broker, which this program starts (`redis-server` or `nats-server`):
//!
//! - `churn`: one node with many rooms, and many joins and leaves per second;
//! - `emits`: three nodes and rooms of several sizes, with subscriptions by room, by hash, and of everything.
//!
//! `cargo run --release -p roomcast-adapter --example routing -- churn --broker redis --rooms 100000`
//!
//! Figures go to standard output, a line each. The nodes run in this process, their brokers in one of their own.

mod broker;
mod churn;
mod emits;
mod node;

use std::collections::HashMap;
use std::process::ExitCode;
use std::str::FromStr;

/// Why nothing was measured. Whoever reads it is a person.
type Error = Box<dyn std::error::Error + Send + Sync>;

const USAGE: &str = "\
routing churn [--broker redis|nats] [--rooms 100000] [--rate 5000] [--seconds 10] [--limit N] [--buckets N]
    rate: joins per second, and as many leaves; limit: rooms before the node hashes them
routing emits [--broker redis|nats] [--seconds 5] [--sizes 2,10,100,10000]";

/// `--name value`, each with a default where it is asked for.
struct Options(HashMap<String, String>);

impl Options {
    fn parse(arguments: impl Iterator<Item = String>) -> Result<Self, Error> {
        let mut arguments = arguments;
        let mut options = HashMap::new();
        while let Some(name) = arguments.next() {
            let name = name.strip_prefix("--").ok_or(USAGE)?.to_owned();
            options.insert(name, arguments.next().ok_or(USAGE)?);
        }
        Ok(Self(options))
    }

    fn get<T: FromStr>(&self, name: &str, default: T) -> Result<T, Error> {
        match self.0.get(name) {
            Some(text) => text.parse().map_err(|_| format!("--{name} {text}\n{USAGE}").into()),
            None => Ok(default),
        }
    }
}

#[tokio::main]
async fn main() -> ExitCode {
    match measure().await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("routing: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn measure() -> Result<(), Error> {
    let mut arguments = std::env::args().skip(1);
    let command = arguments.next().ok_or(USAGE)?;
    let options = Options::parse(arguments)?;
    match command.as_str() {
        "churn" => churn::run(&options).await,
        "emits" => emits::run(&options).await,
        _ => Err(USAGE.into()),
    }
}

/// Prints one figure.
fn figure(name: &str, value: f64, unit: &str) {
    println!("{name:<40} {value:>14.2} {unit}");
}
