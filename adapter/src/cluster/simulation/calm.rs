//! A simulated cluster in which nothing breaks, for whoever wants to know what its broker carries.
//!
//! Owns the turns, like `world`, without a script, faults or a model beside it. The same seed and the same calls give the
//! same traffic.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::FutureExt;
use roomcast_protocol::socketio::{AckId, Args, EncodedPacket};

use super::machine::{Machine, NAMESPACE, Nobody, Outcome, Serving, all_acks};
use super::mark;
use super::network::{HOP, Inbound, Network, WINDOW};
use super::random::Random;
use super::traffic::Traffic;
use super::{Ms, Profile};
use crate::adapter::{AdapterFactory, LocalSocket};
use crate::cluster::{Backlog, ClusterConfig};
use crate::id::SocketId;
use crate::mailbox::{Item, Mailbox, MailboxLimits, Outgoing};
use crate::reach::{Reach, ReachKey};
use crate::selector::{Room, Selector};

/// How long nodes may take to enter their cluster.
const ENTRY: Ms = 10_000;
/// The name of every event: `mark` knows its packets again.
const EVENT: &str = "@1;";

/// Real nodes over a simulated broker that counts.
pub struct Calm {
    now: Ms,
    machines: Vec<Machine>,
    network: Network,
    random: Random,
    sockets: BTreeMap<SocketId, (usize, Arc<Mailbox>)>,
    /// Acks that sockets of each node owe. One is given in a turn, so that none travels together with another.
    owed: Vec<Vec<(SocketId, u32)>>,
}

impl Calm {
    /// Starts nodes and waits until all have entered their cluster. They may not have heard everything of each other yet.
    ///
    /// # Panics
    ///
    /// If a node does not enter, which is a failure of the code that is simulated.
    pub fn start(seed: u64, nodes: usize, config: &ClusterConfig) -> Self {
        let mut random = Random::new(seed);
        let mut network = Network::new(random.fork(), Profile::calm(nodes, config.clone()));
        network.traffic = Some(Box::default());
        let machines = (0..nodes).map(|_| Machine::start(0, network.add_client(), config.clone())).collect();
        let owed = vec![Vec::new(); nodes];
        let mut calm = Self { now: 0, machines, network, random, sockets: BTreeMap::new(), owed };
        while calm.machines.iter().any(|machine| machine.serving.is_none()) {
            assert!(calm.now < ENTRY, "a node did not enter its cluster");
            calm.turn();
        }
        for node in 0..nodes {
            let address = ([10, 0, 0, 1], 3_002).into();
            let reach = Reach { address, key: ReachKey::new([0; ReachKey::LEN]) };
            let (machine, serving) = calm.node(node);
            machine.within(|| tokio::spawn(serving.factory.announce_reach(reach)));
        }
        calm
    }

    /// A number below `end`.
    pub fn below(&mut self, end: usize) -> usize {
        self.random.below(end)
    }

    /// How the ids of a node's sockets begin.
    pub fn tag(&self, node: usize) -> String {
        self.machines[node].tag.to_string()
    }

    /// A socket comes to a node and joins rooms.
    pub fn connect(&mut self, node: usize, rooms: &[Room]) -> SocketId {
        let mut random = [0; 12];
        random[..8].copy_from_slice(&self.random.next().to_be_bytes());
        let mailbox = Mailbox::new(MailboxLimits::default());
        let (machine, serving) = self.node(node);
        let id = SocketId::new(machine.tag, random);
        let socket = LocalSocket { id, mailbox: Arc::clone(&mailbox), describe: Arc::new(Nobody) };
        // The membership counts at once; whoever emits lets time pass before.
        machine.within(|| {
            serving.adapter.add(socket);
            drop(serving.adapter.join(id, rooms));
        });
        self.sockets.insert(id, (node, mailbox));
        id
    }

    /// A socket goes.
    pub fn disconnect(&mut self, id: SocketId) {
        if let Some((node, _)) = self.sockets.remove(&id) {
            let (machine, serving) = self.node(node);
            machine.within(|| serving.adapter.remove(id));
        }
    }

    /// A node emits.
    pub fn emit(&mut self, node: usize, selector: &Selector) {
        let packet = EncodedPacket::event(NAMESPACE, None, EVENT, &Args::none());
        let (machine, serving) = self.node(node);
        // What is refused is missing in the counts.
        let _ = machine.within(|| serving.adapter.broadcast(selector, &Outgoing::new(packet)));
    }

    /// A node emits and wants to know who got it. Sockets answer one after the other.
    pub fn ask(&mut self, node: usize, selector: &Selector) {
        let (machine, serving) = self.node(node);
        let patience = Duration::from_secs(30);
        let acks = machine
            .within(|| serving.adapter.broadcast_with_ack(selector, EVENT, &Args::none(), patience, None));
        machine.wait(1, all_acks(acks).boxed());
    }

    /// A node asks all others how many of their sockets are meant.
    pub fn count(&mut self, node: usize, selector: &Selector) {
        let (machine, serving) = self.node(node);
        let count = machine.within(|| serving.adapter.count_sockets(selector));
        machine.wait(1, count.map(Outcome::Count).boxed());
    }

    /// Lets time pass, in turns of 40 virtual milliseconds.
    pub fn run(&mut self, time: Duration) {
        let until = self.now + time.as_millis() as Ms;
        while self.now < until {
            self.turn();
        }
    }

    /// What the broker carried since the last call.
    pub fn take_traffic(&mut self) -> Traffic {
        self.network.traffic.replace(Box::default()).map_or_else(Traffic::default, |traffic| *traffic)
    }

    fn node(&self, node: usize) -> (&Machine, Serving) {
        let machine = &self.machines[node];
        (machine, machine.serving.clone().expect("all nodes have entered when `start` returns"))
    }

    fn turn(&mut self) {
        let until = self.now + WINDOW;
        for (node, machine) in self.machines.iter_mut().enumerate() {
            let inbox = self.network.take_inbox(node, until);
            machine.run(inbox, until, false, |machine, _, inbound| take(machine, inbound));
            assert!(machine.look(), "a node could not enter its cluster");
            machine.take_ended();
            for call in machine.bus.take_calls() {
                self.network.submit(node, call);
            }
        }
        self.network.advance(until + HOP);
        self.network.take_notices();
        self.now = until;
        self.read_mail();
        self.answer();
    }

    fn read_mail(&mut self) {
        for (id, (node, mailbox)) in &self.sockets {
            for item in mailbox.drain() {
                let Item::Packet(outgoing) = item else { continue };
                if let Some((_, Some(ack))) = mark::of_packet(&outgoing.packet) {
                    self.owed[*node].push((*id, ack));
                }
            }
        }
    }

    fn answer(&mut self) {
        for node in 0..self.machines.len() {
            let Some((id, ack)) = self.owed[node].pop() else { continue };
            let (machine, serving) = self.node(node);
            machine.within(|| serving.adapter.ack(id, AckId::from(ack), Args::none()));
        }
    }
}

fn take(machine: &Machine, inbound: Inbound) {
    match inbound {
        Inbound::Message { subject, payload, .. } => {
            if let Some(sink) = machine.bus.sink() {
                sink.message(&subject, payload, Backlog::default());
            }
        }
        Inbound::Up { session } => machine.bus.set_session(Some(session)),
        Inbound::Down => machine.bus.set_session(None),
        // The node may have given up.
        Inbound::Reply { reply, .. } => drop(reply.send(Ok(()))),
    }
}
