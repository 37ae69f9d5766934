//! The sessions of clients that are known: how many sockets a user has, and when each session ends.
//!
//! Owns one table and one timer for the whole node, with an entry for each socket that has an end or a user, and none that
//! outlives its socket. What a token proves is not judged here.

use std::collections::{BTreeSet, HashMap};
use std::fmt;
use std::sync::{Arc, Weak};
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use roomcast_adapter::SocketId;
use tokio::sync::Notify;

use super::member::Member;
use crate::auth::millis;
use crate::config::Auth;
use crate::metrics::{Metrics, SessionEnd};
use crate::namespace::Socket;

/// The clock of the day may be set while the timer sleeps.
const LONGEST_SLEEP: Duration = Duration::from_secs(30);
/// Sessions that are warned or ended before others get the thread.
const BATCH: usize = 256;

/// The sessions of a node.
pub(crate) struct Sessions {
    table: Mutex<Table>,
    users: Mutex<HashMap<Arc<str>, u32>>,
    /// Something is due earlier than before.
    sooner: Notify,
    settings: ArcSwap<Settings>,
    metrics: Arc<Metrics>,
}

/// What of the configuration matters here.
struct Settings {
    auth: Auth,
    sockets_per_user: Option<u32>,
}

#[derive(Default)]
struct Table {
    sockets: HashMap<SocketId, Entry>,
    /// In milliseconds since 1970.
    due: BTreeSet<(u64, SocketId)>,
}

struct Entry {
    socket: Socket,
    next: Option<Next>,
}

/// What happens to a session next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Next {
    at: u64,
    what: Due,
    /// `expires_at`, in milliseconds since 1970.
    expires_at: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Due {
    Warning,
    End,
}

impl Table {
    fn set(&mut self, id: SocketId, next: Option<Next>) {
        let Some(entry) = self.sockets.get_mut(&id) else { return };
        let before = std::mem::replace(&mut entry.next, next);
        if let Some(before) = before {
            self.due.remove(&(before.at, id));
        }
        if let Some(next) = next {
            self.due.insert((next.at, id));
        }
    }

    fn remove(&mut self, id: SocketId) -> Option<Entry> {
        self.set(id, None);
        let entry = self.sockets.remove(&id);
        if self.sockets.capacity() > 1024 && self.sockets.len() < self.sockets.capacity() / 8 {
            self.sockets.shrink_to_fit();
        }
        entry
    }
}

/// A socket's place among those of its user.
pub(crate) struct UserPlace {
    sessions: Arc<Sessions>,
    user: Arc<str>,
}

impl fmt::Debug for UserPlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("UserPlace").finish_non_exhaustive()
    }
}

impl Drop for UserPlace {
    fn drop(&mut self) {
        let mut users = self.sessions.users.lock();
        if let Some(count) = users.get_mut(&self.user) {
            *count -= 1;
            if *count == 0 {
                users.remove(&self.user);
            }
        }
    }
}

impl Sessions {
    /// No sessions. [`Sessions::watch`] has to run for them to end.
    pub(crate) fn new(auth: Auth, sockets_per_user: Option<u32>, metrics: Arc<Metrics>) -> Arc<Self> {
        let settings = ArcSwap::from_pointee(Settings { auth, sockets_per_user });
        let (table, users) = (Mutex::default(), Mutex::default());
        Arc::new(Self { table, users, sooner: Notify::new(), settings, metrics })
    }

    /// Other settings hold for what is entered from now on.
    pub(crate) fn reload(&self, auth: Auth, sockets_per_user: Option<u32>) {
        self.settings.store(Arc::new(Settings { auth, sockets_per_user }));
    }

    /// Takes a place among the sockets of a user, if there is one.
    pub(super) fn reserve(self: &Arc<Self>, user: &Arc<str>) -> Option<Arc<UserPlace>> {
        let most = self.settings.load().sockets_per_user;
        let mut users = self.users.lock();
        let count = users.entry(Arc::clone(user)).or_insert(0);
        if most.is_some_and(|most| *count >= most) {
            return None;
        }
        *count += 1;
        Some(Arc::new(UserPlace { sessions: Arc::clone(self), user: Arc::clone(user) }))
    }

    /// A socket has joined its namespace, or what is known of it has changed.
    pub(super) fn enter(&self, socket: &Socket, member: &Member) {
        let settings = self.settings.load();
        let next = member.expires_at.map(|end| settings.next(millis(end)));
        let mut table = self.table.lock();
        table.sockets.entry(socket.id()).or_insert_with(|| Entry { socket: socket.clone(), next: None });
        table.set(socket.id(), next);
        let is_first = next.is_some_and(|next| table.due.first() == Some(&(next.at, socket.id())));
        drop(table);
        if is_first {
            self.sooner.notify_one();
        }
    }

    /// A socket has left.
    pub(super) fn leave(&self, socket: &Socket) {
        let entry = self.table.lock().remove(socket.id());
        // It may hold the last clone of a socket, whose end takes other locks.
        drop(entry);
    }

