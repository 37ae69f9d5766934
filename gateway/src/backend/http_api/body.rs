//! Reading the body of a call. Owns the difference between what is no JSON and what is the wrong JSON.

use axum::body::Body;
use axum::extract::{FromRequest, Request};
use axum::http::{HeaderMap, header};
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use serde::de::DeserializeOwned;

use super::{Api, Code, Problem};

/// A JSON body.
pub(super) struct Json<T>(pub(super) T);

impl<T: DeserializeOwned> FromRequest<Api> for Json<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, api: &Api) -> Result<Self, Problem> {
        check_type(request.headers())?;
        let bytes = read(request.into_body(), api.settings.max_body).await?;
        serde_json::from_slice(&bytes).map(Self).map_err(|error| {
            let code = if error.is_data() { Code::InvalidRequest } else { Code::InvalidJson };
            Problem::new(code, error.to_string())
        })
    }
}

/// JSON has many names, and `curl -d` has its own; only what is surely something else is refused.
fn check_type(headers: &HeaderMap) -> Result<(), Problem> {
    let Some(kind) = headers.get(header::CONTENT_TYPE) else { return Ok(()) };
    let kind = kind.to_str().unwrap_or_default().split(';').next().unwrap_or_default().trim();
    let kind = kind.to_ascii_lowercase();
    let known = ["application/json", "text/json", "text/plain", "application/x-www-form-urlencoded"];
    if known.contains(&kind.as_str()) || kind.ends_with("+json") {
        return Ok(());
    }
    Err(Problem::new(Code::UnsupportedMediaType, format!("the body has to be application/json, not {kind}")))
}

async fn read(body: Body, max: usize) -> Result<bytes::Bytes, Problem> {
    match Limited::new(body, max).collect().await {
        Ok(collected) => Ok(collected.to_bytes()),
        Err(error) if error.is::<LengthLimitError>() => {
            Err(Problem::new(Code::PayloadTooLarge, format!("the body is longer than {max} bytes")))
        }
        Err(error) => Err(Problem::new(Code::InvalidJson, format!("the body ended early: {error}"))),
    }
}
