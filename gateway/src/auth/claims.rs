//! What a token says: when it holds, for whom, and which rooms it grants.
//!
//! Owns reading claims whose signature was verified. Times are arguments: nothing here asks a clock.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::{Map, Value};

use super::AuthError;
use crate::config::{Jwt, RoomPattern};

/// The longest name of a user, in bytes: it becomes the name of a room.
const MAX_USER: usize = 255;
/// Patterns and rooms in one list of a claim.
const MAX_GRANTS: usize = 200;
/// The longest pattern or room of a claim, in bytes.
const MAX_GRANT: usize = 512;
/// Later than this no date is meant: the year 9999.
const MAX_SECONDS: f64 = 253_402_300_799.0;

/// What a token proves.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Verified {
    /// `sub`: who the client is.
    pub(crate) user: Arc<str>,
    /// All claims, as they stand in the token.
    pub(crate) claims: Arc<Map<String, Value>>,
    /// Which rooms it grants.
    pub(crate) grants: Option<Arc<Grants>>,
    /// `jti`: which token it is.
    pub(crate) token: Option<Arc<str>>,
    /// `iat`.
    pub(crate) issued_at: Option<SystemTime>,
    /// `exp`.
    pub(crate) expires_at: Option<SystemTime>,
}

/// The rooms that a claim grants.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Grants {
    join: Vec<RoomPattern>,
    emit: Vec<RoomPattern>,
    /// Joined when the client connects.
    pub(crate) rooms: Vec<Arc<str>>,
}

impl Grants {
    /// Whether the client may join a room by its token.
    pub(crate) fn may_join(&self, room: &str) -> bool {
        self.join.iter().any(|pattern| pattern.matches(room))
    }

    /// Whether the client may emit to a room by its token.
    pub(crate) fn may_emit(&self, room: &str) -> bool {
        self.emit.iter().any(|pattern| pattern.matches(room))
    }

    /// Reads the claim. What is not of its form makes the token invalid: nobody should have to find out by what is missing.
    fn read(claim: &Value) -> Option<Self> {
        let object = claim.as_object()?;
        let list = |key: &str| -> Option<Vec<&str>> {
            let Some(list) = object.get(key) else { return Some(Vec::new()) };
            let list = list.as_array()?;
            let texts =
                list.iter().map(|item| item.as_str().filter(|text| (1..=MAX_GRANT).contains(&text.len())));
            Some(list).filter(|list| list.len() <= MAX_GRANTS)?;
            texts.collect()
        };
        let patterns = |key| Some(list(key)?.into_iter().map(RoomPattern::from).collect());
        let rooms = list("rooms")?.into_iter().map(Arc::from).collect();
        Some(Self { join: patterns("join")?, emit: patterns("emit")?, rooms })
    }
}

/// Judges claims whose signature is right.
pub(super) fn judge(claims: Map<String, Value>, jwt: &Jwt, now: SystemTime) -> Result<Verified, AuthError> {
    let expires_at = time(&claims, "exp")?;
    match expires_at {
        None if jwt.require_exp => return Err(AuthError::Claim("exp")),
        Some(end) if now >= end + jwt.leeway => return Err(AuthError::Expired),
        _ => {}
    }
    let latest = now + jwt.leeway;
    let issued_at = time(&claims, "iat")?;
    // One from the future could not be revoked by time.
    if time(&claims, "nbf")?.is_some_and(|begin| begin > latest) || issued_at.is_some_and(|at| at > latest) {
        return Err(AuthError::NotYetValid);
    }
    if !jwt.audience.is_empty()
        && !names(&claims, "aud").any(|name| jwt.audience.iter().any(|own| own == name))
    {
        return Err(AuthError::Audience);
    }
    let issuer = claims.get("iss").and_then(Value::as_str);
    if !jwt.issuer.is_empty() && !jwt.issuer.iter().any(|known| Some(known.as_str()) == issuer) {
        return Err(AuthError::Issuer);
    }
    let user = claims.get("sub").and_then(Value::as_str).filter(|sub| (1..=MAX_USER).contains(&sub.len()));
    let user = user.ok_or(AuthError::Claim("sub"))?.into();
    let token = match claims.get("jti") {
        None => None,
        Some(jti) => Some(jti.as_str().ok_or(AuthError::Claim("jti"))?.into()),
    };
    let grants = match claims.get(&jwt.claim) {
        None => None,
        Some(claim) => Some(Arc::new(Grants::read(claim).ok_or(AuthError::Claim("grant of rooms"))?)),
    };
    Ok(Verified { user, claims: Arc::new(claims), grants, token, issued_at, expires_at })
}

/// A NumericDate (RFC 7519, section 2): seconds since 1970, with or without a fraction.
fn time(claims: &Map<String, Value>, name: &'static str) -> Result<Option<SystemTime>, AuthError> {
    let Some(value) = claims.get(name) else { return Ok(None) };
    let seconds = value.as_f64().filter(|seconds| (0.0..=MAX_SECONDS).contains(seconds));
    let seconds = seconds.ok_or(AuthError::Claim(name))?;
    Ok(Some(UNIX_EPOCH + Duration::from_secs_f64(seconds)))
}

/// The names of `aud`: one, or a list (RFC 7519, section 4.1.3).
fn names<'a>(claims: &'a Map<String, Value>, name: &str) -> impl Iterator<Item = &'a str> {
    let value = claims.get(name);
    let list = value.and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
    value.and_then(Value::as_str).into_iter().chain(list.iter().filter_map(Value::as_str))
}
