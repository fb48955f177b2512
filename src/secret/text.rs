//! The bytes of a source as the text of a secret: bounded, UTF-8, without newlines at its end, and without
//! what no secret holds.

use std::io;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use zeroize::Zeroizing;

use super::error::{MAX_BYTES, SecretFault};
use crate::sensitive::Sensitive;

/// Bytes to read from a source: two more than [`MAX_BYTES`] for the newline, and one by which a
/// longer value shows.
pub(super) const READ_LIMIT: usize = MAX_BYTES + 3;

/// A buffer that is wiped when dropped. It has the full size at once, because growing would leave
/// copies of a part of the secret behind.
pub(super) fn buffer() -> Zeroizing<Vec<u8>> {
    Zeroizing::new(Vec::with_capacity(READ_LIMIT + 1))
}

/// Reads all bytes of a file or a pipe.
pub(super) fn read(from: impl io::Read) -> Result<Sensitive, SecretFault> {
    read_with(from, decode)
}

/// Reads all bytes of a file or a pipe, and makes a text of them.
pub(super) fn read_with(
    from: impl io::Read,
    decode: fn(&[u8]) -> Result<Sensitive, SecretFault>,
) -> Result<Sensitive, SecretFault> {
    let mut bytes = buffer();
    io::Read::read_to_end(&mut from.take(READ_LIMIT as u64), &mut bytes)?;
    decode(&bytes)
}

/// The text of a PKCS#12 container: base64, which it may be already.
pub(super) fn decode_pkcs12(bytes: &[u8]) -> Result<Sensitive, SecretFault> {
    // An ASN.1 SEQUENCE (RFC 7292 section 4), which no base64 begins with: it is the digit 0 and, by its
    // length, a byte above ASCII.
    match bytes {
        [0x30, 0x80..=0xff, ..] if bytes.len() < READ_LIMIT => {
            Ok(Sensitive::new(STANDARD.encode(bytes)))
        }
        _ => decode(bytes),
    }
}

/// The text of at most [`READ_LIMIT`] bytes.
pub(super) fn decode(bytes: &[u8]) -> Result<Sensitive, SecretFault> {
    if bytes.len() == READ_LIMIT {
        return Err(SecretFault::TooLong);
    }
    // The byte order marks of UTF-16, which no UTF-8 holds.
    let utf16 = bytes.starts_with(b"\xff\xfe") || bytes.starts_with(b"\xfe\xff");
    let fault = if utf16 { SecretFault::Utf16 } else { SecretFault::NotUtf8 };
    std::str::from_utf8(bytes).map(Sensitive::new).map_err(|_| fault)
}

/// A part of a client's credentials, which decides what its value may hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CredentialPart {
    /// A client id. Every user may read it (RFC 6749 section 2.2).
    Id,
    /// A secret in one line: a client secret, a password, the value of a header.
    Secret,
    /// A private key in PEM, which has lines.
    PrivateKey,
    /// Certificates in PEM, which every user may read.
    Certificate,
    /// A PKCS#12 container as base64, which may have lines.
    Pkcs12,
}

impl CredentialPart {
    /// Tells whether the value may have lines, as PEM has.
    fn has_lines(self) -> bool {
        matches!(self, Self::PrivateKey | Self::Certificate | Self::Pkcs12)
    }

    /// Tells whether every user may read the value.
    pub fn is_public(self) -> bool {
        matches!(self, Self::Id | Self::Certificate)
    }
}

/// The value itself: without the newlines at its end, which editors, `echo` and templates add.
///
/// # Errors
/// The value is blank or too long, or holds what no id and no secret can hold (RFC 6749 appendix A.1 and
/// A.2): such a value would only be refused by the server, and count as a wrong login.
pub(super) fn accept(value: &Sensitive, kind: CredentialPart) -> Result<Sensitive, SecretFault> {
    let text = value.expose();
    let mut bare = text;
    while let Some(rest) = bare.strip_suffix('\n') {
        bare = rest.strip_suffix('\r').unwrap_or(rest);
    }
    if bare.trim().is_empty() {
        return Err(SecretFault::Empty);
    }
    if bare.len() > MAX_BYTES {
        return Err(SecretFault::TooLong);
    }
    if !kind.has_lines()
        && let Some(fault) = forbidden(bare)
    {
        return Err(fault);
    }
    Ok(Sensitive::new(bare))
}

/// The first defect that no id and no secret has.
fn forbidden(text: &str) -> Option<SecretFault> {
    if text.starts_with('\u{feff}') {
        return Some(SecretFault::Forbidden("a byte order mark"));
    }
    if text.starts_with(PEM) && text.contains('\n') {
        return Some(SecretFault::Forbidden("the lines of a PEM file"));
    }
    // UTF-16 of ASCII is valid UTF-8 with a NUL in each second place.
    let nuls = text.bytes().filter(|byte| *byte == 0).count();
    if nuls > 0 && nuls >= text.len() / 2 {
        return Some(SecretFault::Utf16);
    }
    Some(SecretFault::Forbidden(match text.chars().find(|c| c.is_control() || !c.is_ascii())? {
        '\0' => "a NUL byte",
        '\n' => "a newline inside",
        '\r' => "a carriage return",
        '\t' => "a tab",
        '\u{feff}' => "a byte order mark",
        control if control.is_control() => "a control character",
        _ => "a character that is not ASCII",
    }))
}

/// The first line of a PEM file begins so (RFC 7468 section 2).
const PEM: &str = "-----BEGIN ";

