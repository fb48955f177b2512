//! Listeners with TLS: both protocols, renewed certificates, clients that prove who they are.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bearer_proxy::sandbox::{Persona, Sandbox, ScriptedResponse};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tempfile::TempDir;
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::support::{Client, Proxy, client, config, secret_file, soon};

const BALANCE: &str = "/qbank/v1/balances/42";

/// An authority and the certificates that it issues.
pub struct Authority(pub CertifiedIssuer<'static, KeyPair>);

pub struct Leaf {
    pem: String,
    der: CertificateDer<'static>,
    key: KeyPair,
}

impl Authority {
    pub fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    pub fn issue(&self, name: &str, year: i32) -> Leaf {
        let mut params = CertificateParams::new([name.to_owned()]).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        params.not_after = rcgen::date_time_ymd(year, 2, 3);
        let key = KeyPair::generate().unwrap();
        let issued = params.signed_by(&key, &self.0).unwrap();
        Leaf { pem: issued.pem(), der: issued.der().clone(), key }
    }

    /// A client that trusts this authority and shows this certificate.
    pub fn client(&self, protocol: &str, own: Option<&Leaf>) -> TlsConnector {
        let mut roots = RootCertStore::empty();
        roots.add(self.0.der().clone()).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots);
        let mut config = match own {
            None => builder.with_no_client_auth(),
            Some(leaf) => {
                let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(leaf.key.serialize_der()));
                builder.with_client_auth_cert(vec![leaf.der.clone()], key).unwrap()
            }
        };
        config.alpn_protocols = vec![protocol.as_bytes().to_vec()];
        TlsConnector::from(Arc::new(config))
    }
}

impl Leaf {
    pub fn write(&self, folder: &Path) {
        secret_file(folder, "proxy.crt", &self.pem);
        secret_file(folder, "proxy.key", &self.key.serialize_pem());
    }
}

pub async fn connect(
    connector: &TlsConnector,
    addr: SocketAddr,
) -> std::io::Result<TlsStream<TcpStream>> {
    let stream = soon(TcpStream::connect(addr)).await.unwrap();
    soon(connector.connect(ServerName::try_from("localhost").unwrap(), stream)).await
}

/// The sandbox behind a listener with TLS; `more` are further keys of its table, `edit` may change
/// the rest.
pub async fn with_tls(
    sandbox: &Sandbox,
    folder: &TempDir,
    more: &str,
    edit: impl FnOnce(String) -> String,
) -> Proxy {
    let file = |name: &str| folder.path().join(name).display().to_string();
    let (certificate, key) = (file("proxy.crt"), file("proxy.key"));
    let table = format!("certificate_file = {certificate:?}, key_file = {key:?}{more}");
    let listen = format!("listen = {{ address = \"127.0.0.1:0\", tls = {{ {table} }} }}");
    let text = config(sandbox, folder).replacen("listen = \"127.0.0.1:0\"", &listen, 1);
    let text = text.replace("[server]\n", "[server]\ntimeouts = { head = \"1s\" }\n");
    let proxy = Proxy::start(&edit(text + "\n[reload]\nwatch = \"1s\"\n")).await;
    proxy.wait_ready().await;
    proxy
}

/// The certificate that the listener showed.
fn shown(stream: &TlsStream<TcpStream>) -> CertificateDer<'static> {
    stream.get_ref().1.peer_certificates().unwrap()[0].clone().into_owned()
}

