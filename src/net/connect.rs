//! DNS, TCP, an egress proxy's tunnel and TLS, under one deadline.
//!
//! hyper-util's connector does DNS, Happy Eyeballs and TCP. It asks the system's resolver, so the hosts
//! file and split DNS count.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, SystemTime};

use http::Uri;
use hyper_util::client::legacy::connect::HttpConnector;
use rustls::ProtocolVersion;
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio::time::Instant;
use tokio_rustls::TlsConnector;
use tokio_util::either::Either;
use tower::Service;

use super::Origin;
use super::egress::{self, TunnelProxy};
use super::origin::bracketed;
use super::resolve::Resolver;
use super::tls::{Alpn, ClientIdentity, ClientTls, TlsCache, TlsSettings};
use crate::x509::TlsSetupError;
use crate::x509::certificate::Certificate;
use crate::x509::verify::ChainRecorder;

pub use super::failure::{ConnectError, ConnectFailureReason, ConnectPhase};
pub use super::stream::MaybeTlsStream;

/// Makes connections to one origin.
#[derive(Clone)]
pub struct Connector {
    origin: Origin,
    /// The target of the TCP connection: the origin, or its egress proxy.
    uri: Uri,
    http: HttpConnector<Resolver>,
    lookups: Arc<AtomicUsize>,
    egress: Option<TunnelProxy>,
    tls: Option<(ClientTls, ServerName<'static>)>,
    timeout: Duration,
    /// True if reports include addresses and the server's chain.
    diagnostics: bool,
}

/// Time limits of a connection.
#[derive(Debug, Clone, Copy)]
pub struct ConnectSettings {
    /// Limit for DNS, TCP, the egress proxy and TLS together.
    pub timeout: Duration,
    /// Time without acknowledgement after which the kernel closes a connection (TCP_USER_TIMEOUT).
    pub tcp_user_timeout: Duration,
}

impl Connector {
    /// Prepares connections. Connectors with equal TLS settings share a configuration from `cache`.
    ///
    /// # Errors
    /// TLS settings that cannot be used.
    pub fn new(
        cache: &TlsCache,
        origin: Origin,
        tls: &TlsSettings,
        alpn: Alpn,
        settings: ConnectSettings,
    ) -> Result<Self, TlsSetupError> {
        let resolver = Resolver::new();
        let lookups = Arc::clone(&resolver.pending);
        let mut http = HttpConnector::new_with_resolver(resolver);
        http.enforce_http(false);
        http.set_nodelay(true);
        http.set_keepalive(Some(Duration::from_secs(60)));
        #[cfg(target_os = "linux")]
        http.set_tcp_user_timeout(Some(settings.tcp_user_timeout));
        let tls = match origin.is_https() {
            true => Some((cache.client_tls(tls, alpn)?, server_name(&origin)?)),
            false => None,
        };
        let uri = uri(&bracketed(origin.host(), origin.port()))?;
        let (egress, timeout, diagnostics) = (None, settings.timeout, false);
        Ok(Self { origin, uri, http, lookups, egress, tls, timeout, diagnostics })
    }

    /// The same through an egress proxy, if one is given. Plain `http` stays direct, because a proxy could
    /// read its requests.
    ///
    /// # Errors
    /// A proxy address that is not a valid authority.
    pub fn via_proxy(mut self, egress: Option<TunnelProxy>) -> Result<Self, TlsSetupError> {
        if let Some(egress) = egress.filter(|_| self.origin.is_https()) {
            self.uri = uri(&egress.proxy.authority())?;
            self.egress = Some(egress);
        }
        Ok(self)
    }

    /// The same with diagnostics: reports, and the hints of failures, include the resolved addresses and
    /// the server's certificate chain.
    #[must_use]
    pub fn with_diagnostics(self) -> Self {
        Self { diagnostics: true, ..self }
    }

    /// The same with this client certificate in place of that of its settings.
    #[must_use]
    pub fn with_identity(self, identity: &ClientIdentity) -> Self {
        let tls = self.tls.map(|(tls, name)| (tls.with_identity(identity), name));
        Self { tls, ..self }
    }

    /// The origin that it connects to.
    pub fn origin(&self) -> &Origin {
        &self.origin
    }

