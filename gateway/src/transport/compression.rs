//! Compression of polling answers (`httpCompression` of the reference): gzip or deflate, for GET only.

use std::io::Write as _;

use flate2::Compression;
use flate2::write::{GzEncoder, ZlibEncoder};
use http::header::ACCEPT_ENCODING;
use http::{HeaderMap, HeaderValue};

/// An encoding that the client accepts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Encoding {
    Gzip,
    Deflate,
}

impl Encoding {
    /// The encoding to use: gzip before deflate, as the reference prefers.
    pub(super) fn accepted(headers: &HeaderMap) -> Option<Self> {
        let accepts = |wanted: &str| {
            headers.get_all(ACCEPT_ENCODING).iter().filter_map(|value| value.to_str().ok()).any(|value| {
                value.split(',').any(|part| {
                    let (name, parameters) = part.split_once(';').unwrap_or((part, ""));
                    let refused = matches!(parameters.trim(), "q=0" | "q=0.0" | "q=0.00" | "q=0.000");
                    name.trim().eq_ignore_ascii_case(wanted) && !refused
                })
            })
        };
        if accepts("gzip") { Some(Self::Gzip) } else { accepts("deflate").then_some(Self::Deflate) }
    }

    /// The value of `Content-Encoding`.
    pub(super) fn header(self) -> HeaderValue {
        HeaderValue::from_static(match self {
            Self::Gzip => "gzip",
            Self::Deflate => "deflate",
        })
    }

    /// The body in this encoding.
    pub(super) fn encode(self, body: &[u8]) -> std::io::Result<Vec<u8>> {
        let out = Vec::with_capacity(body.len() / 2);
        match self {
            Self::Gzip => {
                let mut encoder = GzEncoder::new(out, Compression::default());
                encoder.write_all(body)?;
                encoder.finish()
            }
            Self::Deflate => {
                let mut encoder = ZlibEncoder::new(out, Compression::default());
                encoder.write_all(body)?;
                encoder.finish()
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gzip_is_preferred_and_a_refusal_is_heard() {
        let accepted = |value: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert(ACCEPT_ENCODING, HeaderValue::from_static(value));
            Encoding::accepted(&headers)
        };
        assert_eq!(accepted("deflate, gzip;q=0.5"), Some(Encoding::Gzip));
        assert_eq!(accepted("gzip;q=0, deflate"), Some(Encoding::Deflate));
        assert_eq!(accepted("br"), None);
        assert_eq!(accepted(""), None);
    }
}
