//! `roomcast healthcheck`: what a container's health check runs. It needs no client library, and no key.

use std::io::Write as _;
use std::net::SocketAddr;
use std::process::ExitCode;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::{Options, reachable};
use crate::config::ConfigError;

/// How long a health check waits in all.
const HEALTHCHECK_TIMEOUT: Duration = Duration::from_secs(5);

/// `roomcast healthcheck`: asks a node whether it is ready.
pub async fn healthcheck(url: Option<&str>, options: &Options) -> ExitCode {
    let target = match url {
        Some(url) => Target::of_url(url),
        None => options
            .load()
            .map(|loaded| Target::of_listener(loaded.config.api.listen))
            .map_err(|error| HealthcheckError::Config(Box::new(error))),
    };
    let result = match target {
        Ok(target) => match tokio::time::timeout(HEALTHCHECK_TIMEOUT, target.ask()).await {
            Ok(result) => result,
            Err(_) => Err(HealthcheckError::TimedOut),
        },
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
    #[error("\"{0}\" is no http:// URL")]
    Url(String),
    #[error("{0}")]
    Io(#[from] std::io::Error),
    #[error("no answer within {} s", HEALTHCHECK_TIMEOUT.as_secs())]
    TimedOut,
    #[error("{0}")]
    NotReady(String),
}

/// Whom to ask: an authority to connect to, and a path.
#[derive(Debug, PartialEq, Eq)]
struct Target {
    authority: String,
    path: String,
}

impl Target {
    fn of_url(url: &str) -> Result<Self, HealthcheckError> {
        let refused = || HealthcheckError::Url(url.to_owned());
        let uri: http::Uri = url.parse().map_err(|_| refused())?;
        let authority = uri.authority().filter(|_| uri.scheme_str() == Some("http")).ok_or_else(refused)?;
        let port = authority.port_u16().unwrap_or(80);
        // A URL without a path asks for the usual one.
        let path = uri.path_and_query().map_or("/", |path| path.as_str());
        let path = if path == "/" { "/readyz" } else { path };
        Ok(Self { authority: format!("{}:{port}", authority.host()), path: path.to_owned() })
    }

    fn of_listener(listen: SocketAddr) -> Self {
        Self { authority: reachable(listen).to_string(), path: "/readyz".to_owned() }
    }

    /// One request of HTTP/1.0: the answer ends with the connection.
    async fn ask(&self) -> Result<String, HealthcheckError> {
        const LONGEST_ANSWER: u64 = 64 * 1024;
        let mut stream = TcpStream::connect(&self.authority).await?;
        let request = format!("GET {} HTTP/1.0\r\nHost: {}\r\n\r\n", self.path, self.authority);
        stream.write_all(request.as_bytes()).await?;
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

    #[test]
    fn whom_a_health_check_asks() {
        let target = |authority: &str, path: &str| Target { authority: authority.into(), path: path.into() };
        assert_eq!(Target::of_url("http://h").unwrap(), target("h:80", "/readyz"));
        assert_eq!(Target::of_url("http://h:1/livez").unwrap(), target("h:1", "/livez"));
        assert_eq!(Target::of_url("http://[::1]:1").unwrap(), target("[::1]:1", "/readyz"));
        assert!(Target::of_url("https://h").is_err() && Target::of_url("h").is_err());
        assert_eq!(Target::of_listener("0.0.0.0:1".parse().unwrap()), target("127.0.0.1:1", "/readyz"));
        assert_eq!(Target::of_listener("[::]:1".parse().unwrap()), target("[::1]:1", "/readyz"));
    }

    #[tokio::test]
    async fn only_200_is_ready() {
        for (answer, ready) in
            [("HTTP/1.1 200 OK\r\n\r\nyes", true), ("HTTP/1.1 503 No\r\n\r\nno", false), ("", false)]
        {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let target = Target::of_listener(listener.local_addr().unwrap());
            let serve = async {
                let (mut stream, _) = listener.accept().await.unwrap();
                let mut request = [0; 1024];
                let read = stream.read(&mut request).await.unwrap();
                assert!(request[..read].starts_with(b"GET /readyz HTTP/1.0\r\n"));
                stream.write_all(answer.as_bytes()).await.unwrap();
            };
            let (result, ()) = tokio::join!(target.ask(), serve);
            assert_eq!(result.is_ok(), ready, "{result:?}");
        }
    }
}
