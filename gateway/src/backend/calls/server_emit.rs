//! `server_emit`: an event to the servers of the cluster, for who embeds the gateway. Clients do not see it.

use roomcast_adapter::{Collected, NodeTag};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use serde_json::value::RawValue;

use super::args::{arguments, check_event};
use super::request::{args_value, timeout};
use super::{Caller, Calls, Scope, call_id};
use crate::backend::Problem;

/// An event for the other servers.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ServerEmit {
    /// The namespace, "/" if none is named.
    namespace: Option<String>,
    /// The name of the event.
    #[schemars(length(min = 1))]
    event: String,
    /// Its arguments. `{"$bin":"<base64>"}` stands for binary.
    #[schemars(with = "Option<Vec<serde_json::Value>>")]
    args: Option<Box<RawValue>>,
    /// Whether the servers are asked to answer.
    #[serde(default)]
    ack: bool,
    /// How long answers are awaited, in milliseconds; 10000 if it is not said.
    #[schemars(range(min = 1, max = 60_000))]
    timeout: Option<u64>,
}

/// What the servers answered, when they were asked to.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct ServerEmitted {
    id: String,
    /// The arguments of each answer; not there when none was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<Vec<Vec<serde_json::Value>>>")]
    pub(super) acks: Option<Vec<Value>>,
    /// The nodes that did not answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<Vec<String>>")]
    missing_nodes: Option<Vec<NodeTag>>,
}

impl Calls {
    /// Emits to the other servers, not to this one.
    pub(crate) async fn server_emit(
        &self,
        caller: &Caller,
        emit: ServerEmit,
    ) -> Result<ServerEmitted, Problem> {
        check_event(&emit.event)?;
        let timeout = timeout(emit.timeout)?;
        let args = arguments(emit.args.as_deref(), usize::MAX)?;
        let (_, adapter) = self.namespace(caller, Scope::Emit, emit.namespace.as_deref())?;
        caller.check_anyone()?;
        let id = call_id()?;
        if !emit.ack {
            adapter.server_side_emit(&emit.event, &args)?;
            return Ok(ServerEmitted { id, acks: None, missing_nodes: None });
        }
        let Collected { value, missing } =
            adapter.server_side_emit_with_ack(&emit.event, &args, timeout).await;
        let acks = value.iter().map(args_value).collect();
        Ok(ServerEmitted { id, acks: Some(acks), missing_nodes: Some(missing) })
    }
}
