//! What is asked of, and done to, the sockets of the cluster; and what its servers say to each other.

use std::time::Duration;

use serde_json::json;

use super::cluster::{TestCluster, args_of};
use super::socket::{PATIENCE, Received};
use crate::adapter::RemoteSocket;
use crate::reach::{Reach, ReachKey};
use crate::selector::{Room, Selector};

fn rooms<const N: usize>(names: [&str; N]) -> Vec<Room> {
    names.into_iter().map(Room::from).collect()
}

fn sorted(mut sockets: Vec<RemoteSocket>) -> Vec<RemoteSocket> {
    sockets.sort_by_key(|socket| socket.id);
    sockets
}

/// Fetched sockets carry their handshake, rooms and data, from whatever node.
pub async fn sockets_are_fetched_with_what_they_say(cluster: &TestCluster) {
    let (a, b, c) = (
        cluster.socket(0, &["x", "a b"]).await,
        cluster.socket(1, &["x"]).await,
        cluster.socket(2, &["y"]).await,
    );
    let card = |id: crate::id::SocketId, names: &[&str]| RemoteSocket {
        id,
        handshake: json!({ "auth": { "of": id }, "headers": {} }),
        rooms: std::iter::once(id.as_str()).chain(names.iter().copied()).map(Room::from).collect(),
        data: json!({ "name": format!("socket {id}") }),
    };
    let (a, b, c) = (card(a.id, &["x", "a b"]), card(b.id, &["x"]), card(c.id, &["y"]));
    for node in 0..3 {
        let adapter = cluster.adapter(node, "/");
        let all = adapter.fetch_sockets(&Selector::all()).await;
        assert_eq!(all.missing, []);
        assert_eq!(sorted(all.value), sorted(vec![a.clone(), b.clone(), c.clone()]));
        let some = adapter.fetch_sockets(&Selector::rooms(["x", c.id.as_str()])).await;
        assert_eq!(some.value.len(), 3);
        let except = Selector { except: rooms(["y"]), ..Selector::rooms(["x"]) };
        assert_eq!(sorted(adapter.fetch_sockets(&except).await.value), sorted(vec![a.clone(), b.clone()]));
        let local = Selector { local: true, ..Selector::all() };
        let expected = if cluster.len() == 1 { 3 } else { 1 };
        assert_eq!(adapter.fetch_sockets(&local).await.value.len(), expected);
    }
}

/// Sockets are counted once, in all rooms and in none.
pub async fn sockets_are_counted(cluster: &TestCluster) {
    let mut sockets = Vec::new();
    for number in 0..9 {
        sockets.push(cluster.socket(number % 3, if number % 2 == 0 { &["even", "x"] } else { &["x"] }).await);
    }
    for node in 0..3 {
        let adapter = cluster.adapter(node, "/");
        for (to, expected) in [
            (Selector::all(), 9),
            (Selector::rooms(["even"]), 5),
            (Selector::rooms(["even", "x"]), 9),
            (Selector::rooms(["nowhere"]), 0),
            (Selector { except: rooms(["even"]), ..Selector::all() }, 4),
        ] {
            let count = adapter.count_sockets(&to).await;
            assert_eq!((count.value, count.missing), (expected, vec![]));
        }
        assert_eq!(adapter.local_count(), 9 / cluster.len());
    }
}

/// The count of a room is known by every node, without asking all, some time after it changed.
pub async fn rooms_are_counted(cluster: &TestCluster) {
    let mut sockets = Vec::new();
    for number in 0..9 {
        sockets.push(cluster.socket(number % 3, if number % 2 == 0 { &["even", "x"] } else { &["x"] }).await);
    }
    let own = sockets[4].id;
    for (room, expected) in [("even", 5), ("x", 9), ("nowhere", 0), (own.as_str(), 1)] {
        for node in 0..3 {
            cluster.wait_for_count(node, room, expected).await;
        }
    }
    sockets[0].adapter.leave(sockets[0].id, "x");
    sockets[1].adapter.remove(sockets[1].id);
    assert_eq!(sockets[2].adapter.join(sockets[2].id, &[own.as_str().into()]).await, Ok(true));
    for (room, expected) in [("x", 7), (own.as_str(), 2), (sockets[1].id.as_str(), 0)] {
        for node in 0..3 {
            cluster.wait_for_count(node, room, expected).await;
        }
    }
}

/// The sockets of a room come in pages, each once.
pub async fn sockets_of_a_room_come_in_pages(cluster: &TestCluster) {
    let mut expected = Vec::new();
    for number in 0..10 {
        expected.push(cluster.socket(number, &["x", "y"]).await.id);
        cluster.socket(number, &["y"]).await;
    }
    expected.sort_unstable();
    for node in 0..3 {
        let (mut seen, mut after) = (Vec::new(), None);
        while seen.len() < expected.len() {
            let page = cluster.adapter(node, "/").room_sockets("x", after, 4).await;
            assert!(page.missing.is_empty() && (1..=4).contains(&page.value.len()));
            assert!(page.value.iter().all(|socket| socket.rooms.len() == 3));
            seen.extend(page.value.into_iter().map(|socket| socket.id));
            after = seen.last().copied();
        }
        assert_eq!(seen, expected);
        assert!(cluster.adapter(node, "/").room_sockets("x", after, 4).await.value.is_empty());
    }
}

