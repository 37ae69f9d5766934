//! The opening handshake (RFC 6455 section 4).
//!
//! Owns what the two HTTP messages must say. It must not read or write HTTP: methods, versions and header maps are
//! arguments, and what to answer is returned. The extension header has its own file, `extension.rs`.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::header::{
    CONNECTION, HeaderName, HeaderValue, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_EXTENSIONS, SEC_WEBSOCKET_KEY,
    SEC_WEBSOCKET_VERSION, UPGRADE,
};
use http::{HeaderMap, Method, StatusCode, Version};
use sha1::{Digest as _, Sha1};

pub use super::extension::{CLIENT_OFFER, DeflateConfig, Negotiated, negotiate};

/// What the accept key is derived with (RFC 6455 section 1.3).
const GUID: &str = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/// The `Sec-WebSocket-Accept` that answers a `Sec-WebSocket-Key` (RFC 6455 section 4.2.2).
pub fn accept_key(key: &str) -> String {
    STANDARD.encode(Sha1::new().chain_update(key).chain_update(GUID).finalize())
}

/// A handshake that may be accepted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    accept: String,
}

impl Request {
    /// The value of `Sec-WebSocket-Accept`.
    pub fn accept(&self) -> &str {
        &self.accept
    }

    /// The headers of the `101 Switching Protocols` that accepts (RFC 6455 section 4.2.2).
    pub fn response_headers(&self, compression: Option<Negotiated>) -> HeaderMap {
        let value = |text: String| HeaderValue::from_str(&text).expect("only visible ASCII");
        let mut headers = HeaderMap::with_capacity(4);
        headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
        headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
        headers.insert(SEC_WEBSOCKET_ACCEPT, value(self.accept.clone()));
        if let Some(compression) = compression {
            headers.insert(SEC_WEBSOCKET_EXTENSIONS, value(compression.header_value()));
        }
        headers
    }
}

/// Why a handshake is refused, by the server or by the client.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
#[non_exhaustive]
pub enum HandshakeError {
    /// The method is not GET.
    #[error("the method is not GET")]
    Method,
    /// The request is not HTTP/1.1.
    #[error("the request is not HTTP/1.1")]
    HttpVersion,
    /// `Upgrade` does not name `websocket`.
    #[error("the Upgrade header does not name websocket")]
    Upgrade,
    /// `Connection` does not name `upgrade`.
    #[error("the Connection header does not name upgrade")]
    Connection,
    /// `Sec-WebSocket-Version` is not 13. Answer with [`HandshakeError::response_header`].
    #[error("the WebSocket version is not 13")]
    Version,
    /// `Sec-WebSocket-Key` is missing, repeated, or not the base64 of 16 bytes.
    #[error("the Sec-WebSocket-Key header is missing or not 16 bytes in base64")]
    Key,
    /// Client: the status is not 101.
    #[error("the server did not switch protocols")]
    Status,
    /// Client: `Sec-WebSocket-Accept` is not derived from our key.
    #[error("the Sec-WebSocket-Accept header does not answer the key")]
    Accept,
    /// Client: the server accepted an extension that was not offered.
    #[error("the server accepted an extension that was not offered")]
    Extension,
}

