//! What a backend may ask of the gateway, whichever way it asks: the calls of the contract, without a transport.
//!
//! Owns the bodies, what is checked before anything happens, the rights of a caller, and the answers. HTTP, NATS, Redis
//! streams and the replies of webhooks are ways in; none is known here.

mod args;
mod caller;
mod dead_letters;
mod emit;
mod manage;
mod nodes;
mod once;
mod perform;
mod read;
mod request;
mod selector;
mod server_emit;
mod tail;
mod tokens;

use std::sync::Arc;

use base64::Engine as _;
use roomcast_adapter::Adapter;

use super::{Code, Node, Problem};
use crate::trace::Tracer;

pub(crate) use caller::{Caller, Rights, Scope};
pub(crate) use dead_letters::{LettersAnswer, LettersQuery, Replay, Replayed};
pub(crate) use emit::{Batch, BatchAnswer, Emit, Emitted};
pub(crate) use manage::{Disconnect, Done, Rooms};
pub(crate) use nodes::{Drain, DrainAnswer, NodesAnswer};
pub(crate) use perform::{Meta, Verb, read};
pub(crate) use read::{
    OneSocket, Page, RoomAnswer, RoomQuery, RoomsAnswer, RoomsQuery, SocketQuery, SocketsAnswer, UserQuery,
};
pub(crate) use request::{AckItem, Answers, Request, RequestAnswer};
pub(crate) use server_emit::{ServerEmit, ServerEmitted};
pub(crate) use tail::TailQuery;
pub(crate) use tokens::Revoke;

/// The calls, as one node serves them.
pub(crate) struct Calls {
    node: Arc<dyn Node>,
    /// The most binary attachments in one event: a client closes its connection when it gets more.
    max_attachments: usize,
    tracer: Tracer,
}

impl Calls {
    pub(crate) fn new(node: Arc<dyn Node>, max_attachments: usize) -> Self {
        let tracer = node.tracer();
        Self { node, max_attachments, tracer }
    }

    /// What records traces.
    pub(crate) fn tracer(&self) -> &Tracer {
        &self.tracer
    }

    /// The namespace that a call names, for a caller who may use it: "/" when it names none, and `chat` is `/chat` as in
    /// Socket.IO.
    fn namespace(
        &self,
        caller: &Caller,
        scope: Scope,
        name: Option<&str>,
    ) -> Result<(String, Arc<dyn Adapter>), Problem> {
        let name = match name {
            None => "/".to_owned(),
            Some(name) if name.starts_with('/') => name.to_owned(),
            Some(name) => format!("/{name}"),
        };
        caller.check(scope)?;
        caller.check_namespace(&name)?;
        match self.node.adapter(&name) {
            Some(adapter) => Ok((name, adapter)),
            None => Err(Problem::new(Code::NotFound, format!("there is no namespace \"{name}\""))),
        }
    }
}

/// The id by which a call can be found again: 96 random bits.
fn call_id() -> Result<String, Problem> {
    let mut random = [0; 12];
    getrandom::fill(&mut random).map_err(|error| Problem::new(Code::Internal, error.to_string()))?;
    Ok(base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(random))
}
