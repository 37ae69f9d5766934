//! Revoking tokens in the whole cluster. Owns how nodes tell each other, and that live sessions end with their token; what a
//! revocation means is told in `auth`.
//!
//! Nodes speak in a namespace of their own, which no client can ask for: its name does not begin with "/". A node that
//! starts, or whose broker comes back, asks the others for what they know, and says again what may not have arrived.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::{Duration, SystemTime};

use parking_lot::Mutex;
use roomcast_adapter::{
    Adapter, AdapterError, AdapterFactory, Collected, NamespaceEvents, NodeTag, ServerReply, Status,
};
use roomcast_protocol::socketio::Args;
use tokio::sync::watch;

use super::member::Member;
use super::sessions::Sessions;
use crate::auth::{Revocation, RevocationTable, Revoked, Verified, millis};
use crate::config::Auth;
use crate::metrics::{Metrics, Source, SourceKind};

const NAMESPACE: &str = "roomcast:tokens";
/// `[revocations]`: they hold from now on. Answered when the sessions have ended.
const REVOKE: &str = "revoke";
/// `[after]`: the revocations behind one, a page of them.
const LIST: &str = "list";
/// Revocations in one message.
const PAGE: usize = 500;
/// Pages that are asked for at most in one go.
const MAX_PAGES: usize = 10_000;
/// The longest id of a token or name of a user, in bytes. Longer ones are in no token that was let in, or in none at all.
const MAX_NAME: usize = 512;
/// How long the other nodes may take.
const PATIENCE: Duration = Duration::from_secs(5);
/// How often is said again what some node has not confirmed.
const REPEAT: Duration = Duration::from_secs(10);
/// Revocations that wait to be said again. Nodes that ask get the others too.
const MAX_UNCONFIRMED: usize = 1_000;

/// The tokens that were revoked, in the whole cluster.
pub struct Revocations {
    table: RevocationTable,
    sessions: Arc<Sessions>,
    cluster: Arc<dyn Adapter>,
    status: watch::Receiver<Status>,
    /// How long a revocation holds when nobody says, in milliseconds.
    holds: AtomicU64,
    /// What not every node has confirmed.
    unconfirmed: Mutex<Vec<Revocation>>,
    /// Counts up with every change of the table.
    version: AtomicU64,
    /// The version up to which sessions were ended.
    swept: tokio::sync::Mutex<u64>,
}

impl Revocations {
    /// No revocations, until [`Revocations::learn`] has asked for those of others.
    pub(super) fn start(
        factory: &Arc<dyn AdapterFactory>,
        sessions: &Arc<Sessions>,
        auth: &Auth,
    ) -> Arc<Self> {
        let this = Arc::new_cyclic(|weak| Self {
            table: RevocationTable::new(auth.max_revocations),
            sessions: Arc::clone(sessions),
            cluster: factory.namespace(NAMESPACE, Arc::new(Events(Weak::clone(weak)))),
            status: factory.status(),
            holds: AtomicU64::new(0),
            unconfirmed: Mutex::default(),
            version: AtomicU64::new(0),
            swept: tokio::sync::Mutex::new(0),
        });
        this.reload(auth);
        tokio::spawn(keep_up(Arc::downgrade(&this), factory.status()));
        this
    }

    pub(super) fn reload(&self, auth: &Auth) {
        self.table.set_max(auth.max_revocations);
        let holds = u64::try_from(auth.revocation_time.as_millis()).unwrap_or(u64::MAX);
        self.holds.store(holds, Ordering::Relaxed);
    }

    /// Revokes tokens on every node, and ends the sessions that have them. Nodes that have not confirmed it are named, and
    /// told again; an error says that it holds on this node only, until the broker is back.
    pub(crate) async fn revoke(
        &self,
        what: Revoked,
        until: Option<SystemTime>,
    ) -> Result<Collected<()>, AdapterError> {
        let holds = || millis(SystemTime::now()).saturating_add(self.holds.load(Ordering::Relaxed));
        let revocation = Revocation { what, until: until.map_or_else(holds, millis) };
        self.take(vec![revocation.clone()]).await;
        let missing = self.tell(vec![revocation]).await?;
        Ok(Collected { value: (), missing })
    }

    /// Asks the other nodes for what they know.
    pub(crate) async fn learn(&self) {
        let mut after: Option<Revoked> = None;
        for _ in 0..MAX_PAGES {
            let Ok(args) = Args::from_serialize(&(&after,)) else { return };
            let answers = self.cluster.server_side_emit_with_ack(LIST, &args, PATIENCE).await;
            if !answers.missing.is_empty() {
                tracing::warn!(nodes = ?answers.missing, "revoked tokens of some nodes are not known here yet");
            }
            let read = |args: Args| args.get::<Vec<Revocation>>(0).ok();
            let pages: Vec<_> = answers.value.into_iter().filter_map(read).collect();
            let full = pages.iter().filter(|page| page.len() >= PAGE).filter_map(|page| page.last());
            // What lies behind the shortest of the full pages was not told by all.
            let next = full.map(|last| last.what.clone()).min_by_key(Revoked::name);
            self.take(pages.into_iter().flatten().collect()).await;
            let Some(next) = next else { return };
            if after.is_some_and(|after| after.name() >= next.name()) {
                return;
            }
            after = Some(next);
        }
    }

    /// Whether the token of a session is revoked.
    pub(super) fn has(&self, member: &Member) -> bool {
        let (user, token) = (member.user.as_deref(), member.token.as_deref());
        self.table.is_revoked(user, token, member.issued_at, SystemTime::now())
    }

