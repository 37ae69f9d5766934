//! What must hold between the values of a configuration before a port is bound. Owns the checks, changes nothing.

use std::collections::HashSet;

use super::public::{is_allowed_origin, is_origin};
use super::{
    Access, AdapterKind, Api, Config, JwtAlgorithm, Namespace, Problem, RedisPubSub, SameSite, Secret, log,
};
use crate::auth::check_static_keys;

/// The shortest API key: 16 characters of hex are 64 bits.
const MIN_KEY_LENGTH: usize = 16;

/// Each is a number in memory.
const MAX_HASHED_SUBJECTS: u32 = 1 << 20;

const EVENT: &str = "an event name that a client may send";
const RESERVED_EVENTS: [&str; 6] =
    ["connect", "connect_error", "disconnect", "disconnecting", "newListener", "removeListener"];

/// Whether Socket.IO keeps an event name for itself: clients must not send it, nobody may emit it.
pub(crate) fn is_reserved_event(name: &str) -> bool {
    RESERVED_EVENTS.contains(&name)
}

pub(super) fn problems(config: &Config) -> Vec<Problem> {
    let mut problems = Vec::new();
    listeners(config, &mut problems);
    cross_origin(config, &mut problems);
    cookie(config, &mut problems);
    bounds(config, &mut problems);
    adapter(config, &mut problems);
    namespaces(config, &mut problems);
    tokens(config, &mut problems);
    limits(config, &mut problems);
    super::peer_checks::check(config, &mut problems);
    super::listener_checks::check(config, &mut problems);
    super::ingest_checks::check(config, &mut problems);
    super::backend_checks::check(config, &mut problems);
    super::lifecycle_checks::check(config, &mut problems);
    super::trace::problems(&config.trace, &mut problems);
    if !log::is_filter(&config.log.level) {
        problems.push(form("log.level", &config.log.level, "a level or a list of target=level"));
    }
    problems
}

pub(super) fn form(key: impl Into<String>, value: &str, expected: &'static str) -> Problem {
    Problem::Form { key: key.into(), value: value.to_owned(), expected }
}

/// A problem for each key whose value is zero.
pub(super) fn zeros<const N: usize>(keys: [(&'static str, bool); N]) -> impl Iterator<Item = Problem> {
    keys.into_iter().filter(|(_, is_zero)| *is_zero).map(|(key, _)| Problem::Zero(key))
}

/// The first value that stands twice.
fn twice<'a>(key: &'static str, values: impl Iterator<Item = &'a str>) -> Option<Problem> {
    let mut seen = HashSet::new();
    let value = values.into_iter().find(|value| !seen.insert(*value))?;
    Some(Problem::Twice { key, value: value.to_owned() })
}

fn listeners(config: &Config, problems: &mut Vec<Problem>) {
    let (public, api) = (&config.public, &config.api);
    let path = public.path.as_str();
    if !path.starts_with('/')
        || path.contains(['?', '#'])
        || path.contains(char::is_whitespace)
        || path == "/"
    {
        problems.push(form("public.path", path, "a path such as \"/socket.io/\""));
    }
    for origin in public.origins.iter().filter(|origin| !is_allowed_origin(origin)) {
        problems.push(form(
            "public.origins",
            origin,
            "\"same-origin\" or an origin such as \"https://shop.example\"",
        ));
    }
    // Port 0 is a free port, a different one for each.
    if public.listen == api.listen && api.listen.port() != 0 {
        problems.push(Problem::SameAddress(api.listen));
    }
    if !api.listen.ip().is_loopback() && api.is_keyless() {
        problems.push(Problem::ApiWithoutKeys(api.listen));
    }
    api_keys(api, problems);
}

fn api_keys(api: &Api, problems: &mut Vec<Problem>) {
    if let Err((key, error)) = check_static_keys(&api.jwt.to_jwt()) {
        problems.push(Problem::TokenKey { of: "api", key, message: error.to_string() });
    }
    if api.jwt.claim.is_empty() {
        problems.push(Problem::Empty("api.jwt.claim".to_owned()));
    }
    problems.extend(not_http_url("api.jwt.jwks_url", api.jwt.jwks_url.as_deref()));
    let named = api.named_keys.iter().filter_map(|key| key.secret.as_ref());
    let secrets: Vec<_> = api.keys.iter().chain(named).map(Secret::expose).collect();
    if secrets.iter().any(|secret| secret.len() < MIN_KEY_LENGTH) {
        problems.push(Problem::ShortKey(MIN_KEY_LENGTH));
    }
    // The second one would never be asked for its rights.
    if secrets.iter().collect::<HashSet<_>>().len() < secrets.len() {
        problems.push(Problem::SameKey);
    }
    problems.extend(twice("api.key.name", api.named_keys.iter().map(|key| key.name.as_str())));
    for key in &api.named_keys {
        let name = key.name.as_str();
        if name.is_empty() || !name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte))
        {
            problems.push(form("api.key.name", name, "a name of letters, digits, \"-\", \"_\" and \".\""));
        }
        if key.secret.is_none() {
            problems.push(Problem::Empty(format!("api.key.secret` of `{name}")));
        }
        if key.scopes.is_empty() {
            problems.push(Problem::Empty(format!("api.key.scopes` of `{name}")));
        }
        if key.rate == Some(0) {
            problems.push(Problem::Zero("api.key.rate"));
        }
        if key.namespaces.iter().chain(&key.rooms).any(|pattern| pattern.as_str().is_empty()) {
            problems.push(Problem::Empty(format!("api.key.namespaces` and `api.key.rooms` of `{name}")));
        }
    }
}

