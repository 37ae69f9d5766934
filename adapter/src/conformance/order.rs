//! In which order what was emitted arrives, and from when on.

use std::collections::HashMap;

use roomcast_protocol::socketio::Args;

use super::cluster::{TestCluster, args_of, event};
use super::socket::TestSocket;
use crate::selector::{Room, Selector};

/// Thousands of emits of two nodes at the same time, number by number to the selectors that `to` gives, arrive on every
/// node, each node's in its order.
async fn arrive_in_order(cluster: &TestCluster, to: fn(u64) -> Selector) {
    const EMITS: u64 = 3_000;
    let mut sockets = Vec::new();
    for node in 0..3 {
        sockets.push(cluster.socket(node, &["a", "b"]).await);
    }
    let emitters: Vec<_> = (0..2_u64)
        .map(|emitter| {
            let adapter = cluster.adapter(usize::from(emitter == 1), "/");
            tokio::spawn(async move {
                for number in 0..EMITS {
                    let packet = event("/", "number", &args_of(&(emitter, number)));
                    assert_eq!(adapter.broadcast(&to(number), &packet), Ok(()));
                    if number % 64 == 0 {
                        tokio::task::yield_now().await;
                    }
                }
            })
        })
        .collect();
    for emitter in emitters {
        emitter.await.expect("the emitter did not panic");
    }
    for socket in &mut sockets {
        let mut next: HashMap<u64, u64> = HashMap::new();
        for received in cluster.received_in("/", &mut [&mut *socket]).await.remove(0) {
            let [emitter, number] = [0, 1].map(|at| received.args()[at].as_u64().expect("a number"));
            let expected = next.entry(emitter).or_default();
            assert_eq!(number, *expected, "of emitter {emitter}");
            *expected += 1;
        }
        assert_eq!(next, HashMap::from([(0, EMITS), (1, EMITS)]));
    }
}

/// What a node emits to a room arrives in its order.
pub async fn emits_of_a_node_to_a_room_arrive_in_order(cluster: &TestCluster) {
    arrive_in_order(cluster, |_| Selector::rooms(["a"])).await;
}

/// Emits to several rooms, one each in turn, arrive in the order of each room, also for those who are in all of them.
pub async fn emits_of_a_node_to_rooms_in_turn_arrive_in_the_order_of_each(cluster: &TestCluster) {
    const ROOMS: u64 = 7;
    const EMITS: u64 = 2_100;
    let names: Vec<String> = (0..ROOMS).map(|room| format!("turn {room}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let mut sockets = [
        cluster.socket(1, &names).await,
        cluster.socket(2, &names).await,
        cluster.socket(2, &names[..1]).await,
    ];
    for number in 0..EMITS {
        let room = names[usize::try_from(number % ROOMS).expect("small")];
        let packet = event("/", room, &args_of(&(number,)));
        assert_eq!(cluster.adapter(0, "/").broadcast(&Selector::rooms([room]), &packet), Ok(()));
        if number % 64 == 0 {
            tokio::task::yield_now().await;
        }
    }
    let mut sockets: Vec<&mut TestSocket> = sockets.iter_mut().collect();
    let all = cluster.received_in("/", &mut sockets).await;
    for (received, rooms) in all.into_iter().zip([&names[..], &names[..], &names[..1]]) {
        let mut numbers: HashMap<String, Vec<u64>> = HashMap::new();
        for one in received {
            numbers.entry(one.name()).or_default().push(one.args()[0].as_u64().expect("a number"));
        }
        let expected = (0_u64..).zip(rooms).map(|(first, room)| {
            (room.to_string(), (first..EMITS).step_by(usize::try_from(ROOMS).expect("small")).collect())
        });
        assert_eq!(numbers, expected.collect::<HashMap<_, Vec<_>>>());
    }
}

/// The order holds for a room too when some of the emits go to other rooms with it, or to all.
pub async fn emits_of_a_node_to_several_rooms_and_all_arrive_in_order(cluster: &TestCluster) {
    arrive_in_order(cluster, |number| match number % 3 {
        0 => Selector::rooms(["b", "a"]),
        1 => Selector::rooms(["a"]),
        _ => Selector::all(),
    })
    .await;
}

async fn exactly_one(cluster: &TestCluster, socket: &mut TestSocket, name: &str) {
    assert_eq!(cluster.names(&mut [socket]).await, [[name]]);
}

/// Once a join is confirmed, what any node emits at once arrives, once.
pub async fn what_is_emitted_after_a_confirmed_join_arrives(cluster: &TestCluster) {
    let mut socket = cluster.socket(0, &[]).await;
    for round in 0..100 {
        let room = Room::from(format!("round {round}"));
        assert_eq!(socket.adapter.join(socket.id, std::slice::from_ref(&room)).await, Ok(true));
        cluster.emit(1 + round % 2, &Selector::rooms([&*room]), &room);
        exactly_one(cluster, &mut socket, &room).await;
        // Left and joined again: the subscription lingers, or is begun anew.
        socket.adapter.leave(socket.id, &room);
        assert_eq!(socket.adapter.join(socket.id, std::slice::from_ref(&room)).await, Ok(true));
        cluster.emit(2, &Selector::rooms([&*room]), &room);
        exactly_one(cluster, &mut socket, &room).await;
        if round % 2 == 0 {
            socket.adapter.leave(socket.id, &room);
        }
    }
    assert_eq!(socket.adapter.join("AAAAAAAAAAAAAAAAAAAA".parse().unwrap(), &[]).await, Ok(false));
}

/// Once `sockets_join` is done, what any node emits at once arrives, once.
pub async fn what_is_emitted_after_sockets_join_arrives(cluster: &TestCluster) {
    let mut socket = cluster.socket(0, &["all"]).await;
    for round in 0..100 {
        let room = Room::from(format!("round {round}"));
        let adapter = cluster.adapter(1 + round % 2, "/");
        let joined = adapter.sockets_join(&Selector::rooms(["all"]), std::slice::from_ref(&room)).await;
        assert_eq!(joined.map(|joined| joined.missing), Ok(vec![]));
        adapter.broadcast(&Selector::rooms([&*room]), &event("/", &room, &Args::none())).unwrap();
        cluster.emit(2 - round % 2, &Selector::rooms([&*room]), &room);
        assert_eq!(cluster.names(&mut [&mut socket]).await, [[&*room; 2]]);
    }
}
