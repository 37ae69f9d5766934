//! Servers for the broker tests, and a sink that remembers.
//!
//! A server comes from the environment (`ROOMCAST_TEST_REDIS_URL`, `ROOMCAST_TEST_NATS_URL`) or is the Debian package's
//! binary on a free loopback port with a temporary directory, ended by its pid, or, compiled with `--cfg testcontainers`,
//! a container. Tests that stop and kill the server, and sets of servers, are always processes of our own. What cannot
//! be had fails the test with the command that would install it.

#![allow(dead_code, reason = "each test binary uses a part")]

#[cfg(testcontainers)]
mod container;
pub mod nats;
#[cfg(feature = "redis")]
pub mod redis;
pub mod suite;
pub mod traffic;

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicU16, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use bytes::Bytes;
use parking_lot::Mutex;
use roomcast_adapter::cluster::{Backlog, BusSink, BusState, Publication, Subject};

/// Until when a condition must hold that should hold at once.
pub const DEADLINE: Duration = Duration::from_secs(10);

/// Which server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Redis,
    /// Its arguments are lines of its configuration.
    Sentinel,
    /// By a set that the test binary shares: a master that Sentinels watch.
    RedisBySentinel,
    /// By a set that the test binary shares: a cluster with three masters.
    RedisCluster,
    Nats,
}

impl Kind {
    fn scheme(self) -> &'static str {
        match self {
            Self::Nats => "nats",
            _ => "redis",
        }
    }

    /// Its Debian package has the same name.
    fn program(self) -> &'static str {
        match self {
            Self::Nats => "nats-server",
            _ => "redis-server",
        }
    }

    fn binary(self) -> PathBuf {
        let sbin = Path::new("/usr/sbin").join(self.program());
        if sbin.exists() { sbin } else { self.program().into() }
    }
}

/// A server of our own, or the address of somebody else's.
pub struct Server {
    kind: Kind,
    url: String,
    pub port: u16,
    arguments: Vec<String>,
    process: Option<Child>,
    directory: Option<PathBuf>,
    #[cfg(testcontainers)]
    container: Option<Box<container::Container>>,
}

impl Server {
    /// A server that the test shares with others.
    pub fn shared(kind: Kind) -> Self {
        #[cfg(feature = "redis")]
        if let Some(url) = redis::shared(kind) {
            return Self::at(kind, url);
        }
        let variable = match kind {
            Kind::Nats => "ROOMCAST_TEST_NATS_URL",
            _ => "ROOMCAST_TEST_REDIS_URL",
        };
        match std::env::var(variable) {
            Ok(url) => Self::at(kind, url),
            #[cfg(testcontainers)]
            Err(_) if !which(&kind.binary()) => Self::contained(kind),
            Err(_) => Self::own(kind, &[]),
        }
    }

    /// Somebody else's.
    fn at(kind: Kind, url: String) -> Self {
        Self {
            kind,
            url,
            port: 0,
            arguments: Vec::new(),
            process: None,
            directory: None,
            #[cfg(testcontainers)]
            container: None,
        }
    }

    #[cfg(testcontainers)]
    fn contained(kind: Kind) -> Self {
        match container::Container::start(kind) {
            Ok(container) => {
                let url = format!("{}://{}:{}", kind.scheme(), container.host, container.port);
                let mut server = Self::at(kind, url);
                server.port = container.port;
                server.container = Some(Box::new(container));
                server
            }
            Err(error) => panic!(
                "cannot run {0}: it is not installed, and there is no container: {error}. To install it: apt-get \
                 install {0}",
                kind.program()
            ),
        }
    }

    /// A server that the test may do anything to.
    pub fn own(kind: Kind, arguments: &[&str]) -> Self {
        // Another process may take the port between our look and the server's.
        for _ in 0..5 {
            let directory = temporary_directory();
            let port = free_port();
            let mut server = Self::at(kind, format!("{}://127.0.0.1:{port}", kind.scheme()));
            server.port = port;
            server.arguments = arguments.iter().map(ToString::to_string).collect();
            server.directory = Some(directory);
            if server.spawn() {
                return server;
            }
        }
        panic!("{kind:?} did not start on any of 5 ports");
    }

