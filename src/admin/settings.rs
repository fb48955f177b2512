//! Where operators look in.

use crate::listen::settings::Listen;

/// The admin listener: probes and metrics, and where `control` names no other, what operators need.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AdminSettings {
    /// Its addresses; none where `admin.listen = "off"`.
    pub listen: Vec<Listen>,
    /// The addresses, on this machine only, of all that is more than probes and metrics; none where
    /// that is on [`listen`](Self::listen) too.
    pub control: Vec<Listen>,
    /// Whether an address beyond loopback is wanted; it then serves probes and `/metrics` only.
    pub allow_remote: bool,
}

impl Default for AdminSettings {
    fn default() -> Self {
        Self { listen: vec![Listen::Localhost(6751)], control: Vec::new(), allow_remote: false }
    }
}

impl AdminSettings {
    /// Its listeners, and whether each shows more than probes and metrics.
    pub fn wanted(&self) -> impl Iterator<Item = (&Listen, bool)> {
        let listen = self.listen.iter().map(|listen| (listen, self.control.is_empty()));
        listen.chain(self.control.iter().map(|control| (control, true)))
    }
}
