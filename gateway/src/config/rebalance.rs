//! Whether a node with too many connections gives some away. Owns the settings; deciding is the server's.

use super::section::section;

section! {
    /// A node that has more connections than its share closes some of them, slowly, so that their clients come to nodes that
    /// have joined later. Only of use where the load balancer lets a client that comes back choose another node.
    pub struct Rebalance {
        /// By which share a node may be above the mean of the ready nodes: 0.2 is a fifth. It gives away down to half of
        /// that. Off when it is not set.
        threshold: Option<f64> = None; example "0.2",
        /// Connections that a node gives away per second.
        rate: u32 = 10,
        /// A node with fewer connections keeps them all.
        floor: u64 = 100,
    }
}
