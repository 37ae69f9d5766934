//! `POST /v1/join`, `/v1/leave` and `/v1/disconnect`.

use axum::Extension;
use axum::extract::State;
use axum::http::StatusCode;

use super::body::Json;
use super::{Api, Problem};
use crate::backend::calls::{Caller, Disconnect, Done, Rooms};

type Answer = Result<(StatusCode, axum::Json<Done>), Problem>;

fn accepted(done: Done) -> Answer {
    Ok((StatusCode::ACCEPTED, axum::Json(done)))
}

pub(super) async fn join(
    State(api): State<Api>,
    Extension(caller): Extension<Caller>,
    Json(body): Json<Rooms>,
) -> Answer {
    accepted(api.calls.join(&caller, body).await?)
}

pub(super) async fn leave(
    State(api): State<Api>,
    Extension(caller): Extension<Caller>,
    Json(body): Json<Rooms>,
) -> Answer {
    accepted(api.calls.leave(&caller, body).await?)
}

pub(super) async fn disconnect(
    State(api): State<Api>,
    Extension(caller): Extension<Caller>,
    Json(body): Json<Disconnect>,
) -> Answer {
    accepted(api.calls.disconnect(&caller, body).await?)
}