fn cross_origin(config: &Config, problems: &mut Vec<Problem>) {
    let cors = &config.cors;
    let any = cors.origins.iter().any(|origin| origin == "*");
    if any && cors.origins.len() > 1 {
        problems.push(Problem::CorsAnyAndMore);
    }
    if any && cors.credentials {
        problems.push(Problem::CorsAnyWithCredentials);
    }
    for origin in cors.origins.iter().filter(|origin| *origin != "*" && !is_origin(origin)) {
        problems.push(form("cors.origins", origin, "\"*\" or an origin such as \"https://shop.example\""));
    }
    let lists = [
        ("cors.methods", &cors.methods),
        ("cors.allowed_headers", &cors.allowed_headers),
        ("cors.exposed_headers", &cors.exposed_headers),
    ];
    for (key, names) in lists {
        problems.extend(
            names.iter().filter(|name| !is_token(name)).map(|name| form(key, name, "a name in HTTP")),
        );
    }
}

/// A token of HTTP (RFC 9110, section 5.6.2): names of methods, headers and cookies.
pub(super) fn is_token(text: &str) -> bool {
    !text.is_empty()
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte))
}

fn cookie(config: &Config, problems: &mut Vec<Problem>) {
    let cookie = &config.cookie;
    if !is_token(&cookie.name) {
        problems.push(form("cookie.name", &cookie.name, "a name of a cookie"));
    }
    if !cookie.path.starts_with('/') || cookie.path.contains(|c: char| c == ';' || c.is_control()) {
        problems.push(form("cookie.path", &cookie.path, "a path"));
    }
    if cookie.enabled && cookie.same_site == SameSite::None && !cookie.secure {
        problems.push(Problem::CookieNotSecure);
    }
}

