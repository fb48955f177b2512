//! Servers on loopback for the tests of `net` and `upstream`: one of scripted bytes, with or
//! without TLS, and the certificates for it.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use tempfile::TempDir;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio_rustls::TlsAcceptor;

use super::Origin;
use super::failure::ConnectError;
use super::tls::{ClientCertificate, Roots, TlsSettings};

/// The error of a port on which nothing listens.
pub(crate) fn connect_error() -> ConnectError {
    let refused = std::io::Error::from(std::io::ErrorKind::ConnectionRefused);
    ConnectError::tcp("localhost", "localhost:1", &refused)
}

pub(crate) fn origin(uri: &str) -> Origin {
    Origin::of(&uri.parse().unwrap()).unwrap()
}

/// A certificate authority made for one test.
pub(crate) struct Authority {
    files: TempDir,
    issuer: Issuer<'static, KeyPair>,
    der: rustls::pki_types::CertificateDer<'static>,
}

impl Authority {
    pub(crate) fn new() -> Self {
        Self::named("authority of a test")
    }

    pub(crate) fn named(name: &str) -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let root = params.self_signed(&key).unwrap();
        let files = tempfile::tempdir().unwrap();
        std::fs::write(files.path().join("ca.pem"), root.pem()).unwrap();
        Self { files, issuer: Issuer::new(params, key), der: root.der().clone() }
    }

    /// Settings that trust this authority and nobody else.
    pub(crate) fn trusted(&self) -> TlsSettings {
        let extra_ca_files = vec![self.file("ca.pem")];
        TlsSettings { roots: Roots::OnlyExtra, extra_ca_files, ..TlsSettings::default() }
    }

    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.files.path().join(name)
    }

    /// Files of a client certificate of this authority.
    pub(crate) fn client_certificate(&self) -> ClientCertificate {
        let [certificate_file, key_file] = self.certificate_files("client", "client");
        ClientCertificate::Pem { certificate_file, key_file }
    }

    /// Files `FILE.pem` and `FILE.key` of a certificate of this authority for this name.
    pub(crate) fn certificate_files(&self, file: &str, name: &str) -> [PathBuf; 2] {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        let leaf = params.signed_by(&key, &self.issuer).unwrap();
        let files = ["pem", "key"].map(|end| self.file(&format!("{file}.{end}")));
        std::fs::write(&files[0], leaf.pem()).unwrap();
        std::fs::write(&files[1], key.serialize_pem()).unwrap();
        files
    }

    /// TLS of a server with a certificate of this authority.
    pub(crate) fn server(&self, setup: ServerSetup<'_>) -> TlsAcceptor {
        let key = KeyPair::generate().unwrap();
        let names: Vec<String> = setup.names.iter().map(|name| (*name).to_owned()).collect();
        let mut params = CertificateParams::new(names).unwrap();
        if setup.expired {
            params.not_before = rcgen::date_time_ymd(2020, 1, 1);
            params.not_after = rcgen::date_time_ymd(2020, 2, 1);
        }
        let leaf = params.signed_by(&key, &self.issuer).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(setup.versions)
            .unwrap();
        let builder = if setup.asks_for_client {
            let mut roots = RootCertStore::empty();
            roots.add(self.der.clone()).unwrap();
            let verifier =
                WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build();
            builder.with_client_cert_verifier(verifier.unwrap())
        } else {
            builder.with_no_client_auth()
        };
        let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der()));
        let mut config = builder.with_single_cert(vec![leaf.der().clone()], key).unwrap();
        config.alpn_protocols = setup.alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
        TlsAcceptor::from(Arc::new(config))
    }
}

/// What is special about a server's TLS.
pub(crate) struct ServerSetup<'a> {
    pub(crate) names: &'a [&'a str],
    pub(crate) alpn: &'a [&'a str],
    pub(crate) versions: &'a [&'static rustls::SupportedProtocolVersion],
    pub(crate) expired: bool,
    pub(crate) asks_for_client: bool,
}

