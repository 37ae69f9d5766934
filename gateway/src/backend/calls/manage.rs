//! `join`, `leave` and `disconnect`: what a backend does with sockets of any node.

use roomcast_adapter::{Collected, NodeTag, Room};
use serde::{Deserialize, Serialize};

use super::selector::{Lists, To, selector};
use super::{Caller, Calls, Scope, call_id};
use crate::backend::Problem;

/// Whom to move, and into or out of which rooms.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Rooms {
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

/// Whom to disconnect.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Disconnect {
    namespace: Option<String>,
    to: Option<To>,
    except: Option<Lists>,
    #[serde(default)]
    close: bool,
    /// For the log: what the client is told is Socket.IO's.
    reason: Option<String>,
}

/// Every node has done it, but those that are named.
#[derive(Debug, Serialize)]
pub(crate) struct Done {
    id: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    missing_nodes: Vec<NodeTag>,
}

pub(super) fn done(collected: Collected<()>) -> Result<Done, Problem> {
    Ok(Done { id: call_id()?, missing_nodes: collected.missing })
}

impl Calls {
    pub(crate) async fn join(&self, caller: &Caller, body: Rooms) -> Result<Done, Problem> {
        let rooms = body.names()?;
        let selector = selector(body.to, body.except)?;
        let (_, adapter) = self.namespace(caller, Scope::Admin, body.namespace.as_deref())?;
        done(adapter.sockets_join(&selector, &rooms).await?)
    }

    pub(crate) async fn leave(&self, caller: &Caller, body: Rooms) -> Result<Done, Problem> {
        let rooms = body.names()?;
        let selector = selector(body.to, body.except)?;
        let (_, adapter) = self.namespace(caller, Scope::Admin, body.namespace.as_deref())?;
        done(adapter.sockets_leave(&selector, &rooms).await?)
    }

    pub(crate) async fn disconnect(&self, caller: &Caller, body: Disconnect) -> Result<Done, Problem> {
        let selector = selector(body.to, body.except)?;
        let (namespace, adapter) = self.namespace(caller, Scope::Admin, body.namespace.as_deref())?;
        let done = done(adapter.disconnect_sockets(&selector, body.close).await?)?;
        tracing::info!(namespace, close = body.close, reason = body.reason, "a backend disconnected sockets");
        Ok(done)
    }
}
