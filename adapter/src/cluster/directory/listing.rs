//! The rooms of a namespace, by pages: every live node is asked for those that it owns.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::timeout;

use super::{Listed, Query};
use crate::cluster::adapter::Forget;
use crate::cluster::message::{Answer, Message};
use crate::cluster::node::{Namespace, Node};
use crate::cluster::relay::chunks;
use crate::cluster::subject;
use crate::id::NodeTag;
use crate::presence::RoomPage;
use crate::selector::Room;

impl Node {
    /// What this node knows of the rooms that it owns.
    pub(super) fn listed(&self, namespace: &str, after: Option<&Room>, limit: usize) -> Listed {
        let mut listed = self.directory.state.lock().listed(namespace, after, limit, self.now_ms());
        let membership = self.membership.lock();
        listed.missing.extend(membership.live().filter(|(_, of)| of.vitals.is_none()).map(|(tag, _)| tag));
        listed
    }

    pub(super) fn respond_rooms(&self, to: NodeTag, id: u64, listed: Listed) {
        let Listed { rooms, age, missing } = listed;
        let chunks = chunks(rooms, |(room, _)| room.len() + 12, self.room_for_contents());
        let count = chunks.len();
        for (at, rooms) in chunks.into_iter().enumerate() {
            let listed = Listed { rooms, age, missing: missing.clone() };
            self.respond(to, id, at + 1 == count, Answer::Listed(listed));
        }
    }

    /// A page of rooms: what each owner says, together. Without the broker, those of this node.
    pub(crate) async fn rooms(
        self: Arc<Self>,
        namespace: Arc<Namespace>,
        after: Option<Room>,
        limit: usize,
    ) -> RoomPage {
        let name = Arc::clone(&namespace.name);
        if !self.is_connected() {
            let rooms = namespace.local.room_page(after.as_deref(), limit);
            return RoomPage { rooms, exact: false, age: Duration::ZERO, missing: self.members() };
        }
        let members = self.members();
        let slot = self.slot();
        let id = self.requests.next_id();
        let done = self.requests.begin(id, members.iter().copied());
        let forget = Forget(Arc::clone(&self), id);
        let query = Query::Rooms { namespace: Arc::clone(&name), after: after.clone(), limit: as_u32(limit) };
        let subjects = members.iter().copied().map(subject::node).collect();
        if slot.is_ok() && self.publish(subjects, &Message::Query { id, query }, None).is_ok() {
            self.lost_of(&members).into_iter().for_each(|lost| self.requests.node_lost(lost));
            // Either way: what has come, and who is missing.
            let _ = timeout(self.config.request_timeout, done).await;
        }
        let outcome = self.requests.finish(id);
        drop((forget, slot));
        self.counters.requests_incomplete.add(u64::from(!outcome.missing.is_empty()));
        let there = outcome.answers.into_iter().filter_map(|answer| match answer {
            Answer::Listed(listed) => Some(listed),
            _ => None,
        });
        let here = self.listed(&name, after.as_ref(), limit);
        let mut page = merge(there.chain([here]), limit);
        page.missing.extend(outcome.missing);
        page.missing.sort_unstable();
        page.missing.dedup();
        page.exact = page.missing.is_empty();
        page
    }
}

/// Puts the parts of a page together. While owners change two of them may know a room: the one that knows more does.
fn merge(parts: impl Iterator<Item = Listed>, limit: usize) -> RoomPage {
    let (mut rooms, mut page) = (BTreeMap::new(), RoomPage::default());
    for Listed { rooms: part, age, missing } in parts {
        page.age = page.age.max(age);
        page.missing.extend(missing);
        for (room, sockets) in part {
            let known = rooms.entry(room).or_insert(0);
            *known = sockets.max(*known);
        }
    }
    let count = |sockets| usize::try_from(sockets).unwrap_or(usize::MAX);
    page.rooms = rooms.into_iter().take(limit).map(|(room, sockets)| (room, count(sockets))).collect();
    page
}

fn as_u32(limit: usize) -> u32 {
    u32::try_from(limit).unwrap_or(u32::MAX)
}
