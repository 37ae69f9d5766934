//! Two nodes in one process, over a broker in memory. What clients see of it is tested in tests/node/stickiness.

use axum::body::Body;
use futures_util::FutureExt as _;
use http::{Method, Request, StatusCode, Uri};
use roomcast_adapter::NodeTag;
use roomcast_adapter::cluster::memory_bus::MemoryHub;
use roomcast_adapter::cluster::{ClusterConfig, ClusterFactory};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpSocket;

use super::listener::REFUSED;
use super::stamp::{self, STAMP, Stamp};
use super::*;
use crate::metrics::{ForwardResult, ForwardSide, ForwardedResult, Listener};
use crate::transport::Peer as Client;

const PATIENCE: Duration = Duration::from_secs(20);
const CLIENT: Client = Client { address: None, secure: true, place: None };

async fn node(hub: &MemoryHub) -> Io {
    node_with(hub, |_| {}).await
}

async fn node_with(hub: &MemoryHub, change: impl FnOnce(&mut Config)) -> Io {
    let factory = ClusterFactory::start(hub.bus(), ClusterConfig::default()).await.unwrap();
    let factory: Arc<dyn AdapterFactory> = factory;
    let mut config = Box::new(Config::default());
    config.peer.listen = Some((Ipv4Addr::LOCALHOST, 0).into());
    change(&mut config);
    let peers = Peers::bind(&config, &factory).await.unwrap();
    let io = Io::builder().config(*config).adapter(factory).peers(peers).build();
    io.serve_peers().await;
    io
}

fn target(query: &str) -> String {
    format!("/socket.io/?EIO=4&transport=polling{query}")
}

/// What a node answers to a client.
async fn ask(io: &Io, method: Method, target: &str, body: &'static str) -> (StatusCode, String) {
    let request = Request::builder().method(method).uri(target).body(Body::from(body)).unwrap();
    let response = io.handle(request, CLIENT).await;
    let status = response.status();
    let body = axum::body::to_bytes(response.into_body(), usize::MAX).await.unwrap();
    (status, String::from_utf8(body.into()).unwrap())
}

/// Opens a session.
async fn session(io: &Io) -> String {
    let (_, open) = ask(io, Method::GET, &target(""), "").await;
    let open: serde_json::Value = serde_json::from_str(&open[1..]).unwrap();
    target(&format!("&sid={}", open["sid"].as_str().unwrap()))
}

async fn until(condition: impl Fn() -> bool) {
    let holds = async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    tokio::time::timeout(PATIENCE, holds).await.expect("a condition that does not come to hold");
}

fn under_way(io: &Io, side: ForwardSide) -> i64 {
    io.metrics().forwards.active.of(side).get()
}

#[tokio::test]
async fn a_program_that_embeds_the_server_passes_requests_on() {
    let hub = MemoryHub::new();
    let (a, b) = (node(&hub).await, node(&hub).await);
    let session = session(&a).await;
    assert_eq!(ask(&b, Method::POST, &session, "40").await, (StatusCode::OK, "ok".to_owned()));
    let (status, connected) = ask(&b, Method::GET, &session, "").await;
    assert!(status == StatusCode::OK && connected.starts_with("40{"), "{connected}");
    assert_eq!(b.metrics().forwards.passed.of(ForwardResult::Answered).get(), 2);
    assert_eq!(a.metrics().forwards.received.of(ForwardedResult::Served).get(), 2);
    // A client that goes away while its poll is held.
    let mut held = Box::pin(ask(&b, Method::GET, &session, ""));
    while under_way(&a, ForwardSide::Owner) == 0 {
        assert!(held.as_mut().now_or_never().is_none());
        tokio::task::yield_now().await;
    }
    assert_eq!((a.connection_count(), under_way(&b, ForwardSide::Entry)), (1, 1));
    drop(held);
    until(|| a.connection_count() == 0 && under_way(&a, ForwardSide::Owner) == 0).await;
    assert_eq!(under_way(&b, ForwardSide::Entry), 0);
    assert_eq!(b.metrics().forwards.passed.of(ForwardResult::Aborted).get(), 1);
}

