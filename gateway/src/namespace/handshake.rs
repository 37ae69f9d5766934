//! What is known of a client from the request with which its session began.

use std::fmt;
use std::net::SocketAddr;
use std::time::{SystemTime, UNIX_EPOCH};

use http::{HeaderMap, Uri, header};

/// Headers that most requests have. Their names would be half of what a session keeps of its request: each is one control
/// character there, which is no name (RFC 9110, section 5.1).
const COMMON: [&str; 29] = [
    "host",
    "connection",
    "upgrade",
    "sec-websocket-version",
    "sec-websocket-key",
    "sec-websocket-extensions",
    "sec-websocket-protocol",
    "user-agent",
    "accept",
    "accept-encoding",
    "accept-language",
    "accept-charset",
    "cache-control",
    "pragma",
    "origin",
    "referer",
    "cookie",
    "authorization",
    "content-type",
    "content-length",
    "sec-fetch-dest",
    "sec-fetch-mode",
    "sec-fetch-site",
    "sec-ch-ua",
    "sec-ch-ua-mobile",
    "sec-ch-ua-platform",
    "x-forwarded-for",
    "x-forwarded-proto",
    "x-forwarded-host",
];

/// The request that opened a session. Kept in one piece of memory for as long as the session lives.
pub struct Handshake {
    /// The URL's path and query, then `name\0value\0` for each header; a name of `COMMON` as the number of its place,
    /// counted from 1.
    text: Box<str>,
    url_len: usize,
    address: Option<SocketAddr>,
    /// Milliseconds since 1970.
    issued: u64,
    secure: bool,
}

impl Handshake {
    /// Copies what is worth keeping out of a request, so that the request's buffers can go.
    pub(crate) fn new(uri: &Uri, headers: &HeaderMap, address: Option<SocketAddr>, secure: bool) -> Self {
        let url = uri.path_and_query().map_or("/", |url| url.as_str());
        let mut text = String::with_capacity(url.len() + headers.len() * 48);
        text.push_str(url);
        for (name, value) in headers {
            match COMMON.iter().position(|common| *common == name.as_str()) {
                Some(at) => text.push(char::from(at as u8 + 1)),
                None => text.push_str(name.as_str()),
            }
            text.push('\0');
            // Bytes above ASCII are Latin-1 for Node; few headers have any.
            text.extend(value.as_bytes().iter().map(|byte| char::from(*byte)));
            text.push('\0');
        }
        let issued = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self {
            text: text.into_boxed_str(),
            url_len: url.len(),
            address,
            issued: issued.as_millis() as u64,
            secure,
        }
    }

    /// The path and query of the request.
    pub fn url(&self) -> &str {
        &self.text[..self.url_len]
    }

    /// The headers, in the order in which they came, names in lower case.
    pub fn headers(&self) -> impl Iterator<Item = (&str, &str)> {
        let mut fields = self.text[self.url_len..].split('\0');
        std::iter::from_fn(move || {
            let name = fields.next()?;
            let common = match name.as_bytes() {
                [code] => COMMON.get(usize::from(*code).wrapping_sub(1)),
                _ => None,
            };
            Some((common.copied().unwrap_or(name), fields.next()?))
        })
    }

    /// The first header of a name, given in lower case.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers().find(|(key, _)| *key == name).map(|(_, value)| value)
    }

    /// The parameters of the query, decoded.
    pub fn query(&self) -> impl Iterator<Item = (std::borrow::Cow<'_, str>, std::borrow::Cow<'_, str>)> {
        let query = self.url().split_once('?').map_or("", |(_, query)| query);
        form_urlencoded::parse(query.as_bytes())
    }

    /// The last value of a query parameter.
    pub fn query_value(&self, name: &str) -> Option<String> {
        self.query().filter(|(key, _)| key == name).last().map(|(_, value)| value.into_owned())
    }

    /// The client's address: the peer's, or what a trusted proxy says of it. The port is 0 where that does not tell it.
    pub fn address(&self) -> Option<SocketAddr> {
        self.address
    }

    /// When the request came, in milliseconds since 1970.
    pub fn issued(&self) -> u64 {
        self.issued
    }

    /// True when the connection is encrypted up to this node, or up to a trusted proxy that says so.
    pub fn secure(&self) -> bool {
        self.secure
    }

    /// True when the request has an Origin: it came from a page.
    pub fn xdomain(&self) -> bool {
        self.header(header::ORIGIN.as_str()).is_some()
    }

    /// The handshake object in the shape of Socket.IO. `auth` is the payload of one namespace.
    pub(crate) fn to_json(&self, auth: &str) -> serde_json::Value {
        let headers: serde_json::Map<_, _> =
            self.headers().map(|(name, value)| (name.to_owned(), value.into())).collect();
        let query: serde_json::Map<_, _> =
            self.query().map(|(name, value)| (name.into_owned(), value.into())).collect();
        serde_json::json!({
            "headers": headers,
            "time": crate::time::http_date(self.issued),
            "address": self.address.map(|address| address.ip().to_string()).unwrap_or_default(),
            "xdomain": self.xdomain(),
            "secure": self.secure,
            "issued": self.issued,
            "url": self.url(),
            "query": query,
            "auth": serde_json::from_str::<serde_json::Value>(auth).unwrap_or_default(),
        })
    }
}

