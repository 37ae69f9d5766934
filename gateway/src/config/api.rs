//! The listener for backends and operators.

use std::net::SocketAddr;

use super::Secret;
use super::section::section;
use super::units;

section! {
    /// The listener for backends and operators: /v1, /metrics, /livez, /readyz, /console.
    pub struct Api {
        /// Address and port. An address that is not loopback needs `keys`.
        listen: SocketAddr = SocketAddr::from(([127, 0, 0, 1], 3001)),
        /// API keys: each is the key itself, "env:NAME" or "file:PATH". When there are any, calls of /v1 need one of them
        /// as `Authorization: Bearer <key>`.
        keys: Vec<Secret> = Vec::new(),
        /// The longest body of a request.
        #[serde(with = "units::bytes")]
        max_body: usize = 1 << 20,
    }
}
