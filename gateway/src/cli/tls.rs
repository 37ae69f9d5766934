//! How commands speak TLS with a node: whom they believe, and what they show. Owns the flags.

use std::path::{Path, PathBuf};

use clap::Args;
use tokio_rustls::rustls::ClientConfig;

use crate::config::ListenerTls;
use crate::outbound::{self, ClientError, Trust};

/// Certificates for https://.
#[derive(Debug, Clone, Default, PartialEq, Eq, Args)]
pub struct TlsFlags {
    /// Authorities to trust, in PEM [default: the certificate of the configuration, or those of the system for a URL]
    #[arg(long, value_name = "FILE", env = "ROOMCAST_CA_FILE")]
    ca_file: Option<PathBuf>,
    /// A certificate to show, in PEM
    #[arg(long, value_name = "FILE", env = "ROOMCAST_CERT_FILE", requires = "key_file")]
    cert_file: Option<PathBuf>,
    /// The key of the certificate
    #[arg(long, value_name = "FILE", env = "ROOMCAST_KEY_FILE", requires = "cert_file")]
    key_file: Option<PathBuf>,
}

impl TlsFlags {
    /// The TLS of a client that goes by `default` where no authorities are named.
    pub(super) fn client(&self, default: Trust) -> Result<ClientConfig, ClientError> {
        let trust = self.ca_file.clone().map_or(default, Trust::Authorities);
        outbound::tls(&trust, self.cert_file.as_deref().zip(self.key_file.as_deref()))
    }
}

/// Whom to believe at a listener of this machine's configuration: its certificate has a name for clients, and hardly one
/// for the address by which it is reached from here.
pub(super) fn trust_of(listener: &ListenerTls) -> Trust {
    listener.cert_file.as_deref().map(Path::to_owned).map_or(Trust::System, Trust::Exactly)
}
