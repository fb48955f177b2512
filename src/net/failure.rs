//! Failed connections, with a phase, a message and a remedy.

use std::borrow::Cow;
use std::error::Error as StdError;
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use super::Origin;
use super::connect::ConnectReport;
use super::egress::{TunnelError, TunnelProxy};
use super::resolve::DnsError;
use crate::shortage::{OPEN_FILES_REMEDY, lacks_descriptor, lacks_resource};
use crate::x509::certificate::Certificate;
use crate::x509::diagnosis;

/// A phase of opening a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ConnectPhase {
    /// Name resolution, of the egress proxy if there is one.
    Dns,
    /// TCP, to the egress proxy if there is one.
    Tcp,
    /// The egress proxy's response to CONNECT.
    Tunnel,
    /// The TLS handshake.
    Tls,
}

/// The reason for a failed connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ConnectFailureReason {
    /// The name, the address or the way through the egress proxy led nowhere.
    Unreachable,
    /// Nothing listens at the address.
    Refused,
    /// TLS failed.
    Tls,
}

impl ConnectFailureReason {
    /// The value of a metric's label, and the word in `/status`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Unreachable => "unreachable",
            Self::Refused => "refused",
            Self::Tls => "tls",
        }
    }
}

/// No connection was opened, so nothing of a request has been sent.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{message}")]
pub struct ConnectError {
    /// The phase that failed.
    pub phase: ConnectPhase,
    /// True if the time limit ended it.
    pub timed_out: bool,
    message: String,
    hint: Option<Cow<'static, str>>,
    answer: Option<String>,
    /// True if the machine refused the connection: nothing listens there.
    refused: bool,
    /// True if this process or machine has no descriptor or memory left for a connection.
    local: bool,
    /// True if the server's certificate was rejected.
    certificate_rejected: bool,
    reached: Option<Box<ConnectReport>>,
}

impl ConnectError {
    fn new(
        phase: ConnectPhase,
        message: String,
        hint: Option<impl Into<Cow<'static, str>>>,
    ) -> Self {
        let hint = hint.map(Into::into);
        Self {
            phase,
            timed_out: false,
            message,
            hint,
            answer: None,
            refused: false,
            local: false,
            certificate_rejected: false,
            reached: None,
        }
    }

    pub(super) fn timed_out(
        phase: ConnectPhase,
        limit: Duration,
        egress: Option<&TunnelProxy>,
    ) -> Self {
        let between = "is a firewall in between, or does this network want an egress proxy? \
                       see [egress]";
        let (during, hint) = match phase {
            ConnectPhase::Dns => ("resolving the name", DNS_HINT),
            ConnectPhase::Tcp => ("connecting", between),
            ConnectPhase::Tunnel => {
                ("the egress proxy's answer", "is it an HTTP proxy? see egress.proxy")
            }
            ConnectPhase::Tls => {
                ("the TLS handshake", "is a firewall or an egress proxy in between?")
            }
        };
        let whose = match egress {
            Some(egress) if matches!(phase, ConnectPhase::Dns | ConnectPhase::Tcp) => {
                format!(" of the egress proxy {}", egress.proxy.authority())
            }
            _ => String::new(),
        };
        let message = format!("{during}{whose} did not finish within {limit:?}");
        Self { timed_out: true, ..Self::new(phase, message, Some(hint)) }
    }

    pub(super) fn dns(host: &str, error: &impl fmt::Display) -> Self {
        match has_file_descriptors() {
            true => {
                let message = format!("the name {host} cannot be resolved: {error}");
                Self::new(ConnectPhase::Dns, message, Some(DNS_HINT))
            }
            // The system's resolver says anything then, such as that a device is busy.
            false => {
                let message = format!("the name {host} cannot be resolved: too many open files");
                Self {
                    local: true,
                    ..Self::new(ConnectPhase::Dns, message, Some(OPEN_FILES_REMEDY))
                }
            }
        }
    }

