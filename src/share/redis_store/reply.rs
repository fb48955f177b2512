//! The replies of the scripts: a word, the time of the store, and more.

use std::time::Duration;

use redis::Value;

use super::super::protocol::{AcquireReply, PublishReply, StoredValue};
use super::super::store::StoreError;

/// A reply, read from its beginning.
pub(super) struct Reply(std::vec::IntoIter<Value>);

impl Reply {
    /// The word of a reply, and the rest after the time.
    pub(super) fn new(value: Value) -> Result<(String, Self), StoreError> {
        let Value::Array(parts) = value else { return Err(StoreError::Malformed) };
        let mut reply = Self(parts.into_iter());
        let word = reply.text()?;
        reply.number()?;
        Ok((word, reply))
    }

    fn bytes(&mut self) -> Result<Vec<u8>, StoreError> {
        match self.0.next() {
            Some(Value::BulkString(bytes)) => Ok(bytes),
            Some(Value::SimpleString(text)) => Ok(text.into_bytes()),
            _ => Err(StoreError::Malformed),
        }
    }

    fn text(&mut self) -> Result<String, StoreError> {
        String::from_utf8(self.bytes()?).map_err(|_| StoreError::Malformed)
    }

    fn number(&mut self) -> Result<u64, StoreError> {
        match self.0.next() {
            Some(Value::Int(number)) => u64::try_from(number).map_err(|_| StoreError::Malformed),
            _ => Err(StoreError::Malformed),
        }
    }

    fn milliseconds(&mut self) -> Result<Duration, StoreError> {
        self.number().map(Duration::from_millis)
    }
}

/// The reply to `acquire`.
pub(super) fn acquired(value: Value) -> Result<AcquireReply, StoreError> {
    let (word, mut rest) = Reply::new(value)?;
    Ok(match &*word {
        "token" => AcquireReply::Token(StoredValue {
            generation: rest.number()?,
            owner: rest.text()?,
            sealed: rest.bytes()?,
            life_left: rest.milliseconds()?,
        }),
        "none" => AcquireReply::NoOther,
        "held" => AcquireReply::Held(rest.milliseconds()?),
        "wait" => AcquireReply::Wait(rest.milliseconds()?),
        "lead" => AcquireReply::Lead(rest.number()?),
        _ => return Err(StoreError::Malformed),
    })
}

/// The reply to `publish`.
pub(super) fn published(value: Value) -> Result<PublishReply, StoreError> {
    let (word, mut rest) = Reply::new(value)?;
    match &*word {
        "published" => Ok(PublishReply::Accepted),
        "superseded" => Ok(PublishReply::Superseded(rest.number()?)),
        _ => Err(StoreError::Malformed),
    }
}

/// The reply to `renew` or `fail`: `true` for the word of success, `false` if the lease was lost.
pub(super) fn kept(value: Value, success: &str) -> Result<bool, StoreError> {
    match Reply::new(value)? {
        (word, _) if word == success => Ok(true),
        (word, _) if word == "lost" => Ok(false),
        _ => Err(StoreError::Malformed),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(text: &str) -> Value {
        Value::BulkString(text.as_bytes().to_vec())
    }

    #[test]
    fn replies_are_read_or_malformed() {
        let read = |parts: &[Value]| acquired(Value::Array(parts.to_vec()));
        let (now, seven) = (Value::Int(1_800_000_000_000), Value::Int(7));
        let token =
            [text("token"), now.clone(), seven.clone(), text("r1"), text("x"), seven.clone()];
        let expected = AcquireReply::Token(StoredValue {
            generation: 7,
            owner: "r1".to_owned(),
            sealed: b"x".to_vec(),
            life_left: Duration::from_millis(7),
        });
        assert_eq!(read(&token), Ok(expected));
        assert_eq!(read(&[text("none"), now.clone()]), Ok(AcquireReply::NoOther));
        assert_eq!(read(&[text("lead"), now.clone(), seven.clone()]), Ok(AcquireReply::Lead(7)));
        // An owner that the hash does not have, a key without an end, a word of no script, a time that is
        // none.
        for broken in [
            &[text("token"), now.clone(), seven.clone(), Value::Nil][..],
            &[text("token"), now.clone(), seven.clone(), text("r1"), text("x"), Value::Int(-1)],
            &[text("other"), now.clone()],
            &[text("none"), text("now")],
            &[],
        ] {
            assert_eq!(read(broken), Err(StoreError::Malformed), "{broken:?}");
        }
        assert_eq!(acquired(Value::Okay), Err(StoreError::Malformed));
        assert_eq!(kept(Value::Array(vec![text("lost"), now.clone()]), "renewed"), Ok(false));
        assert_eq!(
            kept(Value::Array(vec![text("failed"), now]), "renewed"),
            Err(StoreError::Malformed)
        );
    }
}