#[tokio::test]
async fn a_poll_that_a_node_passes_on_is_answered_when_that_node_drains() {
    let hub = MemoryHub::new();
    let (a, b) = (node(&hub).await, node(&hub).await);
    let session = session(&a).await;
    let mut held = Box::pin(ask(&b, Method::GET, &session, ""));
    while under_way(&a, ForwardSide::Owner) == 0 {
        assert!(held.as_mut().now_or_never().is_none());
        tokio::task::yield_now().await;
    }
    b.release_peers(Duration::ZERO);
    // A noop: its client asks again, and its session does not hear of it.
    let answer = tokio::time::timeout(PATIENCE, held).await.expect("an answer to the poll");
    assert_eq!(answer, (StatusCode::OK, "6".to_owned()));
    assert_eq!((a.connection_count(), b.passed_on()), (1, 0));
    assert!(a.metrics().forwards.received.of(ForwardedResult::Released).get() >= 1);
    assert_eq!(ask(&a, Method::POST, &session, "40").await, (StatusCode::OK, "ok".to_owned()));
    assert!(ask(&b, Method::GET, &session, "").await.1.starts_with("40{"));
}

#[tokio::test]
async fn who_has_the_key_gets_what_is_passed_on_and_nothing_else() {
    let hub = MemoryHub::new();
    let (a, b) = (node(&hub).await, node(&hub).await);
    let (own, other) = (session(&b).await, session(&a).await);
    let reach = a.factory().reach_of(b.factory().node()).unwrap();
    let entry: NodeTag = a.factory().node();
    let client = crate::outbound::client(None, PATIENCE).unwrap();
    let send = async |target: &str, at: Duration| {
        let uri: Uri = target.parse().unwrap();
        let stamp = Stamp { entry, peer: CLIENT, at }.sign(&reach.key, &Method::POST, &uri).unwrap();
        let request = client.post(format!("http://{}{target}", reach.address));
        let response = request.header(STAMP, stamp).body("40").send().await.unwrap();
        let refused = response.headers().get(REFUSED).map(|reason| reason.to_str().unwrap().to_owned());
        (response.status().as_u16(), refused)
    };
    let refused = |reason: &str| (403, Some(reason.to_owned()));
    let now = stamp::now();
    assert_eq!(send(&own, now).await, (200, None));
    // The connection is kept for the next request, and takes no place of those that strangers may have.
    let strangers = b.metrics().listeners.pending.of(Listener::Peer);
    assert_eq!(strangers.get(), 0);
    let stranger = tokio::net::TcpStream::connect(reach.address).await.unwrap();
    until(|| strangers.get() == 1).await;
    drop(stranger);
    until(|| strangers.get() == 0).await;
    let forged = client.post(format!("http://{}{own}", reach.address)).send().await.unwrap();
    assert_eq!((forged.status().as_u16(), &forged.headers()["connection"]), (403, &"close".parse().unwrap()));
    // No second hop, no handshake, nothing else of the server, and nothing that was said long ago.
    assert_eq!(send(&other, now).await, refused("foreign"));
    assert_eq!(send(&target(""), now).await, refused("foreign"));
    assert_eq!(send("/metrics", now).await, refused("foreign"));
    assert_eq!(send(&own, now - Duration::from_secs(120)).await, refused("stale"));
    let outside = own.replace("/socket.io/", "/v1/");
    assert_eq!(send(&outside, now).await, (404, None));
    assert_eq!(a.connection_count() + b.connection_count(), 2);
}

#[tokio::test]
async fn strangers_that_hold_every_place_keep_no_node_out() {
    const STRANGERS: usize = 8;
    let hub = MemoryHub::new();
    let a = node(&hub).await;
    let b = node_with(&hub, |config| config.peer.max_pending_connections = STRANGERS).await;
    let reach = a.factory().reach_of(b.factory().node()).unwrap();
    let pending = b.metrics().listeners.pending.of(Listener::Peer);
    let mut strangers = Vec::new();
    while strangers.len() < STRANGERS {
        strangers.push(tokio::net::TcpStream::connect(reach.address).await.unwrap());
    }
    until(|| pending.get() == STRANGERS as i64).await;
    let own = session(&b).await;
    assert_eq!(ask(&a, Method::POST, &own, "40").await, (StatusCode::OK, "ok".to_owned()));
    assert_eq!(pending.get(), STRANGERS as i64 - 1);
    // The one that had waited longest went for it.
    let ended = tokio::time::timeout(PATIENCE, strangers[0].read_u8()).await.unwrap();
    assert!(ended.is_err());
    let displaced = "roomcast_listener_refused_total{listener=\"peer\",reason=\"displaced\"} 1";
    until(|| b.metrics().render().contains(displaced)).await;
}