impl HandshakeError {
    /// A name that stays the same across releases, for logs and metrics.
    pub const fn code(self) -> &'static str {
        match self {
            Self::Method => "ws_handshake_method",
            Self::HttpVersion => "ws_handshake_http_version",
            Self::Upgrade => "ws_handshake_upgrade",
            Self::Connection => "ws_handshake_connection",
            Self::Version => "ws_handshake_version",
            Self::Key => "ws_handshake_key",
            Self::Status => "ws_handshake_status",
            Self::Accept => "ws_handshake_accept",
            Self::Extension => "ws_handshake_extension",
        }
    }

    /// The status for a server to answer with: 405 for the method, 426 for the version (RFC 6455 section 4.2.2), 400 for
    /// everything else.
    pub const fn status(self) -> StatusCode {
        match self {
            Self::Method => StatusCode::METHOD_NOT_ALLOWED,
            Self::Version => StatusCode::UPGRADE_REQUIRED,
            Self::HttpVersion
            | Self::Upgrade
            | Self::Connection
            | Self::Key
            | Self::Status
            | Self::Accept
            | Self::Extension => StatusCode::BAD_REQUEST,
        }
    }

    /// A header that belongs into the answer: the version that we speak, or the method that we allow.
    pub fn response_header(self) -> Option<(HeaderName, HeaderValue)> {
        match self {
            Self::Method => Some((http::header::ALLOW, HeaderValue::from_static("GET"))),
            Self::Version => Some((SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13"))),
            _ => None,
        }
    }
}

/// Checks the request of a client (RFC 6455 section 4.2.1). `Host` and `Origin` are the caller's to check.
///
/// # Errors
///
/// The first condition that is not met.
pub fn validate(method: &Method, version: Version, headers: &HeaderMap) -> Result<Request, HandshakeError> {
    if method != Method::GET {
        return Err(HandshakeError::Method);
    }
    if version != Version::HTTP_11 {
        return Err(HandshakeError::HttpVersion);
    }
    check_upgrade(headers)?;
    if only(headers, &SEC_WEBSOCKET_VERSION) != Some("13") {
        return Err(HandshakeError::Version);
    }
    let key = only(headers, &SEC_WEBSOCKET_KEY).ok_or(HandshakeError::Key)?;
    // 16 bytes are 24 characters; the decoder rejects what is not canonical.
    let mut decoded = [0; 18];
    if key.len() != 24 || STANDARD.decode_slice(key, &mut decoded) != Ok(16) {
        return Err(HandshakeError::Key);
    }
    Ok(Request { accept: accept_key(key) })
}

/// Checks the response of a server to the request with `key` (RFC 6455 section 4.1), and returns what it made of the
/// extensions that were offered: `offered` says whether [`CLIENT_OFFER`] was sent.
///
/// # Errors
///
/// The first condition that is not met.
pub fn verify_response(
    status: StatusCode,
    headers: &HeaderMap,
    key: &str,
    offered: bool,
) -> Result<Option<Negotiated>, HandshakeError> {
    if status != StatusCode::SWITCHING_PROTOCOLS {
        return Err(HandshakeError::Status);
    }
    check_upgrade(headers)?;
    if only(headers, &SEC_WEBSOCKET_ACCEPT) != Some(accept_key(key).as_str()) {
        return Err(HandshakeError::Accept);
    }
    if !headers.contains_key(SEC_WEBSOCKET_EXTENSIONS) {
        return Ok(None);
    }
    match only(headers, &SEC_WEBSOCKET_EXTENSIONS).filter(|_| offered).and_then(Negotiated::from_response) {
        Some(negotiated) => Ok(Some(negotiated)),
        None => Err(HandshakeError::Extension),
    }
}

fn check_upgrade(headers: &HeaderMap) -> Result<(), HandshakeError> {
    if !has_token(headers, &UPGRADE, "websocket") {
        return Err(HandshakeError::Upgrade);
    }
    if !has_token(headers, &CONNECTION, "upgrade") {
        return Err(HandshakeError::Connection);
    }
    Ok(())
}

/// Whether one of the comma-separated elements of a header is `token`, in any case.
fn has_token(headers: &HeaderMap, name: &HeaderName, token: &str) -> bool {
    let values = headers.get_all(name).iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).any(|element| element.trim().eq_ignore_ascii_case(token))
}

