//! The URL of a Redis, and what it says.

use std::fmt;

use percent_encoding::percent_decode_str;

use crate::cluster::BusError;

const REDIS_PORT: u16 = 6379;
const SENTINEL_PORT: u16 = 26379;
/// More servers are rather a mistake than a list of where to begin.
const MAX_SERVERS: usize = 64;

/// Where a server listens.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Endpoint {
    pub(super) host: String,
    pub(super) port: u16,
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.host.contains(':') {
            true => write!(f, "[{}]:{}", self.host, self.port),
            false => write!(f, "{}:{}", self.host, self.port),
        }
    }
}

impl Endpoint {
    /// From `host[:port]` or `[IPv6][:port]`.
    fn parse(text: &str, port: u16) -> Option<Self> {
        let (host, rest) = match text.strip_prefix('[') {
            Some(rest) => rest.split_once(']')?,
            None => text.split_at(text.find(':').unwrap_or(text.len())),
        };
        let port = match rest.strip_prefix(':') {
            Some(port) => port.parse().ok().filter(|port| *port != 0)?,
            None if rest.is_empty() => port,
            None => return None,
        };
        let good = !host.is_empty() && !host.contains(|char: char| char.is_whitespace() || char.is_control());
        good.then(|| Self { host: host.to_owned(), port })
    }
}

/// Who we are to a server. `Debug` is left out, so that it never prints.
#[derive(Clone, Default, PartialEq, Eq)]
pub(super) struct Login {
    pub(super) user: Option<String>,
    pub(super) password: Option<String>,
}

/// How the servers belong together.
#[derive(Clone, PartialEq, Eq)]
pub(super) enum Kind {
    /// One server.
    Standalone,
    /// Sentinels that know the master of a service.
    Sentinel { service: String, login: Login },
    /// Some nodes of a cluster.
    Cluster,
}

/// What a URL says.
#[derive(Clone)]
pub(super) struct Target {
    pub(super) kind: Kind,
    pub(super) tls: bool,
    /// One server; or Sentinels or nodes of a cluster, any of which may be away.
    pub(super) servers: Vec<Endpoint>,
    pub(super) login: Login,
    pub(super) database: u32,
}

impl Target {
    /// Errors name the part that is wrong, and never quote it: it may be a password at the wrong place.
    pub(super) fn parse(url: &str) -> Result<Self, BusError> {
        let wrong = |what: &str| BusError::Configuration(format!("the Redis URL: {what}"));
        let (scheme, rest) = url.trim().split_once("://").ok_or_else(|| wrong("no scheme"))?;
        let tls = scheme.starts_with("rediss");
        let kind = match scheme {
            "redis" | "rediss" => Kind::Standalone,
            "redis-cluster" | "rediss-cluster" => Kind::Cluster,
            "redis-sentinel" | "rediss-sentinel" => {
                Kind::Sentinel { service: String::new(), login: Login::default() }
            }
            _ => {
                let schemes =
                    "the scheme must be redis, redis-sentinel or redis-cluster, with rediss for TLS";
                return Err(wrong(schemes));
            }
        };
        let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
        let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
        let (credentials, hosts) =
            authority.rsplit_once('@').map_or((None, authority), |(first, hosts)| (Some(first), hosts));
        let port = if matches!(kind, Kind::Sentinel { .. }) { SENTINEL_PORT } else { REDIS_PORT };
        let server = |host: &str| {
            Endpoint::parse(host, port)
                .ok_or_else(|| wrong("a server must be host, host:port or [IPv6]:port"))
        };
        let servers = hosts.split(',').map(server).collect::<Result<_, _>>()?;
        let login = credentials.map_or_else(|| Ok(Login::default()), login)?;
        let database = match path.trim_end_matches('/') {
            "" => 0,
            path => path.parse().map_err(|_| wrong("the database must be a number"))?,
        };
        let mut target = Self { kind, tls, servers, login, database };
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            match (key, &mut target.kind) {
                ("node", Kind::Sentinel { .. } | Kind::Cluster) => target.servers.push(server(value)?),
                ("sentinelServiceName", Kind::Sentinel { service, .. }) => *service = decoded(value)?,
                ("sentinelUsername", Kind::Sentinel { login, .. }) => login.user = Some(decoded(value)?),
                ("sentinelPassword", Kind::Sentinel { login, .. }) => login.password = Some(decoded(value)?),
                _ => {
                    return Err(wrong(
                        "a parameter that is not known; those of redis-sentinel are sentinelServiceName, \
                         sentinelUsername and sentinelPassword",
                    ));
                }
            }
        }
        target.checked()
    }

    fn checked(self) -> Result<Self, BusError> {
        let wrong = match &self.kind {
            Kind::Standalone if self.servers.len() > 1 => {
                "redis:// has one server; several are redis-sentinel:// or redis-cluster://"
            }
            Kind::Sentinel { service, .. } if service.is_empty() => {
                "redis-sentinel:// needs ?sentinelServiceName=, the name by which Sentinel knows the master"
            }
            Kind::Cluster if self.database != 0 => "a Redis Cluster has no database but 0",
            _ if self.servers.len() > MAX_SERVERS => "too many servers",
            _ => return Ok(self),
        };
        Err(BusError::Configuration(format!("the Redis URL: {wrong}")))
    }

    /// The servers, for messages.
    pub(super) fn endpoint(&self) -> String {
        self.servers.iter().map(ToString::to_string).collect::<Vec<_>>().join(",")
    }

    /// What must not be printed.
    pub(super) fn secrets(&self) -> Vec<String> {
        let mut secrets = Vec::from_iter(self.login.password.clone());
        if let Kind::Sentinel { login, .. } = &self.kind {
            secrets.extend(login.password.clone());
        }
        secrets
    }
}

