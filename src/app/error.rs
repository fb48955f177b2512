//! Errors that keep the program from starting.

use crate::listen::BindError;
use crate::proxy::policy::plan::PlanError;
use crate::x509::TlsSetupError;

/// The program cannot start, or a reload is refused.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// An address cannot be bound.
    #[error("{0}")]
    Bind(BindError),
    /// The certificate of a listener cannot be used.
    #[error("the certificate of a listener: {0}")]
    Tls(TlsSetupError),
    /// Two parts register a metric of the same name: a defect of this program.
    #[error("metrics cannot be registered: {0}")]
    Metrics(#[from] prometheus::Error),
    /// No plan can be built from a valid configuration: a defect of this program.
    #[error("{0}")]
    Plan(PlanError),
}

impl StartError {
    /// True if an address cannot be bound, which has an exit code of its own.
    pub fn is_address(&self) -> bool {
        matches!(self, Self::Bind(_))
    }
}
