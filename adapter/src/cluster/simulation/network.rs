//! The simulated broker and the ways to it.
//!
//! Owns connections, subscriptions, and everything that is under way, by the moment when it arrives. Each way is first
//! in, first out within a shard; a broker of several shards lets subjects overtake each other. What is lost is lost with
//! a connection, which its node learns later, or is told to the model as an untold loss.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;

use super::bus::{Ask, Call, Reply};
use super::mark::{self, Number};
use super::random::Random;
use super::traffic::Traffic;
use super::{Ms, Profile};
use crate::cluster::message::Message;
use crate::cluster::{Publication, Subject, wire};

/// The shortest way between a node and the broker.
pub(super) const HOP: Ms = 20;
/// Nodes may run this long without hearing of each other: nothing gets from one to another in less.
pub(super) const WINDOW: Ms = 2 * HOP;
/// Shards of a broker, at most; subscriptions go another way than publications.
const SHARDS: usize = 4;
const CONTROL: usize = SHARDS;

/// What a node gets.
pub(super) enum Inbound {
    /// A `copy` comes behind what it is a copy of.
    Message {
        subject: Subject,
        payload: Bytes,
        session: u32,
        copy: bool,
    },
    Up {
        session: u32,
    },
    Down,
    Reply {
        reply: Reply,
        session: u32,
    },
}

/// What the model has to know of the ways.
#[derive(Debug, Clone, Copy)]
pub(super) enum Notice {
    /// The broker has taken a publication of this operation.
    Taken(Number),
    /// A publication of this operation got lost on its way to the broker.
    Lost(Number),
    /// A copy of this operation got lost on its way to a node.
    LostAt(Number, usize),
    /// A message without a number got lost on its way to a node.
    Starved(usize),
    /// A node was cut off.
    Cut(usize),
}

enum Arrival {
    Connect {
        reply: Reply,
    },
    Reconnect,
    Publication(Publication),
    Subscribe(Vec<Subject>),
    Unsubscribe(Vec<Subject>),
    /// All parts of a call have arrived.
    Done {
        reply: Reply,
    },
    Close,
}

struct Way {
    node: usize,
    session: u32,
    arrival: Arrival,
}

#[derive(Default)]
struct Client {
    session: u32,
    connected: bool,
    gone: bool,
    subjects: BTreeSet<Subject>,
    /// When the last thing arrives on each way, up and down.
    up: [Ms; SHARDS + 1],
    down: [Ms; SHARDS + 1],
    /// Nothing passes until then.
    stalled_until: Ms,
    inbox: BTreeMap<(Ms, u64), Inbound>,
    /// Calls that will have no answer; the node learns it when it learns that it was cut off.
    orphans: Vec<Reply>,
    /// The node does not know yet that this session is over.
    lingering: Option<u32>,
}

pub(super) struct Network {
    random: Random,
    profile: Profile,
    clients: Vec<Client>,
    queue: BTreeMap<(Ms, u64), Way>,
    next: u64,
    /// Nothing that was due before this is still to come.
    now: Ms,
    pub(super) quiet: bool,
    notices: Vec<Notice>,
    /// What is carried, where somebody counts it.
    pub(super) traffic: Option<Box<Traffic>>,
}

impl Network {
    pub(super) fn new(random: Random, profile: Profile) -> Self {
        Self {
            random,
            profile,
            clients: Vec::new(),
            queue: BTreeMap::new(),
            next: 0,
            now: 0,
            quiet: false,
            notices: Vec::new(),
            traffic: None,
        }
    }

    /// A node that may connect. The answer is its number.
    pub(super) fn add_client(&mut self) -> usize {
        self.clients.push(Client::default());
        self.clients.len() - 1
    }

    /// The session in which a node is connected now.
    pub(super) fn session(&self, node: usize) -> Option<u32> {
        self.clients.get(node).filter(|client| client.connected).map(|client| client.session)
    }

    pub(super) fn subscriptions(&self, node: usize) -> usize {
        self.clients.get(node).map_or(0, |client| client.subjects.len())
    }

    pub(super) fn take_notices(&mut self) -> Vec<Notice> {
        std::mem::take(&mut self.notices)
    }