    fn spawn(&mut self) -> bool {
        let directory = self.directory.clone().expect("an own server");
        let port = self.port.to_string();
        let binary = self.kind.binary();
        // Where there is setpriv, the server also dies with a test that was killed itself.
        let mut command = match PathBuf::from("/usr/bin/setpriv") {
            setpriv if setpriv.exists() && which(&binary) => {
                let mut command = Command::new(setpriv);
                command.args(["--pdeathsig", "KILL", "--"]).arg(binary);
                command
            }
            _ => Command::new(binary),
        };
        match self.kind {
            Kind::Nats => command.args(["--addr", "127.0.0.1", "--port", &port]).args(&self.arguments),
            Kind::Sentinel => {
                let file = directory.join("sentinel.conf");
                if !file.exists() {
                    let lines =
                        [&[format!("port {port}"), "bind 127.0.0.1".into()], &self.arguments[..]].concat();
                    std::fs::write(&file, lines.join("\n")).expect("a directory of ours");
                }
                command.arg(file).arg("--sentinel")
            }
            _ => command
                .args(["--port", &port, "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"])
                .args(&self.arguments),
        };
        command.current_dir(&directory);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let mut process = match command.spawn() {
            Ok(process) => process,
            Err(error) => {
                panic!("cannot run {0}: {error}. To install it: apt-get install {0}", self.kind.program())
            }
        };
        let until = Instant::now() + DEADLINE;
        while Instant::now() < until {
            if process.try_wait().expect("our child").is_some() {
                return false;
            }
            if self.answers() {
                self.process = Some(process);
                return true;
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        let _ = process.kill();
        let _ = process.wait();
        false
    }

    fn answers(&self) -> bool {
        let address = SocketAddr::from(([127, 0, 0, 1], self.port));
        let Ok(mut stream) = TcpStream::connect_timeout(&address, Duration::from_secs(1)) else {
            return false;
        };
        let _ = stream.set_read_timeout(Some(Duration::from_secs(1)));
        if self.kind != Kind::Nats && stream.write_all(b"PING\r\n").is_err() {
            return false;
        }
        // Redis answers with a line, perhaps about a missing password; NATS begins with its INFO.
        matches!(stream.read(&mut [0; 16]), Ok(1..))
    }

    pub fn url(&self) -> String {
        self.url.clone()
    }

    /// Where it keeps its files, and its process.
    pub fn directory_and_pid(&self) -> (PathBuf, u32) {
        let pid = self.process.as_ref().expect("a running server of our own").id();
        (self.directory.clone().expect("an own server"), pid)
    }

    pub fn url_with(&self, credentials: &str) -> String {
        self.url.replace("://", &format!("://{credentials}@"))
    }

    /// Ends the server without a goodbye.
    pub fn kill(&mut self) {
        let process = self.process.as_mut().expect("a running server of our own");
        process.kill().expect("our child");
        process.wait().expect("our child");
        self.process = None;
    }

    /// Starts it again on the same port.
    pub fn restart(&mut self) {
        assert!(self.process.is_none(), "it runs");
        assert!(self.spawn(), "{:?} did not start again on port {}", self.kind, self.port);
    }

    /// Lets the server hang: connections stand, nothing answers.
    pub fn pause(&self) {
        self.signal("-STOP");
        // The threads stop when they notice.
        let tasks =
            format!("/proc/{}/task", self.process.as_ref().expect("a running server of our own").id());
        let stopped = |task: std::io::Result<std::fs::DirEntry>| {
            let stat =
                task.and_then(|task| std::fs::read_to_string(task.path().join("stat"))).unwrap_or_default();
            stat.rsplit_once(") ").is_some_and(|(_, state)| state.starts_with('T'))
        };
        let until = Instant::now() + DEADLINE;
        while !std::fs::read_dir(&tasks).expect("a process has threads").all(stopped) {
            assert!(Instant::now() < until, "the server did not stop");
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    pub fn resume(&self) {
        self.signal("-CONT");
    }

    fn signal(&self, signal: &str) {
        let pid = self.process.as_ref().expect("a running server of our own").id().to_string();
        let status = Command::new("kill").args([signal, &pid]).status().expect("kill is there");
        assert!(status.success(), "kill {signal} {pid}");
    }

    /// Sends a Redis command on a connection of its own.
    pub fn redis_command(&self, line: &str) {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).expect("Redis is there");
        stream.write_all(format!("{line}\r\n").as_bytes()).expect("Redis reads");
        let answered = stream.read(&mut [0; 64]).expect("Redis answers");
        assert_ne!(answered, 0, "Redis closed the connection");
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(process) = &mut self.process {
            let _ = process.kill();
            let _ = process.wait();
        }
        if let Some(directory) = &self.directory {
            let _ = std::fs::remove_dir_all(directory);
        }
    }
}

/// Whether a program is there. If not, running it says so better than setpriv would.
fn which(program: &Path) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    program.is_absolute() || std::env::split_paths(&path).any(|directory| directory.join(program).exists())
}

fn temporary_directory() -> PathBuf {
    let directory = std::env::temp_dir().join(format!("roomcast-test-{}", unique()));
    std::fs::create_dir_all(&directory).expect("a temporary directory");
    directory
}

/// A name that no other test uses, also not in another process.
pub fn unique() -> String {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("a clock");
    format!("{}-{}-{}", std::process::id(), since.subsec_nanos(), NEXT.fetch_add(1, Ordering::Relaxed))
}

/// What a sink calls for every message.
type OnMessage = Box<dyn Fn(&str, &Bytes) + Send + Sync>;

/// A sink that remembers everything.
#[derive(Default)]
pub struct Recorder {
    messages: Mutex<Vec<(String, Bytes)>>,
    states: Mutex<Vec<(BusState, Instant)>>,
    on_message: Option<OnMessage>,
}

impl Recorder {
    pub fn new() -> Arc<Self> {
        Arc::default()
    }

    pub fn calling(on_message: impl Fn(&str, &Bytes) + Send + Sync + 'static) -> Arc<Self> {
        Arc::new(Self { on_message: Some(Box::new(on_message)), ..Self::default() })
    }

    pub fn messages(&self) -> Vec<(String, Bytes)> {
        self.messages.lock().clone()
    }

    pub fn count(&self) -> usize {
        self.messages.lock().len()
    }

    pub fn on(&self, subject: &str) -> Vec<Bytes> {
        self.messages
            .lock()
            .iter()
            .filter(|(on, _)| on == subject)
            .map(|(_, payload)| payload.clone())
            .collect()
    }

    pub fn states(&self) -> Vec<BusState> {
        self.states.lock().iter().map(|(state, _)| *state).collect()
    }

    /// When the n-th state, counted from 0, was reported.
    pub async fn state(&self, n: usize, expected: BusState, within: Duration) -> Instant {
        eventually(within, "a state", || self.states.lock().len() > n).await;
        let (state, at) = self.states.lock()[n];
        assert_eq!(state, expected, "state {n} of {:?}", self.states());
        at
    }
}

impl BusSink for Recorder {
    fn message(&self, subject: &str, payload: Bytes, _: Backlog) {
        if let Some(on_message) = &self.on_message {
            on_message(subject, &payload);
        }
        self.messages.lock().push((subject.to_owned(), payload));
    }

    fn state(&self, state: BusState) {
        self.states.lock().push((state, Instant::now()));
    }
}

/// Three nodes over three buses on one server, which ends with the cluster.
#[cfg(feature = "conformance")]
pub async fn cluster_over(
    kind: Kind,
    bus: impl Fn(&str, &str) -> Arc<dyn roomcast_adapter::cluster::Bus>,
) -> roomcast_adapter::conformance::TestCluster {
    let server = Server::shared(kind);
    let url = server.url();
    cluster_at([(); 3].map(|()| url.clone()), server, bus).await
}

/// Nodes over buses at these URLs.
#[cfg(feature = "conformance")]
pub async fn cluster_at(
    urls: [String; 3],
    keep: impl std::any::Any + Send + Sync,
    bus: impl Fn(&str, &str) -> Arc<dyn roomcast_adapter::cluster::Bus>,
) -> roomcast_adapter::conformance::TestCluster {
    use roomcast_adapter::AdapterFactory;
    use roomcast_adapter::cluster::{ClusterConfig, ClusterFactory};

    let prefix = unique();
    // What is said of semantics holds on a busy machine too: nothing is shed.
    let (discovery, max_lag) = (Duration::from_millis(20), Duration::from_secs(600));
    let config = ClusterConfig { discovery, max_lag, ..ClusterConfig::default() };
    let mut nodes: Vec<Arc<dyn AdapterFactory>> = Vec::new();
    for url in &urls {
        let node = ClusterFactory::start(bus(url, &prefix), config.clone()).await;
        nodes.push(node.expect("the server is there"));
    }
    roomcast_adapter::conformance::TestCluster::new(nodes, keep).await
}

/// Waits for a condition.
pub async fn eventually(within: Duration, what: &str, mut condition: impl FnMut() -> bool) {
    let until = Instant::now() + within;
    while !condition() {
        assert!(Instant::now() < until, "no {what} within {within:?}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

pub fn subject(name: impl AsRef<str>) -> Subject {
    Subject::from(name.as_ref())
}

pub fn publication(name: impl AsRef<str>, payload: impl Into<Bytes>) -> Publication {
    Publication { subject: subject(name), payload: payload.into() }
}

/// A port from where no client gets one by chance: not even one that tries to reach a server which is down, and which is to
/// start again there.
fn free_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    // The port that Redis Cluster adds, 10,000 above, is there as well.
    let start = 10_000 + (std::process::id() % 12_000) as u16;
    loop {
        let port = start + NEXT.fetch_add(1, Ordering::Relaxed);
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}
