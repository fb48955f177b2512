//! One value of a secret that is a JSON object, as the console of Secrets Manager makes them.

use std::collections::HashMap;

use serde_json::value::RawValue;

use super::error::SecretFault;
use crate::sensitive::Sensitive;

/// Reads the string under one key. The other values are skipped without a copy of them.
pub(super) fn select(object: &Sensitive, key: &str) -> Result<Sensitive, SecretFault> {
    // The parser's own errors are dropped, because they would repeat parts of the secret.
    let values: HashMap<String, &RawValue> =
        serde_json::from_str(object.expose()).map_err(|_| SecretFault::NotAnObject)?;
    let value = values.get(key).ok_or(SecretFault::NoSuchKey)?;
    let text: String = serde_json::from_str(value.get()).map_err(|_| SecretFault::NotAnObject)?;
    Ok(Sensitive::new(text))
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
