//! Negotiation of permessage-deflate (RFC 7692 sections 5 and 7.1).
//!
//! Owns the `Sec-WebSocket-Extensions` header. It must not compress: what was agreed is returned as [`Negotiated`].

use std::fmt::Write as _;

use http::HeaderMap;
use http::header::SEC_WEBSOCKET_EXTENSIONS;

const NAME: &str = "permessage-deflate";

/// What a client offers so that single messages can be compressed without a window of their own per connection.
pub const CLIENT_OFFER: &str = "permessage-deflate; server_no_context_takeover; client_no_context_takeover";

/// How a server compresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DeflateConfig {
    /// Messages of fewer bytes are sent as they are. Default: 1024.
    pub threshold: usize,
    /// The effort, 0 to 9. Default: 6.
    pub level: u32,
    /// The base-2 logarithm of the largest window that we compress with, 9 to 15. Default: 15.
    pub max_window_bits: u8,
}

impl Default for DeflateConfig {
    fn default() -> Self {
        Self { threshold: 1024, level: 6, max_window_bits: 15 }
    }
}

/// A permessage-deflate that both sides agreed on, without context takeover in either direction.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Negotiated {
    /// What the answer limits the server's window to, 9 to 15.
    server_limit: Option<u8>,
    /// What our compressor may use, 9 to 15.
    window_bits: u8,
}

impl Negotiated {
    /// The base-2 logarithm of the window that our compressor may use towards this peer, 9 to 15.
    pub const fn window_bits(self) -> u8 {
        self.window_bits
    }

    /// Whether the peer can read a frame that was compressed with the full window of 15 bits, and so may be sent a frame
    /// that others are sent too.
    pub const fn shares_frames(self) -> bool {
        match self.server_limit {
            None => true,
            Some(bits) => bits == 15,
        }
    }

    /// The value of `Sec-WebSocket-Extensions` in the response (RFC 7692 section 7.1).
    pub fn header_value(self) -> String {
        let mut value = CLIENT_OFFER.to_owned();
        if let Some(bits) = self.server_limit {
            write!(value, "; server_max_window_bits={bits}").expect("writing to a string");
        }
        value
    }

    /// What the response to [`CLIENT_OFFER`] says, or `None` if it is not an answer to it. `server_no_context_takeover` has
    /// to be in it; `client_no_context_takeover` we keep to in any case.
    pub(super) fn from_response(value: &str) -> Option<Self> {
        let mut elements = split(value, b',');
        let parameters = Parameters::parse(elements.next()?)?;
        let answered = parameters.server_no_context_takeover
            && parameters.client_max_window_bits.is_none()
            && parameters.server_max_window_bits.is_none()
            && elements.next().is_none();
        answered.then_some(Self { server_limit: None, window_bits: 15 })
    }

    fn accept(offer: &Parameters, config: &DeflateConfig) -> Option<Self> {
        let ours = config.max_window_bits.clamp(9, 15);
        match offer.server_max_window_bits {
            // zlib has no raw DEFLATE with a window of 8 bits.
            Some(8) => None,
            Some(asked) => Some(Self { server_limit: Some(asked.min(ours)), window_bits: asked.min(ours) }),
            None => Some(Self { server_limit: None, window_bits: ours }),
        }
    }
}

/// Accepts the first offer of permessage-deflate that can be met, or none (RFC 7692 section 5.1).
///
/// The answer always says `server_no_context_takeover; client_no_context_takeover`. An offer with unknown, repeated or
/// malformed parameters is passed over. `client_max_window_bits` needs no answer: every window can be read.
pub fn negotiate(headers: &HeaderMap, config: &DeflateConfig) -> Option<Negotiated> {
    let values = headers.get_all(SEC_WEBSOCKET_EXTENSIONS).iter().filter_map(|value| value.to_str().ok());
    let mut offers = values.flat_map(|value| split(value, b','));
    offers.find_map(|offer| Negotiated::accept(&Parameters::parse(offer)?, config))
}

/// The parameters of one offer, or of the answer.
#[derive(Debug, Default)]
struct Parameters {
    server_no_context_takeover: bool,
    client_no_context_takeover: bool,
    server_max_window_bits: Option<u8>,
    /// Present, and perhaps with a value.
    client_max_window_bits: Option<Option<u8>>,
}

impl Parameters {
    /// `None` if this is another extension, or a parameter is unknown, repeated or malformed (RFC 7692 section 7.1).
    fn parse(element: &str) -> Option<Self> {
        let mut parts = split(element, b';');
        if !parts.next()?.eq_ignore_ascii_case(NAME) {
            return None;
        }
        let mut parameters = Self::default();
        for part in parts {
            let (name, value) = match part.split_once('=') {
                Some((name, value)) => (name.trim_end(), Some(unquote(value.trim_start()))),
                None => (part, None),
            };
            let known = match (name, value) {
                ("server_no_context_takeover", None) => set(&mut parameters.server_no_context_takeover),
                ("client_no_context_takeover", None) => set(&mut parameters.client_no_context_takeover),
                ("server_max_window_bits", Some(bits)) => {
                    parameters.server_max_window_bits.replace(window_bits(bits)?).is_none()
                }
                ("client_max_window_bits", None) => parameters.client_max_window_bits.replace(None).is_none(),
                ("client_max_window_bits", Some(bits)) => {
                    parameters.client_max_window_bits.replace(Some(window_bits(bits)?)).is_none()
                }
                _ => false,
            };
            if !known {
                return None;
            }
        }
        Some(parameters)
    }
}

