//! `join`, `leave` and `disconnect`: what a backend does with sockets of any node.

use roomcast_adapter::{Collected, NodeTag, Room};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::selector::{Lists, To, selector};
use super::{Caller, Calls, Scope, call_id};
use crate::backend::Problem;

/// Whom to move, and into or out of which rooms.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Rooms {
    /// The namespace, "/" if none is named.
    namespace: Option<String>,
    /// Who is moved.
    #[schemars(with = "To")]
    to: Option<To>,
    /// Who is not.
    except: Option<Lists>,
    /// The rooms.
    #[schemars(length(min = 1))]
    rooms: Vec<String>,
}

impl Rooms {
    fn names(&self, caller: &Caller) -> Result<Vec<Room>, Problem> {
        if self.rooms.is_empty() || self.rooms.iter().any(String::is_empty) {
            return Err(Problem::invalid("`rooms` has to name rooms"));
        }
        self.rooms.iter().try_for_each(|room| caller.check_room(room))?;
        Ok(self.rooms.iter().map(|room| Room::from(room.as_str())).collect())
    }
}

/// Whom to disconnect.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Disconnect {
    /// The namespace, "/" if none is named.
    namespace: Option<String>,
    /// Who is disconnected.
    #[schemars(with = "To")]
    to: Option<To>,
    /// Who is not.
    except: Option<Lists>,
    /// Whether the whole connection ends, with the client's other namespaces.
    #[serde(default)]
    close: bool,
    /// For the log: what the client is told is Socket.IO's.
    reason: Option<String>,
}

impl Disconnect {
    /// All the sockets of a user.
    pub(crate) fn user(namespace: Option<String>, user: String, close: bool, reason: Option<String>) -> Self {
        Self { namespace, to: Some(To::user(user)), except: None, close, reason }
    }
}

/// Every node has done it, but those that are named.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct Done {
    /// By which the call can be found in the log.
    id: String,
    /// The nodes that did not confirm it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(with = "Option<Vec<String>>")]
    missing_nodes: Vec<NodeTag>,
}

pub(super) fn done(collected: Collected<()>) -> Result<Done, Problem> {
    Ok(Done { id: call_id()?, missing_nodes: collected.missing })
}

impl Calls {
    pub(crate) async fn join(&self, caller: &Caller, body: Rooms) -> Result<Done, Problem> {
        let rooms = body.names(caller)?;
        let selector = selector(body.to, body.except)?;
        let (_, adapter) = self.namespace(caller, Scope::Admin, body.namespace.as_deref())?;
        caller.check_reach(&selector)?;
        done(adapter.sockets_join(&selector, &rooms).await?)
    }

    pub(crate) async fn leave(&self, caller: &Caller, body: Rooms) -> Result<Done, Problem> {
        let rooms = body.names(caller)?;
        let selector = selector(body.to, body.except)?;
        let (_, adapter) = self.namespace(caller, Scope::Admin, body.namespace.as_deref())?;
        caller.check_reach(&selector)?;
        done(adapter.sockets_leave(&selector, &rooms).await?)
    }

    pub(crate) async fn disconnect(&self, caller: &Caller, body: Disconnect) -> Result<Done, Problem> {
        let selector = selector(body.to, body.except)?;
        let (namespace, adapter) = self.namespace(caller, Scope::Admin, body.namespace.as_deref())?;
        caller.check_reach(&selector)?;
        let done = done(adapter.disconnect_sockets(&selector, body.close).await?)?;
        let (id, close, reason) = (&done.id, body.close, &body.reason);
        tracing::info!(namespace, close, reason, call = id, "a backend disconnected sockets");
        Ok(done)
    }
}
