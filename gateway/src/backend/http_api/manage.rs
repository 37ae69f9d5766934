//! `POST /v1/join`, `/v1/leave` and `/v1/disconnect`: what a backend does with sockets of any node.

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use roomcast_adapter::{Collected, NodeTag, Room};
use serde::{Deserialize, Serialize};

use super::body::Json;
use super::emit::message_id;
use super::selector::{Lists, To, selector};
use super::{Api, Problem};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Rooms {
    namespace: Option<String>,
    to: Option<To>,
    except: Option<Lists>,
    rooms: Vec<String>,
}

impl Rooms {
    fn names(&self) -> Result<Vec<Room>, Problem> {
        if self.rooms.is_empty() || self.rooms.iter().any(String::is_empty) {
            return Err(Problem::invalid("`rooms` has to name rooms"));
        }
        Ok(self.rooms.iter().map(|room| Room::from(room.as_str())).collect())
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Disconnect {
    namespace: Option<String>,
    to: Option<To>,
    except: Option<Lists>,
    #[serde(default)]
    close: bool,
    /// For the log: what the client is told is Socket.IO's.
    reason: Option<String>,
}

/// 202 says that every node has done it, but those that are named.
#[derive(Serialize)]
struct Done {
    id: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    missing_nodes: Vec<NodeTag>,
}

fn done(collected: Collected<()>) -> Result<Response, Problem> {
    let done = Done { id: message_id()?, missing_nodes: collected.missing };
    Ok((StatusCode::ACCEPTED, axum::Json(done)).into_response())
}

pub(super) async fn join(State(api): State<Api>, Json(body): Json<Rooms>) -> Result<Response, Problem> {
    let rooms = body.names()?;
    let selector = selector(body.to, body.except)?;
    let (_, adapter) = api.adapter(body.namespace.as_deref())?;
    done(adapter.sockets_join(&selector, &rooms).await?)
}

pub(super) async fn leave(State(api): State<Api>, Json(body): Json<Rooms>) -> Result<Response, Problem> {
    let rooms = body.names()?;
    let selector = selector(body.to, body.except)?;
    let (_, adapter) = api.adapter(body.namespace.as_deref())?;
    done(adapter.sockets_leave(&selector, &rooms).await?)
}

pub(super) async fn disconnect(
    State(api): State<Api>,
    Json(body): Json<Disconnect>,
) -> Result<Response, Problem> {
    let selector = selector(body.to, body.except)?;
    let (namespace, adapter) = api.adapter(body.namespace.as_deref())?;
    let done = done(adapter.disconnect_sockets(&selector, body.close).await?)?;
    tracing::info!(namespace, close = body.close, reason = body.reason, "a backend disconnected sockets");
    Ok(done)
}
