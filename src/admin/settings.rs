//! Where operators look in.

use crate::server::settings::Listen;

/// The admin listener: probes and metrics.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AdminSettings {
    /// Its address; `None` where `admin.listen = "off"`.
    pub listen: Option<Listen>,
    /// Whether an address beyond loopback is wanted; it then serves probes and `/metrics` only.
    pub allow_remote: bool,
}

impl Default for AdminSettings {
    fn default() -> Self {
        Self { listen: Some(Listen::Localhost(6751)), allow_remote: false }
    }
}
