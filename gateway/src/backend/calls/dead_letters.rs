//! `dead_letters` and `replay`: events that could not be delivered to backends, to be read and sent again.
//!
//! They are what clients sent, hence only for callers who may do everything. Each node has its own.

use roomcast_adapter::NodeTag;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{Caller, Calls, Scope};
use crate::backend::events::DeadLetter;
use crate::backend::{Code, Problem};

/// Letters on a page, unless the caller says how many.
const DEFAULT_PAGE: usize = 100;
/// The most letters on a page.
const MAX_PAGE: usize = 1_000;

/// Which letters.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct LettersQuery {
    /// Of one backend; of all if none is named.
    backend: Option<String>,
    /// At most so many, 100 if nothing is said.
    limit: Option<usize>,
    /// Goes on after so many. Letters that come or go meanwhile shift the others.
    #[serde(default)]
    offset: usize,
}

/// The letters of the node that answers, the oldest of each backend first.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct LettersAnswer {
    /// The node. Others have their own.
    #[schemars(with = "String")]
    node: NodeTag,
    /// How many there are.
    total: usize,
    letters: Vec<LetterAnswer>,
}

/// An event that was not delivered.
#[derive(Debug, Serialize, JsonSchema)]
struct LetterAnswer {
    backend: String,
    /// Why: "exhausted", "gone" (the backend answered 410), "overloaded" (too much waited).
    reason: &'static str,
    /// How often it was tried.
    attempts: u32,
    /// Since when it is here (RFC 3339).
    at: String,
    /// The CloudEvent.
    event: Value,
}

/// Which letters to send again.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Replay {
    /// Those of one backend; of all if none is named.
    backend: Option<String>,
    /// Those of these events; all if none is named.
    ids: Option<Vec<String>>,
}

/// What became of them.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct Replayed {
    /// The node. Others have their own letters.
    #[schemars(with = "String")]
    node: NodeTag,
    /// The ids of the events that are on their way again. They keep them, so that a backend can tell what it has.
    replayed: Vec<String>,
    /// Letters that stay, because too much waits for their backend or it is not configured any more.
    kept: usize,
}

impl Calls {
    pub(crate) fn dead_letters(
        &self,
        caller: &Caller,
        query: &LettersQuery,
    ) -> Result<LettersAnswer, Problem> {
        caller.check_everywhere(Scope::Admin)?;
        let limit = query.limit.unwrap_or(DEFAULT_PAGE);
        if !(1..=MAX_PAGE).contains(&limit) {
            return Err(Problem::invalid(format!("`limit` has to be from 1 to {MAX_PAGE}")));
        }
        let letters = self.node.dead_letters();
        let (letters, total) = letters
            .map(|letters| letters.list(query.backend.as_deref(), query.offset, limit))
            .unwrap_or_default();
        let letters = letters.iter().map(answer).collect();
        Ok(LettersAnswer { node: self.node.factory().node(), total, letters })
    }

    pub(crate) fn replay(&self, caller: &Caller, body: &Replay) -> Result<Replayed, Problem> {
        caller.check_everywhere(Scope::Admin)?;
        let none = || Problem::new(Code::NotFound, "this node has no backends");
        let letters = self.node.dead_letters().ok_or_else(none)?;
        let (replayed, kept) = letters.replay(body.backend.as_deref(), body.ids.as_deref());
        let replayed: Vec<_> = replayed.iter().map(ToString::to_string).collect();
        tracing::info!(backend = body.backend, count = replayed.len(), kept, "dead letters are sent again");
        Ok(Replayed { node: self.node.factory().node(), replayed, kept })
    }
}

fn answer(letter: &DeadLetter) -> LetterAnswer {
    LetterAnswer {
        backend: letter.backend.to_string(),
        reason: letter.reason.as_str(),
        attempts: letter.attempts,
        at: humantime::format_rfc3339_millis(letter.at).to_string(),
        event: serde_json::from_str(&letter.event.json).unwrap_or_default(),
    }
}
