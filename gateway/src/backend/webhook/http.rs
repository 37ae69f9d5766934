//! One signed request and what came of it. Owns headers, bounds and what counts as an answer; decides nothing.

use std::error::Error as _;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::{Bytes, BytesMut};
use reqwest::{Client, Url, header};
use roomcast_adapter::TraceContext;

use super::retry::retry_after;
use super::sign::Signer;

/// One event.
pub(super) const SINGLE: &str = "application/cloudevents+json";
/// Several.
pub(super) const BATCH: &str = "application/cloudevents-batch+json";

/// Where requests go, and how.
#[derive(Clone)]
pub(super) struct Endpoint {
    pub(super) client: Client,
    pub(super) url: Url,
    pub(super) signer: Signer,
    pub(super) max_reply: usize,
}

/// A request.
pub(super) struct Request {
    pub(super) message: Arc<str>,
    pub(super) kind: &'static str,
    pub(super) body: Bytes,
    pub(super) trace: Option<TraceContext>,
}

/// What came of a request.
#[derive(Debug)]
pub(super) enum Outcome {
    /// An answer, with as much of its body as is read.
    Answer { status: u16, retry_after: Option<Duration>, body: Body },
    /// The connection failed before anything was sent.
    NotSent,
    /// It may have arrived, and nothing is known.
    Lost,
}

/// The body of an answer.
#[derive(Debug)]
pub(super) enum Body {
    Whole(Bytes),
    /// It is longer than replies may be, or broke off.
    Unreadable,
}

impl Endpoint {
    /// Sends a request. Takes as long as it takes.
    pub(super) async fn send(&self, request: &Request) -> Outcome {
        let timestamp = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let signature = self.signer.sign(&request.message, timestamp, &request.body);
        let mut sending = self
            .client
            .post(self.url.clone())
            .header(header::CONTENT_TYPE, request.kind)
            .header(header::ACCEPT, "application/json, application/problem+json")
            .header("webhook-id", &*request.message)
            .header("webhook-timestamp", timestamp)
            .header("webhook-signature", signature)
            .body(request.body.clone());
        if let Some(trace) = request.trace {
            sending = sending.header("traceparent", trace.to_string());
        }
        match sending.send().await {
            Ok(response) => self.read(response).await,
            Err(error) => {
                let cause = error.source().map(ToString::to_string).unwrap_or_default();
                tracing::debug!(cause, "a webhook could not be sent");
                if error.is_connect() { Outcome::NotSent } else { Outcome::Lost }
            }
        }
    }

    async fn read(&self, mut response: reqwest::Response) -> Outcome {
        let status = response.status().as_u16();
        let after = response.headers().get(header::RETRY_AFTER).and_then(|value| value.to_str().ok());
        let retry_after = after.and_then(|value| retry_after(value, SystemTime::now()));
        let mut body = BytesMut::new();
        loop {
            match response.chunk().await {
                Ok(Some(chunk)) if body.len() + chunk.len() <= self.max_reply => {
                    body.extend_from_slice(&chunk);
                }
                Ok(None) => {
                    return Outcome::Answer { status, retry_after, body: Body::Whole(body.freeze()) };
                }
                Ok(Some(_)) | Err(_) => {
                    return Outcome::Answer { status, retry_after, body: Body::Unreadable };
                }
            }
        }
    }
}
