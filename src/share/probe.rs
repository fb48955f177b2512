//! The steps of `check --live` for a store, as all stores have them.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::time::timeout;

use super::names::TokenName;
use super::protocol::AcquireReply;
use super::store::{Acquire, Announcement, StoreError, TokenStore};
use crate::net::connect::{ConnectPhase, ConnectReport, Connection, Connector};

/// A step, and what it found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProbeStep {
    /// Such as `dns`, `login` or `round trip`.
    pub name: &'static str,
    /// The verdict.
    pub verdict: ProbeVerdict,
    /// What was found, in words.
    pub found: String,
}

/// The verdict of a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProbeVerdict {
    /// All is well.
    Ok,
    /// Tokens can be shared, but not as well as they should.
    Warning,
    /// Tokens cannot be shared.
    Failed,
}

/// The steps so far.
#[derive(Default)]
pub(super) struct Steps(pub(super) Vec<ProbeStep>);

/// The reason why no further step makes sense has been noted as a step.
pub(super) struct Ended;

impl Steps {
    pub(super) fn note(
        &mut self,
        name: &'static str,
        verdict: ProbeVerdict,
        found: impl Into<String>,
    ) {
        self.0.push(ProbeStep { name, verdict, found: found.into() });
    }

    pub(super) fn ok(&mut self, name: &'static str, found: impl Into<String>) {
        self.note(name, ProbeVerdict::Ok, found);
    }

    /// The value, or the end of the steps.
    pub(super) fn need<T>(
        &mut self,
        name: &'static str,
        result: Result<T, StoreError>,
    ) -> Result<T, Ended> {
        result.map_err(|error| {
            self.note(name, ProbeVerdict::Failed, error.to_string());
            Ended
        })
    }

    /// Opens a connection, and notes its phases.
    pub(super) async fn connect(&mut self, connector: Connector) -> Result<Connection, Ended> {
        match connector.with_diagnostics().connect().await {
            Ok(connection) => {
                self.reached(&connection.report);
                Ok(connection)
            }
            Err(error) => {
                if let Some(report) = error.reached() {
                    self.reached(report);
                }
                let name = match error.phase {
                    ConnectPhase::Dns => "dns",
                    ConnectPhase::Tcp | ConnectPhase::Tunnel => "tcp",
                    ConnectPhase::Tls => "tls",
                };
                let hint = error.hint().map(|hint| format!("; {hint}")).unwrap_or_default();
                self.note(name, ProbeVerdict::Failed, format!("{error}{hint}"));
                Err(Ended)
            }
        }
    }

    /// Notes the phases of a connection that were completed.
    fn reached(&mut self, report: &ConnectReport) {
        if !report.addresses.is_empty() {
            let addresses: Vec<String> = report.addresses.iter().map(ToString::to_string).collect();
            self.ok("dns", addresses.join(", "));
        }
        if let Some(peer) = report.peer {
            self.ok("tcp", format!("{peer} in {:.1?}", report.tcp));
        }
        if let Some(tls) = &report.tls {
            self.ok("tls", tls.version);
        }
    }

    /// Notes the time of the store's clock since 1970.
    pub(super) fn clock(&mut self, theirs: Duration) {
        let ours = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let (apart, side) = match theirs.checked_sub(ours) {
            Some(ahead) => (ahead, "ahead of"),
            None => (ours.saturating_sub(theirs), "behind"),
        };
        let found =
            format!("{:.1} s {side} this machine; replicas go by the store's", apart.as_secs_f64());
        self.ok("clock", found);
    }
}

/// Takes and gives back the lead, then publishes a value, and reads it. `no_announcement` asks for the likely
/// reason if that is not announced.
pub(super) async fn run_all(
    store: &dyn TokenStore,
    name: &TokenName,
    no_announcement: &str,
) -> Result<(), StoreError> {
    let lease = Duration::from_secs(1);
    let mut announced = store.announcements(name);
    let mut ask = Acquire {
        owner: "check",
        generation: 0,
        token_owner: "",
        lead: Some(lease),
        secret: "first",
        budget: 0,
    };
    store.acquire(name, ask).await?;
    // Another secret may lead at once.
    store.fail(name, ask.owner, lease, Some(ask.secret)).await?;
    ask.secret = "second";
    let AcquireReply::Lead(epoch) = store.acquire(name, ask).await? else {
        return Err(StoreError::Malformed);
    };
    store.renew(name, ask.owner, epoch, lease).await?;
    store.publish(name, ask.owner, epoch, b"check", lease).await?;
    store.acquire(name, Acquire { lead: None, ..ask }).await?;
    match timeout(lease, announced.recv()).await {
        Ok(Ok(Announcement::Published(found))) if found == epoch => Ok(()),
        _ => Err(StoreError::Unreachable(format!("no announcement arrived: {no_announcement}"))),
    }
}
