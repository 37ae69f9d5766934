use std::path::PathBuf;

use parking_lot::Mutex;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpSocket;
use tokio_rustls::TlsConnector;

use super::*;
use crate::config::ListenerTls;
use crate::outbound::{Trust, connect, tls as client_tls};
use crate::{EngineHandler, EngineSocket, Message};

const PATIENCE: Duration = Duration::from_secs(30);

/// What the handshakes said of their clients.
#[derive(Default)]
struct Opened(Mutex<Vec<(bool, SocketAddr)>>);

impl EngineHandler for Opened {
    fn open(&self, socket: &EngineSocket) {
        let handshake = socket.handshake();
        self.0.lock().push((handshake.secure(), handshake.address().unwrap()));
    }

    fn message(&self, _: &EngineSocket, _: Message<'_>) {}
}

fn certificate() -> (ListenerTls, PathBuf) {
    let folder = std::env::temp_dir().join(format!("roomcast-listener-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let pair = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    let (cert_file, key_file) = (folder.join("cert"), folder.join("key"));
    std::fs::write(&cert_file, pair.cert.pem()).unwrap();
    std::fs::write(&key_file, pair.signing_key.serialize_pem()).unwrap();
    let settings =
        ListenerTls { cert_file: Some(cert_file), key_file: Some(key_file), ..ListenerTls::default() };
    (settings, folder)
}

async fn ask(authority: &str, tls: Option<&TlsConnector>, head: &str) -> String {
    let mut stream = connect(authority, tls).await.unwrap();
    let request = format!(
        "GET /engine.io/?EIO=4&transport=polling HTTP/1.1\r\nHost: h\r\nConnection: close\r\n{head}\r\n"
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    stream.flush().await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}

/// For those who embed: what handshakes know of their connection, with TLS and behind a proxy.
#[tokio::test]
async fn handshakes_know_whether_they_are_encrypted_and_from_whom_they_come() {
    let (settings, folder) = certificate();
    let opened = Arc::new(Opened::default());
    let io = Io::builder()
        .engine_handler(Arc::clone(&opened) as Arc<dyn EngineHandler>)
        .path("/engine.io/")
        .configure(|config| config.public.trusted_proxies = vec!["127.0.0.1".parse().unwrap()])
        .build();
    let tls = Tls::load(&settings).unwrap().unwrap();
    let mut authorities = Vec::new();
    for tls in [None, Some(tls)] {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        authorities.push(listener.local_addr().unwrap().to_string());
        tokio::spawn(serve_clients(io.clone(), listener, tls, std::future::pending()));
    }
    let trust = Trust::Exactly(settings.cert_file.clone().unwrap());
    let connector = TlsConnector::from(Arc::new(client_tls(&trust, None).unwrap()));
    let proxied = "X-Forwarded-For: 203.0.113.7\r\nX-Forwarded-Proto: https\r\n";
    let asked = [
        (&authorities[0], None, "", false, "127.0.0.1"),
        (&authorities[0], None, proxied, true, "203.0.113.7"),
        (&authorities[1], Some(&connector), "", true, "127.0.0.1"),
        (&authorities[1], Some(&connector), "X-Forwarded-Proto: http\r\n", false, "127.0.0.1"),
    ];
    for (authority, connector, head, secure, address) in asked {
        let answer = ask(authority, connector, head).await;
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        let (was_secure, from) = opened.0.lock().pop().unwrap();
        assert_eq!((was_secure, from.ip().to_string().as_str()), (secure, address), "{head}");
        assert_eq!(from.port() == 0, address != "127.0.0.1", "a port that is not known is 0");
    }
    // Another certificate is not that one, whatever it is called.
    let (_, other) = (std::fs::remove_dir_all(&folder).unwrap(), certificate());
    let stranger = Trust::Exactly(other.0.cert_file.unwrap());
    let stranger = TlsConnector::from(Arc::new(client_tls(&stranger, None).unwrap()));
    assert!(connect(&authorities[1], Some(&stranger)).await.is_err());
    let _ = std::fs::remove_dir_all(other.1);
}

/// Nothing is accepted here: the kernel keeps them.
#[cfg(target_os = "linux")]
#[tokio::test]
async fn many_may_come_at_once() {
    const CLIENTS: usize = 500;
    let allowed = std::fs::read_to_string("/proc/sys/net/core/somaxconn").unwrap();
    if allowed.trim().parse::<usize>().unwrap() < CLIENTS {
        return;
    }
    let listener = bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let address = listener.local_addr().unwrap();
    let clients = (0..CLIENTS).map(|_| timeout(Duration::from_secs(20), TcpStream::connect(address)));
    for client in futures_util::future::join_all(clients).await {
        client.expect("no place in the backlog").unwrap();
    }
}

async fn until(condition: impl Fn() -> bool) {
    let holds = async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    timeout(PATIENCE, holds).await.expect("a condition that does not come to hold");
}

/// Without a session nobody pings it, and as long as bytes wait to be written no head of a request is waited for.
#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_client_that_reads_none_of_its_answers_is_let_go() {
    let io = Io::builder().configure(|config| {
        (config.engine.ping_interval, config.engine.ping_timeout) =
            (Duration::from_millis(500), Duration::from_millis(500));
        config.public.header_timeout = Duration::from_secs(3_600);
    });
    let io = io.build();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(serve(io.clone(), listener, std::future::pending()));
    let client = TcpSocket::new_v4().unwrap();
    client.set_recv_buffer_size(4_096).unwrap();
    let mut client = client.connect(address).await.unwrap();
    // Some twenty megabytes: more than the buffers of the system hold.
    let requests = "GET /socket.io/socket.io.js.map HTTP/1.1\r\nHost: h\r\n\r\n".repeat(64);
    client.write_all(requests.as_bytes()).await.unwrap();
    client.readable().await.unwrap();
    let pending = io.metrics().listeners.pending.of(Listener::Public);
    assert_eq!(pending.get(), 1);
    until(|| pending.get() == 0).await;
}

/// Longer than a balancer keeps it: or else a request meets a connection that is just being closed.
#[tokio::test]
async fn a_connection_is_kept_for_its_next_request_longer_than_one_that_brings_none() {
    let io = Io::builder().configure(|config| {
        config.public.header_timeout = Duration::from_millis(200);
        config.public.idle_timeout = Duration::from_secs(3_600);
    });
    let io = io.build();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(serve(io, listener, std::future::pending()));
    let mut kept = TcpStream::connect(address).await.unwrap();
    let mut ask = async || {
        kept.write_all(b"HEAD /socket.io/socket.io.js HTTP/1.1\r\nHost: h\r\n\r\n").await.unwrap();
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(kept.read_u8().await.unwrap());
        }
        assert!(head.starts_with(b"HTTP/1.1 200"));
    };
    ask().await;
    // What began later, and said nothing, or not all, is closed by now.
    for said in ["", "GET /socket.io/ HTTP/1.1\r\n"] {
        let mut silent = TcpStream::connect(address).await.unwrap();
        silent.write_all(said.as_bytes()).await.unwrap();
        let ended = timeout(PATIENCE, silent.read_u8()).await.unwrap();
        assert!(ended.is_err(), "{said}");
    }
    ask().await;
}