fn bounds(config: &Config, problems: &mut Vec<Problem>) {
    let (engine, adapter) = (&config.engine, &config.adapter);
    let durations = [
        ("engine.ping_interval", engine.ping_interval),
        ("engine.ping_timeout", engine.ping_timeout),
        ("engine.upgrade_timeout", engine.upgrade_timeout),
        ("engine.connect_timeout", engine.connect_timeout),
        ("engine.polling_close_timeout", engine.polling_close_timeout),
        ("adapter.request_timeout", adapter.request_timeout),
        ("adapter.heartbeat", adapter.heartbeat),
        ("adapter.subscribe_timeout", adapter.subscribe_timeout),
        ("adapter.directory.interval", adapter.directory.interval),
        ("adapter.inbound.max_lag", adapter.inbound.max_lag),
    ];
    // `max_attachments` and `max_rooms_per_socket` may be 0: no binary, no rooms.
    let counts = [
        ("public.max_connections", config.public.max_connections),
        ("engine.max_payload", engine.max_payload),
        ("engine.max_fragments", engine.max_fragments as usize),
        ("engine.max_namespaces_per_connection", engine.max_namespaces_per_connection),
        ("engine.max_pending_handlers", engine.max_pending_handlers),
        ("mailbox.max_items", config.mailbox.max_items),
        ("mailbox.max_bytes", config.mailbox.max_bytes),
        ("adapter.max_rooms_per_emit", adapter.max_rooms_per_emit),
        ("adapter.hashed_subjects", adapter.hashed_subjects as usize),
        ("adapter.outbox.max_items", adapter.outbox.max_items),
        ("adapter.outbox.max_bytes", adapter.outbox.max_bytes),
        ("adapter.inbound.max_bytes", adapter.inbound.max_bytes),
        ("api.max_body", config.api.max_body),
    ];
    problems.extend(zeros(durations.map(|(key, value)| (key, value.is_zero()))));
    problems.extend(zeros(counts.map(|(key, value)| (key, value == 0))));
    if !(1..=9).contains(&engine.per_message_deflate.level) {
        let level = engine.per_message_deflate.level.to_string();
        problems.push(form("engine.per_message_deflate.level", &level, "a level from 1 to 9"));
    }
    if engine.transports.is_empty() {
        problems.push(Problem::Empty("engine.transports".to_owned()));
    }
    problems.extend(twice("engine.transports", engine.transports.iter().map(|transport| transport.as_str())));
    if adapter.hashed_subjects > MAX_HASHED_SUBJECTS {
        let number = adapter.hashed_subjects.to_string();
        problems.push(form("adapter.hashed_subjects", &number, "a number up to 1048576"));
    }
    if adapter.lease < adapter.expiry {
        problems.push(Problem::Order { longer: "adapter.lease", shorter: "`adapter.expiry`" });
    }
    // Who says nothing for longer counts as one who does not know.
    if adapter.expiry < adapter.directory.interval * 2 {
        let shorter = "two of `adapter.directory.interval`";
        problems.push(Problem::Order { longer: "adapter.expiry", shorter });
    }
    // One lost heartbeat must not look like a death.
    if adapter.expiry < adapter.heartbeat * 2 {
        problems.push(Problem::Order { longer: "adapter.expiry", shorter: "two of `adapter.heartbeat`" });
    }
}

fn adapter(config: &Config, problems: &mut Vec<Problem>) {
    let adapter = &config.adapter;
    let is_name = |byte: u8| byte.is_ascii_alphanumeric() || b"-_".contains(&byte);
    if adapter.prefix.is_empty() || adapter.prefix.len() > 64 || !adapter.prefix.bytes().all(is_name) {
        problems.push(form("adapter.prefix", &adapter.prefix, "1 to 64 letters, digits, \"-\" and \"_\""));
    }
    let kind = adapter.kind;
    match (&adapter.url, kind) {
        (_, AdapterKind::Memory) => {}
        (None, AdapterKind::Redis | AdapterKind::Nats) => problems.push(Problem::UrlMissing(kind.as_str())),
        (Some(url), AdapterKind::Redis | AdapterKind::Nats) => {
            if !url.scheme().is_some_and(|scheme| kind.schemes().contains(&scheme)) {
                let (url, schemes) = (url.to_string(), kind.schemes());
                problems.push(Problem::UrlScheme { url, kind: kind.as_str(), schemes });
            }
        }
    }
    if adapter.tls.cert_file.is_some() != adapter.tls.key_file.is_some() {
        problems.push(Problem::HalfCertificate);
    }
    let scheme = adapter.url.as_ref().and_then(|url| url.scheme());
    let is_cluster = scheme.is_some_and(|scheme| scheme.ends_with("-cluster"));
    if kind == AdapterKind::Redis && adapter.redis.pubsub == RedisPubSub::Sharded && !is_cluster {
        problems.push(Problem::ShardedWithoutCluster);
    }
}

