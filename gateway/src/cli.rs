//! The command line: what the binary can be asked to do, and the commands that need no running node.
//!
//! Owns the flags and which key each one sets. Serving is not done here.

use std::io::Write as _;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::config::{Config, ConfigError, Loaded, Override, Sources};

/// How long a health check waits in all.
const HEALTHCHECK_TIMEOUT: Duration = Duration::from_secs(5);

/// What the binary is asked to do.
#[derive(Debug, Clone, PartialEq, Eq, Subcommand)]
pub enum Command {
    /// Serve clients and backends (the default)
    Serve(Options),
    /// Check the configuration, without starting anything
    Check(Options),
    /// Ask a running node whether it is ready; exits with 0 or 1
    Healthcheck {
        /// What to ask [default: /readyz on the configured api listener]
        #[arg(long, value_name = "URL")]
        url: Option<String>,
        /// Where the configuration is
        #[command(flatten)]
        options: Options,
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
        Config::load(&Sources::of_process(self.config.clone(), self.overrides()))
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

/// `roomcast check`: says what is wrong, or what is in force.
pub fn check(options: &Options) -> ExitCode {
    match options.load() {
        Ok(loaded) => {
            // Who pipes this into `head` is not told about the pipe.
            let _ = writeln!(std::io::stdout(), "{}", summary(&loaded));
            ExitCode::SUCCESS
        }
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "{error}");
            ExitCode::FAILURE
        }
    }
}

/// A configuration in a few lines, without secrets.
pub fn summary(loaded: &Loaded) -> String {
    let Loaded { config, file } = loaded;
    let file = file.as_ref().map_or("no file".to_owned(), |path| path.display().to_string());
    let adapter = match &config.adapter.url {
        Some(url) => format!("{} at {url}", config.adapter.kind.as_str()),
        None => config.adapter.kind.as_str().to_owned(),
    };
    let names: Vec<_> = config.namespaces.iter().map(|namespace| namespace.name.as_str()).collect();
    let keys = match config.api.keys.len() {
        0 => "no keys".to_owned(),
        1 => "1 key".to_owned(),
        count => format!("{count} keys"),
    };
    format!(
        "configuration ok ({file})\n  clients     http://{}{}\n  backends    http://{} ({keys})\n  adapter     \
         {adapter}\n  namespaces  {}",
        config.public.listen,
        config.public.path,
        config.api.listen,
        names.join(" "),
    )
}