    /// Ends the sessions whose token is revoked.
    pub(super) async fn end_revoked(&self, is_revoked: impl Fn(&Member) -> bool) {
        let sockets: Vec<_> = self.table.lock().sockets.values().map(|entry| entry.socket.clone()).collect();
        for batch in sockets.chunks(BATCH) {
            for socket in batch {
                if socket.get::<Member>().is_some_and(|member| is_revoked(&member)) {
                    self.end(socket, SessionEnd::Revoked);
                }
            }
            tokio::task::yield_now().await;
        }
    }

    /// Tells a client why its session ends, and ends it.
    pub(super) fn end(&self, socket: &Socket, why: SessionEnd) {
        let code = match why {
            SessionEnd::Expired => "token_expired",
            SessionEnd::Revoked => "token_revoked",
        };
        self.metrics.sessions_ended.inc(why);
        let _ = socket.emit(&self.settings.load().auth.expired_event, serde_json::json!({ "code": code }));
        socket.disconnect(false);
    }

    /// Warns and ends sessions, for as long as there are any others who hold them.
    pub(crate) async fn watch(sessions: Weak<Self>) {
        while let Some(this) = sessions.upgrade() {
            let now = SystemTime::now();
            let due = this.take_due(millis(now));
            if !due.is_empty() {
                due.iter().for_each(|(socket, next)| this.carry_out(socket, *next));
                tokio::task::yield_now().await;
                continue;
            }
            let first = this.table.lock().due.first().map(|(at, _)| *at);
            let pause =
                first.map_or(LONGEST_SLEEP, |at| Duration::from_millis(at.saturating_sub(millis(now))));
            let _ = tokio::time::timeout(pause.min(LONGEST_SLEEP), this.sooner.notified()).await;
        }
    }

    /// What is due, and what of it comes after that.
    fn take_due(&self, now: u64) -> Vec<(Socket, Next)> {
        let settings = self.settings.load();
        let mut table = self.table.lock();
        let due: Vec<_> = table.due.iter().take_while(|(at, _)| *at <= now).take(BATCH).copied().collect();
        let mut taken = Vec::with_capacity(due.len());
        for (_, id) in due {
            let Some((socket, next)) =
                table.sockets.get(&id).and_then(|entry| Some((entry.socket.clone(), entry.next?)))
            else {
                continue;
            };
            let then = (next.what == Due::Warning).then(|| settings.end(next.expires_at));
            table.set(id, then);
            taken.push((socket, next));
        }
        taken
    }

    fn carry_out(&self, socket: &Socket, next: Next) {
        match next.what {
            Due::Warning => {
                let event = &self.settings.load().auth.expiring_event;
                let _ = socket.emit(event, serde_json::json!({ "expires_at": next.expires_at / 1_000 }));
            }
            Due::End => self.end(socket, SessionEnd::Expired),
        }
    }

    /// Sockets of clients that are known.
    pub(super) fn len(&self) -> usize {
        self.table.lock().sockets.len()
    }
}

impl Settings {
    /// A warning, and at once if it is late for that.
    fn next(&self, expires_at: u64) -> Next {
        let before = u64::try_from(self.auth.expiring_before.as_millis()).unwrap_or(u64::MAX);
        Next { at: expires_at.saturating_sub(before), what: Due::Warning, expires_at }
    }

    fn end(&self, expires_at: u64) -> Next {
        let leeway = u64::try_from(self.auth.jwt.leeway.as_millis()).unwrap_or(u64::MAX);
        Next { at: expires_at.saturating_add(leeway), what: Due::End, expires_at }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sessions(most: Option<u32>) -> Arc<Sessions> {
        Sessions::new(Auth::default(), most, Arc::new(Metrics::new()))
    }

    #[test]
    fn a_user_has_so_many_places_and_gets_them_back() {
        let sessions = sessions(Some(2));
        let (ada, bob) = ("ada".into(), "bob".into());
        let first = sessions.reserve(&ada).unwrap();
        let clone = Arc::clone(&first);
        let _second = sessions.reserve(&ada).unwrap();
        assert!(sessions.reserve(&ada).is_none());
        drop(sessions.reserve(&bob).unwrap());
        drop(first);
        assert!(sessions.reserve(&ada).is_none(), "a clone still holds the place");
        drop(clone);
        drop(sessions.reserve(&ada).unwrap());
        assert_eq!(sessions.users.lock().keys().cloned().collect::<Vec<_>>(), [ada]);
        sessions.reload(Auth::default(), None);
        let more: Vec<_> = (0..10).filter_map(|_| sessions.reserve(&bob)).collect();
        assert_eq!(more.len(), 10);
    }

    #[test]
    fn a_session_is_warned_before_it_ends_and_ends_after_the_leeway() {
        let mut auth = Auth { expiring_before: Duration::from_secs(60), ..Auth::default() };
        auth.jwt.leeway = Duration::from_secs(5);
        let settings = Settings { auth, sockets_per_user: None };
        let warning = settings.next(1_000_000);
        assert_eq!(warning, Next { at: 940_000, what: Due::Warning, expires_at: 1_000_000 });
        assert_eq!(
            settings.end(warning.expires_at),
            Next { at: 1_005_000, what: Due::End, expires_at: 1_000_000 }
        );
        assert_eq!(settings.next(10).at, 0);
    }
}
