//! Calls that backends write into a stream, so that none is lost while no node is there.
//!
//! The nodes are consumers of one group: an entry goes to one of them, which acknowledges and deletes it once the broker
//! has taken the emit. What a node had read when it died is taken over by another. So every entry is carried out at least
//! once: again, where a node died between the broker's word and the acknowledgement. Of entries with the same key, one is
//! carried out within the window. What cannot be carried out goes to a stream of dead entries.

mod entry;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::{join_all, try_join_all};
use roomcast_adapter::cluster::BusError;
use roomcast_adapter::redis::{RedisClient, RedisConnection, RedisReply};
use roomcast_adapter::{Status, TraceContext};
use tokio::sync::watch;
use tokio::time::Instant;

use self::entry::Entry;
use super::{lost, until_lost};
use crate::backend::calls::{Caller, Calls, Meta, Verb};
use crate::backend::ingest::{Lost, Source, Tally};
use crate::backend::{Code, Node, Problem};

/// How long a read waits for entries: also about how long a node takes to stop.
const BLOCK: Duration = Duration::from_millis(500);
/// How much longer its answer may take.
const GRACE: Duration = Duration::from_secs(3);
/// The pause before entries are tried again that the broker did not take.
const RETRY: Duration = Duration::from_millis(250);
/// How often an entry waits that long for another one with its key.
const DEFER_ROUNDS: usize = 8;
/// A consumer that was not seen for so long, and has nothing, is forgotten.
const FORGET_AFTER: Duration = Duration::from_secs(3600);

/// How a stream is read.
#[derive(Debug, Clone)]
pub(crate) struct StreamSettings {
    /// The stream.
    pub(crate) key: String,
    /// The consumer group.
    pub(crate) group: String,
    /// Entries that are read at once.
    pub(crate) batch: usize,
    /// After how long without an acknowledgement an entry is taken over.
    pub(crate) claim_after: Duration,
    /// How often an entry is tried.
    pub(crate) max_deliveries: u32,
    /// For how long a key is remembered.
    pub(crate) window: Duration,
    /// Dead entries that are kept.
    pub(crate) max_dead: usize,
    /// The longest body.
    pub(crate) max_body: usize,
}

/// Reads the stream.
pub(super) struct Reader {
    client: RedisClient,
    calls: Arc<Calls>,
    node: Arc<dyn Node>,
    settings: StreamSettings,
    stop: watch::Receiver<bool>,
    caller: Caller,
    /// Another one for each life of a node.
    consumer: String,
    tally: Tally,
}

/// What became of an entry.
enum Outcome {
    /// The broker has taken it.
    Done,
    /// The same call came before.
    Duplicate,
    /// The same call is being carried out; later it will be known what became of it.
    Deferred,
    /// It cannot be carried out, now or later.
    Refused(Problem),
    /// The broker did not take it.
    Again,
}

impl Reader {
    pub(super) fn new(
        client: RedisClient,
        calls: &Arc<Calls>,
        node: &Arc<dyn Node>,
        settings: StreamSettings,
        stop: watch::Receiver<bool>,
    ) -> Self {
        let consumer = format!("{}-{:08x}", node.factory().node(), rand::random::<u32>());
        Self {
            client,
            calls: Arc::clone(calls),
            node: Arc::clone(node),
            settings,
            stop,
            caller: Caller::named("redis"),
            consumer,
            tally: Tally::new(node.metrics(), Source::RedisStream),
        }
    }

    pub(super) fn tally(&self) -> &Tally {
        &self.tally
    }

    fn is_stopped(&self) -> bool {
        *self.stop.borrow()
    }

    /// Reads until the link is lost, or the node stops.
    pub(super) async fn link(&self) -> Lost {
        let connections = tokio::try_join!(
            // A read that waits holds its connection up.
            self.client.connect(&self.settings.key),
            self.client.connect(&self.settings.key)
        );
        let (reading, writing) = match connections {
            Ok(connections) => connections,
            Err(error) => return lost(&error),
        };
        tokio::select! {
            result = self.work(&reading, &writing) => match result {
                Ok(()) => Lost::stopped(),
                Err(error) => lost(&error),
            },
            reason = reading.lost() => Lost { reason, refused: false },
            lost = until_lost(&writing) => lost,
        }
    }

