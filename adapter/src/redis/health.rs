//! Whether a server that answers is still the one that a link needs.

use std::future::Future;

use futures_util::{FutureExt, future};

use super::{connection::Connection, resp::Frame};
use crate::{broker::Fault, cluster::BusError};

/// What a server has to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Health {
    /// There.
    Answers,
    /// A master: one that was demoted may keep its connections, and nobody publishes there any more.
    Master,
    /// A node of a cluster that works: one that is cut off from the others may keep its connections too.
    ClusterNode,
    /// Both.
    ClusterMaster,
}

/// Asks a server. When it answers that it is not what it has to be, the link's fault is raised. The commands are queued
/// at once.
pub(super) fn check(
    connection: &Connection,
    health: Health,
    fault: &Fault,
) -> impl Future<Output = Result<(), BusError>> + Send + use<> {
    let role = matches!(health, Health::Master | Health::ClusterMaster).then(|| connection.call(&["ROLE"]));
    let cluster = matches!(health, Health::ClusterNode | Health::ClusterMaster)
        .then(|| connection.call(&["CLUSTER", "INFO"]));
    let ping = matches!(health, Health::Answers).then(|| connection.call(&["PING"]));
    let (endpoint, fault) = (connection.endpoint().clone(), fault.clone());
    let optional = |call: Option<_>| match call {
        Some(call) => {
            FutureExt::left_future(FutureExt::map(call, |answer: Result<Frame, BusError>| answer.map(Some)))
        }
        None => future::ok(None).right_future(),
    };
    let asked = future::try_join3(optional(role), optional(cluster), optional(ping));
    async move {
        let (role, cluster, _) = asked.await?;
        let lost = match (role, cluster) {
            (Some(role), _) if !is_master(&role) => "is not a master any more",
            (_, Some(info)) if !info.text().is_some_and(is_working) => {
                "is not part of a working cluster any more"
            }
            _ => return Ok(()),
        };
        let reason = format!("{endpoint} {lost}");
        fault.raise(reason.clone());
        Err(BusError::Unavailable(reason))
    }
}

/// From the answer to ROLE.
fn is_master(role: &Frame) -> bool {
    role.list().and_then(<[_]>::first).and_then(Frame::text) == Some("master")
}

/// From the answer to CLUSTER INFO.
pub(super) fn is_working(info: &str) -> bool {
    info.lines().any(|line| line.trim_end() == "cluster_state:ok")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn roles_and_states() {
        let text = |text: &'static str| Frame::Bytes(text.into());
        assert!(is_master(&Frame::List(vec![text("master"), Frame::Integer(1)])));
        assert!(!is_master(&Frame::List(vec![text("slave")])) && !is_master(&Frame::Null));
        assert!(is_working("cluster_state:ok\r\ncluster_slots_assigned:16384\r\n"));
        assert!(!is_working("cluster_state:fail\r\ncluster_slots_ok:0\r\n"));
    }
}
