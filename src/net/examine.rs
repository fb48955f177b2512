//! One connection made to look at: what each phase found, and where it ended.

use std::time::Duration;

use tokio::io::AsyncReadExt;

use super::connect::{ConnectError, ConnectReport, Connector};

/// How long a server may take to refuse a client's certificate, which in TLS 1.3 it does only after
/// the handshake (RFC 8446 section 4.4.2.4). Whoever says nothing until then has no objection.
const OBJECTION: Duration = Duration::from_millis(300);

/// What was found, as far as it got.
pub struct Examination {
    /// The phases that came to an end.
    pub report: ConnectReport,
    /// What ended it.
    pub failed: Option<ConnectError>,
}

/// Makes one connection, sends nothing over it, and lets it go.
pub async fn examine(connector: &Connector) -> Examination {
    let connector = connector.clone().with_diagnostics();
    match connector.connect().await {
        Ok(connection) => {
            let (mut stream, report) = (connection.stream, connection.report);
            let mut first = [0];
            let failed = match tokio::time::timeout(OBJECTION, stream.read(&mut first)).await {
                Ok(Err(error)) if report.tls.is_some() => {
                    Some(ConnectError::tls(connector.origin(), &error, &[]))
                }
                _ => None,
            };
            Examination { report, failed }
        }
        Err(error) => {
            let report = error.reached().cloned().unwrap_or_default();
            Examination { report, failed: Some(error) }
        }
    }
}
