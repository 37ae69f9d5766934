//! What must hold of the ways in over a broker. Owns the checks, changes nothing.

use super::validate::{form, zeros};
use super::{AdapterKind, Config, Problem, SecretUrl};

/// The shortest time after which entries may be taken over: a node needs a moment for those that it has.
const MIN_CLAIM: std::time::Duration = std::time::Duration::from_secs(1);
/// The most entries that may be read at once: they are in memory together.
const MAX_BATCH: usize = 1_000;

pub(super) fn check(config: &Config, problems: &mut Vec<Problem>) {
    let (ingest, kind) = (&config.ingest, config.adapter.kind);
    url("ingest.redis.url", AdapterKind::Redis, &ingest.redis.url, problems);
    url("ingest.nats.url", AdapterKind::Nats, &ingest.nats.url, problems);
    let has_redis = ingest.redis.url.is_some() || kind == AdapterKind::Redis;
    let has_nats = ingest.nats.url.is_some() || kind == AdapterKind::Nats;
    let wanted = [
        ("ingest.emitter.enabled", ingest.emitter.enabled == Some(true) && !has_redis, "`ingest.redis.url`"),
        ("ingest.stream.enabled", ingest.stream.enabled && !has_redis, "`ingest.redis.url`"),
        ("ingest.nats.enabled", ingest.nats.enabled == Some(true) && !has_nats, "`ingest.nats.url`"),
    ];
    for (key, _, needs) in wanted.into_iter().filter(|(_, is_missing, _)| *is_missing) {
        problems.push(Problem::Needs { key, needs });
    }
    let halves = [
        ("ingest.redis.tls.cert_file", &ingest.redis.tls, "a certificate and its key"),
        ("ingest.nats.tls.cert_file", &ingest.nats.tls, "a certificate and its key"),
    ];
    for (key, tls, needs) in halves {
        if tls.cert_file.is_some() != tls.key_file.is_some() {
            problems.push(Problem::Needs { key, needs });
        }
    }
    if ingest.emitter.key.is_empty() {
        problems.push(Problem::Empty("ingest.emitter.key".to_owned()));
    }
    stream(config, problems);
    let is_token = |token: &str| {
        !token.is_empty() && token.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte))
    };
    if let Some(prefix) = &ingest.nats.prefix
        && (prefix.len() > 100 || !prefix.split('.').all(is_token))
    {
        let expected = "letters, digits, \"-\" and \"_\", with single dots between";
        problems.push(form("ingest.nats.prefix", prefix, expected));
    }
    if ingest.nats.max_calls == 0 {
        problems.push(Problem::Zero("ingest.nats.max_calls"));
    }
}

fn stream(config: &Config, problems: &mut Vec<Problem>) {
    let stream = &config.ingest.stream;
    if stream.key.as_ref().is_some_and(String::is_empty) {
        problems.push(Problem::Empty("ingest.stream.key".to_owned()));
    }
    if stream.group.is_empty() {
        problems.push(Problem::Empty("ingest.stream.group".to_owned()));
    }
    if !(1..=MAX_BATCH).contains(&stream.batch) {
        problems.push(form("ingest.stream.batch", &stream.batch.to_string(), "a number from 1 to 1000"));
    }
    if stream.claim_after < MIN_CLAIM {
        let shown = humantime::format_duration(stream.claim_after).to_string();
        problems.push(form("ingest.stream.claim_after", &shown, "a duration of at least 1s"));
    }
    problems.extend(zeros([
        ("ingest.stream.max_deliveries", stream.max_deliveries == 0),
        ("ingest.stream.window", stream.window.is_zero()),
        ("ingest.stream.max_dead", stream.max_dead == 0),
    ]));
}

fn url(key: &'static str, kind: AdapterKind, url: &Option<SecretUrl>, problems: &mut Vec<Problem>) {
    let Some(url) = url else { return };
    if !url.scheme().is_some_and(|scheme| kind.schemes().contains(&scheme)) {
        problems.push(form(key, &url.to_string(), kind.url_form()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_check_finds_its_problem() {
        let cases = [
            ("redis.url = 'nats://u:p@h'", "`ingest.redis.url`: \"nats://***@h\" is not a URL of Redis"),
            ("nats.url = 'redis://h'", "`ingest.nats.url`: \"redis://h\" is not a URL of NATS"),
            ("emitter.enabled = true", "`ingest.emitter.enabled` needs `ingest.redis.url`"),
            ("stream.enabled = true", "`ingest.stream.enabled` needs `ingest.redis.url`"),
            ("nats.enabled = true", "`ingest.nats.enabled` needs `ingest.nats.url`"),
            ("redis.tls.cert_file = 'x'", "`ingest.redis.tls.cert_file` needs a certificate and its key"),
            ("emitter.key = ''", "`ingest.emitter.key` must not be empty"),
            ("stream.key = ''", "`ingest.stream.key` must not be empty"),
            ("stream.group = ''", "`ingest.stream.group` must not be empty"),
            ("stream.batch = 0", "`ingest.stream.batch`: \"0\" is not a number"),
            ("stream.claim_after = '10ms'", "`ingest.stream.claim_after`: \"10ms\" is not a duration"),
            ("stream.max_deliveries = 0", "`ingest.stream.max_deliveries` must be greater than 0"),
            ("stream.window = 0", "`ingest.stream.window` must be greater than 0"),
            ("nats.prefix = 'a..b'", "`ingest.nats.prefix`: \"a..b\" is not letters"),
            ("nats.max_calls = 0", "`ingest.nats.max_calls` must be greater than 0"),
        ];
        for (toml, expected) in cases {
            let config: Config = toml::from_str(&format!("[ingest]\n{toml}")).unwrap();
            let mut problems = Vec::new();
            check(&config, &mut problems);
            let found: Vec<String> = problems.iter().map(Problem::to_string).collect();
            assert!(found.len() == 1 && found[0].contains(expected), "{toml}: {found:?}");
        }
        let fine = "
            [adapter]
            kind = 'nats'
            [ingest]
            redis.url = 'rediss-sentinel://a,b/?sentinelServiceName=x'
            stream.enabled = true
            emitter.enabled = false
            nats.prefix = 'prod.chat'
        ";
        let mut problems = Vec::new();
        check(&toml::from_str(fine).unwrap(), &mut problems);
        assert!(problems.is_empty(), "{problems:?}");
    }
}