#[test]
fn the_others_are_told_what_they_can_reach() {
    let told = |advertise: Option<&str>, local: &str, towards: Option<&str>| {
        let config = Peer { advertise: advertise.map(str::to_owned), ..Peer::default() };
        let towards = towards.map(|ip| ip.parse().unwrap());
        advertised(&config, local.parse().unwrap(), towards).map(|address| address.to_string())
    };
    let found = |text: &str| Some(text.to_owned());
    assert_eq!(told(None, "127.0.0.1:40000", None), found("127.0.0.1:40000"));
    assert_eq!(told(None, "0.0.0.0:3002", Some("10.1.2.3")), found("10.1.2.3:3002"));
    assert_eq!(told(None, "[::]:3002", Some("fd00::1")), found("[fd00::1]:3002"));
    assert_eq!(told(None, "0.0.0.0:3002", None), None);
    assert_eq!(told(Some("10.9.9.9"), "0.0.0.0:3002", None), found("10.9.9.9:3002"));
    assert_eq!(told(Some("10.9.9.9:80"), "0.0.0.0:3002", Some("10.1.2.3")), found("10.9.9.9:80"));
    assert_eq!(told(Some("fd00::9"), "10.0.0.1:3002", None), found("[fd00::9]:3002"));
}

#[tokio::test]
async fn a_client_is_told_what_keeps_the_other_node_from_answering() {
    let hub = MemoryHub::new();
    let entry = node(&hub).await;
    // Nobody can be so quick.
    let hasty = node_with(&hub, |config| config.peer.clock_skew = Duration::ZERO).await;
    let full = node_with(&hub, |config| config.peer.max_requests = 0).await;
    for (owner, status, code, passed, received) in [
        (&hasty, 502, "refused", ForwardResult::Refused, ForwardedResult::Stale),
        (&full, 503, "full", ForwardResult::Full, ForwardedResult::Full),
    ] {
        let answer = ask(&entry, Method::POST, &session(owner).await, "40").await;
        assert_eq!(answer.0, status, "{}", answer.1);
        assert!(answer.1.contains(&format!("\"code\":\"{code}\"")), "{}", answer.1);
        assert_eq!(entry.metrics().forwards.passed.of(passed).get(), 1);
        assert_eq!(owner.metrics().forwards.received.of(received).get(), 1);
        // Neither has heard of it.
        assert_eq!(owner.connection_count(), 1);
    }
}

/// A node that answers an upgrade, and then says more than anybody takes.
async fn talk(listener: TcpListener) {
    let (mut entry, _) = listener.accept().await.unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(entry.read_u8().await.unwrap());
    }
    let answer = "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n";
    entry.write_all(answer.as_bytes()).await.unwrap();
    while entry.write_all(&[0; 65_536]).await.is_ok() {}
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_client_that_stops_reading_ends_the_websocket_that_is_passed_on() {
    let hub = MemoryHub::new();
    let entry = node_with(&hub, |config| {
        (config.engine.ping_interval, config.engine.ping_timeout) =
            (Duration::from_millis(500), Duration::from_millis(500));
    });
    let (entry, factory) = (entry.await, ClusterFactory::start(hub.bus(), ClusterConfig::default()).await);
    let factory: Arc<dyn AdapterFactory> = factory.unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    factory.announce_reach(Reach { address, key: ReachKey::new([1; ReachKey::LEN]) }).await;
    let owner = tokio::spawn(talk(listener));
    let session = session(&Io::builder().adapter(factory).build()).await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(super::super::serve(entry.clone(), listener, std::future::pending()));
    let client = TcpSocket::new_v4().unwrap();
    client.set_recv_buffer_size(4_096).unwrap();
    let mut client = client.connect(address).await.unwrap();
    let target = session.replace("polling", "websocket");
    let head = "Host: h\r\nConnection: upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n";
    let key = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
    client.write_all(format!("GET {target} HTTP/1.1\r\n{head}{key}\r\n").as_bytes()).await.unwrap();
    client.readable().await.unwrap();
    assert_eq!(under_way(&entry, ForwardSide::Entry), 1);
    until(|| under_way(&entry, ForwardSide::Entry) == 0).await;
    tokio::time::timeout(PATIENCE, owner).await.expect("the other node is let go too").unwrap();
}