/// Sockets join and leave rooms by selector, wherever they are.
pub async fn sockets_join_and_leave_by_selector(cluster: &TestCluster) {
    let (mut a, mut b, mut c) =
        (cluster.socket(0, &["x"]).await, cluster.socket(1, &["x"]).await, cluster.socket(2, &[]).await);
    let adapter = cluster.adapter(0, "/");
    let joined = adapter.sockets_join(&Selector::rooms(["x"]), &rooms(["new", "other"])).await;
    assert_eq!(joined.map(|joined| joined.missing), Ok(vec![]));
    cluster.emit(2, &Selector::rooms(["new"]), "joined");
    // What nodes do has an order only with what the same node does.
    let names = cluster.names(&mut [&mut a, &mut b, &mut c]).await;
    assert_eq!(names, [vec!["joined"], vec!["joined"], vec![]]);
    let left = cluster
        .adapter(1, "/")
        .sockets_leave(&Selector::rooms([a.id.as_str(), c.id.as_str()]), &rooms(["new"]))
        .await;
    assert_eq!(left.map(|left| left.missing), Ok(vec![]));
    cluster.emit(2, &Selector::rooms(["new"]), "left");
    cluster.emit(2, &Selector::rooms(["other"]), "other");
    let mut names = cluster.names(&mut [&mut a, &mut b, &mut c]).await;
    // Of different rooms, which not every bus keeps in order.
    names[1].sort();
    assert_eq!(names, [vec!["other"], vec!["left", "other"], vec![]]);
}

