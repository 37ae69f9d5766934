//! How nodes reach each other past the broker.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use super::section::section;
use super::units;

section! {
    /// How the nodes of a cluster reach each other past the broker. A request of a client that comes to another node than the
    /// one that has its session is passed on to that one, so that load balancers need no stickiness. A node that is alone has
    /// nothing of it.
    pub struct Peer {
        /// Whether requests are passed on, and taken from other nodes. Without it, every request of a client has to come to
        /// the node that has its session.
        enabled: bool = true,
        /// Address and port for the other nodes. When it is not set: a free port at the address from which this node reaches
        /// its broker. Clients need not reach it.
        listen: Option<SocketAddr> = None; example "\"0.0.0.0:3002\"",
        /// What the other nodes are told instead of `listen`, as they can reach it: an address, with a port or without. When
        /// it is not set and `listen` is all addresses: the one from which this node reaches its broker.
        advertise: Option<String> = None; example "\"10.1.2.3\"",
        /// Requests and WebSockets that this node may be passing on at one time, and, counted apart, requests that it may be
        /// answering for other nodes. What is more gets 503. Each takes two descriptors.
        max_requests: usize = 100_000,
        /// TCP connections to the port for nodes at one time that have brought no request of a node yet. The oldest of them
        /// makes room for a new one, so that strangers keep no node out.
        max_pending_connections: usize = 1_024,
        /// How long a connection to another node may take.
        #[serde(with = "units::duration")]
        connect_timeout: Duration = Duration::from_secs(2),
        /// By how much the clocks of two nodes may differ. A request that is older, or younger, is not taken.
        #[serde(with = "units::duration")]
        clock_skew: Duration = Duration::from_secs(60),
    }
}

impl Peer {
    /// What `advertise` says: an address, and a port if there is one. None when it is no address.
    pub(crate) fn advertised(text: &str) -> Option<(IpAddr, Option<u16>)> {
        let full = text.parse::<SocketAddr>().map(|address| (address.ip(), Some(address.port())));
        full.or_else(|_| text.parse().map(|ip| (ip, None))).ok()
    }
}