    pub(super) fn has_verified(&self, verified: &Verified) -> bool {
        let (user, token) = (Some(&*verified.user), verified.token.as_deref());
        self.table.is_revoked(user, token, verified.issued_at, SystemTime::now())
    }

    /// Takes over revocations, and ends the sessions that they mean.
    async fn take(&self, revocations: Vec<Revocation>) {
        let now = SystemTime::now();
        let changes = revocations.into_iter().filter(Revocation::is_sane).map(|one| self.table.add(one, now));
        if changes.fold(false, |changed, change| changed | change) {
            self.version.fetch_add(1, Ordering::AcqRel);
        }
        self.sweep().await;
    }

    /// Ends the sessions whose tokens are revoked. Those who ask at the same time are served by one pass.
    async fn sweep(&self) {
        let wanted = self.version.load(Ordering::Acquire);
        let mut swept = self.swept.lock().await;
        if *swept < wanted {
            let version = self.version.load(Ordering::Acquire);
            self.sessions.end_revoked(|member| self.has(member)).await;
            *swept = version;
        }
    }

    /// Tells the other nodes, and names those that did not confirm it.
    async fn tell(&self, revocations: Vec<Revocation>) -> Result<Vec<NodeTag>, AdapterError> {
        if *self.status.borrow() == Status::Unavailable {
            self.keep_unconfirmed(revocations);
            return Err(AdapterError::BrokerUnavailable);
        }
        let Ok(args) = Args::from_serialize(&(&revocations,)) else { return Ok(Vec::new()) };
        let answers = self.cluster.server_side_emit_with_ack(REVOKE, &args, PATIENCE).await;
        if !answers.missing.is_empty() {
            self.keep_unconfirmed(revocations);
        }
        Ok(answers.missing)
    }

    fn keep_unconfirmed(&self, revocations: Vec<Revocation>) {
        let mut unconfirmed = self.unconfirmed.lock();
        unconfirmed.extend(revocations);
        let excess = unconfirmed.len().saturating_sub(MAX_UNCONFIRMED);
        unconfirmed.drain(..excess);
    }

    /// Says again what some node may not know.
    async fn tell_again(&self) {
        let waiting = std::mem::take(&mut *self.unconfirmed.lock());
        for page in waiting.chunks(PAGE) {
            let _ = self.tell(page.to_vec()).await;
        }
    }

    /// Exports how many there are.
    pub(super) fn export(self: &Arc<Self>, metrics: &Metrics) {
        let (known, dropped) = (Arc::downgrade(self), Arc::downgrade(self));
        let read = |this: &Weak<Self>, figure: fn(&RevocationTable) -> f64| {
            this.upgrade().map_or(0.0, |this| figure(&this.table))
        };
        let sources = [
            Source {
                kind: SourceKind::Gauge,
                name: "revocations",
                help: "Revoked tokens and users that this node knows.",
                labels: &[],
                read: Box::new(move || read(&known, |table| table.len() as f64)),
            },
            Source {
                kind: SourceKind::Counter,
                name: "revocations_dropped_total",
                help: "Revocations that were forgotten before their time, for want of room.",
                labels: &[],
                read: Box::new(move || read(&dropped, |table| table.dropped() as f64)),
            },
        ];
        for source in sources {
            if let Err(error) = metrics.register_source(source) {
                tracing::warn!(%error, "a figure of revocations is not exported");
            }
        }
    }
}

impl std::fmt::Debug for Revocations {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Revocations").field("known", &self.table.len()).finish_non_exhaustive()
    }
}

impl Revocation {
    /// Whether its names are such as tokens have. Others come from nobody who means well.
    fn is_sane(&self) -> bool {
        let name = match &self.what {
            Revoked::Token { jti } => jti,
            Revoked::User { sub, .. } => sub,
        };
        (1..=MAX_NAME).contains(&name.len())
    }
}

/// Says again and asks again, as long as there is anybody to do it for.
async fn keep_up(this: Weak<Revocations>, mut status: watch::Receiver<Status>) {
    status.mark_unchanged();
    loop {
        let changed = match tokio::time::timeout(REPEAT, status.changed()).await {
            Ok(Ok(())) => true,
            Ok(Err(_)) => return,
            Err(_) => false,
        };
        let is_ready = *status.borrow_and_update() == Status::Ready;
        let Some(this) = this.upgrade() else { return };
        if is_ready {
            this.tell_again().await;
            if changed {
                this.learn().await;
            }
        }
    }
}

/// What other nodes say.
struct Events(Weak<Revocations>);

impl NamespaceEvents for Events {
    fn server_side_event(&self, name: &str, args: Args, reply: Option<ServerReply>) {
        let Some(this) = self.0.upgrade() else { return };
        match name {
            REVOKE => {
                let Ok(revocations) = args.get::<Vec<Revocation>>(0) else { return };
                // Ending sessions may take a while, and others wait for the link.
                tokio::spawn(async move {
                    this.take(revocations).await;
                    answer(reply, &());
                });
            }
            LIST => {
                let Ok(after) = args.get::<Option<Revoked>>(0) else { return };
                answer(reply, &(this.table.page(after.as_ref(), PAGE),));
            }
            _ => {}
        }
    }
}

fn answer(reply: Option<ServerReply>, value: &impl serde::Serialize) {
    if let (Some(reply), Ok(args)) = (reply, Args::from_serialize(value)) {
        reply(args);
    }
}
