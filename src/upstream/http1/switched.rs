//! What is left of a connection whose server has switched to another protocol.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;

use crate::http1::{Duplex, Stream};

/// Among the extensions of a 101: the stream, for whoever takes it first.
#[derive(Clone)]
pub struct Switched(Arc<Mutex<Option<Stream>>>);

impl Switched {
    pub(super) fn new(inner: impl Duplex + 'static, early: Bytes) -> Self {
        Self(Arc::new(Mutex::new(Some(Stream::new(inner, early)))))
    }

    /// The stream, unless somebody has it already.
    pub fn take(&self) -> Option<Stream> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

impl fmt::Debug for Switched {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Switched")
    }
}
