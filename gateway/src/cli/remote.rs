//! Asking a running node: the address, the key, and HTTP. Owns how commands for people reach `/v1`.

use std::time::Duration;

use clap::Args;
use http::{Method, StatusCode};
use serde_json::Value;

use super::tls::trust_of;
use super::{Options, TlsFlags};
use crate::config::{Config, Secret};
use crate::outbound::{self, Trust};

/// How long a node may take to answer, beside what a call waits for itself.
const TIMEOUT: Duration = Duration::from_secs(30);
/// How long one may look at what goes through a node: a day.
const LONGEST_LOOK: Duration = Duration::from_secs(24 * 60 * 60);

/// Which node is asked, and by whom.
#[derive(Debug, Clone, Default, PartialEq, Eq, Args)]
pub struct Remote {
    /// The api listener of a node [default: that of the configuration]
    #[arg(long, value_name = "URL", env = "ROOMCAST_URL")]
    url: Option<String>,
    /// API key: itself, env:NAME or file:PATH [default: the first one of the configuration]
    #[arg(long, value_name = "KEY", env = "ROOMCAST_KEY", hide_env_values = true)]
    key: Option<String>,
    /// Certificates for https://
    #[command(flatten)]
    tls: TlsFlags,
    /// Print JSON, as the node gives it
    #[arg(long)]
    pub(super) json: bool,
}

/// Why a command could not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub(super) enum CliError {
    #[error("{0}")]
    Config(#[from] crate::config::ConfigError),
    #[error("the key: {0}")]
    Key(#[from] crate::config::SecretError),
    #[error("{0}")]
    Client(#[from] outbound::ClientError),
    #[error("{url}: {error}")]
    Unreachable { url: String, error: String },
    /// A problem of the API (RFC 9457).
    #[error("{status} {code}: {detail}")]
    Refused { status: u16, code: String, detail: String },
    #[error("{0}")]
    Usage(String),
    #[error("{0}")]
    Io(#[from] std::io::Error),
}

/// A node that can be asked.
pub(super) struct Node {
    client: reqwest::Client,
    url: String,
    key: Option<Secret>,
    json: bool,
}

impl Remote {
    /// Whom the flags and the configuration name.
    pub(super) fn node(&self, options: &Options) -> Result<Node, CliError> {
        // A configuration is needed only for what was not said.
        let config = match (&self.url, &self.key) {
            (Some(_), Some(_)) => Config::default(),
            (Some(_), None) => options.load().map(|loaded| loaded.config).unwrap_or_default(),
            (None, _) => options.load()?.config,
        };
        let (url, trust) = match &self.url {
            Some(url) => (url.clone(), Trust::System),
            None => {
                let (api, scheme) = (&config.api, config.api.tls.scheme());
                (format!("{scheme}://{}", super::reachable(api.listen)), trust_of(&api.tls))
            }
        };
        let key = match &self.key {
            Some(key) => Some(Secret::resolved(key)?),
            None => config.api.keys.first().cloned(),
        };
        let url = url.trim_end_matches('/').to_owned();
        let client = outbound::client_over(self.tls.client(trust)?, LONGEST_LOOK)?;
        Ok(Node { client, url, key, json: self.json })
    }
}

impl Node {
    /// True when the output is for programs.
    pub(super) fn wants_json(&self) -> bool {
        self.json
    }

    pub(super) async fn get(&self, path: &str) -> Result<Value, CliError> {
        let response = self.send(Method::GET, path, None, Some(TIMEOUT)).await?;
        self.read(response).await
    }

    /// `waits` is how long the call itself may take.
    pub(super) async fn post(&self, path: &str, body: &Value, waits: Duration) -> Result<Value, CliError> {
        let response = self.send(Method::POST, path, Some(body), Some(TIMEOUT + waits)).await?;
        self.read(response).await
    }

    /// An answer that goes on.
    pub(super) async fn stream(&self, path: &str) -> Result<reqwest::Response, CliError> {
        self.send(Method::GET, path, None, None).await
    }

    async fn read(&self, response: reqwest::Response) -> Result<Value, CliError> {
        let bytes = response.bytes().await.map_err(|error| self.unreachable(&error))?;
        serde_json::from_slice(&bytes).map_err(|error| CliError::Unreachable {
            url: self.url.clone(),
            error: format!("this is no answer of Roomcast: {error}"),
        })
    }

    async fn send(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
        timeout: Option<Duration>,
    ) -> Result<reqwest::Response, CliError> {
        let mut request = self.client.request(method, format!("{}{path}", self.url));
        if let Some(key) = &self.key {
            request = request.bearer_auth(key.expose());
        }
        if let Some(body) = body {
            request = request.header(http::header::CONTENT_TYPE, "application/json").body(body.to_string());
        }
        if let Some(timeout) = timeout {
            request = request.timeout(timeout);
        }
        let response = request.send().await.map_err(|error| self.unreachable(&error))?;
        let status = response.status();
        if status.is_success() { Ok(response) } else { Err(self.refused(status, response).await) }
    }

    fn unreachable(&self, error: &reqwest::Error) -> CliError {
        CliError::Unreachable { url: self.url.clone(), error: outbound::causes(error) }
    }

    async fn refused(&self, status: StatusCode, response: reqwest::Response) -> CliError {
        let problem: Value = match response.bytes().await {
            Ok(bytes) => serde_json::from_slice(&bytes).unwrap_or_default(),
            Err(_) => Value::Null,
        };
        let text = |key: &str| problem[key].as_str().map(str::to_owned);
        CliError::Refused {
            status: status.as_u16(),
            code: text("code").unwrap_or_else(|| "no_problem".to_owned()),
            detail: text("detail").unwrap_or_else(|| format!("{} is no node of Roomcast", self.url)),
        }
    }
}