/// `roomcast healthcheck`: asks a node whether it is ready.
pub async fn healthcheck(url: Option<&str>, options: &Options) -> ExitCode {
    let target = match url {
        Some(url) => Target::of_url(url),
        None => options
            .load()
            .map(|loaded| Target::of_listener(loaded.config.api.listen))
            .map_err(|error| HealthcheckError::Config(Box::new(error))),
    };
    let result = match target {
        Ok(target) => match tokio::time::timeout(HEALTHCHECK_TIMEOUT, target.ask()).await {
            Ok(result) => result,
            Err(_) => Err(HealthcheckError::TimedOut),
        },
        Err(error) => Err(error),
    };
    match result {
        Ok(answer) => {
            let _ = writeln!(std::io::stdout(), "{answer}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "{error}");
            ExitCode::FAILURE
        }
    }
}

/// Why a node is not known to be ready.
#[derive(Debug, thiserror::Error)]
enum HealthcheckError {
    #[error("{0}")]
    Config(Box<ConfigError>),
    #[error("\"{0}\" is no http:// URL")]
    Url(String),
    #[error("{0}")]
    Io(#[from] std::io::Error),
    #[error("no answer within {} s", HEALTHCHECK_TIMEOUT.as_secs())]
    TimedOut,
    #[error("{0}")]
    NotReady(String),
}

/// Whom to ask: an authority to connect to, and a path.
#[derive(Debug, PartialEq, Eq)]
struct Target {
    authority: String,
    path: String,
}

impl Target {
    fn of_url(url: &str) -> Result<Self, HealthcheckError> {
        let refused = || HealthcheckError::Url(url.to_owned());
        let uri: http::Uri = url.parse().map_err(|_| refused())?;
        let authority = uri.authority().filter(|_| uri.scheme_str() == Some("http")).ok_or_else(refused)?;
        let port = authority.port_u16().unwrap_or(80);
        // A URL without a path asks for the usual one.
        let path = uri.path_and_query().map_or("/", |path| path.as_str());
        let path = if path == "/" { "/readyz" } else { path };
        Ok(Self { authority: format!("{}:{port}", authority.host()), path: path.to_owned() })
    }

    /// A listener on all addresses is asked on loopback.
    fn of_listener(mut listen: SocketAddr) -> Self {
        match listen.ip() {
            IpAddr::V4(ip) if ip.is_unspecified() => listen.set_ip(Ipv4Addr::LOCALHOST.into()),
            IpAddr::V6(ip) if ip.is_unspecified() => listen.set_ip(Ipv6Addr::LOCALHOST.into()),
            _ => {}
        }
        Self { authority: listen.to_string(), path: "/readyz".to_owned() }
    }

    /// One request of HTTP/1.0: the answer ends with the connection.
    async fn ask(&self) -> Result<String, HealthcheckError> {
        const LONGEST_ANSWER: u64 = 64 * 1024;
        let mut stream = TcpStream::connect(&self.authority).await?;
        let request = format!("GET {} HTTP/1.0\r\nHost: {}\r\n\r\n", self.path, self.authority);
        stream.write_all(request.as_bytes()).await?;
        let mut answer = Vec::new();
        stream.take(LONGEST_ANSWER).read_to_end(&mut answer).await?;
        let answer = String::from_utf8_lossy(&answer);
        let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
        let status = head.lines().next().unwrap_or_default();
        let is_ok = status.split(' ').nth(1) == Some("200");
        if is_ok { Ok(body.to_owned()) } else { Err(HealthcheckError::NotReady(format!("{status} {body}"))) }
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;
    use tokio::net::TcpListener;

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
        let healthcheck = Command::Healthcheck { url, options: Options::default() };
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
        let mut loaded = Loaded { config: Config::default(), file: None };
        loaded.config.adapter.url = Some(crate::config::SecretUrl::new("redis://:hunter2@host"));
        let summary = summary(&loaded);
        assert!(summary.contains("redis://***@host") && !summary.contains("hunter2"), "{summary}");
    }

    #[test]
    fn whom_a_health_check_asks() {
        let target = |authority: &str, path: &str| Target { authority: authority.into(), path: path.into() };
        assert_eq!(Target::of_url("http://h").unwrap(), target("h:80", "/readyz"));
        assert_eq!(Target::of_url("http://h:1/livez").unwrap(), target("h:1", "/livez"));
        assert_eq!(Target::of_url("http://[::1]:1").unwrap(), target("[::1]:1", "/readyz"));
        assert!(Target::of_url("https://h").is_err() && Target::of_url("h").is_err());
        assert_eq!(Target::of_listener("0.0.0.0:1".parse().unwrap()), target("127.0.0.1:1", "/readyz"));
        assert_eq!(Target::of_listener("[::]:1".parse().unwrap()), target("[::1]:1", "/readyz"));
    }

    #[tokio::test]
    async fn only_200_is_ready() {
        for (answer, ready) in
            [("HTTP/1.1 200 OK\r\n\r\nyes", true), ("HTTP/1.1 503 No\r\n\r\nno", false), ("", false)]
        {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let target = Target::of_listener(listener.local_addr().unwrap());
            let serve = async {
                let (mut stream, _) = listener.accept().await.unwrap();
                let mut request = [0; 1024];
                let read = stream.read(&mut request).await.unwrap();
                assert!(request[..read].starts_with(b"GET /readyz HTTP/1.0\r\n"));
                stream.write_all(answer.as_bytes()).await.unwrap();
            };
            let (result, ()) = tokio::join!(target.ask(), serve);
            assert_eq!(result.is_ok(), ready, "{result:?}");
        }
    }
}
