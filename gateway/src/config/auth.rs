//! Who clients are: tokens, sessions that end with them, and revocations. Owns the settings, verifies nothing.

use std::path::PathBuf;
use std::time::Duration;

use super::Secret;
use super::section::section;
use super::units;

section! {
    /// Who clients are, and when their sessions end. Without a key in `auth.jwt` every client is anonymous.
    pub struct Auth {
        /// The event by which a client extends its session: `socket.emit("auth:refresh", token, ack)`.
        refresh_event: String = "auth:refresh".to_owned(),
        /// The event by which a client is warned: `{expires_at}`, in seconds since 1970.
        expiring_event: String = "auth:expiring".to_owned(),
        /// The event by which a client learns why its session ends: `{code}`, which is "token_expired" or "token_revoked".
        expired_event: String = "auth:expired".to_owned(),
        /// How long before the end of a session its client is warned.
        #[serde(with = "units::duration")]
        expiring_before: Duration = Duration::from_secs(60),
        /// Revocations that a node keeps. When there are more, those go first that end first.
        max_revocations: usize = 100_000,
        /// How long a revocation holds when the call does not say. It should be as long as tokens live.
        #[serde(with = "units::duration")]
        revocation_time: Duration = Duration::from_secs(24 * 60 * 60),
    }
    tables {
        jwt: Jwt,
    }
}

section! {
    /// Tokens of clients: JSON Web Tokens in `io(url, {auth: {token}})`. In force as soon as there is one of `secret`,
    /// `public_key`, `public_key_file` and `jwks_url`; a token is judged by the keys that are made for its algorithm.
    pub struct Jwt {
        /// The secret of HS256, at least 32 bytes: itself, "env:NAME" or "file:PATH".
        secret: Option<Secret> = None; example "\"env:JWT_SECRET\"",
        /// Public keys in PEM (RS256 with at least 2048 bits, ES256, EdDSA), several for a rotation.
        public_key: Option<String> = None; example "\"-----BEGIN PUBLIC KEY-----...\"",
        /// A file with public keys in PEM.
        public_key_file: Option<PathBuf> = None; example "\"/etc/roomcast/jwt.pem\"",
        /// Where an issuer publishes its keys (RFC 7517). Symmetric keys in it are not taken.
        jwks_url: Option<String> = None; example "\"https://id.example/.well-known/jwks.json\"",
        /// Authorities to trust for `jwks_url` instead of the system's, in PEM.
        jwks_ca_file: Option<PathBuf> = None; example "\"/etc/roomcast/ca.pem\"",
        /// How often the issuer is asked for its keys.
        #[serde(with = "units::duration")]
        jwks_refresh: Duration = Duration::from_secs(600),
        /// A token with an unknown key has the issuer asked at once, but not again before this time.
        #[serde(with = "units::duration")]
        jwks_cooldown: Duration = Duration::from_secs(10),
        /// How long the issuer may take to answer.
        #[serde(with = "units::duration")]
        jwks_timeout: Duration = Duration::from_secs(5),
        /// The longest answer of the issuer.
        #[serde(with = "units::bytes")]
        jwks_max_bytes: usize = 512 * 1024,
        /// The algorithms that are taken: "HS256", "RS256", "ES256", "EdDSA". Empty: all that there are keys for.
        algorithms: Vec<JwtAlgorithm> = Vec::new(),
        /// Whom a token has to be for (`aud`), one of these: a name or a list. Empty: not asked.
        #[serde(deserialize_with = "units::one_or_many")]
        audience: Vec<String> = Vec::new(),
        /// Who has to have made a token (`iss`), one of these: a name or a list. Empty: not asked.
        #[serde(deserialize_with = "units::one_or_many")]
        issuer: Vec<String> = Vec::new(),
        /// By how much clocks may differ: for `nbf`, `iat` and `exp`. A session ends so much after `exp`.
        #[serde(with = "units::duration")]
        leeway: Duration = Duration::from_secs(5),
        /// Whether a client needs a token. If not, one without is anonymous; a bad token is refused in any case.
        required: bool = true,
        /// Whether a token needs `exp`. One without ends no session and can be used for ever.
        require_exp: bool = true,
        /// The claim that grants rooms: `{"join": [patterns], "emit": [patterns], "rooms": [joined at connect]}`.
        claim: String = "roomcast".to_owned(),
        /// A parameter of the URL's query that may hold the token, for clients that cannot send another. URLs stand in the
        /// logs of proxies.
        query_parameter: Option<String> = None; example "\"token\"",
        /// Whether the token may be in the handshake's header `Authorization: Bearer <token>`. Browsers cannot send it.
        authorization_header: bool = false,
    }
}

/// How a token is signed.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize, schemars::JsonSchema,
)]
pub enum JwtAlgorithm {
    /// HMAC with SHA-256 and a shared secret.
    #[serde(rename = "HS256")]
    Hs256,
    /// RSA (PKCS #1 v1.5) with SHA-256.
    #[serde(rename = "RS256")]
    Rs256,
    /// ECDSA on P-256 with SHA-256.
    #[serde(rename = "ES256")]
    Es256,
    /// Ed25519.
    #[serde(rename = "EdDSA")]
    EdDsa,
}

impl JwtAlgorithm {
    /// Every algorithm.
    pub const ALL: [Self; 4] = [Self::Hs256, Self::Rs256, Self::Es256, Self::EdDsa];

    /// The name in the header of a token (RFC 7518, section 3.1; RFC 8037, section 3.1).
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Hs256 => "HS256",
            Self::Rs256 => "RS256",
            Self::Es256 => "ES256",
            Self::EdDsa => "EdDSA",
        }
    }
}

impl Jwt {
    /// Whether tokens are looked at: there is a key to verify them with, or an issuer to ask for one.
    pub fn is_enabled(&self) -> bool {
        self.secret.is_some()
            || self.public_key.is_some()
            || self.public_key_file.is_some()
            || self.jwks_url.is_some()
    }

    /// Whether tokens of this algorithm are taken.
    pub fn takes(&self, algorithm: JwtAlgorithm) -> bool {
        self.algorithms.is_empty() || self.algorithms.contains(&algorithm)
    }
}
