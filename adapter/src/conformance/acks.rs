//! Broadcasts that ask for acks.

use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt;
use roomcast_protocol::socketio::Args;

use super::cluster::{TestCluster, args_of};
use super::socket::{PATIENCE, TestSocket};
use crate::adapter::{AckEvent, AckReport, AckStream};
use crate::id::SocketId;
use crate::selector::Selector;

/// Far beyond what a test lasts: whoever waits for it has not ended in time.
const LONG: Duration = Duration::from_secs(300);

async fn report(stream: AckStream) -> AckReport {
    tokio::time::timeout(PATIENCE, AckReport::collect(stream)).await.expect("the acks do not end")
}

fn sorted(mut ids: Vec<SocketId>) -> Vec<SocketId> {
    ids.sort_unstable();
    ids
}

/// One socket is asked, from every node, and answers.
pub async fn one_socket_acks(cluster: &TestCluster) {
    let mut socket = cluster.socket(1, &[]).await;
    for node in 0..3 {
        let adapter = cluster.adapter(node, "/");
        let to = Selector::rooms([socket.id.as_str()]);
        let stream = adapter.broadcast_with_ack(&to, "ask", &args_of(&("a", node)), LONG, None);
        let ack = socket.next_ask().await;
        socket.ack(ack, args_of(&("yes", node)));
        let report = report(stream).await;
        assert_eq!(report.acks, [(socket.id, args_of(&("yes", node)))]);
        assert_eq!((report.expected, report.timed_out, report.lost_nodes), (1, vec![], vec![]));
    }
}

/// Sockets of all nodes are asked, each once, and answer.
pub async fn sockets_of_all_nodes_ack(cluster: &TestCluster) {
    let mut sockets = Vec::new();
    for number in 0..30 {
        sockets.push(cluster.socket(number % 3, if number % 2 == 0 { &["a"] } else { &["a", "b"] }).await);
    }
    let stream = cluster.adapter(0, "/").broadcast_with_ack(
        &Selector::rooms(["a", "b"]),
        "ask",
        &Args::none(),
        LONG,
        None,
    );
    for socket in &mut sockets {
        let ack = socket.next_ask().await;
        socket.ack(ack, args_of(socket.id.as_str()));
    }
    let report = report(stream).await;
    assert_eq!(report.expected, 30);
    assert!(report.acks.iter().all(|(id, args)| *args == args_of(id.as_str())));
    let answered = report.acks.iter().map(|(id, _)| *id).collect();
    assert_eq!(sorted(answered), sorted(sockets.iter().map(|socket| socket.id).collect()));
    assert_eq!((report.timed_out, report.lost_nodes), (vec![], vec![]));
}

/// When nobody is meant the acks end before the deadline, without any.
pub async fn nobody_to_ask_ends_at_once(cluster: &TestCluster) {
    for node in 0..3 {
        let adapter = cluster.adapter(node, "/");
        let stream =
            adapter.broadcast_with_ack(&Selector::rooms(["nobody"]), "ask", &Args::none(), LONG, None);
        assert_eq!(report(stream).await, AckReport::default());
    }
}

/// At the deadline those who have answered count, and the others are named.
pub async fn those_who_do_not_ack_in_time_are_named(cluster: &TestCluster) {
    let (mut a, b, mut c) =
        (cluster.socket(0, &["a"]).await, cluster.socket(1, &["a"]).await, cluster.socket(2, &["a"]).await);
    let adapter = cluster.adapter(0, "/");
    let timeout = Duration::from_millis(600);
    let stream = adapter.broadcast_with_ack(&Selector::rooms(["a"]), "ask", &Args::none(), timeout, None);
    for socket in [&mut a, &mut c] {
        let ack = socket.next_ask().await;
        socket.ack(ack, Args::none());
    }
    let report = report(stream).await;
    assert_eq!((report.expected, report.acks.len()), (3, 2));
    assert_eq!((report.timed_out, report.lost_nodes), (vec![b.id], vec![]));
}

