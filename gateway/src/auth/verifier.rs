//! Verifying a token from end to end. Owns the order of the checks: form, algorithm, key, signature, claims.

use std::sync::Arc;
use std::time::SystemTime;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Deserialize;
use serde_json::{Map, Value};

use super::jwks::Jwks;
use super::keys::{Key, static_keys};
use super::{AuthError, KeyError, Verified, claims};
use crate::config::{Jwt, JwtAlgorithm};
use crate::metrics::Metrics;

/// The longest token, in bytes. Headers of HTTP have the same bound nearly everywhere.
const MAX_TOKEN: usize = 16 * 1024;

/// Verifies tokens by one configuration. Another one is another verifier.
pub(crate) struct Verifier {
    jwt: Jwt,
    own: Vec<Key>,
    jwks: Option<Arc<Jwks>>,
}

/// The part of a token's header that matters (RFC 7515, section 4.1).
#[derive(Deserialize)]
struct Header {
    alg: String,
    kid: Option<String>,
    /// What one has to understand to judge the token. There is nothing of the kind that the gateway does.
    crit: Option<Value>,
}

/// A token, taken apart.
struct Parts<'a> {
    algorithm: JwtAlgorithm,
    key_id: Option<String>,
    /// Header and payload, as they were signed.
    message: &'a str,
    payload: &'a str,
    signature: &'a str,
}

impl Verifier {
    /// A verifier, or none when there is nothing to verify with. `before` gives its issuer's keys if they are the same
    /// issuer's. Needs a runtime, on which the issuer is asked.
    pub(crate) fn new(
        jwt: &Jwt,
        before: Option<&Verifier>,
        metrics: &Arc<Metrics>,
    ) -> Result<Option<Self>, KeyError> {
        if !jwt.is_enabled() {
            return Ok(None);
        }
        let kept = before.filter(|before| before.asks_like(jwt)).and_then(|before| before.jwks.clone());
        let jwks = kept.or_else(|| Jwks::start(jwt, metrics));
        Ok(Some(Self { jwt: jwt.clone(), own: static_keys(jwt).map_err(|(_, error)| error)?, jwks }))
    }

    fn asks_like(&self, jwt: &Jwt) -> bool {
        let issuer = |jwt: &Jwt| {
            let times = (jwt.jwks_refresh, jwt.jwks_cooldown, jwt.jwks_timeout);
            (jwt.jwks_url.clone(), jwt.jwks_ca_file.clone(), times, jwt.jwks_max_bytes)
        };
        issuer(&self.jwt) == issuer(jwt)
    }

    /// The settings that it goes by.
    pub(crate) fn settings(&self) -> &Jwt {
        &self.jwt
    }

    /// Verifies a token. Waits only for an issuer, and no longer than its timeout.
    pub(crate) async fn verify(&self, token: &str, now: SystemTime) -> Result<Verified, AuthError> {
        let parts = Parts::of(token)?;
        let is_shared = parts.algorithm == JwtAlgorithm::Hs256;
        if !self.jwt.takes(parts.algorithm) || (is_shared && self.jwt.secret.is_none()) {
            return Err(AuthError::Algorithm);
        }
        let own = parts.signed_by(&self.own);
        match (own, &self.jwks) {
            (Ok(()), _) => {}
            // A secret of ours is nobody else's.
            (Err(error), _) if is_shared => return Err(error),
            (Err(error), None) => return Err(error),
            (Err(_), Some(jwks)) => parts.signed_by_issuer(jwks).await?,
        }
        self.judge(&parts, now)
    }

    fn judge(&self, parts: &Parts<'_>, now: SystemTime) -> Result<Verified, AuthError> {
        let payload = URL_SAFE_NO_PAD.decode(parts.payload).map_err(|_| AuthError::Malformed)?;
        let claims: Map<String, Value> =
            serde_json::from_slice(&payload).map_err(|_| AuthError::Malformed)?;
        claims::judge(claims, &self.jwt, now)
    }
}

impl<'a> Parts<'a> {
    fn of(token: &'a str) -> Result<Self, AuthError> {
        if token.len() > MAX_TOKEN {
            return Err(AuthError::Malformed);
        }
        let (message, signature) = token.rsplit_once('.').ok_or(AuthError::Malformed)?;
        let (header, payload) = message.split_once('.').ok_or(AuthError::Malformed)?;
        let header = URL_SAFE_NO_PAD.decode(header).map_err(|_| AuthError::Malformed)?;
        let header: Header = serde_json::from_slice(&header).map_err(|_| AuthError::Malformed)?;
        if header.crit.is_some() {
            return Err(AuthError::Malformed);
        }
        // "none" is among the others.
        let known = JwtAlgorithm::ALL.into_iter().find(|known| known.as_str() == header.alg);
        let algorithm = known.ok_or(AuthError::Algorithm)?;
        Ok(Self { algorithm, key_id: header.kid, message, payload, signature })
    }

    /// Whether the token is signed with one of the keys: the one that it names, where they have names.
    fn signed_by(&self, keys: &[Key]) -> Result<(), AuthError> {
        let is_named = |key: &&Key| match (&self.key_id, &key.id) {
            (Some(named), Some(id)) => **named == **id,
            // A key without a name may be any; a token that names none may be of any key.
            _ => true,
        };
        let mut named = keys.iter().filter(is_named).peekable();
        if named.peek().is_none() {
            return Err(AuthError::UnknownKey);
        }
        let mut candidates = named.filter(|key| key.algorithm == self.algorithm).peekable();
        if candidates.peek().is_none() {
            return Err(AuthError::Algorithm);
        }
        let message = self.message.as_bytes();
        let signed = candidates.any(|key| key.verifies(message, self.signature));
        signed.then_some(()).ok_or(AuthError::Signature)
    }

    /// The same with the keys of an issuer, who is asked again if it may have a newer one.
    async fn signed_by_issuer(&self, jwks: &Jwks) -> Result<(), AuthError> {
        let known = jwks.keys().map_or(Err(AuthError::UnknownKey), |keys| self.signed_by(&keys));
        match known {
            Err(AuthError::UnknownKey) => self.signed_by(&jwks.ask_again().await?),
            // A new key may have no name either.
            Err(AuthError::Signature) if self.key_id.is_none() => self.signed_by(&jwks.ask_again().await?),
            known => known,
        }
    }
}
