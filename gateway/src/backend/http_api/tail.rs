//! `GET /v1/tail`: lines of JSON for as long as they are read.

use axum::Extension;
use axum::body::Body;
use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use futures_util::StreamExt as _;

use super::{Api, Problem, read};
use crate::backend::calls::{Caller, TailQuery};

pub(super) async fn tail(
    State(api): State<Api>,
    Extension(caller): Extension<Caller>,
    query: read::Asked<TailQuery>,
) -> Result<Response, Problem> {
    let lines = api.calls.tail(&caller, read::query(query)?)?.map(|line| {
        serde_json::to_vec(&line).map(|mut line| {
            line.push(b'\n');
            line
        })
    });
    let kind = [(header::CONTENT_TYPE, "application/x-ndjson")];
    Ok((kind, Body::from_stream(lines)).into_response())
}
