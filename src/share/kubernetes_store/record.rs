//! `SecretObject` and `TokenRecord`: the Secret as the API server gives it, and the state of one token in its
//! data.
//!
//! A token has two keys in the data: `NAME.s` is its state as JSON, `NAME.t` the sealed token.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::super::names::TokenName;
use super::super::state::{ClockReading, TokenState};

/// Most bytes that the data of a Secret may have together (`MaxSecretSize` of the Kubernetes API).
pub(super) const MAX_SECRET_BYTES: usize = 1024 * 1024;
/// Milliseconds after its last change when a token is removed.
const UNUSED: u64 = 7 * 24 * 3_600_000;
/// Milliseconds of a lease, longer than any that a replica takes.
const LONGEST_LEASE: u64 = 60_000;
/// Milliseconds of a pause, longer than any that a replica asks for.
const LONGEST_WAIT: u64 = 3_600_000;
/// Largest number in a state, which JSON numbers hold exactly everywhere.
const MAX_NUMBER: u64 = 1 << 53;

/// A Secret.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct SecretObject {
    metadata: Metadata,
    /// In base64.
    #[serde(default)]
    data: Option<BTreeMap<String, String>>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Metadata {
    name: String,
    resource_version: String,
}

/// The state of one token in the Secret.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct TokenRecord {
    /// The state that all stores have.
    pub(super) state: TokenState,
    /// The epoch of the last lead that announced a handover.
    pub(super) handover: u64,
    /// The time of the last change.
    written: u64,
}

/// The JSON form of a [`TokenRecord`], without the sealed token. Times are milliseconds since 1970.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
struct Written {
    generation: u64,
    owner: String,
    ends: u64,
    epoch: u64,
    leader: Option<String>,
    until: u64,
    not_before: u64,
    refused: Option<String>,
    hour: u64,
    calls: u64,
    handover: u64,
    written: u64,
}

impl Written {
    fn is_plausible(&self) -> bool {
        let Self { generation, ends, epoch, until, not_before, hour, calls, handover, .. } = self;
        [generation, ends, epoch, until, not_before, hour, calls, handover, &self.written]
            .into_iter()
            .all(|number| *number < MAX_NUMBER)
    }
}

/// A change of the Secret would exceed its largest size, with the bytes that it would have.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct TooLarge(pub(super) usize);

impl SecretObject {
    /// The name of the Secret.
    pub(super) fn name(&self) -> &str {
        &self.metadata.name
    }

    fn value(&self, key: &str) -> Option<Vec<u8>> {
        STANDARD.decode(self.data.as_ref()?.get(key)?).ok()
    }

    /// The state of a token. What no replica wrote counts as absent.
    pub(super) fn record(&self, name: &str) -> TokenRecord {
        let written =
            self.value(&state_key(name)).and_then(|bytes| serde_json::from_slice(&bytes).ok());
        let Some(written) = written.filter(Written::is_plausible) else {
            return TokenRecord::default();
        };
        let state = TokenState {
            generation: written.generation,
            token_owner: written.owner,
            value: self.value(&token_key(name)).map(|sealed| (sealed, written.ends)),
            epoch: written.epoch,
            lease: written.leader.map(|leader| (leader, written.until)),
            not_before: written.not_before,
            refused: written.refused,
            calls: (written.hour, written.calls),
        };
        TokenRecord { state, handover: written.handover, written: written.written }
    }