fn namespaces(config: &Config, problems: &mut Vec<Problem>) {
    if config.namespaces.is_empty() {
        problems.push(Problem::Empty("namespace".to_owned()));
    }
    problems
        .extend(twice("namespace.name", config.namespaces.iter().map(|namespace| namespace.name.as_str())));
    for namespace in &config.namespaces {
        let name = namespace.name.as_str();
        if name.contains('*') {
            problems.push(Problem::NotAvailable { key: "namespace.name".to_owned(), value: name.to_owned() });
        } else if !name.starts_with('/') || name.contains([',', '?']) || name.contains(char::is_control) {
            problems.push(form(
                "namespace.name",
                name,
                "a name that begins with \"/\" and has no comma or \"?\"",
            ));
        }
        events(namespace, problems);
        for rule in &namespace.rooms {
            let pattern = rule.pattern.as_str();
            let key = |field: &str| format!("namespace.room.{field}` of `{name} {pattern}");
            if pattern.is_empty() {
                problems.push(Problem::Empty(format!("namespace.room.match` of `{name}")));
            }
            if rule.join == Access::Members {
                problems.push(Problem::JoinMembers(key("join")));
            }
            if rule.emit == Access::Webhook {
                problems.push(Problem::EmitWebhook(key("emit")));
            }
            for (field, access) in [("join", rule.join), ("emit", rule.emit)] {
                if access == Access::Claims && !config.auth.jwt.is_enabled() {
                    problems.push(Problem::ClaimsWithoutTokens(key(field)));
                }
            }
        }
    }
}

fn tokens(config: &Config, problems: &mut Vec<Problem>) {
    let (auth, jwt) = (&config.auth, &config.auth.jwt);
    for (key, event) in [
        ("auth.refresh_event", &auth.refresh_event),
        ("auth.expiring_event", &auth.expiring_event),
        ("auth.expired_event", &auth.expired_event),
    ] {
        if event.is_empty() || is_reserved_event(event) {
            problems.push(form(key, event, "an event name that is not reserved"));
        }
    }
    problems.extend(zeros([
        ("auth.max_revocations", auth.max_revocations == 0),
        ("auth.revocation_time", auth.revocation_time.is_zero()),
        ("auth.jwt.jwks_refresh", jwt.jwks_refresh.is_zero()),
        ("auth.jwt.jwks_cooldown", jwt.jwks_cooldown.is_zero()),
        ("auth.jwt.jwks_timeout", jwt.jwks_timeout.is_zero()),
        ("auth.jwt.jwks_max_bytes", jwt.jwks_max_bytes == 0),
    ]));
    if let Err((key, error)) = check_static_keys(jwt) {
        problems.push(Problem::TokenKey { of: "auth", key, message: error.to_string() });
    }
    problems.extend(twice("auth.jwt.algorithms", jwt.algorithms.iter().map(|algorithm| algorithm.as_str())));
    let has_public = jwt.public_key.is_some() || jwt.public_key_file.is_some() || jwt.jwks_url.is_some();
    for algorithm in &jwt.algorithms {
        let has_key = if *algorithm == JwtAlgorithm::Hs256 { jwt.secret.is_some() } else { has_public };
        if jwt.is_enabled() && !has_key {
            problems.push(form(
                "auth.jwt.algorithms",
                algorithm.as_str(),
                "an algorithm that there is a key for",
            ));
        }
    }
    if jwt.claim.is_empty() {
        problems.push(Problem::Empty("auth.jwt.claim".to_owned()));
    }
    problems.extend(not_http_url("auth.jwt.jwks_url", jwt.jwks_url.as_deref()));
}

/// What is wrong with a URL that has neither http nor https.
pub(super) fn not_http_url(key: &'static str, url: Option<&str>) -> Option<Problem> {
    let url = url.filter(|url| !is_http_url(url))?;
    // Not the rest: there may be a password in it.
    let shown = url.split_once("://").map_or("", |(scheme, _)| scheme);
    Some(form(key, shown, "a URL that begins with https:// or http://"))
}

pub(super) fn is_http_url(url: &str) -> bool {
    let rest = url.strip_prefix("https://").or_else(|| url.strip_prefix("http://"));
    rest.is_some_and(|rest| !rest.is_empty() && !rest.starts_with('/') && !rest.contains(char::is_whitespace))
}

fn limits(config: &Config, problems: &mut Vec<Problem>) {
    let limits = &config.limits;
    problems.extend(zeros([
        ("limits.connections_per_ip", limits.connections_per_ip == Some(0)),
        ("limits.connects_per_ip", limits.connects_per_ip == Some(0)),
        ("limits.sockets_per_user", limits.sockets_per_user == Some(0)),
        ("limits.events_per_second", limits.events_per_second == Some(0)),
        ("limits.events_burst", limits.events_burst == Some(0)),
    ]));
}

