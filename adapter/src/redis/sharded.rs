//! A link over all masters of a cluster, by sharded publish/subscribe: each subject lives on the node of its slot.
//!
//! Owns the table of slots, and what is done when a slot is moved. Order holds for each subject:
//!
//! - What a node does not take because the slot was moved was not executed. From the first such answer on everything is
//!   held back until nothing is in flight any more; then what came back and what was held goes out in the order of the
//!   calls (`mend.rs`).
//! - A subscription is made at the new owner after the old one has said that it is over, so what the old owner delivered
//!   comes first. In between is a gap, which is reported.
//!
//! The connections of all masters live and die together: the loss of one is the end of the link.

use std::{collections::HashMap, sync::Arc};

use bytes::{Bytes, BytesMut};
use futures_util::{FutureExt, future, future::BoxFuture};
use parking_lot::Mutex;
use tokio::sync::Notify;

use super::{
    Channels,
    connection::{Connection, Dial, NoPushes, Pending, Pushes, Tally, Wire, closed, refusal},
    health::{self, Health},
    resp::{self, Frame},
    topology::{Redirect, slot},
    url::Endpoint,
};
use crate::{
    broker::Site,
    cluster::{BusError, Publication, Subject},
};

type Call = BoxFuture<'static, Result<(), BusError>>;

pub(super) struct Sharded {
    inner: Arc<Inner>,
}

pub(super) struct Inner {
    pub(super) channels: Channels,
    pub(super) site: Site,
    pub(super) dial: Dial,
    pub(super) state: Mutex<State>,
    /// Rung when there is something to mend.
    pub(super) mend: Notify,
}

/// A leaf lock but for the queues of connections.
pub(super) struct State {
    /// Only grows. Connections to a master that serves nothing any more stay until the link ends.
    pub(super) nodes: Vec<Arc<Node>>,
    /// The index of the node of every slot.
    pub(super) slots: Box<[u16]>,
    /// Every channel that is wanted.
    wanted: HashMap<Box<str>, Subscription>,
    /// The number of the next message.
    next: u64,
    /// Messages that no node has answered.
    pub(super) in_flight: usize,
    /// Messages are held until nothing is in flight.
    pub(super) holding: bool,
    pub(super) held: Vec<Message>,
    /// New owners of slots that somebody learnt of.
    pub(super) moved: HashMap<u16, Endpoint>,
    /// Subscriptions that a node has ended or not taken.
    pub(super) displaced: Vec<Displaced>,
}

pub(super) struct Node {
    pub(super) writer: Connection,
    pub(super) reader: Connection,
}

struct Subscription {
    node: u16,
    /// It stands, as far as the node has told.
    confirmed: bool,
}

/// A message on its way.
pub(super) struct Message {
    pub(super) number: u64,
    pub(super) slot: u16,
    pub(super) publication: Publication,
    /// How often it came back.
    pub(super) returns: u32,
    pub(super) tally: Arc<Tally>,
}

/// A subscription without a node.
pub(super) struct Displaced {
    pub(super) channel: Box<str>,
    /// Who told.
    pub(super) told_by: u16,
    /// Who is said to be the owner, if somebody was.
    pub(super) owner: Option<Endpoint>,
    /// How often it was looked for.
    pub(super) attempts: u32,
    /// Who waits for it. Nobody, when it stood before.
    pub(super) tally: Option<Arc<Tally>>,
}

impl Sharded {
    /// Of the connections to all masters, and the table of slots by their index.
    pub(super) fn start(
        wires: Vec<(Wire, Wire)>,
        slots: Box<[u16]>,
        site: Site,
        dial: Dial,
        channels: Channels,
    ) -> Self {
        let state = State {
            nodes: Vec::new(),
            slots,
            wanted: HashMap::new(),
            next: 0,
            in_flight: 0,
            holding: false,
            held: Vec::new(),
            moved: HashMap::new(),
            displaced: Vec::new(),
        };
        let inner = Arc::new(Inner { channels, site, dial, state: Mutex::new(state), mend: Notify::new() });
        for wires in wires {
            inner.add(&mut inner.state.lock(), wires);
        }
        inner.site.writer.spawn(super::mend::run(Arc::clone(&inner)));
        Self { inner }
    }

