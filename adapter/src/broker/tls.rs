//! The files of a TLS connection to a broker.

use std::path::PathBuf;

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
