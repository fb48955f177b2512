//! `SourceStates`: when each source was read, and when its value last changed, for operators. It holds
//! no value.

use std::collections::BTreeMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use super::error::SecretError;
use super::reference::Reference;
use crate::sensitive::Sensitive;

/// Sources that are remembered; beyond this the one that was read longest ago is forgotten.
const MAX_SOURCES: usize = 256;

/// The states of all sources that were read, by their descriptions. Clones share them.
#[derive(Debug, Clone, Default)]
pub struct SourceStates(Arc<Mutex<BTreeMap<String, SourceState>>>, RandomState);

/// The state of one source.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SourceState {
    /// The kind of source, as a configuration names it.
    pub kind: &'static str,
    /// The time of the last attempt to read it.
    pub read_at: SystemTime,
    /// The time at which its present value was first read; `None` before a first success.
    pub value_since: Option<SystemTime>,
    /// The words of the last attempt's error; `None` if it succeeded.
    pub error: Option<String>,
    /// A salted hash of the value, which never leaves this module.
    hash: Option<u64>,
}

impl SourceStates {
    /// Notes the result of reading a source.
    pub fn note(&self, reference: &Reference, found: &Result<Sensitive, SecretError>) {
        let now = SystemTime::now();
        let mut sources = self.lock();
        let state = sources.entry(reference.describe()).or_insert_with(|| SourceState {
            kind: reference.kind().as_str(),
            read_at: now,
            value_since: None,
            error: None,
            hash: None,
        });
        state.read_at = now;
        state.error = found.as_ref().err().map(ToString::to_string);
        if let Ok(value) = found {
            let hash = Some(self.1.hash_one(value.expose()));
            if state.hash != hash {
                (state.hash, state.value_since) = (hash, Some(now));
            }
        }
        if sources.len() > MAX_SOURCES {
            let oldest = sources.iter().min_by_key(|(_, state)| state.read_at);
            if let Some(oldest) = oldest.map(|(name, _)| name.clone()) {
                sources.remove(&oldest);
            }
        }
    }

    /// Forgets sources whose last reading failed: a new configuration may name others in their place.
    pub fn forget_failed(&self) {
        self.lock().retain(|_, state| state.error.is_none());
    }

    /// A copy of all states, by the sources' descriptions.
    pub fn snapshot(&self) -> Vec<(String, SourceState)> {
        self.lock().iter().map(|(name, state)| (name.clone(), state.clone())).collect()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, SourceState>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::super::error::SecretFault;
    use super::*;

    fn file(number: usize) -> Reference {
        Reference::File(format!("/run/{number:04}").into())
    }

    #[test]
    fn a_change_and_a_failure_are_told_and_no_value() {
        let sources = SourceStates::default();
        let only = || sources.snapshot().pop().unwrap().1;
        sources.note(&file(1), &Ok(Sensitive::new("hunter2")));
        let first = only();
        assert_eq!((first.kind, &first.error), ("file", &None));
        sources.note(&file(1), &Ok(Sensitive::new("hunter2")));
        assert_eq!(only().value_since, first.value_since, "it is the same value");
        sources.note(&file(1), &Err(file(1).error(SecretFault::Missing)));
        assert_eq!(only().value_since, first.value_since, "the last value stays in use");
        assert!(only().error.unwrap().contains("/run/0001"));
        sources.note(&file(1), &Ok(Sensitive::new("hunter3")));
        assert!(only().value_since > first.value_since && only().error.is_none());
        assert!(!format!("{sources:?}").contains("hunter"));
        sources.note(&file(2), &Err(file(2).error(SecretFault::Empty)));
        sources.forget_failed();
        assert_eq!(sources.snapshot().len(), 1);
    }

    #[test]
    fn their_number_is_bounded() {
        let sources = SourceStates::default();
        for number in 0..MAX_SOURCES + 5 {
            sources.note(&file(number), &Ok(Sensitive::new("x")));
        }
        assert_eq!(sources.snapshot().len(), MAX_SOURCES);
        assert!(sources.snapshot().iter().any(|(name, _)| name.ends_with("0260")));
    }
}
