//! Who gets a broadcast, and what of it.

use std::sync::Arc;

use bytes::Bytes;
use roomcast_protocol::socketio::{Args, EncodedPacket};
use serde_json::json;

use super::cluster::{TestCluster, args_of, event};
use super::socket::Received;
use crate::mailbox::Outgoing;
use crate::selector::{Selector, Target};

fn except<const N: usize>(to: Selector, rooms: [&str; N]) -> Selector {
    Selector { except: rooms.into_iter().map(Into::into).collect(), ..to }
}

/// A broadcast to all reaches every socket of every node once.
pub async fn everybody_gets_a_broadcast_once(cluster: &TestCluster) {
    let (mut a, mut b, mut c) =
        (cluster.socket(0, &[]).await, cluster.socket(1, &["x"]).await, cluster.socket(2, &[]).await);
    for node in 0..3 {
        cluster.emit(node, &Selector::all(), "hello");
    }
    let names = cluster.names(&mut [&mut a, &mut b, &mut c]).await;
    assert_eq!(names, vec![vec!["hello"; 3]; 3]);
}

/// A broadcast to several rooms reaches a socket once, however many of them it is in.
pub async fn a_socket_in_several_rooms_gets_one_copy(cluster: &TestCluster) {
    let mut a = cluster.socket(0, &["a", "b", "c"]).await;
    let mut b = cluster.socket(1, &["b", "c"]).await;
    let mut c = cluster.socket(1, &["a"]).await;
    let mut d = cluster.socket(2, &["d"]).await;
    for node in 0..3 {
        cluster.emit(node, &Selector::rooms(["a", "b", "c", "b"]), "several");
    }
    cluster.emit(0, &Selector::rooms(Vec::<&str>::new()), "nobody");
    let names = cluster.names(&mut [&mut a, &mut b, &mut c, &mut d]).await;
    assert_eq!(names, [vec!["several"; 3], vec!["several"; 3], vec!["several"; 3], vec![]]);
}

/// The same with more rooms than a broker's subjects are used for.
pub async fn many_rooms_at_once(cluster: &TestCluster) {
    let rooms: Vec<String> = (0..300).map(|number| format!("room {number}")).collect();
    let mut a = cluster.socket(0, &["room 7", "room 8", "room 299"]).await;
    let mut b = cluster.socket(1, &["room 299"]).await;
    let mut c = cluster.socket(2, &["room"]).await;
    for node in 0..3 {
        cluster.emit(node, &Selector::rooms(rooms.iter().map(String::as_str)), "many");
    }
    let names = cluster.names(&mut [&mut a, &mut b, &mut c]).await;
    assert_eq!(names, [vec!["many"; 3], vec!["many"; 3], vec![]]);
}

/// Members of excepted rooms get nothing, with all and with rooms.
pub async fn members_of_excepted_rooms_are_left_out(cluster: &TestCluster) {
    let mut a = cluster.socket(0, &["a"]).await;
    let mut b = cluster.socket(1, &["a", "muted"]).await;
    let mut c = cluster.socket(2, &["quiet"]).await;
    cluster.emit(0, &except(Selector::rooms(["a"]), ["muted", "nowhere"]), "room");
    cluster.emit(1, &except(Selector::all(), ["muted", "quiet"]), "all");
    let names = cluster.names(&mut [&mut a, &mut b, &mut c]).await;
    assert_eq!(names, [vec!["room", "all"], vec![], vec![]]);
}

/// A socket can be excepted by its id, from any node.
pub async fn excepted_sockets_are_left_out(cluster: &TestCluster) {
    let (mut a, mut b, mut c) =
        (cluster.socket(0, &["a"]).await, cluster.socket(1, &["a"]).await, cluster.socket(2, &["a"]).await);
    cluster.emit(0, &except(Selector::rooms(["a"]), [a.id.as_str()]), "not a");
    cluster.emit(0, &except(Selector::all(), [b.id.as_str(), c.id.as_str()]), "only a");
    let names = cluster.names(&mut [&mut a, &mut b, &mut c]).await;
    assert_eq!(names, [vec!["only a"], vec!["not a"], vec!["not a"]]);
}

/// `local` reaches sockets of the node only.
pub async fn a_local_broadcast_stays_on_its_node(cluster: &TestCluster) {
    let (mut a, mut b) = (cluster.socket(0, &["a"]).await, cluster.socket(1, &["a"]).await);
    for to in [Selector::all(), Selector::rooms(["a"])] {
        cluster.emit(0, &Selector { local: true, ..to }, "local");
    }
    let names = cluster.names(&mut [&mut a, &mut b]).await;
    let others = if cluster.len() == 1 { 2 } else { 0 };
    assert_eq!(names, [vec!["local"; 2], vec!["local"; others]]);
}

