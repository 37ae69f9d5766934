//! `rooms`, `room`, `room_sockets`, `socket` and `user_sockets`: what a backend can ask. A partial answer names what is
//! missing.

use std::time::SystemTime;

use roomcast_adapter::{Collected, NodeTag, RemoteSocket, Room, Selector, SocketId, Target};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Caller, Calls, Scope};
use crate::backend::{Code, Problem};

/// Items on a page, unless the caller says how many.
const DEFAULT_PAGE: usize = 100;
/// The most items on a page.
const MAX_PAGE: usize = 1_000;

/// Which room.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct RoomQuery {
    /// The namespace, "/" if none is named.
    pub(crate) namespace: Option<String>,
    /// The room.
    pub(crate) room: String,
}

/// A room in the whole cluster.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct RoomAnswer {
    namespace: String,
    room: String,
    /// Sockets in the room, in the whole cluster.
    sockets: usize,
    /// No live node's share is older than this (RFC 3339).
    as_of: String,
    /// Every live node's share is in it.
    exact: bool,
    /// The live nodes whose share is not known to be in it.
    #[schemars(with = "Vec<String>")]
    missing_nodes: Vec<NodeTag>,
}

/// Which rooms.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct RoomsQuery {
    /// The namespace, "/" if none is named.
    pub(crate) namespace: Option<String>,
    /// The most rooms on the page; 100 if it is not said.
    #[schemars(range(min = 1, max = 1_000))]
    pub(crate) limit: Option<usize>,
    /// The `cursor` of the page before.
    pub(crate) cursor: Option<String>,
}

/// A page of the rooms that have sockets, in the order of their names (by their bytes).
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct RoomsAnswer {
    namespace: String,
    rooms: Vec<RoomCountAnswer>,
    /// Asks for the next page; not there when this is the last one.
    #[serde(skip_serializing_if = "Option::is_none")]
    cursor: Option<String>,
    /// No live node's share is older than this (RFC 3339).
    as_of: String,
    /// Every live node's share is in it.
    exact: bool,
    /// The live nodes whose share, or whose part of the list, is not known to be in it.
    #[schemars(with = "Vec<String>")]
    missing_nodes: Vec<NodeTag>,
}

/// A room of a list.
#[derive(Debug, Serialize, JsonSchema)]
struct RoomCountAnswer {
    room: String,
    /// Sockets in the room, in the whole cluster.
    sockets: usize,
}

/// Where a page begins, and how long it is.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Page {
    /// The namespace, "/" if none is named.
    pub(crate) namespace: Option<String>,
    /// The most sockets on the page; 100 if it is not said.
    #[schemars(range(min = 1, max = 1_000))]
    pub(crate) limit: Option<usize>,
    /// The `cursor` of the page before.
    #[schemars(with = "Option<String>")]
    pub(crate) cursor: Option<SocketId>,
}

/// Which user's sockets.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct UserQuery {
    /// The user.
    pub(crate) user: String,
    /// The namespace, "/" if none is named.
    pub(crate) namespace: Option<String>,
    /// The most sockets on the page; 100 if it is not said.
    #[schemars(range(min = 1, max = 1_000))]
    pub(crate) limit: Option<usize>,
    /// The `cursor` of the page before.
    #[schemars(with = "Option<String>")]
    pub(crate) cursor: Option<SocketId>,
}

/// Which socket.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct SocketQuery {
    /// The namespace, "/" if none is named.
    pub(crate) namespace: Option<String>,
    /// Its id.
    #[schemars(with = "String")]
    pub(crate) socket: SocketId,
}

/// A page of the sockets in a room, in the order of their ids.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct SocketsAnswer {
    namespace: String,
    room: String,
    sockets: Vec<SocketAnswer>,
    /// Asks for the next page; not there when this is the last one.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>")]
    cursor: Option<SocketId>,
    /// The nodes that did not answer: their sockets are not on the page.
    #[schemars(with = "Vec<String>")]
    missing_nodes: Vec<NodeTag>,
}

/// A socket.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct SocketAnswer {
    #[schemars(with = "String")]
    id: SocketId,
    /// Its rooms, its id among them.
    #[schemars(with = "Vec<String>")]
    rooms: Vec<Room>,
    /// The data attached to it.
    data: serde_json::Value,
}

/// One socket.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct OneSocket {
    namespace: String,
    /// The node that it is connected to.
    #[schemars(with = "String")]
    node: NodeTag,
    #[serde(flatten)]
    socket: SocketAnswer,
}

pub(super) fn rfc3339(time: SystemTime) -> String {
    humantime::format_rfc3339_millis(time).to_string()
}

