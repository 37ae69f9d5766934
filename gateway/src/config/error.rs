//! What can be wrong with a configuration. Owns the words; finds nothing.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;

use super::secret::SecretError;

/// Why there is no configuration.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("{}: {source}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// The file is no TOML.
    #[error("{at}: {message}")]
    Toml {
        /// Where.
        at: Place,
        /// What the parser says.
        message: String,
    },
    /// The file is no JSON, or holds what TOML cannot.
    #[error("{}: {source}", path.display())]
    Json {
        /// The file.
        path: PathBuf,
        /// What the parser says.
        source: serde_json::Error,
    },
    /// It can be read, but not be used. All that was found is listed.
    #[error("{}", list(.0))]
    Invalid(Vec<Problem>),
}

fn list(problems: &[Problem]) -> String {
    problems.iter().map(Problem::to_string).collect::<Vec<_>>().join("\n")
}

impl ConfigError {
    /// A stable name for logs and tests.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Unreadable { .. } => "config_unreadable",
            Self::Toml { .. } | Self::Json { .. } => "config_syntax",
            Self::Invalid(_) => "config_invalid",
        }
    }
}

/// Where a setting was made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// In a file, at a line if it is known.
    File {
        /// The file.
        path: PathBuf,
        /// Counted from 1.
        line: Option<usize>,
    },
    /// In an environment variable of this name.
    Environment(String),
    /// By a flag of this name.
    Flag(&'static str),
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File { path, line: Some(line) } => write!(f, "{}:{line}", path.display()),
            Self::File { path, line: None } => write!(f, "{}", path.display()),
            Self::Environment(name) => write!(f, "environment variable {name}"),
            Self::Flag(name) => write!(f, "flag {name}"),
        }
    }
}

/// One thing that is wrong.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Problem {
    /// No such key.
    #[error("{at}: unknown key `{key}`{}", nearest.as_ref().map(|key| format!("; did you mean `{key}`?")).unwrap_or_default())]
    UnknownKey {
        /// Where it stands.
        at: Place,
        /// The key, with dots.
        key: String,
        /// The known key that looks most like it.
        nearest: Option<String>,
    },
    /// A value of the wrong type or outside the known ones.
    #[error("{at}: `{key}`: {message}")]
    Value {
        /// Where it stands.
        at: Place,
        /// The key, with dots.
        key: String,
        /// What is wrong with it.
        message: String,
    },
    /// A table or a list of tables cannot be one environment variable.
    #[error("{at}: `{key}` holds other keys; {}", if *list { "it can only be set in the file" } else { "set one of those" })]
    NotOneValue {
        /// Where it stands.
        at: Place,
        /// The key, with dots.
        key: String,
        /// It is a list of tables.
        list: bool,
    },
    /// Must not be zero.
    #[error("`{0}` must be greater than 0")]
    Zero(&'static str),
    /// Must not be empty.
    #[error("`{0}` must not be empty")]
    Empty(String),
    /// Stands twice.
    #[error("`{key}` names \"{value}\" twice")]
    Twice {
        /// The key.
        key: &'static str,
        /// The value.
        value: String,
    },
    /// Not in the form that it needs.
    #[error("`{key}`: \"{value}\" is not {expected}")]
    Form {
        /// The key.
        key: String,
        /// The value.
        value: String,
        /// What it should be.
        expected: &'static str,
    },
    /// Names a backend that is not there.
    #[error("`{key}`: there is no backend \"{name}\"")]
    UnknownBackend {
        /// The key.
        key: String,
        /// The name.
        name: String,
    },
    /// Two times that do not fit together.
    #[error("`{longer}` must be longer than {shorter}")]
    Order {
        /// The key.
        longer: &'static str,
        /// What it must be longer than.
        shorter: &'static str,
    },
    /// Both listeners have one address.
    #[error("`public.listen` and `api.listen` are the same address: {0}")]
    SameAddress(SocketAddr),
    /// An API that everybody in the network could use.
    #[error(
        "`api.listen` is {0}, which is not loopback, without any API key: everybody who reaches it could emit; set `api.keys`, `[[api.key]]`, `[api.jwt]` or `api.tls.client_ca_file`"
    )]
    ApiWithoutKeys(SocketAddr),
    /// A key that could be guessed.
    #[error("`api.keys`: a key has fewer than {0} characters")]
    ShortKey(usize),
    /// A key that could mean two callers.
    #[error("`api.keys`, `api.key.secret`: two API keys are the same")]
    SameKey,
    /// "*" beside other origins.
    #[error("`cors.origins`: \"*\" has to stand alone")]
    CorsAnyAndMore,
    /// Any page could act as the user.
    #[error("`cors.credentials` cannot be used with the origin \"*\": name the origins")]
    CorsAnyWithCredentials,
    /// Browsers drop such a cookie.
    #[error("`cookie.same_site` = \"none\" needs `cookie.secure` = true")]
    CookieNotSecure,
    /// A broker without its address.
    #[error("`adapter.url` is missing: `adapter.kind` is \"{0}\"")]
    UrlMissing(&'static str),
    /// An address without its broker: the node would silently be alone.
    #[error("`adapter.url` is set but `adapter.kind` is not: set it to \"redis\" or \"nats\"")]
    UrlWithoutKind,
    /// A URL of another broker, or none.
    #[error("`adapter.url`: \"{url}\" is no URL for \"{kind}\", which has {}", schemes.join("://, ") + "://")]
    UrlScheme {
        /// The URL, without secrets.
        url: String,
        /// The adapter's kind.
        kind: &'static str,
        /// What the URL may begin with.
        schemes: &'static [&'static str],
    },
    /// A key needs another one.
    #[error("`{key}` needs {needs}")]
    Needs {
        /// The key.
        key: &'static str,
        /// What it needs.
        needs: &'static str,
    },
    /// A certificate without its key, or a key without its certificate.
    #[error("`adapter.tls.cert_file` and `adapter.tls.key_file` belong together: one of them is missing")]
    HalfCertificate,
    /// Only a cluster is sharded.
    #[error(
        "`adapter.redis.pubsub` = \"sharded\" needs a Redis Cluster: `adapter.url` has to begin with redis-cluster:// or rediss-cluster://"
    )]
    ShardedWithoutCluster,
    /// Comes in a later version. It is refused rather than ignored: an ignored rule is an open door.
    #[error("`{key}` = \"{value}\" is not available in this version")]
    NotAvailable {
        /// The key.
        key: String,
        /// The value.
        value: String,
    },
    /// A backend is asked for joins only.
    #[error(
        "`{0}` = \"webhook\": backends are asked who may join; use \"members\", \"claims\", \"open\" or \"never\""
    )]
    EmitWebhook(String),
    /// "members" cannot say who may become one.
    #[error(
        "`{0}` = \"members\": only members could join; use \"open\", \"claims\", \"webhook\" or \"never\""
    )]
    JoinMembers(String),
    /// Only a token says what its claims grant.
    #[error(
        "`{0}` = \"claims\" needs tokens: set one of `secret`, `public_key`, `public_key_file` and `jwks_url` in `auth.jwt`"
    )]
    ClaimsWithoutTokens(String),
    /// A key of tokens that cannot be used.
    #[error("`{of}.jwt.{key}`: {message}")]
    TokenKey {
        /// Whose tokens: "auth" of clients, "api" of backends.
        of: &'static str,
        /// The key of the configuration.
        key: &'static str,
        /// What is wrong with it.
        message: String,
    },
    /// A secret that cannot be had.
    #[error("`{key}`: {source}")]
    Secret {
        /// The key.
        key: &'static str,
        /// Why not.
        source: SecretError,
    },
}