/// Sets a flag; whether it was unset.
fn set(flag: &mut bool) -> bool {
    !std::mem::replace(flag, true)
}

/// 8 to 15, in decimal without leading zeros.
fn window_bits(text: &str) -> Option<u8> {
    if text.starts_with(['0', '+']) {
        return None;
    }
    text.parse().ok().filter(|bits| (8..=15).contains(bits))
}

fn unquote(value: &str) -> &str {
    value.strip_prefix('"').and_then(|value| value.strip_suffix('"')).unwrap_or(value)
}

/// The trimmed parts between `separator`s that are not within quotes.
fn split(text: &str, separator: u8) -> impl Iterator<Item = &str> {
    let mut quoted = false;
    let mut escaped = false;
    text.split(move |character: char| {
        match character {
            _ if escaped => escaped = false,
            '\\' if quoted => escaped = true,
            '"' => quoted = !quoted,
            _ => return !quoted && character == char::from(separator),
        }
        false
    })
    .map(str::trim)
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    const BOTH: &str = "permessage-deflate; server_no_context_takeover; client_no_context_takeover";

    fn answer_with(config: &DeflateConfig, offers: &[&str]) -> Option<Negotiated> {
        let mut headers = HeaderMap::new();
        for offer in offers {
            headers.append(SEC_WEBSOCKET_EXTENSIONS, HeaderValue::from_str(offer).unwrap());
        }
        negotiate(&headers, config)
    }

    fn answer(offer: &str) -> Option<String> {
        answer_with(&DeflateConfig::default(), &[offer]).map(Negotiated::header_value)
    }

    #[test]
    fn answers_what_browsers_and_node_offer() {
        assert_eq!(answer("permessage-deflate; client_max_window_bits").as_deref(), Some(BOTH));
        assert_eq!(answer("permessage-deflate").as_deref(), Some(BOTH));
        assert_eq!(answer("Permessage-Deflate ; client_max_window_bits = \"10\"").as_deref(), Some(BOTH));
        assert_eq!(answer("x-webkit-deflate-frame, permessage-deflate").as_deref(), Some(BOTH));
        assert_eq!(answer("x-webkit-deflate-frame"), None);
        assert_eq!(answer_with(&DeflateConfig::default(), &[]), None);
    }

    #[test]
    fn keeps_to_the_window_that_the_client_asks_for() {
        for bits in 9..=15_u8 {
            let negotiated = answer_with(
                &DeflateConfig::default(),
                &[&format!("permessage-deflate; server_max_window_bits={bits}")],
            )
            .unwrap();
            assert_eq!(negotiated.header_value(), format!("{BOTH}; server_max_window_bits={bits}"));
            assert_eq!(negotiated.window_bits(), bits);
            assert_eq!(negotiated.shares_frames(), bits == 15);
        }
        let config = DeflateConfig { max_window_bits: 11, ..DeflateConfig::default() };
        let free = answer_with(&config, &["permessage-deflate"]).unwrap();
        assert_eq!(
            (free.window_bits(), free.shares_frames(), free.header_value()),
            (11, true, BOTH.to_owned())
        );
        let bound = answer_with(&config, &["permessage-deflate; server_max_window_bits=13"]).unwrap();
        assert_eq!(bound.header_value(), format!("{BOTH}; server_max_window_bits=11"));
    }

    #[test]
    fn passes_over_offers_that_cannot_be_met() {
        for bad in [
            "server_max_window_bits=8",
            "server_max_window_bits",
            "server_max_window_bits=16",
            "server_max_window_bits=010",
            "server_max_window_bits=+10",
            "server_max_window_bits=1; server_max_window_bits=1",
            "client_max_window_bits=7",
            "client_max_window_bits=",
            "client_max_window_bits; client_max_window_bits=10",
            "server_no_context_takeover; server_no_context_takeover",
            "client_no_context_takeover=1",
            "mystery",
            "mystery=\"a, permessage-deflate\"",
            "",
        ] {
            let offer = format!("permessage-deflate; {bad}");
            assert_eq!(answer(&offer), None, "{bad}");
            assert_eq!(
                answer(&format!("{offer}, permessage-deflate")).as_deref(),
                Some(BOTH),
                "{bad}, then a good one"
            );
            let lines = answer_with(&DeflateConfig::default(), &[&offer, "permessage-deflate"]);
            assert!(lines.is_some(), "{bad}, then a good line");
        }
    }

    #[test]
    fn a_client_takes_only_what_it_offered() {
        assert!(Negotiated::from_response(BOTH).is_some());
        assert!(Negotiated::from_response("permessage-deflate; server_no_context_takeover").is_some());
        for bad in [
            "permessage-deflate",
            "permessage-deflate; client_no_context_takeover",
            "permessage-deflate; server_no_context_takeover; client_max_window_bits=10",
            "permessage-deflate; server_no_context_takeover; server_max_window_bits=10",
            "permessage-deflate; server_no_context_takeover, permessage-deflate",
            "other",
        ] {
            assert_eq!(Negotiated::from_response(bad), None, "{bad}");
        }
    }
}
