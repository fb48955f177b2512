//! Pure: the parameters of the challenges in a line of WWW-Authenticate (RFC 9110 section 11.6.1).
//!
//! ```text
//! WWW-Authenticate = [ challenge *( OWS "," OWS challenge ) ]
//! challenge        = auth-scheme [ 1*SP ( token68 / [ auth-param *( OWS "," OWS auth-param ) ] ) ]
//! auth-param       = token BWS "=" BWS ( token / quoted-string )
//! ```
//!
//! A comma parts parameters as well as challenges: a token behind it is a parameter where `=`
//! follows, and a scheme otherwise. What is none of this is skipped and ends nothing.

use std::borrow::Cow;

/// One parameter of a challenge.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Param<'a> {
    /// The scheme of its challenge, as written: schemes are compared without case. Empty where the
    /// line begins with a parameter.
    pub(super) scheme: &'a [u8],
    /// Its name, as written: names are compared without case.
    pub(super) name: &'a [u8],
    /// Its value, without quotes and escapes.
    pub(super) value: Cow<'a, [u8]>,
}

/// The parameters of all challenges of one line, in their order. Any bytes may be given.
pub(super) fn params(line: &[u8]) -> Params<'_> {
    Params { left: line, scheme: &[], starts: true }
}

/// See [`params`].
pub(super) struct Params<'a> {
    left: &'a [u8],
    scheme: &'a [u8],
    /// Whether a challenge may start here: at the beginning, and behind a comma.
    starts: bool,
}

impl<'a> Iterator for Params<'a> {
    type Item = Param<'a>;

    fn next(&mut self) -> Option<Param<'a>> {
        // Each turn takes at least one byte, so that it comes to an end.
        while let [first, rest @ ..] = self.left {
            let (name, behind) = split(self.left, is_token);
            match (first, without_space(behind)) {
                (b',', _) => {
                    self.starts = true;
                    self.left = rest;
                }
                // Out of place, but what it quotes is no challenge.
                (b'"', _) => self.left = quoted(rest).1,
                _ if name.is_empty() => self.left = rest,
                (_, [b'=', value @ ..]) => {
                    let (value, left) = value_of(without_space(value));
                    self.starts = false;
                    self.left = left;
                    return Some(Param { scheme: self.scheme, name, value });
                }
                (_, _) if self.starts => {
                    self.scheme = name;
                    self.starts = false;
                    self.left = without_token68(behind);
                }
                // A word that is neither a scheme nor a parameter.
                _ => self.left = behind,
            }
        }
        None
    }
}

/// The value that bytes begin with, and what follows it.
fn value_of(bytes: &[u8]) -> (Cow<'_, [u8]>, &[u8]) {
    match bytes {
        [b'"', inner @ ..] => quoted(inner),
        // More than a token may hold: some servers leave the quotes off a URL.
        _ => {
            let (value, left) = split(bytes, |byte| !matches!(byte, b',' | b'"' | b' ' | b'\t'));
            (Cow::Borrowed(value), left)
        }
    }
}

/// What stands in a quoted string, of which the first quote has been read, and what follows it
/// (RFC 9110 section 5.6.4). Where it is not closed, it goes on to the end.
fn quoted(inner: &[u8]) -> (Cow<'_, [u8]>, &[u8]) {
    let (start, left) = split(inner, |byte| !matches!(byte, b'"' | b'\\'));
    let mut value = Cow::Borrowed(start);
    let mut bytes = left.iter();
    while let Some(byte) = bytes.next() {
        match byte {
            b'"' => break,
            // A backslash stands for the byte behind it, whatever that is.
            b'\\' => value.to_mut().extend(bytes.next()),
            _ => value.to_mut().push(*byte),
        }
    }
    (value, bytes.as_slice())
}

/// What follows a scheme but for a token68, where there is one: it fills its place in the list.
fn without_token68(bytes: &[u8]) -> &[u8] {
    let (text, left) = split(without_space(bytes), is_token68);
    let left = without_space(split(left, |byte| byte == b'=').1);
    // `error=` before a comma is one too, and as a parameter it would say as little.
    let whole = !text.is_empty() && matches!(left, [] | [b',', ..]);
    if whole { left } else { bytes }
}

/// The bytes from the beginning that are such, and the others.
fn split(bytes: &[u8], such: impl Fn(u8) -> bool) -> (&[u8], &[u8]) {
    let end = bytes.iter().position(|byte| !such(*byte)).unwrap_or(bytes.len());
    bytes.split_at(end)
}

