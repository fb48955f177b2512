//! File descriptors: what a process without any can still do.

use std::fs::File;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::net::poll::lacks_descriptor;

/// Descriptors that are held back.
pub const RESERVED: usize = 4;

/// The number of descriptors that this process may have open; `None` for no limit.
pub fn limit() -> Option<u64> {
    #[cfg(unix)]
    return rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
    #[cfg(windows)]
    None
}

/// The number of descriptors that this process has open, where the system tells.
pub fn open() -> Option<u64> {
    match std::fs::read_dir("/proc/self/fd") {
        Ok(entries) => u64::try_from(entries.count()).ok(),
        // To count them takes one, and there is none.
        Err(error) if lacks_descriptor(&error) => limit(),
        Err(_) => None,
    }
}

/// Descriptors that are held back, so that operators are answered even when apps have taken all others.
#[derive(Debug)]
pub struct ReservedDescriptors(Mutex<Vec<File>>);

impl ReservedDescriptors {
    /// Holds back as many as there are, at most [`RESERVED`].
    #[must_use]
    pub fn new() -> Self {
        let reserved = Self(Mutex::new(Vec::with_capacity(RESERVED)));
        reserved.refill();
        reserved
    }

    /// Gives one back to the process; false if none is left.
    pub fn release(&self) -> bool {
        self.lock().pop().is_some()
    }

    /// Gives one back until what is returned is dropped, for files that are read meanwhile.
    pub fn spare(&self) -> SpareDescriptor<'_> {
        self.release();
        SpareDescriptor(self)
    }

    /// Holds back again what was released, as far as there are descriptors.
    pub fn refill(&self) {
        let mut held = self.lock();
        while held.len() < RESERVED {
            // Any file will do; this one is everywhere.
            let Ok(file) = File::open("/dev/null") else { return };
            held.push(file);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Vec<File>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A descriptor that was held back and may be used now.
pub struct SpareDescriptor<'a>(&'a ReservedDescriptors);

impl Drop for SpareDescriptor<'_> {
    fn drop(&mut self) {
        self.0.refill();
    }
}

impl Default for ReservedDescriptors {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_released_is_held_back_again() {
        let reserved = ReservedDescriptors::new();
        for _ in 0..RESERVED {
            assert!(reserved.release());
        }
        assert!(!reserved.release());
        reserved.refill();
        assert!(reserved.release());
    }
}
