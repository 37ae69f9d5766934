//! `POST /v1/emit`.

use axum::Extension;
use axum::extract::State;
use axum::http::StatusCode;

use super::body::Json;
use super::{Api, Problem};
use crate::backend::calls::{Caller, Emit, Emitted};

pub(super) async fn emit(
    State(api): State<Api>,
    Extension(caller): Extension<Caller>,
    Json(emit): Json<Emit>,
) -> Result<(StatusCode, axum::Json<Emitted>), Problem> {
    let emitted = api.calls.emit(&caller, emit).await?;
    Ok((StatusCode::ACCEPTED, axum::Json(emitted)))
}
