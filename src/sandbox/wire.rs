//! Reading bodies, strictly, with readers of our own: a fake that shared the program's parsers
//! would agree with their mistakes.

use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};

/// Names and values in the order in which they came.
pub(super) type Fields = Vec<(String, String)>;

/// Reads `application/x-www-form-urlencoded`.
///
/// Refuses bytes that an encoder has to escape, so that a secret which was not encoded is found
/// out here and not by the bank.
pub(super) fn form(body: &[u8]) -> Result<Fields, String> {
    let fields: Fields = body.split(|&byte| byte == b'&').map(pair).collect::<Result<_, _>>()?;
    no_name_twice(fields)
}

fn pair(pair: &[u8]) -> Result<(String, String), String> {
    let equals = pair.iter().position(|&byte| byte == b'=').ok_or("a pair has no `=`")?;
    Ok((unescape(&pair[..equals])?, unescape(&pair[equals + 1..])?))
}

fn unescape(text: &[u8]) -> Result<String, String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((&byte, tail)) = rest.split_first() {
        rest = tail;
        match byte {
            b'+' => bytes.push(b' '),
            b'%' => {
                let (high, low) = (digit(rest.first())?, digit(rest.get(1))?);
                bytes.push(high * 16 + low);
                rest = &rest[2..];
            }
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'*' | b'-' | b'.' | b'_' | b'~' => {
                bytes.push(byte);
            }
            other => return Err(format!("byte 0x{other:02x} stands unescaped in the form")),
        }
    }
    String::from_utf8(bytes).map_err(|_| "a form value is not UTF-8".to_owned())
}

fn digit(byte: Option<&u8>) -> Result<u8, String> {
    match byte {
        Some(digit @ b'0'..=b'9') => Ok(digit - b'0'),
        Some(digit @ b'a'..=b'f') => Ok(digit - b'a' + 10),
        Some(digit @ b'A'..=b'F') => Ok(digit - b'A' + 10),
        _ => Err("`%` is not followed by two hexadecimal digits".to_owned()),
    }
}

/// Reads one flat JSON object whose values are strings.
pub(super) fn json(body: &[u8]) -> Result<Fields, String> {
    let object: Object = serde_json::from_slice(body).map_err(|error| error.to_string())?;
    no_name_twice(object.0)
}

/// RFC 6749 section 3.2: "Request and response parameters MUST NOT be included more than once."
fn no_name_twice(fields: Fields) -> Result<Fields, String> {
    for (index, (name, _)) in fields.iter().enumerate() {
        if fields[..index].iter().any(|(earlier, _)| earlier == name) {
            return Err(format!("`{name}` is there twice"));
        }
    }
    Ok(fields)
}

/// An object read pair by pair, because a map would hide a name that is there twice.
struct Object(Fields);

impl<'de> Deserialize<'de> for Object {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(Pairs)
    }
}

struct Pairs;

impl<'de> Visitor<'de> for Pairs {
    type Value = Object;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a flat JSON object of strings")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Object, A::Error> {
        let mut fields = Vec::new();
        while let Some(pair) = map.next_entry()? {
            fields.push(pair);
        }
        Ok(Object(fields))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields(pairs: &[(&str, &str)]) -> Option<Fields> {
        Some(pairs.iter().map(|&(name, value)| (name.to_owned(), value.to_owned())).collect())
    }

    #[test]
    fn forms_are_read_strictly() {
        let check = |body: &str, expected: Option<Fields>| {
            assert_eq!(form(body.as_bytes()).ok(), expected, "{body}");
        };
        check("a=b&c=d+e", fields(&[("a", "b"), ("c", "d e")]));
        check("a=%2B%25%26%3D%20", fields(&[("a", "+%&= ")]));
        check("a=", fields(&[("a", "")]));
        check("a=%c3%a9", fields(&[("a", "é")]));
        for bad in ["", "a", "a=b&", "a=b&a=c", "a=%2", "a=%zz", "a=%", "a=b/c", "a=b c", "a=%ff"] {
            check(bad, None);
        }
    }

    #[test]
    fn json_is_flat_and_of_strings() {
        let check = |body: &str, expected: Option<Fields>| {
            assert_eq!(json(body.as_bytes()).ok(), expected, "{body}");
        };
        check(r#"{"a":"b","c":"\u0022"}"#, fields(&[("a", "b"), ("c", "\"")]));
        check("{}", fields(&[]));
        for bad in ["", "[]", r#"{"a":1}"#, r#"{"a":"b","a":"b"}"#, r#"{"a":"b"} x"#, r#"{"a":{}}"#]
        {
            check(bad, None);
        }
    }
}
