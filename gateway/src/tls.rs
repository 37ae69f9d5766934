//! Certificates and keys in PEM files, and what a listener makes of them. Owns reading and judging the files; who connects
//! is none of its business, and the gateway's own clients are those of `outbound`.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use sha2::{Digest as _, Sha256};
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::server::WebPkiClientVerifier;
use tokio_rustls::rustls::server::danger::ClientCertVerifier;
use tokio_rustls::rustls::{
    Error as RustlsError, RootCertStore, ServerConfig, SupportedProtocolVersion, crypto, version,
};
use x509_cert::Certificate;
use x509_cert::der::Decode as _;
use x509_cert::ext::pkix::SubjectAltName;
use x509_cert::ext::pkix::name::GeneralName;

use crate::config::{ClientCertificates, ListenerTls, TlsVersion};

/// What is spoken inside. HTTP/2 would need WebSockets over it (RFC 8441), which nothing here knows.
const ALPN: &[u8] = b"http/1.1";

/// The longest name that a certificate gives its owner, in characters.
const MAX_NAME: usize = 200;

/// Why files of TLS cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TlsError {
    /// It cannot be read.
    #[error("{}: {source}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// It is not the PEM that it should be.
    #[error("{}: {message}", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        message: String,
    },
    /// It holds no certificate.
    #[error("{}: there is no certificate in it", .0.display())]
    Empty(PathBuf),
    /// Certificate and key are not a pair.
    #[error("{}: it is not the key of the certificate in {}", key_file.display(), cert_file.display())]
    Mismatch {
        /// The certificate.
        cert_file: PathBuf,
        /// The key.
        key_file: PathBuf,
    },
    /// A key without a certificate, or the other way round.
    #[error("a certificate and its key belong together: `cert_file` and `key_file`")]
    Half,
}

impl TlsError {
    /// A stable name for logs and tests.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Unreadable { .. } => "tls_unreadable",
            Self::Malformed { .. } => "tls_malformed",
            Self::Empty(_) => "tls_empty",
            Self::Mismatch { .. } => "tls_mismatch",
            Self::Half => "tls_half",
        }
    }

    fn malformed(path: &Path, message: &dyn std::fmt::Display) -> Self {
        Self::Malformed { path: path.to_owned(), message: message.to_string() }
    }
}

/// The TLS of a listener. Its certificates may be replaced while it is in use; connections that are there go on.
pub struct Tls {
    settings: ListenerTls,
    current: ArcSwap<Current>,
    /// What the files were when they were last looked at, used or not.
    seen: Mutex<Fingerprint>,
}

struct Current {
    config: Arc<ServerConfig>,
    expiry: Option<i64>,
}

type Fingerprint = [u8; 32];

/// What a look at the files came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reloaded {
    /// They are the same as at the last look.
    Same,
    /// They are others, and in force.
    Taken,
}

impl Tls {
    /// Reads the files of a listener. `None`: it has no TLS. Blocks on the file system.
    pub fn load(settings: &ListenerTls) -> Result<Option<Arc<Self>>, TlsError> {
        match (&settings.cert_file, &settings.key_file) {
            (None, None) => return Ok(None),
            (Some(_), Some(_)) => {}
            _ => return Err(TlsError::Half),
        }
        let files = Files::read(settings)?;
        let current = ArcSwap::from_pointee(files.current(settings)?);
        Ok(Some(Arc::new(Self {
            settings: settings.clone(),
            current,
            seen: Mutex::new(files.fingerprint()),
        })))
    }

    /// Looks at the files again. An error is told for each content once, and changes nothing. Blocks on the file system.
    pub fn reload(&self) -> Result<Reloaded, TlsError> {
        let read = Files::read(&self.settings);
        // A file that is away is a content, too.
        let fingerprint = read.as_ref().map_or([0; 32], Files::fingerprint);
        if std::mem::replace(&mut *self.seen.lock(), fingerprint) == fingerprint {
            return Ok(Reloaded::Same);
        }
        self.current.store(Arc::new(read?.current(&self.settings)?));
        Ok(Reloaded::Taken)
    }

    /// When the first certificate of the chain in force expires, in seconds since 1970, as far as it can be read.
    pub fn expiry(&self) -> Option<i64> {
        self.current.load().expiry
    }

    pub(crate) fn config(&self) -> Arc<ServerConfig> {
        Arc::clone(&self.current.load().config)
    }

    pub(crate) fn handshake_timeout(&self) -> std::time::Duration {
        self.settings.handshake_timeout
    }
}

impl std::fmt::Debug for Tls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tls").field("settings", &self.settings).field("expiry", &self.expiry()).finish()
    }
}

/// The files of a listener as they are now.
struct Files {
    cert: Vec<u8>,
    key: Vec<u8>,
    client_ca: Option<Vec<u8>>,
}

impl Files {
    fn read(settings: &ListenerTls) -> Result<Self, TlsError> {
        let file = |path: &Option<PathBuf>| read(path.as_deref().unwrap_or(Path::new("")));
        let client_ca = settings.client_ca_file.as_deref().map(read).transpose()?;
        Ok(Self { cert: file(&settings.cert_file)?, key: file(&settings.key_file)?, client_ca })
    }

    fn fingerprint(&self) -> Fingerprint {
        let mut hash = Sha256::new();
        for file in [&self.cert, &self.key].into_iter().chain(&self.client_ca) {
            hash.update((file.len() as u64).to_be_bytes());
            hash.update(file);
        }
        hash.finalize().into()
    }

