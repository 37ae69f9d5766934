//! Who the node is to the servers, and whom it trusts: addresses, credentials and certificates.
//!
//! Owns what is read from URLs and files. Files are read for each connection, so that what is rotated there is used by the
//! next link. No secret gets into an error.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use async_nats::{
    ConnectError, ConnectErrorKind, ConnectOptions, ServerAddr,
    rustls::{
        RootCertStore,
        pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    },
};
use futures_util::FutureExt;
use nkeys::{KeyPair, KeyPairType};

use super::{super::NatsConfig, servers::Greeting};
use crate::{TlsFiles, cluster::BusError};

pub(super) struct Access {
    credentials: Credentials,
    tls: TlsFiles,
    require_tls: bool,
}

#[derive(Clone, PartialEq, Eq)]
enum Credentials {
    None,
    Token(String),
    User(String, String),
    Nkey(String),
    File(PathBuf),
}

impl Access {
    /// Checks the configuration, and reads the addresses out of it.
    pub(super) fn new(config: &NatsConfig) -> Result<(Self, Vec<ServerAddr>), BusError> {
        let (mut servers, mut in_url) = (Vec::new(), Credentials::None);
        for url in config.url.split(',').map(str::trim).filter(|url| !url.is_empty()) {
            let (address, found) = parse_server(url)?;
            if in_url == Credentials::None {
                in_url = found;
            }
            servers.push(address);
        }
        if servers.is_empty() {
            return Err(wrong("the NATS URL names no server"));
        }
        let mut given = Vec::from_iter((in_url != Credentials::None).then_some(in_url));
        if let Some(seed) = &config.nkey_seed {
            let seed = seed.trim();
            // The error of the crate is not repeated: there is nothing in it that helps.
            let is_user = |pair: &KeyPair| pair.key_pair_type() == KeyPairType::User;
            if !KeyPair::from_seed(seed).is_ok_and(|pair| is_user(&pair)) {
                return Err(wrong("the nkey seed is none of a user"));
            }
            given.push(Credentials::Nkey(seed.to_owned()));
        }
        given.extend(config.credentials_file.clone().map(Credentials::File));
        if given.len() > 1 {
            return Err(wrong("give one of credentials in the URL, an nkey seed and a credentials file"));
        }
        let tls = config.tls.clone();
        if tls.cert_file.is_some() != tls.key_file.is_some() {
            return Err(wrong("a certificate and its key belong together: give both files or none"));
        }
        // Whoever names certificates does not want to go without.
        let require_tls = servers.iter().any(ServerAddr::tls_required) || tls != TlsFiles::default();
        Ok((Self { credentials: given.pop().unwrap_or(Credentials::None), tls, require_tls }, servers))
    }

    pub(super) fn requires_tls(&self) -> bool {
        self.require_tls
    }

    /// What must not be seen.
    pub(super) fn secrets(&self) -> Vec<String> {
        match &self.credentials {
            Credentials::None | Credentials::File(_) => Vec::new(),
            Credentials::Token(secret) | Credentials::User(_, secret) | Credentials::Nkey(secret) => {
                vec![secret.clone()]
            }
        }
    }

    /// Options with credentials and certificates, the files read now.
    pub(super) async fn options(&self) -> Result<ConnectOptions, BusError> {
        let (credentials, tls) = (self.credentials.clone(), self.tls.clone());
        let read = tokio::task::spawn_blocking(move || {
            check_certificates(&tls)?;
            match &credentials {
                Credentials::File(path) => read_file(path, "credentials file", fs::read_to_string).map(Some),
                _ => Ok(None),
            }
        });
        let file = read.await.unwrap_or_else(|_| Err(super::closed()))?;
        let options = match self.credentials.clone() {
            Credentials::None => ConnectOptions::new(),
            Credentials::Token(token) => ConnectOptions::with_token(token),
            Credentials::User(user, password) => ConnectOptions::with_user_and_password(user, password),
            Credentials::Nkey(seed) => ConnectOptions::with_nkey(seed),
            Credentials::File(path) => ConnectOptions::with_credentials(&file.unwrap_or_default())
                .map_err(|error| wrong(format!("credentials file {}: {error}", path.display())))?,
        };
        let options = options.require_tls(self.require_tls);
        let options = match self.tls.ca_file.clone() {
            Some(file) => options.add_root_certificates(file),
            None => options,
        };
        Ok(match (self.tls.cert_file.clone(), self.tls.key_file.clone()) {
            (Some(cert), Some(key)) => options.add_client_certificate(cert, key),
            _ => options,
        })
    }

    /// Connects, and asks the server who it is.
    pub(super) async fn greeting(&self, address: ServerAddr) -> Result<Greeting, BusError> {
        let options = self.options().await?.name("roomcast-greeting").ignore_discovered_servers();
        let connected = options.max_reconnects(1).connect(address).boxed().await;
        Ok(connected.map_err(|error| self.error(&error))?.server_info().into())
    }

