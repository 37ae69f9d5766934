//! The gateway as a binary.

use std::process::ExitCode;
use std::time::Duration;

use roomcast::cli::{self, Command};

/// How long what cannot be stopped may take at the end: the system looking up a name.
const LOOKUPS: Duration = Duration::from_secs(1);

fn main() -> ExitCode {
    let command = cli::parse();
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("roomcast: cannot start: {error}");
            return ExitCode::FAILURE;
        }
    };
    let code = match command {
        Command::Serve(options) => match options.load() {
            Ok(loaded) => runtime.block_on(roomcast::serve_configured(loaded, options.sources())),
            Err(error) => {
                eprintln!("roomcast: {error}");
                ExitCode::from(2)
            }
        },
        Command::Check(options) => cli::check(&options),
        Command::Schema => cli::schema(),
        Command::DefaultConfig => cli::default_config(),
        Command::Completions { shell } => cli::completions(shell),
        Command::Healthcheck { url, insecure, tls, options } => {
            runtime.block_on(cli::healthcheck(url.as_deref(), insecure, &tls, &options))
        }
        command => runtime.block_on(cli::ask(command)),
    };
    runtime.shutdown_timeout(LOOKUPS);
    code
}
