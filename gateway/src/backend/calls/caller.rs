//! Who calls, and what they may do. Owns scopes, patterns and rates; how a caller proves who it is, is the transport's.

use std::sync::Arc;
use std::time::Instant;

use parking_lot::Mutex;
use roomcast_adapter::{Selector, Target};

use crate::backend::{Code, Problem};
use crate::config::RoomPattern;

/// What a call needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Scope {
    /// To emit, and to ask clients for acks.
    Emit,
    /// To read rooms, sockets and nodes.
    Read,
    /// To move and disconnect sockets, revoke tokens and drain nodes.
    Admin,
}

impl Scope {
    /// Every scope.
    pub(crate) const ALL: [Self; 3] = [Self::Emit, Self::Read, Self::Admin];

    /// The name in the configuration and in tokens.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Emit => "emit",
            Self::Read => "read",
            Self::Admin => "admin",
        }
    }

    /// The scope of a name.
    pub(crate) fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|scope| scope.as_str() == name)
    }
}

/// What a caller may do.
#[derive(Debug, Clone, Default)]
pub(crate) struct Rights {
    /// The scopes.
    pub(crate) scopes: Vec<Scope>,
    /// Patterns of the namespaces; without any, all.
    pub(crate) namespaces: Vec<RoomPattern>,
    /// Patterns of the rooms; without any, all rooms and everybody.
    pub(crate) rooms: Vec<RoomPattern>,
    /// Calls per second; without it, as many as they like.
    pub(crate) rate: Option<u32>,
}

/// A caller, known and with its rights. Cloning is cheap, and the clones share their rate.
#[derive(Debug, Clone)]
pub(crate) struct Caller(Arc<Known>);

#[derive(Debug)]
struct Known {
    name: Arc<str>,
    rights: Rights,
    bucket: Option<Mutex<Bucket>>,
}

impl Caller {
    /// Somebody who may do everything: who holds a key without limits, or is on loopback where there are no keys.
    pub(crate) fn unlimited() -> Self {
        Self::named("")
    }

    /// Somebody who may do everything, and has a name: another way in, such as a broker.
    pub(crate) fn named(name: &str) -> Self {
        Self::new(name, Rights { scopes: Scope::ALL.to_vec(), ..Rights::default() })
    }

    /// A caller with these rights. What it did is remembered under its name, so names of different callers differ.
    pub(crate) fn new(name: &str, rights: Rights) -> Self {
        let bucket = rights.rate.map(|rate| Mutex::new(Bucket::full(rate, Instant::now())));
        Self(Arc::new(Known { name: name.into(), rights, bucket }))
    }

    /// The name: empty for whoever has none.
    pub(crate) fn name(&self) -> &str {
        &self.0.name
    }

    /// Refuses who lacks a scope.
    pub(crate) fn check(&self, scope: Scope) -> Result<(), Problem> {
        if self.0.rights.scopes.contains(&scope) {
            return Ok(());
        }
        Err(forbidden(format!("this needs the scope \"{}\"", scope.as_str())))
    }

    /// Refuses who lacks a scope or is held to some namespaces or rooms: for what concerns the whole node.
    pub(crate) fn check_everywhere(&self, scope: Scope) -> Result<(), Problem> {
        self.check(scope)?;
        if self.0.rights.namespaces.is_empty() && self.0.rights.rooms.is_empty() {
            return Ok(());
        }
        Err(forbidden("this needs a key without patterns: it concerns every namespace"))
    }

    pub(super) fn check_namespace(&self, namespace: &str) -> Result<(), Problem> {
        if matches(&self.0.rights.namespaces, namespace) {
            return Ok(());
        }
        Err(forbidden(format!("the namespace \"{namespace}\" matches no pattern of the key")))
    }

    /// A key with patterns of rooms reaches the members of rooms that match, and nobody by another way.
    pub(super) fn check_reach(&self, selector: &Selector) -> Result<(), Problem> {
        match &selector.to {
            Target::Rooms(rooms) => rooms.iter().try_for_each(|room| self.check_room(room)),
            Target::All | Target::Socket(_) => self.check_anyone(),
        }
    }