pub(super) fn page_size(limit: Option<usize>) -> Result<usize, Problem> {
    let limit = limit.unwrap_or(DEFAULT_PAGE);
    if !(1..=MAX_PAGE).contains(&limit) {
        return Err(Problem::invalid(format!("`limit` has to be from 1 to {MAX_PAGE}")));
    }
    Ok(limit)
}

/// A caller sees the rooms of a socket that it may reach.
fn answer(caller: &Caller, socket: RemoteSocket) -> SocketAnswer {
    let RemoteSocket { id, mut rooms, data, .. } = socket;
    rooms.retain(|room| **room == *id.as_str() || caller.sees_room(room));
    SocketAnswer { id, rooms, data }
}

impl Calls {
    pub(crate) async fn room(&self, caller: &Caller, query: RoomQuery) -> Result<RoomAnswer, Problem> {
        let (namespace, adapter) = self.namespace(caller, Scope::Read, query.namespace.as_deref())?;
        let room = query.room;
        caller.check_room(&room)?;
        let count = adapter.room_count(&room).await;
        // Without the broker a node does not know who else is there.
        let exact = count.exact && !self.node.is_cut_off();
        let now = SystemTime::now();
        Ok(RoomAnswer {
            namespace,
            room,
            sockets: count.sockets,
            as_of: rfc3339(now.checked_sub(count.age).unwrap_or(now)),
            exact,
            missing_nodes: count.missing,
        })
    }

    /// A caller sees the rooms that it may reach. So a page may be short, or empty, and not the last one.
    pub(crate) async fn rooms(&self, caller: &Caller, query: RoomsQuery) -> Result<RoomsAnswer, Problem> {
        let limit = page_size(query.limit)?;
        let (namespace, adapter) = self.namespace(caller, Scope::Read, query.namespace.as_deref())?;
        let page = adapter.rooms(query.cursor.as_deref(), limit).await;
        let cursor = page.rooms.last().filter(|_| page.rooms.len() == limit);
        let cursor = cursor.map(|(room, _)| room.to_string());
        let seen = page.rooms.into_iter().filter(|(room, _)| caller.sees_room(room));
        let rooms = seen.map(|(room, sockets)| RoomCountAnswer { room: room.to_string(), sockets });
        let now = SystemTime::now();
        Ok(RoomsAnswer {
            namespace,
            rooms: rooms.collect(),
            cursor,
            as_of: rfc3339(now.checked_sub(page.age).unwrap_or(now)),
            exact: page.exact && !self.node.is_cut_off(),
            missing_nodes: page.missing,
        })
    }

    pub(crate) async fn room_sockets(
        &self,
        caller: &Caller,
        room: String,
        page: Page,
    ) -> Result<SocketsAnswer, Problem> {
        let limit = page_size(page.limit)?;
        let (namespace, adapter) = self.namespace(caller, Scope::Read, page.namespace.as_deref())?;
        caller.check_room(&room)?;
        let Collected { value, missing } = adapter.room_sockets(&room, page.cursor, limit).await;
        let cursor = value.last().filter(|_| value.len() == limit).map(|socket| socket.id);
        let sockets = value.into_iter().map(|socket| answer(caller, socket)).collect();
        Ok(SocketsAnswer { namespace, room, sockets, cursor, missing_nodes: missing })
    }

    /// The sockets of a user: those in the user's room.
    pub(crate) async fn user_sockets(
        &self,
        caller: &Caller,
        query: UserQuery,
    ) -> Result<SocketsAnswer, Problem> {
        let UserQuery { user, namespace, limit, cursor } = query;
        self.room_sockets(caller, format!("user:{user}"), Page { namespace, limit, cursor }).await
    }

    pub(crate) async fn socket(&self, caller: &Caller, query: SocketQuery) -> Result<OneSocket, Problem> {
        let (namespace, adapter) = self.namespace(caller, Scope::Read, query.namespace.as_deref())?;
        caller.check_anyone()?;
        let (id, node) = (query.socket, query.socket.node());
        let selector = Selector { to: Target::Socket(id), except: Vec::new(), local: false };
        let Collected { value, missing } = adapter.fetch_sockets(&selector).await;
        // Others may have joined the room of its id.
        if let Some(socket) = value.into_iter().find(|socket| socket.id == id) {
            return Ok(OneSocket { namespace, node, socket: answer(caller, socket) });
        }
        if missing.contains(&node) {
            let detail = format!("the node {node}, which has given out this id, does not answer");
            return Err(Problem::new(Code::BrokerUnavailable, detail));
        }
        Err(Problem::new(Code::NotFound, format!("there is no socket \"{id}\" in {namespace}")))
    }
}
