//! `revoke`: tokens that must not be believed any more, and the sessions that have them.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use schemars::JsonSchema;
use serde::Deserialize;

use super::manage::{Done, done};
use super::{Caller, Calls, Code, Scope};
use crate::auth::{Revoked, millis};
use crate::backend::Problem;

/// The longest id of a token or name of a user, in bytes.
const MAX_NAME: usize = 512;
/// By how much the clock of a caller may be ahead.
const MAX_AHEAD: Duration = Duration::from_secs(60);
/// Nobody means tokens that live longer; milliseconds instead of seconds are taken for a mistake.
const MAX_LIFE: Duration = Duration::from_secs(10 * 366 * 24 * 60 * 60);

/// Which tokens: one by its `jti`, or those of a user that were made before a time.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Revoke {
    /// The id of one token.
    jti: Option<String>,
    /// The user.
    sub: Option<String>,
    /// Now, when it is not given.
    before: Option<Time>,
    /// When the last of the tokens expires. When it is not given, `auth.revocation_time` from now.
    expires_at: Option<Time>,
}

/// Seconds since 1970 as in a token, or RFC 3339.
#[derive(Deserialize, JsonSchema)]
#[serde(untagged)]
enum Time {
    Seconds(f64),
    Text(String),
}

impl Time {
    fn read(&self, field: &str) -> Result<SystemTime, Problem> {
        let invalid = || {
            Problem::invalid(format!("`{field}` has to be in seconds since 1970, or as 2030-12-31T23:59:59Z"))
        };
        match self {
            Self::Seconds(seconds) => Duration::try_from_secs_f64(*seconds)
                .ok()
                .and_then(|since| UNIX_EPOCH.checked_add(since))
                .ok_or_else(invalid),
            Self::Text(text) => humantime::parse_rfc3339(text).map_err(|_| invalid()),
        }
    }
}

impl Revoke {
    fn tokens(&self, now: SystemTime) -> Result<Revoked, Problem> {
        let name = |field: &str, name: &str| {
            let valid = (1..=MAX_NAME).contains(&name.len());
            valid
                .then(|| name.into())
                .ok_or_else(|| Problem::invalid(format!("`{field}` has to have 1 to {MAX_NAME} bytes")))
        };
        match (&self.jti, &self.sub) {
            (Some(jti), None) if self.before.is_none() => Ok(Revoked::Token { jti: name("jti", jti)? }),
            (Some(_), None) => Err(Problem::invalid("`before` goes with `sub`")),
            (None, Some(sub)) => {
                let before = self.before.as_ref().map_or(Ok(now), |time| time.read("before"))?;
                if before > now + MAX_AHEAD {
                    return Err(Problem::invalid("`before` lies ahead: it would also revoke tokens to come"));
                }
                Ok(Revoked::User { sub: name("sub", sub)?, before: millis(before) })
            }
            _ => Err(Problem::invalid("give either `jti` or `sub`")),
        }
    }

    fn until(&self, now: SystemTime) -> Result<Option<SystemTime>, Problem> {
        let until = self.expires_at.as_ref().map(|time| time.read("expires_at")).transpose()?;
        match until {
            Some(until) if until <= now => Err(Problem::invalid("`expires_at` has passed")),
            Some(until) if until > now + MAX_LIFE => Err(Problem::invalid("`expires_at` lies too far ahead")),
            until => Ok(until),
        }
    }
}

impl Calls {
    pub(crate) async fn revoke(&self, caller: &Caller, body: Revoke) -> Result<Done, Problem> {
        caller.check_everywhere(Scope::Admin)?;
        let now = SystemTime::now();
        let (tokens, until) = (body.tokens(now)?, body.until(now)?);
        let revocations = self.node.revocations();
        let revocations =
            revocations.ok_or_else(|| Problem::new(Code::NotFound, "there are no tokens here"))?;
        let done = done(revocations.revoke(tokens, until).await?)?;
        tracing::info!(user = body.sub, "a backend revoked tokens");
        Ok(done)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(json: &str) -> Result<(Revoked, Option<SystemTime>), String> {
        let now = UNIX_EPOCH + Duration::from_secs(1_700_000_000);
        let body: Revoke = serde_json::from_str(json).map_err(|error| error.to_string())?;
        let read = body.tokens(now).and_then(|tokens| Ok((tokens, body.until(now)?)));
        read.map_err(|problem| problem.detail)
    }

    #[test]
    fn tokens_are_named_by_id_or_by_user_and_time() {
        assert_eq!(read(r#"{"jti":"t"}"#).unwrap().0, Revoked::Token { jti: "t".into() });
        let user = |before| Revoked::User { sub: "u".into(), before };
        assert_eq!(read(r#"{"sub":"u"}"#).unwrap().0, user(1_700_000_000_000));
        assert_eq!(read(r#"{"sub":"u","before":1600000000.5}"#).unwrap().0, user(1_600_000_000_500));
        assert_eq!(
            read(r#"{"sub":"u","before":"2020-09-13T12:26:40Z"}"#).unwrap().0,
            user(1_600_000_000_000)
        );
        let until = read(r#"{"jti":"t","expires_at":1700000060}"#).unwrap().1;
        assert_eq!(until, Some(UNIX_EPOCH + Duration::from_secs(1_700_000_060)));
    }

    #[test]
    fn what_would_revoke_nothing_or_too_much_is_refused() {
        let cases = [
            ("{}", "either"),
            (r#"{"jti":"a","sub":"b"}"#, "either"),
            (r#"{"jti":""}"#, "1 to 512"),
            (r#"{"jti":"a","before":1}"#, "goes with"),
            (r#"{"sub":"u","before":1700000000000}"#, "ahead"),
            (r#"{"sub":"u","before":-1}"#, "since 1970"),
            (r#"{"sub":"u","before":"yesterday"}"#, "since 1970"),
            (r#"{"jti":"a","expires_at":1699999999}"#, "passed"),
            (r#"{"jti":"a","expires_at":1800000000000}"#, "too far"),
            (r#"{"jti":"a","user":"u"}"#, "unknown field"),
        ];
        for (json, expected) in cases {
            let error = read(json).unwrap_err();
            assert!(error.contains(expected), "{json}: {error}");
        }
    }
}
