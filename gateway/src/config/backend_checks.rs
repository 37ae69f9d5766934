//! What must hold of backends, and of what names them. Owns the checks, changes nothing.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use tokio_rustls::rustls::pki_types::CertificateDer;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;

use super::validate::{form, is_token, zeros};
use super::{Access, Backend, Config, Mode, Namespace, Problem, Secret};

/// The longest time for which an answer to `roomcast.connect` may be shared: who is banned gets in for that long.
const MAX_SHARE: Duration = Duration::from_secs(10);
/// The bytes that a secret may have (Standard Webhooks, "Signature scheme").
const SECRET_BYTES: std::ops::RangeInclusive<usize> = 24..=64;

pub(super) fn check(config: &Config, problems: &mut Vec<Problem>) {
    for (name, backend) in &config.backends {
        one(name, backend, problems);
    }
    for namespace in &config.namespaces {
        names(namespace, &config.backends, problems);
    }
}

fn one(name: &str, backend: &Backend, problems: &mut Vec<Problem>) {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_".contains(&byte);
    if name.is_empty() || name.len() > 64 || !name.bytes().all(is_plain) {
        problems.push(form("backend", name, "a name of 1 to 64 letters, digits, \"-\" and \"_\""));
    }
    let key = |key: &str| format!("backend.{name}.{key}");
    match (&backend.webhook, backend.nats) {
        (Some(_), true) | (None, false) => problems.push(form(
            format!("backend.{name}"),
            if backend.nats { "webhook and nats" } else { "nothing" },
            "one of `webhook` and `nats = true`",
        )),
        (Some(url), false) => {
            let parsed = reqwest::Url::parse(url.expose()).ok();
            let is_url = parsed.is_some_and(|url| {
                matches!(url.scheme(), "http" | "https") && url.has_host() && url.username().is_empty()
            });
            if !is_url {
                let shown = url.to_string();
                problems.push(form(key("webhook"), &shown, "a URL with http or https and no user"));
            }
            if backend.secrets.is_empty() {
                problems.push(Problem::Empty(key("secrets")));
            }
        }
        (None, true) => {}
    }
    if backend.secrets.iter().any(|secret| signing_key(secret).is_none()) {
        let expected = "\"whsec_\" and base64 of 24 to 64 bytes";
        problems.push(form(key("secrets"), "***", expected));
    }
    if let Some(path) = backend.ca_file.as_ref().filter(|path| !has_certificates(path)) {
        problems.push(form(key("ca_file"), &path.to_string_lossy(), "a PEM file with certificates"));
    }
    problems.extend(zeros([
        ("backend.timeout", backend.timeout.is_zero()),
        ("backend.concurrency", backend.concurrency == 0),
        ("backend.batch_items", backend.batch_items == 0),
        ("backend.queue_items", backend.queue_items == 0),
        ("backend.queue_bytes", backend.queue_bytes == 0),
        ("backend.max_reply", backend.max_reply == 0),
        ("backend.breaker_failures", backend.breaker_failures == 0),
    ]));
    if backend.share_connects > MAX_SHARE {
        let shown = humantime::format_duration(backend.share_connects).to_string();
        problems.push(form(key("share_connects"), &shown, "a duration up to 10s"));
    }
    let is_header = |name: &&String| is_token(name) && !name.bytes().any(|byte| byte.is_ascii_uppercase());
    problems.extend(
        backend
            .headers
            .iter()
            .filter(|name| !is_header(name))
            .map(|name| form(key("headers"), name, "a header's name in lower case")),
    );
}

fn has_certificates(path: &Path) -> bool {
    let certificates = CertificateDer::pem_file_iter(path).map(|found| found.collect::<Result<Vec<_>, _>>());
    matches!(certificates, Ok(Ok(certificates)) if !certificates.is_empty())
}

/// The bytes of a signing secret, if it is one.
pub(crate) fn signing_key(secret: &Secret) -> Option<Vec<u8>> {
    let text = secret.expose();
    let bytes = STANDARD.decode(text.strip_prefix("whsec_").unwrap_or(text)).ok()?;
    SECRET_BYTES.contains(&bytes.len()).then_some(bytes)
}