    async fn work(&self, reading: &RedisConnection, writing: &RedisConnection) -> Result<(), BusError> {
        let (key, group) = (self.settings.key.as_str(), self.settings.group.as_str());
        // From the beginning: what backends wrote before the first node came counts too.
        match writing.call(&["XGROUP", "CREATE", key, group, "0", "MKSTREAM"]).await {
            Err(BusError::Refused(error)) if !error.contains("BUSYGROUP") => {
                return Err(BusError::Refused(error));
            }
            Err(error @ (BusError::Unavailable(_) | BusError::Configuration(_))) => return Err(error),
            _ => {}
        }
        self.forget_consumers(writing).await?;
        self.tally.up(true);
        // What this node read on a link that was lost comes first.
        let mut from = "0";
        let mut claim_at = Instant::now();
        while !self.is_stopped() {
            self.until_ready().await;
            if claim_at <= Instant::now() {
                self.take_over(writing).await?;
                claim_at = Instant::now() + self.settings.claim_after / 2;
            }
            let entries = self.read(reading, from).await?;
            if entries.is_empty() {
                from = ">";
            }
            self.carry_out(writing, entries).await?;
        }
        // With its name a consumer's entries would be forgotten too.
        let left = writing.call(&["XPENDING", key, group, "-", "+", "1", &self.consumer]).await?;
        if entry::of_pending(&left).is_empty() {
            writing.call(&["XGROUP", "DELCONSUMER", key, group, &self.consumer]).await?;
        }
        Ok(())
    }

    /// An emit that the broker cannot take is not begun: this node's clients would get it twice.
    async fn until_ready(&self) {
        let (mut status, mut stop) = (self.node.factory().status(), self.stop.clone());
        tokio::select! {
            _ = status.wait_for(|status| *status == Status::Ready) => {}
            _ = stop.wait_for(|stop| *stop) => {}
        }
    }

    async fn read(&self, reading: &RedisConnection, from: &str) -> Result<Vec<Entry>, BusError> {
        let settings = &self.settings;
        let (count, block) = (settings.batch.to_string(), BLOCK.as_millis().to_string());
        let command = ["XREADGROUP", "GROUP", &settings.group, &self.consumer, "COUNT", &count];
        let command = command.into_iter().chain(["BLOCK", &block, "STREAMS", &settings.key, from]);
        let answer = reading.call(&command.collect::<Vec<_>>());
        match tokio::time::timeout(BLOCK + GRACE, answer).await {
            Ok(reply) => Ok(entry::of_read(&reply?)),
            Err(_) => Err(BusError::Unavailable("a read was not answered".to_owned())),
        }
    }

    /// Takes over what others, or this node, left too long. What was tried too often is dead.
    async fn take_over(&self, writing: &RedisConnection) -> Result<(), BusError> {
        let settings = &self.settings;
        let (idle, count) = (settings.claim_after.as_millis().to_string(), settings.batch.to_string());
        loop {
            let command = ["XPENDING", &settings.key, &settings.group, "IDLE", &idle, "-", "+", &count];
            let pending = entry::of_pending(&writing.call(&command).await?);
            if pending.is_empty() || self.is_stopped() {
                return Ok(());
            }
            let mut progress = false;
            for (id, deliveries) in pending {
                let claim = ["XCLAIM", &settings.key, &settings.group, &self.consumer, &idle, &id];
                // One at a time: what cannot even be read must not hold up the others.
                let claimed = entry::of_range(&writing.call(&claim).await?);
                let Some(entry) = claimed.into_iter().find(|entry| entry.id == id) else { continue };
                progress = true;
                self.tally.count("claimed");
                if deliveries >= settings.max_deliveries {
                    let detail = format!("given up after {deliveries} deliveries");
                    self.bury(writing, &entry, "exhausted", &detail).await?;
                } else {
                    self.carry_out(writing, vec![entry]).await?;
                }
            }
            // Deleted entries, and those that another node was quicker to take, are no reason to go round.
            if !progress {
                return Ok(());
            }
        }
    }

