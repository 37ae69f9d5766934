//! Redis as people run it: behind Sentinels, and as a cluster.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::TcpStream,
    process::{Command, Stdio},
    sync::{OnceLock, mpsc},
    time::{Duration, Instant},
};

use super::{DEADLINE, Kind, Server, free_port};

/// By which name the Sentinels know the master.
pub const SERVICE: &str = "main";

/// The URL of the set that this test binary shares, which nobody may harm. It ends with the process.
pub fn shared(kind: Kind) -> Option<String> {
    static BY_SENTINEL: OnceLock<String> = OnceLock::new();
    static CLUSTER: OnceLock<String> = OnceLock::new();
    match kind {
        Kind::RedisBySentinel => Some(BY_SENTINEL.get_or_init(|| {
            kept(|| {
                let set = SentinelSet::own(1);
                let url = set.url();
                (url, set.redis.into_iter().chain(set.sentinels).collect())
            })
        })),
        Kind::RedisCluster => Some(CLUSTER.get_or_init(|| {
            kept(|| {
                // The default: with less, a machine that is busy makes the nodes connect anew among themselves, and what
                // is on the way by classic publish/subscribe is lost.
                let cluster = RedisCluster::with_timeout(0, 15_000);
                (cluster.url(), cluster.nodes)
            })
        })),
        _ => None,
    }
    .cloned()
}

/// Makes servers that live as long as this process.
fn kept(make: fn() -> (String, Vec<Server>)) -> String {
    let (send, made) = mpsc::channel();
    // The servers die with the thread that started them, so it must not be that of a test.
    std::thread::spawn(move || {
        let (url, servers) = make();
        let (directories, pids): (Vec<_>, Vec<_>) = servers.iter().map(Server::directory_and_pid).unzip();
        // Statics are not dropped. When this process is gone, its end of the pipe is, and the shell cleans up.
        let script = "cat >/dev/null; kill -9 $PIDS 2>/dev/null; rm -rf -- \"$@\"";
        let pids: Vec<String> = pids.iter().map(ToString::to_string).collect();
        let mut shell = Command::new("sh");
        shell.args(["-c", script, "sh"]).args(directories).env("PIDS", pids.join(" "));
        let mut cleaner = shell.stdin(Stdio::piped()).stdout(Stdio::null()).spawn().expect("a shell");
        // Held open by us until the end, which `wait` would not do.
        let _open = cleaner.stdin.take();
        send.send(url).expect("somebody waits");
        let _ = cleaner.wait();
        drop(servers);
    });
    made.recv().expect("servers that started")
}

/// A master with replicas, and three Sentinels that watch them.
pub struct SentinelSet {
    /// The first one is the master, at first.
    pub redis: Vec<Server>,
    pub sentinels: Vec<Server>,
}

impl SentinelSet {
    pub fn own(replicas: usize) -> Self {
        let master = Server::own(Kind::Redis, &["--repl-diskless-sync-delay", "0"]);
        let port = master.port.to_string();
        let mut redis = vec![master];
        for _ in 0..replicas {
            let of = ["--replicaof", "127.0.0.1", &port, "--repl-diskless-sync-delay", "0"];
            redis.push(Server::own(Kind::Redis, &of));
        }
        until("replication", || {
            redis[1..].iter().all(|replica| said(replica, "INFO replication", "master_link_status:up"))
        });
        let lines = [
            format!("sentinel monitor {SERVICE} 127.0.0.1 {port} 2"),
            format!("sentinel down-after-milliseconds {SERVICE} 500"),
            format!("sentinel failover-timeout {SERVICE} 3000"),
        ];
        let lines = lines.each_ref().map(String::as_str);
        let sentinels: Vec<Server> = (0..3).map(|_| Server::own(Kind::Sentinel, &lines)).collect();
        let set = Self { redis, sentinels };
        until("all that the Sentinels have to know", || {
            set.sentinels.iter().all(|sentinel| {
                let known = command(sentinel.port, &["SENTINEL", "MASTER", SERVICE]);
                let value = |key: &str| {
                    known.iter().position(|word| word == key).and_then(|at| known.get(at + 1)).cloned()
                };
                value("num-other-sentinels").as_deref() == Some("2")
                    && value("num-slaves") == Some(replicas.to_string())
            })
        });
        set
    }

    pub fn url(&self) -> String {
        let hosts: Vec<_> = self.sentinels.iter().map(|one| format!("127.0.0.1:{}", one.port)).collect();
        format!("redis-sentinel://{}/?sentinelServiceName={SERVICE}", hosts.join(","))
    }
}

/// Three masters, with a replica each or without, that failover within seconds.
pub struct RedisCluster {
    /// The masters first, at first; then their replicas in the same order.
    pub nodes: Vec<Server>,
}

impl RedisCluster {
    /// With 0 or 3 replicas.
    pub fn own(replicas: usize) -> Self {
        Self::with_timeout(replicas, 1_000)
    }