fn names(namespace: &Namespace, backends: &BTreeMap<String, Backend>, problems: &mut Vec<Problem>) {
    let told = [
        ("connect", &namespace.connect),
        ("connected", &namespace.connected),
        ("disconnected", &namespace.disconnected),
        ("occupied", &namespace.occupied),
        ("vacated", &namespace.vacated),
    ];
    let of = &namespace.name;
    let unknown = |key: String, name: &str| Problem::UnknownBackend { key, name: name.to_owned() };
    for (key, name) in told {
        if let Some(name) = name.as_ref().filter(|name| !backends.contains_key(*name)) {
            problems.push(unknown(format!("namespace.{key}` of `{of}"), name));
        }
    }
    let only = || backends.len() == 1;
    for rule in &namespace.rooms {
        let key = || format!("namespace.room.to` of `{of} {}", rule.pattern.as_str());
        match &rule.to {
            Some(name) if !backends.contains_key(name) => problems.push(unknown(key(), name)),
            None if rule.join == Access::Webhook && namespace.connect.is_none() && !only() => {
                problems.push(Problem::Empty(key()));
            }
            _ => {}
        }
    }
    for route in &namespace.routes {
        let event = route.event.as_str();
        if event.is_empty() {
            problems.push(Problem::Empty(format!("namespace.route.event` of `{of}")));
        }
        let key = || format!("namespace.route.to` of `{of} {event}");
        match (route.mode, &route.to) {
            (Mode::Call | Mode::Notify, Some(name)) if !backends.contains_key(name) => {
                problems.push(unknown(key(), name));
            }
            (Mode::Call | Mode::Notify, None) if !only() => problems.push(Problem::Empty(key())),
            (Mode::Drop, Some(name)) => problems.push(form(key(), name, "of use with mode \"drop\"")),
            _ => {}
        }
    }
}

impl Config {
    /// The only backend, which rules and routes mean that name none.
    pub(crate) fn only_backend(&self) -> Option<&str> {
        let mut names = self.backends.keys();
        names.next().filter(|_| self.backends.len() == 1).map(String::as_str)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECRET: &str = "whsec_MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=";

    fn found(toml: &str) -> Vec<String> {
        let toml = toml.replace("SECRET", SECRET);
        let config: Config = toml::from_str(&toml).unwrap();
        config.problems().iter().map(Problem::to_string).collect()
    }

    #[test]
    fn each_check_finds_its_problem() {
        let ok = "webhook='http://h/x', secrets=['SECRET']";
        let cases = [
            ("[backend.a]".to_owned(), "is not one of `webhook` and `nats = true`"),
            (format!("backend.a={{ {ok}, nats=true }}"), "is not one of `webhook` and `nats = true`"),
            ("backend.a={ webhook='ftp://h', secrets=['SECRET'] }".to_owned(), "a URL with http or https"),
            ("backend.a={ webhook='http://u:p@h', secrets=['SECRET'] }".to_owned(), "and no user"),
            ("backend.a={ webhook='http://h' }".to_owned(), "`backend.a.secrets` must not be empty"),
            ("backend.a={ webhook='http://h', secrets=['whsec_c2hvcnQ='] }".to_owned(), "24 to 64 bytes"),
            (format!("backend.'a b'={{ {ok} }}"), "\"a b\" is not a name"),
            (format!("backend.a={{ {ok}, concurrency=0 }}"), "`backend.concurrency` must be greater than 0"),
            (format!("backend.a={{ {ok}, share_connects='1m' }}"), "\"1m\" is not a duration up to 10s"),
            (format!("backend.a={{ {ok}, ca_file='/nowhere.pem' }}"), "is not a PEM file with certificates"),
            (format!("backend.a={{ {ok}, headers=['Cookie'] }}"), "\"Cookie\" is not a header's name"),
            ("namespace=[{ name='/', connect='b' }]".to_owned(), "there is no backend \"b\""),
            (
                "namespace=[{ name='/', route=[{ event='*', to='b' }] }]".to_owned(),
                "there is no backend \"b\"",
            ),
            (
                "namespace=[{ name='/', route=[{ event='*' }] }]".to_owned(),
                "`namespace.route.to` of `/ *` must not be empty",
            ),
            (
                "namespace=[{ name='/', room=[{ match='*', join='webhook' }] }]".to_owned(),
                "`namespace.room.to` of `/ *` must not be empty",
            ),
        ];
        for (toml, expected) in cases {
            let found = found(&toml);
            assert!(found.len() == 1 && found[0].contains(expected), "{toml}: {found:?}");
        }
    }

    #[test]
    fn the_only_backend_need_not_be_named() {
        let toml = "
            namespace=[{ name='/', route=[{ event='*' }], room=[{ match='*', join='webhook' }] }]
            backend.a={ webhook='http://h', secrets=['SECRET', 'SECRET'], share_connects='10s' }
        ";
        assert_eq!(found(toml), Vec::<String>::new());
    }
}