fn events(namespace: &Namespace, problems: &mut Vec<Problem>) {
    let events = [
        ("room_join", &namespace.room_join),
        ("room_leave", &namespace.room_leave),
        ("room_emit", &namespace.room_emit),
    ];
    problems.extend(twice("namespace.room_*", events.iter().map(|(_, event)| event.as_str())));
    for (key, event) in events {
        if event.is_empty() || is_reserved_event(event) {
            problems.push(form(format!("namespace.{key}"), event, EVENT));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the problems of a file say.
    fn check(toml: &str) -> Vec<String> {
        let config: Config = toml::from_str(toml).unwrap();
        problems(&config).iter().map(Problem::to_string).collect()
    }

    #[test]
    fn the_defaults_have_no_problem() {
        assert!(check("").is_empty());
    }

    #[test]
    fn each_check_finds_its_problem() {
        let cases = [
            ("public.path = 'socket.io'", "`public.path`: \"socket.io\" is not a path"),
            ("public.origins = ['*']", "`public.origins`: \"*\" is not \"same-origin\" or an origin"),
            ("public.listen = '127.0.0.1:3001'", "same address: 127.0.0.1:3001"),
            ("public.max_connections = 0", "`public.max_connections` must be greater than 0"),
            ("api.listen = '0.0.0.0:3001'", "without any API key"),
            ("api.keys = ['short']", "fewer than 16 characters"),
            ("api.jwt.secret = 'short'", "`api.jwt.secret`: a secret has fewer than 32 bytes"),
            ("api.jwt.jwks_url = 'ftp://u:p@h'", "`api.jwt.jwks_url`: \"ftp\" is not a URL"),
            ("api.jwt.claim = ''", "`api.jwt.claim` must not be empty"),
            ("api.key = [{name='a'}]", "`api.key.secret` of `a` must not be empty"),
            ("api.key = [{name='a', secret='short'}]", "fewer than 16 characters"),
            ("api.key = [{name='a b', secret='0123456789abcdef'}]", "\"a b\" is not a name"),
            ("api.key = [{name='a', secret='0123456789abcdef', scopes=[]}]", "must not be empty"),
            ("api.key = [{name='a', secret='0123456789abcdef', rate=0}]", "must be greater than 0"),
            (
                "api.key = [{name='a', secret='0123456789abcdef', rooms=['']}]",
                "`api.key.rooms` of `a` must not be empty",
            ),
            (
                "api.keys = ['0123456789abcdef']\napi.key = [{name='a', secret='0123456789abcdef'}]",
                "two API keys are the same",
            ),
            ("cors.origins = ['*', 'https://a.example']", "\"*\" has to stand alone"),
            ("cors.origins = ['*']\ncors.credentials = true", "cannot be used with the origin \"*\""),
            ("cors.origins = ['a.example']", "`cors.origins`: \"a.example\" is not \"*\" or an origin"),
            ("cors.methods = ['GE T']", "`cors.methods`: \"GE T\" is not a name in HTTP"),
            ("cookie.name = 'a;b'", "`cookie.name`: \"a;b\" is not a name of a cookie"),
            ("cookie.path = '/;x'", "`cookie.path`: \"/;x\" is not a path"),
            ("cookie = { enabled = true, same_site = 'none' }", "needs `cookie.secure` = true"),
            ("engine.ping_timeout = 0", "`engine.ping_timeout` must be greater than 0"),
            ("engine.transports = []", "`engine.transports` must not be empty"),
            ("engine.transports = ['polling', 'polling']", "`engine.transports` names \"polling\" twice"),
            ("engine.per_message_deflate.level = 10", "\"10\" is not a level from 1 to 9"),
            ("adapter.heartbeat = '3s'", "`adapter.expiry` must be longer than two"),
            ("adapter.tls.key_file = 'x'", "belong together"),
            (
                "adapter = { kind = 'redis', url = 'redis://h', redis = { pubsub = 'sharded' } }",
                "needs a Redis Cluster",
            ),
            ("adapter.directory.interval = '3s'", "`adapter.expiry` must be longer than two"),
            ("adapter.directory.interval = 0", "`adapter.directory.interval` must be greater than 0"),
            ("adapter.prefix = 'a.b'", "`adapter.prefix`: \"a.b\" is not 1 to 64"),
            ("adapter.kind = 'redis'", "`adapter.url` is missing: `adapter.kind` is \"redis\""),
            (
                "adapter = { kind = 'nats', url = 'redis://u:p@h' }",
                "\"redis://***@h\" is no URL for \"nats\"",
            ),
            ("namespace = []", "`namespace` must not be empty"),
            ("namespace = [{name='/'}, {name='/'}]", "`namespace.name` names \"/\" twice"),
            ("namespace = [{name='/a-*'}]", "`namespace.name` = \"/a-*\" is not available"),
            ("namespace = [{}]", "`namespace.name`: \"\" is not a name"),
            ("namespace = [{name='/', room_join='connect'}]", "\"connect\" is not an event name"),
            ("namespace = [{name='/', room_join='a', room_leave='a'}]", "names \"a\" twice"),
            ("namespace = [{name='/', room=[{}]}]", "`namespace.room.match` of `/` must not be empty"),
            ("namespace = [{name='/', room=[{match='*', join='members'}]}]", "only members could join"),
            (
                "namespace = [{name='/', room=[{match='*', emit='webhook'}]}]",
                "backends are asked who may join",
            ),
            ("namespace = [{name='/', room=[{match='*', emit='claims'}]}]", "\"claims\" needs tokens"),
            ("auth.refresh_event = 'disconnect'", "`auth.refresh_event`: \"disconnect\" is not"),
            ("auth.revocation_time = 0", "`auth.revocation_time` must be greater than 0"),
            ("auth.jwt.secret = 'short'", "`auth.jwt.secret`: a secret has fewer than 32 bytes"),
            ("auth.jwt.public_key = 'abc'", "`auth.jwt.public_key`: it is no public key in PEM"),
            ("auth.jwt.jwks_url = 'ftp://u:p@h'", "`auth.jwt.jwks_url`: \"ftp\" is not a URL"),
            (
                "auth.jwt = { jwks_url = 'https://h', algorithms = ['HS256'] }",
                "\"HS256\" is not an algorithm",
            ),
            ("auth.jwt.claim = ''", "`auth.jwt.claim` must not be empty"),
            ("limits.sockets_per_user = 0", "`limits.sockets_per_user` must be greater than 0"),
            ("trace.endpoint = 'collector:4318'", "`trace.endpoint`: \"\" is not a URL"),
            ("trace.traces_endpoint = 'ftp://c'", "`trace.traces_endpoint`: \"ftp\" is not a URL"),
            ("trace.sample = 1.5", "`trace.sample`: \"1.5\" is not a number from 0 to 1"),
            ("trace.headers = ['secret']", "`trace.headers`: \"***\" is not a header"),
            ("trace.queue = 0", "`trace.queue` must be greater than 0"),
            ("trace.queue = 2000000", "`trace.queue`: \"2000000\" is not a number up to"),
            ("trace.service_name = ''", "`trace.service_name` must not be empty"),
            ("log.level = 'loud'", "`log.level`: \"loud\" is not a level"),
        ];
        for (toml, expected) in cases {
            let found = check(toml);
            assert!(found.len() == 1 && found[0].contains(expected), "{toml}: {found:?}");
        }
    }

    #[test]
    fn what_looks_unusual_but_works_is_taken() {
        let toml = "
            public = { listen = '127.0.0.1:0', path = '/a/b', origins = ['same-origin', 'https://a.example:8443'] }
            api = { listen = '0.0.0.0:3001', keys = ['0123456789abcdef'] }
            adapter = { kind = 'redis', url = 'rediss://u:p@h:6379' }
            engine = { transports = ['websocket'], max_attachments = 0, max_rooms_per_socket = 0 }
            auth.jwt = { jwks_url = 'https://id.example/keys', audience = 'shop', issuer = ['a', 'b'] }
            namespace = [{ name = '/', room = [{ match = '*', join = 'webhook', emit = 'claims' }] }]
            backend.shop = { webhook = 'https://shop.example/hooks', secrets = ['whsec_MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3'] }
            log.level = 'info,roomcast::connection=debug'
        ";
        assert_eq!(check(toml), Vec::<String>::new());
    }
}
