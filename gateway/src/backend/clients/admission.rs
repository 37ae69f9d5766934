//! Who is let in, and for how long: tokens at the connect and at a refresh. Owns where a token may stand, and what is made of
//! it; which are believed is told in `auth`.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{SystemTime, UNIX_EPOCH};

use roomcast_adapter::Room;
use serde::Deserialize;

use super::member::Member;
use super::{Clients, FORBIDDEN, INVALID, Refused};
use crate::auth::{AuthError, Verified, Verifier};
use crate::config::Jwt;
use crate::handler::Refusal;
use crate::metrics::AuthRefusal;
use crate::namespace::{Event, Socket};

/// What clients put into their auth payload: `io(url, {auth: {token}})`.
#[derive(Deserialize)]
struct AuthPayload {
    token: Option<String>,
}

impl Clients {
    /// Finds out who a client is, and remembers what its token says.
    pub(super) async fn identify(&self, verifier: &Verifier, socket: &Socket) -> Result<(), Refusal> {
        match self.verified(verifier, socket).await {
            Ok(None) => Ok(()),
            Ok(Some(verified)) => {
                socket.update(|member: &mut Member| member.set_token(verified));
                Ok(())
            }
            Err(error) => {
                tracing::debug!(socket = %socket.id(), %error, "a client was not let in");
                self.metrics.auth_refused.inc(error.into());
                Err(refusal(&error.to_string(), error.code(), error.status()))
            }
        }
    }

    /// Who a client is by its token, or nobody where that is allowed.
    async fn verified(&self, verifier: &Verifier, socket: &Socket) -> Result<Option<Verified>, AuthError> {
        let settings = verifier.settings();
        let Some(token) = token_of(socket, settings) else {
            return if settings.required { Err(AuthError::Missing) } else { Ok(None) };
        };
        let verified = verifier.verify(&token, SystemTime::now()).await?;
        if self.revocations().has_verified(&verified) {
            return Err(AuthError::Revoked);
        }
        self.warn_of_long_life(&verified);
        Ok(Some(verified))
    }

    /// A token that lives longer than its revocation would be good again.
    fn warn_of_long_life(&self, verified: &Verified) {
        let holds = self.settings.load().revocation_time;
        let ends = verified.expires_at.is_some_and(|end| end <= SystemTime::now() + holds);
        if !ends && !self.warned.swap(true, Ordering::Relaxed) {
            tracing::warn!(
                "tokens live longer than auth.revocation_time: a revocation has to say `expires_at`, or it ends too soon"
            );
        }
    }

    /// The rooms of a client that is known, by its token or to its backend, and its place among the sockets of its user.
    pub(super) fn let_in(&self, socket: &Socket) -> Result<(), Refusal> {
        let Some(mut member) = Member::of(socket) else { return Ok(()) };
        let mut rooms: Vec<Room> = Vec::new();
        if let Some(user) = &member.user {
            let Some(place) = self.sessions.reserve(user) else {
                self.metrics.auth_refused.inc(AuthRefusal::TooManySockets);
                return Err(refusal("This user has too many sockets", "too_many_sockets", 429));
            };
            member.place = Some(place);
            rooms.push(Member::room_of(user).into());
        }
        let granted = member.grants.as_ref().map_or(&[][..], |grants| &grants.rooms);
        rooms.extend(granted.iter().cloned());
        if socket.join_before(rooms).is_err() {
            self.metrics.auth_refused.inc(AuthRefusal::TooManyRooms);
            return Err(refusal(
                "The token grants more rooms than a socket may be in",
                "too_many_rooms",
                429,
            ));
        }
        // What other nodes and backends are told of a socket must not let them act as its user.
        socket.hide_credentials();
        socket.insert(member);
        Ok(())
    }

    /// `auth:refresh` (token): the session goes on as the new token says.
    pub(super) async fn refresh(self: Arc<Self>, verifier: &Verifier, socket: &Socket, event: &Event) {
        match self.refreshed(verifier, socket, event).await {
            Ok(expires_at) => {
                let _ = event.ack.send(serde_json::json!({ "ok": true, "expires_at": expires_at }));
            }
            Err(refused) => {
                let _ = event.ack.refuse(refused.code, refused.status);
            }
        }
    }

    async fn refreshed(
        &self,
        verifier: &Verifier,
        socket: &Socket,
        event: &Event,
    ) -> Result<Option<u64>, Refused> {
        let token: String = event.args.get(0).map_err(|_| INVALID)?;
        // Who came without a name stays so: its rooms and its place among others were given to nobody.
        let before = socket.get::<Member>().ok_or(FORBIDDEN)?;
        let verified = verifier.verify(&token, SystemTime::now()).await.and_then(|verified| {
            if before.user.as_deref() != Some(&*verified.user) {
                Err(AuthError::OtherUser)
            } else if self.revocations().has_verified(&verified) {
                Err(AuthError::Revoked)
            } else {
                Ok(verified)
            }
        });
        let verified = verified.inspect_err(|error| self.metrics.auth_refused.inc((*error).into()))?;
        // It may have left, or a backend may have said something of it, while its token was verified.
        let mut member = socket.get::<Member>().ok_or(FORBIDDEN)?;
        member.set_token(verified);
        socket.insert(member.clone());
        self.enter(socket, &member);
        if !socket.is_connected() {
            self.leave(socket);
        }
        Ok(member.expires_at.map(seconds))
    }
}

/// As `exp` has it: seconds since 1970.
fn seconds(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

fn refusal(message: &str, code: &str, status: u16) -> Refusal {
    Refusal::new(message).with_data(serde_json::json!({ "code": code, "status": status }))
}

/// The token of a client: in its auth payload, or where else the configuration lets it be.
fn token_of(socket: &Socket, settings: &Jwt) -> Option<String> {
    let payload = socket.auth::<AuthPayload>().ok().and_then(|payload| payload.token);
    let from_header = || {
        let header = socket.handshake().header("authorization").filter(|_| settings.authorization_header)?;
        let (scheme, token) = header.split_once(' ')?;
        scheme.eq_ignore_ascii_case("bearer").then(|| token.trim().to_owned())
    };
    let from_query = || socket.handshake().query_value(settings.query_parameter.as_deref()?);
    payload.or_else(from_header).or_else(from_query)
}

impl From<AuthError> for AuthRefusal {
    fn from(error: AuthError) -> Self {
        match error {
            AuthError::Missing => Self::TokenMissing,
            AuthError::Malformed
            | AuthError::Algorithm
            | AuthError::UnknownKey
            | AuthError::Signature
            | AuthError::Claim(_)
            | AuthError::Audience
            | AuthError::Issuer
            | AuthError::NotYetValid => Self::TokenInvalid,
            AuthError::Expired => Self::TokenExpired,
            AuthError::Revoked => Self::TokenRevoked,
            AuthError::OtherUser => Self::Forbidden,
            AuthError::KeysUnavailable => Self::KeysUnavailable,
        }
    }
}
