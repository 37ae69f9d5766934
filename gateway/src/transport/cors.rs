//! Cross-origin resource sharing, with the answers of the npm package `cors`, which the reference uses.

use axum::body::Body;
use http::header::{
    ACCESS_CONTROL_ALLOW_CREDENTIALS, ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS,
    ACCESS_CONTROL_ALLOW_ORIGIN, ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE,
    ACCESS_CONTROL_REQUEST_HEADERS, CONTENT_LENGTH, ORIGIN, VARY,
};
use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode};

use crate::config::Cors;

/// The answer to a preflight request.
pub(super) fn preflight(cors: &Cors, request: &HeaderMap) -> Response<Body> {
    let mut response = super::answer::empty(StatusCode::NO_CONTENT);
    let headers = response.headers_mut();
    allow_origin(cors, request.get(ORIGIN), headers);
    set(headers, ACCESS_CONTROL_ALLOW_METHODS, &cors.methods.join(","));
    if cors.allowed_headers.is_empty() {
        if let Some(wanted) = request.get(ACCESS_CONTROL_REQUEST_HEADERS) {
            headers.insert(ACCESS_CONTROL_ALLOW_HEADERS, wanted.clone());
            headers.append(VARY, HeaderValue::from_static("Access-Control-Request-Headers"));
        }
    } else {
        set(headers, ACCESS_CONTROL_ALLOW_HEADERS, &cors.allowed_headers.join(","));
    }
    if !cors.max_age.is_zero() {
        set(headers, ACCESS_CONTROL_MAX_AGE, &cors.max_age.as_secs().to_string());
    }
    headers.insert(CONTENT_LENGTH, HeaderValue::from_static("0"));
    response
}

/// Adds what every other answer carries. The origin is that of the request.
pub(super) fn decorate(cors: &Cors, origin: Option<&HeaderValue>, response: &mut Response<Body>) {
    let headers = response.headers_mut();
    allow_origin(cors, origin, headers);
    if !cors.exposed_headers.is_empty() {
        set(headers, ACCESS_CONTROL_EXPOSE_HEADERS, &cors.exposed_headers.join(","));
    }
}

fn allow_origin(cors: &Cors, origin: Option<&HeaderValue>, headers: &mut HeaderMap) {
    if cors.origins.iter().any(|origin| origin == "*") {
        headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*"));
    } else {
        headers.append(VARY, HeaderValue::from_static("Origin"));
        let is_allowed = |origin: &&HeaderValue| origin.to_str().is_ok_and(|text| cors.allows(text));
        if let Some(origin) = origin.filter(is_allowed) {
            headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin.clone());
        }
    }
    if cors.credentials {
        headers.insert(ACCESS_CONTROL_ALLOW_CREDENTIALS, HeaderValue::from_static("true"));
    }
}

fn set(headers: &mut HeaderMap, name: HeaderName, value: &str) {
    // The configuration was checked: a value that is no header value cannot come here.
    if let Ok(value) = HeaderValue::from_str(value) {
        headers.insert(name, value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(cors: &Cors, origin: &'static str) -> HeaderMap {
        let mut response = super::super::answer::empty(StatusCode::OK);
        decorate(cors, Some(&HeaderValue::from_static(origin)), &mut response);
        response.headers().clone()
    }

    #[test]
    fn only_listed_origins_may_read() {
        let cors = Cors { origins: vec!["https://a.example".into()], credentials: true, ..Cors::default() };
        let allowed = headers(&cors, "https://a.example");
        assert_eq!(allowed[ACCESS_CONTROL_ALLOW_ORIGIN], "https://a.example");
        assert_eq!(allowed[ACCESS_CONTROL_ALLOW_CREDENTIALS], "true");
        assert_eq!(allowed[VARY], "Origin");
        assert!(!headers(&cors, "https://b.example").contains_key(ACCESS_CONTROL_ALLOW_ORIGIN));
    }

    #[test]
    fn a_preflight_is_answered_without_content() {
        let cors = Cors { origins: vec!["*".into()], ..Cors::default() };
        let mut request = HeaderMap::new();
        request.insert(ACCESS_CONTROL_REQUEST_HEADERS, HeaderValue::from_static("x-a"));
        let response = preflight(&cors, &request);
        assert_eq!(response.status(), StatusCode::NO_CONTENT);
        assert_eq!(response.headers()[ACCESS_CONTROL_ALLOW_ORIGIN], "*");
        assert_eq!(response.headers()[ACCESS_CONTROL_ALLOW_HEADERS], "x-a");
        assert_eq!(response.headers()[ACCESS_CONTROL_ALLOW_METHODS], "GET,HEAD,PUT,PATCH,POST,DELETE");
    }
}
