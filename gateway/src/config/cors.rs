//! Cross-origin resource sharing of the public listener.

use std::time::Duration;

use super::section::section;
use super::units;

section! {
    /// Cross-origin resource sharing for polling: lets pages of other origins read the answers. Off while `origins` is
    /// empty. CORS does not protect WebSocket: `public.origins` does.
    pub struct Cors {
        /// The origins that get CORS headers, or "*" alone for any.
        origins: Vec<String> = Vec::new(),
        /// The methods that a preflight request is told.
        methods: Vec<String> = ["GET", "HEAD", "PUT", "PATCH", "POST", "DELETE"].map(str::to_owned).to_vec(),
        /// The headers that a preflight request is told; empty: those that it asks for.
        allowed_headers: Vec<String> = Vec::new(),
        /// The headers of an answer that a page may read.
        exposed_headers: Vec<String> = Vec::new(),
        /// Whether pages may send cookies. Not with the origin "*".
        credentials: bool = false,
        /// How long a browser may keep the answer to a preflight request. 0: no header is sent.
        #[serde(with = "units::duration")]
        max_age: Duration = Duration::ZERO,
    }
}

impl Cors {
    /// Whether CORS headers are sent at all.
    pub fn is_enabled(&self) -> bool {
        !self.origins.is_empty()
    }

    /// Whether an origin gets CORS headers.
    pub fn allows(&self, origin: &str) -> bool {
        self.origins.iter().any(|allowed| allowed == "*" || allowed.eq_ignore_ascii_case(origin))
    }
}