    /// Why a connection could not be made.
    pub(super) fn error(&self, error: &ConnectError) -> BusError {
        let text = error.to_string();
        match error.kind() {
            ConnectErrorKind::Authentication | ConnectErrorKind::AuthorizationViolation => {
                BusError::Refused(text)
            }
            ConnectErrorKind::Tls => BusError::Configuration(format!("{text} ({})", self.describe_tls())),
            ConnectErrorKind::ServerParse => BusError::Configuration(text),
            _ => BusError::Unavailable(text),
        }
    }

    /// The files that a failure of TLS may be about.
    fn describe_tls(&self) -> String {
        let files = [("ca_file", &self.tls.ca_file), ("cert_file", &self.tls.cert_file)];
        let files = files.into_iter().chain([("key_file", &self.tls.key_file)]);
        let named = files.filter_map(|(name, file)| Some(format!("{name} {}", file.as_ref()?.display())));
        named.collect::<Vec<_>>().join(", ")
    }
}

fn wrong(what: impl Into<String>) -> BusError {
    BusError::Configuration(what.into())
}

fn read_file<T>(path: &Path, what: &str, read: impl Fn(PathBuf) -> io::Result<T>) -> Result<T, BusError> {
    read(path.to_owned()).map_err(|error| wrong(format!("{what} {}: {error}", path.display())))
}

/// The client crate reads them again, but does not say which it could not use.
fn check_certificates(tls: &TlsFiles) -> Result<(), BusError> {
    let certificates = |path: PathBuf| -> io::Result<Vec<CertificateDer<'static>>> {
        let all = CertificateDer::pem_slice_iter(&fs::read(path)?).collect::<Result<Vec<_>, _>>();
        let all = all.map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error.to_string()))?;
        if all.is_empty() { Err(io::Error::other("no certificate in it")) } else { Ok(all) }
    };
    if let Some(file) = &tls.ca_file {
        let mut store = RootCertStore::empty();
        for certificate in read_file(file, "ca_file", certificates)? {
            let added = store.add(certificate);
            added.map_err(|error| wrong(format!("ca_file {}: {error}", file.display())))?;
        }
    }
    if let Some(file) = &tls.cert_file {
        read_file(file, "cert_file", certificates)?;
    }
    if let Some(file) = &tls.key_file {
        read_file(file, "key_file", |path| {
            // What the error would say may be a part of the key.
            PrivateKeyDer::from_pem_slice(&fs::read(path)?)
                .map_err(|_| io::Error::other("no private key in it"))
        })?;
    }
    Ok(())
}

/// The address without its credentials, and those.
fn parse_server(url: &str) -> Result<(ServerAddr, Credentials), BusError> {
    let wrong = |text: String| wrong(format!("the NATS URL is wrong: {text}"));
    let address: ServerAddr = url.parse().map_err(|error: io::Error| wrong(error.to_string()))?;
    if address.is_websocket() {
        return Err(wrong("WebSocket is not supported".into()));
    }
    let mut parsed = address.into_inner();
    if parsed.host_str().is_none_or(str::is_empty) {
        return Err(wrong("no host".into()));
    }
    let user = decode(parsed.username());
    let credentials = match (user.is_empty(), parsed.password().map(decode)) {
        (_, Some(password)) => Credentials::User(user, password),
        (false, None) => Credentials::Token(user),
        (true, None) => Credentials::None,
    };
    let cleared = parsed.set_username("").and_then(|()| parsed.set_password(None));
    cleared.map_err(|()| wrong("credentials without a host".into()))?;
    let address = ServerAddr::from_url(parsed).map_err(|error| wrong(error.to_string()))?;
    Ok((address, credentials))
}

/// Percent-decoding. What is no escape stands for itself.
fn decode(text: &str) -> String {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&byte, tail)) = rest.split_first() {
        let digit = |at: usize| tail.get(at).and_then(|digit| char::from(*digit).to_digit(16));
        match (byte, digit(0), digit(1)) {
            (b'%', Some(high), Some(low)) => {
                out.push((high * 16 + low) as u8);
                rest = tail.get(2..).unwrap_or_default();
            }
            _ => {
                out.push(byte);
                rest = tail;
            }
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_are_taken_out_of_urls() {
        let user = |user: &str, password: &str| Credentials::User(user.into(), password.into());
        for (url, host, port, credentials) in [
            ("nats://localhost", "localhost", 4222, Credentials::None),
            ("localhost:1", "localhost", 1, Credentials::None),
            ("nats://to%40ken@h:2", "h", 2, Credentials::Token("to@ken".into())),
            ("tls://u:p%2Cw@h:3", "h", 3, user("u", "p,w")),
            ("nats://:p@h", "h", 4222, user("", "p")),
            ("nats://u:100%25%@h", "h", 4222, user("u", "100%%")),
        ] {
            let (address, found) = parse_server(url).expect(url);
            assert_eq!((address.host(), address.port()), (host, port), "{url}");
            assert!(found == credentials, "{url}");
            assert!(!address.has_user_pass() && address.password().is_none(), "{url}");
        }
    }
}
