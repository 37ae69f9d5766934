//! Judges how operations ended, and who knows whom.

use std::collections::BTreeSet;

use super::Ms;
use super::machine::Outcome;
use super::mark::Number;
use super::model::{Kind, NodeModel, Op};
use super::world::{Todo, World};
use crate::adapter::{AckEvent, AdapterFactory};
use crate::id::{NodeTag, SocketId};

/// An answer that was given this long before the end must be in the result.
const IN_TIME: Ms = 2_500;

impl World {
    pub(super) fn judge(&mut self, number: Number, at: Ms, outcome: Outcome) {
        let Some(op) = self.model.ops.get_mut(&number) else { return };
        let deadline = op.ends_by.take();
        let op = &self.model.ops[&number];
        let (node, since, taken) = (op.node, op.at, op.taken);
        let goes_out = op.goes_out();
        let (what, details) = summary(&outcome);
        self.trace.note(at, node, what, [number.into(), details]);
        if deadline.is_some_and(|deadline| at > deadline) {
            self.model.fail(at, || format!("@{number}; ended late"));
        }
        match outcome {
            Outcome::Joined(Ok(true)) => {
                self.model.confirm(number, &[node]);
                self.try_out(number);
            }
            Outcome::Joined(Ok(false)) => {
                self.model.fail(at, || format!("@{number};: the socket is unknown"));
            }
            Outcome::Joined(Err(_)) => self.needs_excuse(number, at, node, since, "failed"),
            Outcome::Sent(Ok(())) => {
                if goes_out && !taken {
                    self.model
                        .fail(at, || format!("@{number}; was confirmed, and the broker has not got it"));
                }
            }
            Outcome::Sent(Err(_)) | Outcome::Changed(Err(_)) => {
                self.needs_excuse(number, at, node, since, "failed");
            }
            Outcome::Count(count) => {
                let expected: usize = self.said(number, at, &count.missing).iter().map(BTreeSet::len).sum();
                if count.value != expected {
                    self.model.fail(at, || format!("@{number}; counted {} of {expected}", count.value));
                }
            }
            Outcome::Fetched(fetched) => {
                let expected: BTreeSet<_> =
                    self.said(number, at, &fetched.missing).into_iter().flatten().collect();
                let got: BTreeSet<_> = fetched.value.iter().copied().collect();
                if got != expected || got.len() != fetched.value.len() {
                    let value = fetched.value;
                    self.model.fail(at, || format!("@{number}; fetched {value:?} instead of {expected:?}"));
                }
            }
            Outcome::Changed(Ok(changed)) => {
                self.said(number, at, &changed.missing);
                let missing: Vec<_> = changed.missing;
                let op = &self.model.ops[&number];
                let answered = op.known.iter().filter(|tag| !missing.contains(tag));
                let mut nodes: Vec<_> = answered.filter_map(|tag| self.model.number_of(*tag)).collect();
                nodes.push(node);
                self.model.confirm(number, &nodes);
                self.try_out(number);
            }
            Outcome::Replies(replies) => self.judge_replies(number, at, &replies.value, &replies.missing),
            Outcome::Acks(events) => self.judge_acks(number, at, events),
        }
    }

    /// What was confirmed must hold from now on: at once is when it might not yet.
    fn try_out(&mut self, number: Number) {
        let rooms = self.model.ops.get(&number).map(|op| op.rooms.clone()).unwrap_or_default();
        for room in rooms {
            if self.random.chance(500) {
                self.later(self.now, Todo::Emit { room });
            }
        }
    }

    fn needs_excuse(&mut self, number: Number, at: Ms, node: usize, since: Ms, what: &str) {
        if !self.model.excuse(node, since) {
            let kind = self.model.ops.get(&number).map(|op| op.kind);
            self.model.fail(at, || format!("{kind:?} @{number}; {what} without a cause at node {node}"));
        }
    }

