//! The names of the subjects. Whoever receives a message goes by what it says, never by the subject it came on.

use super::Subject;
use crate::id::NodeTag;

/// How the subjects of rooms begin.
pub(crate) const ROOM: &str = "room/";
/// How the subjects of buckets of rooms begin.
pub(crate) const BUCKET: &str = "hash/";

/// Every node: membership, requests.
pub(crate) fn all() -> Subject {
    "all".into()
}

/// Every node that tells where it is reached, and wants to hear it of others.
pub(crate) fn reach() -> Subject {
    "reach".into()
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
    format!("{ROOM}{namespace}\0{room}").into()
}

/// Every node that listens by hash and has a member of a room of this bucket. The number of buckets is in the name: those
/// who do not agree on it do not misunderstand each other.
pub(crate) fn bucket(buckets: u32, bucket: u32) -> Subject {
    format!("{BUCKET}{buckets}/{bucket}").into()
}