/// What may be a mistake in a value that is sent as it is. `raw` is the value with its newlines.
pub(super) fn likely_mistakes(raw: &Sensitive, kind: CredentialPart) -> Vec<&'static str> {
    let bare = raw.expose().trim_end_matches(['\r', '\n']);
    let newlines = raw.expose()[bare.len()..].matches('\n').count();
    let blank = char::is_whitespace;
    let key = kind.has_lines();
    let found = [
        (bare.starts_with(blank) || bare.ends_with(blank), "blanks around it"),
        (is_quoted(bare), "quotes around it"),
        (is_assignment(bare), "it looks like KEY=value"),
        (newlines > 1, "more than one newline at its end, which are not sent"),
        (!key && bare.starts_with(PEM), "it looks like PEM, and a text belongs here"),
    ];
    found.into_iter().filter(|(is, _)| *is).map(|(_, note)| note).collect()
}

fn is_quoted(text: &str) -> bool {
    let pairs = [('"', '"'), ('\'', '\''), ('`', '`'), ('\u{201c}', '\u{201d}')];
    let text = text.trim();
    text.chars().count() > 1
        && pairs.iter().any(|(open, close)| text.starts_with(*open) && text.ends_with(*close))
}

/// Tells whether a text is a line of an environment file or of YAML. A name whose rest is `=` alone is
/// more likely base64.
fn is_assignment(text: &str) -> bool {
    let text = text.trim_start().trim_start_matches("export ");
    let Some((name, value)) = text.split_once('=').or_else(|| text.split_once(": ")) else {
        return false;
    };
    let named = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let name = name.trim_end();
    name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && name.chars().all(named)
        && !value.trim_matches('=').is_empty()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn newlines_at_the_end_go_and_what_no_secret_holds_is_refused() {
        let forbidden = |what| Err(SecretFault::Forbidden(what));
        for (found, expected) in [
            ("s", Ok("s")),
            ("s\n", Ok("s")),
            ("s\r\n", Ok("s")),
            ("s\n\n", Ok("s")),
            ("s\r\n\r\n", Ok("s")),
            (" s ", Ok(" s ")),
            ("p\u{e4}ss", forbidden("a character that is not ASCII")),
            ("s\u{200b}", forbidden("a character that is not ASCII")),
            ("s\r", forbidden("a carriage return")),
            ("a\nb\n", forbidden("a newline inside")),
            ("a\r\nb", forbidden("a carriage return")),
            ("\u{feff}s", forbidden("a byte order mark")),
            ("s\u{feff}t", forbidden("a byte order mark")),
            ("long secret\0", forbidden("a NUL byte")),
            ("a\tb", forbidden("a tab")),
            ("a\u{1b}[0m", forbidden("a control character")),
            ("a\u{7f}", forbidden("a control character")),
            ("a\u{85}", forbidden("a control character")),
            ("s\0e\0c\0", Err(SecretFault::Utf16)),
            ("\0s\0e\0c", Err(SecretFault::Utf16)),
            ("-----BEGIN KEY-----\nx\n", forbidden("the lines of a PEM file")),
            ("", Err(SecretFault::Empty)),
            ("\n", Err(SecretFault::Empty)),
            (" \t\r\n", Err(SecretFault::Empty)),
        ] {
            let value = Sensitive::new(found);
            for kind in [CredentialPart::Secret, CredentialPart::Id] {
                assert_eq!(accept(&value, kind), expected.clone().map(Sensitive::new), "{found:?}");
            }
        }
        let lines = accept(&Sensitive::new("-----BEGIN KEY-----\nx\n"), CredentialPart::PrivateKey);
        assert_eq!(lines, Ok(Sensitive::new("-----BEGIN KEY-----\nx")));
        let accept = |size| accept(&Sensitive::new("x".repeat(size)), CredentialPart::Secret);
        assert_eq!(accept(MAX_BYTES + 1), Err(SecretFault::TooLong));
        assert!(accept(MAX_BYTES).is_ok());
    }

    #[test]
    fn utf16_with_its_mark_is_named() {
        for bytes in [b"\xff\xfes\0", b"\xfe\xff\0s"] {
            assert_eq!(decode(bytes), Err(SecretFault::Utf16));
        }
        assert_eq!(decode(b"\xff"), Err(SecretFault::NotUtf8));
    }

    #[test]
    fn likely_mistakes_are_noted() {
        for (raw, expected) in [
            ("s3cr+t/with=%&\n", &[][..]),
            ("dGhlc2VjcmV0==", &[]),
            ("aGVsbG8=", &[]),
            ("8Q~a=b", &[]),
            ("https://x/?a=b", &[]),
            ("\"", &[]),
            (" s", &["blanks around it"]),
            ("s \n", &["blanks around it"]),
            ("\"s\"", &["quotes around it"]),
            ("'s'", &["quotes around it"]),
            ("CLIENT_SECRET=s", &["it looks like KEY=value"]),
            ("export CLIENT_SECRET=\"s\"", &["it looks like KEY=value"]),
            ("client_secret: s", &["it looks like KEY=value"]),
            ("s\n\n", &["more than one newline at its end, which are not sent"]),
            ("s\r\n\r\n", &["more than one newline at its end, which are not sent"]),
            ("-----BEGIN KEY-----", &["it looks like PEM, and a text belongs here"]),
        ] {
            let raw = Sensitive::new(raw);
            assert_eq!(likely_mistakes(&raw, CredentialPart::Secret), expected, "{}", raw.expose());
        }
        let key = Sensitive::new("-----BEGIN KEY-----\nx");
        assert!(likely_mistakes(&key, CredentialPart::PrivateKey).is_empty());
    }
}
