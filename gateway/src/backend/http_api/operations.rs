//! The calls of `/v1`: one table from which the routes, the description of the API and the names in metrics come, so that
//! they cannot differ.

use axum::Extension;
use axum::extract::{Request, State};
use axum::routing::{MethodRouter, delete, get, post};
use schemars::{JsonSchema, Schema, SchemaGenerator};

use super::body::Format;
use super::{Api, perform, read, tail};
use crate::backend::calls::{
    Batch, BatchAnswer, Caller, Disconnect, Done, Drain, DrainAnswer, Emit, Emitted, LettersAnswer,
    LettersQuery, NodesAnswer, OneSocket, Page, Replay, Replayed, Request as Ask, RequestAnswer, Revoke,
    RoomAnswer, Rooms, RoomsAnswer, RoomsQuery, Scope, ServerEmit, ServerEmitted, SocketsAnswer, TailQuery,
    Verb,
};

type SchemaOf = fn(&mut SchemaGenerator) -> Schema;

/// The method of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Method {
    Get,
    Post,
    Delete,
}

impl Method {
    /// As OpenAPI writes it.
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Get => "get",
            Self::Post => "post",
            Self::Delete => "delete",
        }
    }
}

/// What is answered when all is well.
pub(super) struct Answered {
    pub(super) status: u16,
    pub(super) what: &'static str,
    pub(super) schema: SchemaOf,
}

