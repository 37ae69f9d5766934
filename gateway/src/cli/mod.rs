//! The command line: what the binary can be asked to do, and the commands that need no running node.
//!
//! Owns the flags and which key each one sets. Serving is not done here.

mod bench;
mod drain;
mod emit;
mod healthcheck;
mod look;
mod remote;
mod table;
mod tail;
mod tls;
mod token;

use std::io::Write as _;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, CommandFactory as _, Parser, Subcommand};

pub use bench::Bench;
pub use emit::Emit;
pub use healthcheck::healthcheck;
pub use remote::Remote;
pub use tail::Tail;
pub use tls::TlsFlags;
pub use token::Token;

use crate::config::{Config, ConfigError, Loaded, Override, Sources};
use crate::tls::{Tls, TlsError};

/// What the binary is asked to do.
#[derive(Debug, Clone, PartialEq, Eq, Subcommand)]
pub enum Command {
    /// Serve clients and backends (the default)
    Serve(Options),
    /// Check the configuration, without starting anything
    Check(Options),
    /// Print the JSON Schema of the configuration
    Schema,
    /// Print the default configuration with its documentation, as a file to begin with
    DefaultConfig,
    /// Ask a running node whether it is ready; exits with 0 or 1
    Healthcheck {
        /// What to ask [default: /readyz on the configured api listener]
        #[arg(long, value_name = "URL")]
        url: Option<String>,
        /// Believe whoever answers over https://, unless --ca-file says whom: nothing secret is sent
        #[arg(long)]
        insecure: bool,
        /// Certificates for https://
        #[command(flatten)]
        tls: TlsFlags,
        /// Where the configuration is
        #[command(flatten)]
        options: Options,
    },
    /// Emit an event
    Emit {
        /// What, and to whom
        #[command(flatten)]
        emit: Emit,
        /// By which node
        #[command(flatten)]
        remote: Remote,
        /// Where the configuration is
        #[command(flatten)]
        options: Options,
    },
    /// Show what goes through a node, as it happens
    Tail {
        /// What to show
        #[command(flatten)]
        tail: Tail,
        /// Of which node
        #[command(flatten)]
        remote: Remote,
        /// Where the configuration is
        #[command(flatten)]
        options: Options,
    },
    /// Show the rooms of the cluster, or who is in one
    Rooms {
        /// Show the sockets of this room
        room: Option<String>,
        /// The namespace
        #[arg(long, value_name = "NAME")]
        namespace: Option<String>,
        /// Show so many at most
        #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u16).range(1..=1000))]
        limit: u16,
        /// Which node to ask
        #[command(flatten)]
        remote: Remote,
        /// Where the configuration is
        #[command(flatten)]
        options: Options,
    },
    /// Show the nodes of the cluster
    Nodes {
        /// Which node to ask
        #[command(flatten)]
        remote: Remote,
        /// Where the configuration is
        #[command(flatten)]
        options: Options,
    },
    /// Have a node send its clients away, one after the other, and end
    Drain {
        /// The node [default: the one that is asked]
        node: Option<String>,
        /// How long it still takes clients [default: its configuration]
        #[arg(long, value_name = "TIME")]
        delay: Option<String>,
        /// Over how long it closes its connections [default: its configuration]
        #[arg(long, value_name = "TIME")]
        period: Option<String>,
        /// Which node to ask
        #[command(flatten)]
        remote: Remote,
        /// Where the configuration is
        #[command(flatten)]
        options: Options,
    },
    /// Put load on a gateway, for a first impression
    Bench {
        /// The load
        #[command(flatten)]
        bench: Bench,
        /// Where the configuration is
        #[command(flatten)]
        options: Options,
    },
    /// Make tokens to try things out with, or show what is in one
    #[command(subcommand)]
    Token(Token),
    /// Print the completions for a shell
    Completions {
        /// bash, zsh, fish, elvish or powershell
        shell: clap_complete::Shell,
    },
}

