//! The server under load: a gateway in a process of its own, and questions to it.

use std::io::{self, BufRead as _, BufReader, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use roomcast::config::Config;
use tokio::net::TcpStream;

use super::Error;
use super::process::Process;

/// How long a server may take to listen.
const START: Duration = Duration::from_secs(20);

/// Sets the ping interval in milliseconds, here as in the binary. A heartbeat is a write, and so in the way of who counts.
pub(super) const PING_INTERVAL: &str = "ROOMCAST__ENGINE__PING_INTERVAL";

/// A running server. Dropping it ends it.
pub(super) struct Server {
    child: Child,
    address: SocketAddr,
    /// Where our own server is asked; another binary cannot be.
    questions: Option<(ChildStdin, BufReader<ChildStdout>)>,
}

impl Server {
    /// Starts `bin`, or our own server. `environment` is for the allocator.
    pub(super) async fn start(bin: Option<&Path>, environment: &[(&str, &str)]) -> Result<Self, Error> {
        let (public, api) = free_ports()?;
        let mut command = match bin {
            Some(bin) => {
                let mut command = Command::new(bin);
                command
                    .arg("serve")
                    .env("ROOMCAST__PUBLIC__LISTEN", public.to_string())
                    .env("ROOMCAST__API__LISTEN", api.to_string())
                    .stdout(Stdio::null());
                command
            }
            None => {
                let mut command = Command::new(std::env::current_exe()?);
                command.args(["server", &public.port().to_string(), &api.port().to_string()]);
                command.stdin(Stdio::piped()).stdout(Stdio::piped());
                command
            }
        };
        let mut child = command.envs(environment.iter().copied()).spawn()?;
        let questions = child.stdin.take().zip(child.stdout.take().map(BufReader::new));
        let server = Self { child, address: public, questions };
        let deadline = Instant::now() + START;
        while TcpStream::connect(public).await.is_err() {
            if Instant::now() > deadline {
                return Err("the server does not listen".into());
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Ok(server)
    }

    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }

    pub(super) fn process(&self) -> Process {
        Process(self.child.id())
    }

    /// The tasks of the server's runtime, if it can be asked.
    pub(super) fn tasks(&mut self) -> Result<Option<u64>, Error> {
        let Some((questions, answers)) = &mut self.questions else {
            return Ok(None);
        };
        questions.write_all(b"tasks\n")?;
        questions.flush()?;
        let mut line = String::new();
        answers.read_line(&mut line)?;
        Ok(Some(line.trim().parse()?))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Two ports that were free a moment ago.
fn free_ports() -> io::Result<(SocketAddr, SocketAddr)> {
    let first = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let second = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    Ok((first.local_addr()?, second.local_addr()?))
}

/// The hidden subcommand: the gateway as its binary runs it, with the defaults, until standard input ends. A line of
/// input is answered with the number of tasks of the runtime.
pub(crate) async fn serve(port: u16, api_port: u16) -> Result<(), Error> {
    let mut config = Config::default();
    if let Some(millis) = std::env::var(PING_INTERVAL).ok().and_then(|text| text.parse().ok()) {
        config.engine.ping_interval = Duration::from_millis(millis);
    }
    config.public.listen = (Ipv4Addr::LOCALHOST, port).into();
    config.api.listen = (Ipv4Addr::LOCALHOST, api_port).into();
    let runtime = tokio::runtime::Handle::current();
    let (ended, end) = tokio::sync::oneshot::channel();
    std::thread::spawn(move || {
        for line in io::stdin().lines() {
            if line.is_err() {
                break;
            }
            println!("{}", runtime.metrics().num_alive_tasks());
        }
        let _ = ended.send(());
    });
    let end = async {
        let _ = end.await;
    };
    Ok(roomcast::run(config, end).await?)
}
