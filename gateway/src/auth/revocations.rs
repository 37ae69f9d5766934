//! Which tokens were revoked. Owns the table: bounded, in memory, and what it says of a token. Spreading it over the cluster
//! is not its business.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::SystemTime;

use parking_lot::RwLock;
use serde::{Deserialize, Serialize};

/// What is revoked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub(crate) enum Revoked {
    /// One token, by its `jti`.
    Token { jti: Arc<str> },
    /// The tokens of a user that were made before a time, in milliseconds since 1970.
    User { sub: Arc<str>, before: u64 },
}

/// A revocation. Saying it twice is saying it once.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Revocation {
    #[serde(flatten)]
    pub(crate) what: Revoked,
    /// Until when it holds, in milliseconds since 1970: when the last such token has expired.
    pub(crate) until: u64,
}

impl Revocation {
    /// Whether a session is meant, by what its token said.
    fn concerns(&self, user: Option<&str>, token: Option<&str>, issued_at: Option<SystemTime>) -> bool {
        match &self.what {
            Revoked::Token { jti } => token == Some(&**jti),
            // A token that does not say when it was made may be any.
            Revoked::User { sub, before } => {
                user == Some(&**sub) && issued_at.is_none_or(|at| millis(at) < *before)
            }
        }
    }
}

/// Milliseconds since 1970.
pub(crate) fn millis(time: SystemTime) -> u64 {
    let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// Under which name something is revoked.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Name {
    Token(Arc<str>),
    User(Arc<str>),
}

impl Revoked {
    /// Under which name it is kept. All nodes have the same order of names.
    pub(crate) fn name(&self) -> Name {
        match self {
            Self::Token { jti } => Name::Token(Arc::clone(jti)),
            Self::User { sub, .. } => Name::User(Arc::clone(sub)),
        }
    }
}

#[derive(Default)]
struct Table {
    /// In an order that is the same on every node.
    by_name: BTreeMap<Name, Revocation>,
    by_end: BTreeSet<(u64, Name)>,
}

impl Table {
    fn remove(&mut self, name: &Name) {
        if let Some(known) = self.by_name.remove(name) {
            self.by_end.remove(&(known.until, name.clone()));
        }
    }

    fn insert(&mut self, name: Name, revocation: Revocation) {
        self.by_end.insert((revocation.until, name.clone()));
        self.by_name.insert(name, revocation);
    }

    /// Forgets what no longer holds.
    fn prune(&mut self, now: u64) {
        while let Some((until, name)) = self.by_end.first().cloned()
            && until <= now
        {
            self.remove(&name);
        }
    }
}

/// The revocations that a node knows.
pub(crate) struct RevocationTable {
    table: RwLock<Table>,
    /// Read before the lock is taken: most nodes have none.
    count: AtomicUsize,
    max: AtomicUsize,
    dropped: AtomicU64,
}

impl RevocationTable {
    /// An empty table for at most `max`.
    pub(crate) fn new(max: usize) -> Self {
        Self {
            table: RwLock::default(),
            count: AtomicUsize::new(0),
            max: AtomicUsize::new(max),
            dropped: AtomicU64::new(0),
        }
    }

    /// Changes the bound. What is too much goes with the next revocation.
    pub(crate) fn set_max(&self, max: usize) {
        self.max.store(max, Ordering::Relaxed);
    }

    /// Adds a revocation. True if something is revoked that was not before.
    pub(crate) fn add(&self, revocation: Revocation, now: SystemTime) -> bool {
        let now = millis(now);
        if revocation.until <= now {
            return false;
        }
        let name = revocation.what.name();
        let mut table = self.table.write();
        table.prune(now);
        let merged = match table.by_name.get(&name) {
            None => revocation,
            Some(known) => known.merged(&revocation),
        };
        let is_new = table.by_name.get(&name) != Some(&merged);
        if is_new {
            table.remove(&name);
            table.insert(name, merged);
        }
        while table.by_name.len() > self.max.load(Ordering::Relaxed)
            && let Some((_, name)) = table.by_end.first().cloned()
        {
            table.remove(&name);
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
        self.count.store(table.by_name.len(), Ordering::Relaxed);
        is_new
    }

    /// Whether a token is revoked, by what it says.
    pub(crate) fn is_revoked(
        &self,
        user: Option<&str>,
        token: Option<&str>,
        issued_at: Option<SystemTime>,
        now: SystemTime,
    ) -> bool {
        if self.count.load(Ordering::Relaxed) == 0 {
            return false;
        }
        let names = [token.map(|jti| Name::Token(jti.into())), user.map(|sub| Name::User(sub.into()))];
        let (table, now) = (self.table.read(), millis(now));
        names
            .into_iter()
            .flatten()
            .filter_map(|name| table.by_name.get(&name))
            .any(|revocation| revocation.until > now && revocation.concerns(user, token, issued_at))
    }

    /// The revocations behind one, in the order that all nodes have.
    pub(crate) fn page(&self, after: Option<&Revoked>, limit: usize) -> Vec<Revocation> {
        let after = after.map_or(Bound::Unbounded, |after| Bound::Excluded(after.name()));
        let table = self.table.read();
        table.by_name.range((after, Bound::Unbounded)).take(limit).map(|(_, known)| known.clone()).collect()
    }

    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.count.load(Ordering::Relaxed)
    }

