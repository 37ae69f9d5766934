//! HTTP clients for what the gateway itself asks of others. Owns their TLS: ring, and whom they believe.

use std::error::Error;
use std::fmt::Write as _;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use tokio_rustls::rustls::crypto::WebPkiSupportedAlgorithms;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use tokio_rustls::rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, Error as RustlsError, RootCertStore,
    SignatureScheme, crypto,
};

use crate::tls::{TlsError, certificates, private_key, roots};
use crate::transport::ReadWrite;

/// Why there is no client.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ClientError {
    /// A file of certificates or keys cannot be used.
    #[error("{0}")]
    Files(#[from] TlsError),
    /// The library refuses.
    #[error("{0}")]
    Library(String),
}

/// Whom a client takes for the server it wants.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Trust {
    /// Who has a certificate of the name by an authority of the system.
    System,
    /// The same by an authority of this file.
    Authorities(PathBuf),
    /// Who has the key of the first certificate in this file, whatever it is called and whoever signed it.
    Exactly(PathBuf),
    /// Whoever answers: for questions that hold no secret.
    Anybody,
}

/// The TLS of a client. `certificate` is what it shows when it is asked: a certificate's file, and its key's.
pub(crate) fn tls(trust: &Trust, certificate: Option<(&Path, &Path)>) -> Result<ClientConfig, ClientError> {
    let library = |error: &dyn Error| ClientError::Library(causes(error));
    let provider = Arc::new(crypto::ring::default_provider());
    let algorithms = provider.signature_verification_algorithms;
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| library(&error))?;
    let known = |certificate| Arc::new(Known { certificate, algorithms });
    let builder = match trust {
        // Without any authority a client still speaks http://; https:// then says that the other is not known.
        Trust::System => {
            let mut roots = RootCertStore::empty();
            roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
            builder.with_root_certificates(roots)
        }
        Trust::Authorities(path) => builder.with_root_certificates(roots(path)?),
        Trust::Exactly(path) => {
            let first = certificates(path)?.into_iter().next();
            builder.dangerous().with_custom_certificate_verifier(known(first))
        }
        Trust::Anybody => builder.dangerous().with_custom_certificate_verifier(known(None)),
    };
    match certificate {
        None => Ok(builder.with_no_client_auth()),
        Some((cert_file, key_file)) => builder
            .with_client_auth_cert(certificates(cert_file)?, private_key(key_file)?)
            .map_err(|error| library(&error)),
    }
}

/// A client whose requests end within `timeout`, from the connection to the last byte.
pub(crate) fn client(ca_file: Option<&Path>, timeout: Duration) -> Result<reqwest::Client, ClientError> {
    let trust = ca_file.map_or(Trust::System, |path| Trust::Authorities(path.to_owned()));
    client_over(tls(&trust, None)?, timeout)
}

/// The same with a TLS of its own.
pub(crate) fn client_over(tls: ClientConfig, timeout: Duration) -> Result<reqwest::Client, ClientError> {
    reqwest::Client::builder()
        .tls_backend_preconfigured(tls)
        .timeout(timeout)
        // A redirect would let whoever answers choose whom the gateway asks next.
        .redirect(reqwest::redirect::Policy::none())
        .user_agent(concat!("roomcast/", env!("CARGO_PKG_VERSION")))
        .build()
        .map_err(|error| ClientError::Library(causes(&error)))
}

/// A connection to `host:port`, over TLS where there is one.
pub(crate) async fn connect(authority: &str, tls: Option<&TlsConnector>) -> io::Result<Box<dyn ReadWrite>> {
    let stream = TcpStream::connect(authority).await?;
    stream.set_nodelay(true)?;
    let Some(tls) = tls else { return Ok(Box::new(stream)) };
    let host = authority.rsplit_once(':').map_or(authority, |(host, _)| host);
    let name = ServerName::try_from(host.trim_matches(['[', ']']).to_owned()).map_err(io::Error::other)?;
    Ok(Box::new(tls.connect(name, stream).await?))
}

/// Believes one certificate, or any, instead of authorities. That the other has its key is proved all the same.
#[derive(Debug)]
struct Known {
    certificate: Option<CertificateDer<'static>>,
    algorithms: WebPkiSupportedAlgorithms,
}

impl ServerCertVerifier for Known {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, RustlsError> {
        match &self.certificate {
            Some(known) if known != end_entity => {
                Err(RustlsError::InvalidCertificate(CertificateError::ApplicationVerificationFailure))
            }
            _ => Ok(ServerCertVerified::assertion()),
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, RustlsError> {
        crypto::verify_tls12_signature(message, cert, dss, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, RustlsError> {
        crypto::verify_tls13_signature(message, cert, dss, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

/// An error with its causes: the library's first line tells only where it happened.
pub(crate) fn causes(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        let _ = write!(text, ": {inner}");
        cause = inner.source();
    }
    text
}
