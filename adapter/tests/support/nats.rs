//! Three NATS servers as one cluster, with routes between all of them.

use std::{
    io::{BufRead, BufReader},
    net::TcpStream,
    sync::{OnceLock, mpsc},
    time::{Duration, Instant},
};

use super::{DEADLINE, Kind, Server, free_port};

/// A cluster of three.
pub struct NatsCluster {
    pub servers: Vec<Server>,
}

impl NatsCluster {
    /// The cluster of this test binary, which nobody may harm. It ends with the process.
    pub fn shared() -> &'static Self {
        static SHARED: OnceLock<NatsCluster> = OnceLock::new();
        SHARED.get_or_init(|| {
            let (send, made) = mpsc::channel();
            // The servers die with the thread that started them, so it must not be that of a test.
            std::thread::spawn(move || {
                send.send(Self::own(&[])).expect("somebody waits");
                loop {
                    std::thread::park();
                }
            });
            made.recv().expect("a cluster")
        })
    }

    /// A cluster that the test may do anything to.
    pub fn own(arguments: &[&str]) -> Self {
        Self::own_each(|_| arguments.iter().map(ToString::to_string).collect())
    }

    /// The same, with arguments for each.
    pub fn own_each(arguments: impl Fn(usize) -> Vec<String>) -> Self {
        let routes: Vec<String> = (0..3).map(|_| format!("nats://127.0.0.1:{}", free_port())).collect();
        let start = |n: usize| {
            let to = routes[..n].join(",");
            let mut all = vec!["--cluster_name", "test", "--cluster", &routes[n]];
            if n > 0 {
                all.extend(["--routes", &to]);
            }
            let more = arguments(n);
            all.extend(more.iter().map(String::as_str));
            Server::own(Kind::Nats, &all)
        };
        let cluster = Self { servers: (0..3).map(start).collect() };
        cluster.wait_for_routes(&[0, 1, 2]);
        cluster
    }

    /// Waits until some of the servers know each other, and nobody else.
    pub fn wait_for_routes(&self, alive: &[usize]) {
        let until = Instant::now() + DEADLINE;
        for n in alive {
            while known(&self.servers[*n]) != Some(alive.len()) {
                assert!(Instant::now() < until, "the servers do not know each other");
                std::thread::sleep(Duration::from_millis(5));
            }
        }
    }

    pub fn url(&self, n: usize) -> String {
        self.servers[n].url()
    }

    /// All of them, this one first.
    pub fn urls_from(&self, first: usize) -> String {
        (0..3).map(|n| self.url((first + n) % 3)).collect::<Vec<_>>().join(",")
    }
}

/// How many servers one announces.
fn known(server: &Server) -> Option<usize> {
    let stream = TcpStream::connect(("127.0.0.1", server.port)).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(1))).ok()?;
    let mut info = String::new();
    BufReader::new(stream).read_line(&mut info).ok()?;
    let info: serde_json::Value = serde_json::from_str(info.strip_prefix("INFO ")?).ok()?;
    Some(info.get("connect_urls")?.as_array()?.len())
}
