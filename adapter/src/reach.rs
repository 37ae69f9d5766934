//! Where a node can be asked by other nodes past the broker. Owns the form only: what is asked is the gateway's.

use std::fmt;
use std::net::SocketAddr;

/// What a node tells the others so that they can reach it: an address, and the key by which it knows them.
///
/// Every node of the cluster learns the key, and so does whoever can read what the broker carries.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reach {
    /// Where the node listens for the others.
    pub address: SocketAddr,
    /// Who has it is a node of the cluster.
    pub key: ReachKey,
}

/// A secret of one life of a node. It is not printed.
#[derive(Clone, PartialEq, Eq)]
pub struct ReachKey([u8; Self::LEN]);

impl ReachKey {
    /// The length in bytes.
    pub const LEN: usize = 32;

    /// From bytes of a secure source.
    pub fn new(bytes: [u8; Self::LEN]) -> Self {
        Self(bytes)
    }

    /// The bytes.
    pub fn expose(&self) -> &[u8; Self::LEN] {
        &self.0
    }
}

impl fmt::Debug for ReachKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("<key>")
    }
}