/// Flags that set keys of the configuration, and where its file is.
#[derive(Debug, Clone, Default, PartialEq, Eq, Args)]
pub struct Options {
    /// Configuration file, TOML or JSON [default: roomcast.toml in the working directory, if it is there]
    #[arg(long, short, value_name = "FILE", global = true)]
    pub config: Option<PathBuf>,
    /// Address for clients (public.listen)
    #[arg(long, value_name = "ADDRESS:PORT", global = true)]
    pub listen: Option<String>,
    /// Address for backends and operators (api.listen)
    #[arg(long, value_name = "ADDRESS:PORT", global = true)]
    pub api_listen: Option<String>,
    /// memory, redis or nats (adapter.kind)
    #[arg(long, value_name = "KIND", global = true)]
    pub adapter: Option<String>,
    /// The broker (adapter.url)
    #[arg(long, value_name = "URL", global = true)]
    pub adapter_url: Option<String>,
    /// error, warn, info, debug, trace or off (log.level)
    #[arg(long, value_name = "LEVEL", global = true)]
    pub log_level: Option<String>,
}

/// A distributed Socket.IO gateway.
///
/// Settings come from roomcast.toml, over it from the environment (ROOMCAST__PUBLIC__LISTEN for public.listen), over
/// that from flags. With nothing configured it serves namespace / with open rooms, on loopback only.
#[derive(Debug, Parser)]
#[command(name = "roomcast", version)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    options: Options,
}

/// Reads the command line of this process. Ends the process for `--help`, `--version` and what makes no sense.
pub fn parse() -> Command {
    Cli::parse().into_command()
}

impl Cli {
    fn into_command(self) -> Command {
        self.command.unwrap_or(Command::Serve(self.options))
    }
}

impl Options {
    /// Loads the configuration with these flags over the environment of this process.
    pub fn load(&self) -> Result<Loaded, ConfigError> {
        Config::load(&self.sources())
    }

    /// Where the configuration comes from, to be read again.
    pub fn sources(&self) -> Sources {
        Sources::of_process(self.config.clone(), self.overrides())
    }

    fn overrides(&self) -> Vec<Override> {
        let flags = [
            ("--listen", "public.listen", &self.listen),
            ("--api-listen", "api.listen", &self.api_listen),
            ("--adapter", "adapter.kind", &self.adapter),
            ("--adapter-url", "adapter.url", &self.adapter_url),
            ("--log-level", "log.level", &self.log_level),
        ];
        let set = flags.into_iter().filter_map(|(flag, key, value)| Some((flag, key, value.clone()?)));
        set.map(|(flag, key, value)| Override { flag, key, value }).collect()
    }
}

/// `roomcast check`: says what is wrong, or what is in force. The files of TLS are read, too.
pub fn check(options: &Options) -> ExitCode {
    let checked = options.load().map_err(CheckError::Config).and_then(|loaded| {
        let (public, api) = (&loaded.config.public.tls, &loaded.config.api.tls);
        for (section, tls) in [("public.tls", public), ("api.tls", api)] {
            Tls::load(tls).map_err(|error| CheckError::Tls { section, error })?;
        }
        Ok(loaded)
    });
    match checked {
        Ok(loaded) => print(&summary(&loaded)),
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "{error}");
            ExitCode::FAILURE
        }
    }
}

/// Why a configuration cannot be served.
#[derive(Debug, thiserror::Error)]
enum CheckError {
    #[error("{0}")]
    Config(ConfigError),
    #[error("{section}: {error}")]
    Tls { section: &'static str, error: TlsError },
}

/// Prints what a command gives; whoever pipes it into `head` is not told about the pipe.
fn print(text: &str) -> ExitCode {
    let _ = writeln!(std::io::stdout(), "{text}");
    ExitCode::SUCCESS
}

/// `roomcast schema`.
pub fn schema() -> ExitCode {
    print(&serde_json::to_string_pretty(&Config::json_schema()).expect("a schema is JSON"))
}

/// `roomcast default-config`.
pub fn default_config() -> ExitCode {
    print(Config::default_toml().trim_end())
}

/// `roomcast completions`.
pub fn completions(shell: clap_complete::Shell) -> ExitCode {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "roomcast", &mut script);
    print(&String::from_utf8_lossy(&script))
}

