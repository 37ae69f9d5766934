//! What must hold of the listeners' TLS, bounds and times. Owns the checks, changes nothing; whether files can be used is
//! found out by who reads them.

use super::validate::zeros;
use super::{Config, ListenerTls, Problem};

pub(super) fn check(config: &Config, problems: &mut Vec<Problem>) {
    let (public, api) = (&config.public, &config.api);
    problems.extend(zeros([
        ("public.max_pending_connections", public.max_pending_connections == 0),
        ("public.header_timeout", public.header_timeout.is_zero()),
        ("public.idle_timeout", public.idle_timeout.is_zero()),
        ("public.tls.handshake_timeout", public.tls.handshake_timeout.is_zero()),
        ("api.max_connections", api.max_connections == 0),
        ("api.tls.handshake_timeout", api.tls.handshake_timeout.is_zero()),
    ]));
    tls("public.tls.cert_file", "public.tls.client_ca_file", &public.tls, problems);
    tls("api.tls.cert_file", "api.tls.client_ca_file", &api.tls, problems);
}

fn tls(pair: &'static str, ca: &'static str, tls: &ListenerTls, problems: &mut Vec<Problem>) {
    if tls.cert_file.is_some() != tls.key_file.is_some() {
        problems.push(Problem::Needs { key: pair, needs: "a certificate and its key" });
    } else if tls.client_ca_file.is_some() && !tls.is_enabled() {
        problems.push(Problem::Needs { key: ca, needs: "`cert_file` and `key_file` beside it" });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(toml: &str) -> Vec<String> {
        let config: Config = toml::from_str(toml).unwrap();
        config.problems().iter().map(Problem::to_string).collect()
    }

    #[test]
    fn each_check_finds_its_problem() {
        let cases = [
            ("public.max_pending_connections = 0", "`public.max_pending_connections` must be greater than 0"),
            ("public.header_timeout = 0", "`public.header_timeout` must be greater than 0"),
            ("public.idle_timeout = 0", "`public.idle_timeout` must be greater than 0"),
            ("public.tls.handshake_timeout = 0", "`public.tls.handshake_timeout` must be greater than 0"),
            ("api.max_connections = 0", "`api.max_connections` must be greater than 0"),
            ("public.tls.cert_file = 'x'", "`public.tls.cert_file` needs a certificate and its key"),
            ("api.tls.key_file = 'x'", "`api.tls.cert_file` needs a certificate and its key"),
            ("api.tls.client_ca_file = 'x'", "`api.tls.client_ca_file` needs `cert_file`"),
            // Without TLS nobody shows a certificate.
            ("api.listen = '0.0.0.0:3001'", "without any API key"),
            (
                "api = { listen = '0.0.0.0:3001', tls = { cert_file = 'x', key_file = 'y' } }",
                "without any API key",
            ),
        ];
        for (toml, expected) in cases {
            let found = check(toml);
            assert!(found.len() == 1 && found[0].contains(expected), "{toml}: {found:?}");
        }
    }

    #[test]
    fn certificates_of_callers_stand_for_keys() {
        let tls = "cert_file = 'x', key_file = 'y', client_ca_file = 'z'";
        for more in ["", ", client_certificates = 'optional', min_version = '1.3'"] {
            let found = check(&format!("api = {{ listen = '0.0.0.0:3001', tls = {{ {tls}{more} }} }}"));
            assert_eq!(found, Vec::<String>::new());
        }
    }
}
