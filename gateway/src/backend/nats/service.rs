//! Calls of backends over NATS: a micro service that can be discovered, with the bodies and problems of the HTTP API.
//!
//! The nodes share the calls as one queue group. A call without a reply subject is carried out and not answered.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use async_nats::HeaderMap;
use async_nats::service::{NATS_SERVICE_ERROR, NATS_SERVICE_ERROR_CODE, Request, ServiceExt as _};
use futures_util::stream::{FuturesUnordered, SelectAll, StreamExt as _};
use roomcast_adapter::TraceContext;
use tokio::sync::watch;

use super::NatsLink;
use crate::backend::Problem;
use crate::backend::calls::{Caller, Calls, Meta, Verb};

/// The queue group of the nodes.
const QUEUE_GROUP: &str = "roomcast";

/// The endpoints: their names, and the subjects behind the prefix.
const ENDPOINTS: [(&str, &str, Verb); 8] = [
    ("emit", "emit", Verb::Emit),
    ("request", "request", Verb::Request),
    ("join", "join", Verb::Join),
    ("leave", "leave", Verb::Leave),
    ("disconnect", "disconnect", Verb::Disconnect),
    ("get-room", "get.room", Verb::GetRoom),
    ("get-socket", "get.socket", Verb::GetSocket),
    ("get-user", "get.user", Verb::GetUser),
];

/// Serves calls until `stop` says so; those that were begun are finished.
pub(crate) async fn serve_calls(
    link: NatsLink,
    calls: Arc<Calls>,
    max_calls: usize,
    mut stop: watch::Receiver<bool>,
) {
    let mut endpoints = SelectAll::new();
    // Subscriptions are remembered by the client, which makes them again after it was disconnected.
    let service = link.client.service_builder().description("Emit to, ask and manage Socket.IO clients");
    let service = service.queue_group(QUEUE_GROUP).start("roomcast", env!("CARGO_PKG_VERSION")).await;
    let service = match service {
        Ok(service) => service,
        Err(error) => return tracing::error!(%error, "the service for backends did not start"),
    };
    for (name, subject, verb) in ENDPOINTS {
        let subject = format!("{}.{subject}", link.prefix);
        match service.endpoint_builder().name(name).add(subject).await {
            Ok(endpoint) => endpoints.push(endpoint.map(move |request| (verb, request)).boxed()),
            Err(error) => return tracing::error!(%error, name, "a call of backends is not served"),
        }
    }
    let caller = Caller::named("nats");
    let mut running: FuturesUnordered<Pin<Box<dyn Future<Output = ()> + Send>>> = FuturesUnordered::new();
    loop {
        tokio::select! {
            // What is polled first is begun first, so the calls of a backend stay in order.
            biased;
            Some(()) = running.next(), if !running.is_empty() => {}
            _ = stop.wait_for(|stop| *stop) => break,
            next = endpoints.next(), if running.len() < max_calls => match next {
                Some((verb, request)) => {
                    let (link, calls, caller) = (link.clone(), Arc::clone(&calls), caller.clone());
                    running.push(Box::pin(async move { answer(&link, &calls, &caller, verb, request).await }));
                }
                None => break,
            },
        }
    }
    drop(endpoints);
    let _ = service.stop().await;
    while running.next().await.is_some() {}
    let _ = link.client.flush().await;
}

async fn answer(link: &NatsLink, calls: &Calls, caller: &Caller, verb: Verb, request: Request) {
    let message = &request.message;
    let meta = message.headers.as_ref().map(meta_of).unwrap_or_default();
    let (payload, mut headers) = match calls.perform(caller, verb, &meta, &message.payload).await {
        Ok(answer) => {
            link.tally.count("done");
            (answer.body.to_string(), HeaderMap::new())
        }
        Err(problem) => {
            link.tally.count("refused");
            tracing::debug!(call = verb.as_str(), code = problem.code.as_str(), "a call over NATS failed");
            (serde_json::to_string(&problem.details()).unwrap_or_default(), error_headers(&problem))
        }
    };
    if message.reply.is_none() {
        return;
    }
    headers.insert("Content-Type", "application/json");
    if let Err(error) = request.respond_with_headers(Ok(payload.into()), headers).await {
        tracing::debug!(%error, "a call over NATS was not answered");
    }
}

fn meta_of(headers: &HeaderMap) -> Meta {
    let text = |name: &str| headers.get(name).map(|value| value.as_str());
    Meta {
        key: text("Nats-Msg-Id").filter(|key| !key.is_empty()).map(str::to_owned),
        trace: text("traceparent").and_then(TraceContext::parse),
    }
}

/// By which clients of micro services know an error; the body tells more.
fn error_headers(problem: &Problem) -> HeaderMap {
    let mut headers = HeaderMap::new();
    // The detail may quote what a backend sent, line breaks and all.
    headers.insert(NATS_SERVICE_ERROR, problem.code.as_str());
    headers.insert(NATS_SERVICE_ERROR_CODE, problem.code.status().as_str());
    headers
}
