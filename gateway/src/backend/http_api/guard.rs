//! What stands before every call: API keys, pages of other sites, counting.

use axum::extract::{MatchedPath, Request, State};
use axum::http::uri::Authority;
use axum::http::{HeaderMap, HeaderValue, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use subtle::{Choice, ConstantTimeEq as _};

use super::{Api, Code, Problem};
use crate::backend::calls::Caller;
use crate::config::{Secret, is_same_origin};

/// Lets a request to `/v1` or to the console's figures pass, or not.
pub(super) async fn guard(State(api): State<Api>, mut request: Request, next: Next) -> Response {
    let path = request.uri().path();
    if path.starts_with("/v1/") || path == "/console/stats" {
        let keys = &api.settings.keys;
        if keys.is_empty() && !allows_page(request.headers(), true) {
            return other_site().into_response();
        }
        if !keys.is_empty() && !is_known(bearer(request.headers()), keys) {
            let detail = "this needs the header \"Authorization: Bearer <api key>\"";
            return Problem::new(Code::Unauthorized, detail).into_response();
        }
        request.extensions_mut().insert(Caller::unlimited());
    }
    next.run(request).await
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
/// 403. Its state is whether there are no keys.
pub async fn own_page_only(State(keyless): State<bool>, request: Request, next: Next) -> Response {
    if allows_page(request.headers(), keyless) {
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

fn bearer(headers: &HeaderMap) -> Option<&str> {
    let (scheme, key) = headers.get(header::AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| key.trim())
}

/// Compares with every key, in a time that does not depend on what they have in common.
fn is_known(given: Option<&str>, keys: &[Secret]) -> bool {
    let given = given.unwrap_or_default().as_bytes();
    let none = Choice::from(0);
    keys.iter().fold(none, |known, key| known | key.expose().as_bytes().ct_eq(given)).into()
}

/// Counts the calls of `/v1` by name and status.
pub(super) async fn count(State(api): State<Api>, request: Request, next: Next) -> Response {
    let call = request.extensions().get::<MatchedPath>().map_or("unknown", |path| call_of(path.as_str()));
    let is_call = request.uri().path().starts_with("/v1/");
    let response = next.run(request).await;
    if is_call {
        api.node.metrics().api_request(call, response.status());
    }
    response
}

fn call_of(path: &str) -> &'static str {
    match path {
        "/v1/emit" => "emit",
        "/v1/join" => "join",
        "/v1/leave" => "leave",
        "/v1/disconnect" => "disconnect",
        "/v1/rooms/{room}" => "room",
        "/v1/rooms/{room}/sockets" => "room_sockets",
        "/v1/tokens/revoke" => "tokens_revoke",
        "/v1/nodes" => "nodes",
        "/v1/tail" => "tail",
        _ => "unknown",
    }
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

    #[test]
    fn a_key_is_known_whole() {
        let keys = [Secret::new("first"), Secret::new("second")];
        assert!(is_known(Some("first"), &keys) && is_known(Some("second"), &keys));
        for given in [None, Some(""), Some("firs"), Some("first "), Some("FIRST")] {
            assert!(!is_known(given, &keys), "{given:?}");
        }
    }
}