    async fn carry_out(&self, writing: &RedisConnection, entries: Vec<Entry>) -> Result<(), BusError> {
        let (mut open, mut round) = (entries, 0);
        while !open.is_empty() {
            round += 1;
            // All claims are on their way before the first answer, and so are all emits, in the order of the stream.
            let free = join_all(open.iter().map(|entry| self.claim_key(writing, entry))).await;
            let work = open.iter().zip(free).map(|(entry, free)| async move {
                match free? {
                    None => Ok(self.perform(entry).await),
                    Some(outcome) => Ok::<_, BusError>(outcome),
                }
            });
            let outcomes: Result<Vec<Outcome>, BusError> = join_all(work).await.into_iter().collect();
            let (mut again, mut finishing) = (Vec::new(), Vec::new());
            for (entry, outcome) in open.into_iter().zip(outcomes?) {
                match outcome {
                    Outcome::Done => {
                        self.tally.count("done");
                        finishing.push(self.finish(writing, &entry, true));
                    }
                    Outcome::Duplicate => {
                        self.tally.count("duplicate");
                        finishing.push(self.finish(writing, &entry, false));
                    }
                    // Often the one that has the key is in the same batch. Should its node be dead, both wait.
                    Outcome::Deferred if round < DEFER_ROUNDS => again.push(entry),
                    Outcome::Deferred => self.tally.count("deferred"),
                    Outcome::Refused(problem) => {
                        self.bury(writing, &entry, problem.code.as_str(), &problem.detail).await?;
                    }
                    Outcome::Again => again.push(entry),
                }
            }
            try_join_all(finishing).await?;
            open = again;
            if !open.is_empty() {
                self.tally.count("retried");
                if self.is_stopped() {
                    // Another node will take them over.
                    return Ok(());
                }
                tokio::time::sleep(RETRY).await;
                self.until_ready().await;
                self.keep_claimed(writing, &open).await?;
            }
        }
        Ok(())
    }

    /// Whether the key of an entry is free, and this entry's from now on. Otherwise what that means for the entry.
    async fn claim_key(&self, writing: &RedisConnection, entry: &Entry) -> Result<Option<Outcome>, BusError> {
        let Some(key) = entry.field("key") else { return Ok(None) };
        let note = entry::note_of(&self.settings.key, key);
        let (mine, window) = (format!("p:{}", entry.id), self.settings.window.as_millis().to_string());
        let set = writing.call(&["SET", &note, &mine, "NX", "PX", &window]);
        let get = writing.call(&["GET", &note]);
        let (set, get) = tokio::join!(set, get);
        if set? != RedisReply::Null {
            return Ok(None);
        }
        Ok(match get?.text() {
            // Read again after a node died: whether it was emitted, nobody knows.
            Some(note) if note == mine => None,
            Some(note) if note.starts_with("d:") => Some(Outcome::Duplicate),
            _ => Some(Outcome::Deferred),
        })
    }

    async fn perform(&self, entry: &Entry) -> Outcome {
        let Some(body) = entry.field("body") else {
            return Outcome::Refused(Problem::invalid("the entry has no field `body`"));
        };
        if body.len() > self.settings.max_body {
            let detail = format!("the body is longer than {} bytes", self.settings.max_body);
            return Outcome::Refused(Problem::new(Code::PayloadTooLarge, detail));
        }
        let trace = entry.field("traceparent").and_then(|trace| std::str::from_utf8(trace).ok());
        let meta = Meta { trace: trace.and_then(TraceContext::parse), ..Meta::default() };
        match self.calls.perform(&self.caller, Verb::Emit, &meta, body).await {
            Ok(_) => Outcome::Done,
            Err(problem) if problem.code.status().is_client_error() => Outcome::Refused(problem),
            Err(problem) => {
                tracing::debug!(code = problem.code.as_str(), "an entry is tried again");
                Outcome::Again
            }
        }
    }

