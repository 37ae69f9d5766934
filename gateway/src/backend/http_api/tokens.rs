//! `POST /v1/tokens/revoke`.

use axum::Extension;
use axum::extract::State;
use axum::http::StatusCode;

use super::body::Json;
use super::{Api, Problem};
use crate::backend::calls::{Caller, Done, Revoke};

pub(super) async fn revoke(
    State(api): State<Api>,
    Extension(caller): Extension<Caller>,
    Json(body): Json<Revoke>,
) -> Result<(StatusCode, axum::Json<Done>), Problem> {
    Ok((StatusCode::ACCEPTED, axum::Json(api.calls.revoke(&caller, body).await?)))
}
