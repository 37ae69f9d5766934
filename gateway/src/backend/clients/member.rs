//! What the gateway remembers of a client beside its socket.

use std::sync::Arc;
use std::time::SystemTime;

use serde_json::{Map, Value};

use super::sessions::UserPlace;
use crate::auth::{Grants, Verified};
use crate::namespace::Socket;

/// What is known of a client that said who it is, or of which a backend said something. Others have none: an anonymous
/// client costs nothing here.
#[derive(Debug, Clone, Default)]
pub(crate) struct Member {
    /// Who it is: `sub` of the token, or what the backend answered to `roomcast.connect`. It is in the room `user:<sub>`.
    pub(crate) user: Option<Arc<str>>,
    /// The verified claims of its token.
    pub(crate) claims: Option<Arc<Map<String, Value>>>,
    /// The rooms that its token grants.
    pub(crate) grants: Option<Arc<Grants>>,
    /// `jti` of the token.
    pub(crate) token: Option<Arc<str>>,
    /// When the token was made.
    pub(crate) issued_at: Option<SystemTime>,
    /// What backends keep with the socket: `state` of their replies.
    pub(crate) state: Option<Arc<Value>>,
    /// When the session ends, unless it is refreshed.
    pub(crate) expires_at: Option<SystemTime>,
    /// Its place among the sockets of its user, which is given back with the last clone.
    pub(super) place: Option<Arc<UserPlace>>,
}

impl Member {
    /// What is known of a client, if anything is.
    pub(crate) fn of(socket: &Socket) -> Option<Self> {
        socket.get()
    }

    /// Changes what is known of a client.
    pub(crate) fn update(socket: &Socket, change: impl FnOnce(&mut Self)) {
        socket.update(change);
    }

    /// The room of all the sockets of a user.
    pub(crate) fn room_of(user: &str) -> String {
        format!("{USER_ROOMS}{user}")
    }

    /// Takes over what a token proves. What backends have said stays.
    pub(super) fn set_token(&mut self, verified: Verified) {
        self.user = Some(verified.user);
        self.claims = Some(verified.claims);
        self.grants = verified.grants;
        self.token = verified.token;
        self.issued_at = verified.issued_at;
        self.expires_at = verified.expires_at;
    }
}

/// What the rooms of users begin with.
pub(crate) const USER_ROOMS: &str = "user:";
