//! HTTP clients for what the gateway itself asks of others. Owns their TLS: ring, and the system's authorities or those of
//! a file.

use std::error::Error;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio_rustls::rustls::pki_types::CertificateDer;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::{ClientConfig, RootCertStore, crypto};

/// Why there is no client.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ClientError {
    /// The file of authorities cannot be used.
    #[error("{}: {message}", path.display())]
    CaFile { path: PathBuf, message: String },
    /// The library refuses.
    #[error("{0}")]
    Library(String),
}

/// A client whose requests end within `timeout`, from the connection to the last byte.
pub(crate) fn client(ca_file: Option<&Path>, timeout: Duration) -> Result<reqwest::Client, ClientError> {
    let library = |error: &dyn Error| ClientError::Library(causes(error));
    let tls = ClientConfig::builder_with_provider(Arc::new(crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| library(&error))?
        .with_root_certificates(roots(ca_file)?)
        .with_no_client_auth();
    reqwest::Client::builder()
        .tls_backend_preconfigured(tls)
        .timeout(timeout)
        // A redirect would let whoever answers choose whom the gateway asks next.
        .redirect(reqwest::redirect::Policy::none())
        .user_agent(concat!("roomcast/", env!("CARGO_PKG_VERSION")))
        .build()
        .map_err(|error| library(&error))
}

/// Without any authority a client still speaks http://; https:// then says that the other is not known.
fn roots(ca_file: Option<&Path>) -> Result<RootCertStore, ClientError> {
    let mut roots = RootCertStore::empty();
    let Some(path) = ca_file else {
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        return Ok(roots);
    };
    let failed =
        |error: &dyn Error| ClientError::CaFile { path: path.to_owned(), message: error.to_string() };
    let certificates = CertificateDer::pem_file_iter(path).map_err(|error| failed(&error))?;
    for certificate in certificates {
        let certificate = certificate.map_err(|error| failed(&error))?;
        roots.add(certificate).map_err(|error| failed(&error))?;
    }
    if roots.is_empty() {
        return Err(ClientError::CaFile {
            path: path.to_owned(),
            message: "no certificate in it".to_owned(),
        });
    }
    Ok(roots)
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
