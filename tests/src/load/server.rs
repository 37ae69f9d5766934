//! The servers under load: the processes of a target, the broker between them, and questions to both.

use std::collections::BTreeMap;
use std::io::{self, Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use std::{env, fs, thread};

use super::Error;
use super::process::Process;
use super::target::{Page, Target};

/// How long a server may take to listen.
const START: Duration = Duration::from_secs(30);

/// Which cores the servers and their broker get, and which this program. taskset(1) sees to it.
const SERVERS_CORE: &str = "0";
const OWN_CORE: &str = "1";

/// What is measured, and how it is placed.
#[derive(Debug, Clone)]
pub(crate) struct Setup {
    pub(crate) target: Target,
    /// Servers on one core, this program on another one.
    pub(crate) pinned: bool,
}

/// The servers. Dropping them ends them.
pub(super) struct Servers {
    nodes: Vec<Node>,
    broker: Option<Broker>,
    target: Target,
}

struct Node {
    child: Ended,
    address: SocketAddr,
    api: SocketAddr,
}

/// A process that ends with its owner.
struct Ended(Child);

impl Drop for Ended {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A Redis of their own.
struct Broker {
    child: Ended,
    folder: PathBuf,
    url: String,
}

impl Drop for Broker {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.folder);
    }
}

impl Servers {
    /// One server, or several that are a cluster over Redis.
    pub(super) fn start(setup: &Setup, nodes: usize) -> Result<Self, Error> {
        Self::start_with(setup, nodes, &BTreeMap::new())
    }

    /// The same with more environment variables.
    pub(super) fn start_with(
        setup: &Setup,
        count: usize,
        more: &BTreeMap<String, String>,
    ) -> Result<Self, Error> {
        let mut environment = setup.target.environment.clone();
        environment.extend(more.iter().map(|(name, value)| (name.clone(), value.clone())));
        let mut broker = None;
        if count > 1 {
            let cluster = setup.target.cluster.clone();
            environment.extend(cluster.ok_or_else(|| format!("{} is no cluster", setup.target.title))?);
            broker = Some(Broker::start(setup.pinned)?);
        }
        let url = broker.as_ref().map_or("", |broker| broker.url.as_str());
        let mut servers = Self { nodes: Vec::new(), broker: None, target: setup.target.clone() };
        for _ in 0..count {
            servers.nodes.push(Node::start(setup, &environment, url)?);
        }
        servers.broker = broker;
        Ok(servers)
    }

    pub(super) fn addresses(&self) -> Vec<SocketAddr> {
        self.nodes.iter().map(|node| node.address).collect()
    }

    pub(super) fn process(&self) -> Process {
        self.nodes[0].process()
    }

    /// The CPU time of all nodes so far.
    pub(super) fn cpu(&self) -> Result<Duration, Error> {
        self.nodes.iter().map(|node| node.process().cpu()).sum()
    }

    /// The broker's CPU time so far.
    pub(super) fn broker_cpu(&self) -> Result<Duration, Error> {
        self.broker.as_ref().map_or(Ok(Duration::ZERO), |broker| Process(broker.child.0.id()).cpu())
    }

    /// The resident memory of all nodes.
    pub(super) fn resident(&self) -> Result<u64, Error> {
        self.nodes.iter().map(|node| node.process().resident()).sum()
    }

    /// The tasks of the runtime, if it can be asked.
    pub(super) fn tasks(&self) -> Result<Option<u64>, Error> {
        let Some(page) = &self.target.tasks else { return Ok(None) };
        Ok(Some(self.nodes[0].get(page)?.trim().parse()?))
    }

    /// What the nodes count as delivered, if they can be asked.
    pub(super) fn deliveries(&self) -> Result<Option<u64>, Error> {
        let Some(metrics) = &self.target.metrics else { return Ok(None) };
        let mut sum = 0.0;
        for node in &self.nodes {
            let text = node.get(&metrics.page)?;
            let line =
                text.lines().find_map(|line| line.strip_prefix(&*metrics.deliveries)?.strip_prefix(' '));
            sum += line.ok_or("the server does not count deliveries")?.trim().parse::<f64>()?;
        }
        Ok(Some(sum as u64))
    }
}