    pub(super) fn publish(&self, batch: Vec<Publication>) -> Call {
        let (tally, done) = Tally::new();
        let mut state = self.inner.state.lock();
        let first = state.next;
        state.next += batch.len() as u64;
        let messages = (first..).zip(batch).map(|(number, publication)| {
            let slot = slot(&self.inner.channels.channel(&publication.subject));
            Message { number, slot, publication, returns: 0, tally: Arc::clone(&tally) }
        });
        if state.holding {
            state.held.extend(messages);
        } else {
            self.inner.transmit(&mut state, messages.collect());
        }
        drop(state);
        drop(tally);
        done.boxed()
    }

    pub(super) fn subscribe(&self, subjects: &[Subject]) -> Call {
        let (tally, done) = Tally::new();
        let mut state = self.inner.state.lock();
        let channels = subjects.iter().map(|subject| self.inner.channels.channel(subject).into_boxed_str());
        // After a gap the cluster asks for everything again; what stands costs nothing.
        let missing = channels.filter(|channel| {
            let known = state.wanted.get(channel);
            !known.is_some_and(|known| known.confirmed && known.node == state.node_of(slot(channel)))
        });
        let missing: Vec<Box<str>> = missing.collect();
        self.inner.subscribe(&mut state, missing, 0, &tally);
        drop(state);
        drop(tally);
        done.boxed()
    }

    pub(super) fn unsubscribe(&self, subjects: &[Subject]) -> Call {
        let (tally, done) = Tally::new();
        let mut state = self.inner.state.lock();
        let mut by_node: HashMap<u16, HashMap<u16, Vec<String>>> = HashMap::new();
        for subject in subjects {
            let channel = self.inner.channels.channel(subject);
            if let Some(known) = state.wanted.remove(&*channel) {
                by_node.entry(known.node).or_default().entry(slot(&channel)).or_default().push(channel);
            }
        }
        for (node, by_slot) in by_node {
            let Some(node) = state.nodes.get(usize::from(node)) else { continue };
            let (mut share, secrets) = (tally.share(1), Arc::clone(&self.inner.dial.secrets));
            let done = move |error: Option<String>| {
                // Where the slot has gone from, nothing is subscribed any more.
                let error = error.filter(|text| !text.starts_with("MOVED "));
                share.part(error.map_or(Ok(()), |text| Err(refusal(&text, &secrets, ""))));
            };
            let token = "unsubscribed".to_owned();
            let echo = [&b"ECHO"[..], token.as_bytes()];
            node.reader.send(
                Pending::Fence { token: token.clone(), error: None, done: Box::new(done) },
                |out| {
                    for channels in by_slot.values() {
                        command(out, b"SUNSUBSCRIBE", channels.iter().map(String::as_bytes));
                    }
                    resp::command(out, &echo);
                },
            );
        }
        drop(state);
        drop(tally);
        done.boxed()
    }

    pub(super) fn ping_writer(&self) -> Call {
        let fault = &self.inner.site.fault;
        self.on_all(|node| health::check(&node.writer, Health::ClusterMaster, fault).boxed())
    }

    pub(super) fn ping_reader(&self) -> Call {
        let fault = &self.inner.site.fault;
        self.on_all(|node| health::check(&node.reader, Health::Answers, fault).boxed())
    }

    /// On all nodes that serve a slot. One that gave its last one away may become a replica, or end.
    fn on_all(&self, act: impl Fn(&Node) -> Call) -> Call {
        let state = self.inner.state.lock();
        let mut serves = vec![false; state.nodes.len()];
        for node in &state.slots {
            if let Some(serves) = serves.get_mut(usize::from(*node)) {
                *serves = true;
            }
        }
        let nodes = state.nodes.iter().zip(serves).filter(|(_, serves)| *serves);
        let calls: Vec<Call> = nodes.map(|(node, _)| act(node)).collect();
        drop(state);
        future::try_join_all(calls).map(|result| result.map(drop)).boxed()
    }
}

