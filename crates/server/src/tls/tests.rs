use std::net::SocketAddr;

use axum::Router;
use axum::routing::get;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, ExtendedKeyUsagePurpose, IsCa, KeyPair};
use rustls::pki_types::ServerName;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use super::*;
use crate::config::{RawConfig, Setting};
use crate::listener::{ConnectionLimits, Port};

/// A root that signs certificates for `localhost` and for clients.
struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    /// Certificate and key.
    fn issue(&self, usage: ExtendedKeyUsagePurpose) -> (String, String) {
        let mut params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
        params.extended_key_usages.push(usage);
        let key = KeyPair::generate().unwrap();
        (params.signed_by(&key, &self.0).unwrap().pem(), key.serialize_pem())
    }

    /// Writes a new certificate for the server, and the root.
    fn write(&self, directory: &Path) {
        let (cert, key) = self.issue(ExtendedKeyUsagePurpose::ServerAuth);
        std::fs::write(directory.join("cert.pem"), cert).unwrap();
        std::fs::write(directory.join("key.pem"), key).unwrap();
        std::fs::write(directory.join("root.pem"), self.0.pem()).unwrap();
    }

    /// A client that trusts this root, and has a certificate of its own or not.
    fn client(&self, has_certificate: bool) -> TlsConnector {
        let mut roots = RootCertStore::empty();
        roots.add(self.0.der().clone()).unwrap();
        let versions = ClientConfig::builder_with_provider(provider()).with_safe_default_protocol_versions().unwrap();
        let trusting = versions.with_root_certificates(roots);
        let mut config = match has_certificate {
            true => {
                let (cert, key) = self.issue(ExtendedKeyUsagePurpose::ClientAuth);
                let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap();
                trusting.with_client_auth_cert(certificates("", Path::new(""), cert.as_bytes()).unwrap(), key).unwrap()
            }
            false => trusting.with_no_client_auth(),
        };
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        TlsConnector::from(Arc::new(config))
    }
}

fn opened(directory: &Path, keys: &[(&str, &str)]) -> Result<Arc<Tls>, String> {
    let mut raw = RawConfig::default();
    for (key, file) in keys {
        let path = directory.join(file).display().to_string();
        raw.set(Setting::find(key).unwrap(), path, String::new());
    }
    Tls::open(&Config::new(&raw).map_err(|err| err.to_string())?).map(|tls| tls.expect("it is on"))
}

const CERT_AND_KEY: [(&str, &str); 2] = [("tls_cert_file", "cert.pem"), ("tls_key_file", "key.pem")];

/// A port that says hello, until the sender is dropped.
async fn started(tls: &Arc<Tls>) -> (SocketAddr, watch::Sender<bool>) {
    let patience = Duration::from_secs(30);
    let limits = ConnectionLimits {
        connections_max: 8,
        receive_timeout: patience,
        shutdown_timeout: patience,
        window_bytes: 1 << 20,
    };
    let port = Port::bind("tempo_port", "127.0.0.1", 0).await.unwrap();
    let address = port.address();
    let (stop, stopped) = watch::channel(false);
    let router = Router::new().route("/", get(async || "hello"));
    let mut serving = JoinSet::new();
    serving.spawn(port.serve(router, Some(Arc::clone(tls)), limits, stopped));
    serving.detach_all();
    (address, stop)
}

/// What was agreed on, or that nothing was.
async fn agreed(address: SocketAddr, client: &TlsConnector) -> Option<Vec<u8>> {
    let stream = TcpStream::connect(address).await.unwrap();
    let mut stream = client.connect(ServerName::try_from("localhost").unwrap(), stream).await.ok()?;
    let protocol = stream.get_ref().1.alpn_protocol().map(<[u8]>::to_vec);
    // A server that wants a certificate says so after the client's handshake is done.
    stream.write_all(b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").await.ok()?;
    stream.read_u8().await.ok()?;
    protocol
}

#[tokio::test]
async fn clients_get_http_2_by_alpn_and_others_http_1() {
    let (directory, authority) = (TempDir::new().unwrap(), Authority::new());
    authority.write(directory.path());
    let tls = opened(directory.path(), &CERT_AND_KEY).unwrap();
    let (address, _stop) = started(&tls).await;
    assert_eq!(agreed(address, &authority.client(false)).await.as_deref(), Some(&b"h2"[..]));
    assert_eq!(agreed(address, &Authority::new().client(false)).await, None, "of another root");
}

#[tokio::test]
async fn a_renewed_certificate_is_taken_over_and_a_broken_one_is_not() {
    let (directory, old, new) = (TempDir::new().unwrap(), Authority::new(), Authority::new());
    old.write(directory.path());
    let tls = opened(directory.path(), &CERT_AND_KEY).unwrap();
    let (address, _stop) = started(&tls).await;
    assert_eq!(tls.look(), Ok(false));
    new.write(directory.path());
    assert!(agreed(address, &old.client(false)).await.is_some(), "until it is looked at");
    assert_eq!(tls.look(), Ok(true));
    assert!(agreed(address, &old.client(false)).await.is_none());
    assert!(agreed(address, &new.client(false)).await.is_some());
    std::fs::write(directory.path().join("cert.pem"), "half a file").unwrap();
    let err = tls.look().unwrap_err();
    assert!(err.starts_with("tls_cert_file: ") && err.ends_with("holds no certificate in PEM"), "{err}");
    assert!(agreed(address, &new.client(false)).await.is_some());
}

#[tokio::test]
async fn only_clients_with_a_certificate_are_let_in_where_they_need_one() {
    let (directory, authority) = (TempDir::new().unwrap(), Authority::new());
    authority.write(directory.path());
    let [cert, key] = CERT_AND_KEY;
    let tls = opened(directory.path(), &[cert, key, ("tls_client_ca_file", "root.pem")]).unwrap();
    let (address, _stop) = started(&tls).await;
    assert!(agreed(address, &authority.client(false)).await.is_none());
    assert!(agreed(address, &authority.client(true)).await.is_some());
}

#[test]
fn what_is_wrong_is_said_with_its_key() {
    let (directory, authority) = (TempDir::new().unwrap(), Authority::new());
    authority.write(directory.path());
    let refused = |keys: &[(&str, &str)]| opened(directory.path(), keys).map(|_| ()).unwrap_err();
    let [cert, key] = CERT_AND_KEY;
    assert_eq!(refused(&[cert]), "tls_cert_file needs tls_key_file, its private key");
    assert_eq!(refused(&[key]), "tls_key_file needs tls_cert_file, its certificate");
    assert_eq!(refused(&[("tls_client_ca_file", "root.pem")]), "tls_client_ca_file needs tls_cert_file");
    assert!(refused(&[("tls_cert_file", "none.pem"), key]).starts_with("tls_cert_file: cannot read "));
    assert!(refused(&[("tls_cert_file", "key.pem"), key]).contains("holds no certificate in PEM"));
    assert!(refused(&[cert, ("tls_key_file", "cert.pem")]).contains("holds no private key in PEM"));
    std::fs::write(directory.path().join("other.pem"), authority.issue(ExtendedKeyUsagePurpose::ServerAuth).1).unwrap();
    assert!(refused(&[cert, ("tls_key_file", "other.pem")]).starts_with("tls_cert_file, tls_key_file: "));
}