    /// What the nodes that are not missing must have said. Who is missing was known, and there is a cause.
    fn said(&mut self, number: Number, at: Ms, missing: &[NodeTag]) -> Vec<BTreeSet<SocketId>> {
        let op = &self.model.ops[&number];
        let (own, since, known, lost) = (op.node, op.at, op.known.clone(), op.lost);
        let mut said: Vec<_> = op.meant.get(&own).cloned().into_iter().collect();
        for tag in missing.iter().filter(|tag| !known.contains(tag)) {
            self.model.fail(at, || format!("@{number}; misses {tag}, which was not known"));
        }
        for tag in known {
            let Some(node) = self.model.number_of(tag) else { continue };
            let heard = self.model.ops[&number].meant.get(&node).cloned();
            if missing.contains(&tag) {
                let op = &self.model.ops[&number];
                let in_time = |replied: &Ms| replied + IN_TIME < at;
                let silent = op.kind == Kind::Poll && !op.replied.get(&node).is_some_and(in_time);
                let disturbed = self.model.excuse(node, since) || self.model.excuse(own, since);
                let excused = lost || silent || disturbed;
                if !excused {
                    self.model.fail(at, || format!("@{number}; misses node {node} without a cause"));
                }
            } else if let Some(heard) = heard {
                said.push(heard);
            } else {
                self.model
                    .fail(at, || format!("@{number}; has an answer of node {node}, which was not asked"));
            }
        }
        said
    }

    fn judge_replies(&mut self, number: Number, at: Ms, replies: &[NodeTag], missing: &[NodeTag]) {
        self.said(number, at, missing);
        let op = &self.model.ops[&number];
        let answered = op.known.iter().filter(|tag| !missing.contains(tag));
        let replied = answered
            .filter(|tag| self.model.number_of(**tag).is_some_and(|node| op.replied.contains_key(&node)));
        let expected: BTreeSet<_> = replied.copied().collect();
        let got: BTreeSet<_> = replies.iter().copied().collect();
        if got != expected || got.len() != replies.len() {
            self.model.fail(at, || format!("@{number}; was answered by {replies:?} instead of {expected:?}"));
        }
    }

    fn judge_acks(&mut self, number: Number, at: Ms, events: Vec<AckEvent>) {
        let op = &self.model.ops[&number];
        let own = self.model.nodes[op.node].tag;
        let (mut asked, mut settled, mut lost) = (BTreeSet::new(), BTreeSet::new(), Vec::new());
        let mut wrong = None;
        for event in events {
            let fits = match &event {
                AckEvent::Asked(ids) => ids.iter().all(|id| asked.insert(*id)),
                AckEvent::Ack(id, _) => {
                    asked.contains(id) && op.answered.contains_key(id) && settled.insert(*id)
                }
                AckEvent::Gone(id) => {
                    asked.contains(id) && self.model.left.contains_key(id) && settled.insert(*id)
                }
                AckEvent::LostNode(tag) => {
                    lost.push(*tag);
                    true
                }
            };
            wrong = wrong.or((!fits).then_some(event));
        }
        let may_be_asked = |id: &SocketId| op.meant.values().any(|meant| meant.contains(id));
        if let Some(id) = asked.iter().find(|id| !may_be_asked(id)) {
            wrong = wrong.or(Some(AckEvent::Asked(vec![*id])));
        }
        let in_time = |id: &SocketId| op.answered.get(id).is_some_and(|answered| answered + IN_TIME < at);
        let excused = |id: &SocketId| {
            lost.contains(&id.node())
                || self.model.excuse(op.node, op.at)
                || self.model.number_of(id.node()).is_none_or(|node| self.model.excuse(node, op.at))
        };
        let ignored = asked.iter().find(|id| in_time(id) && !settled.contains(*id) && !excused(id)).copied();
        if let Some(event) = wrong {
            self.model.fail(at, || format!("@{number}; got {event:?}"));
        }
        if let Some(id) = ignored {
            self.model.fail(at, || format!("@{number}; ignored the ack of {id}"));
        }
        lost.retain(|tag| *tag != own);
        let heard: BTreeSet<_> = self.said(number, at, &lost).into_iter().flatten().collect();
        if let Some(id) = heard.iter().find(|id| !asked.contains(*id) && !lost.contains(&id.node())) {
            self.model.fail(at, || format!("@{number}; does not say that {id} was asked"));
        }
    }
}

