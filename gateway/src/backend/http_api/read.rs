//! The calls that name what they are about in the path.

use axum::Extension;
use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::extract::{Path, Query, Request, State};
use axum::http::StatusCode;
use axum::response::Response;
use roomcast_adapter::SocketId;
use schemars::JsonSchema;
use serde::Deserialize;

use super::body::{self, Format};
use super::{Api, Problem};
use crate::backend::calls::{
    self, Caller, Disconnect, Drain, LettersQuery, Page, RoomQuery, RoomsQuery, SocketQuery, UserQuery,
};

/// Where to look.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Within {
    /// The namespace, "/" if none is named.
    namespace: Option<String>,
}

/// How a user's sockets are disconnected.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Closing {
    /// The namespace, "/" if none is named.
    namespace: Option<String>,
    /// Whether the whole connections end, with the clients' other namespaces.
    #[serde(default)]
    close: bool,
    /// For the log.
    reason: Option<String>,
}

type Named = Result<Path<String>, PathRejection>;
pub(super) type Asked<T> = Result<Query<T>, QueryRejection>;
type Answer = Result<Response, Problem>;

fn name(path: Named) -> Result<String, Problem> {
    path.map(|Path(name)| name).map_err(|error| Problem::invalid(error.body_text()))
}

pub(super) fn query<T>(query: Asked<T>) -> Result<T, Problem> {
    query.map(|Query(query)| query).map_err(|error| Problem::invalid(error.body_text()))
}

pub(super) async fn rooms(
    State(api): State<Api>,
    Extension(caller): Extension<Caller>,
    format: Format,
    page: Asked<RoomsQuery>,
) -> Answer {
    format.answer(StatusCode::OK, &api.calls.rooms(&caller, query(page)?).await?)
}

pub(super) async fn room(
    State(api): State<Api>,
    Extension(caller): Extension<Caller>,
    format: Format,
    room: Named,
    within: Asked<Within>,
) -> Answer {
    let asked = RoomQuery { room: name(room)?, namespace: query(within)?.namespace };
    format.answer(StatusCode::OK, &api.calls.room(&caller, asked).await?)
}

pub(super) async fn room_sockets(
    State(api): State<Api>,
    Extension(caller): Extension<Caller>,
    format: Format,
    room: Named,
    page: Asked<Page>,
) -> Answer {
    format.answer(StatusCode::OK, &api.calls.room_sockets(&caller, name(room)?, query(page)?).await?)
}

pub(super) async fn socket(
    State(api): State<Api>,
    Extension(caller): Extension<Caller>,
    format: Format,
    socket: Result<Path<SocketId>, PathRejection>,
    within: Asked<Within>,
) -> Answer {
    let Path(socket) = socket.map_err(|error| Problem::invalid(error.body_text()))?;
    let asked = SocketQuery { socket, namespace: query(within)?.namespace };
    format.answer(StatusCode::OK, &api.calls.socket(&caller, asked).await?)
}

pub(super) async fn user_sockets(
    State(api): State<Api>,
    Extension(caller): Extension<Caller>,
    format: Format,
    user: Named,
    page: Asked<Page>,
) -> Answer {
    let Page { namespace, limit, cursor } = query(page)?;
    let asked = UserQuery { user: name(user)?, namespace, limit, cursor };
    format.answer(StatusCode::OK, &api.calls.user_sockets(&caller, asked).await?)
}

pub(super) async fn disconnect_user(
    State(api): State<Api>,
    Extension(caller): Extension<Caller>,
    format: Format,
    user: Named,
    closing: Asked<Closing>,
) -> Answer {
    let Closing { namespace, close, reason } = query(closing)?;
    let body = Disconnect::user(namespace, name(user)?, close, reason);
    format.answer(StatusCode::OK, &api.calls.disconnect(&caller, body).await?)
}

pub(super) async fn nodes(
    State(api): State<Api>,
    Extension(caller): Extension<Caller>,
    format: Format,
) -> Answer {
    format.answer(StatusCode::OK, &api.calls.nodes(&caller)?)
}

pub(super) async fn drain(
    State(api): State<Api>,
    Extension(caller): Extension<Caller>,
    format: Format,
    node: Named,
    request: Request,
) -> Answer {
    let node = name(node)?;
    let (parts, body) = request.into_parts();
    let body = body::read(&parts.headers, body, api.settings.max_body).await?;
    let body = if body.is_empty() { Drain::default() } else { calls::read(&body)? };
    format.answer(StatusCode::OK, &api.calls.drain(&caller, &node, &body).await?)
}

pub(super) async fn dead_letters(
    State(api): State<Api>,
    Extension(caller): Extension<Caller>,
    format: Format,
    asked: Asked<LettersQuery>,
) -> Answer {
    format.answer(StatusCode::OK, &api.calls.dead_letters(&caller, &query(asked)?)?)
}
