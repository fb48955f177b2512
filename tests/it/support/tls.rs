//! TLS for stories: a certificate authority made for one story, and a server that speaks TLS in front
//! of a fake that does not.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;

/// A certificate authority, and the files that others trust it by.
pub struct Authority {
    files: tempfile::TempDir,
    issuer: Issuer<'static, KeyPair>,
    der: CertificateDer<'static>,
}

/// A certificate and its key.
pub struct Identity {
    /// The certificate, PEM.
    pub pem: String,
    /// The key, PKCS#8 PEM.
    pub key: String,
    chain: Vec<CertificateDer<'static>>,
    key_der: Vec<u8>,
}

impl Authority {
    /// A new one of this name; its certificate is `file("ca.pem")`.
    pub fn new(name: &str) -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let root = params.self_signed(&key).unwrap();
        let files = tempfile::tempdir().unwrap();
        std::fs::write(files.path().join("ca.pem"), root.pem()).unwrap();
        Self { files, issuer: Issuer::new(params, key), der: root.der().clone() }
    }

    /// A file of its folder.
    pub fn file(&self, name: &str) -> PathBuf {
        self.files.path().join(name)
    }

    /// Issues a certificate for these names; `change` makes it special.
    pub fn issue(&self, names: &[&str], change: impl FnOnce(&mut CertificateParams)) -> Identity {
        let key = KeyPair::generate().unwrap();
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let mut params = CertificateParams::new(names).unwrap();
        change(&mut params);
        let leaf = params.signed_by(&key, &self.issuer).unwrap();
        Identity {
            pem: leaf.pem(),
            key: key.serialize_pem(),
            chain: vec![leaf.der().clone()],
            key_der: key.serialize_der(),
        }
    }

    /// An authority that this one vouches for, and the certificate that says so.
    pub fn intermediate(&self, name: &str) -> (Self, Identity) {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let own = params.signed_by(&key, &self.issuer).unwrap();
        let identity = Identity {
            pem: own.pem(),
            key: key.serialize_pem(),
            chain: vec![own.der().clone()],
            key_der: key.serialize_der(),
        };
        let files = tempfile::tempdir().unwrap();
        std::fs::write(files.path().join("ca.pem"), own.pem()).unwrap();
        (Self { files, issuer: Issuer::new(params, key), der: own.der().clone() }, identity)
    }

    /// Writes an identity to `NAME.pem` and `NAME.key`.
    pub fn write(&self, name: &str, identity: &Identity) {
        std::fs::write(self.file(&format!("{name}.pem")), &identity.pem).unwrap();
        std::fs::write(self.file(&format!("{name}.key")), &identity.key).unwrap();
    }

    /// What trusts clients of this authority.
    pub fn roots(&self) -> RootCertStore {
        let mut roots = RootCertStore::empty();
        roots.add(self.der.clone()).unwrap();
        roots
    }
}

impl Identity {
    /// The same, shown with further certificates.
    pub fn with_chain(mut self, others: &[&Identity]) -> Self {
        self.chain.extend(others.iter().flat_map(|other| other.chain.iter().cloned()));
        self
    }

    /// Its own certificate, DER.
    pub fn der(&self) -> Vec<u8> {
        self.chain[0].to_vec()
    }

    /// TLS of a server that shows it, and with `clients` demands certificates of theirs.
    pub fn acceptor(&self, clients: Option<RootCertStore>, alpn: &[&str]) -> TlsAcceptor {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(rustls::ALL_VERSIONS)
            .unwrap();
        let builder = match clients {
            None => builder.with_no_client_auth(),
            Some(roots) => {
                let roots = Arc::new(roots);
                let verifier = WebPkiClientVerifier::builder_with_provider(roots, provider);
                builder.with_client_cert_verifier(verifier.build().unwrap())
            }
        };
        let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(self.key_der.clone()));
        let mut config = builder.with_single_cert(self.chain.clone(), key).unwrap();
        config.alpn_protocols = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
        TlsAcceptor::from(Arc::new(config))
    }
}

/// Speaks TLS, and hands what it decrypts to a server that speaks none. Ended when dropped.
pub struct Front {
    /// Where it listens.
    pub addr: SocketAddr,
    clients: Arc<Mutex<Vec<Option<Vec<u8>>>>>,
    task: JoinHandle<()>,
}

impl Front {
    /// Starts before `backend`; with `clients` it demands certificates of theirs.
    pub async fn start(
        identity: &Identity,
        clients: Option<RootCertStore>,
        backend: SocketAddr,
    ) -> Self {
        let acceptor = identity.acceptor(clients, &[]);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let clients = Arc::new(Mutex::new(Vec::new()));
        let task = tokio::spawn(serve(listener, acceptor, backend, Arc::clone(&clients)));
        Self { addr, clients, task }
    }

    /// The certificate of each client so far, in the order of their handshakes.
    pub fn clients(&self) -> Vec<Option<Vec<u8>>> {
        self.clients.lock().unwrap().clone()
    }
}

impl Drop for Front {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn serve(
    listener: TcpListener,
    acceptor: TlsAcceptor,
    backend: SocketAddr,
    clients: Arc<Mutex<Vec<Option<Vec<u8>>>>>,
) {
    while let Ok((stream, _)) = listener.accept().await {
        let (acceptor, clients) = (acceptor.clone(), Arc::clone(&clients));
        tokio::spawn(async move {
            let Ok(mut stream) = acceptor.accept(stream).await else { return };
            let chain = stream.get_ref().1.peer_certificates();
            let leaf = chain.and_then(|chain| chain.first()).map(|leaf| leaf.to_vec());
            clients.lock().unwrap().push(leaf);
            let Ok(mut plain) = TcpStream::connect(backend).await else { return };
            // Either side may hang up first; both are about to be dropped.
            let _ended = tokio::io::copy_bidirectional(&mut stream, &mut plain).await;
        });
    }
}