    /// Opens one connection.
    ///
    /// # Errors
    /// The phase that failed, and a report on the phases before it.
    pub async fn connect(&self) -> Result<Connection, ConnectError> {
        let mut progress =
            ConnectProgress { phase: ConnectPhase::Tcp, report: ConnectReport::default() };
        let started = Instant::now();
        let stages = self.stages(&mut progress, started);
        let ended = tokio::time::timeout(self.timeout, stages).await;
        let ConnectProgress { phase, mut report } = progress;
        report.elapsed = started.elapsed();
        match ended {
            Ok(Ok((stream, http2))) => Ok(Connection { stream, http2, report }),
            Ok(Err(error)) => Err(error.after(report)),
            Err(_) => {
                let phase = if phase == ConnectPhase::Tcp { self.tcp_or_dns() } else { phase };
                let error = ConnectError::timed_out(phase, self.timeout, self.egress.as_ref());
                Err(error.after(report))
            }
        }
    }

    async fn stages(
        &self,
        progress: &mut ConnectProgress,
        started: Instant,
    ) -> Result<(MaybeTlsStream, bool), ConnectError> {
        if self.diagnostics {
            progress.phase = ConnectPhase::Dns;
            progress.report.addresses = self.addresses().await?;
            progress.phase = ConnectPhase::Tcp;
        }
        let mut tcp = self.tcp().await?;
        progress.report.peer = tcp.peer_addr().ok();
        self.check_peer(progress.report.peer)?;
        progress.report.tcp = started.elapsed();
        if let Some(egress) = &self.egress {
            progress.phase = ConnectPhase::Tunnel;
            progress.report.tunnel = Some(self.tunnel(egress, &mut tcp).await?);
        }
        let Some((tls, name)) = &self.tls else { return Ok((Either::Left(tcp), false)) };
        progress.phase = ConnectPhase::Tls;
        let (config, recorder) = match self.diagnostics {
            true => tls.with_chain_recorder(),
            false => (Arc::clone(&tls.config), ChainRecorder::default()),
        };
        let handshake = TlsConnector::from(config).connect(name.clone(), tcp).await;
        let chain = recorder.chain();
        let stream = handshake.map_err(|error| ConnectError::tls(&self.origin, &error, &chain))?;
        let session = stream.get_ref().1;
        let http2 = session.alpn_protocol() == Some(b"h2");
        progress.report.tls = Some(TlsReport::of(session, chain));
        Ok((Either::Right(Box::new(stream)), http2))
    }

    /// Checks the address that a connection leads to, before anything is sent: the resolver may have
    /// answered with any.
    fn check_peer(&self, peer: Option<SocketAddr>) -> Result<(), ConnectError> {
        let permitted = |peer: SocketAddr| self.origin.permits_address(peer.ip());
        // Through an egress proxy there is TLS to the origin.
        match self.egress.is_some() || self.origin.is_https() || peer.is_some_and(permitted) {
            true => Ok(()),
            false => Err(ConnectError::not_private(&self.origin, peer)),
        }
    }

    /// The addresses that the name of the next hop resolves to.
    async fn addresses(&self) -> Result<Vec<IpAddr>, ConnectError> {
        let host = self.egress.as_ref().map_or(self.origin.host(), |egress| egress.proxy.host());
        let found = tokio::net::lookup_host((host, 0)).await;
        let mut addresses: Vec<IpAddr> = found
            .map_err(|error| ConnectError::dns(host, &error))?
            .map(|found| found.ip())
            .collect();
        addresses.dedup();
        Ok(addresses)
    }

    async fn tcp(&self) -> Result<TcpStream, ConnectError> {
        let connected = self.http.clone().call(self.uri.clone()).await;
        let connected = connected.map_err(|error| match &self.egress {
            Some(TunnelProxy { proxy, .. }) => {
                let authority = format!("the egress proxy {}", proxy.authority());
                ConnectError::tcp(proxy.host(), &authority, &error)
            }
            None => ConnectError::tcp(self.origin.host(), &self.origin.authority(), &error),
        })?;
        Ok(connected.into_inner())
    }