/// A volatile packet is dropped where a connection cannot be written to, and only there.
pub async fn what_is_volatile_is_dropped_when_it_cannot_be_written(cluster: &TestCluster) {
    let (mut a, mut b, mut c) =
        (cluster.socket(0, &[]).await, cluster.socket(1, &[]).await, cluster.socket(2, &[]).await);
    b.mailbox.set_writable(false);
    for node in 0..3 {
        let packet = EncodedPacket::event("/", None, "volatile", &Args::none());
        let outgoing = Outgoing { volatile: true, compress: false, ..Outgoing::now(packet) };
        cluster.adapter(node, "/").broadcast(&Selector::all(), &Arc::new(outgoing)).unwrap();
    }
    cluster.emit(0, &Selector::all(), "kept");
    let names = cluster.names(&mut [&mut a, &mut b, &mut c]).await;
    let count = |at: usize, name: &str| names[at].iter().filter(|received| *received == name).count();
    assert_eq!([0, 1, 2].map(|at| count(at, "kept")), [1; 3]);
    assert_eq!([0, 1, 2].map(|at| count(at, "volatile")), [3, 0, 3]);
}

/// The room of a socket's id reaches that socket from every node, and nobody else.
pub async fn an_emit_to_the_id_of_a_socket_reaches_it(cluster: &TestCluster) {
    let (mut a, mut b, mut c) =
        (cluster.socket(0, &[]).await, cluster.socket(1, &[]).await, cluster.socket(1, &[]).await);
    for node in 0..3 {
        cluster.emit(node, &Selector::rooms([a.id.as_str()]), "to a");
        cluster.emit(node, &Selector::rooms([b.id.as_str(), c.id.as_str(), b.id.as_str()]), "to b and c");
    }
    let names = cluster.names(&mut [&mut a, &mut b, &mut c]).await;
    assert_eq!(names, [["to a"; 3], ["to b and c"; 3], ["to b and c"; 3]]);
}

/// The room of a socket's id reaches that socket, and whoever joined a room of that name; each once.
pub async fn a_room_named_like_a_socket_reaches_the_socket_and_who_joined(cluster: &TestCluster) {
    let mut a = cluster.socket(0, &[]).await;
    let name = a.id.as_str().to_owned();
    let mut b = cluster.socket(0, &[&name]).await;
    let mut c = cluster.socket(1, &[&name]).await;
    let mut d = cluster.socket(2, &[&name, "also"]).await;
    let mut e = cluster.socket(2, &[]).await;
    for node in 0..3 {
        cluster.emit(node, &Selector::rooms([name.as_str()]), "direct");
        cluster.emit(node, &Selector::rooms(["also", &name, e.id.as_str()]), "several");
        cluster.emit(node, &except(Selector::all(), [name.as_str()]), "others");
    }
    let names = cluster.names(&mut [&mut a, &mut b, &mut c, &mut d, &mut e]).await;
    let count = |at: usize, name: &str| names[at].iter().filter(|received| *received == name).count();
    for at in 0..4 {
        assert_eq!([count(at, "direct"), count(at, "several"), count(at, "others")], [3, 3, 0], "{at}");
    }
    assert_eq!([count(4, "direct"), count(4, "several"), count(4, "others")], [0, 3, 3]);
}

/// The name of a room is any text, and stands for itself only.
pub async fn rooms_have_any_name(cluster: &TestCluster) {
    let long = "x".repeat(200);
    let names = [
        "",
        " ",
        "a b",
        "a.b",
        "a.*",
        "a.>",
        "*",
        ">",
        "#",
        "a/#",
        "+",
        "?",
        "[ab]",
        "a\\*",
        "a\tb",
        "a\r\nb",
        "\0",
        "a\0b",
        "ünïcödé",
        "房间",
        "🦀",
        "room",
        "ROOM",
        "$SYS",
        "_",
        "%2a",
        "\"",
        long.as_str(),
    ];
    let mut sockets = Vec::new();
    for (at, name) in names.iter().enumerate() {
        sockets.push(cluster.socket(at % 3, &[name]).await);
    }
    for (at, name) in names.iter().enumerate() {
        cluster.emit((at + 1) % 3, &Selector::rooms([*name]), &format!("to {at}"));
    }
    let received = cluster.names(&mut sockets.iter_mut().collect::<Vec<_>>()).await;
    for (at, received) in received.iter().enumerate() {
        assert_eq!(*received, [format!("to {at}")], "{:?}", names[at]);
    }
}

