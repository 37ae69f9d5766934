//! Values that must not be seen in logs: keys, and URLs with passwords.
//!
//! Owns where a secret comes from (`env:`, `file:` or itself) and how it shows. Nothing here prints one.

use std::fmt;
use std::path::Path;

use serde::{Deserialize, Serialize, Serializer};

/// A secret: itself, or `env:NAME` or `file:PATH` until the configuration is loaded. Never printed or serialized.
#[derive(Clone, PartialEq, Eq, Deserialize, schemars::JsonSchema)]
#[serde(transparent)]
pub struct Secret(String);

/// Why a secret could not be had.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SecretError {
    /// The environment variable is not set, or is no Unicode.
    #[error("environment variable {name}: {source}")]
    Env {
        /// The variable.
        name: String,
        /// What is wrong with it.
        source: std::env::VarError,
    },
    /// The file cannot be read.
    #[error("file {path}: {source}")]
    File {
        /// The file.
        path: String,
        /// Why not.
        source: std::io::Error,
    },
    /// There is nothing in it.
    #[error("the secret is empty")]
    Empty,
}

impl Secret {
    /// A secret that is here already.
    pub fn new(value: impl Into<String>) -> Self {
        Self(value.into())
    }

    /// The secret itself. For comparing and for handing to a client library, not for printing.
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// A secret from a flag: itself, or what `env:NAME` or `file:PATH` names.
    pub(crate) fn resolved(text: &str) -> Result<Self, SecretError> {
        let mut secret = Self::new(text);
        secret.resolve()?;
        Ok(secret)
    }

    /// Fetches what `env:NAME` or `file:PATH` names. A file may end with a line break, as editors leave it.
    pub(super) fn resolve(&mut self) -> Result<(), SecretError> {
        if let Some(name) = self.0.strip_prefix("env:") {
            self.0 =
                std::env::var(name).map_err(|source| SecretError::Env { name: name.to_owned(), source })?;
        } else if let Some(path) = self.0.strip_prefix("file:") {
            let text = std::fs::read_to_string(Path::new(path))
                .map_err(|source| SecretError::File { path: path.to_owned(), source })?;
            self.0 = text.trim_end_matches(['\r', '\n']).to_owned();
        }
        if self.0.is_empty() { Err(SecretError::Empty) } else { Ok(()) }
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

impl Serialize for Secret {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str("***")
    }
}

/// A URL, or several with commas between them, in which user, password and query are secret.
#[derive(Clone, PartialEq, Eq, Deserialize, schemars::JsonSchema)]
#[serde(transparent)]
pub struct SecretUrl(Secret);

impl SecretUrl {
    /// A URL with all its parts.
    pub fn new(url: impl Into<String>) -> Self {
        Self(Secret::new(url))
    }

    /// The URL with all its parts, for the client library.
    pub fn expose(&self) -> &str {
        self.0.expose()
    }

    /// The scheme of the first URL.
    pub fn scheme(&self) -> Option<&str> {
        self.expose().split_once("://").map(|(scheme, _)| scheme)
    }

    pub(super) fn resolve(&mut self) -> Result<(), SecretError> {
        self.0.resolve()
    }
}

/// What may be shown of a URL behind its scheme, if it is surely no part of a secret.
fn host_and_port(rest: &str) -> &str {
    let (user, host) = rest.rsplit_once('@').unwrap_or(("", rest));
    let host = host.split(['/', '?', '#']).next().unwrap_or_default();
    let (name, port) = match host.rsplit_once(':') {
        Some((name, port)) if !host.ends_with(']') => (name, port),
        _ => (host, ""),
    };
    let is_plain = !user.contains('?')
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._[]:".contains(&byte))
        && port.bytes().all(|byte| byte.is_ascii_digit());
    if is_plain { host } else { "***" }
}

impl fmt::Display for SecretUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let urls = self.expose();
        // A comma in a password would cut it in two.
        if urls.split(',').skip(1).any(|url| url.contains('@') && !url.contains("://")) {
            return f.write_str("***");
        }
        for (index, url) in urls.split(',').enumerate() {
            let comma = if index == 0 { "" } else { "," };
            let (scheme, rest) = url.split_once("://").unwrap_or(("", url));
            let separator = if scheme.is_empty() { "" } else { "://" };
            let user = if rest.contains('@') { "***@" } else { "" };
            write!(f, "{comma}{scheme}{separator}{user}{}", host_and_port(rest))?;
        }
        Ok(())
    }
}

impl fmt::Debug for SecretUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{self}\"")
    }
}

impl Serialize for SecretUrl {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_do_not_show() {
        assert_eq!(format!("{:?}", Secret::new("hunter2")), "***");
        let cases = [
            ("redis://user:hunter2@host:6379/0", "redis://***@host:6379"),
            ("redis://:hun@ter2@host", "redis://***@host"),
            ("redis://u:hunter2?@[::1]:6379", "redis://***@***"),
            ("redis://host?password=hunter2", "redis://host"),
            ("redis://host?password=hun@ter2", "redis://***@***"),
            ("nats://hunter2@a:4222,nats://x:hunter2@b", "nats://***@a:4222,nats://***@b"),
            ("nats://u:hun,ter2@a", "***"),
            ("redis://u:hunter2", "redis://***"),
            ("rediss://[::1]:6379", "rediss://[::1]:6379"),
            ("localhost:6379", "localhost:6379"),
        ];
        for (url, shown) in cases {
            assert_eq!(SecretUrl::new(url).to_string(), shown);
            assert_eq!(format!("{:?}", SecretUrl::new(url)), format!("\"{shown}\""));
        }
    }

    #[test]
    fn secrets_come_from_the_environment_or_a_file() {
        let mut secret = Secret::new("env:PATH");
        secret.resolve().unwrap();
        assert_eq!(secret.expose(), std::env::var("PATH").unwrap());

        let file = std::env::temp_dir().join(format!("roomcast-secret-{}", std::process::id()));
        std::fs::write(&file, "hunter2\n").unwrap();
        let mut secret = Secret::new(format!("file:{}", file.display()));
        secret.resolve().unwrap();
        assert_eq!(secret.expose(), "hunter2");
        std::fs::write(&file, "\n").unwrap();
        let empty = Secret::new(format!("file:{}", file.display())).resolve();
        assert!(matches!(empty, Err(SecretError::Empty)));
        std::fs::remove_file(&file).unwrap();

        let missing = Secret::new("env:ROOMCAST_NO_SUCH_VARIABLE").resolve().unwrap_err();
        assert!(missing.to_string().contains("ROOMCAST_NO_SUCH_VARIABLE"));
        assert!(Secret::new("file:/nonexistent").resolve().is_err());
    }
}
