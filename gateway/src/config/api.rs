//! The listener for backends and operators, and who may use it.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use super::section::section;
use super::units;
use super::{Jwt, ListenerTls, RoomPattern, Secret};

section! {
    /// The listener for backends and operators: /v1, /openapi.json, /metrics, /livez, /readyz, /console.
    pub struct Api {
        /// Address and port. An address that is not loopback needs `keys`, `[[api.key]]`, `[api.jwt]` or
        /// `tls.client_ca_file`.
        listen: SocketAddr = SocketAddr::from(([127, 0, 0, 1], 3001)),
        /// API keys that may do everything: each is the key itself, "env:NAME" or "file:PATH". When there are any, or any
        /// `[[api.key]]`, calls of /v1 need one as `Authorization: Bearer <key>`.
        keys: Vec<Secret> = Vec::new(),
        /// The longest body of a request.
        #[serde(with = "units::bytes")]
        max_body: usize = 1 << 20,
        /// Connections at one time. Further ones are closed at once.
        max_connections: usize = 4_096,
    }
    tables {
        tls: ListenerTls,
        jwt: ApiJwt,
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
        /// `user:<id>`. With any, it cannot name sockets or say "all". Without any, it reaches everybody.
        rooms: Vec<RoomPattern> = Vec::new(); example "[\"order:{id}\"]",
        /// Calls per second, each item of a batch among them. What is more gets 429.
        rate: Option<u32> = None; example "100",
    }
}

section! {
    /// Tokens as credentials of the API: JSON Web Tokens in `Authorization: Bearer <token>`. In force as soon as there is
    /// one of `secret`, `public_key`, `public_key_file` and `jwks_url`. What a token may do stands in its claim `scope`
    /// ("emit read"). A token needs `sub` and `exp`.
    pub struct ApiJwt {
        /// The secret of HS256, at least 32 bytes: itself, "env:NAME" or "file:PATH".
        secret: Option<Secret> = None; example "\"env:API_JWT_SECRET\"",
        /// Public keys in PEM (RS256 with at least 2048 bits, ES256, EdDSA), several for a rotation.
        public_key: Option<String> = None; example "\"-----BEGIN PUBLIC KEY-----...\"",
        /// A file with public keys in PEM.
        public_key_file: Option<PathBuf> = None; example "\"/etc/roomcast/api-jwt.pem\"",
        /// Where an issuer publishes its keys (RFC 7517). Symmetric keys in it are not taken.
        jwks_url: Option<String> = None; example "\"https://id.example/.well-known/jwks.json\"",
        /// Authorities to trust for `jwks_url` instead of the system's, in PEM.
        jwks_ca_file: Option<PathBuf> = None; example "\"/etc/roomcast/ca.pem\"",
        /// Whom a token has to be for (`aud`), one of these: a name or a list. Empty: not asked. Where clients have tokens of
        /// the same issuer, it should be asked.
        #[serde(deserialize_with = "units::one_or_many")]
        audience: Vec<String> = Vec::new(),
        /// Who has to have made a token (`iss`), one of these: a name or a list. Empty: not asked.
        #[serde(deserialize_with = "units::one_or_many")]
        issuer: Vec<String> = Vec::new(),
        /// By how much clocks may differ.
        #[serde(with = "units::duration")]
        leeway: Duration = Duration::from_secs(5),
        /// The claim that holds a token to some namespaces and rooms: `{"namespaces": [patterns], "rooms": [patterns]}`, which
        /// mean what they mean for `[[api.key]]`.
        claim: String = "roomcast_api".to_owned(),
    }
}

impl ApiJwt {
    /// The same in the words of tokens of clients.
    pub(crate) fn to_jwt(&self) -> Jwt {
        Jwt {
            secret: self.secret.clone(),
            public_key: self.public_key.clone(),
            public_key_file: self.public_key_file.clone(),
            jwks_url: self.jwks_url.clone(),
            jwks_ca_file: self.jwks_ca_file.clone(),
            audience: self.audience.clone(),
            issuer: self.issuer.clone(),
            leeway: self.leeway,
            // Clients' rooms are none of a backend's.
            claim: String::new(),
            ..Jwt::default()
        }
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
        self.keys.is_empty()
            && self.named_keys.is_empty()
            && !self.jwt.to_jwt().is_enabled()
            && !self.tls.takes_client_certificates()
    }
}