/// `user:password`, `:password` or `user`.
fn login(credentials: &str) -> Result<Login, BusError> {
    let (user, password) = credentials.split_once(':').map_or((credentials, None), |(u, p)| (u, Some(p)));
    let user = decoded(user)?;
    Ok(Login {
        user: (!user.is_empty()).then_some(user),
        password: password.map(decoded).transpose()?.filter(|password| !password.is_empty()),
    })
}

fn decoded(text: &str) -> Result<String, BusError> {
    let decoded = percent_decode_str(text).decode_utf8();
    decoded
        .map(String::from)
        .map_err(|_| BusError::Configuration("the Redis URL: an escaped part is not UTF-8".into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(url: &str) -> Target {
        Target::parse(url).unwrap_or_else(|error| panic!("{url}: {error}"))
    }

    #[test]
    fn every_way_of_running_redis() {
        let one = parsed("redis://user:se%2Fcret%401@host:7000/3");
        assert!(matches!(one.kind, Kind::Standalone) && !one.tls);
        assert_eq!((one.endpoint().as_str(), one.database), ("host:7000", 3));
        assert_eq!(one.login.user.as_deref(), Some("user"));
        assert_eq!(one.login.password.as_deref(), Some("se/cret@1"));
        assert_eq!(parsed("redis://host").endpoint(), "host:6379");
        assert_eq!(parsed("rediss://:pw@[::1]").endpoint(), "[::1]:6379");
        assert!(parsed("rediss://:pw@[::1]").login.user.is_none());

        let url = "rediss-sentinel://u:p@a,b:7,c/2?sentinelServiceName=main&sentinelUsername=s&sentinelPassword=t%20";
        let sentinel = parsed(url);
        assert_eq!((sentinel.endpoint().as_str(), sentinel.database), ("a:26379,b:7,c:26379", 2));
        assert_eq!(sentinel.secrets(), ["p", "t "]);
        let Kind::Sentinel { service, login } = sentinel.kind else { panic!("a Sentinel") };
        assert_eq!((service.as_str(), login.user.as_deref()), ("main", Some("s")));

        let cluster = parsed("redis-cluster://:p@a:1,b:2/?node=c:3");
        assert!(matches!(cluster.kind, Kind::Cluster));
        assert_eq!(cluster.endpoint(), "a:1,b:2,c:3");
    }

    #[test]
    fn mistakes_are_named_and_secrets_are_not() {
        for (url, told) in [
            ("", "scheme"),
            ("nats://secret@host", "scheme"),
            ("redis://", "host"),
            ("redis://secret:secret@host:notaport", "host:port"),
            ("redis://u:sec/ret@host", "server"),
            ("redis://a,b", "one server"),
            ("redis://a/secret", "number"),
            ("redis://a?sentinelServiceName=secret", "parameter"),
            ("redis-sentinel://:secret@a,b", "sentinelServiceName"),
            ("redis-cluster://a/1", "database"),
            ("redis-cluster://:secret@a,,b", "host"),
            ("redis://u:%ffsecret@a", "UTF-8"),
        ] {
            let Err(error) = Target::parse(url) else { panic!("{url} was taken") };
            assert!(matches!(error, BusError::Configuration(_)), "{error}");
            assert!(
                error.to_string().contains(told) && !error.to_string().contains("secret"),
                "{url}: {error}"
            );
        }
    }
}