    /// The names of all tokens in the Secret.
    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        let keys = self.data.iter().flat_map(BTreeMap::keys);
        keys.filter_map(|key| key.strip_suffix(".s")).filter(|name| is_name(name))
    }

    /// The JSON merge patch that puts the new state of a token into the Secret, if the Secret has not changed
    /// meanwhile. It removes tokens that nothing has used for a week.
    pub(super) fn patch(
        &self,
        name: &TokenName,
        record: &TokenRecord,
        now: ClockReading,
    ) -> Result<Vec<u8>, TooLarge> {
        let name = name.to_string();
        let mut data: BTreeMap<String, Option<String>> = BTreeMap::new();
        for other in self.names().filter(|other| *other != name) {
            let unused = self.record(other).written + UNUSED < now.earliest;
            if unused {
                data.extend([(state_key(other), None), (token_key(other), None)]);
            }
        }
        let sealed = record.state.value.as_ref().map(|(sealed, _)| STANDARD.encode(sealed));
        data.insert(state_key(&name), Some(STANDARD.encode(written(record, now))));
        data.insert(token_key(&name), sealed);
        let size = self.size_with(&data);
        if size > MAX_SECRET_BYTES {
            return Err(TooLarge(size));
        }
        Ok(self.merge_patch(&data))
    }

    /// The patch that removes a token.
    pub(super) fn removal(&self, name: &TokenName) -> Vec<u8> {
        let name = name.to_string();
        self.merge_patch(&BTreeMap::from([(state_key(&name), None), (token_key(&name), None)]))
    }

    /// A `null` removes a key (RFC 7396). The resourceVersion makes the API server compare before it sets.
    fn merge_patch(&self, data: &BTreeMap<String, Option<String>>) -> Vec<u8> {
        let version = &self.metadata.resource_version;
        let patch: Value = json!({ "metadata": { "resourceVersion": version }, "data": data });
        patch.to_string().into_bytes()
    }

    /// The bytes of the data after a change.
    fn size_with(&self, change: &BTreeMap<String, Option<String>>) -> usize {
        let kept = self.data.iter().flatten().filter(|(key, _)| !change.contains_key(*key));
        let kept: usize = kept.map(|(_, value)| decoded_len(value)).sum();
        kept + change.values().flatten().map(|value| decoded_len(value)).sum::<usize>()
    }
}

impl TokenRecord {
    /// The same without a token that has ended, and without a lease or a pause that is longer than any.
    pub(super) fn current(mut self, now: ClockReading) -> Self {
        self.state.value.take_if(|(_, ends)| *ends <= now.earliest);
        self.state.lease.take_if(|(_, until)| *until > now.latest + LONGEST_LEASE);
        if self.state.not_before > now.latest + LONGEST_WAIT {
            self.state.not_before = 0;
        }
        self
    }
}

fn written(record: &TokenRecord, now: ClockReading) -> Vec<u8> {
    let state = record.state.clone();
    let (leader, until) = state.lease.unzip();
    let written = Written {
        generation: state.generation,
        owner: state.token_owner,
        ends: state.value.map_or(0, |(_, ends)| ends),
        epoch: state.epoch,
        leader,
        until: until.unwrap_or_default(),
        not_before: state.not_before,
        refused: state.refused,
        hour: state.calls.0,
        calls: state.calls.1,
        handover: record.handover,
        written: now.earliest,
    };
    // Texts and numbers can always be written as JSON.
    serde_json::to_vec(&written).unwrap_or_default()
}

fn state_key(name: &str) -> String {
    format!("{name}.s")
}

fn token_key(name: &str) -> String {
    format!("{name}.t")
}

/// True for the name of a token, which other data keys do not have.
fn is_name(name: &str) -> bool {
    name.len() == 32 && name.bytes().all(|byte| byte.is_ascii_hexdigit())
}