/// The same room in two namespaces is two rooms.
pub async fn namespaces_are_kept_apart(cluster: &TestCluster) {
    let namespaces = ["/", "/chat", "/chat/a", "/Chat", "/*"];
    let mut sockets = Vec::new();
    for namespace in namespaces {
        sockets.push(cluster.socket_in(1, namespace, &["a"]).await);
    }
    for namespace in namespaces {
        let packet = event(namespace, &format!("in {namespace}"), &Args::none());
        for to in [Selector::all(), Selector::rooms(["a"])] {
            cluster.adapter(0, namespace).broadcast(&to, &packet).unwrap();
        }
    }
    for (namespace, mut socket) in namespaces.iter().zip(sockets) {
        let received = cluster.received_in(namespace, &mut [&mut socket]).await.remove(0);
        assert_eq!(received.len(), 2);
        for received in received {
            assert!(matches!(&received, Received::Event { namespace: of, .. } if of == namespace));
            assert_eq!(received.name(), format!("in {namespace}"));
        }
    }
}

/// Attachments arrive as they were.
pub async fn binary_arrives_byte_for_byte(cluster: &TestCluster) {
    let all_bytes = Bytes::from((0..=255_u8).cycle().take(70_000).collect::<Vec<_>>());
    let args = args_of(&("text", &all_bytes, 7, Bytes::new()));
    let mut socket = cluster.socket(1, &["a"]).await;
    for node in 0..3 {
        cluster.adapter(node, "/").broadcast(&Selector::rooms(["a"]), &event("/", "bytes", &args)).unwrap();
        let Received::Event { args, attachments, .. } = socket.next().await else { panic!("no event") };
        assert_eq!(attachments, [all_bytes.clone(), Bytes::new()]);
        assert_eq!((&args[0], &args[2]), (&json!("text"), &json!(7)));
    }
}

/// A packet of half a megabyte arrives, text and binary.
pub async fn big_packets_arrive(cluster: &TestCluster) {
    let (text, binary) = ("ä".repeat(250_000), Bytes::from(vec![0xa5; 500_000]));
    let mut socket = cluster.socket(2, &["a"]).await;
    for node in 0..3 {
        let adapter = cluster.adapter(node, "/");
        adapter.broadcast(&Selector::rooms(["a"]), &event("/", "text", &args_of(&text))).unwrap();
        adapter.broadcast(&Selector::all(), &event("/", "binary", &args_of(&binary))).unwrap();
        assert_eq!(socket.next().await.args(), [json!(text)]);
        let Received::Event { attachments, .. } = socket.next().await else { panic!("no event") };
        assert_eq!(attachments, std::slice::from_ref(&binary));
    }
}

/// A socket that left a room, or the namespace, gets nothing more.
pub async fn a_socket_that_left_gets_nothing(cluster: &TestCluster) {
    let (mut a, b) = (cluster.socket(0, &["a", "b"]).await, cluster.socket(1, &["a"]).await);
    a.adapter.leave(a.id, "a");
    assert_eq!(b.adapter.remove(b.id).len(), 2);
    for node in 0..3 {
        cluster.emit(node, &Selector::rooms(["a", b.id.as_str()]), "left");
        cluster.emit(node, &Selector::rooms(["b"]), "stayed");
    }
    assert_eq!(cluster.names(&mut [&mut a]).await, [vec!["stayed"; 3]]);
    assert_eq!(b.mailbox.depth(), (0, 0));
}

/// A broadcast whose acceptance is waited for arrives like any.
pub async fn a_confirmed_broadcast_arrives(cluster: &TestCluster) {
    let (mut a, mut b) = (cluster.socket(0, &["a"]).await, cluster.socket(1, &["a"]).await);
    let adapter = cluster.adapter(2, "/");
    for to in [Selector::rooms(["a"]), Selector::all(), Selector::rooms(["nobody"])] {
        let confirmed = adapter.broadcast_confirmed(&to, &event("/", "confirmed", &Args::none()));
        assert_eq!(confirmed.await, Ok(()));
    }
    let local = Selector { to: Target::All, except: Vec::new(), local: true };
    assert_eq!(adapter.broadcast_confirmed(&local, &event("/", "local", &Args::none())).await, Ok(()));
    let names = cluster.names(&mut [&mut a, &mut b]).await;
    for names in names {
        assert_eq!(names.iter().filter(|name| *name == "confirmed").count(), 2);
    }
}
