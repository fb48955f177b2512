//! Pure parser for the challenges in a line of WWW-Authenticate (RFC 9110 section 11.6.1).
//!
//! ```text
//! WWW-Authenticate = [ challenge *( OWS "," OWS challenge ) ]
//! challenge        = auth-scheme [ 1*SP ( token68 / [ auth-param *( OWS "," OWS auth-param ) ] ) ]
//! auth-param       = token BWS "=" BWS ( token / quoted-string )
//! ```
//!
//! A comma separates parameters as well as challenges: a token after it names a parameter if `=`
//! follows, and a scheme otherwise. Input outside the grammar is skipped and hides nothing that
//! follows. For that reason this is not the crate `http-auth`: it stops at the first error, and
//! takes a token68 for one, so that `Negotiate YWJj, Bearer error=...` would lose its Bearer
//! challenge.

use std::borrow::Cow;

use crate::proxy::headers::list::is_token_byte;

/// One parameter of a challenge.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct AuthParam<'a> {
    /// The scheme of its challenge, as written; schemes are compared without case. Empty if the line
    /// begins with a parameter.
    pub(super) scheme: &'a [u8],
    /// Its name, as written; names are compared without case.
    pub(super) name: &'a [u8],
    /// Its value, without quotes and escapes.
    pub(super) value: Cow<'a, [u8]>,
}

/// Iterates over the parameters of all challenges in a line, in their order. Accepts any bytes.
pub(super) struct AuthParams<'a> {
    rest: &'a [u8],
    scheme: &'a [u8],
    /// Set where a challenge may start: at the start of the line, and after a comma.
    may_start_challenge: bool,
}

impl<'a> AuthParams<'a> {
    pub(super) fn new(line: &'a [u8]) -> Self {
        Self { rest: line, scheme: &[], may_start_challenge: true }
    }
}

impl<'a> Iterator for AuthParams<'a> {
    type Item = AuthParam<'a>;

    fn next(&mut self) -> Option<AuthParam<'a>> {
        // Each turn takes at least one byte, so that the loop ends.
        while let [first, after_first @ ..] = self.rest {
            let (name, after_name) = split_while(self.rest, is_token_byte);
            match (first, trim_space(after_name)) {
                (b',', _) => {
                    self.may_start_challenge = true;
                    self.rest = after_first;
                }
                // A quoted string outside a parameter is skipped whole: its content is no challenge.
                (b'"', _) => self.rest = quoted_string(after_first).1,
                _ if name.is_empty() => self.rest = after_first,
                (_, [b'=', value @ ..]) => {
                    let (value, rest) = param_value(trim_space(value));
                    self.may_start_challenge = false;
                    self.rest = rest;
                    return Some(AuthParam { scheme: self.scheme, name, value });
                }
                _ if self.may_start_challenge => {
                    self.scheme = name;
                    self.may_start_challenge = false;
                    self.rest = skip_token68(after_name);
                }
                // A token that is neither a scheme nor the name of a parameter.
                _ => self.rest = after_name,
            }
        }
        None
    }
}

/// Splits off the value of a parameter.
fn param_value(bytes: &[u8]) -> (Cow<'_, [u8]>, &[u8]) {
    if let [b'"', quoted @ ..] = bytes {
        return quoted_string(quoted);
    }
    // More than a token may contain: some servers leave the quotes off a URL.
    let ends = |byte| matches!(byte, b',' | b'"' | b' ' | b'\t');
    let (value, rest) = split_while(bytes, |byte| !ends(byte));
    (Cow::Borrowed(value), rest)
}

/// Splits off the content of a quoted string (RFC 9110 section 5.6.4), given what follows its first
/// quote. A string that is not closed ends with the line.
fn quoted_string(bytes: &[u8]) -> (Cow<'_, [u8]>, &[u8]) {
    let (start, rest) = split_while(bytes, |byte| !matches!(byte, b'"' | b'\\'));
    let mut value = Cow::Borrowed(start);
    let mut rest = rest.iter();
    while let Some(byte) = rest.next() {
        match byte {
            b'"' => break,
            // A backslash stands for the byte after it.
            b'\\' => value.to_mut().extend(rest.next()),
            _ => value.to_mut().push(*byte),
        }
    }
    (value, rest.as_slice())
}

/// Skips the token68 after a scheme (RFC 9110 section 11.2), if there is one: it takes up the whole
/// member of the list. `error=` before a comma is a token68 too; as a parameter it would have no
/// value.
fn skip_token68(bytes: &[u8]) -> &[u8] {
    let is_token68 = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~+/".contains(&byte);
    let (text, padding) = split_while(trim_space(bytes), is_token68);
    match trim_space(split_while(padding, |byte| byte == b'=').1) {
        rest @ ([] | [b',', ..]) if !text.is_empty() => rest,
        _ => bytes,
    }
}

/// Splits before the first byte that does not match.
fn split_while(bytes: &[u8], matches: impl Fn(u8) -> bool) -> (&[u8], &[u8]) {
    bytes.split_at(bytes.iter().position(|byte| !matches(*byte)).unwrap_or(bytes.len()))
}

/// Skips OWS or BWS: spaces and tabs (RFC 9110 section 5.6.3).
fn trim_space(bytes: &[u8]) -> &[u8] {
    split_while(bytes, |byte| matches!(byte, b' ' | b'\t')).1
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(line: &[u8]) -> Vec<String> {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        AuthParams::new(line)
            .map(|param| {
                format!("{} {}={}", text(param.scheme), text(param.name), text(&param.value))
            })
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
            prop_assert!(AuthParams::new(&line).count() <= line.len());
        }

        #[test]
        fn any_mixture_can_be_read(line in r#"(Bearer|error|a|=|"|\\|,| |\t|==|;){0,24}"#) {
            prop_assert!(AuthParams::new(line.as_bytes()).count() <= line.len());
        }

        #[test]
        fn a_quoted_value_comes_back(value in "[ -~]{0,24}", before in "(Basic realm=\"x\"|Negotiate|)") {
            let escaped = value.replace('\\', "\\\\").replace('"', "\\\"");
            let line = format!("{before}, Bearer error=\"{escaped}\"");
            let last = AuthParams::new(line.as_bytes()).last().unwrap();
            prop_assert_eq!(last.scheme, b"Bearer");
            prop_assert_eq!(&*last.value, value.as_bytes());
        }
    }
}
