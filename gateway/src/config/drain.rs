//! How a node ends. Owns the settings; ending is the server's.

use std::time::Duration;

use super::section::section;
use super::units;

section! {
    /// How a node ends after SIGTERM or `POST /v1/nodes/{id}/drain`: it is not ready first, then takes no new clients, then
    /// closes its connections one after the other so that clients come back to other nodes, then exits with 0. SIGINT
    /// (Ctrl-C) closes all at once. What ends a node should give it `delay` + `period` + twice `grace` + 6 s.
    pub struct Drain {
        /// How long it still takes clients while it is not ready, so that load balancers hear of it first. A node that
        /// has no connections and is alone does not wait.
        #[serde(with = "units::duration")]
        delay: Duration = Duration::from_secs(2),
        /// Connections that are closed per second, unless that would take longer than `period`.
        rate: u32 = 100,
        /// Over how long the connections are closed at most. All of them come back to the other nodes within this time.
        #[serde(with = "units::duration")]
        period: Duration = Duration::from_secs(5),
        /// How long a connection that is due may still wait for the acks of events that are under way, its client's own among
        /// them, and afterwards the node for what backends are to be told. What is not done then is cut off. Also for
        /// connections that are closed to rebalance.
        #[serde(with = "units::duration")]
        grace: Duration = Duration::from_secs(10),
    }
}