    /// `host` and `authority` are the origin's, or those of its egress proxy.
    pub(super) fn tcp(host: &str, authority: &str, error: &(dyn StdError + 'static)) -> Self {
        let mut source = Some(error);
        let mut last = error.to_string();
        let (mut refused, mut local) = (false, None);
        while let Some(current) = source {
            if let Some(dns) = current.downcast_ref::<DnsError>() {
                return Self::dns(host, dns);
            }
            let io_error = current.downcast_ref::<io::Error>();
            refused |= io_error.is_some_and(is_refusal);
            local = local.or(io_error.filter(|error| lacks_resource(error)).map(local_hint));
            last = current.to_string();
            source = current.source();
        }
        let refusal = refused.then_some("nothing listens there: check host and port");
        let (hint, local) = (local.or(refusal), local.is_some());
        let message = format!("no connection to {authority}: {last}");
        Self { refused, local, ..Self::new(ConnectPhase::Tcp, message, hint) }
    }

    /// An origin in the clear leads to an address beyond the cluster.
    pub(super) fn not_private(origin: &Origin, peer: Option<SocketAddr>) -> Self {
        let address = peer.map_or_else(|| "an unknown address".to_owned(), |p| p.ip().to_string());
        let message = format!("{origin} leads to {address}, to which nothing is sent in the clear");
        let hint = "http:// is for loopback and private addresses; write https://";
        Self::new(ConnectPhase::Tcp, message, Some(hint))
    }

    pub(super) fn tunnel(egress: &TunnelProxy, target: &str, error: &TunnelError) -> Self {
        let proxy = egress.proxy.authority();
        let message = format!("the egress proxy {proxy} made no tunnel to {target}: {error}");
        let answer = error.response().map(|answer| answer.line.clone());
        Self { answer, ..Self::new(ConnectPhase::Tunnel, message, error.hint()) }
    }

    /// `chain` is the server's chain; empty without diagnostics.
    pub(super) fn tls(origin: &Origin, error: &io::Error, chain: &[Certificate]) -> Self {
        let cause = diagnosis::of_io(error);
        let hint = match cause {
            Some(cause) => diagnosis::of_tls(cause, origin.host(), chain),
            None => diagnosis::of_break(error),
        };
        let why = diagnosis::io_words(error);
        let message = format!("TLS with {} failed: {why}", origin.authority());
        let certificate_rejected = matches!(cause, Some(rustls::Error::InvalidCertificate(_)));
        Self { certificate_rejected, ..Self::new(ConnectPhase::Tls, message, hint) }
    }

    /// The same with a report on the phases before the failure.
    pub(super) fn after(mut self, reached: ConnectReport) -> Self {
        self.reached = Some(Box::new(reached));
        self
    }

    /// The reason as metrics and `/status` name it; the same for a phase that failed and one that took
    /// too long.
    pub fn reason(&self) -> ConnectFailureReason {
        match self.phase {
            ConnectPhase::Tls => ConnectFailureReason::Tls,
            _ if self.refused => ConnectFailureReason::Refused,
            ConnectPhase::Dns | ConnectPhase::Tcp | ConnectPhase::Tunnel => {
                ConnectFailureReason::Unreachable
            }
        }
    }

    /// True if this process or machine has no descriptor or memory left, which says nothing about the
    /// server.
    pub fn is_local(&self) -> bool {
        self.local
    }

    /// A remedy, if one is known.
    pub fn hint(&self) -> Option<&str> {
        self.hint.as_deref()
    }

    /// The proxy error type of RFC 9209 section 2.3.
    pub fn proxy_error(&self) -> &'static str {
        match (self.phase, self.timed_out) {
            _ if self.local => "proxy_internal_error",
            (ConnectPhase::Dns, true) => "dns_timeout",
            (ConnectPhase::Dns, false) => "dns_error",
            (_, true) => "connection_timeout",
            (ConnectPhase::Tls, false) if self.certificate_rejected => "tls_certificate_error",
            (ConnectPhase::Tls, false) => "tls_protocol_error",
            (ConnectPhase::Tcp | ConnectPhase::Tunnel, false) => "destination_unavailable",
        }
    }

    /// The status line of an egress proxy that refused the tunnel: printable ASCII without quotes.
    pub fn proxy_answer(&self) -> Option<&str> {
        self.answer.as_deref()
    }

    /// Report on the phases before the failure.
    pub fn reached(&self) -> Option<&ConnectReport> {
        self.reached.as_deref()
    }
}

const DNS_HINT: &str = "check the host name, and the DNS of this machine or pod";

/// The remedy for an error that `lacks_resource` accepts.
fn local_hint(error: &io::Error) -> &'static str {
    if lacks_descriptor(error) {
        OPEN_FILES_REMEDY
    } else {
        "this machine has no memory left for it"
    }
}

/// True if the process may open another file.
fn has_file_descriptors() -> bool {
    !std::fs::File::open("/dev/null").is_err_and(|error| lacks_descriptor(&error))
}

fn is_refusal(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::ConnectionRefused
}
