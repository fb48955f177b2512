//! File descriptors: what a process without any can still do.

use std::fs::File;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::shortage::lacks_descriptor;

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

/// Descriptors that are held back, so that operators are answered even when apps have taken all others. They
/// belong to the process, as the limit does.
pub static RESERVED_DESCRIPTORS: ReservedDescriptors = ReservedDescriptors::new();

/// Descriptors that are held back; none before the first [`hold`](Self::hold).
#[derive(Debug)]
pub struct ReservedDescriptors(Mutex<Reserve>);

#[derive(Debug)]
struct Reserve {
    held: Vec<File>,
    wanted: usize,
}

impl ReservedDescriptors {
    const fn new() -> Self {
        Self(Mutex::new(Reserve { held: Vec::new(), wanted: 0 }))
    }

    /// Holds back [`RESERVED`] from now on.
    pub fn hold(&self) {
        self.lock().wanted = RESERVED;
        self.refill();
    }

    /// Gives one back to the process; false if none is left.
    pub fn release(&self) -> bool {
        self.lock().held.pop().is_some()
    }

    /// Gives one back until what is returned is dropped, for files that are read meanwhile.
    pub fn spare(&self) -> SpareDescriptor<'_> {
        self.release();
        SpareDescriptor(self)
    }

    /// Holds back again what was released, as far as there are descriptors; true if that is all of it.
    pub fn refill(&self) -> bool {
        let mut reserve = self.lock();
        while reserve.held.len() < reserve.wanted {
            // Any file will do; this one is everywhere.
            let Ok(file) = File::open("/dev/null") else { return false };
            reserve.held.push(file);
        }
        true
    }

    fn lock(&self) -> MutexGuard<'_, Reserve> {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_released_is_held_back_again() {
        let reserved = ReservedDescriptors::new();
        assert!(reserved.refill() && !reserved.release(), "none is held back yet");
        reserved.hold();
        for _ in 0..RESERVED {
            assert!(reserved.release());
        }
        assert!(!reserved.release());
        assert!(reserved.refill());
        assert!(reserved.release());
    }
}