impl State {
    pub(super) fn node_of(&self, slot: u16) -> u16 {
        self.slots.get(usize::from(slot)).copied().unwrap_or(u16::MAX)
    }

    pub(super) fn index_of(&self, endpoint: &Endpoint) -> Option<u16> {
        let index = self.nodes.iter().position(|node| node.writer.endpoint() == endpoint)?;
        u16::try_from(index).ok()
    }

    pub(super) fn is_wanted(&self, channel: &str) -> bool {
        self.wanted.contains_key(channel)
    }
}

impl Inner {
    /// Adds a node, and gives its index.
    pub(super) fn add(self: &Arc<Self>, state: &mut State, (writer, reader): (Wire, Wire)) -> u16 {
        let index = u16::try_from(state.nodes.len()).unwrap_or(u16::MAX);
        let pushes = FromNode { inner: Arc::clone(self), node: index };
        let writer = writer.start(&self.site.writer, Arc::new(NoPushes), self.site.fault.clone());
        let reader = reader.start(&self.site.reader, Arc::new(pushes), self.site.fault.clone());
        state.nodes.push(Arc::new(Node { writer, reader }));
        index
    }

    /// Sends messages to the nodes of their slots.
    pub(super) fn transmit(self: &Arc<Self>, state: &mut State, messages: Vec<Message>) {
        let mut by_node: HashMap<u16, Vec<Message>> = HashMap::new();
        for message in messages {
            by_node.entry(state.node_of(message.slot)).or_default().push(message);
        }
        for (index, messages) in by_node {
            let Some(node) = state.nodes.get(usize::from(index)).map(Arc::clone) else { continue };
            state.in_flight += messages.len();
            let mut commands = BytesMut::new();
            for Message { publication, .. } in &messages {
                let channel = self.channels.channel(&publication.subject);
                resp::command(&mut commands, &[b"SPUBLISH", channel.as_bytes(), &publication.payload]);
            }
            let left = messages.len();
            let mut answers = Answers {
                inner: Arc::clone(self),
                node: Arc::clone(&node),
                count: left,
                open: messages.into_iter(),
                returned: Vec::new(),
            };
            let take = Box::new(move |frame| answers.take(frame));
            node.writer.send(Pending::Answers { left, take }, |out| out.unsplit(commands));
        }
    }

    /// Subscribes at the nodes of the slots. `attempts` is how often the channels were looked for before.
    pub(super) fn subscribe(
        self: &Arc<Self>,
        state: &mut State,
        channels: Vec<Box<str>>,
        attempts: u32,
        tally: &Arc<Tally>,
    ) {
        let mut by_slot: HashMap<u16, Vec<Box<str>>> = HashMap::new();
        for channel in channels {
            by_slot.entry(slot(&channel)).or_default().push(channel);
        }
        for (slot, channels) in by_slot {
            let index = state.node_of(slot);
            let Some(node) = state.nodes.get(usize::from(index)).map(Arc::clone) else { continue };
            for channel in &channels {
                state.wanted.insert(channel.clone(), Subscription { node: index, confirmed: false });
            }
            let mut commands = BytesMut::new();
            command(&mut commands, b"SSUBSCRIBE", channels.iter().map(|channel| channel.as_bytes()));
            let left = channels.len();
            let (inner, mut share) = (Arc::clone(self), tally.share(1));
            let done = Box::new(move |error: Option<String>| {
                let refused = error
                    .and_then(|text| inner.not_subscribed(channels, index, &text, attempts, share.tally()));
                share.part(refused.map_or(Ok(()), Err));
            });
            node.reader.send(Pending::Confirmations { left, done }, |out| out.unsplit(commands));
        }
    }

