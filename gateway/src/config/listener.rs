//! What both listeners, or the proxies in front of one, can be told. Owns the settings and their forms; files are read by
//! `tls`, headers by `transport`.

use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use ipnet::IpNet;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::section::section;
use super::units;

section! {
    /// TLS in this process, in force as soon as there is a `cert_file`. The files are PEM; they are read again at SIGHUP and
    /// every `reload.interval`. A pair that cannot be used is told, and the one before stays. Connections live on.
    pub struct ListenerTls {
        /// The certificate, and behind it those between it and its authority. It needs `key_file`.
        cert_file: Option<PathBuf> = None; example "\"/etc/roomcast/tls.crt\"",
        /// The key of `cert_file`.
        key_file: Option<PathBuf> = None; example "\"/etc/roomcast/tls.key\"",
        /// The authorities whose certificates callers have to show. On the api listener such a certificate is a credential:
        /// who has one may do everything, without a key. With a key or a token beside it, what those allow.
        client_ca_file: Option<PathBuf> = None; example "\"/etc/roomcast/clients-ca.crt\"",
        /// With `client_ca_file`: "required" ends connections without a certificate; "optional" lets them be, so that probes
        /// and /metrics need none, while calls need a certificate, a key or a token.
        client_certificates: ClientCertificates = ClientCertificates::Required,
        /// "1.2" or "1.3". What is older is never spoken.
        min_version: TlsVersion = TlsVersion::Tls12,
        /// How long a new connection may take to agree on TLS.
        #[serde(with = "units::duration")]
        handshake_timeout: Duration = Duration::from_secs(10),
    }
}

impl ListenerTls {
    /// Whether connections are encrypted.
    pub fn is_enabled(&self) -> bool {
        self.cert_file.is_some()
    }

    /// Whether callers may show certificates.
    pub fn takes_client_certificates(&self) -> bool {
        self.is_enabled() && self.client_ca_file.is_some()
    }

    /// What a URL of the listener begins with.
    pub fn scheme(&self) -> &'static str {
        if self.is_enabled() { "https" } else { "http" }
    }
}

/// Whether whoever connects needs a certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum ClientCertificates {
    /// There is no connection without one.
    Required,
    /// One is looked at if it is there.
    Optional,
}

/// The oldest version of TLS that is spoken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum TlsVersion {
    /// TLS 1.2 (RFC 5246).
    #[serde(rename = "1.2")]
    Tls12,
    /// TLS 1.3 (RFC 8446).
    #[serde(rename = "1.3")]
    Tls13,
}

/// Whether connections begin with a header of the PROXY protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum ProxyProtocol {
    /// They do not.
    Off,
    /// They do, and one that does not is closed.
    Required,
}

/// In which header proxies name the client.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum ForwardedHeader {
    /// `X-Forwarded-For`, and `X-Forwarded-Proto` beside it.
    XForwardedFor,
    /// `Forwarded` (RFC 7239).
    Forwarded,
}

/// A network such as `10.0.0.0/8`, or one address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Network(IpNet);

impl Network {
    /// Whether an address is in it. `::ffff:10.0.0.1` is `10.0.0.1`.
    pub fn contains(&self, address: IpAddr) -> bool {
        self.0.contains(&address.to_canonical())
    }
}

impl FromStr for Network {
    type Err = ipnet::AddrParseError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.parse::<IpAddr>() {
            Ok(address) => Ok(Self(address.to_canonical().into())),
            Err(_) => text.parse().map(|network: IpNet| Self(network.trunc())),
        }
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl Serialize for Network {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Network {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(|_| {
            serde::de::Error::custom(format_args!(
                "\"{text}\" is no address and no network such as \"10.0.0.0/8\" or \"2001:db8::/32\""
            ))
        })
    }
}

impl JsonSchema for Network {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Network".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "string",
            "pattern": r"^[0-9a-fA-F.:]+(/[0-9]{1,3})?$",
            "examples": ["10.0.0.0/8", "192.0.2.7", "2001:db8::/32"],
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn network(text: &str) -> Network {
        text.parse().unwrap()
    }

    #[test]
    fn a_network_holds_its_addresses_in_every_writing() {
        let contains = |network_text, address: &str| network(network_text).contains(address.parse().unwrap());
        assert!(contains("10.0.0.0/8", "10.255.0.1") && !contains("10.0.0.0/8", "11.0.0.1"));
        assert!(contains("10.1.2.3/8", "10.255.0.1"), "bits behind the prefix mean nothing");
        assert!(contains("10.0.0.1", "::ffff:10.0.0.1") && contains("::ffff:10.0.0.1", "10.0.0.1"));
        assert!(contains("2001:db8::/32", "2001:db8:1::1") && !contains("2001:db8::/32", "2001:db9::1"));
        assert!(!contains("0.0.0.0/0", "::1") && contains("0.0.0.0/0", "192.0.2.1"));
    }

    #[test]
    fn what_is_no_network_is_refused_with_a_hint() {
        for text in ["10.0.0.0/33", "lb.example", "10.0.0", "", "10.0.0.0/8,192.0.2.1"] {
            let error = toml::from_str::<super::super::Public>(&format!("trusted_proxies = ['{text}']"));
            assert!(error.unwrap_err().to_string().contains("10.0.0.0/8"), "{text}");
        }
        assert_eq!(network("10.1.2.3/8").to_string(), "10.0.0.0/8");
    }
}
