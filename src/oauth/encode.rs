//! Encoding of parameters as the body of a token request: a form or flat JSON.
//!
//! The bytes hold a client secret, so that both writers fill one buffer of known size, which is wiped
//! when dropped, and make no copies in between.

use bytes::Bytes;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use zeroize::Zeroizing;

/// The characters that `application/x-www-form-urlencoded` percent-encodes by the WHATWG URL standard, to
/// which RFC 6749 appendix B refers. The space is not one of them: [`push_form`] writes it as `+`.
const FORM: &AsciiSet = &PERCENT.remove(b' ');

/// The characters of [`FORM`] and the space.
const PERCENT: &AsciiSet = &NON_ALPHANUMERIC.remove(b'*').remove(b'-').remove(b'.').remove(b'_');

/// Names and values in the order in which they are written.
pub(super) type Parameters<'a> = Vec<(&'a str, &'a str)>;

/// Writes `name=value&…`.
pub(super) fn form(parameters: &Parameters<'_>) -> Bytes {
    let mut text = String::with_capacity(capacity(parameters, 3));
    for (index, (name, value)) in parameters.iter().enumerate() {
        if index > 0 {
            text.push('&');
        }
        push_form(&mut text, name);
        text.push('=');
        push_form(&mut text, value);
    }
    wiped(text.into_bytes())
}

/// Appends one form-encoded word.
pub(super) fn push_form(text: &mut String, word: &str) {
    for piece in utf8_percent_encode(word, FORM) {
        text.extend(piece.chars().map(|c| if c == ' ' { '+' } else { c }));
    }
}

/// Appends one form-encoded word whose spaces are `%20`: every form decoder reads that as a space, and
/// so do the servers that undo percent-encoding alone.
pub(super) fn push_percent(text: &mut String, word: &str) {
    for piece in utf8_percent_encode(word, PERCENT) {
        text.push_str(piece);
    }
}

/// Writes `{"name":"value",…}`; a name that is given more than once becomes an array.
///
/// # Errors
/// None in practice: every string fits JSON, and the buffer grows.
pub(super) fn json(parameters: &Parameters<'_>) -> Result<Bytes, serde_json::Error> {
    let mut text = Vec::with_capacity(capacity(parameters, 6));
    text.push(b'{');
    for (index, (name, value)) in parameters.iter().enumerate() {
        if parameters[..index].iter().any(|(earlier, _)| earlier == name) {
            continue;
        }
        if index > 0 {
            text.push(b',');
        }
        serde_json::to_writer(&mut text, name)?;
        text.push(b':');
        let all: Vec<&str> =
            parameters.iter().filter(|(other, _)| other == name).map(|(_, value)| *value).collect();
        match all.len() {
            1 => serde_json::to_writer(&mut text, value)?,
            _ => serde_json::to_writer(&mut text, &all)?,
        }
    }
    text.push(b'}');
    Ok(wiped(text))
}

/// Room for the worst encoding, so that growing leaves no copy of a secret behind.
fn capacity(parameters: &Parameters<'_>, worst: usize) -> usize {
    let fixed = 8;
    2 + parameters.iter().map(|(n, v)| (n.len() + v.len()) * worst + fixed).sum::<usize>()
}

fn wiped(text: Vec<u8>) -> Bytes {
    Bytes::from_owner(Zeroizing::new(text))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A strict decoder that shares nothing with the encoder: every byte outside the form alphabet,
    /// a cut escape, or an escape in lower case is an error.
    fn decode(body: &[u8]) -> Result<Vec<(String, String)>, String> {
        if body.is_empty() {
            return Ok(Vec::new());
        }
        body.split(|b| *b == b'&').map(decode_pair).collect()
    }

    fn decode_pair(pair: &[u8]) -> Result<(String, String), String> {
        let mut halves = pair.split(|b| *b == b'=');
        let (Some(name), Some(value), None) = (halves.next(), halves.next(), halves.next()) else {
            return Err(format!("not one '=' in {pair:?}"));
        };
        Ok((decode_word(name)?, decode_word(value)?))
    }

    fn decode_word(word: &[u8]) -> Result<String, String> {
        let mut out = Vec::new();
        let mut rest = word.iter().copied();
        while let Some(byte) = rest.next() {
            out.push(match byte {
                b'+' => b' ',
                b'%' => hex(rest.next())? * 16 + hex(rest.next())?,
                b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'*' | b'-' | b'.' | b'_' => byte,
                other => return Err(format!("byte {other} is not encoded")),
            });
        }
        String::from_utf8(out).map_err(|e| e.to_string())
    }

    fn hex(digit: Option<u8>) -> Result<u8, String> {
        match digit {
            Some(d @ b'0'..=b'9') => Ok(d - b'0'),
            Some(d @ b'A'..=b'F') => Ok(d - b'A' + 10),
            other => Err(format!("no upper-case hex digit: {other:?}")),
        }
    }

    #[test]
    fn known_forms() {
        for (value, expected) in [
            ("a+b", "k=a%2Bb"),
            ("100%", "k=100%25"),
            ("a&b=c", "k=a%26b%3Dc"),
            ("id:secret", "k=id%3Asecret"),
            ("a b", "k=a+b"),
            ("~/=", "k=%7E%2F%3D"),
            ("*-._", "k=*-._"),
            ("ü", "k=%C3%BC"),
            ("\r\n", "k=%0D%0A"),
        ] {
            assert_eq!(form(&vec![("k", value)]), expected.as_bytes(), "{value:?}");
        }
    }

    #[test]
    fn known_json() {
        for (parameters, expected) in [
            (vec![], "{}"),
            (vec![("b", "1"), ("a", "\"\\\n+ü")], r#"{"b":"1","a":"\"\\\n+ü"}"#),
            (vec![("r", "x"), ("s", "1"), ("r", "y")], r#"{"r":["x","y"],"s":"1"}"#),
        ] {
            assert_eq!(json(&parameters).unwrap(), expected.as_bytes());
        }
    }

    proptest! {
        #[test]
        fn forms_survive_a_strict_decoder(pairs in prop::collection::vec((any::<String>(), any::<String>()), 0..5)) {
            let borrowed: Parameters<'_> = pairs.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect();
            prop_assert_eq!(decode(&form(&borrowed)), Ok(pairs));
        }

        #[test]
        fn buffers_never_grow(name in any::<String>(), value in any::<String>()) {
            let parameters = vec![(name.as_str(), value.as_str())];
            prop_assert!(form(&parameters).len() <= capacity(&parameters, 3));
            prop_assert!(json(&parameters).unwrap().len() <= capacity(&parameters, 6));
        }

        #[test]
        fn json_survives_a_parser(value in any::<String>()) {
            let read: serde_json::Value = serde_json::from_slice(&json(&vec![("k", &value)]).unwrap()).unwrap();
            prop_assert_eq!(read["k"].as_str(), Some(value.as_str()));
        }
    }
}
