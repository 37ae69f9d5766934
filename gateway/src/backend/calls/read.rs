//! `room`, `room_sockets` and `nodes`: what a backend can ask. A partial answer names what is missing.

use std::time::SystemTime;

use roomcast_adapter::{Collected, NodeInfo, NodeTag, RemoteSocket, Room, SocketId};
use serde::{Deserialize, Serialize};

use super::{Caller, Calls, Scope};
use crate::backend::Problem;

/// Sockets on a page, unless the caller says how many.
const DEFAULT_PAGE: usize = 100;
/// The most sockets on a page.
const MAX_PAGE: usize = 1_000;

#[derive(Serialize)]
pub(crate) struct RoomAnswer {
    namespace: String,
    room: String,
    /// Sockets in the room, in the whole cluster.
    sockets: usize,
    /// No live node's share is older than this (RFC 3339).
    as_of: String,
    /// Every live node's share is in it.
    exact: bool,
    missing_nodes: Vec<NodeTag>,
}

#[derive(Deserialize)]
pub(crate) struct Page {
    namespace: Option<String>,
    limit: Option<usize>,
    cursor: Option<SocketId>,
}

#[derive(Serialize)]
pub(crate) struct SocketsAnswer {
    namespace: String,
    room: String,
    sockets: Vec<SocketAnswer>,
    /// Asks for the next page; not there when this is the last one.
    #[serde(skip_serializing_if = "Option::is_none")]
    cursor: Option<SocketId>,
    missing_nodes: Vec<NodeTag>,
}

#[derive(Serialize)]
struct SocketAnswer {
    id: SocketId,
    rooms: Vec<Room>,
    data: serde_json::Value,
}

fn rfc3339(time: SystemTime) -> String {
    humantime::format_rfc3339_millis(time).to_string()
}

#[derive(Serialize)]
pub(crate) struct NodesAnswer {
    /// The node that answers.
    node: NodeTag,
    nodes: Vec<NodeAnswer>,
}

#[derive(Serialize)]
struct NodeAnswer {
    id: NodeTag,
    /// As the node said with its last sign of life; nothing of a node of an older version.
    #[serde(skip_serializing_if = "Option::is_none")]
    sockets: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    rooms: Option<u64>,
    as_of: String,
}

impl Calls {
    pub(crate) async fn room(
        &self,
        caller: &Caller,
        namespace: Option<&str>,
        room: String,
    ) -> Result<RoomAnswer, Problem> {
        let (namespace, adapter) = self.namespace(caller, Scope::Read, namespace)?;
        let count = adapter.room_count(&room).await;
        // Without the broker a node does not know who else is there.
        let exact = count.exact && self.node.unready() != Some("broker_unavailable");
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

    pub(crate) async fn room_sockets(
        &self,
        caller: &Caller,
        room: String,
        page: Page,
    ) -> Result<SocketsAnswer, Problem> {
        let limit = page.limit.unwrap_or(DEFAULT_PAGE);
        if !(1..=MAX_PAGE).contains(&limit) {
            return Err(Problem::invalid(format!("`limit` has to be from 1 to {MAX_PAGE}")));
        }
        let (namespace, adapter) = self.namespace(caller, Scope::Read, page.namespace.as_deref())?;
        let Collected { value, missing } = adapter.room_sockets(&room, page.cursor, limit).await;
        let cursor = value.last().filter(|_| value.len() == limit).map(|socket| socket.id);
        let answer = |RemoteSocket { id, rooms, data, .. }| SocketAnswer { id, rooms, data };
        let sockets = value.into_iter().map(answer).collect();
        Ok(SocketsAnswer { namespace, room, sockets, cursor, missing_nodes: missing })
    }

    pub(crate) fn nodes(&self, caller: &Caller) -> Result<NodesAnswer, Problem> {
        caller.check(Scope::Read)?;
        let factory = self.node.factory();
        let now = SystemTime::now();
        let answer = |info: NodeInfo| NodeAnswer {
            id: info.tag,
            sockets: info.sockets,
            rooms: info.rooms,
            as_of: rfc3339(now.checked_sub(info.age).unwrap_or(now)),
        };
        let nodes = factory.node_infos().into_iter().map(answer).collect();
        Ok(NodesAnswer { node: factory.node(), nodes })
    }
}
