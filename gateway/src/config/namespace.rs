//! Namespaces and what their clients may do with rooms.
//!
//! Owns the rules and which of them holds for a room. Enforcing them is the handler's.

use super::section::section;
use super::{RoomPattern, Route};

section! {
    /// A namespace that clients may connect to. Without any there is "/", with open rooms.
    pub struct Namespace {
        /// Its name, beginning with "/".
        name: String = String::new(),
        /// The event by which a client joins a room: `socket.emit("room:join", room, ack)`.
        room_join: String = "room:join".to_owned(),
        /// The event by which a client leaves a room: `socket.emit("room:leave", room, ack)`.
        room_leave: String = "room:leave".to_owned(),
        /// The event by which a client emits to a room: `socket.emit("room:emit", room, event, ...args, ack?)`.
        room_emit: String = "room:emit".to_owned(),
        /// The backend that is asked before a client is let in: roomcast.connect.
        connect: Option<String> = None; example "\"orders\"",
        /// The backend that is told of each socket that came: roomcast.connected.
        connected: Option<String> = None; example "\"orders\"",
        /// The backend that is told of each socket that is gone, also when its node died: roomcast.disconnected.
        disconnected: Option<String> = None; example "\"orders\"",
        /// The backend that is told when a room gets its first member in the cluster: roomcast.room.occupied.
        occupied: Option<String> = None; example "\"orders\"",
        /// The backend that is told when a room has had no member for a while: roomcast.room.vacated.
        vacated: Option<String> = None; example "\"orders\"",
    }
    lists {
        rooms as "room": RoomRule = Vec::new(),
        routes as "route": Route = Vec::new(),
    }
}

section! {
    /// What clients may do with rooms of some names. The first rule that matches holds; a room that none matches is closed.
    /// A namespace without rules has open rooms.
    pub struct RoomRule {
        /// The names: "*" stands for any text, "{id}" for one or more characters other than ":".
        pattern as "match": RoomPattern = RoomPattern::default(); example "\"order:{id}\"",
        /// Who may join: "open", "claims" (whom its token grants it), "webhook" (whom the backend allows it) or "never".
        /// Rooms of users ("user:...") and those named like a socket's id are joined by no client.
        join: Access = Access::Open,
        /// Who may emit: "open", "members", "claims" (whom its token grants it) or "never". For rooms of users, only rules
        /// hold that begin with "user:".
        emit: Access = Access::Open,
        /// The backend that is asked when `join` is "webhook". Without it the namespace's `connect`, or the only backend.
        to: Option<String> = None; example "\"orders\"",
    }
}

/// Who may join a room or emit to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Access {
    /// Everybody.
    Open,
    /// Who is in the room. For `emit` only.
    Members,
    /// Whom a verified token allows it.
    Claims,
    /// Whom the backend allows it. For `join` only.
    Webhook,
    /// No client; backends always may.
    Never,
}

impl Access {
    /// The name in the configuration.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Members => "members",
            Self::Claims => "claims",
            Self::Webhook => "webhook",
            Self::Never => "never",
        }
    }
}

impl Namespace {
    /// A namespace of this name with open rooms.
    pub fn named(name: impl Into<String>) -> Self {
        Self { name: name.into(), ..Self::default() }
    }

    /// Who may join a room.
    pub fn join_access(&self, room: &str) -> Access {
        if is_user_room(room) {
            return Access::Never;
        }
        self.rule(room).map_or_else(|| self.fallback(), |rule| rule.join)
    }

    /// Who may emit to a room.
    pub fn emit_access(&self, room: &str) -> Access {
        if is_user_room(room) {
            // A rule that was written for all kinds of rooms was not meant for these.
            let mut rules = self.rooms.iter().filter(|rule| is_user_room(rule.pattern.as_str()));
            return rules.find(|rule| rule.pattern.matches(room)).map_or(Access::Never, |rule| rule.emit);
        }
        self.rule(room).map_or_else(|| self.fallback(), |rule| rule.emit)
    }

    /// The rule of a room, if one matches.
    pub fn rule(&self, room: &str) -> Option<&RoomRule> {
        self.rooms.iter().find(|rule| rule.pattern.matches(room))
    }

    /// Whoever writes a rule wants rooms guarded: one forgotten pattern must not leave a door open.
    fn fallback(&self) -> Access {
        if self.rooms.is_empty() { Access::Open } else { Access::Never }
    }
}

/// The rooms of users, which the gateway itself keeps.
pub(crate) fn is_user_room(room: &str) -> bool {
    room.starts_with("user:")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_rule_holds_and_no_rule_is_open() {
        let mut namespace = Namespace::named("/");
        assert_eq!(namespace.join_access("x"), Access::Open);
        let rule = |pattern: &str, join, emit| RoomRule { pattern: pattern.into(), join, emit, to: None };
        namespace.rooms = vec![
            rule("order:{id}", Access::Open, Access::Members),
            rule("order:*", Access::Never, Access::Never),
        ];
        assert_eq!(namespace.emit_access("order:1"), Access::Members);
        assert_eq!(namespace.join_access("order:1:x"), Access::Never);
        assert_eq!(namespace.join_access("other"), Access::Never);
    }

    #[test]
    fn rooms_of_users_are_closed_unless_a_rule_of_their_own_opens_them() {
        let mut namespace = Namespace::named("/");
        let rule =
            |pattern: &str, emit| RoomRule { pattern: pattern.into(), join: Access::Open, emit, to: None };
        assert_eq!(namespace.emit_access("user:7"), Access::Never);
        assert_eq!(namespace.join_access("user:7"), Access::Never);
        namespace.rooms = vec![rule("*", Access::Open), rule("user:{id}", Access::Claims)];
        assert_eq!(namespace.emit_access("user:7"), Access::Claims);
        assert_eq!(namespace.emit_access("user:7:x"), Access::Never);
        assert_eq!(namespace.join_access("user:7"), Access::Never);
        assert_eq!(namespace.join_access("users"), Access::Open);
    }
}
