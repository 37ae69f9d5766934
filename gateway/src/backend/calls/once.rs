//! Calls with an idempotency key: the same key with the same body is carried out once, whichever node gets it.
//!
//! Owns what makes two calls the same, and how long one waits for the other. Who remembers them is the adapter's.

use std::time::Duration;

use bytes::Bytes;
use roomcast_adapter::{Once, OnceKey, TraceContext};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest as _, Sha256};
use tokio::time::{Instant, sleep};

use super::perform::Answer;
use super::{Caller, Calls, Verb};
use crate::backend::{Code, Problem};

/// How long a call waits for the first one with its key, before it says that this one is still in hand.
const PATIENCE: Duration = Duration::from_secs(10);
/// The pause before it asks again, at first. It doubles up to ten times that.
const PAUSE: Duration = Duration::from_millis(20);

/// An answer as it is remembered.
#[derive(Serialize, Deserialize)]
struct Remembered {
    status: u16,
    body: Value,
}

impl Calls {
    /// Carries a call out, unless it was before. One that fails is not remembered: it may be tried again.
    pub(super) async fn once(
        &self,
        caller: &Caller,
        verb: Verb,
        key: &str,
        body: &[u8],
        trace: Option<TraceContext>,
    ) -> Result<Answer, Problem> {
        let once = once_key(caller.name(), verb, key, body);
        let (deadline, mut pause) = (Instant::now() + PATIENCE, PAUSE);
        loop {
            match self.node.factory().once(once).await? {
                Once::First(first) => {
                    let answer = self.carry_out(caller, verb, body, trace).await?;
                    let remembered = Remembered { status: answer.status, body: answer.body.clone() };
                    first.done(Bytes::from(serde_json::to_vec(&remembered).unwrap_or_default())).await;
                    return Ok(answer);
                }
                Once::Before(answer) => return again(answer.as_deref()),
                Once::Other => {
                    let detail = "this Idempotency-Key came with another call or another body before";
                    return Err(Problem::new(Code::IdempotencyMismatch, detail));
                }
                Once::Busy if Instant::now() + pause > deadline => {
                    let detail = "the call with this Idempotency-Key is still being carried out";
                    return Err(Problem::new(Code::InProgress, detail).retry_after(1));
                }
                Once::Busy => sleep(pause).await,
            }
            pause = (pause * 2).min(PAUSE * 10);
        }
    }
}

/// What callers choose is hashed: one cannot find another's.
fn once_key(caller: &str, verb: Verb, key: &str, body: &[u8]) -> OnceKey {
    let mut call = Sha256::new();
    call.update((caller.len() as u64).to_le_bytes());
    call.update(caller);
    call.update(key);
    let mut what = Sha256::new();
    what.update(verb.as_str());
    what.update([0]);
    what.update(body);
    let what: [u8; 32] = what.finalize().into();
    let mut half = [0; 16];
    half.copy_from_slice(&what[..16]);
    OnceKey { call: call.finalize().into(), body: half }
}

/// What was answered before. It comes from another node, perhaps.
fn again(answer: Option<&[u8]>) -> Result<Answer, Problem> {
    let detail = "the call with this Idempotency-Key was carried out; its answer was too long to be kept";
    let not_kept = || Problem::new(Code::AnswerNotKept, detail);
    let Remembered { status, mut body } =
        serde_json::from_slice(answer.ok_or_else(not_kept)?).map_err(|_| not_kept())?;
    if let Value::Object(fields) = &mut body {
        fields.insert("duplicate".to_owned(), Value::Bool(true));
    }
    Ok(Answer { status, body })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_are_the_same_by_caller_key_verb_and_body() {
        let one = once_key("a", Verb::Emit, "k", b"{}");
        assert_eq!(one, once_key("a", Verb::Emit, "k", b"{}"));
        for other in [once_key("b", Verb::Emit, "k", b"{}"), once_key("a", Verb::Emit, "l", b"{}")] {
            assert_ne!(one.call, other.call);
        }
        assert_ne!(once_key("ab", Verb::Emit, "c", b"").call, once_key("a", Verb::Emit, "bc", b"").call);
        for other in [once_key("a", Verb::Join, "k", b"{}"), once_key("a", Verb::Emit, "k", b"{ }")] {
            assert_eq!(one.call, other.call);
            assert_ne!(one.body, other.body);
        }
    }
}