impl Node {
    fn start(setup: &Setup, environment: &BTreeMap<String, String>, redis: &str) -> Result<Self, Error> {
        let (address, api) = (free_port()?, free_port()?);
        let replace = |text: &String| {
            let text = text.replace("{port}", &address.port().to_string());
            fill_in(&text.replace("{api_port}", &api.port().to_string()).replace("{redis}", redis))
        };
        let mut command =
            command(&setup.target.command.iter().map(replace).collect::<Vec<_>>(), setup.pinned);
        command.envs(environment.iter().map(|(name, value)| (name, replace(value)))).stdout(Stdio::null());
        let child =
            command.spawn().map_err(|error| format!("{}: {error}", setup.target.command.join(" ")))?;
        let mut node = Self { child: Ended(child), address, api };
        node.child.listening(address, &setup.target.title)?;
        Ok(node)
    }

    /// The body of a page that the server has.
    fn get(&self, page: &Page) -> Result<String, Error> {
        let address = page.address.replace("{api_port}", &self.api.port().to_string());
        let address = address.replace("{port}", &self.address.port().to_string());
        get(address.parse()?, &page.path)
    }

    /// taskset becomes the program that it starts, so its process is the server's.
    fn process(&self) -> Process {
        Process(self.child.0.id())
    }
}

impl Ended {
    fn listening(&mut self, address: SocketAddr, title: &str) -> Result<(), Error> {
        let deadline = Instant::now() + START;
        while TcpStream::connect(address).is_err() {
            if let Some(status) = self.0.try_wait()? {
                return Err(format!("{title} ended at once: {status}").into());
            }
            if Instant::now() > deadline {
                return Err(format!("{title} does not listen at {address}").into());
            }
            thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }
}

impl Broker {
    fn start(pinned: bool) -> Result<Self, Error> {
        let address = free_port()?;
        let folder = env::temp_dir().join(format!("roomcast-load-{}-{}", std::process::id(), address.port()));
        fs::create_dir_all(&folder)?;
        let arguments = ["redis-server", "--save", "", "--bind", "127.0.0.1", "--port"];
        let arguments = arguments.iter().map(|argument| (*argument).to_owned());
        let mut command = command(&arguments.chain([address.port().to_string()]).collect::<Vec<_>>(), pinned);
        let child = command.arg("--dir").arg(&folder).stdout(Stdio::null()).spawn()?;
        let url = format!("redis://{address}");
        let mut broker = Self { child: Ended(child), folder, url };
        broker.child.listening(address, "redis-server")?;
        Ok(broker)
    }
}

fn command(words: &[String], pinned: bool) -> Command {
    let (program, arguments) = words.split_first().expect("a target has a command");
    let mut command = if pinned { Command::new("taskset") } else { Command::new(program) };
    if pinned {
        command.args(["-c", SERVERS_CORE, program]);
    }
    command.args(arguments).stdin(Stdio::null());
    command
}

/// Puts this program on its core.
pub(crate) fn pin_self() -> Result<(), Error> {
    let pid = std::process::id().to_string();
    let done = Command::new("taskset").args(["-cp", OWN_CORE, &pid]).stdout(Stdio::null()).status()?;
    if done.success() { Ok(()) } else { Err("this machine has no second core to be pinned to".into()) }
}

/// What the target says of its version, in one line.
pub(crate) fn version(target: &Target) -> Result<String, Error> {
    let words: Vec<String> = target.version.iter().map(|word| fill_in(word)).collect();
    let output = command(&words, false).output().map_err(|error| format!("{}: {error}", words.join(" ")))?;
    Ok(String::from_utf8_lossy(&output.stdout).lines().next().unwrap_or_default().trim().to_owned())
}

fn fill_in(text: &str) -> String {
    let program = env::current_exe().unwrap_or_default();
    let bin = program.parent().unwrap_or(Path::new("."));
    text.replace("{bin}", &bin.display().to_string()).replace("{tests}", env!("CARGO_MANIFEST_DIR"))
}

/// A port that was free a moment ago.
fn free_port() -> io::Result<SocketAddr> {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()
}

/// The body of an answer to a GET.
fn get(address: SocketAddr, path: &str) -> Result<String, Error> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(START))?;
    stream.write_all(
        format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n").as_bytes(),
    )?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    let (head, body) = text.split_once("\r\n\r\n").ok_or("no HTTP")?;
    if head.starts_with("HTTP/1.1 200 ") {
        Ok(body.to_owned())
    } else {
        Err(format!("{path}: {head}").into())
    }
}