fn decoded_len(text: &str) -> usize {
    text.trim_end_matches('=').len() * 3 / 4
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn secret(data: &Value) -> SecretObject {
        let metadata = json!({ "name": "tokens", "resourceVersion": "7", "labels": {} });
        serde_json::from_value(json!({ "metadata": metadata, "data": data })).unwrap()
    }

    /// The data of a Secret after a patch.
    fn patched(secret: &SecretObject, patch: &[u8]) -> Value {
        let patch: Value = serde_json::from_slice(patch).unwrap();
        assert_eq!(patch["metadata"], json!({ "resourceVersion": "7" }));
        let mut data = json!(secret.data);
        for (key, value) in patch["data"].as_object().unwrap() {
            match value {
                Value::Null => drop(data.as_object_mut().unwrap().remove(key)),
                value => data[key] = value.clone(),
            }
        }
        data
    }

    const NOW: ClockReading =
        ClockReading { earliest: 1_800_000_000_000, latest: 1_800_000_000_999 };

    #[test]
    fn a_state_is_what_was_written() {
        let name = TokenName::random();
        let mut record = TokenRecord::default();
        record.state.publish(NOW, "r1", 8, b"sealed", Duration::from_secs(60));
        record.state.fail(NOW, "r1", Duration::from_secs(1), None);
        record.state.lease = Some(("r2".to_owned(), NOW.latest + 5));
        (record.state.refused, record.state.calls) = (Some("f".to_owned()), (500_000, 3));
        (record.handover, record.written) = (9, NOW.earliest);
        let empty = secret(&json!({ "foreign": "eA==" }));
        let full = secret(&patched(&empty, &empty.patch(&name, &record, NOW).unwrap()));
        assert_eq!(full.record(&name.to_string()), record);
        assert_eq!(full.names().collect::<Vec<_>>(), [name.to_string()]);
        assert_eq!(full.data.as_ref().unwrap()["foreign"], "eA==");
        let later = ClockReading { earliest: NOW.earliest + 60_000, latest: NOW.latest + 60_000 };
        assert_eq!(record.clone().current(later).state.value, None);
        let removed = patched(&full, &full.removal(&name));
        assert_eq!(removed, json!({ "foreign": "eA==" }));
    }

    #[test]
    fn an_unused_token_is_removed_with_the_next_change() {
        let (old, new) = (TokenName::random(), TokenName::random());
        let empty = secret(&json!(null));
        let state = TokenRecord { handover: 1, ..TokenRecord::default() };
        let before =
            secret(&patched(&secret(&json!({})), &empty.patch(&old, &state, NOW).unwrap()));
        let week = |days: u64| ClockReading::from(NOW.earliest + days * 24 * 3_600_000);
        let soon = patched(&before, &before.patch(&new, &state, week(7)).unwrap());
        assert_eq!(soon.as_object().unwrap().len(), 2, "{soon}");
        let late = secret(&patched(&before, &before.patch(&new, &state, week(8)).unwrap()));
        assert_eq!(late.names().collect::<Vec<_>>(), [new.to_string()]);
    }

    #[test]
    fn what_no_replica_wrote_counts_as_absent() {
        let name = "0".repeat(32);
        let of = |text: &str| secret(&json!({ state_key(&name): STANDARD.encode(text) }));
        assert_eq!(of("{\"epoch\":7,\"later\":true}").record(&name).state.epoch, 7);
        for text in ["", "7", "{\"epoch\":-1}", "{\"epoch\":9007199254740992}", "{\"until\":1e30}"]
        {
            assert_eq!(of(text).record(&name), TokenRecord::default(), "{text}");
        }
        let clear = secret(&json!({ state_key(&name): "no base64!" }));
        assert_eq!(clear.record(&name), TokenRecord::default());
        assert_eq!(secret(&json!({ "tls.s": "e30=", "x.t": "" })).names().count(), 0);
        let locked = "{\"leader\":\"r9\",\"until\":9000000000000,\"not_before\":9000000000000}";
        let healed = of(locked).record(&name).current(NOW).state;
        assert_eq!((healed.lease, healed.not_before), (None, 0));
    }

    #[test]
    fn a_secret_that_grows_too_large_is_told() {
        let foreign = STANDARD.encode(vec![b'x'; MAX_SECRET_BYTES - 1000]);
        let secret = secret(&json!({ "foreign": foreign }));
        let mut record = TokenRecord::default();
        record.state.publish(NOW, "r1", 1, &[b'x'; 500], Duration::from_secs(60));
        assert!(secret.patch(&TokenName::random(), &record, NOW).is_ok());
        record.state.publish(NOW, "r1", 2, &[b'x'; 1000], Duration::from_secs(60));
        let found = secret.patch(&TokenName::random(), &record, NOW).unwrap_err();
        assert!(found.0 > MAX_SECRET_BYTES && found.0 < MAX_SECRET_BYTES + 1000, "{found:?}");
    }
}
