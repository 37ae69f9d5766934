//! The listener for backends and operators, and who may use it.

use std::net::SocketAddr;

use super::section::section;
use super::units;
use super::{RoomPattern, Secret};

section! {
    /// The listener for backends and operators: /v1, /openapi.json, /metrics, /livez, /readyz, /console.
    pub struct Api {
        /// Address and port. An address that is not loopback needs `keys` or `[[api.key]]`.
        listen: SocketAddr = SocketAddr::from(([127, 0, 0, 1], 3001)),
        /// API keys that may do everything: each is the key itself, "env:NAME" or "file:PATH". When there are any, or any
        /// `[[api.key]]`, calls of /v1 need one as `Authorization: Bearer <key>`.
        keys: Vec<Secret> = Vec::new(),
        /// The longest body of a request.
        #[serde(with = "units::bytes")]
        max_body: usize = 1 << 20,
    }
    lists {
        named_keys as "key": ApiKey = Vec::new(),
    }
}

section! {
    /// An API key with limits.
    pub struct ApiKey {
        /// Whose it is: shows in logs. What one key has done under an idempotency key is not known to another name.
        name: String = String::new(); example "\"orders\"",
        /// The key itself, "env:NAME" or "file:PATH".
        secret: Option<Secret> = None; example "\"env:ORDERS_API_KEY\"",
        /// What it may do: "emit" (emit, request, server-emit), "read" (rooms, sockets, nodes), "admin" (join, leave,
        /// disconnect, revoke tokens, drain).
        scopes: Vec<ApiScope> = vec![ApiScope::Emit],
        /// The namespaces that it may use, as patterns: "*" stands for any text. Without any, all.
        namespaces: Vec<RoomPattern> = Vec::new(); example "[\"/shop\"]",
        /// The rooms whose members it may reach, as patterns like those of `[[namespace.room]]`. A user is the room
        /// "user:<id>". With any, it cannot name sockets or say "all". Without any, it reaches everybody.
        rooms: Vec<RoomPattern> = Vec::new(); example "[\"order:{id}\"]",
        /// Calls per second, each item of a batch among them. What is more gets 429.
        rate: Option<u32> = None; example "100",
    }
}

/// What an API key may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum ApiScope {
    /// To emit, and to ask clients for acks.
    Emit,
    /// To read rooms, sockets and nodes.
    Read,
    /// To move and disconnect sockets, revoke tokens and drain nodes.
    Admin,
}

impl Api {
    /// Whether everybody who reaches the listener is let in.
    pub fn is_keyless(&self) -> bool {
        self.keys.is_empty() && self.named_keys.is_empty()
    }
}