/// Whether an answer comes by lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Lines {
    No,
    /// For who asks for it.
    Too(&'static str),
    /// In no other way.
    Only(&'static str),
}

/// A call.
pub(super) struct Operation {
    /// In metrics, and the `operationId`.
    pub(super) name: &'static str,
    pub(super) method: Method,
    /// With names in braces, which are texts.
    pub(super) path: &'static str,
    /// In one sentence.
    pub(super) summary: &'static str,
    pub(super) scope: Scope,
    /// An object whose fields are the parameters of the query.
    pub(super) query: Option<SchemaOf>,
    pub(super) body: Option<SchemaOf>,
    /// The body may be left out, and so may a key that makes the call one that is carried out once: it is in any case.
    pub(super) optional_body: bool,
    pub(super) answers: &'static [Answered],
    /// Answers by lines, too.
    pub(super) lines: Lines,
    pub(super) handler: fn() -> MethodRouter<Api>,
}

fn schema<T: JsonSchema>(generator: &mut SchemaGenerator) -> Schema {
    generator.subschema_for::<T>()
}

const fn answered<T: JsonSchema>(status: u16, what: &'static str) -> Answered {
    Answered { status, what, schema: schema::<T> }
}

fn with_body(verb: Verb) -> MethodRouter<Api> {
    post(
        move |State(api): State<Api>,
              Extension(caller): Extension<Caller>,
              format: Format,
              request: Request| { perform::perform(api, caller, format, verb, request) },
    )
}

/// A call with a body and one way to succeed.
const fn call<T: JsonSchema>(
    verb: (&'static str, &'static str),
    scope: Scope,
    summary: &'static str,
    answers: &'static [Answered],
    handler: fn() -> MethodRouter<Api>,
) -> Operation {
    Operation {
        name: verb.0,
        method: Method::Post,
        path: verb.1,
        summary,
        scope,
        query: None,
        body: Some(schema::<T>),
        optional_body: false,
        answers,
        lines: Lines::No,
        handler,
    }
}

/// A call without a body.
const fn look<Q: JsonSchema>(
    name: (&'static str, &'static str),
    method: Method,
    scope: Scope,
    summary: &'static str,
    answers: &'static [Answered],
    handler: fn() -> MethodRouter<Api>,
) -> Operation {
    Operation {
        name: name.0,
        method,
        path: name.1,
        summary,
        scope,
        query: Some(schema::<Q>),
        body: None,
        optional_body: false,
        answers,
        lines: Lines::No,
        handler,
    }
}

/// No parameters.
#[derive(JsonSchema)]
struct Nothing {}

/// The calls.
pub(super) const OPERATIONS: &[Operation] = &[
    call::<Emit>(
        ("emit", "/v1/emit"),
        Scope::Emit,
        "Emits an event to whom it concerns, on whatever node they are.",
        &[answered::<Emitted>(202, "The broker has it, or it was delivered when there is none.")],
        || with_body(Verb::Emit),
    ),
    call::<Batch>(
        ("emit_batch", "/v1/emit/batch"),
        Scope::Emit,
        "Emits many events, each judged on its own.",
        &[answered::<BatchAnswer>(200, "What became of each item, in their order.")],
        || with_body(Verb::EmitBatch),
    ),
    Operation {
        lines: Lines::Too(
            "A line of JSON for each ack, `{\"socket\",\"args\"}`, and a last one with `\"done\":true`, `expected`, \
             `received`, `timed_out` and `lost_nodes`.",
        ),
        ..call::<Ask>(
            ("request", "/v1/request"),
            Scope::Emit,
            "Emits an event and collects what the clients answer.",
            &[answered::<RequestAnswer>(200, "The answers, and who did not answer.")],
            || with_body(Verb::Request),
        )
    },
    call::<Rooms>(
        ("join", "/v1/join"),
        Scope::Admin,
        "Makes sockets join rooms.",
        &[answered::<Done>(202, "What is emitted to the rooms from now on arrives.")],
        || with_body(Verb::Join),
    ),
    call::<Rooms>(
        ("leave", "/v1/leave"),
        Scope::Admin,
        "Makes sockets leave rooms.",
        &[answered::<Done>(202, "They have left.")],
        || with_body(Verb::Leave),
    ),
    call::<Disconnect>(
        ("disconnect", "/v1/disconnect"),
        Scope::Admin,
        "Disconnects sockets.",
        &[answered::<Done>(202, "Every node has begun.")],
        || with_body(Verb::Disconnect),
    ),
    call::<ServerEmit>(
        ("server_emit", "/v1/server-emit"),
        Scope::Emit,
        "Emits an event to the other servers of the cluster, for programs that embed the gateway.",
        &[
            answered::<ServerEmitted>(202, "The broker has it."),
            answered::<ServerEmitted>(200, "What the servers answered, when they were asked to."),
        ],
        || with_body(Verb::ServerEmit),
    ),
    call::<Revoke>(
        ("revoke_tokens", "/v1/tokens/revoke"),
        Scope::Admin,
        "Has tokens of clients believed no more, and closes the sessions that have them.",
        &[answered::<Done>(202, "Every node knows it.")],
        || with_body(Verb::RevokeTokens),
    ),
    look::<RoomsQuery>(
        ("rooms", "/v1/rooms"),
        Method::Get,
        Scope::Read,
        "Lists the rooms that have sockets, with their counts, by pages.",
        &[answered::<RoomsAnswer>(200, "A page.")],
        || get(read::rooms),
    ),
    look::<read::Within>(
        ("room", "/v1/rooms/{room}"),
        Method::Get,
        Scope::Read,
        "Counts the sockets in a room.",
        &[answered::<RoomAnswer>(200, "The count.")],
        || get(read::room),
    ),
    look::<Page>(
        ("room_sockets", "/v1/rooms/{room}/sockets"),
        Method::Get,
        Scope::Read,
        "Lists the sockets in a room, by pages.",
        &[answered::<SocketsAnswer>(200, "A page.")],
        || get(read::room_sockets),
    ),
    look::<read::Within>(
        ("socket", "/v1/sockets/{id}"),
        Method::Get,
        Scope::Read,
        "Shows one socket.",
        &[answered::<OneSocket>(200, "The socket.")],
        || get(read::socket),
    ),
    look::<Page>(
        ("user_sockets", "/v1/users/{id}/sockets"),
        Method::Get,
        Scope::Read,
        "Lists the sockets of a user, by pages.",
        &[answered::<SocketsAnswer>(200, "A page.")],
        || get(read::user_sockets),
    ),
    look::<read::Closing>(
        ("disconnect_user", "/v1/users/{id}/sockets"),
        Method::Delete,
        Scope::Admin,
        "Disconnects all the sockets of a user.",
        &[answered::<Done>(200, "Every node has begun.")],
        || delete(read::disconnect_user),
    ),
    Operation {
        lines: Lines::Only("A line of JSON for each emit and each event, for as long as they are read."),
        ..look::<TailQuery>(
            ("tail", "/v1/tail"),
            Method::Get,
            Scope::Admin,
            "Shows what goes through this node, for somebody who looks for a fault.",
            &[answered::<()>(200, "The lines.")],
            || get(tail::tail),
        )
    },
    look::<Nothing>(
        ("nodes", "/v1/nodes"),
        Method::Get,
        Scope::Read,
        "Lists the live nodes.",
        &[answered::<NodesAnswer>(200, "The nodes.")],
        || get(read::nodes),
    ),
    Operation {
        optional_body: true,
        ..call::<Drain>(
            ("drain", "/v1/nodes/{id}/drain"),
            Scope::Admin,
            "Has a node send its clients away, one after the other, and end.",
            &[answered::<DrainAnswer>(200, "It drains.")],
            || post(read::drain),
        )
    },
    look::<LettersQuery>(
        ("dead_letters", "/v1/dead-letters"),
        Method::Get,
        Scope::Admin,
        "Lists events that could not be delivered to backends of this node.",
        &[answered::<LettersAnswer>(200, "A page.")],
        || get(read::dead_letters),
    ),
    call::<Replay>(
        ("replay", "/v1/dead-letters/replay"),
        Scope::Admin,
        "Sends events again that could not be delivered to backends of this node.",
        &[answered::<Replayed>(200, "What became of them.")],
        || with_body(Verb::Replay),
    ),
];

fn find(method: &axum::http::Method, path: &str) -> Option<&'static Operation> {
    let is_it = |of: &&Operation| of.path == path && of.method.as_str().eq_ignore_ascii_case(method.as_str());
    OPERATIONS.iter().find(is_it)
}

/// The name of a call, for metrics.
pub(super) fn name_of(method: &axum::http::Method, path: &str) -> &'static str {
    find(method, path).map_or("unknown", |operation| operation.name)
}

/// The name of a call that makes no span by itself, as those with a body do. None of one that goes on for as long as somebody
/// looks.
pub(super) fn spanned(method: &axum::http::Method, path: &str) -> Option<&'static str> {
    let has_none = |of: &&Operation| of.body.is_none() || of.optional_body;
    let ends = |of: &&Operation| !matches!(of.lines, Lines::Only(_));
    find(method, path).filter(has_none).filter(ends).map(|operation| operation.name)
}
