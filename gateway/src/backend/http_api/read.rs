//! The calls that read, and that name what they are about in the path.

use axum::Extension;
use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::extract::{Path, Query, State};
use serde::Deserialize;

use super::{Api, Problem};
use crate::backend::calls::{Caller, NodesAnswer, Page, RoomAnswer, RoomQuery, SocketsAnswer};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Within {
    namespace: Option<String>,
}

type Named = Result<Path<String>, PathRejection>;
type Asked<T> = Result<Query<T>, QueryRejection>;

fn name(path: Named) -> Result<String, Problem> {
    path.map(|Path(name)| name).map_err(|error| Problem::invalid(error.body_text()))
}

fn query<T>(query: Asked<T>) -> Result<T, Problem> {
    query.map(|Query(query)| query).map_err(|error| Problem::invalid(error.body_text()))
}

pub(super) async fn room(
    State(api): State<Api>,
    Extension(caller): Extension<Caller>,
    room: Named,
    within: Asked<Within>,
) -> Result<axum::Json<RoomAnswer>, Problem> {
    let query = RoomQuery { room: name(room)?, namespace: query(within)?.namespace };
    api.calls.room(&caller, query).await.map(axum::Json)
}

pub(super) async fn room_sockets(
    State(api): State<Api>,
    Extension(caller): Extension<Caller>,
    room: Named,
    page: Asked<Page>,
) -> Result<axum::Json<SocketsAnswer>, Problem> {
    api.calls.room_sockets(&caller, name(room)?, query(page)?).await.map(axum::Json)
}

pub(super) async fn nodes(
    State(api): State<Api>,
    Extension(caller): Extension<Caller>,
) -> Result<axum::Json<NodesAnswer>, Problem> {
    api.calls.nodes(&caller).map(axum::Json)
}