    fn with_timeout(replicas: usize, milliseconds: u32) -> Self {
        let nodes: Vec<Server> = (0..3 + replicas).map(|_| node(milliseconds)).collect();
        for (index, node) in nodes.iter().enumerate().take(3) {
            let (first, last) = (index * 16_384 / 3, (index + 1) * 16_384 / 3 - 1);
            ok(node, &["CLUSTER", "ADDSLOTSRANGE", &first.to_string(), &last.to_string()]);
        }
        for (index, node) in nodes.iter().enumerate() {
            ok(node, &["CLUSTER", "SET-CONFIG-EPOCH", &(index + 1).to_string()]);
        }
        for node in &nodes[1..] {
            let bus = command(node.port, &["CONFIG", "GET", "cluster-port"])[1].clone();
            ok(&nodes[0], &["CLUSTER", "MEET", "127.0.0.1", &node.port.to_string(), &bus]);
        }
        let known = format!("cluster_known_nodes:{}", nodes.len());
        until("nodes that know each other", || nodes.iter().all(|node| said(node, "CLUSTER INFO", &known)));
        for (index, replica) in nodes[3..].iter().enumerate() {
            let id = command(nodes[index].port, &["CLUSTER", "MYID"])[0].clone();
            until("a master that the replica knows", || {
                command(replica.port, &["CLUSTER", "REPLICATE", &id]) == ["OK"]
            });
        }
        until("a whole cluster", || {
            let whole = nodes.iter().all(|node| said(node, "CLUSTER INFO", "cluster_state:ok"));
            let linked = |node: &Server| said(node, "INFO replication", "master_link_status:up");
            // Every node knows every replica, or a failover would wait for gossip.
            let replicas = |node: &Server| {
                command(node.port, &["CLUSTER", "NODES"]).concat().matches("slave ").count() == replicas
            };
            whole && nodes[3..].iter().all(linked) && nodes.iter().all(replicas)
        });
        Self { nodes }
    }

    /// Of two of its masters.
    pub fn url(&self) -> String {
        format!("redis-cluster://127.0.0.1:{},127.0.0.1:{}", self.nodes[0].port, self.nodes[1].port)
    }

    /// Which master serves a channel, by the eyes of a node.
    pub fn owner(&self, channel: &str, by: usize) -> usize {
        let slot: i64 = self.slot(channel).parse().expect("a slot");
        let all = command(self.nodes[by].port, &["CLUSTER", "NODES"]).concat();
        let serves = |line: &&str| {
            line.split(' ').skip(8).any(|range| {
                let (first, last) = range.split_once('-').unwrap_or((range, range));
                first.parse().is_ok_and(|first: i64| first <= slot)
                    && last.parse().is_ok_and(|last: i64| slot <= last)
            })
        };
        let line = all.lines().find(serves).expect("somebody serves the slot");
        self.nodes.iter().position(|node| line.contains(&format!(":{}@", node.port))).expect("one of ours")
    }

    pub fn slot(&self, channel: &str) -> String {
        command(self.nodes[0].port, &["CLUSTER", "KEYSLOT", channel])[0].clone()
    }

    /// Moves a slot from one master to another, as redis-cli does. Done when all nodes have been told.
    pub fn move_slot(&self, slot: &str, from: usize, to: usize) {
        let id = |node: usize| command(self.nodes[node].port, &["CLUSTER", "MYID"])[0].clone();
        let (from_id, to_id) = (id(from), id(to));
        ok(&self.nodes[to], &["CLUSTER", "SETSLOT", slot, "IMPORTING", &from_id]);
        ok(&self.nodes[from], &["CLUSTER", "SETSLOT", slot, "MIGRATING", &to_id]);
        for node in [to, from] {
            ok(&self.nodes[node], &["CLUSTER", "SETSLOT", slot, "NODE", &to_id]);
        }
    }
}

fn node(timeout: u32) -> Server {
    let bus = free_port().to_string();
    let arguments = [
        "--cluster-enabled",
        "yes",
        "--cluster-port",
        &bus,
        "--cluster-node-timeout",
        &timeout.to_string(),
        "--cluster-allow-replica-migration",
        "no",
        "--repl-diskless-sync-delay",
        "0",
    ];
    Server::own(Kind::Redis, &arguments)
}

/// Whether the answer to a command has a line that begins so.
fn said(server: &Server, line: &str, text: &str) -> bool {
    let words: Vec<&str> = line.split(' ').collect();
    command(server.port, &words).concat().lines().any(|line| line.starts_with(text))
}

fn ok(server: &Server, parts: &[&str]) {
    assert_eq!(command(server.port, parts), ["OK"], "{parts:?}");
}

/// Waits for what servers do among themselves.
fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let end = Instant::now() + 3 * DEADLINE;
    while !condition() {
        assert!(Instant::now() < end, "no {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Sends a command on a connection of its own, and gives the answer's texts; an error begins with `-`.
pub fn command(port: u16, parts: &[&str]) -> Vec<String> {
    let stream = TcpStream::connect(("127.0.0.1", port)).expect("Redis is there");
    let mut request = format!("*{}\r\n", parts.len());
    for part in parts {
        request.push_str(&format!("${}\r\n{part}\r\n", part.len()));
    }
    (&stream).write_all(request.as_bytes()).expect("Redis reads");
    let (mut reader, mut texts) = (BufReader::new(&stream), Vec::new());
    answer(&mut reader, &mut texts);
    texts
}

fn answer(reader: &mut BufReader<&TcpStream>, texts: &mut Vec<String>) {
    let mut line = String::new();
    reader.read_line(&mut line).expect("Redis answers");
    let line = line.trim_end();
    assert!(!line.is_empty(), "Redis closed the connection");
    match line.split_at(1) {
        ("*", count) => (0..count.parse().unwrap_or(0)).for_each(|_| answer(reader, texts)),
        ("$", "-1") => texts.push(String::new()),
        ("$", length) => {
            let mut bytes = vec![0; length.parse::<usize>().expect("a length") + 2];
            reader.read_exact(&mut bytes).expect("Redis answers");
            texts.push(String::from_utf8_lossy(&bytes[..bytes.len() - 2]).into_owned());
        }
        ("-", _) => texts.push(line.to_owned()),
        (_, rest) => texts.push(rest.to_owned()),
    }
}