    /// How many were forgotten before their time, for want of room.
    pub(crate) fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }
}

impl Revocation {
    /// Of two that concern the same, what both say.
    fn merged(&self, other: &Self) -> Self {
        let what = match (&self.what, &other.what) {
            (Revoked::User { sub, before }, Revoked::User { before: later, .. }) => {
                Revoked::User { sub: Arc::clone(sub), before: (*before).max(*later) }
            }
            (what, _) => what.clone(),
        };
        Self { what, until: self.until.max(other.until) }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn at(seconds: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
    }

    fn token(jti: &str, until: u64) -> Revocation {
        Revocation { what: Revoked::Token { jti: jti.into() }, until: until * 1_000 }
    }

    fn user(sub: &str, before: u64, until: u64) -> Revocation {
        Revocation { what: Revoked::User { sub: sub.into(), before: before * 1_000 }, until: until * 1_000 }
    }

    #[test]
    fn a_token_is_revoked_by_its_id_and_until_it_ends() {
        let table = RevocationTable::new(10);
        assert!(!table.is_revoked(Some("u"), Some("t1"), None, at(1)));
        assert!(table.add(token("t1", 100), at(1)) && !table.add(token("t1", 100), at(1)));
        assert!(table.is_revoked(Some("u"), Some("t1"), Some(at(50)), at(99)));
        assert!(!table.is_revoked(Some("u"), Some("t1"), None, at(100)));
        assert!(!table.is_revoked(Some("u"), Some("t2"), None, at(50)));
        assert!(!table.is_revoked(Some("t1"), None, None, at(50)), "a user is no token");
        assert!(!table.add(token("old", 100), at(100)));
    }

    #[test]
    fn the_tokens_of_a_user_are_revoked_up_to_a_time() {
        let table = RevocationTable::new(10);
        table.add(user("u", 50, 200), at(1));
        // An earlier one takes nothing back.
        assert!(!table.add(user("u", 40, 100), at(1)));
        let revoked = |issued_at| table.is_revoked(Some("u"), None, issued_at, at(150));
        assert!(revoked(Some(at(49))) && revoked(None));
        assert!(!revoked(Some(at(50))));
        assert!(!table.is_revoked(Some("v"), None, Some(at(1)), at(60)));
        assert!(table.add(user("u", 60, 100), at(1)));
        assert!(table.is_revoked(Some("u"), None, Some(at(55)), at(150)), "the later end stays");
    }

    #[test]
    fn a_full_table_forgets_what_ends_first_and_counts_it() {
        let table = RevocationTable::new(3);
        for (jti, until) in [("a", 40), ("b", 20), ("c", 30), ("d", 50)] {
            table.add(token(jti, until), at(1));
        }
        assert_eq!((table.len(), table.dropped()), (3, 1));
        assert!(!table.is_revoked(None, Some("b"), None, at(2)));
        assert!(["a", "c", "d"].iter().all(|jti| table.is_revoked(None, Some(jti), None, at(2))));
        // What has ended makes room first.
        table.add(token("e", 60), at(35));
        assert_eq!((table.len(), table.dropped()), (3, 1));
    }

    #[test]
    fn pages_go_through_all() {
        let table = RevocationTable::new(100);
        for number in 0..25 {
            table.add(token(&format!("t{number}"), 100), at(1));
            table.add(user(&format!("u{number}"), 5, 100), at(1));
        }
        let mut all = Vec::new();
        loop {
            let page = table.page(all.last().map(|last: &Revocation| &last.what), 7);
            if page.is_empty() {
                break;
            }
            all.extend(page);
        }
        assert_eq!(all.len(), 50);
        let json = serde_json::to_string(&all).unwrap();
        assert_eq!(serde_json::from_str::<Vec<Revocation>>(&json).unwrap(), all);
    }
}