/// Rooms are listed with their sockets, in the order of their names, by pages. Those that are empty are not.
pub async fn rooms_are_listed_by_pages(cluster: &TestCluster) {
    let mut sockets = Vec::new();
    for at in 0..24 {
        let name = format!("r{:02}", at / 2);
        sockets.push(cluster.socket(at % cluster.len(), &[name.as_str(), "all", "ä, \u{1f642}"]).await);
    }
    let _elsewhere = cluster.socket_in(0, "/other", &["elsewhere"]).await;
    sockets[0].adapter.leave(sockets[0].id, "r00");
    sockets[1].adapter.remove(sockets[1].id);
    let mut expected: Vec<(Room, usize)> = (1..12).map(|at| (format!("r{at:02}").into(), 2)).collect();
    expected.insert(0, ("all".into(), 23));
    expected.push(("ä, \u{1f642}".into(), 23));
    for node in 0..cluster.len() {
        let adapter = cluster.adapter(node, "/");
        let listed = async {
            loop {
                let (mut all, mut exact, mut after) = (Vec::new(), true, None);
                loop {
                    let page = adapter.rooms(after.as_deref(), 5).await;
                    exact &= page.exact && page.missing.is_empty();
                    assert!(page.rooms.len() <= 5);
                    let Some((last, _)) = page.rooms.last() else { break };
                    after = Some(Room::clone(last));
                    all.extend(page.rooms);
                }
                if all == expected && exact {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        let listed = tokio::time::timeout(PATIENCE, listed).await;
        assert!(listed.is_ok(), "{:?}", adapter.rooms(None, 100).await);
    }
}

/// Sockets are disconnected by selector.
pub async fn sockets_are_disconnected_by_selector(cluster: &TestCluster) {
    let (mut a, mut b, mut c) =
        (cluster.socket(0, &["x"]).await, cluster.socket(1, &["x"]).await, cluster.socket(2, &["y"]).await);
    let adapter = cluster.adapter(0, "/");
    for (to, close) in [("x", false), ("y", true)] {
        let done = adapter.disconnect_sockets(&Selector::rooms([to]), close).await;
        assert_eq!(done.map(|done| done.missing), Ok(vec![]));
    }
    for socket in [&mut a, &mut b] {
        assert_eq!(socket.next().await, Received::Disconnect(false));
    }
    assert_eq!(c.next().await, Received::Disconnect(true));
}

/// What was emitted before arrives before the disconnect.
pub async fn sockets_are_disconnected_behind_what_was_emitted_before(cluster: &TestCluster) {
    let (mut a, mut b) = (cluster.socket(0, &["x"]).await, cluster.socket(1, &["x"]).await);
    cluster.emit(0, &Selector::rooms(["x"]), "last");
    let done = cluster.adapter(0, "/").disconnect_sockets(&Selector::rooms(["x"]), false).await;
    assert_eq!(done.map(|done| done.missing), Ok(vec![]));
    for socket in [&mut a, &mut b] {
        assert_eq!(socket.next().await.name(), "last");
        assert_eq!(socket.next().await, Received::Disconnect(false));
    }
}

/// A server-side emit reaches the other servers and not the one that emits.
pub async fn servers_hear_each_other(cluster: &TestCluster) {
    let nodes = cluster.listen("/").await;
    for (at, (adapter, _)) in nodes.iter().enumerate() {
        assert_eq!(adapter.server_side_emit("hello", &args_of(&(at, "x"))), Ok(()));
    }
    for (at, (_, events)) in nodes.iter().enumerate() {
        let mut heard: Vec<_> = events.wait(nodes.len() - 1).await;
        heard.sort_by_key(|(_, args)| args.get::<usize>(0).unwrap());
        let others = (0..nodes.len()).filter(|other| *other != at);
        let expected: Vec<_> = others.map(|other| ("hello".to_owned(), args_of(&(other, "x")))).collect();
        assert_eq!(heard, expected);
    }
}

/// A server-side emit with an ack collects one answer of each other server, and names who was silent.
pub async fn servers_answer_each_other(cluster: &TestCluster) {
    let nodes = cluster.listen("/").await;
    let tags: Vec<_> = (0..nodes.len()).map(|node| cluster.factory(node).node()).collect();
    for (at, (adapter, _)) in nodes.iter().enumerate() {
        let mut others: Vec<_> = tags.iter().copied().filter(|tag| *tag != tags[at]).collect();
        others.sort_unstable();
        let answers = adapter.server_side_emit_with_ack("ask", &args_of("x"), PATIENCE).await;
        let mut from: Vec<String> = answers.value.iter().map(|args| args.get(0).unwrap()).collect();
        from.sort_unstable();
        assert_eq!(from, others.iter().map(ToString::to_string).collect::<Vec<_>>());
        assert_eq!(answers.missing, []);
        let silent =
            adapter.server_side_emit_with_ack("silent", &args_of("x"), Duration::from_millis(100)).await;
        assert_eq!((silent.value, silent.missing), (vec![], others));
    }
}

/// A socket knows its rooms, in the order of joining, its own first.
pub async fn rooms_of_a_socket(cluster: &TestCluster) {
    let a = cluster.socket(0, &["z", "a", "z"]).await;
    let own = a.id.as_str();
    assert_eq!(a.adapter.rooms_of(a.id), rooms([own, "z", "a"]));
    assert!(a.adapter.is_member(a.id, own) && a.adapter.is_member(a.id, "z"));
    assert!(!a.adapter.is_member(a.id, "b"));
    a.adapter.leave(a.id, "z");
    a.adapter.leave(a.id, "never joined");
    assert_eq!(a.adapter.rooms_of(a.id), rooms([own, "a"]));
    assert_eq!(a.adapter.remove(a.id), rooms([own, "a"]));
    assert!(a.adapter.rooms_of(a.id).is_empty() && a.adapter.remove(a.id).is_empty());
    assert!(!a.adapter.is_member(a.id, own));
}

/// A node that said goodbye is no member, and nobody waits for its answers.
pub async fn a_node_that_left_is_not_waited_for(cluster: &TestCluster) {
    if cluster.len() == 1 {
        return;
    }
    let (a, _c) = (cluster.socket(0, &["x"]).await, cluster.socket(2, &["x"]).await);
    assert_eq!(a.adapter.count_sockets(&Selector::all()).await.value, 2);
    cluster.factory(2).shutdown().await;
    for node in 0..2 {
        cluster.wait_for_nodes(node, 2).await;
        let count = cluster.adapter(node, "/").count_sockets(&Selector::rooms(["x"])).await;
        assert_eq!((count.value, count.missing), (1, vec![]));
    }
}

/// Who has said where it is reached knows all who have, and nobody itself.
pub async fn nodes_tell_each_other_where_they_are_reached(cluster: &TestCluster) {
    let reach = |node: usize| {
        let number = u8::try_from(node).expect("few nodes");
        Reach { address: ([127, 0, 0, 1], 1 + u16::from(number)).into(), key: ReachKey::new([number; 32]) }
    };
    for node in 0..cluster.len() {
        cluster.factory(node).announce_reach(reach(node)).await;
    }
    let of = |here: usize, there: usize| cluster.factory(here).reach_of(cluster.factory(there).node());
    for (here, there) in
        (0..cluster.len()).flat_map(|here| (0..cluster.len()).map(move |there| (here, there)))
    {
        let known = async {
            while here != there && of(here, there).is_none() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(PATIENCE, known).await.expect("a node did not say where it is reached");
        assert_eq!(of(here, there), (here != there).then(|| reach(there)));
    }
    if cluster.len() > 1 {
        let left = cluster.factory(1).node();
        cluster.factory(1).shutdown().await;
        cluster.wait_for_nodes(0, cluster.len() - 1).await;
        assert_eq!(cluster.factory(0).reach_of(left), None);
    }
}
