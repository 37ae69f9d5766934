//! `nodes` and `drain`: who is in the cluster, and sending the clients of one of them away.

use std::time::{Duration, SystemTime};

use roomcast_adapter::{DrainError, DrainOrder, NodeInfo, NodeState, NodeTag};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::read::rfc3339;
use super::{Caller, Calls, Scope};
use crate::backend::{Code, Problem};

/// The longest time that a drain may be told to take.
const MAX_TIME: Duration = Duration::from_secs(24 * 60 * 60);

/// The live nodes.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct NodesAnswer {
    /// The node that answers.
    #[schemars(with = "String")]
    node: NodeTag,
    nodes: Vec<NodeAnswer>,
}

/// A live node, as it said with its last sign of life. What a node of an older version does not say is not there.
#[derive(Debug, Serialize, JsonSchema)]
struct NodeAnswer {
    #[schemars(with = "String")]
    id: NodeTag,
    /// Whether it takes clients: "unready" is not now, "draining" not any more.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("enum" = ["ready", "unready", "draining"]))]
    state: Option<&'static str>,
    /// Its open connections: one may have sockets in several namespaces.
    #[serde(skip_serializing_if = "Option::is_none")]
    connections: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    sockets: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    rooms: Option<u64>,
    /// When it was (RFC 3339).
    as_of: String,
}

/// How a node drains; what is not said is as it is configured there.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Drain {
    /// How long it still takes clients, so that load balancers hear of it first: "5s".
    #[schemars(regex(pattern = r"^\s*\d+\s*[a-zA-Z]+(\s*\d+\s*[a-zA-Z]+)*\s*$"))]
    delay: Option<String>,
    /// Over how long it closes its connections: "2m".
    #[schemars(regex(pattern = r"^\s*\d+\s*[a-zA-Z]+(\s*\d+\s*[a-zA-Z]+)*\s*$"))]
    period: Option<String>,
}

impl Drain {
    fn order(&self) -> Result<DrainOrder, Problem> {
        Ok(DrainOrder {
            delay: time("delay", self.delay.as_deref())?,
            period: time("period", self.period.as_deref())?,
        })
    }
}

fn time(name: &str, text: Option<&str>) -> Result<Option<Duration>, Problem> {
    let read = |text| humantime::parse_duration(text).ok().filter(|time| *time <= MAX_TIME);
    let problem =
        || Problem::invalid(format!("`{name}` has to be a time such as \"60s\", and a day at most"));
    text.map(|text| read(text).ok_or_else(problem)).transpose()
}

/// A node that drains. Its process ends then.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct DrainAnswer {
    #[schemars(with = "String")]
    node: NodeTag,
    #[schemars(extend("enum" = ["draining"]))]
    state: &'static str,
    /// It was draining already, and goes on as it did.
    already: bool,
    /// The connections that it has still.
    connections: u64,
}

impl Calls {
    pub(crate) fn nodes(&self, caller: &Caller) -> Result<NodesAnswer, Problem> {
        caller.check_everywhere(Scope::Read)?;
        let factory = self.node.factory();
        let now = SystemTime::now();
        let answer = |info: NodeInfo| NodeAnswer {
            id: info.tag,
            state: info.standing.map(|standing| standing.state.as_str()),
            connections: info.standing.map(|standing| standing.connections),
            sockets: info.sockets,
            rooms: info.rooms,
            as_of: rfc3339(now.checked_sub(info.age).unwrap_or(now)),
        };
        let nodes = factory.node_infos().into_iter().map(answer).collect();
        Ok(NodesAnswer { node: factory.node(), nodes })
    }

    pub(crate) async fn drain(
        &self,
        caller: &Caller,
        node: &str,
        body: &Drain,
    ) -> Result<DrainAnswer, Problem> {
        caller.check_everywhere(Scope::Admin)?;
        let order = body.order()?;
        let unknown = || Problem::new(Code::NotFound, format!("there is no node \"{node}\""));
        let tag: NodeTag = node.parse().map_err(|_| unknown())?;
        let drains = self.node.factory().drain(tag, order).await.map_err(|error| match error {
            DrainError::UnknownNode => unknown(),
            DrainError::TooOld => Problem::new(Code::NodeTooOld, error.to_string()),
            DrainError::NoAnswer | DrainError::Unreachable => {
                Problem::new(Code::BrokerUnavailable, error.to_string())
            }
            // The adapter may learn new ones; until it has a code here, it is a fault of ours.
            _ => Problem::new(Code::Internal, error.to_string()),
        })?;
        tracing::info!(node = %tag, caller = caller.name(), already = drains.already, "a backend drains a node");
        let (state, already, connections) =
            (NodeState::Draining.as_str(), drains.already, drains.connections);
        Ok(DrainAnswer { node: tag, state, already, connections })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_of_a_drain_are_read_and_bounded() {
        let order = |json: &str| serde_json::from_str::<Drain>(json).unwrap().order();
        let minute = Some(Duration::from_secs(60));
        assert_eq!(order("{}"), Ok(DrainOrder::default()));
        assert_eq!(order(r#"{"period":"1m"}"#), Ok(DrainOrder { delay: None, period: minute }));
        assert_eq!(order(r#"{"delay":" 60s "}"#), Ok(DrainOrder { delay: minute, period: None }));
        for json in [r#"{"period":"60"}"#, r#"{"period":""}"#, r#"{"delay":"2days"}"#, r#"{"delay":"-1s"}"#] {
            assert!(order(json).is_err(), "{json}");
        }
    }
}
