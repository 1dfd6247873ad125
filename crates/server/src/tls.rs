//! TLS: one certificate for every port, taken over anew when its files change; and the other side of it, for commands
//! that ask a server.
//!
//! Clients choose between HTTP/2 and HTTP/1.1 by ALPN; those that do not are told apart by their first bytes, as without TLS.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::RwLock;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use tokio::sync::watch;
use tokio_rustls::{TlsAcceptor, TlsConnector};

use crate::config::Config;

/// How often the files are looked at. Whoever renews certificates does so days before the old ones end.
const LOOK_INTERVAL: Duration = Duration::from_secs(60);

/// The certificate that ports show, and whom they let in.
pub(crate) struct Tls {
    files: Files,
    current: RwLock<Current>,
}

struct Current {
    contents: Contents,
    acceptor: TlsAcceptor,
}

#[derive(Debug, Clone)]
struct Files {
    cert: PathBuf,
    key: PathBuf,
    client_ca: Option<PathBuf>,
}

/// What the files hold.
#[derive(PartialEq, Eq)]
struct Contents {
    cert: Vec<u8>,
    key: Vec<u8>,
    client_ca: Option<Vec<u8>>,
}

impl Tls {
    /// Reads what `tls_cert_file` and the keys beside it name; `None` when TLS is off. The error is one line that
    /// names the key.
    pub(crate) fn open(config: &Config) -> Result<Option<Arc<Self>>, String> {
        let (Some(cert), Some(key)) = (config.tls_cert_file.0.clone(), config.tls_key_file.0.clone()) else {
            return Ok(None);
        };
        let files = Files { cert, key, client_ca: config.tls_client_ca_file.0.clone() };
        let contents = files.read()?;
        let acceptor = contents.acceptor(&files)?;
        Ok(Some(Arc::new(Self { files, current: RwLock::new(Current { contents, acceptor }) })))
    }

    /// Greets the next connection with what the files held when they were last looked at.
    pub(crate) fn acceptor(&self) -> TlsAcceptor {
        self.current.read().acceptor.clone()
    }

    /// Looks at the files now and then, until `stop` turns true. What cannot be used is said, and the old certificate
    /// is shown on.
    pub(crate) async fn follow(self: Arc<Self>, mut stop: watch::Receiver<bool>) {
        loop {
            tokio::select! {
                () = tokio::time::sleep(LOOK_INTERVAL) => {}
                _ = stop.wait_for(|stop| *stop) => return,
            }
            // Three small files, once a minute: not worth another thread.
            match self.look() {
                Ok(true) => tracing::info!(file = %self.files.cert.display(), "a new TLS certificate is in use"),
                Ok(false) => {}
                Err(err) => {
                    tracing::warn!(error = %err, "the changed TLS files cannot be used; the old certificate stays")
                }
            }
        }
    }

    /// Takes over what the files hold; whether that is new.
    fn look(&self) -> Result<bool, String> {
        let contents = self.files.read()?;
        if contents == self.current.read().contents {
            return Ok(false);
        }
        let acceptor = contents.acceptor(&self.files)?;
        *self.current.write() = Current { contents, acceptor };
        Ok(true)
    }
}

impl Files {
    fn read(&self) -> Result<Contents, String> {
        let read = |key: &str, path: &Path| {
            std::fs::read(path).map_err(|err| format!("{key}: cannot read {}: {err}", path.display()))
        };
        Ok(Contents {
            cert: read("tls_cert_file", &self.cert)?,
            key: read("tls_key_file", &self.key)?,
            client_ca: self.client_ca.as_ref().map(|path| read("tls_client_ca_file", path)).transpose()?,
        })
    }
}

impl Contents {
    fn acceptor(&self, files: &Files) -> Result<TlsAcceptor, String> {
        let cert_chain = certificates("tls_cert_file", &files.cert, &self.cert)?;
        let key = PrivateKeyDer::from_pem_slice(&self.key)
            .map_err(|err| format!("tls_key_file: {} holds no private key in PEM: {err}", files.key.display()))?;
        let versions = ServerConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .map_err(|err| format!("TLS: {err}"))?;
        let clients = match (&self.client_ca, &files.client_ca) {
            (Some(pem), Some(path)) => {
                let key = "tls_client_ca_file";
                let failed = |err: &dyn std::fmt::Display| format!("{key}: {}: {err}", path.display());
                let mut roots = RootCertStore::empty();
                for root in certificates(key, path, pem)? {
                    roots.add(root).map_err(|err| failed(&err))?;
                }
                let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider()).build();
                versions.with_client_cert_verifier(verifier.map_err(|err| failed(&err))?)
            }
            _ => versions.with_no_client_auth(),
        };
        let mut config = clients
            .with_single_cert(cert_chain, key)
            .map_err(|err| format!("tls_cert_file, tls_key_file: {} and its key: {err}", files.cert.display()))?;
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(TlsAcceptor::from(Arc::new(config)))
    }
}

fn certificates(key: &str, path: &Path, pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, String> {
    let all: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    match all {
        Ok(all) if !all.is_empty() => Ok(all),
        Ok(_) => Err(format!("{key}: {} holds no certificate in PEM", path.display())),
        Err(err) => Err(format!("{key}: {}: {err}", path.display())),
    }
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

/// For commands that ask an `https://` server: trusts what the system trusts, or the file that `SSL_CERT_FILE` names.
pub(crate) fn connector() -> Result<TlsConnector, String> {
    let mut roots = RootCertStore::empty();
    let (count, _) = roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if count == 0 {
        return Err("no certificates to trust: install ca-certificates, or name a file in SSL_CERT_FILE".to_owned());
    }
    let config = ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .map_err(|err| format!("TLS: {err}"))?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(TlsConnector::from(Arc::new(config)))
}

#[cfg(test)]
mod tests;