    async fn tunnel(
        &self,
        egress: &TunnelProxy,
        tcp: &mut TcpStream,
    ) -> Result<TunnelReport, ConnectError> {
        let started = Instant::now();
        let target = bracketed(self.origin.host(), self.origin.port());
        let status = egress::tunnel(tcp, egress, &target)
            .await
            .map_err(|error| ConnectError::tunnel(egress, &target, &error))?;
        let proxy = egress.proxy.authority();
        Ok(TunnelReport { proxy, status, elapsed: started.elapsed() })
    }

    /// The current phase of an attempt that has not connected. The connector hides whether it resolves or
    /// connects; a pending lookup of any attempt is for the same name, so it answers for this one.
    fn tcp_or_dns(&self) -> ConnectPhase {
        match self.lookups.load(Ordering::Relaxed) {
            0 => ConnectPhase::Tcp,
            _ => ConnectPhase::Dns,
        }
    }
}

/// The progress of an attempt, kept outside its future so that it survives the time-out.
struct ConnectProgress {
    phase: ConnectPhase,
    report: ConnectReport,
}

fn server_name(origin: &Origin) -> Result<ServerName<'static>, TlsSetupError> {
    ServerName::try_from(origin.host().to_owned())
        .map_err(|_| TlsSetupError::new(format!("{} is no host name for TLS", origin.host())))
}

fn uri(authority: &str) -> Result<Uri, TlsSetupError> {
    let built = Uri::builder().scheme("http").authority(authority).path_and_query("/").build();
    built.map_err(|error| TlsSetupError::new(error.to_string()))
}

/// An open connection.
pub struct Connection {
    /// The byte stream.
    pub stream: MaybeTlsStream,
    /// True if ALPN agreed on HTTP/2.
    pub http2: bool,
    /// Report on the phases.
    pub report: ConnectReport,
}

impl Connection {
    /// The expiry of the server's certificate; `None` without TLS.
    pub fn certificate_expires(&self) -> Option<SystemTime> {
        let Either::Right(tls) = &self.stream else { return None };
        let certificate = tls.get_ref().1.peer_certificates()?.first()?;
        Some(Certificate::read(certificate)?.valid_until)
    }
}

/// Report on the phases of a connection, for people.
#[derive(Debug, Clone, Default)]
pub struct ConnectReport {
    /// Addresses of the next hop's name; empty without diagnostics.
    pub addresses: Vec<IpAddr>,
    /// The connected address; the egress proxy's if there is one.
    pub peer: Option<SocketAddr>,
    /// Time for DNS and TCP.
    pub tcp: Duration,
    /// The tunnel through an egress proxy.
    pub tunnel: Option<TunnelReport>,
    /// The result of the TLS handshake.
    pub tls: Option<TlsReport>,
    /// Time for all phases.
    pub elapsed: Duration,
}

/// Report on a tunnel through an egress proxy.
#[derive(Debug, Clone)]
pub struct TunnelReport {
    /// Host and port of the proxy.
    pub proxy: String,
    /// Status code and reason of the proxy's response.
    pub status: String,
    /// Time until the response.
    pub elapsed: Duration,
}

/// Result of a TLS handshake.
#[derive(Debug, Clone)]
pub struct TlsReport {
    /// Protocol version.
    pub version: &'static str,
    /// Key exchange group.
    pub group: Option<String>,
    /// True if ALPN agreed on HTTP/2.
    pub http2: bool,
    /// The server's chain, its own certificate first; empty without diagnostics.
    pub chain: Vec<Certificate>,
}

impl TlsReport {
    fn of(session: &rustls::ClientConnection, chain: Vec<Certificate>) -> Self {
        let version = match session.protocol_version() {
            Some(ProtocolVersion::TLSv1_3) => "TLS 1.3",
            Some(ProtocolVersion::TLSv1_2) => "TLS 1.2",
            _ => "TLS",
        };
        let group = session.negotiated_key_exchange_group();
        let group = group.map(|group| format!("{:?}", group.name()));
        let http2 = session.alpn_protocol() == Some(b"h2");
        Self { version, group, http2, chain }
    }
}

