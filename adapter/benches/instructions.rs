//! What rooms, fan-out and the wire between nodes cost, in instructions. Everything is on one thread, and ids are counted
//! up, not drawn, so that hashing is the same in every run.

use std::collections::VecDeque;
use std::process::ExitCode;
use std::sync::Arc;
use std::task::{Context, Waker};

use roomcast_adapter::cluster::measured;
use roomcast_adapter::{
    Adapter, Describe, Item, LocalAdapter, LocalSocket, Mailbox, MailboxLimits, NodeTag, Outgoing, Room,
    Selector, SocketId,
};
use roomcast_instructions::{Case, Measure};
use roomcast_protocol::socketio::{Args, EncodedPacket};
use serde_json::{Value, json};

fn main() -> ExitCode {
    let cases = [
        Case { name: "fan-out: an emit to a room of 10, taken", run: |m| fanout(m, 10, room(0)) },
        Case { name: "fan-out: an emit to a room of 1,000, taken", run: |m| fanout(m, 1_000, room(0)) },
        Case {
            name: "fan-out: an emit to everybody, 1,000, taken",
            run: |m| fanout(m, 1_000, Selector::all()),
        },
        Case { name: "fan-out: an emit to two rooms of 1,000, taken", run: to_two_rooms },
        Case { name: "fan-out: an emit to one socket, taken", run: to_one },
        Case { name: "mailbox: push and take of one packet", run: mailbox },
        Case { name: "mailbox: push and take of 32 packets", run: mailbox_burst },
        Case { name: "rooms: join a room of 1,000 and leave it", run: |m| join_and_leave(m, 1_000) },
        Case { name: "rooms: join a new room and leave it", run: |m| join_and_leave(m, 0) },
        Case { name: "rooms: a socket comes and goes", run: come_and_go },
        Case { name: "wire: encode an emit to a room", run: encode },
        Case { name: "wire: decode an emit to a room", run: decode },
    ];
    roomcast_instructions::main(env!("CARGO_MANIFEST_DIR"), &cases)
}

struct Nobody;

impl Describe for Nobody {
    fn handshake(&self) -> Value {
        json!({})
    }

    fn data(&self) -> Value {
        json!({})
    }
}

fn node() -> NodeTag {
    NodeTag::from_random([1, 2, 3])
}

fn id(number: usize) -> SocketId {
    let mut random = [0; 12];
    random[..8].copy_from_slice(&(number as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15).to_le_bytes());
    SocketId::new(node(), random)
}

fn room_name(number: usize) -> Room {
    format!("room:{number}").into()
}

fn room(number: usize) -> Selector {
    Selector::rooms([room_name(number)])
}

fn packet() -> Arc<Outgoing> {
    let args = Args::from_json_array(r#"["hello there",{"n":1}]"#, Vec::new()).expect("an array");
    Outgoing::new(EncodedPacket::event("/", None, "message", &args))
}

/// A namespace with sockets that are all in `room:0`, and their mailboxes.
struct House {
    adapter: LocalAdapter,
    mailboxes: Vec<Arc<Mailbox>>,
    batch: VecDeque<Item>,
}

impl House {
    fn of(sockets: usize) -> Self {
        let adapter = LocalAdapter::new(node(), "/", Arc::default());
        let mut mailboxes = Vec::new();
        for number in 0..sockets {
            mailboxes.push(enter(&adapter, number));
            join(&adapter, number, 0);
        }
        Self { adapter, mailboxes, batch: VecDeque::new() }
    }

    /// What the connections' tasks do when they are woken.
    fn take_all(&mut self) -> usize {
        let mut taken = 0;
        for mailbox in &self.mailboxes {
            taken += take(mailbox, &mut self.batch);
        }
        taken
    }

    fn emit(&mut self, selector: &Selector) -> usize {
        let done = self.adapter.broadcast(selector, &packet());
        assert!(done.is_ok());
        self.take_all()
    }
}

fn enter(adapter: &LocalAdapter, number: usize) -> Arc<Mailbox> {
    let mailbox = Mailbox::new(MailboxLimits::default());
    adapter.add(LocalSocket { id: id(number), mailbox: Arc::clone(&mailbox), describe: Arc::new(Nobody) });
    mailbox
}

fn join(adapter: &LocalAdapter, number: usize, room: usize) {
    // The memory adapter joins at once; the future only says so.
    drop(adapter.join(id(number), &[room_name(room)]));
}

/// Takes what waits, until the task would sleep.
fn take(mailbox: &Mailbox, batch: &mut VecDeque<Item>) -> usize {
    let mut cx = Context::from_waker(Waker::noop());
    let mut taken = 0;
    while mailbox.poll_take(&mut cx, batch).is_ready() {
        taken += batch.len();
        batch.clear();
    }
    taken
}

fn fanout(measure: &mut Measure, sockets: usize, selector: Selector) {
    let mut house = House::of(sockets);
    measure.each(10, move || assert_eq!(house.emit(&selector), sockets));
}

fn to_two_rooms(measure: &mut Measure) {
    let mut house = House::of(1_000);
    (0..1_000).for_each(|number| join(&house.adapter, number, 1));
    let selector = Selector::rooms([room_name(0), room_name(1)]);
    measure.each(10, || assert_eq!(house.emit(&selector), 1_000));
}

fn to_one(measure: &mut Measure) {
    let mut house = House::of(1_000);
    house.mailboxes.truncate(1);
    let selector = Selector::local_socket(id(0));
    measure.each(100, || assert_eq!(house.emit(&selector), 1));
}

fn mailbox(measure: &mut Measure) {
    let mut house = House::of(1);
    let packet = packet();
    measure.each(100, || {
        let _ = house.mailboxes[0].push(&packet);
        house.take_all()
    });
}

fn mailbox_burst(measure: &mut Measure) {
    let mut house = House::of(1);
    let packet = packet();
    measure.each(100, || {
        for _ in 0..32 {
            let _ = house.mailboxes[0].push(&packet);
        }
        house.take_all()
    });
}

fn join_and_leave(measure: &mut Measure, members: usize) {
    let house = House::of(members);
    let newcomer = members;
    let _mailbox = enter(&house.adapter, newcomer);
    let room = room_name(0);
    measure.each(100, || {
        join(&house.adapter, newcomer, 0);
        house.adapter.leave(id(newcomer), &room);
    });
}

fn come_and_go(measure: &mut Measure) {
    let house = House::of(1_000);
    measure.each(100, || {
        let mailbox = enter(&house.adapter, 1_000);
        assert_eq!(house.adapter.remove(id(1_000)).len(), 1);
        mailbox
    });
}

fn encode(measure: &mut Measure) {
    let (selector, packet) = (room(0), packet());
    measure.each(100, || measured::encode_broadcast(node(), "/", &selector, packet.packet.frames()));
}

fn decode(measure: &mut Measure) {
    let bytes = measured::encode_broadcast(node(), "/", &room(0), packet().packet.frames());
    measure.each(100, || assert!(measured::decode_broadcast(bytes.clone())));
}
