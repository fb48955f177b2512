//! Settings of the admin listeners.

use crate::listen::settings::Listen;

/// The admin listeners: one for probes and metrics, and an optional second one for control pages.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AdminSettings {
    /// Addresses of the main listener; empty for `admin.listen = "off"`.
    pub listen: Vec<Listen>,
    /// Addresses of the control listener, on this machine only. If there are none, the main listener serves
    /// the control pages too.
    pub control: Vec<Listen>,
    /// Allows an address beyond loopback, which then serves only probes and `/metrics`.
    pub allow_remote: bool,
    /// The condition under which `/readyz` answers 200.
    pub ready: ReadinessRule,
}

/// The condition under which a started program that is not draining is ready. Lazy credentials do not
/// count, since they hold no token before their first use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ReadinessRule {
    /// Every credential has all its tokens: any route can be used.
    #[default]
    All,
    /// At least one credential has all its tokens, or there is none.
    Any,
    /// No further condition.
    Started,
}

impl Default for AdminSettings {
    fn default() -> Self {
        Self {
            listen: vec![Listen::Localhost(6751)],
            control: Vec::new(),
            allow_remote: false,
            ready: ReadinessRule::default(),
        }
    }
}

impl AdminSettings {
    /// All addresses; the flag is true for those that serve control pages.
    pub fn listeners(&self) -> impl Iterator<Item = (&Listen, bool)> {
        let listen = self.listen.iter().map(|listen| (listen, self.control.is_empty()));
        listen.chain(self.control.iter().map(|control| (control, true)))
    }
}
