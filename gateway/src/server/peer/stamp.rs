//! What a passed-on request says of its client, signed so that it is believed.
//!
//! Owns the header and its signature: HMAC-SHA256 with the key that the receiving node has told its cluster. What is signed
//! is the method, the target and the header itself. The rest of the request is not: whoever can change it on its way can
//! read the id of the session, and needs nobody's help. docs/decisions/0018-passing-requests-on.md weighs that.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, Mac as _};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Uri};
use roomcast_adapter::{NodeTag, ReachKey};
use sha2::Sha256;

use crate::metrics::ForwardedResult;
use crate::transport::Peer;

/// The header. A client that sends one is not heard: it is replaced where a request is passed on, and asked for only where
/// nodes are.
pub(super) const STAMP: HeaderName = HeaderName::from_static("roomcast-forwarded");

/// Says what a signature is for, so that none is good for anything else.
const CONTEXT: &str = "roomcast forwarded request 1";

/// The layout of the header.
const LAYOUT: &str = "1";

/// Stands for an address that is not known.
const UNKNOWN: &str = "-";

/// Why a request is not taken as one of another node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum StampError {
    #[error("not signed by a node")]
    Unsigned,
    #[error("not signed with the key of this node")]
    Forged,
    #[error("signed too long ago, or in the future")]
    Stale,
}

impl StampError {
    pub(super) fn result(self) -> ForwardedResult {
        match self {
            Self::Unsigned => ForwardedResult::Unsigned,
            Self::Forged => ForwardedResult::Forged,
            Self::Stale => ForwardedResult::Stale,
        }
    }
}

/// Who passes a request on, for whom and when.
#[derive(Debug, Clone)]
pub(super) struct Stamp {
    /// The node that the client's request came to.
    pub(super) entry: NodeTag,
    /// The client, as that node sees it.
    pub(super) peer: Peer,
    /// Since 1970.
    pub(super) at: Duration,
}

impl Stamp {
    /// The header's value. It has no character that a header may not have.
    pub(super) fn sign(&self, key: &ReachKey, method: &Method, uri: &Uri) -> Option<HeaderValue> {
        let address = self.peer.address.map_or(UNKNOWN.to_owned(), |address| address.to_string());
        let said = format!(
            "{LAYOUT};{};{};{address};{}",
            self.entry,
            self.at.as_millis(),
            u8::from(self.peer.secure)
        );
        let signature = mac(key, method, uri, &said)?.finalize().into_bytes();
        HeaderValue::from_str(&format!("{said};{}", URL_SAFE_NO_PAD.encode(signature))).ok()
    }

    /// Reads and checks the header of a request.
    pub(super) fn verify(
        headers: &HeaderMap,
        key: &ReachKey,
        method: &Method,
        uri: &Uri,
        (now, skew): (Duration, Duration),
    ) -> Result<Self, StampError> {
        let value = headers.get(&STAMP).ok_or(StampError::Unsigned)?;
        let (said, signature) =
            value.to_str().ok().and_then(|value| value.rsplit_once(';')).ok_or(StampError::Forged)?;
        let signature = URL_SAFE_NO_PAD.decode(signature).map_err(|_| StampError::Forged)?;
        let mac = mac(key, method, uri, said).ok_or(StampError::Forged)?;
        mac.verify_slice(&signature).map_err(|_| StampError::Forged)?;
        let stamp = Self::parse(said).ok_or(StampError::Forged)?;
        if now.abs_diff(stamp.at) > skew {
            return Err(StampError::Stale);
        }
        Ok(stamp)
    }

    fn parse(said: &str) -> Option<Self> {
        let mut parts = said.split(';');
        let mut next = || parts.next();
        if next()? != LAYOUT {
            return None;
        }
        let (entry, at) = (next()?.parse().ok()?, Duration::from_millis(next()?.parse().ok()?));
        let address = match next()? {
            UNKNOWN => None,
            address => Some(address.parse().ok()?),
        };
        let secure = match next()? {
            "0" => false,
            "1" => true,
            _ => return None,
        };
        parts.next().is_none().then_some(Self { entry, peer: Peer::new(address, secure), at })
    }
}

/// Over lines: none of the parts has a line break.
fn mac(key: &ReachKey, method: &Method, uri: &Uri, said: &str) -> Option<Hmac<Sha256>> {
    let mut mac = Hmac::<Sha256>::new_from_slice(key.expose()).ok()?;
    let target = uri.path_and_query().map_or("", |target| target.as_str());
    for line in [CONTEXT, method.as_str(), target, said] {
        mac.update(line.as_bytes());
        mac.update(b"\n");
    }
    Some(mac)
}

