//! Which client a request comes from when proxies stand between: `X-Forwarded-For`, or `Forwarded` (RFC 7239).
//!
//! Headers are what anybody may write. So they are read from their end, which the nearest proxy wrote, and only as far as
//! each hop that wrote one is a proxy that is trusted.

use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};

use http::HeaderMap;
use http::header::{FORWARDED, HeaderName};

use super::Peer;
use crate::config::{ForwardedHeader, Public};

/// Hops that are walked at most. A chain of proxies is shorter; a header that is longer is somebody's play.
const MAX_HOPS: usize = 32;

/// Stands for a value that cannot be read. It is no address: the way ends there.
const UNREADABLE: &str = "unreadable";

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");

/// The client behind the peer, as far as trusted proxies tell of it; the peer itself where they tell nothing.
pub(super) fn client(public: &Public, peer: Peer, headers: &HeaderMap) -> Peer {
    let is_trusted = peer.address.is_some_and(|address| public.trusts(address.ip()));
    if !is_trusted {
        return peer;
    }
    match public.forwarded_header {
        ForwardedHeader::XForwardedFor => {
            let elements = last_elements(headers, &X_FORWARDED_FOR, false);
            let hops = elements.iter().rev().map(|element| Hop { address: node(element), secure: None });
            let mut client = walk(public, peer, hops);
            // The nearest proxy has the last word.
            let scheme = last_elements(headers, &X_FORWARDED_PROTO, false).pop_back();
            if let Some(scheme) = scheme {
                client.secure = is_secure(&scheme);
            }
            client
        }
        ForwardedHeader::Forwarded => {
            let elements = last_elements(headers, &FORWARDED, true);
            walk(public, peer, elements.iter().rev().map(|element| hop(element)))
        }
    }
}

/// What one proxy says of whoever it took the request from.
struct Hop {
    /// `None`: nothing that is an address.
    address: Option<SocketAddr>,
    secure: Option<bool>,
}

/// Goes from the nearest proxy to the first one that is not trusted, which is the client. What is no address ends the way
/// before it.
fn walk(public: &Public, peer: Peer, hops: impl Iterator<Item = Hop>) -> Peer {
    let mut client = peer;
    for hop in hops {
        let Some(address) = hop.address else { break };
        client.address = Some(address);
        client.secure = hop.secure.unwrap_or(client.secure);
        if !public.trusts(address.ip()) {
            break;
        }
    }
    client
}

/// The last elements of a list, over all headers of the name, in order. Empty ones do not count (RFC 9110, section 5.6.1).
fn last_elements(headers: &HeaderMap, name: &HeaderName, quotes: bool) -> VecDeque<String> {
    let mut elements = VecDeque::new();
    for value in headers.get_all(name) {
        // Bytes above ASCII are in no address: such an element is none, and the way ends there.
        let value = String::from_utf8_lossy(value.as_bytes());
        // A client's open quote would swallow what the proxies have put behind it.
        let value = if quotes && has_open_quote(&value) { UNREADABLE } else { &*value };
        let parts = split(value, ',', quotes).map(str::trim).filter(|part| !part.is_empty());
        for part in parts {
            if elements.len() == MAX_HOPS {
                elements.pop_front();
            }
            elements.push_back(part.to_owned());
        }
    }
    elements
}

/// Whether a quoted string has no end: nobody can say where its elements do.
fn has_open_quote(text: &str) -> bool {
    let mut quotes = Quotes::default();
    for char in text.chars() {
        quotes.pass(char);
    }
    quotes.is_open
}

/// Whether one is inside of a quoted string (RFC 9110, section 5.6.4), from character to character.
#[derive(Default)]
struct Quotes {
    is_open: bool,
    is_escaped: bool,
}

impl Quotes {
    /// Whether the character belongs to a quoted string, its quotes included.
    fn pass(&mut self, char: char) -> bool {
        if std::mem::take(&mut self.is_escaped) {
            return true;
        }
        match char {
            '"' => self.is_open = !self.is_open,
            '\\' if self.is_open => self.is_escaped = true,
            _ => return self.is_open,
        }
        true
    }
}

/// Splits a list; with `quotes`, not inside of quoted strings.
fn split(text: &str, separator: char, quotes: bool) -> impl Iterator<Item = &str> {
    let mut quoted = Quotes::default();
    text.split(move |char| !(quotes && quoted.pass(char)) && char == separator)
}

