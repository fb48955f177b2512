//! TCP and TLS under one deadline.
//!
//! DNS, Happy Eyeballs and TCP are hyper-util's connector; the system's resolver is asked, so that
//! the hosts file and split DNS count.

use std::error::Error as StdError;
use std::fmt;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use http::Uri;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::client::legacy::connect::dns::{GaiResolver, Name};
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ProtocolVersion};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::Instant;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tower::Service;

use super::Origin;
use super::tls::{Alpn, TlsCache, TlsSettings, TlsSetupError};

/// Makes connections to one origin.
#[derive(Clone)]
pub struct Connector {
    origin: Origin,
    uri: Uri,
    http: HttpConnector<Resolver>,
    lookups: Arc<AtomicUsize>,
    tls: Option<(Arc<ClientConfig>, ServerName<'static>)>,
    timeout: Duration,
}

impl Connector {
    /// Prepares connections; `timeout` covers DNS, TCP and TLS together.
    ///
    /// # Errors
    /// TLS settings that cannot be used.
    pub fn new(
        origin: Origin,
        tls: &TlsSettings,
        alpn: Alpn,
        timeout: Duration,
        tcp_user_timeout: Duration,
    ) -> Result<Self, TlsSetupError> {
        Self::sharing(&TlsCache::default(), origin, tls, alpn, timeout, tcp_user_timeout)
    }

    /// Like [`new`](Self::new), with a TLS configuration that equal settings share.
    ///
    /// # Errors
    /// TLS settings that cannot be used.
    pub fn sharing(
        cache: &TlsCache,
        origin: Origin,
        tls: &TlsSettings,
        alpn: Alpn,
        timeout: Duration,
        tcp_user_timeout: Duration,
    ) -> Result<Self, TlsSetupError> {
        let resolver = Resolver::new();
        let lookups = Arc::clone(&resolver.under_way);
        let mut http = HttpConnector::new_with_resolver(resolver);
        http.enforce_http(false);
        http.set_nodelay(true);
        http.set_keepalive(Some(Duration::from_secs(60)));
        #[cfg(target_os = "linux")]
        http.set_tcp_user_timeout(Some(tcp_user_timeout));
        let tls = match origin.is_https() {
            true => Some((cache.client_config(tls, alpn)?, server_name(&origin)?)),
            false => None,
        };
        let uri = Uri::builder()
            .scheme("http")
            .authority(with_port(&origin))
            .path_and_query("/")
            .build()
            .map_err(|error| TlsSetupError::new(error.to_string()))?;
        Ok(Self { origin, uri, http, lookups, tls, timeout })
    }

    /// Where it connects to.
    pub fn origin(&self) -> &Origin {
        &self.origin
    }

    /// Makes one connection.
    ///
    /// # Errors
    /// Says in which phase it ended.
    pub async fn connect(&self) -> Result<Connection, ConnectError> {
        let started = Instant::now();
        let deadline = started + self.timeout;
        let late = |phase| ConnectError::late(phase, self.timeout);
        let mut connecting = pin!(self.http.clone().call(self.uri.clone()));
        let tcp = tokio::time::timeout_at(deadline, &mut connecting)
            .await
            .map_err(|_| late(self.tcp_or_dns()))?
            .map_err(|error| ConnectError::tcp(&self.origin, &error))?
            .into_inner();
        let peer = tcp.peer_addr().ok();
        let Some((config, name)) = &self.tls else {
            let report = ConnectReport { peer, elapsed: started.elapsed(), tls: None };
            return Ok(Connection { stream: Stream::Plain(tcp), http2: false, report });
        };
        let handshake = TlsConnector::from(Arc::clone(config)).connect(name.clone(), tcp);
        let stream = tokio::time::timeout_at(deadline, handshake)
            .await
            .map_err(|_| late(Phase::Tls))?
            .map_err(|error| ConnectError::tls(&self.origin, &error))?;
        let session = stream.get_ref().1;
        let http2 = session.alpn_protocol() == Some(b"h2");
        let tls = TlsReport {
            version: match session.protocol_version() {
                Some(ProtocolVersion::TLSv1_3) => "TLS 1.3",
                Some(ProtocolVersion::TLSv1_2) => "TLS 1.2",
                _ => "TLS",
            },
            group: session
                .negotiated_key_exchange_group()
                .map(|group| format!("{:?}", group.name())),
        };
        let report = ConnectReport { peer, elapsed: started.elapsed(), tls: Some(tls) };
        Ok(Connection { stream: Stream::Tls(Box::new(stream)), http2, report })
    }
}

impl Connector {
    /// The phase of an attempt that is not over yet: a name that is still being looked up is this
    /// origin's, whichever attempt asked.
    fn tcp_or_dns(&self) -> Phase {
        match self.lookups.load(Ordering::Relaxed) {
            0 => Phase::Tcp,
            _ => Phase::Dns,
        }
    }
}

fn server_name(origin: &Origin) -> Result<ServerName<'static>, TlsSetupError> {
    ServerName::try_from(origin.host().to_owned())
        .map_err(|_| TlsSetupError::new(format!("{} is no host name for TLS", origin.host())))
}

