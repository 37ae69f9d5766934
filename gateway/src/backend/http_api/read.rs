//! `GET /v1/rooms/{room}`, its `/sockets`, and `/v1/nodes`.

use axum::Extension;
use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::extract::{Path, Query, State};
use serde::Deserialize;

use super::{Api, Problem};
use crate::backend::calls::{Caller, NodesAnswer, Page, RoomAnswer, SocketsAnswer};

#[derive(Deserialize)]
pub(super) struct Within {
    namespace: Option<String>,
}

pub(super) async fn room(
    State(api): State<Api>,
    Extension(caller): Extension<Caller>,
    room: Result<Path<String>, PathRejection>,
    within: Result<Query<Within>, QueryRejection>,
) -> Result<axum::Json<RoomAnswer>, Problem> {
    let Path(room) = room.map_err(|error| Problem::invalid(error.body_text()))?;
    let Query(within) = within.map_err(|error| Problem::invalid(error.body_text()))?;
    api.calls.room(&caller, within.namespace.as_deref(), room).await.map(axum::Json)
}

pub(super) async fn room_sockets(
    State(api): State<Api>,
    Extension(caller): Extension<Caller>,
    room: Result<Path<String>, PathRejection>,
    page: Result<Query<Page>, QueryRejection>,
) -> Result<axum::Json<SocketsAnswer>, Problem> {
    let Path(room) = room.map_err(|error| Problem::invalid(error.body_text()))?;
    let Query(page) = page.map_err(|error| Problem::invalid(error.body_text()))?;
    api.calls.room_sockets(&caller, room, page).await.map(axum::Json)
}

pub(super) async fn nodes(
    State(api): State<Api>,
    Extension(caller): Extension<Caller>,
) -> Result<axum::Json<NodesAnswer>, Problem> {
    api.calls.nodes(&caller).map(axum::Json)
}
