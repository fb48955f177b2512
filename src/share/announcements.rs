//! `Announcements`: passes what a store announces on to those who follow a token.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::broadcast;

use super::names::TokenName;
use super::store::Announcement;

/// Announcements of one token that a receiver may be behind by; then it asks the store.
const CAPACITY: usize = 16;

/// The receivers of announcements, by the name of their token. Clones share them.
#[derive(Debug, Clone, Default)]
pub(super) struct Announcements(Arc<Mutex<HashMap<String, broadcast::Sender<Announcement>>>>);

impl Announcements {
    /// The announcements of a token from now on.
    pub(super) fn subscribe(&self, name: &TokenName) -> broadcast::Receiver<Announcement> {
        let mut tokens = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // Tokens that nothing follows any more go first, so that reloads leave nothing behind.
        tokens.retain(|_, sender| sender.receiver_count() > 0);
        let sender =
            tokens.entry(name.to_string()).or_insert_with(|| broadcast::channel(CAPACITY).0);
        sender.subscribe()
    }

    /// Tells whether there is a receiver for a token.
    #[cfg(feature = "kubernetes")]
    pub(super) fn is_followed(&self, name: &str) -> bool {
        let tokens = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        tokens.get(name).is_some_and(|sender| sender.receiver_count() > 0)
    }

    /// Passes an announcement on to the receivers of a token, if there are any.
    pub(super) fn send(&self, name: &str, announcement: Announcement) {
        let tokens = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(sender) = tokens.get(name) {
            // Without a receiver there is none to tell.
            let _ = sender.send(announcement);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_without_receivers_is_dropped() {
        let (announcements, one) = (Announcements::default(), TokenName::random());
        let mut receiver = announcements.subscribe(&one);
        announcements.send(&one.to_string(), Announcement::Published(7));
        announcements.send("another", Announcement::Published(8));
        assert_eq!(receiver.try_recv(), Ok(Announcement::Published(7)));
        assert!(receiver.try_recv().is_err());
        drop(receiver);
        let _other = announcements.subscribe(&TokenName::random());
        assert_eq!(announcements.0.lock().unwrap().len(), 1);
    }
}