    /// A node has answered SSUBSCRIBE with an error. Gives it back, unless the channels are looked for elsewhere.
    fn not_subscribed(
        &self,
        channels: Vec<Box<str>>,
        told_by: u16,
        text: &str,
        attempts: u32,
        tally: &Arc<Tally>,
    ) -> Option<BusError> {
        let mut state = self.state.lock();
        let redirect = {
            let node = state.nodes.get(usize::from(told_by))?;
            Redirect::parse(text, node.reader.endpoint())
        };
        let Some(redirect) = redirect else {
            for channel in &channels {
                state.wanted.remove(channel);
            }
            return Some(refusal(text, &self.dial.secrets, ""));
        };
        let owner = match redirect {
            Redirect::Moved(owner) => Some(owner),
            Redirect::Later => None,
        };
        let displaced = channels.into_iter().map(|channel| Displaced {
            channel,
            told_by,
            owner: owner.clone(),
            attempts: attempts + 1,
            tally: Some(Arc::clone(tally)),
        });
        state.displaced.extend(displaced);
        drop(state);
        self.mend.notify_one();
        None
    }
}

fn command<'a>(out: &mut BytesMut, verb: &'a [u8], channels: impl Iterator<Item = &'a [u8]>) {
    let parts: Vec<&[u8]> = [verb].into_iter().chain(channels).collect();
    resp::command(out, &parts);
}

/// Takes a node's answers to messages, which come in their order.
struct Answers {
    inner: Arc<Inner>,
    node: Arc<Node>,
    count: usize,
    open: std::vec::IntoIter<Message>,
    /// What the node did not execute.
    returned: Vec<(Message, Redirect)>,
}

impl Answers {
    fn take(&mut self, frame: Frame) {
        let Some(message) = self.open.next() else { return };
        if let Frame::Error(text) = frame {
            match Redirect::parse(&text, self.node.writer.endpoint()) {
                Some(redirect) => self.returned.push((message, redirect)),
                None => message.tally.fail(refusal(&text, &self.inner.dial.secrets, "")),
            }
        }
        if self.open.len() == 0 {
            self.end();
        }
    }

    /// Every message was answered.
    fn end(&mut self) {
        let mut state = self.inner.state.lock();
        state.in_flight = state.in_flight.saturating_sub(self.count);
        for (mut message, redirect) in self.returned.drain(..) {
            if let Redirect::Moved(owner) = redirect {
                state.moved.insert(message.slot, owner);
            }
            message.returns += 1;
            state.held.push(message);
            state.holding = true;
        }
        let settled = state.holding && state.in_flight == 0;
        drop(state);
        if settled {
            self.inner.mend.notify_one();
        }
    }
}

impl Drop for Answers {
    /// The connection ended before the rest was answered.
    fn drop(&mut self) {
        self.open.by_ref().for_each(|message| message.tally.fail(closed()));
    }
}

/// What comes on a node's subscribing connection.
struct FromNode {
    inner: Arc<Inner>,
    node: u16,
}

impl Pushes for FromNode {
    fn message(&self, channel: &str, payload: Bytes) -> bool {
        let subject = self.inner.channels.subject(channel);
        subject.is_none_or(|subject| self.inner.site.inbound.message(subject, payload))
    }

    fn subscribed(&self, channel: &str) {
        if let Some(known) = self.inner.state.lock().wanted.get_mut(channel)
            && known.node == self.node
        {
            known.confirmed = true;
        }
    }

    /// What stood and is wanted was ended by the node. What does not stand yet was ended by us, before.
    fn unsubscribed(&self, channel: &str) {
        let mut state = self.inner.state.lock();
        match state.wanted.get_mut(channel) {
            Some(known) if known.node == self.node && known.confirmed => known.confirmed = false,
            _ => return,
        }
        let (channel, told_by) = (Box::from(channel), self.node);
        state.displaced.push(Displaced { channel, told_by, owner: None, attempts: 0, tally: None });
        drop(state);
        self.inner.mend.notify_one();
    }
}