/// The connector wants a port in any case.
fn with_port(origin: &Origin) -> String {
    match origin.host().contains(':') {
        true => format!("[{}]:{}", origin.host(), origin.port()),
        false => format!("{}:{}", origin.host(), origin.port()),
    }
}

/// An open connection.
pub struct Connection {
    /// Its bytes.
    pub stream: Stream,
    /// Whether ALPN agreed on HTTP/2.
    pub http2: bool,
    /// How it was made.
    pub report: ConnectReport,
}

/// How a connection was made, for people.
#[derive(Debug, Clone)]
pub struct ConnectReport {
    /// The address that answered.
    pub peer: Option<SocketAddr>,
    /// Time for all phases.
    pub elapsed: Duration,
    /// The handshake's outcome.
    pub tls: Option<TlsReport>,
}

/// What a handshake agreed on.
#[derive(Debug, Clone)]
pub struct TlsReport {
    /// Protocol version.
    pub version: &'static str,
    /// Key exchange group.
    pub group: Option<String>,
}

impl fmt::Display for ConnectReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.peer {
            Some(peer) => write!(f, "{peer}")?,
            None => f.write_str("reached")?,
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

/// A connection's bytes, encrypted or not.
pub enum Stream {
    /// TCP.
    Plain(TcpStream),
    /// TLS over TCP.
    Tls(Box<TlsStream<TcpStream>>),
}

impl AsyncRead for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_read(cx, buf),
            Self::Tls(stream) => Pin::new(stream).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write(cx, buf),
            Self::Tls(stream) => Pin::new(stream).poll_write(cx, buf),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
            Self::Tls(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            Self::Plain(stream) => stream.is_write_vectored(),
            Self::Tls(stream) => stream.is_write_vectored(),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_flush(cx),
            Self::Tls(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}

/// The system's resolver; its failures are told apart from those of TCP.
#[derive(Clone)]
struct Resolver {
    system: GaiResolver,
    under_way: Arc<AtomicUsize>,
}

impl Resolver {
    fn new() -> Self {
        Self { system: GaiResolver::new(), under_way: Arc::default() }
    }
}

/// Counts a lookup for as long as somebody waits for it.
struct UnderWay(Arc<AtomicUsize>);

impl UnderWay {
    fn new(count: &Arc<AtomicUsize>) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(count))
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[derive(Debug)]
struct DnsError(io::Error);

impl fmt::Display for DnsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl StdError for DnsError {}

impl Service<Name> for Resolver {
    type Response = <GaiResolver as Service<Name>>::Response;
    type Error = DnsError;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, DnsError>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), DnsError>> {
        self.system.poll_ready(cx).map_err(DnsError)
    }

    fn call(&mut self, name: Name) -> Self::Future {
        let lookup = self.system.call(name);
        let under_way = UnderWay::new(&self.under_way);
        Box::pin(async move {
            let found = lookup.await.map_err(DnsError);
            drop(under_way);
            found
        })
    }
}

const DNS_HINT: &str = "check the host name, and the DNS of this machine or pod";

fn refused(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::ConnectionRefused
}

/// What a failed handshake most often means.
fn tls_hint(error: &rustls::Error) -> Option<&'static str> {
    use rustls::{AlertDescription as Alert, CertificateError as Bad, Error};
    match error {
        Error::InvalidCertificate(bad) => match bad {
            Bad::UnknownIssuer => Some(
                "its issuer is not trusted here: your network may inspect TLS, or the API has a \
                 private CA; set tls.extra_ca_file",
            ),
            Bad::BadSignature => Some(
                "an issuer of this name is trusted, but with another key: was the private CA made \
                 anew? then tls.extra_ca_file is old",
            ),
            Bad::Expired | Bad::ExpiredContext { .. } => {
                Some("the server's certificate has expired, or this machine's clock is wrong")
            }
            Bad::NotValidYet | Bad::NotValidYetContext { .. } => {
                Some("the server's certificate is not valid yet, or this machine's clock is wrong")
            }
            Bad::NotValidForName | Bad::NotValidForNameContext { .. } => {
                Some("the certificate is for another name; is the URL's host right?")
            }
            _ => None,
        },
        Error::InvalidMessage(_) => {
            Some("what answered does not speak TLS; is the port right, or is a proxy in between?")
        }
        Error::AlertReceived(Alert::ProtocolVersion) | Error::PeerIncompatible(_) => Some(
            "the server takes no TLS version or cipher that is accepted here; see tls.min_version",
        ),
        Error::AlertReceived(
            Alert::CertificateRequired | Alert::BadCertificate | Alert::UnknownCA,
        ) => Some("the server wants another client certificate; see tls.client_certificate"),
        Error::NoApplicationProtocol | Error::AlertReceived(Alert::NoApplicationProtocol) => {
            Some("the server does not take the HTTP version that is offered; see protocol")
        }
        _ => None,
    }
}