/// A socket that leaves ends its ack: nobody waits for the deadline.
pub async fn a_socket_that_leaves_is_not_waited_for(cluster: &TestCluster) {
    for node in 0..3 {
        let (mut a, mut b) = (cluster.socket(0, &["a"]).await, cluster.socket(1, &["a"]).await);
        let adapter = cluster.adapter(node, "/");
        let mut stream =
            adapter.broadcast_with_ack(&Selector::rooms(["a"]), "ask", &Args::none(), LONG, None);
        let ack = a.next_ask().await;
        a.ack(ack, Args::none());
        b.next_ask().await;
        b.adapter.remove(b.id);
        let (mut asked, mut acked, mut gone) = (Vec::new(), Vec::new(), Vec::new());
        while let Some(event) = tokio::time::timeout(PATIENCE, stream.next()).await.expect("no end") {
            match event {
                AckEvent::Asked(ids) => asked.extend(ids),
                AckEvent::Ack(id, _) => acked.push(id),
                AckEvent::Gone(id) => gone.push(id),
                AckEvent::LostNode(node) => panic!("{node} was lost"),
            }
        }
        assert_eq!((sorted(asked), acked, gone), (sorted(vec![a.id, b.id]), vec![a.id], vec![b.id]));
        a.adapter.remove(a.id);
    }
}

/// A socket owes an ack from when it is asked until it answers, or nobody waits for it any more.
pub async fn a_socket_owes_its_acks_until_nobody_waits_for_them(cluster: &TestCluster) {
    let mut socket = cluster.socket(1, &["a"]).await;
    let other = cluster.socket(1, &[]).await;
    let owes = |socket: &TestSocket| socket.adapter.owes_acks(socket.id);
    for node in 0..3 {
        let adapter = cluster.adapter(node, "/");
        let ask = |timeout| {
            adapter.broadcast_with_ack(&Selector::rooms(["a"]), "ask", &Args::none(), timeout, None)
        };
        assert!(!owes(&socket));
        let answered = ask(LONG);
        let ack = socket.next_ask().await;
        assert!(owes(&socket) && !owes(&other));
        socket.ack(ack, Args::none());
        assert!(!owes(&socket));
        report(answered).await;
        let given_up = ask(Duration::from_millis(500));
        socket.next_ask().await;
        report(given_up).await;
        let settled = async {
            while owes(&socket) {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(PATIENCE, settled).await.expect("it is waited for still");
    }
}

/// An ack of somebody who was not asked is ignored, and so is a second one.
pub async fn an_ack_counts_once_and_only_from_those_asked(cluster: &TestCluster) {
    let (mut a, mut b) = (cluster.socket(0, &["a"]).await, cluster.socket(0, &["a"]).await);
    let stranger = cluster.socket(0, &[]).await;
    for node in 0..2 {
        let adapter = cluster.adapter(node, "/");
        let stream = adapter.broadcast_with_ack(&Selector::rooms(["a"]), "ask", &Args::none(), LONG, None);
        let ack = a.next_ask().await;
        stranger.ack(ack, args_of("stranger"));
        a.ack(ack.wrapping_add(1_000), args_of("another id"));
        a.ack(ack, args_of("first"));
        a.ack(ack, args_of("second"));
        let ack = b.next_ask().await;
        b.ack(ack, args_of("first"));
        let report = report(stream).await;
        assert_eq!(report.expected, 2);
        assert_eq!(report.acks.len(), 2);
        assert!(report.acks.iter().all(|(_, args)| *args == args_of("first")));
    }
}

/// Binary and big answers arrive as they were.
pub async fn binary_and_big_acks_arrive(cluster: &TestCluster) {
    let mut sockets = Vec::new();
    for node in 0..3 {
        sockets.push(cluster.socket(node, &["a"]).await);
    }
    let answer = args_of(&("x".repeat(300_000), Bytes::from(vec![0xff; 200_000])));
    let adapter = cluster.adapter(0, "/");
    let ask = args_of(&Bytes::from_static(b"\0\xff"));
    let stream = adapter.broadcast_with_ack(&Selector::all(), "ask", &ask, LONG, None);
    for socket in &mut sockets {
        let ack = socket.next_ask().await;
        socket.ack(ack, answer.clone());
    }
    let report = report(stream).await;
    assert_eq!(report.acks.len(), 3);
    assert!(report.acks.iter().all(|(_, args)| *args == answer));
}