/// OWS and BWS are spaces and tabs (RFC 9110 section 5.6.3).
fn without_space(bytes: &[u8]) -> &[u8] {
    split(bytes, |byte| matches!(byte, b' ' | b'\t')).1
}

/// RFC 9110 section 5.6.2.
fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

/// RFC 9110 section 11.2.
fn is_token68(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._~+/".contains(&byte)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(line: &[u8]) -> Vec<String> {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        params(line)
            .map(|one| format!("{} {}={}", text(one.scheme), text(one.name), text(&one.value)))
            .collect()
    }

    #[test]
    fn parameters_are_read() {
        let check = |line: &str, expected: &[&str]| {
            assert_eq!(read(line.as_bytes()), expected, "{line}");
        };
        check("", &[]);
        check("Negotiate", &[]);
        check("Bearer realm=a", &["Bearer realm=a"]);
        check("Bearer   realm=\"a\",error=b", &["Bearer realm=a", "Bearer error=b"]);
        check("Bearer realm\t= \"a\" , error =b ,", &["Bearer realm=a", "Bearer error=b"]);
        check(
            "Newauth realm=\"apps\", type=1, title=\"Login to \\\"apps\\\"\", Basic realm=\"simple\"",
            &[
                "Newauth realm=apps",
                "Newauth type=1",
                "Newauth title=Login to \"apps\"",
                "Basic realm=simple",
            ],
        );
        check("Negotiate, Bearer error=a", &["Bearer error=a"]);
        check("Negotiate YWJj+/==, Bearer error=a", &["Bearer error=a"]);
        check("Negotiate YWJj=\t, ,, Bearer error=a", &["Bearer error=a"]);
        check("Bearer error=, scope=b", &["Bearer scope=b"]);
        check("Bearer, error=a", &["Bearer error=a"]);
        check(", ,Bearer ,, error=a", &["Bearer error=a"]);
        check(
            "Basic realm=\"a, Bearer error=b\", c=d",
            &["Basic realm=a, Bearer error=b", "Basic c=d"],
        );
        check(
            "Bearer a=\"\\\\\", b=\"\\\"\", c=\"\"",
            &["Bearer a=\\", "Bearer b=\"", "Bearer c="],
        );
    }

    #[test]
    fn what_is_malformed_takes_nothing_else_with_it() {
        let check = |line: &str, expected: &[&str]| {
            assert_eq!(read(line.as_bytes()), expected, "{line}");
        };
        check("error=a", &[" error=a"]);
        check("=a, Bearer error=b", &["Bearer error=b"]);
        check("Bearer realm=\"a\" error=b", &["Bearer realm=a", "Bearer error=b"]);
        check("Bearer realm=\"a\"; error=b", &["Bearer realm=a", "Bearer error=b"]);
        check("Bearer uri=https://a/b?c, error=d", &["Bearer uri=https://a/b?c", "Bearer error=d"]);
        check("Basic realm=a Bearer error=b", &["Basic realm=a", "Basic error=b"]);
        check("Basic x \"Bearer error=b, Bearer error=c\", Bearer error=d", &["Bearer error=d"]);
        check("Basic realm=a\"b, Bearer error=c\", d=e", &["Basic realm=a", "Basic d=e"]);
        check("Bearer error=\"a", &["Bearer error=a"]);
        check("Bearer error=\"a\\", &["Bearer error=a"]);
        check("Bearer error=", &[]);
        check("Bearer a b c", &[]);
        check("\u{e9} Bearer error=a", &["Bearer error=a"]);
    }

    proptest! {
        #[test]
        fn any_bytes_can_be_read(line in prop::collection::vec(any::<u8>(), 0..64)) {
            prop_assert!(params(&line).count() <= line.len());
        }

        #[test]
        fn any_mixture_can_be_read(line in r#"(Bearer|error|a|=|"|\\|,| |\t|==|;){0,24}"#) {
            prop_assert!(params(line.as_bytes()).count() <= line.len());
        }

        #[test]
        fn a_quoted_value_comes_back(value in "[ -~]{0,24}", before in "(Basic realm=\"x\"|Negotiate|)") {
            let escaped = value.replace('\\', "\\\\").replace('"', "\\\"");
            let line = format!("{before}, Bearer error=\"{escaped}\"");
            let last = params(line.as_bytes()).last().unwrap();
            prop_assert_eq!(last.scheme, b"Bearer");
            prop_assert_eq!(&*last.value, value.as_bytes());
        }
    }
}