impl Default for ServerSetup<'_> {
    fn default() -> Self {
        Self {
            names: &["localhost", "127.0.0.1"],
            alpn: &[],
            versions: rustls::ALL_VERSIONS,
            expired: false,
            asks_for_client: false,
        }
    }
}

/// What a scripted server does about a request.
pub(crate) enum Reply {
    /// These bytes.
    Answer(&'static str),
    /// These bytes, and then the end of the connection.
    Last(&'static str),
    /// Nothing, for as long as the client waits.
    Silence,
}

/// What happened at a scripted server; connections and requests count from 1.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Event {
    Request { connection: usize, head: String },
    Closed { connection: usize },
}

/// A server that answers with bytes from a script, and tells what it saw.
pub(crate) struct Scripted {
    pub(crate) address: SocketAddr,
    events: mpsc::UnboundedReceiver<Event>,
}

/// Given the number of the connection and that of the request on it.
pub(crate) type Script = fn(connection: usize, request: usize) -> Reply;

impl Scripted {
    pub(crate) async fn start(script: Script) -> Self {
        Self::listen(script, None).await
    }

    pub(crate) async fn with_tls(script: Script, tls: TlsAcceptor) -> Self {
        Self::listen(script, Some(tls)).await
    }

    async fn listen(script: Script, tls: Option<TlsAcceptor>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (tell, events) = mpsc::unbounded_channel();
        tokio::spawn(async move {
            let mut connection = 0;
            while let Ok((stream, _)) = listener.accept().await {
                connection += 1;
                let (tell, tls) = (tell.clone(), tls.clone());
                tokio::spawn(async move {
                    match tls {
                        None => serve(stream, connection, script, &tell).await,
                        Some(tls) => {
                            if let Ok(stream) = tls.accept(stream).await {
                                serve(stream, connection, script, &tell).await;
                            }
                        }
                    }
                    let _ = tell.send(Event::Closed { connection });
                });
            }
        });
        Self { address, events }
    }

    pub(crate) fn http(&self) -> String {
        format!("http://{}", self.address)
    }

    pub(crate) async fn event(&mut self) -> Event {
        let next = tokio::time::timeout(std::time::Duration::from_secs(10), self.events.recv());
        next.await.expect("something should have happened").unwrap()
    }

    /// The next request: its connection and its head.
    pub(crate) async fn request(&mut self) -> (usize, String) {
        loop {
            if let Event::Request { connection, head } = self.event().await {
                return (connection, head);
            }
        }
    }

    /// Waits until a connection has ended.
    pub(crate) async fn closed(&mut self, which: usize) {
        while self.event().await != (Event::Closed { connection: which }) {}
    }
}

async fn serve<S: AsyncRead + AsyncWrite + Unpin>(
    mut stream: S,
    connection: usize,
    script: Script,
    tell: &mpsc::UnboundedSender<Event>,
) {
    let mut request = 0;
    while let Some(head) = read_request(&mut stream).await {
        request += 1;
        let _ = tell.send(Event::Request { connection, head });
        let (bytes, last) = match script(connection, request) {
            Reply::Answer(bytes) => (bytes, false),
            Reply::Last(bytes) => (bytes, true),
            Reply::Silence => ("", false),
        };
        if stream.write_all(bytes.as_bytes()).await.is_err() || stream.flush().await.is_err() {
            return;
        }
        if last {
            let _ = stream.shutdown().await;
            return;
        }
    }
}

/// Reads a head, and a body of stated length behind it; `None` at the end.
async fn read_request<S: AsyncRead + Unpin>(stream: &mut S) -> Option<String> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.ok()?);
    }
    let head = String::from_utf8(head).unwrap().to_ascii_lowercase();
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
    let mut body = vec![0; length.map_or(0, |length| length.parse().unwrap())];
    stream.read_exact(&mut body).await.ok()?;
    Some(head)
}
