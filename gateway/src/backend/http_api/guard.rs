//! What stands before every call: callers, pages of other sites, counting.

use std::sync::Arc;

use axum::extract::{MatchedPath, Request, State};
use axum::http::uri::Authority;
use axum::http::{HeaderMap, HeaderValue, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use super::operations::{name_of, spanned};
use super::perform::{put_trace, trace};
use super::{Api, Callers, CertificateName, Code, Problem};
use crate::config::is_same_origin;

/// Lets a request to `/v1` or to the console's figures pass, or not. What passes is counted to its caller's rate.
pub(super) async fn guard(State(api): State<Api>, mut request: Request, next: Next) -> Response {
    let path = request.uri().path();
    let is_call = path.starts_with("/v1/");
    if !is_call && path != "/console/stats" {
        return next.run(request).await;
    }
    let callers = &api.settings.callers;
    let certificate = request.extensions().get::<CertificateName>().cloned();
    let (headers, is_keyless) = (request.headers(), callers.is_keyless());
    // A browser shows its user's certificate by itself, whichever page asks.
    if (is_keyless || certificate.is_some()) && !allows_page(headers, is_keyless) {
        return other_site().into_response();
    }
    let caller = callers.identify(headers, certificate.as_ref()).await;
    let caller =
        match caller.and_then(|caller| if is_call { caller.spend(1).map(|()| caller) } else { Ok(caller) }) {
            Ok(caller) => caller,
            Err(problem) => return problem.into_response(),
        };
    let trace = trace(request.headers());
    let matched = request.extensions().get::<MatchedPath>();
    let span = matched.and_then(|path| spanned(request.method(), path.as_str()));
    let mut span = span.map(|call| api.calls.recorded(&caller, call, trace));
    request.extensions_mut().insert(caller);
    let mut response = next.run(request).await;
    if let (Some(span), Some(code)) = (&mut span, response.extensions().get::<Code>()) {
        span.failed(code.as_str());
    }
    if let Some(trace) = trace {
        put_trace(&mut response, trace);
    }
    response
}

/// Whether a request may be one that the node's own console makes, or comes from no page at all.
///
/// A listener on loopback without keys is open to every program of the machine, and with them to every page that its
/// browser shows: such a page may send requests, and may have its own name resolve to 127.0.0.1 (DNS rebinding). So a
/// request that names an origin has to name ours, and without keys by address or as localhost.
pub fn allows_page(headers: &HeaderMap, keyless: bool) -> bool {
    let text = |name| headers.get(name).map(HeaderValue::to_str);
    let origin = match text(header::ORIGIN) {
        None => return true,
        Some(origin) => origin.ok(),
    };
    let host = text(header::HOST).and_then(Result::ok);
    let is_ours = origin.is_some_and(|origin| is_same_origin(origin, host));
    is_ours && (!keyless || host.is_some_and(is_local_name))
}

/// A layer for what else is mounted on the api listener, such as the sockets of the console: pages of other sites get
/// 403. Its state is who may call.
pub async fn own_page_only(State(callers): State<Arc<Callers>>, request: Request, next: Next) -> Response {
    if allows_page(request.headers(), callers.is_keyless()) {
        next.run(request).await
    } else {
        other_site().into_response()
    }
}

fn other_site() -> Problem {
    let detail = "a page of another site may not use the API; set api.keys to serve the API behind a proxy";
    Problem::new(Code::Forbidden, detail)
}

fn is_local_name(host: &str) -> bool {
    let Ok(authority) = host.parse::<Authority>() else { return false };
    let name = authority.host().trim_matches(['[', ']']);
    name.parse::<std::net::IpAddr>().is_ok() || name == "localhost" || name.ends_with(".localhost")
}

/// Counts the calls of `/v1` by name and status.
pub(super) async fn count(State(api): State<Api>, request: Request, next: Next) -> Response {
    let path = request.extensions().get::<MatchedPath>();
    let call = path.map_or("unknown", |path| name_of(request.method(), path.as_str()));
    let is_call = request.uri().path().starts_with("/v1/");
    let response = next.run(request).await;
    if is_call {
        api.node.metrics().api_request(call, response.status());
    }
    response
}

/// Headers that every answer has: nothing here is for caches, frames or guesses at its type.
pub(super) async fn harden(request: Request, next: Next) -> Response {
    let mut response = next.run(request).await;
    let headers = response.headers_mut();
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_our_own_page_and_programs_pass_without_keys() {
        let allows = |origin: Option<&str>, host: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::HOST, host.parse().unwrap());
            origin.map(|origin| headers.insert(header::ORIGIN, origin.parse().unwrap()));
            allows_page(&headers, true)
        };
        assert!(allows(None, "anything"));
        assert!(allows(Some("http://127.0.0.1:3001"), "127.0.0.1:3001"));
        assert!(allows(Some("http://localhost:3001"), "localhost:3001"));
        assert!(allows(Some("http://[::1]:3001"), "[::1]:3001"));
        assert!(!allows(Some("https://evil.example"), "127.0.0.1:3001"));
        assert!(!allows(Some("null"), "127.0.0.1:3001"));
        assert!(!allows(Some("http://evil.example:3001"), "evil.example:3001"), "DNS rebinding");

        let mut proxied = HeaderMap::new();
        proxied.insert(header::HOST, "ops.example".parse().unwrap());
        proxied.insert(header::ORIGIN, "https://ops.example".parse().unwrap());
        assert!(allows_page(&proxied, false) && !allows_page(&proxied, true));
    }
}
