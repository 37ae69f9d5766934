//! The browser builds of the official client, served where the reference server serves them (`serveClient`).

use std::io::Read as _;
use std::sync::OnceLock;

use axum::body::Body;
use bytes::Bytes;
use flate2::read::GzDecoder;
use http::header::{CACHE_CONTROL, CONTENT_ENCODING, CONTENT_TYPE, ETAG, IF_NONE_MATCH, VARY};
use http::{HeaderValue, Method, Request, Response, StatusCode};

use super::answer;
use super::compression::Encoding;

/// The version of the client, which is the entity tag of its files.
const VERSION_TAG: &str = "\"4.8.4\"";

/// A file, compressed with gzip; and as it was, once somebody has asked for that. All answers share their bytes: a client
/// that is slow to read holds none of its own.
struct File {
    name: &'static str,
    compressed: &'static [u8],
    plain: OnceLock<Bytes>,
}

impl File {
    fn plain(&self) -> Bytes {
        // What is compiled in can be read: see the test.
        self.plain.get_or_init(|| decompress(self.compressed).unwrap_or_default().into()).clone()
    }
}

macro_rules! files {
    ($($name:literal),*) => {
        [$(File {
            name: $name,
            compressed: include_bytes!(concat!("../../assets/client/", $name, ".gz")),
            plain: OnceLock::new(),
        }),*]
    };
}

static FILES: [File; 8] = files![
    "socket.io.js",
    "socket.io.js.map",
    "socket.io.min.js",
    "socket.io.min.js.map",
    "socket.io.esm.min.js",
    "socket.io.esm.min.js.map",
    "socket.io.msgpack.min.js",
    "socket.io.msgpack.min.js.map"
];

/// Answers a request for one of the files; `None` if it is for something else.
pub(super) fn answer(name: &str, request: &Request<Body>) -> Option<Response<Body>> {
    let file = FILES.iter().find(|file| file.name == name)?;
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        return None;
    }
    if is_known(request) {
        return Some(answer::empty(StatusCode::NOT_MODIFIED));
    }
    let accepts_gzip = Encoding::accepted(request.headers()) == Some(Encoding::Gzip);
    let body = if accepts_gzip { Bytes::from_static(file.compressed) } else { file.plain() };
    let mut response = Response::new(Body::from(body));
    let headers = response.headers_mut();
    let kind = if name.ends_with(".map") {
        "application/json; charset=utf-8"
    } else {
        "application/javascript; charset=utf-8"
    };
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("public, max-age=0"));
    headers.insert(ETAG, HeaderValue::from_static(VERSION_TAG));
    headers.insert(VARY, HeaderValue::from_static("Accept-Encoding"));
    if accepts_gzip {
        headers.insert(CONTENT_ENCODING, Encoding::Gzip.header());
    }
    Some(response)
}

fn is_known(request: &Request<Body>) -> bool {
    request
        .headers()
        .get(IF_NONE_MATCH)
        .and_then(|tag| tag.to_str().ok())
        .is_some_and(|tag| tag.split(',').any(|tag| tag.trim().trim_start_matches("W/") == VERSION_TAG))
}

fn decompress(compressed: &[u8]) -> Option<Vec<u8>> {
    let mut body = Vec::new();
    GzDecoder::new(compressed).read_to_end(&mut body).ok()?;
    Some(body)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_file_can_be_read() {
        for file in &FILES {
            let body = file.plain();
            assert!(body.len() > file.compressed.len(), "{}", file.name);
            assert_eq!(body.as_ptr(), file.plain().as_ptr(), "its bytes are shared");
        }
        assert!(FILES[0].plain().starts_with(b"/*!\n * Socket.IO v4.8.4"));
    }

    #[test]
    fn only_the_files_are_served() {
        let request = Request::new(Body::empty());
        assert_eq!(answer("socket.io.js", &request).unwrap().status(), StatusCode::OK);
        assert!(answer("../secret", &request).is_none());
        assert!(answer("", &request).is_none());
        let mut known = Request::new(Body::empty());
        known.headers_mut().insert(IF_NONE_MATCH, HeaderValue::from_static("W/\"4.8.4\""));
        assert_eq!(answer("socket.io.js", &known).unwrap().status(), StatusCode::NOT_MODIFIED);
    }
}