    fn seq(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    fn latency(&mut self) -> Ms {
        let jitter = match self.random.chance(self.profile.slow_permille) && !self.quiet {
            true => self.random.between(0, 400),
            false => self.random.between(0, 20),
        };
        HOP + jitter
    }

    fn shard(&self, subject: &str) -> usize {
        let hash = subject.bytes().fold(7_u64, |hash, byte| hash.wrapping_mul(31).wrapping_add(byte.into()));
        (hash % self.profile.shards as u64) as usize
    }

    /// When something that leaves a node at `at` on one of its ways reaches the broker.
    fn up(&mut self, node: usize, way: usize, at: Ms) -> Ms {
        let latency = self.latency();
        let client = &mut self.clients[node];
        let arrives = (at + latency).max(client.up[way]).max(client.stalled_until).max(self.now);
        client.up[way] = arrives;
        arrives
    }

    fn down(&mut self, node: usize, way: usize, at: Ms) -> Ms {
        let latency = self.latency();
        let client = &mut self.clients[node];
        let arrives = (at + latency).max(client.down[way]).max(client.stalled_until);
        client.down[way] = arrives;
        arrives
    }

    fn queue(&mut self, at: Ms, node: usize, session: u32, arrival: Arrival) {
        let key = (at, self.seq());
        self.queue.insert(key, Way { node, session, arrival });
    }

    fn deliver(&mut self, at: Ms, node: usize, inbound: Inbound) {
        let key = (at, self.seq());
        if let Some(client) = self.clients.get_mut(node).filter(|client| !client.gone) {
            client.inbox.insert(key, inbound);
        }
    }

    fn lose(&mut self, payload: &[u8]) {
        self.notices.extend(mark::find(payload).map(Notice::Lost));
    }

    fn lose_at(&mut self, node: usize, payload: &[u8]) {
        self.notices.push(match mark::find(payload) {
            Some(number) => Notice::LostAt(number, node),
            None => Notice::Starved(node),
        });
    }

    /// A node's call sets out.
    pub(super) fn submit(&mut self, node: usize, call: Call) {
        let Call { at, session, ask, reply } = call;
        let parts: Vec<(usize, Arrival)> = match ask {
            Ask::Refused(batch) => return batch.iter().for_each(|refused| self.lose(&refused.payload)),
            Ask::Connect => {
                let arrives = self.up(node, CONTROL, at);
                return self.queue(arrives, node, session, Arrival::Connect { reply });
            }
            Ask::Publish(batch) => {
                batch.into_iter().map(|one| (self.shard(&one.subject), Arrival::Publication(one))).collect()
            }
            Ask::Subscribe(subjects) => self.split(subjects, Arrival::Subscribe),
            Ask::Unsubscribe(subjects) => self.split(subjects, Arrival::Unsubscribe),
            Ask::Close => vec![(CONTROL, Arrival::Close)],
        };
        if self.session(node) != Some(session) {
            for (_, arrival) in parts {
                self.lost_on_the_way(arrival);
            }
            return self.orphan(node, session, reply);
        }
        let mut last = at + HOP;
        for (way, arrival) in parts {
            let arrives = self.up(node, way, at);
            last = last.max(arrives);
            self.queue(arrives, node, session, arrival);
        }
        self.queue(last, node, session, Arrival::Done { reply });
    }

    /// One part of a call for each shard that it concerns. The parts of one call overtake each other.
    fn split(&self, subjects: Vec<Subject>, arrival: fn(Vec<Subject>) -> Arrival) -> Vec<(usize, Arrival)> {
        let mut parts: BTreeMap<usize, Vec<Subject>> = BTreeMap::new();
        for subject in subjects {
            parts.entry(self.shard(&subject)).or_default().push(subject);
        }
        parts.into_values().map(|subjects| (CONTROL, arrival(subjects))).collect()
    }

    fn lost_on_the_way(&mut self, arrival: Arrival) {
        if let Arrival::Publication(publication) = arrival {
            self.lose(&publication.payload);
        }
    }

    fn orphan(&mut self, node: usize, session: u32, reply: Reply) {
        let client = &mut self.clients[node];
        if client.lingering == Some(session) {
            client.orphans.push(reply);
        }
    }

    /// Lets everything arrive at the broker that is due before `until`.
    pub(super) fn advance(&mut self, until: Ms) {
        while let Some(entry) = self.queue.first_entry().filter(|entry| entry.key().0 < until) {
            let (at, way) = (entry.key().0, entry.remove());
            self.now = at;
            self.arrive(at, way);
        }
        self.now = until;
    }

    fn arrive(&mut self, at: Ms, way: Way) {
        let Way { node, session, arrival } = way;
        if self.clients[node].gone {
            return self.lost_on_the_way(arrival);
        }
        match arrival {
            Arrival::Connect { reply } => {
                let session = self.connect(at, node);
                let arrives = self.down(node, CONTROL, at);
                self.deliver(arrives, node, Inbound::Reply { reply, session });
            }
            Arrival::Reconnect => {
                self.connect(at, node);
            }
            arrival if self.session(node) != Some(session) => match arrival {
                Arrival::Done { reply } => self.orphan(node, session, reply),
                arrival => self.lost_on_the_way(arrival),
            },
            Arrival::Publication(publication) => self.route(at, publication),
            Arrival::Subscribe(subjects) => {
                if let Some(traffic) = &mut self.traffic {
                    traffic.subscribed += subjects.len() as u64;
                }
                self.clients[node].subjects.extend(subjects);
            }
            Arrival::Unsubscribe(subjects) => {
                if let Some(traffic) = &mut self.traffic {
                    traffic.unsubscribed += subjects.len() as u64;
                }
                self.clients[node].subjects.retain(|subject| !subjects.contains(subject));
            }
            Arrival::Done { reply } => {
                let arrives = at + self.latency();
                self.deliver(arrives, node, Inbound::Reply { reply, session });
            }
            Arrival::Close => self.remove_client(node),
        }
    }

    fn connect(&mut self, at: Ms, node: usize) -> u32 {
        let client = &mut self.clients[node];
        client.session += 1;
        client.connected = true;
        let session = client.session;
        let arrives = self.down(node, CONTROL, at);
        self.deliver(arrives, node, Inbound::Up { session });
        session
    }

    fn route(&mut self, at: Ms, publication: Publication) {
        let Publication { subject, payload } = publication;
        self.notices.extend(mark::find(&payload).map(Notice::Taken));
        let way = self.shard(&subject);
        if let Some(traffic) = &mut self.traffic {
            let clients = self.clients.iter().enumerate();
            let to = clients.filter(|(_, client)| client.connected && client.subjects.contains(&subject));
            traffic.count(&payload, &to.map(|(node, _)| node).collect::<Vec<_>>());
        }
        for node in 0..self.clients.len() {
            let client = &self.clients[node];
            if !client.connected {
                self.lose_at(node, &payload);
                continue;
            }
            if !client.subjects.contains(&subject) {
                continue;
            }
            let session = client.session;
            if !self.quiet && self.random.chance(self.profile.loss_permille) {
                self.lose_at(node, &payload);
                continue;
            }
            let arrives = self.down(node, way, at);
            let message = |copy| {
                let (subject, payload) = (subject.clone(), payload.clone());
                Inbound::Message { subject, payload, session, copy }
            };
            self.deliver(arrives, node, message(false));
            if self.random.chance(self.profile.duplicate_permille) && bears_duplication(&payload) {
                let later = arrives + self.random.between(0, 500);
                self.deliver(later, node, message(true));
            }
        }
    }

    /// Cuts a node off: what is under way is lost or not, and the node learns it later. Then it connects again.
    pub(super) fn cut(&mut self, node: usize, told_within: Ms, away_for: Ms) {
        if self.session(node).is_none() {
            return;
        }
        let at = self.now;
        let told_at = at + HOP + self.random.between(0, told_within);
        let survives = [0, 500, 1_000][self.random.below(3)];
        self.flush(node, at, survives);
        let client = &mut self.clients[node];
        let session = client.session;
        client.connected = false;
        client.subjects.clear();
        client.lingering = Some(session);
        let inbox = std::mem::take(&mut client.inbox);
        for (key, inbound) in inbox {
            let of_the_session = matches!(&inbound,
                Inbound::Message { session: of, .. } | Inbound::Reply { session: of, .. } if *of == session);
            // A copy without what it is a copy of would be late, and not a copy.
            let is_copy = matches!(&inbound, Inbound::Message { copy: true, .. });
            let comes = !is_copy && key.0 < told_at && self.random.chance(survives);
            if !of_the_session || comes {
                self.clients[node].inbox.insert(key, inbound);
                continue;
            }
            match inbound {
                Inbound::Message { payload, .. } => self.lose_at(node, &payload),
                Inbound::Reply { reply, .. } => self.clients[node].orphans.push(reply),
                Inbound::Up { .. } | Inbound::Down => {}
            }
        }
        // Never before the node has learned that it was connected.
        let client = &mut self.clients[node];
        let up_at = client.inbox.iter().rev().find(|(_, inbound)| matches!(inbound, Inbound::Up { .. }));
        let told_at = up_at.map_or(told_at, |((at, _), _)| told_at.max(*at));
        self.deliver(told_at, node, Inbound::Down);
        let back_at = told_at + HOP + self.random.between(0, away_for);
        self.queue(back_at, node, session, Arrival::Reconnect);
        self.notices.push(Notice::Cut(node));
    }

    /// What a node had sent when it was cut off: some of it gets through, the rest does not.
    fn flush(&mut self, node: usize, at: Ms, survives: u64) {
        let mine: Vec<_> =
            self.queue.iter().filter(|(_, way)| way.node == node).map(|(key, _)| *key).collect();
        let through = if survives == 500 { self.random.below(mine.len() + 1) } else { mine.len() };
        for (count, key) in mine.into_iter().enumerate() {
            let reconnects = |way: &Way| matches!(way.arrival, Arrival::Reconnect | Arrival::Connect { .. });
            if self.queue.get(&key).is_none_or(reconnects) {
                continue;
            }
            let Some(Way { arrival, session, .. }) = self.queue.remove(&key) else { continue };
            match arrival {
                Arrival::Publication(publication) if survives > 0 && count < through => {
                    self.route(at, publication);
                }
                Arrival::Done { reply } => {
                    self.clients[node].lingering = Some(session);
                    self.orphan(node, session, reply);
                }
                arrival => self.lost_on_the_way(arrival),
            }
        }
    }

    /// Holds up whatever goes to or from a node.
    pub(super) fn stall(&mut self, node: usize, until: Ms) {
        self.clients[node].stalled_until = until;
    }

    /// A node is no more. What it had sent may get through.
    pub(super) fn crash(&mut self, node: usize) {
        let survives = [0, 500, 1_000][self.random.below(3)];
        self.flush(node, self.now, survives);
        self.remove_client(node);
    }

    fn remove_client(&mut self, node: usize) {
        let client = &mut self.clients[node];
        let inbox = std::mem::take(&mut client.inbox);
        *client = Client { gone: true, session: client.session, ..Client::default() };
        for inbound in inbox.into_values() {
            // Whoever closes waits for the answer; a node that is dead does not mind.
            if let Inbound::Reply { reply, .. } = inbound {
                drop(reply);
            }
        }
    }

    /// What a node gets before `until`.
    pub(super) fn take_inbox(&mut self, node: usize, until: Ms) -> Vec<(Ms, Inbound)> {
        let client = &mut self.clients[node];
        let later = client.inbox.split_off(&(until, 0));
        let due = std::mem::replace(&mut client.inbox, later);
        due.into_iter().map(|((at, _), inbound)| (at, inbound)).collect()
    }

    /// The node learns that its connection is lost: so do its calls.
    pub(super) fn take_orphans(&mut self, node: usize) -> Vec<Reply> {
        let client = &mut self.clients[node];
        client.lingering = None;
        std::mem::take(&mut client.orphans)
    }
}

/// What a node knows again when it comes twice. A server-side emit that wants no answer has no number.
fn bears_duplication(payload: &Bytes) -> bool {
    let decoded = wire::decode(payload.clone()).map(|envelope| envelope.message);
    !matches!(decoded, Ok(Message::ServerEvent { .. }))
}