    pub(super) fn check_room(&self, room: &str) -> Result<(), Problem> {
        if self.sees_room(room) {
            return Ok(());
        }
        Err(forbidden(format!("the room \"{room}\" matches no pattern of the key")))
    }

    /// Refuses who is held to some rooms.
    pub(super) fn check_anyone(&self) -> Result<(), Problem> {
        if self.0.rights.rooms.is_empty() {
            return Ok(());
        }
        Err(forbidden(
            "this key has patterns of rooms: it reaches nobody but the members of rooms that match",
        ))
    }

    pub(super) fn sees_room(&self, room: &str) -> bool {
        matches(&self.0.rights.rooms, room)
    }

    /// Takes so many calls off what the caller may make in a second.
    pub(crate) fn spend(&self, calls: u32) -> Result<(), Problem> {
        let Some(bucket) = &self.0.bucket else { return Ok(()) };
        bucket.lock().take(f64::from(calls), Instant::now()).map_err(|seconds| {
            let detail =
                format!("the key may make {} calls a second", self.0.rights.rate.unwrap_or_default());
            Problem::new(Code::RateLimited, detail).retry_after(seconds)
        })
    }
}

fn matches(patterns: &[RoomPattern], name: &str) -> bool {
    patterns.is_empty() || patterns.iter().any(|pattern| pattern.matches(name))
}

fn forbidden(detail: impl Into<String>) -> Problem {
    Problem::new(Code::Forbidden, detail)
}

/// A second's worth of calls, filled up as time goes by.
#[derive(Debug)]
struct Bucket {
    rate: f64,
    left: f64,
    at: Instant,
}

impl Bucket {
    fn full(rate: u32, now: Instant) -> Self {
        Self { rate: f64::from(rate), left: f64::from(rate), at: now }
    }

    /// Takes from the bucket, or says in how many seconds there is enough. What is more than a second's worth is let
    /// through when the bucket is full, and owed.
    fn take(&mut self, calls: f64, now: Instant) -> Result<(), u64> {
        let elapsed = now.saturating_duration_since(self.at).as_secs_f64();
        (self.left, self.at) = ((self.left + elapsed * self.rate).min(self.rate), now);
        let needed = calls.min(self.rate);
        if self.left < needed {
            return Err(((needed - self.left) / self.rate).ceil().max(1.0) as u64);
        }
        self.left -= calls;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn held_to(rooms: &[&str]) -> Caller {
        let rooms = rooms.iter().map(|room| RoomPattern::from(*room)).collect();
        Caller::new("k", Rights { scopes: Scope::ALL.to_vec(), rooms, ..Rights::default() })
    }

    #[test]
    fn patterns_of_rooms_leave_no_other_way() {
        let caller = held_to(&["order:{id}", "user:u7"]);
        assert!(caller.check_reach(&Selector::rooms(["order:1", "user:u7"])).is_ok());
        for rooms in [vec!["order:1", "lobby"], vec!["user:u8"], vec!["AAAAAAAAAAAAAAAAAAAA"]] {
            assert_eq!(caller.check_reach(&Selector::rooms(rooms)).unwrap_err().code, Code::Forbidden);
        }
        assert!(caller.check_reach(&Selector::all()).is_err());
        assert!(caller.check_everywhere(Scope::Read).is_err());
        assert!(Caller::unlimited().check_reach(&Selector::all()).is_ok());
    }

    #[test]
    fn a_bucket_fills_with_time_and_owes_what_is_more() {
        let start = Instant::now();
        let mut bucket = Bucket::full(10, start);
        assert!((0..10).all(|_| bucket.take(1.0, start).is_ok()));
        assert_eq!(bucket.take(1.0, start), Err(1));
        assert_eq!(bucket.take(1.0, start + Duration::from_millis(100)), Ok(()));
        let full = start + Duration::from_secs(5);
        assert_eq!(bucket.take(100.0, full), Ok(()));
        assert_eq!(bucket.take(1.0, full), Err(10));
        assert_eq!(bucket.take(1.0, full + Duration::from_secs(10)), Ok(()));
    }
}