/// The value of a header that occurs once.
fn only<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a str> {
    let mut values = headers.get_all(name).iter();
    let value = values.next()?.to_str().ok()?.trim();
    values.next().is_none().then_some(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The request of RFC 6455 section 1.3.
    fn request() -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
        headers.insert(CONNECTION, HeaderValue::from_static("keep-alive, Upgrade"));
        headers.insert(SEC_WEBSOCKET_KEY, HeaderValue::from_static("dGhlIHNhbXBsZSBub25jZQ=="));
        headers.insert(SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13"));
        headers
    }

    fn check(headers: &HeaderMap) -> Result<Request, HandshakeError> {
        validate(&Method::GET, Version::HTTP_11, headers)
    }

    #[test]
    fn accepts_the_example_of_the_rfc() {
        assert_eq!(check(&request()).unwrap().accept(), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    }

    #[test]
    fn refuses_what_is_missing_or_wrong() {
        let headers = request();
        assert_eq!(validate(&Method::POST, Version::HTTP_11, &headers), Err(HandshakeError::Method));
        assert_eq!(validate(&Method::GET, Version::HTTP_10, &headers), Err(HandshakeError::HttpVersion));
        let cases = [
            (UPGRADE, "h2c, websockets", HandshakeError::Upgrade),
            (CONNECTION, "keep-alive", HandshakeError::Connection),
            (SEC_WEBSOCKET_VERSION, "8", HandshakeError::Version),
            (SEC_WEBSOCKET_KEY, "dGhlIHNhbXBsZSBub25jZQ", HandshakeError::Key),
            (SEC_WEBSOCKET_KEY, "dGhlIHNhbXBsZSBub25jZTE=", HandshakeError::Key),
            (SEC_WEBSOCKET_KEY, "!!!!!!!!!!!!!!!!!!!!!!==", HandshakeError::Key),
        ];
        for (name, wrong, error) in cases {
            let mut headers = request();
            headers.insert(name.clone(), HeaderValue::from_static(wrong));
            assert_eq!(check(&headers), Err(error), "{name}: {wrong}");
            headers.remove(&name);
            assert_eq!(check(&headers), Err(error), "no {name}");
        }
        let mut headers = request();
        headers.append(SEC_WEBSOCKET_KEY, HeaderValue::from_static("dGhlIHNhbXBsZSBub25jZQ=="));
        assert_eq!(check(&headers), Err(HandshakeError::Key), "two keys");
    }

    #[test]
    fn tokens_are_found_in_any_case_and_line() {
        let mut headers = request();
        headers.insert(UPGRADE, HeaderValue::from_static("h2c ,WebSocket"));
        headers.insert(CONNECTION, HeaderValue::from_static("close"));
        headers.append(CONNECTION, HeaderValue::from_static("UPGRADE"));
        assert!(check(&headers).is_ok());
    }

    #[test]
    fn a_wrong_version_is_answered_with_the_right_one() {
        let (name, value) = HandshakeError::Version.response_header().unwrap();
        assert_eq!((name.as_str(), value.to_str().unwrap()), ("sec-websocket-version", "13"));
        assert_eq!(HandshakeError::Version.status(), 426);
    }

    #[test]
    fn a_client_verifies_what_a_server_answers() {
        let key = "dGhlIHNhbXBsZSBub25jZQ==";
        let verify = |headers: &HeaderMap, offered| {
            verify_response(StatusCode::SWITCHING_PROTOCOLS, headers, key, offered)
        };
        let request = check(&request()).unwrap();
        let plain = request.response_headers(None);
        assert_eq!(verify(&plain, true), Ok(None));
        assert_eq!(verify_response(StatusCode::OK, &plain, key, true), Err(HandshakeError::Status));
        let mut forged = plain.clone();
        forged.insert(SEC_WEBSOCKET_ACCEPT, HeaderValue::from_static("s3pPLMBiTxaQ9kYGzzhZRbK+xOp="));
        assert_eq!(verify(&forged, true), Err(HandshakeError::Accept));

        let mut offer = HeaderMap::new();
        offer.insert(SEC_WEBSOCKET_EXTENSIONS, HeaderValue::from_static(CLIENT_OFFER));
        let negotiated = negotiate(&offer, &DeflateConfig::default());
        assert!(negotiated.is_some());
        let deflate = request.response_headers(negotiated);
        assert_eq!(verify(&deflate, true), Ok(negotiated));
        assert_eq!(verify(&deflate, false), Err(HandshakeError::Extension));
    }
}