impl fmt::Display for ConnectReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.tunnel, self.peer) {
            (Some(tunnel), _) => write!(f, "through {}", tunnel.proxy)?,
            (None, Some(peer)) => write!(f, "{peer}")?,
            (None, None) => f.write_str("reached")?,
        }
        write!(f, " in {} ms", self.elapsed.as_millis())?;
        if let Some(tls) = &self.tls {
            write!(f, ", {}", tls.version)?;
            if let Some(group) = &tls.group {
                write!(f, ", {group}")?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;
    use crate::cleartext::Cleartext;
    use crate::net::testing::{Authority, Reply, Scripted, ServerSetup, origin};

    const PATIENT: ConnectSettings = ConnectSettings {
        timeout: Duration::from_secs(10),
        tcp_user_timeout: Duration::from_secs(10),
    };

    async fn connect(uri: &str, tls: &TlsSettings, alpn: Alpn) -> Result<Connection, ConnectError> {
        let cache = TlsCache::default();
        Connector::new(&cache, origin(uri), tls, alpn, PATIENT).unwrap().connect().await
    }

    async fn server(ca: &Authority, setup: ServerSetup<'_>) -> u16 {
        let script = |_, _| Reply::Silence;
        Scripted::with_tls(script, ca.server(setup)).await.address.port()
    }

    fn failure(connected: Result<Connection, ConnectError>) -> (&'static str, String) {
        let error = connected.err().unwrap();
        (error.reason().as_str(), format!("{error}: {}", error.hint().unwrap_or_default()))
    }

    #[test]
    fn cleartext_leads_to_private_addresses_only() {
        let check = |uri: &str, peer: &str, permitted: bool| {
            let uri = uri.parse().unwrap();
            let origin = Origin::with_cleartext(&uri, Cleartext::InCluster).unwrap();
            let tls = TlsSettings::default();
            let connector = Connector::new(&TlsCache::default(), origin, &tls, Alpn::Both, PATIENT);
            let found = connector.unwrap().check_peer(Some(peer.parse().unwrap()));
            assert_eq!(found.is_ok(), permitted, "{uri} {peer}");
            if let Err(error) = found {
                assert!(error.to_string().contains("nothing is sent in the clear"), "{error}");
                assert_eq!((error.phase, error.hint().is_some()), (ConnectPhase::Tcp, true));
            }
        };
        check("http://auth.bank.svc", "10.0.0.7:80", true);
        check("http://auth.bank.svc", "[fd00::7]:80", true);
        check("http://auth.bank.svc", "127.0.0.1:80", true);
        check("http://auth.bank.svc", "[::ffff:10.0.0.7]:80", true);
        check("http://auth.bank.svc", "93.184.215.14:80", false);
        check("http://metadata.google.internal", "169.254.169.254:80", false);
        check("http://localhost", "10.0.0.7:80", false);
        check("https://bank.example", "93.184.215.14:443", true);
    }

    #[tokio::test]
    async fn a_handshake_agrees_on_version_and_protocol() {
        let ca = Authority::new();
        let check = async |alpn: &[&str], offered, http2, host: &str| {
            let port = server(&ca, ServerSetup { alpn, ..ServerSetup::default() }).await;
            let uri = format!("https://{host}:{port}");
            let connection = connect(&uri, &ca.trusted(), offered).await.unwrap();
            assert_eq!(connection.http2, http2, "{alpn:?} {offered:?}");
            assert_eq!(connection.report.peer.unwrap().port(), port);
            assert!(connection.report.to_string().contains("TLS 1.3"), "{}", connection.report);
        };
        check(&["h2", "http/1.1"], Alpn::Both, true, "localhost").await;
        check(&["h2", "http/1.1"], Alpn::Http1, false, "127.0.0.1").await;
        check(&["http/1.1"], Alpn::Both, false, "LOCALHOST").await;
        check(&[], Alpn::Both, false, "localhost").await;
        check(&["h2"], Alpn::Http2, true, "localhost").await;
    }

    #[tokio::test]
    async fn a_failed_handshake_says_what_may_help() {
        let (ca, other) = (Authority::new(), Authority::named("another"));
        let check = async |setup, trusted: TlsSettings, alpn, hint: &str| {
            let port = server(&ca, setup).await;
            let failed = connect(&format!("https://127.0.0.1:{port}"), &trusted, alpn).await;
            let (label, text) = failure(failed);
            assert!(label == "tls" && text.contains(hint), "{label}, {text}");
        };
        let usual = ServerSetup::default;
        check(usual(), other.trusted(), Alpn::Both, "set tls.extra_ca_file").await;
        check(usual(), Authority::new().trusted(), Alpn::Both, "made anew").await;
        let bundled = TlsSettings { roots: crate::net::tls::Roots::Bundled, ..other.trusted() };
        check(usual(), bundled, Alpn::Both, "your network may inspect TLS").await;
        let setup = ServerSetup { names: &["bank.example"], ..usual() };
        check(setup, ca.trusted(), Alpn::Both, "is the URL's host right?").await;
        let setup = ServerSetup { expired: true, ..usual() };
        check(setup, ca.trusted(), Alpn::Both, "has expired").await;
        let setup = ServerSetup { versions: &[&rustls::version::TLS12], ..usual() };
        let newer = TlsSettings { min_version: crate::net::tls::MinVersion::Tls13, ..ca.trusted() };
        check(setup, newer, Alpn::Both, "tls.min_version").await;
        let setup = ServerSetup { alpn: &["http/1.1"], ..usual() };
        check(setup, ca.trusted(), Alpn::Http2, "does not take the HTTP version").await;
        let setup =
            ServerSetup { asks_for_client: true, versions: &[&rustls::version::TLS12], ..usual() };
        check(setup, ca.trusted(), Alpn::Both, "another client certificate").await;
    }

    #[tokio::test]
    async fn a_client_certificate_is_shown_where_it_is_asked_for() {
        let ca = Authority::new();
        let versions: &[_] = &[&rustls::version::TLS12]; // its handshake ends with the server's consent
        let setup = ServerSetup { asks_for_client: true, versions, ..ServerSetup::default() };
        let port = server(&ca, setup).await;
        let client_certificate = Some(ca.client_certificate());
        let tls = TlsSettings { client_certificate, ..ca.trusted() };
        let uri = format!("https://localhost:{port}");
        let connection = connect(&uri, &tls, Alpn::Http1).await.unwrap();
        assert!(connection.report.to_string().contains("TLS 1.2"), "{}", connection.report);
    }

    #[tokio::test]
    async fn each_phase_fails_in_its_own_words() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        drop(listener);
        let plain = TlsSettings::default();
        let refused = connect(&format!("http://127.0.0.1:{port}"), &plain, Alpn::Http1).await;
        let (label, text) = failure(refused);
        assert!(label == "refused" && text.contains("nothing listens there"), "{label}, {text}");

        let ca = Authority::new();
        let unknown = connect("https://nowhere.invalid", &ca.trusted(), Alpn::Both).await;
        let (label, text) = failure(unknown);
        assert!(label == "unreachable" && text.contains("nowhere.invalid"), "{label}, {text}");
    }

    #[tokio::test]
    async fn what_does_not_speak_tls_is_recognised() {
        use tokio::io::AsyncWriteExt;
        let ca = Authority::new();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let serving = async {
            let (mut stream, _) = listener.accept().await.unwrap();
            stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await.unwrap();
            stream
        };
        let uri = format!("https://127.0.0.1:{port}");
        let trusted = ca.trusted();
        let (_stream, failed) = tokio::join!(serving, connect(&uri, &trusted, Alpn::Both));
        let (label, text) = failure(failed);
        assert!(label == "tls" && text.contains("does not speak TLS"), "{label}, {text}");
    }

    #[tokio::test]
    async fn one_deadline_ends_whichever_phase_is_under_way() {
        let ca = Authority::new();
        // The kernel completes TCP, and nobody ever speaks TLS.
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let uri = format!("https://{}", listener.local_addr().unwrap());
        let settings = ConnectSettings { timeout: Duration::from_millis(50), ..PATIENT };
        let (cache, tls) = (TlsCache::default(), ca.trusted());
        let connector = Connector::new(&cache, origin(&uri), &tls, Alpn::Both, settings).unwrap();
        let error = connector.connect().await.err().unwrap();
        assert_eq!(
            (error.phase, error.timed_out, error.reason()),
            (ConnectPhase::Tls, true, ConnectFailureReason::Tls)
        );
        assert!(error.to_string().contains("the TLS handshake did not finish within 50ms"));

        let lookup = crate::net::resolve::PendingLookup::new(&connector.lookups);
        assert_eq!(connector.tcp_or_dns(), ConnectPhase::Dns);
        drop(lookup);
        assert_eq!(connector.tcp_or_dns(), ConnectPhase::Tcp);
    }
}
