//! The cookie that load balancers stick to.

use super::section::section;

section! {
    /// A cookie with the session id for load balancers, set by polling handshakes.
    pub struct Cookie {
        /// Whether it is set.
        enabled: bool = false,
        /// Its name.
        name: String = "io".to_owned(),
        /// Its path.
        path: String = "/".to_owned(),
        /// Hides it from scripts.
        http_only: bool = true,
        /// When a browser sends it from other sites: "lax", "strict" or "none" (which needs `secure`).
        same_site: SameSite = SameSite::Lax,
        /// Only over HTTPS.
        secure: bool = false,
    }
}

/// The SameSite attribute of a cookie.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum SameSite {
    /// Also when a link leads here.
    Lax,
    /// Never from other sites.
    Strict,
    /// Always.
    None,
}

impl SameSite {
    /// As it stands in the cookie.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Lax => "Lax",
            Self::Strict => "Strict",
            Self::None => "None",
        }
    }
}
