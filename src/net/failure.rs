//! Why no connection was made, in words that help.

use std::borrow::Cow;
use std::error::Error as StdError;
use std::fmt;
use std::io;
use std::time::Duration;

use super::Origin;
use super::connect::ConnectReport;
use super::egress::{Egress, TunnelError};
use super::resolve::DnsError;

/// A phase of making a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// Name resolution; the egress proxy's name, where there is one.
    Dns,
    /// TCP; to the egress proxy, where there is one.
    Tcp,
    /// The egress proxy's answer to CONNECT.
    Tunnel,
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
    hint: Option<Cow<'static, str>>,
    answer: Option<String>,
    reached: Option<Box<ConnectReport>>,
}

impl ConnectError {
    fn new(phase: Phase, message: String, hint: Option<impl Into<Cow<'static, str>>>) -> Self {
        let hint = hint.map(Into::into);
        Self { phase, timed_out: false, message, hint, answer: None, reached: None }
    }

    pub(super) fn late(phase: Phase, limit: Duration, egress: Option<&Egress>) -> Self {
        let between = "is a firewall in between, or does this network want an egress proxy? \
                       see [egress]";
        let (during, hint) = match phase {
            Phase::Dns => ("resolving the name", DNS_HINT),
            Phase::Tcp => ("connecting", between),
            Phase::Tunnel => ("the egress proxy's answer", "is it an HTTP proxy? see egress.proxy"),
            Phase::Tls => ("the TLS handshake", "is a firewall or an egress proxy in between?"),
        };
        let whose = match egress {
            Some(egress) if matches!(phase, Phase::Dns | Phase::Tcp) => {
                format!(" of the egress proxy {}", egress.proxy.authority())
            }
            _ => String::new(),
        };
        let message = format!("{during}{whose} did not finish within {limit:?}");
        Self { timed_out: true, ..Self::new(phase, message, Some(hint)) }
    }

    /// `host` and `authority` are the origin's, or those of its egress proxy.
    pub(super) fn tcp(host: &str, authority: &str, error: &(dyn StdError + 'static)) -> Self {
        let mut source = Some(error);
        let mut last = error.to_string();
        let mut hint = None;
        while let Some(current) = source {
            if let Some(dns) = current.downcast_ref::<DnsError>() {
                let message = format!("the name {host} cannot be resolved: {dns}");
                return Self::new(Phase::Dns, message, Some(DNS_HINT));
            }
            if current.downcast_ref().is_some_and(refused) {
                hint = Some("nothing listens there: check host and port");
            }
            last = current.to_string();
            source = current.source();
        }
        Self::new(Phase::Tcp, format!("no connection to {authority}: {last}"), hint)
    }

    pub(super) fn tunnel(egress: &Egress, target: &str, error: &TunnelError) -> Self {
        let proxy = egress.proxy.authority();
        let message = format!("the egress proxy {proxy} made no tunnel to {target}: {error}");
        let answer = error.answer().map(|answer| answer.line.clone());
        Self { answer, ..Self::new(Phase::Tunnel, message, error.hint()) }
    }

    pub(super) fn tls(origin: &Origin, error: &io::Error) -> Self {
        let cause = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
        let hint = cause.and_then(tls_hint);
        let message = match cause {
            Some(cause) => format!("TLS with {} failed: {cause}", origin.authority()),
            None => format!("TLS with {} failed: {error}", origin.authority()),
        };
        Self::new(Phase::Tls, message, hint)
    }

    /// The same, with how far it got.
    pub(super) fn after(mut self, reached: ConnectReport) -> Self {
        self.reached = Some(Box::new(reached));
        self
    }

    /// A word for metrics.
    pub fn label(&self) -> &'static str {
        match (self.timed_out, self.phase) {
            (true, _) => "timeout",
            (false, Phase::Dns) => "dns",
            (false, Phase::Tcp) => "connect",
            (false, Phase::Tunnel) => "proxy",
            (false, Phase::Tls) => "tls",
        }
    }

    /// What may help.
    pub fn hint(&self) -> Option<&str> {
        self.hint.as_deref()
    }

    /// Proxy error type of RFC 9209 section 2.3.
    pub fn proxy_error(&self) -> &'static str {
        match (self.phase, self.timed_out) {
            (Phase::Dns, true) => "dns_timeout",
            (Phase::Dns, false) => "dns_error",
            (_, true) => "connection_timeout",
            (Phase::Tls, false) => "tls_protocol_error",
            (Phase::Tcp | Phase::Tunnel, false) => "destination_unavailable",
        }
    }

    /// The status line of an egress proxy that refused: printable ASCII without quotes.
    pub fn proxy_answer(&self) -> Option<&str> {
        self.answer.as_deref()
    }

    /// How far it got.
    pub fn reached(&self) -> Option<&ConnectReport> {
        self.reached.as_deref()
    }
}

impl fmt::Display for ConnectError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl StdError for ConnectError {}

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
