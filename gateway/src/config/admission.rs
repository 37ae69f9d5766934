//! How many clients a node takes. Owns the settings; who is refused is decided where handshakes are.

use super::MemoryLimit;
use super::section::section;

section! {
    /// How many clients a node takes, beside `public.max_connections` and the limits per address. Whoever is too much gets
    /// 503 with Retry-After before anything is kept for it. Those who are connected notice nothing.
    pub struct Admission {
        /// Handshakes of the node per second. Not limited when it is not set.
        handshakes_per_second: Option<u32> = None; example "500",
        /// Handshakes that may come at once. As many as in two seconds when it is not set.
        handshakes_burst: Option<u32> = None; example "1000",
        /// The resident memory of the process from which on it takes no new clients: a size, or a share of what its control
        /// group (or the machine) has, such as "80%". It takes them again at nine tenths of that. On Linux only.
        max_memory: Option<MemoryLimit> = None; example "\"80%\"",
        /// Whether a node that has `public.max_connections`, or `max_memory`, is not ready until it has a tenth less, as long
        /// as another node of the cluster is ready.
        unready_when_full: bool = true,
    }
}