/// A phase of making a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// Name resolution.
    Dns,
    /// TCP.
    Tcp,
    /// The TLS handshake.
    Tls,
}

/// Why no connection was made; nothing of a request has been sent.
#[derive(Debug, Clone)]
pub struct ConnectError {
    /// The phase in which it ended.
    pub phase: Phase,
    /// Whether it ended for want of time.
    pub timed_out: bool,
    message: String,
    hint: Option<&'static str>,
}

impl ConnectError {
    fn late(phase: Phase, limit: Duration) -> Self {
        let (during, hint) = match phase {
            Phase::Dns => ("resolving the name", DNS_HINT),
            Phase::Tcp => ("connecting", "is a firewall or an egress proxy in between?"),
            Phase::Tls => ("the TLS handshake", "is a firewall or an egress proxy in between?"),
        };
        let message = format!("{during} did not finish within {limit:?}");
        Self { phase, timed_out: true, message, hint: Some(hint) }
    }

    fn tcp(origin: &Origin, error: &(dyn StdError + 'static)) -> Self {
        let mut source = Some(error);
        let mut last = error.to_string();
        let mut hint = None;
        while let Some(current) = source {
            if let Some(dns) = current.downcast_ref::<DnsError>() {
                let message = format!("the name {} cannot be resolved: {dns}", origin.host());
                return Self { phase: Phase::Dns, timed_out: false, message, hint: Some(DNS_HINT) };
            }
            if current.downcast_ref().is_some_and(refused) {
                hint = Some("nothing listens there: check host and port");
            }
            last = current.to_string();
            source = current.source();
        }
        let message = format!("no connection to {}: {last}", origin.authority());
        Self { phase: Phase::Tcp, timed_out: false, message, hint }
    }

    fn tls(origin: &Origin, error: &io::Error) -> Self {
        let cause = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
        let hint = cause.and_then(tls_hint);
        let message = match cause {
            Some(cause) => format!("TLS with {} failed: {cause}", origin.authority()),
            None => format!("TLS with {} failed: {error}", origin.authority()),
        };
        Self { phase: Phase::Tls, timed_out: false, message, hint }
    }

    /// A word for metrics.
    pub fn label(&self) -> &'static str {
        match (self.timed_out, self.phase) {
            (true, _) => "timeout",
            (false, Phase::Dns) => "dns",
            (false, Phase::Tcp) => "connect",
            (false, Phase::Tls) => "tls",
        }
    }

    /// What may help.
    pub fn hint(&self) -> Option<&'static str> {
        self.hint
    }
}

impl fmt::Display for ConnectError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl StdError for ConnectError {}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;
    use crate::net::testing::{Authority, Reply, Scripted, ServerSetup, origin};

    const PATIENT: Duration = Duration::from_secs(10);

    async fn connect(uri: &str, tls: &TlsSettings, alpn: Alpn) -> Result<Connection, ConnectError> {
        Connector::new(origin(uri), tls, alpn, PATIENT, PATIENT).unwrap().connect().await
    }

    async fn server(ca: &Authority, setup: ServerSetup<'_>) -> u16 {
        let script = |_, _| Reply::Silence;
        Scripted::with_tls(script, ca.server(setup)).await.address.port()
    }

    fn failure(connected: Result<Connection, ConnectError>) -> (&'static str, String) {
        let error = connected.err().unwrap();
        (error.label(), format!("{error}: {}", error.hint().unwrap_or_default()))
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
        assert!(label == "connect" && text.contains("nothing listens there"), "{label}, {text}");

        let ca = Authority::new();
        let unknown = connect("https://nowhere.invalid", &ca.trusted(), Alpn::Both).await;
        let (label, text) = failure(unknown);
        assert!(label == "dns" && text.contains("nowhere.invalid"), "{label}, {text}");
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
        let limit = Duration::from_millis(50);
        let connector =
            Connector::new(origin(&uri), &ca.trusted(), Alpn::Both, limit, limit).unwrap();
        let error = connector.connect().await.err().unwrap();
        assert_eq!((error.phase, error.timed_out, error.label()), (Phase::Tls, true, "timeout"));
        assert!(error.to_string().contains("the TLS handshake did not finish within 50ms"));

        let lookup = UnderWay::new(&connector.lookups);
        assert_eq!(connector.tcp_or_dns(), Phase::Dns);
        drop(lookup);
        assert_eq!(connector.tcp_or_dns(), Phase::Tcp);
    }
}
