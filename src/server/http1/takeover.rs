//! Who takes a connection over once it speaks another protocol.

use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::oneshot;

use crate::http1::Stream;

/// Among the extensions of an answer with status 101: whoever made it waits for the connection, which
/// comes when the client has been sent the answer.
#[derive(Debug, Clone)]
pub struct Takeover(Arc<Mutex<Option<oneshot::Sender<Stream>>>>);

impl Takeover {
    /// The extension, and where the connection will come; an error there means that it was closed.
    pub fn new() -> (Self, oneshot::Receiver<Stream>) {
        let (sender, receiver) = oneshot::channel();
        (Self(Arc::new(Mutex::new(Some(sender)))), receiver)
    }

    /// Hands the connection over, once.
    pub(super) fn hand_over(&self, stream: Stream) {
        let sender = self.0.lock().unwrap_or_else(PoisonError::into_inner).take();
        // Where nobody waits any more, it is closed.
        let _ = sender.map(|sender| sender.send(stream));
    }
}