    /// Acknowledges an entry, and notes that its key is done, at once. The commands are queued when this returns.
    fn finish(
        &self,
        writing: &RedisConnection,
        entry: &Entry,
        is_done: bool,
    ) -> impl Future<Output = Result<RedisReply, BusError>> + Send + use<> {
        let (stream, group) = (self.settings.key.as_str(), self.settings.group.as_str());
        drop(writing.call(&["MULTI"]));
        if let Some(key) = entry.field("key").filter(|_| is_done) {
            let (note, done) = (entry::note_of(stream, key), format!("d:{}", entry.id));
            let window = self.settings.window.as_millis().to_string();
            drop(writing.call(&["SET", &note, &done, "PX", &window]));
        }
        drop(writing.call(&["XACK", stream, group, &entry.id]));
        drop(writing.call(&["XDEL", stream, &entry.id]));
        // What one of them is refused for, this is too.
        writing.call(&["EXEC"])
    }

    /// Puts an entry to the dead ones. Its key is free again: the backend may correct the call.
    async fn bury(
        &self,
        writing: &RedisConnection,
        entry: &Entry,
        reason: &str,
        detail: &str,
    ) -> Result<(), BusError> {
        let (stream, group) = (self.settings.key.as_str(), self.settings.group.as_str());
        let (dead, kept) = (format!("{stream}:dead"), self.settings.max_dead.to_string());
        tracing::warn!(id = entry.id, reason, detail, "an entry of the stream cannot be carried out");
        let text = |text: &str| Bytes::copy_from_slice(text.as_bytes());
        let head =
            ["XADD", &dead, "MAXLEN", "~", &kept, "*", "id", &entry.id, "reason", reason, "detail", detail];
        let mut command: Vec<Bytes> = head.into_iter().map(text).collect();
        for (name, value) in &entry.fields {
            command.extend([name.clone(), value.clone()]);
        }
        // In a cluster it may be on another server.
        self.client.connect(&dead).await?.call(&command).await?;
        if let Some(key) = entry.field("key") {
            let note = entry::note_of(stream, key);
            let is_mine = format!("p:{}", entry.id);
            if writing.call(&["GET", &note]).await?.text() == Some(&is_mine) {
                writing.call(&["DEL", &note]).await?;
            }
        }
        self.tally.count(if reason == "exhausted" { "exhausted" } else { "refused" });
        writing.call(&["XACK", stream, group, &entry.id]).await?;
        writing.call(&["XDEL", stream, &entry.id]).await.map(drop)
    }

    /// Lets nobody else take over what is being tried again.
    async fn keep_claimed(&self, writing: &RedisConnection, entries: &[Entry]) -> Result<(), BusError> {
        let settings = &self.settings;
        let head = ["XCLAIM", &settings.key, &settings.group, &self.consumer, "0"];
        let ids = entries.iter().map(|entry| entry.id.as_str());
        let command: Vec<&str> = head.into_iter().chain(ids).chain(["JUSTID"]).collect();
        writing.call(&command).await.map(drop)
    }

    /// Nodes that are gone leave their names behind.
    async fn forget_consumers(&self, writing: &RedisConnection) -> Result<(), BusError> {
        let (key, group) = (self.settings.key.as_str(), self.settings.group.as_str());
        let known = writing.call(&["XINFO", "CONSUMERS", key, group]).await?;
        let idle = i64::try_from(FORGET_AFTER.as_millis()).unwrap_or(i64::MAX);
        for consumer in entry::of_consumers(&known, idle) {
            writing.call(&["XGROUP", "DELCONSUMER", key, group, &consumer]).await?;
        }
        Ok(())
    }
}
