//! One test connection, for `check --live`: a report on each phase, and the failure if there was one.

use std::time::Duration;

use tokio::io::AsyncReadExt;

use super::connect::{ConnectError, ConnectReport, Connector};

/// Time for a server to reject a client certificate, which a TLS 1.3 server does only after the handshake
/// (RFC 8446 section 4.4.2.4). Silence until then counts as acceptance.
const REJECTION_WAIT: Duration = Duration::from_millis(300);

/// The result of a test connection.
pub struct Examination {
    /// Report on the completed phases.
    pub report: ConnectReport,
    /// The failure, if there was one.
    pub failed: Option<ConnectError>,
}

/// Opens one connection, sends nothing over it, and closes it.
pub async fn examine(connector: &Connector) -> Examination {
    let connector = connector.clone().with_diagnostics();
    match connector.connect().await {
        Ok(connection) => {
            let (mut stream, report) = (connection.stream, connection.report);
            let mut first = [0];
            let failed = match tokio::time::timeout(REJECTION_WAIT, stream.read(&mut first)).await {
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