#[tokio::test]
async fn a_listener_speaks_both_protocols_and_shows_a_renewed_certificate() {
    let sandbox = Sandbox::start(Duration::from_secs(60)).await.unwrap();
    let (authority, folder) = (Authority::new(), TempDir::new().unwrap());
    let first = authority.issue("localhost", 2040);
    first.write(folder.path());
    let proxy = with_tls(&sandbox, &folder, "", |text| text).await;
    let expiry = async |seconds: &str| {
        let metrics = client(proxy.admin_addr).await.get("/metrics").await.text();
        let name = "bearer_proxy_tls_listener_certificate_expiry_timestamp_seconds";
        let line = format!("{name}{{listener=\"127.0.0.1:0\"}} {seconds}");
        assert!(metrics.contains(&line), "{metrics}");
    };
    expiry("2211840000").await;

    let stream = connect(&authority.client("http/1.1", None), proxy.addr).await.unwrap();
    assert_eq!(shown(&stream), first.der);
    let mut open = Client::over(stream, proxy.addr);
    assert_eq!(open.get(BALANCE).await.status, 200);
    let stream = connect(&authority.client("h2", None), proxy.addr).await.unwrap();
    assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
    let (mut sender, driver) = hyper::client::conn::http2::handshake(
        hyper_util::rt::TokioExecutor::new(),
        hyper_util::rt::TokioIo::new(stream),
    )
    .await
    .unwrap();
    tokio::spawn(driver);
    let request = http::Request::get(format!("https://localhost{BALANCE}"))
        .body(http_body_util::Empty::<bytes::Bytes>::new());
    assert_eq!(soon(sender.send_request(request.unwrap())).await.unwrap().status(), 200);

    // Half a renewal: the new certificate with the old key. The old pair stays.
    let second = authority.issue("localhost", 2041);
    secret_file(folder.path(), "proxy.crt", &second.pem);
    soon(proxy.wait_log(|line| line.contains("cannot be read again").then_some(()))).await;
    let stream = connect(&authority.client("http/1.1", None), proxy.addr).await.unwrap();
    assert_eq!(shown(&stream), first.der);
    second.write(folder.path());
    soon(proxy.wait_log(|line| line.contains("new certificate").then_some(()))).await;
    let stream = connect(&authority.client("http/1.1", None), proxy.addr).await.unwrap();
    assert_eq!(shown(&stream), second.der);
    expiry("2243462400").await;
    assert_eq!(open.get(BALANCE).await.status, 200, "open connections go on");
}

#[tokio::test]
async fn clients_without_a_certificate_of_the_authority_are_not_served() {
    let sandbox = Sandbox::start(Duration::from_secs(60)).await.unwrap();
    let (authority, folder) = (Authority::new(), TempDir::new().unwrap());
    authority.issue("localhost", 2040).write(folder.path());
    let apps = Authority::new();
    let ca = secret_file(folder.path(), "apps.crt", &apps.0.pem());
    let proxy =
        with_tls(&sandbox, &folder, &format!(", client_ca_file = {ca:?}"), |text| text).await;

    let (known, unknown) = (apps.issue("erp", 2040), authority.issue("erp", 2040));
    let connector = authority.client("http/1.1", Some(&known));
    let stream = connect(&connector, proxy.addr).await.unwrap();
    assert_eq!(Client::over(stream, proxy.addr).get(BALANCE).await.status, 200);
    for own in [None, Some(&unknown)] {
        // With TLS 1.3 the client learns of it only when it reads.
        let refused = async {
            let mut stream = connect(&authority.client("http/1.1", own), proxy.addr).await?;
            soon(stream.read(&mut [0; 1])).await
        };
        assert!(refused.await.is_err());
    }
}

#[tokio::test]
async fn a_client_that_never_shakes_hands_is_let_go() {
    let sandbox = Sandbox::start(Duration::from_secs(60)).await.unwrap();
    let (authority, folder) = (Authority::new(), TempDir::new().unwrap());
    authority.issue("localhost", 2040).write(folder.path());
    let proxy = with_tls(&sandbox, &folder, "", |text| text).await;
    assert_eq!(client(proxy.addr).await.read_to_close().await, b"");
    // Cleartext is answered by an alert, not by us.
    let mut plain = client(proxy.addr).await;
    plain.send("GET / HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
    assert!(!plain.read_to_close().await.starts_with(b"HTTP"));
}

#[tokio::test]
async fn the_work_for_a_client_that_says_goodbye_ends() {
    let sandbox = Sandbox::start(Duration::from_secs(60)).await.unwrap();
    let (authority, folder) = (Authority::new(), TempDir::new().unwrap());
    authority.issue("localhost", 2040).write(folder.path());
    let proxy = with_tls(&sandbox, &folder, "", |text| text + "[log]\naccess = \"all\"\n").await;
    let api = &sandbox.bank(Persona::QBank).api;
    api.set_responses([ScriptedResponse::Hold]);
    let stream = connect(&authority.client("http/1.1", None), proxy.addr).await.unwrap();
    let mut app = Client::over(stream, proxy.addr);
    app.send(format!("GET {BALANCE} HTTP/1.1\r\nHost: localhost\r\n\r\n")).await;
    soon(api.wait_requests(1)).await;
    app.finish().await; // the end of TLS, and a FIN
    soon(proxy.wait_log(|line| line.contains("client_left").then_some(()))).await;
}
