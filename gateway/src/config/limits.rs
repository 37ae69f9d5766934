//! Limits per address, user and socket. Owns the settings; who counts stands where it is counted.

use super::section::section;

section! {
    /// Limits per address, user and socket, each on one node. None is set by default: behind a proxy that hides addresses,
    /// all clients have that of the proxy, until `public.trusted_proxies` or `public.proxy_protocol` says otherwise.
    pub struct Limits {
        /// Connections of one address at one time. Further ones get 429. IPv6 addresses count by their /64 network.
        connections_per_ip: Option<u32> = None; example "200",
        /// Handshakes of one address per second, and twice as many at once. Further ones get 429.
        connects_per_ip: Option<u32> = None; example "20",
        /// Sockets of one user at one time, over all namespaces. Further ones are refused with `too_many_sockets`.
        sockets_per_user: Option<u32> = None; example "50",
        /// Events of one socket per second. Further ones are refused with `rate_limited`.
        events_per_second: Option<u32> = None; example "50",
        /// Events of one socket that may come at once. As many as in two seconds when it is not set.
        events_burst: Option<u32> = None; example "100",
    }
}
