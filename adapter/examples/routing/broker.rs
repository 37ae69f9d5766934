//! A broker in a process of its own, and what it and the kernel say of its work.

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use roomcast_adapter::cluster::Bus;
use roomcast_adapter::nats::{NatsBus, NatsConfig};
use roomcast_adapter::redis::{RedisBus, RedisConfig};

use super::Error;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Redis,
    Nats,
}

impl std::str::FromStr for Kind {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self, Error> {
        match name {
            "redis" => Ok(Self::Redis),
            "nats" => Ok(Self::Nats),
            _ => Err("the broker is redis or nats".into()),
        }
    }
}

/// A broker that ends with this value.
pub(crate) struct Broker {
    kind: Kind,
    process: Child,
    port: u16,
    monitor: u16,
}

impl Broker {
    pub(crate) fn start(kind: Kind) -> Result<Self, Error> {
        let (port, monitor) = (free_port()?, free_port()?);
        let program = match kind {
            Kind::Redis => "redis-server",
            Kind::Nats => "nats-server",
        };
        let sbin = PathBuf::from("/usr/sbin").join(program);
        let mut command = Command::new(if sbin.exists() { sbin } else { program.into() });
        let (port_text, monitor_text) = (port.to_string(), monitor.to_string());
        match kind {
            Kind::Redis => command.args([
                "--port",
                &port_text,
                "--bind",
                "127.0.0.1",
                "--save",
                "",
                "--appendonly",
                "no",
            ]),
            Kind::Nats => {
                command.args(["--addr", "127.0.0.1", "--port", &port_text, "--http_port", &monitor_text])
            }
        };
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let process = command.spawn().map_err(|error| format!("cannot run {program}: {error}"))?;
        let broker = Self { kind, process, port, monitor };
        let until = Instant::now() + Duration::from_secs(10);
        while broker.figures().is_err() {
            if Instant::now() > until {
                return Err(format!("{program} does not answer").into());
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        Ok(broker)
    }

    pub(crate) fn bus(&self, prefix: &str) -> Result<Arc<dyn Bus>, Error> {
        Ok(match self.kind {
            Kind::Redis => {
                let mut config = RedisConfig::new(format!("redis://127.0.0.1:{}", self.port));
                config.prefix = prefix.to_owned();
                Arc::new(RedisBus::new(&config)?)
            }
            Kind::Nats => {
                let mut config = NatsConfig::new(format!("nats://127.0.0.1:{}", self.port));
                config.prefix = prefix.to_owned();
                Arc::new(NatsBus::new(&config)?)
            }
        })
    }

    pub(crate) fn pid(&self) -> u32 {
        self.process.id()
    }

    /// What the broker counts: commands of Redis by name, or the numbers of NATS' monitoring pages.
    pub(crate) fn figures(&self) -> Result<BTreeMap<String, f64>, Error> {
        match self.kind {
            Kind::Redis => {
                let text = self.ask(self.port, "INFO commandstats\r\nINFO memory\r\nQUIT\r\n")?;
                let lines = text.lines().filter_map(|line| {
                    if let Some(memory) = line.strip_prefix("used_memory:") {
                        return Some(("memory".to_owned(), memory.trim().parse().ok()?));
                    }
                    let (name, rest) = line.strip_prefix("cmdstat_")?.split_once(":calls=")?;
                    Some((name.to_owned(), rest.split_once(',')?.0.parse().ok()?))
                });
                Ok(lines.collect())
            }
            Kind::Nats => {
                let mut figures = BTreeMap::new();
                for (page, keys) in [
                    ("varz", &["in_msgs", "out_msgs", "mem", "subscriptions"][..]),
                    ("subsz", &["num_inserts", "num_removes"][..]),
                ] {
                    let request = format!("GET /{page} HTTP/1.0\r\nConnection: close\r\n\r\n");
                    let text = self.ask(self.monitor, &request)?;
                    let (_, body) = text.split_once("\r\n\r\n").ok_or("no answer")?;
                    let json: serde_json::Value = serde_json::from_str(body)?;
                    for key in keys {
                        figures.insert((*key).to_owned(), json[*key].as_f64().unwrap_or_default());
                    }
                }
                Ok(figures)
            }
        }
    }

    fn ask(&self, port: u16, request: &str) -> Result<String, Error> {
        let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
        stream.set_read_timeout(Some(Duration::from_secs(5)))?;
        stream.write_all(request.as_bytes())?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer)?;
        Ok(String::from_utf8_lossy(&answer).into_owned())
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn free_port() -> Result<u16, Error> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port())
}

/// Time that all threads of a process ran, those that have ended left out (proc(5), `schedstat`).
pub(crate) fn cpu(pid: u32) -> Result<Duration, Error> {
    let mut nanos = 0;
    for task in std::fs::read_dir(format!("/proc/{pid}/task"))? {
        let text = std::fs::read_to_string(task?.path().join("schedstat")).unwrap_or_default();
        nanos += text.split_whitespace().next().and_then(|field| field.parse().ok()).unwrap_or(0_u64);
    }
    Ok(Duration::from_nanos(nanos))
}

/// Resident memory of a process, in bytes.
pub(crate) fn resident(pid: u32) -> Result<f64, Error> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:")).ok_or("no VmRSS")?;
    let kib: f64 = line.split_whitespace().next().ok_or("no VmRSS")?.parse()?;
    Ok(kib * 1024.0)
}