/// The time since 1970.
pub(super) fn now() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    const SKEW: Duration = Duration::from_secs(60);

    fn key(byte: u8) -> ReachKey {
        ReachKey::new([byte; ReachKey::LEN])
    }

    fn stamp(address: Option<&str>) -> Stamp {
        let address = address.map(|address| address.parse().unwrap());
        let at = Duration::from_secs(1_000_000);
        Stamp { entry: "ab-_".parse().unwrap(), peer: Peer::new(address, true), at }
    }

    fn uri() -> Uri {
        "/socket.io/?EIO=4&transport=polling&sid=AAAAaaaaaaaaaaaaaaaa".parse().unwrap()
    }

    fn signed(address: Option<&str>) -> HeaderMap {
        let value = stamp(address).sign(&key(1), &Method::GET, &uri()).unwrap();
        HeaderMap::from_iter([(STAMP, value)])
    }

    fn verify(headers: &HeaderMap) -> Result<Stamp, StampError> {
        Stamp::verify(headers, &key(1), &Method::GET, &uri(), (stamp(None).at, SKEW))
    }

    #[test]
    fn what_a_node_signs_is_believed() {
        for address in [None, Some("10.1.2.3:4567"), Some("[fd00::1]:4567")] {
            let read = verify(&signed(address)).unwrap();
            assert_eq!(read.peer.address, address.map(|address| address.parse().unwrap()));
            assert!(read.peer.secure && read.entry.as_str() == "ab-_");
            assert_eq!(read.at, stamp(None).at);
        }
    }

    #[test]
    fn the_bytes_stay_as_they_are() {
        // HMAC-SHA256 of the four lines, computed by OpenSSL.
        let value = signed(Some("10.1.2.3:4567"))[&STAMP].to_str().unwrap().to_owned();
        assert!(value.starts_with("1;ab-_;1000000000;10.1.2.3:4567;1;"), "{value}");
        assert_eq!(value.rsplit(';').next(), Some(GOLDEN));
    }

    const GOLDEN: &str = "DDIyHW-Z60QPTwMC9tzkvy1UrQ8bZICmS3FUl-wZK2g";

    #[test]
    fn what_is_changed_or_signed_by_another_is_not_believed() {
        let good = signed(Some("10.1.2.3:4567"));
        let read = |method: &Method, uri: &str, key: &ReachKey| {
            Stamp::verify(&good, key, method, &uri.parse().unwrap(), (stamp(None).at, SKEW)).map(|_| ())
        };
        let uri = uri().to_string();
        assert_eq!(read(&Method::GET, &uri, &key(1)), Ok(()));
        assert_eq!(read(&Method::POST, &uri, &key(1)), Err(StampError::Forged));
        assert_eq!(read(&Method::GET, &format!("{uri}&a"), &key(1)), Err(StampError::Forged));
        assert_eq!(read(&Method::GET, &uri, &key(2)), Err(StampError::Forged));
        let value = good[&STAMP].to_str().unwrap();
        for changed in [
            value.replace("10.1.2.3", "10.1.2.4"),
            value.replace("ab-_", "ab-a"),
            value.replace(";1;", ";0;"),
            value.replace("1000000000", "1000000001"),
            value[..value.len() - 1].to_owned(),
            format!("{value}a"),
            value.rsplit_once(';').unwrap().0.to_owned(),
            String::new(),
            ";".repeat(99),
        ] {
            let headers = HeaderMap::from_iter([(STAMP, HeaderValue::from_str(&changed).unwrap())]);
            assert_eq!(verify(&headers).map(|_| ()), Err(StampError::Forged), "{changed}");
        }
        assert_eq!(verify(&HeaderMap::new()).map(|_| ()), Err(StampError::Unsigned));
    }

    #[test]
    fn what_is_old_or_of_the_future_is_stale() {
        let good = signed(None);
        let at = |now| Stamp::verify(&good, &key(1), &Method::GET, &uri(), (now, SKEW)).map(|_| ());
        let said = stamp(None).at;
        assert_eq!(at(said + SKEW), Ok(()));
        assert_eq!(at(said - SKEW), Ok(()));
        assert_eq!(at(said + SKEW + Duration::from_millis(1)), Err(StampError::Stale));
        assert_eq!(at(said - SKEW - Duration::from_millis(1)), Err(StampError::Stale));
    }
}
