//! `GET /v1/rooms/{room}` and `/v1/nodes`: what a backend can ask. A partial answer names what is missing.

use std::time::SystemTime;

use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::extract::{Path, Query, State};
use roomcast_adapter::{NodeInfo, NodeTag};
use serde::{Deserialize, Serialize};

use super::{Api, Problem};

#[derive(Deserialize)]
pub(super) struct Within {
    namespace: Option<String>,
}

#[derive(Serialize)]
pub(super) struct RoomAnswer {
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

pub(super) async fn room(
    State(api): State<Api>,
    room: Result<Path<String>, PathRejection>,
    within: Result<Query<Within>, QueryRejection>,
) -> Result<axum::Json<RoomAnswer>, Problem> {
    let Path(room) = room.map_err(|error| Problem::invalid(error.body_text()))?;
    let Query(within) = within.map_err(|error| Problem::invalid(error.body_text()))?;
    let (namespace, adapter) = api.adapter(within.namespace.as_deref())?;
    let count = adapter.room_count(&room).await;
    // Without the broker a node does not know who else is there.
    let exact = count.exact && api.unready() != Some("broker_unavailable");
    let now = SystemTime::now();
    Ok(axum::Json(RoomAnswer {
        namespace,
        room,
        sockets: count.sockets,
        as_of: rfc3339(now.checked_sub(count.age).unwrap_or(now)),
        exact,
        missing_nodes: count.missing,
    }))
}

fn rfc3339(time: SystemTime) -> String {
    humantime::format_rfc3339_millis(time).to_string()
}

#[derive(Serialize)]
pub(super) struct NodesAnswer {
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

pub(super) async fn nodes(State(api): State<Api>) -> axum::Json<NodesAnswer> {
    let factory = api.node.factory();
    let now = SystemTime::now();
    let answer = |info: NodeInfo| NodeAnswer {
        id: info.tag,
        sockets: info.sockets,
        rooms: info.rooms,
        as_of: rfc3339(now.checked_sub(info.age).unwrap_or(now)),
    };
    let nodes = factory.node_infos().into_iter().map(answer).collect();
    axum::Json(NodesAnswer { node: factory.node(), nodes })
}
