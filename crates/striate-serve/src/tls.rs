//! HTTPS.
use crate::ServeError;
use std::fmt::{Debug, Formatter};
use std::path::Path;
use std::sync::Arc;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};

/// A certificate and its key.
#[derive(Clone)]
pub struct Tls(Arc<ServerConfig>);

impl Debug for Tls {
    fn fmt(&self, f: &mut Formatter<'_>) -> std::fmt::Result {
        f.write_str("Tls(..)")
    }
}

impl Tls {
    /// A certificate with the chain that signed it, and its key, both in PEM.
    ///
    /// # Errors
    ///
    /// A file that can't be read or has something else in it, and a key that is not the certificate's.
    pub fn read(certificate: &Path, key: &Path) -> Result<Self, ServeError> {
        let refused = |path: &Path, what: &str, error: String| ServeError::File {
            path: path.into(),
            reason: format!("can't be used as {what} ({error}): give a PEM file"),
        };
        let wrong_chain = |error: String| refused(certificate, "a certificate", error);
        let chain = CertificateDer::pem_file_iter(certificate).and_then(Iterator::collect::<Result<Vec<_>, _>>);
        let chain = chain.map_err(|error| wrong_chain(error.to_string()))?;
        if chain.is_empty() {
            return Err(wrong_chain("it has none".to_owned()));
        }
        let secret = PrivateKeyDer::from_pem_file(key).map_err(|error| refused(key, "a private key", error.to_string()))?;
        let misfit = |error: tokio_rustls::rustls::Error| ServeError::File {
            path: certificate.into(),
            reason: format!("can't be used with the key {}: {error}", striate_torch::Shown(key.display())),
        };
        let builder = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()));
        let builder = builder.with_safe_default_protocol_versions().map_err(misfit)?;
        let mut config = builder.with_no_client_auth().with_single_cert(chain, secret).map_err(misfit)?;
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Self(Arc::new(config)))
    }

    pub(crate) fn acceptor(&self) -> TlsAcceptor {
        TlsAcceptor::from(Arc::clone(&self.0))
    }
}
