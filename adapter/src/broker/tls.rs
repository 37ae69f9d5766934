//! The files of a TLS connection to a broker, and the client configuration that is made of them.
//!
//! Read for each link, so that certificates that were renewed are taken up by the next one.
#![cfg_attr(not(feature = "redis"), allow(dead_code, reason = "a driver may have a loader of its own"))]

use std::{
    fs,
    path::{Path, PathBuf},
    sync::Arc,
};

use tokio_rustls::rustls::{
    ClientConfig, RootCertStore, crypto,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
};

use crate::cluster::BusError;

/// Which certificates a TLS connection to a broker goes by. Paths of PEM files; they are read for each link.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct TlsFiles {
    /// Authorities to trust instead of the system's.
    pub ca_file: Option<PathBuf>,
    /// This node's certificate, for brokers that ask for one. Needs `key_file`.
    pub cert_file: Option<PathBuf>,
    /// The key of `cert_file`.
    pub key_file: Option<PathBuf>,
}

impl TlsFiles {
    /// Reads the files. Blocks on the file system.
    ///
    /// # Errors
    ///
    /// [`BusError::Configuration`], naming the file that is missing or not what it should be.
    pub(crate) fn client_config(&self) -> Result<ClientConfig, BusError> {
        let wrong = |error: &dyn std::fmt::Display| BusError::Configuration(format!("TLS: {error}"));
        let builder = ClientConfig::builder_with_provider(Arc::new(crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(|error| wrong(&error))?
            .with_root_certificates(self.roots()?);
        match (&self.cert_file, &self.key_file) {
            (None, None) => Ok(builder.with_no_client_auth()),
            (Some(cert_file), Some(key_file)) => {
                let key = PrivateKeyDer::from_pem_slice(&read(key_file)?)
                    .map_err(|error| in_file(key_file, &error))?;
                builder
                    .with_client_auth_cert(certificates(cert_file)?, key)
                    .map_err(|error| in_file(cert_file, &error))
            }
            _ => Err(wrong(&"a certificate and its key belong together: cert_file and key_file")),
        }
    }

    fn roots(&self) -> Result<RootCertStore, BusError> {
        let mut roots = RootCertStore::empty();
        if let Some(ca_file) = &self.ca_file {
            for certificate in certificates(ca_file)? {
                roots.add(certificate).map_err(|error| in_file(ca_file, &error))?;
            }
            return Ok(roots);
        }
        // Some of a system's files may be broken; what matters is whether any serve.
        let loaded = rustls_native_certs::load_native_certs();
        roots.add_parsable_certificates(loaded.certs);
        if roots.is_empty() {
            return Err(BusError::Configuration(
                "TLS: the system has no certificates to trust; name some by ca_file".into(),
            ));
        }
        Ok(roots)
    }
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, BusError> {
    let bytes = read(path)?;
    let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&bytes).collect();
    let certificates = certificates.map_err(|error| in_file(path, &error))?;
    if certificates.is_empty() {
        return Err(in_file(path, &"no certificate in it"));
    }
    Ok(certificates)
}

fn read(path: &Path) -> Result<Vec<u8>, BusError> {
    fs::read(path).map_err(|error| in_file(path, &error))
}

fn in_file(path: &Path, error: &dyn std::fmt::Display) -> BusError {
    BusError::Configuration(format!("TLS: {}: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_that_are_missing_or_garbage_are_named() {
        let garbage = std::env::temp_dir().join(format!("roomcast-tls-{}.pem", std::process::id()));
        fs::write(&garbage, "-----BEGIN CERTIFICATE-----\nnot base64!\n").expect("a temporary file");
        let missing = PathBuf::from("/nowhere/ca.pem");
        for path in [&garbage, &missing] {
            let (ca, pair) = (
                TlsFiles { ca_file: Some(path.clone()), ..TlsFiles::default() },
                TlsFiles {
                    cert_file: Some(path.clone()),
                    key_file: Some(path.clone()),
                    ..TlsFiles::default()
                },
            );
            for files in [ca, pair] {
                let error = files.client_config().expect_err("not a certificate");
                assert!(matches!(error, BusError::Configuration(_)), "{error}");
                // The system's may be missing too, where it has none.
                let told = error.to_string();
                assert!(told.contains(&*path.to_string_lossy()) || told.contains("the system has"), "{told}");
            }
        }
        fs::remove_file(garbage).expect("it is there");
    }

    #[test]
    fn a_certificate_needs_its_key() {
        let files = TlsFiles { cert_file: Some("cert.pem".into()), ..TlsFiles::default() };
        assert!(matches!(files.client_config(), Err(BusError::Configuration(_))));
    }
}