/// The commands that ask a running node, and those about tokens.
pub async fn ask(command: Command) -> ExitCode {
    let result = match &command {
        Command::Emit { emit, remote, options } => match remote.node(options) {
            Ok(node) => emit::emit(&node, emit).await,
            Err(error) => Err(error),
        },
        Command::Tail { tail, remote, options } => match remote.node(options) {
            Ok(node) => tail::tail(&node, tail).await,
            Err(error) => Err(error),
        },
        Command::Rooms { room, namespace, limit, remote, options } => match remote.node(options) {
            Ok(node) => look::rooms(&node, namespace.as_deref(), room.as_deref(), usize::from(*limit)).await,
            Err(error) => Err(error),
        },
        Command::Nodes { remote, options } => match remote.node(options) {
            Ok(node) => look::nodes(&node).await,
            Err(error) => Err(error),
        },
        Command::Drain { node, delay, period, remote, options } => match remote.node(options) {
            Ok(asked) => drain::drain(&asked, node.as_deref(), delay.as_deref(), period.as_deref()).await,
            Err(error) => Err(error),
        },
        Command::Bench { bench, options } => match options.load() {
            Ok(loaded) => bench::bench(bench, &loaded.config.public).await,
            Err(error) => Err(error.into()),
        },
        Command::Token(token) => token::token(token),
        _ => unreachable!("it needs no node"),
    };
    match result {
        Ok(text) => print(&text),
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "roomcast: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Where a listener can be reached from this machine: one on all addresses on loopback.
fn reachable(mut listen: SocketAddr) -> SocketAddr {
    match listen.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => listen.set_ip(Ipv4Addr::LOCALHOST.into()),
        IpAddr::V6(ip) if ip.is_unspecified() => listen.set_ip(Ipv6Addr::LOCALHOST.into()),
        _ => {}
    }
    listen
}

/// A configuration in a few lines, without secrets.
pub fn summary(loaded: &Loaded) -> String {
    let Loaded { config, file, notes } = loaded;
    let file = file.as_ref().map_or("no file".to_owned(), |path| path.display().to_string());
    let adapter = match &config.adapter.url {
        Some(url) => format!("{} at {url}", config.adapter.kind.as_str()),
        None => config.adapter.kind.as_str().to_owned(),
    };
    let names: Vec<_> = config.namespaces.iter().map(|namespace| namespace.name.as_str()).collect();
    let mut keys = match config.api.keys.len() {
        0 => "no keys".to_owned(),
        1 => "1 key".to_owned(),
        count => format!("{count} keys"),
    };
    if config.api.tls.takes_client_certificates() {
        keys.push_str(", client certificates");
    }
    let (public, api) = (config.public.tls.scheme(), config.api.tls.scheme());
    let notes: String = notes.iter().map(|note| format!("\n  note        {note}")).collect();
    format!(
        "configuration ok ({file})\n  clients     {public}://{}{}\n  backends    {api}://{} ({keys})\n  adapter     \
         {adapter}\n  namespaces  {}{notes}",
        config.public.listen,
        config.public.path,
        config.api.listen,
        names.join(" "),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn command(line: &str) -> Command {
        Cli::try_parse_from(line.split(' ')).unwrap().into_command()
    }

    #[test]
    fn no_command_is_serve_and_flags_stand_on_either_side() {
        Cli::command().debug_assert();
        assert_eq!(command("roomcast"), Command::Serve(Options::default()));
        let options = Options { listen: Some("127.0.0.1:1".to_owned()), ..Options::default() };
        assert_eq!(command("roomcast --listen 127.0.0.1:1"), Command::Serve(options.clone()));
        assert_eq!(command("roomcast serve --listen 127.0.0.1:1"), Command::Serve(options.clone()));
        assert_eq!(command("roomcast --listen 127.0.0.1:1 check"), Command::Check(options.clone()));
        let url = Some("http://h".to_owned());
        let tls = TlsFlags::default();
        let healthcheck = Command::Healthcheck { url, insecure: false, tls, options: Options::default() };
        assert_eq!(command("roomcast healthcheck --url http://h"), healthcheck);
    }

    #[test]
    fn flags_set_keys() {
        let line = "roomcast --listen a --api-listen b --adapter c --adapter-url d --log-level e -c f";
        let Command::Serve(options) = command(line) else { panic!("serve") };
        let set: Vec<_> = options.overrides().into_iter().map(|set| (set.key, set.value)).collect();
        let expected = [
            ("public.listen", "a"),
            ("api.listen", "b"),
            ("adapter.kind", "c"),
            ("adapter.url", "d"),
            ("log.level", "e"),
        ];
        assert_eq!(set, expected.map(|(key, value)| (key, value.to_owned())));
        assert_eq!(options.config, Some(PathBuf::from("f")));
    }

    #[test]
    fn the_summary_shows_no_secret() {
        let mut loaded = Loaded { config: Config::default(), file: None, notes: Vec::new() };
        loaded.config.adapter.url = Some(crate::config::SecretUrl::new("redis://:hunter2@host"));
        let summary = summary(&loaded);
        assert!(summary.contains("redis://***@host") && !summary.contains("hunter2"), "{summary}");
    }
}
