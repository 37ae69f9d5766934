//! The names of the subjects. Whoever receives a message goes by what it says, never by the subject it came on.

use super::Subject;
use crate::id::NodeTag;

/// Every node: membership, requests.
pub(crate) fn all() -> Subject {
    "all".into()
}

/// One node: answers, emits to its sockets.
pub(crate) fn node(tag: NodeTag) -> Subject {
    format!("node/{tag}").into()
}

/// Every node that has a namespace.
pub(crate) fn namespace(namespace: &str) -> Subject {
    format!("ns/{namespace}").into()
}

/// Every node that has a member of a room.
pub(crate) fn room(namespace: &str, room: &str) -> Subject {
    format!("room/{namespace}\0{room}").into()
}
