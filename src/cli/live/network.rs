//! The result of connecting, phase by phase.

use std::time::SystemTime;

use super::result::CheckResult;
use crate::net::Origin;
use crate::net::connect::{ConnectError, ConnectPhase, ConnectReport, Connector, TlsReport};
use crate::net::examine::{Examination, examine};
use crate::x509::certificate::{Certificate, short};

/// Days before the end of a server's certificate at which people begin to renew it.
pub(super) const DAYS_TO_RENEW: u64 = 14;

/// Connects and tells each phase apart.
pub(super) async fn connect<E: std::error::Error>(
    steps: &mut Vec<CheckResult>,
    made: Result<Connector, E>,
) {
    let connector = match made {
        Ok(connector) => connector,
        Err(error) => return steps.push(CheckResult::from_error("tls files", &error)),
    };
    let Examination { report, failed } = examine(&connector).await;
    steps.extend(phases(&report, connector.origin()));
    match failed {
        Some(error) => steps.push(failure(&error)),
        None => {
            steps.push(CheckResult::ok("reached", format!("in {} ms", report.elapsed.as_millis())))
        }
    }
}

/// The phases that came to an end.
fn phases(report: &ConnectReport, origin: &Origin) -> Vec<CheckResult> {
    let mut steps = Vec::new();
    if !report.addresses.is_empty() {
        let addresses: Vec<_> = report.addresses.iter().map(ToString::to_string).collect();
        steps.push(CheckResult::ok("dns", addresses.join(", ")));
    }
    if let Some(peer) = report.peer {
        steps.push(CheckResult::ok("tcp", format!("{peer} in {} ms", report.tcp.as_millis())));
    }
    if let Some(tunnel) = &report.tunnel {
        let (proxy, status) = (&tunnel.proxy, &tunnel.status);
        let found = format!("{proxy} answered {status} in {} ms", tunnel.elapsed.as_millis());
        steps.push(CheckResult::ok("egress proxy", found));
    }
    match &report.tls {
        Some(tls) => steps.push(handshake(tls)),
        None if !origin.is_https() => {
            steps.push(CheckResult::ok("tls", "none: this stays on the machine"))
        }
        None => {}
    }
    steps
}

fn handshake(tls: &TlsReport) -> CheckResult {
    let mut found = tls.version.to_owned();
    if let Some(group) = &tls.group {
        found += &format!(", {group}");
    }
    found += if tls.http2 { ", HTTP/2" } else { ", HTTP/1.1" };
    let Some(leaf) = tls.chain.first() else { return CheckResult::ok("tls", found) };
    found += &format!("; {}, issued by {}", short(&leaf.subject), leaf.issuer);
    // The chain expires when its first certificate does.
    let first = tls.chain.iter().min_by_key(|link| link.valid_until).unwrap_or(leaf);
    validity("tls", found, first, DAYS_TO_RENEW).unwrap_or_else(|step| {
        step.warning().hint("a certificate of the chain has ended; the API's owner must renew it")
    })
}

/// The result for a certificate: days left, with a warning below `renew`, or as the error that it is not
/// valid now.
pub(super) fn validity(
    name: &str,
    found: String,
    certificate: &Certificate,
    renew: u64,
) -> Result<CheckResult, CheckResult> {
    let now = SystemTime::now();
    if certificate.valid_from > now {
        return Err(CheckResult::failed(name, format!("{found}, not valid yet")));
    }
    let Some(days) = certificate.days_left(now) else {
        return Err(CheckResult::failed(name, format!("{found}, has expired")));
    };
    let step = CheckResult::ok(name, format!("{found}, {days} days left"));
    Ok(match days < renew {
        true => step.warning().hint("it ends soon: is a new one under way?"),
        false => step,
    })
}

fn failure(error: &ConnectError) -> CheckResult {
    let name = match error.phase {
        ConnectPhase::Dns => "dns",
        ConnectPhase::Tcp => "tcp",
        ConnectPhase::Tunnel => "egress proxy",
        ConnectPhase::Tls => "tls",
    };
    let step = CheckResult::failed(name, error.to_string());
    match (error.hint(), error.phase) {
        (Some(hint), _) => step.hint(hint),
        (None, ConnectPhase::Tcp) => step.hint("is a firewall in between? see [egress]"),
        (None, _) => step.hint("try it by hand: openssl s_client -connect HOST:PORT -showcerts"),
    }
}
