//! The listener that clients connect to.

use std::net::SocketAddr;
use std::time::Duration;

use super::section::section;
use super::{ForwardedHeader, ListenerTls, Network, ProxyProtocol, units};

section! {
    /// The listener that clients connect to.
    pub struct Public {
        /// Address and port. Without a configuration file, and when nothing else says it, it is 127.0.0.1:3000.
        listen: SocketAddr = SocketAddr::from(([0, 0, 0, 0], 3000)),
        /// Where Socket.IO is mounted. What begins with it is served too, as in Socket.IO.
        path: String = "/socket.io/".to_owned(),
        /// Whether the path ends with a slash: if not, "/socket.io" is served without one.
        add_trailing_slash: bool = true,
        /// The pages that may connect, by polling and by WebSocket: "https://shop.example", or "same-origin" for pages of
        /// the host that the request itself names. Empty: any page. Requests without an Origin header, which browsers do
        /// not make, always pass. This is no CORS, which has its own section.
        origins: Vec<String> = Vec::new(),
        /// Connections at one time, of all transports. Further ones are refused with 503.
        max_connections: usize = 100_000,
        /// TCP connections at one time that no session needs: new ones, and those kept open between two requests. Further
        /// ones are closed at once, so that clients which say nothing cannot take every descriptor.
        max_pending_connections: usize = 10_000,
        /// How long a new connection may take for the head of its first request: after that it is closed. A header of the
        /// PROXY protocol has as long.
        #[serde(with = "units::duration")]
        header_timeout: Duration = Duration::from_secs(30),
        /// How long a connection is kept open for the head of its next request. Longer than the balancer in front keeps it,
        /// so that no request meets one that is just being closed. Never less than `header_timeout`.
        #[serde(with = "units::duration")]
        idle_timeout: Duration = Duration::from_secs(75),
        /// "required": every connection begins with a header of the PROXY protocol, version 1 or 2, and its address is the
        /// client's. One without is closed, and one that comes from outside `trusted_proxies`, if there are any.
        proxy_protocol: ProxyProtocol = ProxyProtocol::Off,
        /// The proxies in front, as addresses and networks. Only what they say of a client is believed: its address is the
        /// last one in the header that is not a proxy's. Empty: the header is not looked at.
        trusted_proxies: Vec<Network> = Vec::new(); example "[\"10.0.0.0/8\"]",
        /// The header in which they say it: "x-forwarded-for" (with X-Forwarded-Proto), or "forwarded" (RFC 7239). The other
        /// one is not looked at: a proxy may pass it on from the client.
        forwarded_header: ForwardedHeader = ForwardedHeader::XForwardedFor,
    }
    tables {
        tls: ListenerTls,
    }
}

/// Stands in `origins` for pages of the host that the request names.
const SAME_ORIGIN: &str = "same-origin";

impl Public {
    /// Whether what an address says of others is believed.
    pub fn trusts(&self, address: std::net::IpAddr) -> bool {
        self.trusted_proxies.iter().any(|network| network.contains(address))
    }

    /// Whether a page may connect, by the request's `Origin` and `Host` headers.
    pub fn allows_origin(&self, origin: Option<&str>, host: Option<&str>) -> bool {
        let Some(origin) = origin else { return true };
        self.origins.is_empty()
            || self.origins.iter().any(|allowed| match allowed.as_str() {
                SAME_ORIGIN => is_same_origin(origin, host),
                allowed => allowed.eq_ignore_ascii_case(origin),
            })
    }
}

/// Whether an `Origin` names the host of the request. The scheme is not compared: a proxy may have ended TLS.
pub(crate) fn is_same_origin(origin: &str, host: Option<&str>) -> bool {
    let authority = origin.split_once("://").map(|(_, authority)| authority);
    matches!((authority, host), (Some(authority), Some(host)) if authority.eq_ignore_ascii_case(host))
}

/// Whether an entry of a list of origins can ever match: `scheme://host[:port]`, no path.
pub(super) fn is_origin(text: &str) -> bool {
    let Some((scheme, authority)) = text.split_once("://") else { return false };
    !scheme.is_empty()
        && scheme.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte))
        && !authority.is_empty()
        && !authority.contains(|c: char| "/?#@*,\"\\".contains(c) || c.is_whitespace() || c.is_control())
}

/// Whether an entry of `public.origins` can ever match.
pub(super) fn is_allowed_origin(text: &str) -> bool {
    text == SAME_ORIGIN || is_origin(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn origins_are_checked_when_there_are_any() {
        let mut public = Public::default();
        assert!(public.allows_origin(Some("https://evil.example"), Some("a")));
        public.origins = vec!["same-origin".to_owned(), "https://shop.example".to_owned()];
        assert!(public.allows_origin(None, None));
        assert!(public.allows_origin(Some("https://Shop.example"), None));
        assert!(public.allows_origin(Some("http://chat.example:8080"), Some("chat.example:8080")));
        for origin in ["https://evil.example", "https://shop.example.evil", "http://shop.example", "null", ""]
        {
            assert!(!public.allows_origin(Some(origin), Some("chat.example:8080")), "{origin}");
        }
    }

    #[test]
    fn an_origin_has_no_path() {
        assert!(
            is_origin("https://a.example")
                && is_origin("capacitor://localhost")
                && is_origin("http://[::1]:1")
        );
        for text in ["a.example", "https://", "https://a/", "*", "https://*.a", "https://a b", "://a"] {
            assert!(!is_origin(text), "{text}");
        }
    }
}