/// An element of `Forwarded`: `for=192.0.2.1;proto=https;by=...`.
fn hop(element: &str) -> Hop {
    let mut hop = Hop { address: None, secure: None };
    for pair in split(element, ';', true) {
        let Some((name, value)) = pair.trim().split_once('=') else { continue };
        let value = value.strip_prefix('"').and_then(|value| value.strip_suffix('"')).unwrap_or(value);
        if name.eq_ignore_ascii_case("for") {
            hop.address = node(value);
        } else if name.eq_ignore_ascii_case("proto") {
            hop.secure = Some(is_secure(value));
        }
    }
    hop
}

fn is_secure(scheme: &str) -> bool {
    scheme.eq_ignore_ascii_case("https") || scheme.eq_ignore_ascii_case("wss")
}

/// An address with or without a port: `192.0.2.1`, `192.0.2.1:80`, `2001:db8::1`, `[2001:db8::1]`, `[2001:db8::1]:80`.
fn node(text: &str) -> Option<SocketAddr> {
    if let Ok(address) = text.parse::<SocketAddr>() {
        return Some(address);
    }
    let bare = text.strip_prefix('[').and_then(|text| text.strip_suffix(']'));
    let address: IpAddr = match bare {
        Some(bare) => bare.parse::<std::net::Ipv6Addr>().ok()?.into(),
        None => text.parse().ok()?,
    };
    Some(SocketAddr::new(address, 0))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn public(header: ForwardedHeader) -> Public {
        let networks = ["10.0.0.0/8", "2001:db8::/32"];
        Public {
            trusted_proxies: networks.map(|network| network.parse().unwrap()).to_vec(),
            forwarded_header: header,
            ..Public::default()
        }
    }

    /// Whom a request of `from` is said to come from, and whether it is encrypted.
    fn find(header: ForwardedHeader, from: &str, headers: &[(&str, &str)]) -> (String, bool) {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(name.parse::<HeaderName>().unwrap(), value.parse().unwrap());
        }
        let peer = Peer::new(Some(from.parse().unwrap()), false);
        let client = client(&public(header), peer, &map);
        (client.address.unwrap().to_string(), client.secure)
    }

    #[test]
    fn the_last_address_that_is_no_proxys_is_the_client() {
        let cases: [(&str, &[&str], &str); 17] = [
            ("10.0.0.1:9", &["203.0.113.7"], "203.0.113.7:0"),
            ("10.0.0.1:9", &["203.0.113.7:4711"], "203.0.113.7:4711"),
            ("10.0.0.1:9", &["198.51.100.1, 203.0.113.7, 10.1.1.1"], "203.0.113.7:0"),
            // What is left of the client is what the client said.
            ("10.0.0.1:9", &["10.9.9.9, 203.0.113.7"], "203.0.113.7:0"),
            ("10.0.0.1:9", &["198.51.100.1", "203.0.113.7 ,10.1.1.1"], "203.0.113.7:0"),
            ("10.0.0.1:9", &["203.0.113.7", "10.1.1.1,,", " "], "203.0.113.7:0"),
            ("[2001:db8::1]:9", &["2001:db9::7"], "[2001:db9::7]:0"),
            ("[2001:db8::1]:9", &["[2001:db9::7]:443, [2001:db8::2]"], "[2001:db9::7]:443"),
            ("[::ffff:10.0.0.1]:9", &["::ffff:203.0.113.7, ::ffff:10.0.0.3"], "[::ffff:203.0.113.7]:0"),
            // Who is not trusted is believed nothing.
            ("192.0.2.1:9", &["203.0.113.7"], "192.0.2.1:9"),
            // All are proxies: the farthest one asked.
            ("10.0.0.1:9", &["10.0.0.3, 10.0.0.2"], "10.0.0.3:0"),
            // Garbage ends the way before it.
            ("10.0.0.1:9", &["203.0.113.7, unknown"], "10.0.0.1:9"),
            ("10.0.0.1:9", &["203.0.113.7, _hidden, 10.0.0.2"], "10.0.0.2:0"),
            ("10.0.0.1:9", &["203.0.113.7, fe80::1%eth0"], "10.0.0.1:9"),
            ("10.0.0.1:9", &["[203.0.113.7]"], "10.0.0.1:9"),
            ("10.0.0.1:9", &["203.0.113.7, 1.2.3.4:99999"], "10.0.0.1:9"),
            ("10.0.0.1:9", &[], "10.0.0.1:9"),
        ];
        for (from, values, expected) in cases {
            let headers: Vec<_> = values.iter().map(|value| ("x-forwarded-for", *value)).collect();
            assert_eq!(find(ForwardedHeader::XForwardedFor, from, &headers).0, expected, "{from} {values:?}");
        }
    }

    #[test]
    fn bytes_above_ascii_are_no_address() {
        let mut headers = HeaderMap::new();
        headers.insert("x-forwarded-for", http::HeaderValue::from_bytes(b"203.0.113.7\xff").unwrap());
        let peer = Peer::new(Some("10.0.0.1:9".parse().unwrap()), false);
        let found = client(&public(ForwardedHeader::XForwardedFor), peer.clone(), &headers);
        assert_eq!(found.address, peer.address);
    }

    #[test]
    fn a_long_header_is_read_from_its_end_only() {
        let proxies = vec!["10.0.0.2"; MAX_HOPS].join(", ");
        let long = format!("203.0.113.7, {proxies}");
        let found = find(ForwardedHeader::XForwardedFor, "10.0.0.1:9", &[("x-forwarded-for", &long)]);
        assert_eq!(found.0, "10.0.0.2:0");
    }

    #[test]
    fn elements_of_forwarded_have_names_and_quotes() {
        let cases: [(&[&str], &str, bool); 13] = [
            (&["for=203.0.113.7;proto=https;by=10.0.0.1"], "203.0.113.7:0", true),
            (&["For=\"203.0.113.7:80\" ; Proto=http"], "203.0.113.7:80", false),
            (&["for=\"[2001:db9::7]:4711\", for=10.0.0.2;proto=https"], "[2001:db9::7]:4711", true),
            (&["for=198.51.100.1, for=203.0.113.7", "for=10.0.0.2"], "203.0.113.7:0", false),
            (&["for=198.51.100.1;host=\"a,b;for=1.2.3.4\", for=10.0.0.2"], "198.51.100.1:0", false),
            (&["for=203.0.113.7;host=\"a\\\",b\""], "203.0.113.7:0", false),
            (&["for=203.0.113.7, for=unknown"], "10.0.0.1:9", false),
            (&["for=203.0.113.7, for=_secret, for=10.0.0.2"], "10.0.0.2:0", false),
            (&["by=10.0.0.1;proto=https"], "10.0.0.1:9", false),
            // A client's open quote is not to swallow what its proxy says.
            (&["for=1.2.3.4;host=\", for=203.0.113.7;proto=https"], "10.0.0.1:9", false),
            (&["for=1.2.3.4;host=\", for=\"[2001:db9::7]\";proto=https"], "10.0.0.1:9", false),
            (&["for=1.2.3.4;host=\"\\", "for=203.0.113.7, for=10.0.0.2"], "203.0.113.7:0", false),
            (&["for=1.2.3.4;host=\"\\\", for=203.0.113.7", "for=10.0.0.2"], "10.0.0.2:0", false),
        ];
        for (values, expected, secure) in cases {
            let headers: Vec<_> = values.iter().map(|value| ("forwarded", *value)).collect();
            let found = find(ForwardedHeader::Forwarded, "10.0.0.1:9", &headers);
            assert_eq!(found, (expected.to_owned(), secure), "{values:?}");
        }
    }

    #[test]
    fn only_the_header_that_is_configured_is_read() {
        let both = [("x-forwarded-for", "198.51.100.1"), ("forwarded", "for=203.0.113.7;proto=https")];
        let found = |header| find(header, "10.0.0.1:9", &both);
        assert_eq!(found(ForwardedHeader::XForwardedFor), ("198.51.100.1:0".to_owned(), false));
        assert_eq!(found(ForwardedHeader::Forwarded), ("203.0.113.7:0".to_owned(), true));
    }

    #[test]
    fn the_nearest_proxy_says_whether_the_client_is_encrypted() {
        let secure = |from, values: &[&str]| {
            let headers: Vec<_> = values.iter().map(|value| ("x-forwarded-proto", *value)).collect();
            find(ForwardedHeader::XForwardedFor, from, &headers).1
        };
        assert!(secure("10.0.0.1:9", &["https"]) && secure("10.0.0.1:9", &["HTTPS"]));
        assert!(secure("10.0.0.1:9", &["http", "http, https"]) && secure("10.0.0.1:9", &["wss"]));
        assert!(!secure("10.0.0.1:9", &["https, http"]) && !secure("10.0.0.1:9", &[]));
        assert!(!secure("192.0.2.1:9", &["https"]), "who is not trusted is believed nothing");
    }
}