fn summary(outcome: &Outcome) -> (&'static str, u64) {
    match outcome {
        Outcome::Joined(result) => ("joined", result.is_ok().into()),
        Outcome::Sent(result) => ("sent", result.is_ok().into()),
        Outcome::Count(count) => ("counted", (count.value << 8 | count.missing.len()) as u64),
        Outcome::Fetched(fetched) => ("fetched", (fetched.value.len() << 8 | fetched.missing.len()) as u64),
        Outcome::Changed(Ok(changed)) => ("changed", changed.missing.len() as u64),
        Outcome::Changed(Err(_)) => ("not changed", 0),
        Outcome::Replies(replies) => ("replies", (replies.value.len() << 8 | replies.missing.len()) as u64),
        Outcome::Acks(events) => ("acks", events.len() as u64),
    }
}

/// What takes this long to be known is not known.
fn detection(world: &World) -> Ms {
    let config = &world.profile.config;
    (config.expiry + 4 * config.heartbeat).as_millis() as Ms
}

/// Nobody waits for the dead. Every second, who waits for long is asked whom for.
pub(super) fn waiting(world: &mut World) {
    let (now, detection) = (world.now, detection(world));
    if !now.is_multiple_of(1_000) {
        return;
    }
    let undisturbed = |node: usize, op: &Op| {
        let node = &world.model.nodes[node];
        node.sound_since.is_some() && node.disturbed_at.is_none_or(|at| at < op.at)
    };
    let is_over = |op: &Op, tag: NodeTag| {
        let Some(node) = world.model.number_of(tag) else { return false };
        let replied = op.replied.get(&node).is_some_and(|at| at + IN_TIME < now);
        let dead = world.model.nodes[node].dead_since.is_some_and(|since| since + detection < now);
        dead || (replied && undisturbed(node, op))
    };
    let for_nobody = world.pending.iter().copied().find(|number| {
        let Some(op) = world.model.ops.get(number).filter(|op| op.kind == Kind::Poll) else { return false };
        let in_time = undisturbed(op.node, op) && op.at + detection < now;
        in_time && op.known.iter().all(|tag| is_over(op, *tag))
    });
    if let Some(number) = for_nobody {
        world.model.fail(now, || format!("@{number}; waits for nobody who lives"));
    }
}

fn is_calm(node: &NodeModel, now: Ms, for_ms: Ms) -> bool {
    node.sound_since.is_some_and(|since| since + for_ms < now)
        && node.disturbed_at.is_none_or(|at| at + for_ms < now)
}

/// Who is dead is known to be, after a while, and who lives is known to live.
pub(super) fn members(world: &mut World) {
    let (now, detection) = (world.now, detection(world));
    if !now.is_multiple_of(1_000) {
        return;
    }
    for (one, machine) in world.machines.iter().enumerate() {
        let Some(serving) = machine.as_ref().and_then(|machine| machine.serving.as_ref()) else { continue };
        if !is_calm(&world.model.nodes[one], now, detection) {
            continue;
        }
        let known = serving.factory.nodes();
        for (other, node) in world.model.nodes.iter().enumerate() {
            let dead = node.dead_since.is_some_and(|since| since + detection < now);
            let is_known = known.contains(&node.tag);
            if (dead && is_known) || (is_calm(node, now, detection) && !is_known) {
                let knows = if is_known { "knows" } else { "does not know" };
                return world.model.fail(now, || format!("node {one} {knows} node {other}"));
            }
        }
    }
}
