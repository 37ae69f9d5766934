//! `roomcast healthcheck`: what a container's health check runs. It needs no client library, and no key.
//!
//! The node of this machine's configuration is asked without looking at its certificate: the question holds no secret, and
//! a certificate that was just replaced must not make a node look dead.

use std::io::Write as _;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio_rustls::TlsConnector;

use super::{Options, TlsFlags, reachable};
use crate::config::{Api, ConfigError};
use crate::outbound::{ClientError, Trust, connect};

/// How long a health check waits in all.
const HEALTHCHECK_TIMEOUT: Duration = Duration::from_secs(5);

/// `roomcast healthcheck`: asks a node whether it is ready. With `insecure` whoever answers at the URL is believed.
pub async fn healthcheck(url: Option<&str>, insecure: bool, tls: &TlsFlags, options: &Options) -> ExitCode {
    let target = match url {
        Some(url) => Target::of_url(url, insecure),
        None => options
            .load()
            .map(|loaded| Target::of_listener(&loaded.config.api))
            .map_err(|error| HealthcheckError::Config(Box::new(error))),
    };
    let asked = target.and_then(|target| Ok((target.connector(tls)?, target)));
    let result = match asked {
        Ok((tls, target)) => {
            match tokio::time::timeout(HEALTHCHECK_TIMEOUT, target.ask(tls.as_ref())).await {
                Ok(result) => result,
                Err(_) => Err(HealthcheckError::TimedOut),
            }
        }
        Err(error) => Err(error),
    };
    match result {
        Ok(answer) => {
            let _ = writeln!(std::io::stdout(), "{answer}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "{error}");
            ExitCode::FAILURE
        }
    }
}

/// Why a node is not known to be ready.
#[derive(Debug, thiserror::Error)]
enum HealthcheckError {
    #[error("{0}")]
    Config(Box<ConfigError>),
    #[error("\"{0}\" is no http:// or https:// URL")]
    Url(String),
    #[error("{0}")]
    Tls(#[from] ClientError),
    #[error("{0}")]
    Io(#[from] std::io::Error),
    #[error("no answer within {} s", HEALTHCHECK_TIMEOUT.as_secs())]
    TimedOut,
    #[error("{0}")]
    NotReady(String),
}

/// Whom to ask: an authority to connect to, a path, and whom to believe when it is asked over TLS.
#[derive(Debug, PartialEq, Eq)]
struct Target {
    authority: String,
    path: String,
    trust: Option<Trust>,
}

impl Target {
    fn of_url(url: &str, insecure: bool) -> Result<Self, HealthcheckError> {
        let refused = || HealthcheckError::Url(url.to_owned());
        let uri: http::Uri = url.parse().map_err(|_| refused())?;
        let (trust, port) = match uri.scheme_str() {
            Some("http") => (None, 80),
            Some("https") if insecure => (Some(Trust::Anybody), 443),
            Some("https") => (Some(Trust::System), 443),
            _ => return Err(refused()),
        };
        let authority = uri.authority().ok_or_else(refused)?;
        let port = authority.port_u16().unwrap_or(port);
        // A URL without a path asks for the usual one.
        let path = uri.path_and_query().map_or("/", |path| path.as_str());
        let path = if path == "/" { "/readyz" } else { path };
        Ok(Self { authority: format!("{}:{port}", authority.host()), path: path.to_owned(), trust })
    }

    fn of_listener(api: &Api) -> Self {
        let trust = api.tls.is_enabled().then_some(Trust::Anybody);
        Self { authority: reachable(api.listen).to_string(), path: "/readyz".to_owned(), trust }
    }

    fn connector(&self, flags: &TlsFlags) -> Result<Option<TlsConnector>, ClientError> {
        let Some(trust) = &self.trust else { return Ok(None) };
        Ok(Some(TlsConnector::from(Arc::new(flags.client(trust.clone())?))))
    }

    /// One request of HTTP/1.0: the answer ends with the connection.
    async fn ask(&self, tls: Option<&TlsConnector>) -> Result<String, HealthcheckError> {
        const LONGEST_ANSWER: u64 = 64 * 1024;
        let mut stream = connect(&self.authority, tls).await?;
        let request = format!("GET {} HTTP/1.0\r\nHost: {}\r\n\r\n", self.path, self.authority);
        stream.write_all(request.as_bytes()).await?;
        stream.flush().await?;
        let mut answer = Vec::new();
        stream.take(LONGEST_ANSWER).read_to_end(&mut answer).await?;
        let answer = String::from_utf8_lossy(&answer);
        let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
        let status = head.lines().next().unwrap_or_default();
        let is_ok = status.split(' ').nth(1) == Some("200");
        if is_ok { Ok(body.to_owned()) } else { Err(HealthcheckError::NotReady(format!("{status} {body}"))) }
    }
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;
    use crate::config::ListenerTls;

    fn api_at(listen: &str) -> Api {
        Api { listen: listen.parse().unwrap(), ..Api::default() }
    }

    #[test]
    fn whom_a_health_check_asks() {
        let target = |authority: &str, path: &str| Target {
            authority: authority.into(),
            path: path.into(),
            trust: None,
        };
        let over_tls = |target: Target, trust| Target { trust: Some(trust), ..target };
        let of_url = |url| Target::of_url(url, false);
        assert_eq!(of_url("http://h").unwrap(), target("h:80", "/readyz"));
        assert_eq!(of_url("http://h:1/livez").unwrap(), target("h:1", "/livez"));
        assert_eq!(of_url("http://[::1]:1").unwrap(), target("[::1]:1", "/readyz"));
        assert_eq!(of_url("https://h").unwrap(), over_tls(target("h:443", "/readyz"), Trust::System));
        assert!(of_url("ftp://h").is_err() && of_url("h").is_err());
        let insecure = Target::of_url("https://h", true).unwrap();
        assert_eq!(insecure, over_tls(target("h:443", "/readyz"), Trust::Anybody));
        assert_eq!(Target::of_url("http://h", true).unwrap(), target("h:80", "/readyz"));
        assert_eq!(Target::of_listener(&api_at("0.0.0.0:1")), target("127.0.0.1:1", "/readyz"));
        assert_eq!(Target::of_listener(&api_at("[::]:1")), target("[::1]:1", "/readyz"));
        let tls = ListenerTls { cert_file: Some("c".into()), ..ListenerTls::default() };
        let encrypted = Api { tls, ..api_at("0.0.0.0:1") };
        let expected = over_tls(target("127.0.0.1:1", "/readyz"), Trust::Anybody);
        assert_eq!(Target::of_listener(&encrypted), expected);
    }

    #[tokio::test]
    async fn only_200_is_ready() {
        for (answer, ready) in
            [("HTTP/1.1 200 OK\r\n\r\nyes", true), ("HTTP/1.1 503 No\r\n\r\nno", false), ("", false)]
        {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let target = Target::of_listener(&api_at(&listener.local_addr().unwrap().to_string()));
            let serve = async {
                let (mut stream, _) = listener.accept().await.unwrap();
                let mut request = [0; 1024];
                let read = stream.read(&mut request).await.unwrap();
                assert!(request[..read].starts_with(b"GET /readyz HTTP/1.0\r\n"));
                stream.write_all(answer.as_bytes()).await.unwrap();
            };
            let (result, ()) = tokio::join!(target.ask(None), serve);
            assert_eq!(result.is_ok(), ready, "{result:?}");
        }
    }
}