    fn current(&self, settings: &ListenerTls) -> Result<Current, TlsError> {
        let path = |path: &Option<PathBuf>| path.clone().unwrap_or_default();
        let (cert_file, key_file) = (path(&settings.cert_file), path(&settings.key_file));
        let chain = certificates_in(&self.cert, &cert_file)?;
        let expiry = expiry(&chain);
        let key = private_key_in(&self.key, &key_file)?;
        let provider = Arc::new(crypto::ring::default_provider());
        let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(versions(settings.min_version))
            .map_err(|error| TlsError::malformed(&cert_file, &error))?;
        let builder = match (&self.client_ca, &settings.client_ca_file) {
            (Some(bytes), Some(path)) => builder.with_client_cert_verifier(verifier(
                roots_in(bytes, path)?,
                path,
                settings.client_certificates,
                provider,
            )?),
            _ => builder.with_no_client_auth(),
        };
        let config = builder.with_single_cert(chain, key).map_err(|error| match error {
            RustlsError::InconsistentKeys(_) => {
                TlsError::Mismatch { cert_file: cert_file.clone(), key_file: key_file.clone() }
            }
            RustlsError::InvalidCertificate(_) => TlsError::malformed(&cert_file, &error),
            error => TlsError::malformed(&key_file, &error),
        });
        // A configuration has a cache of sessions of its own: none is continued that began under another one, so that a
        // certificate of a client is judged again after its authority was replaced.
        let mut config = config?;
        config.alpn_protocols = vec![ALPN.to_vec()];
        Ok(Current { config: Arc::new(config), expiry })
    }
}

fn versions(min: TlsVersion) -> &'static [&'static SupportedProtocolVersion] {
    static FROM_12: [&SupportedProtocolVersion; 2] = [&version::TLS12, &version::TLS13];
    static FROM_13: [&SupportedProtocolVersion; 1] = [&version::TLS13];
    match min {
        TlsVersion::Tls12 => &FROM_12,
        TlsVersion::Tls13 => &FROM_13,
    }
}

fn verifier(
    roots: RootCertStore,
    path: &Path,
    wanted: ClientCertificates,
    provider: Arc<crypto::CryptoProvider>,
) -> Result<Arc<dyn ClientCertVerifier>, TlsError> {
    let builder = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
    let builder = match wanted {
        ClientCertificates::Required => builder,
        ClientCertificates::Optional => builder.allow_unauthenticated(),
    };
    builder.build().map_err(|error| TlsError::malformed(path, &error))
}

fn read(path: &Path) -> Result<Vec<u8>, TlsError> {
    std::fs::read(path).map_err(|source| TlsError::Unreadable { path: path.to_owned(), source })
}

/// The certificates of a file, at least one.
pub(crate) fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    certificates_in(&read(path)?, path)
}

/// The private key of a file.
pub(crate) fn private_key(path: &Path) -> Result<PrivateKeyDer<'static>, TlsError> {
    private_key_in(&read(path)?, path)
}

/// The authorities of a file, at least one.
pub(crate) fn roots(path: &Path) -> Result<RootCertStore, TlsError> {
    roots_in(&read(path)?, path)
}

fn certificates_in(bytes: &[u8], path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(bytes).collect();
    let certificates = certificates.map_err(|error| TlsError::malformed(path, &error))?;
    if certificates.is_empty() { Err(TlsError::Empty(path.to_owned())) } else { Ok(certificates) }
}

fn private_key_in(bytes: &[u8], path: &Path) -> Result<PrivateKeyDer<'static>, TlsError> {
    PrivateKeyDer::from_pem_slice(bytes).map_err(|error| TlsError::malformed(path, &error))
}

fn roots_in(bytes: &[u8], path: &Path) -> Result<RootCertStore, TlsError> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates_in(bytes, path)? {
        roots.add(certificate).map_err(|error| TlsError::malformed(path, &error))?;
    }
    Ok(roots)
}

/// When the first of the certificates expires. One that only rustls can read is no reason to be without TLS.
fn expiry(chain: &[CertificateDer<'_>]) -> Option<i64> {
    let readable = chain.iter().filter_map(|certificate| Certificate::from_der(certificate).ok());
    let expiries =
        readable.map(|certificate| certificate.tbs_certificate.validity.not_after.to_unix_duration());
    expiries.min().and_then(|expiry| i64::try_from(expiry.as_secs()).ok())
}

/// What a certificate calls its owner: the first name among its alternative ones (a URI, a DNS name, an e-mail address), or
/// its subject, such as `CN=orders`; the fingerprint of the certificate, if it has neither. It has been verified.
pub(crate) fn name_of(certificate: &CertificateDer<'_>) -> String {
    given_name(certificate).unwrap_or_else(|| {
        let hash = Sha256::digest(certificate);
        hash.iter().fold("sha256:".to_owned(), |name, byte| format!("{name}{byte:02x}"))
    })
}

fn given_name(certificate: &CertificateDer<'_>) -> Option<String> {
    let certificate = Certificate::from_der(certificate).ok()?.tbs_certificate;
    let names = certificate.get::<SubjectAltName>().ok().flatten().map(|(_, names)| names.0);
    let name = names.into_iter().flatten().find_map(|name| match name {
        GeneralName::UniformResourceIdentifier(text)
        | GeneralName::DnsName(text)
        | GeneralName::Rfc822Name(text) => Some(text.as_str().to_owned()),
        _ => None,
    });
    let name = name.unwrap_or_else(|| certificate.subject.to_string());
    // It goes into logs.
    let name: String = name.chars().filter(|char| !char.is_control()).take(MAX_NAME).collect();
    (!name.is_empty()).then_some(name)
}

#[cfg(test)]
#[path = "tls_tests.rs"]
mod tests;
