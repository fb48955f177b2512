//! One text out of a secret that is a JSON object, as Secrets Manager's console makes them.

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, Visitor};

use super::SecretFault;
use crate::sensitive::Sensitive;

/// Reads the text of one key; nothing else of the object is kept.
pub(super) fn select(object: &Sensitive, key: &str) -> Result<Sensitive, SecretFault> {
    let mut reader = serde_json::Deserializer::from_str(object.expose());
    let found = reader.deserialize_map(Key(key)).and_then(|found| reader.end().map(|()| found));
    // The reader's own words would repeat parts of the secret.
    found.map_err(|_| SecretFault::NotAnObject)?.ok_or(SecretFault::NoSuchKey)
}

struct Key<'k>(&'k str);

impl<'de> Visitor<'de> for Key<'_> {
    type Value = Option<Sensitive>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut found = None;
        while let Some(key) = map.next_key::<String>()? {
            if key == self.0 {
                found = Some(map.next_value_seed(Text)?);
            } else {
                map.next_value::<IgnoredAny>()?;
            }
        }
        Ok(found)
    }
}

struct Text;

impl<'de> DeserializeSeed<'de> for Text {
    type Value = Sensitive;

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<Sensitive, D::Error> {
        from.deserialize_string(self)
    }
}

impl Visitor<'_> for Text {
    type Value = Sensitive;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a string")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Sensitive, E> {
        Ok(Sensitive::new(text))
    }

    fn visit_string<E: Error>(self, text: String) -> Result<Sensitive, E> {
        Ok(Sensitive::new(text))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_key_of_an_object() {
        let check = |object: &str, expected: Result<&str, SecretFault>| {
            let found = select(&Sensitive::new(object), "client_secret");
            assert_eq!(found, expected.map(Sensitive::new), "{object}");
        };
        check(r#"{"client_id":"i","client_secret":"s\"\n+"}"#, Ok("s\"\n+"));
        check(r#" { "a" : [1, {"client_secret": "inner"}], "client_secret" : "s" } "#, Ok("s"));
        check(r#"{"client_secret":"first","client_secret":"last"}"#, Ok("last"));
        check(r#"{"Client_Secret":"s"}"#, Err(SecretFault::NoSuchKey));
        check("{}", Err(SecretFault::NoSuchKey));
        for text in ["s3cret", "", "[]", r#""s""#, r#"{"client_secret":1}"#, "{} {}", "{"] {
            check(text, Err(SecretFault::NotAnObject));
        }
    }
}