/// Headers that let whoever reads them act as the client.
const CREDENTIALS: [&str; 3] = ["authorization", "proxy-authorization", "cookie"];

impl Handshake {
    /// The handshake object without what is secret: no auth payload, no credentials in headers, and no query, which may
    /// hold a token.
    pub(crate) fn to_public_json(&self) -> serde_json::Value {
        let mut object = self.to_json("{}");
        if let Some(headers) = object["headers"].as_object_mut() {
            headers.retain(|name, _| !CREDENTIALS.contains(&name.as_str()));
        }
        object["query"] = serde_json::json!({});
        object["url"] = self.url().split('?').next().unwrap_or_default().into();
        object
    }
}

/// Cookies, credentials and tokens stay out of logs.
impl fmt::Debug for Handshake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Handshake").field("address", &self.address).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn common_names_take_one_byte_and_are_told_in_full() {
        let mut headers = HeaderMap::new();
        for (at, name) in COMMON.iter().enumerate() {
            headers.insert(*name, HeaderValue::from(at));
        }
        // Names of one letter are as they are.
        headers.insert("a", HeaderValue::from_static("of no list"));
        let handshake = Handshake::new(&"/".parse().unwrap(), &headers, None, false);
        for (at, name) in COMMON.iter().enumerate() {
            assert_eq!(handshake.header(name), Some(&*at.to_string()), "{name}");
        }
        assert_eq!(handshake.header("a"), Some("of no list"));
        let (names, values) = (COMMON.len() * 3 + 3, 10 + (COMMON.len() - 10) * 2 + "of no list".len());
        assert_eq!(handshake.text.len(), "/".len() + names + values);
    }

    #[test]
    fn keeps_url_and_headers_in_one_piece() {
        let mut headers = HeaderMap::new();
        headers.insert("x-a", HeaderValue::from_static("1"));
        headers.insert("cookie", HeaderValue::from_static("a=1"));
        headers.insert("authorization", HeaderValue::from_static("Bearer t"));
        headers.append("x-b", HeaderValue::from_bytes(b"\xe9").unwrap());
        let uri = "/socket.io/?EIO=4&transport=polling&q=a%20b".parse().unwrap();
        let handshake = Handshake::new(&uri, &headers, None, false);
        assert_eq!(handshake.url(), "/socket.io/?EIO=4&transport=polling&q=a%20b");
        let all = [("x-a", "1"), ("cookie", "a=1"), ("authorization", "Bearer t"), ("x-b", "é")];
        assert_eq!(handshake.headers().collect::<Vec<_>>(), all);
        assert_eq!(handshake.query_value("q").as_deref(), Some("a b"));
        let json = handshake.to_json(r#"{"token":"t"}"#);
        assert_eq!(json["auth"]["token"], "t");
        assert_eq!(json["query"]["transport"], "polling");
        assert!(!handshake.xdomain());
        let public = handshake.to_public_json();
        assert_eq!((public["auth"].to_string(), public["url"].as_str()), ("{}".into(), Some("/socket.io/")));
        assert_eq!(public["headers"], serde_json::json!({ "x-a": "1", "x-b": "é" }));
        assert!(!format!("{handshake:?}").contains("a%20b"));
    }
}
