//! The one canonical reading of a request target.
//!
//! Servers disagree on encoded dots and slashes, doubled slashes, dot segments and parameters. A target
//! that two servers could interpret differently is rejected. The path that was matched is therefore the
//! path that the upstream acts on, byte for byte.

use std::borrow::Cow;
use std::iter;

/// A target with one interpretation only.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Target<'a> {
    /// The path as received.
    pub path: &'a str,
    /// The query as received, without its question mark; it is never interpreted.
    pub query: Option<&'a str>,
    /// Features that need an opt-in of the route.
    pub quirks: Quirks,
}

/// Features of a path that servers interpret differently and that a route may accept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Quirks {
    /// The path holds `;`, plain or encoded.
    pub semicolon: bool,
    /// The path holds an encoded slash.
    pub encoded_slash: bool,
}

impl Quirks {
    /// True if any opt-in is needed.
    pub fn any(self) -> bool {
        self.semicolon || self.encoded_slash
    }
}

/// A target is malformed or ambiguous. The texts never repeat the target.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TargetError {
    /// The path does not begin with a slash.
    #[error("the path does not begin with a slash")]
    NoSlash,
    /// The target holds a fragment.
    #[error("the target holds a fragment (`#`), which is never sent to a server")]
    Fragment,
    /// The path holds a backslash, plain or encoded.
    #[error("the path holds a backslash, which some servers take for a slash")]
    Backslash,
    /// The target holds a control byte, plain or encoded.
    #[error("the target holds a control byte, a space or a byte beyond ASCII")]
    Control,
    /// The path holds a byte that RFC 3986 section 3.3 does not allow unencoded.
    #[error("the path holds a character that must be percent-encoded")]
    Character,
    /// A percent sign is not followed by two hexadecimal digits.
    #[error("a percent sign in the path is not followed by two hexadecimal digits")]
    Percent,
    /// The path is percent-encoded twice.
    #[error("the path is percent-encoded twice")]
    Double,
    /// An unreserved character (RFC 3986 section 2.3) is percent-encoded.
    #[error("the path percent-encodes a letter, digit, `-`, `.`, `_` or `~`; write it plainly")]
    Unreserved,
    /// A segment is empty.
    #[error("the path holds two slashes in a row")]
    EmptySegment,
    /// A segment is `.` or `..`.
    #[error("the path holds a `.` or `..` segment")]
    DotSegment,
}

impl<'a> Target<'a> {
    /// Reads a target in origin form (RFC 9112 section 3.2.1).
    ///
    /// # Errors
    /// The first property that makes the target ambiguous or malformed.
    pub fn read(target: &'a str) -> Result<Self, TargetError> {
        if target.bytes().any(|byte| byte == b'#') {
            return Err(TargetError::Fragment);
        }
        let (path, query) = match target.bytes().position(|byte| byte == b'?') {
            Some(end) => (target.get(..end).unwrap_or_default(), target.get(end + 1..)),
            None => (target, None),
        };
        if !query.unwrap_or_default().bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(TargetError::Control);
        }
        let inner = path.strip_prefix('/').ok_or(TargetError::NoSlash)?;
        let mut quirks = Quirks::default();
        let mut segments = inner.as_bytes().split(|byte| *byte == b'/').peekable();
        while let Some(segment) = segments.next() {
            if segment.is_empty() && segments.peek().is_some() {
                return Err(TargetError::EmptySegment);
            }
            read_segment(segment, &mut quirks)?;
        }
        Ok(Self { path, query, quirks })
    }
}

fn read_segment(segment: &[u8], quirks: &mut Quirks) -> Result<(), TargetError> {
    if matches!(segment, b"." | b"..") {
        return Err(TargetError::DotSegment);
    }
    if segment.iter().all(|byte| is_pchar(*byte)) {
        return Ok(());
    }
    let mut bytes = segment.iter().copied();
    while let Some(byte) = bytes.next() {
        match byte {
            b'%' => {
                let (high, low) = (bytes.next(), bytes.next());
                let (Some(high), Some(low)) = (high.and_then(digit), low.and_then(digit)) else {
                    return Err(TargetError::Percent);
                };
                read_encoded(high << 4 | low, quirks)?;
            }
            b';' => quirks.semicolon = true,
            b'\\' => return Err(TargetError::Backslash),
            byte if byte.is_ascii_control() => return Err(TargetError::Control),
            byte if is_pchar(byte) => {}
            _ => return Err(TargetError::Character),
        }
    }
    // The segment is a part of a `str` between two ASCII slashes, so it is UTF-8.
    check_decoded_parts(std::str::from_utf8(segment).map_err(|_| TargetError::Character)?)
}

/// Rejects dot segments and empty segments that appear after decoding. An opt-in accepts that servers
/// interpret `;` and `%2F` differently, but not that a path climbs: to a server that decodes slashes and
/// strips parameters, `..%2Fx` and `..;x` are dot segments.
fn check_decoded_parts(segment: &str) -> Result<(), TargetError> {
    let plain = decode_delimiters(segment);
    for part in plain.split('/') {
        match part.split(';').next().unwrap_or_default() {
            "" => return Err(TargetError::EmptySegment),
            "." | ".." => return Err(TargetError::DotSegment),
            _ => {}
        }
    }
    Ok(())
}

/// A path with encoded slashes and semicolons decoded.
fn decode_delimiters(text: &str) -> String {
    text.replace("%2F", "/").replace("%2f", "/").replace("%3B", ";").replace("%3b", ";")
}

/// True if a path is ASCII and holds nothing that servers decode or strip.
fn is_plain(path: &str) -> bool {
    path.bytes().all(|byte| byte.is_ascii() && !matches!(byte, b'%' | b';'))
}

/// A path without the parameters of its segments.
fn strip_parameters(text: &str) -> String {
    let names = text.split('/').map(|segment| segment.split(';').next().unwrap_or_default());
    names.collect::<Vec<_>>().join("/")
}

/// Other interpretations of a canonical path, by servers that decode slashes, strip parameters, or do both
/// in either order. Empty if all of them are the path itself.
pub(super) fn lenient_interpretations(path: &str) -> Vec<String> {
    if is_plain(path) {
        return Vec::new();
    }
    let plain = decode_delimiters(path);
    let semicolons = path.replace("%3B", ";").replace("%3b", ";");
    let (early, late) = (strip_parameters(path), strip_parameters(&semicolons));
    let mut all = vec![
        decode_delimiters(&early),
        decode_delimiters(&late),
        strip_parameters(&plain),
        plain,
        early,
        late,
        semicolons,
    ];
    all.retain(|reading| reading != path);
    all.sort_unstable();
    all.dedup();
    all
}

/// True if a lenient server could take a canonical path for that of a resource: a server that decodes it,
/// strips parameters, and ignores case, empty segments, and dots and spaces at the end of names.
pub fn could_alias(path: &str, resource: &str) -> bool {
    fn plain(text: &str) -> Cow<'_, str> {
        percent_encoding::percent_decode_str(text).decode_utf8_lossy()
    }
    if is_plain(path) && is_plain(resource) {
        return same_alphanumerics(path, resource) && fold(path).eq(fold(resource));
    }
    let resource = plain(resource);
    let matches = |path: &str| fold(&plain(path)).eq(fold(&resource));
    matches(path) || lenient_interpretations(path).iter().any(|path| matches(path))
}

/// True if both hold the same ASCII letters and digits. It is a cheap first test: paths that differ in
/// these are different to every server, and nearly all do.
fn same_alphanumerics(path: &str, other: &str) -> bool {
    let counts = |byte: &u8| byte.is_ascii_alphanumeric();
    let (path, other) = (path.bytes().filter(counts), other.bytes().filter(counts));
    path.map(|byte| byte.to_ascii_lowercase()).eq(other.map(|byte| byte.to_ascii_lowercase()))
}

/// The names in a path, each after a slash, as the most lenient server compares them.
fn fold(path: &str) -> impl Iterator<Item = char> {
    let names = path
        .split(['/', '\\'])
        .map(|segment| segment.split(';').next().unwrap_or_default().trim_end_matches(['.', ' ']));
    names
        .filter(|name| !name.is_empty())
        .flat_map(|name| iter::once('/').chain(name.chars().flat_map(char::to_lowercase)))
}

/// The normal form of a segment, for comparisons (RFC 3986 section 6.2.2): hexadecimal digits in upper
/// case, and `%3A` as `:`, because servers find resources by decoded names. Slashes, semicolons and percent
/// signs stay encoded.
pub(super) fn normalize_segment(segment: &str) -> Cow<'_, str> {
    if !segment.contains('%') {
        return Cow::Borrowed(segment);
    }
    let mut out = String::with_capacity(segment.len());
    let mut rest = segment;
    while let Some((before, after)) = rest.split_once('%') {
        out.push_str(before);
        let (hex, left) = after.split_at_checked(2).unwrap_or((after, ""));
        match u8::from_str_radix(hex, 16) {
            Ok(byte) if is_pchar(byte) => out.push(char::from(byte)),
            _ => {
                out.push('%');
                out.push_str(&hex.to_ascii_uppercase());
            }
        }
        rest = left;
    }
    out.push_str(rest);
    Cow::Owned(out)
}

fn read_encoded(byte: u8, quirks: &mut Quirks) -> Result<(), TargetError> {
    match byte {
        b'/' => quirks.encoded_slash = true,
        b';' => quirks.semicolon = true,
        b'\\' => return Err(TargetError::Backslash),
        b'%' => return Err(TargetError::Double),
        byte if byte.is_ascii_control() => return Err(TargetError::Control),
        byte if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) => {
            return Err(TargetError::Unreserved);
        }
        _ => {}
    }
    Ok(())
}

fn digit(byte: u8) -> Option<u8> {
    char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok())
}

/// True for `pchar` of RFC 3986 section 3.3, without the percent sign and the semicolon.
fn is_pchar(byte: u8) -> bool {
    PCHAR[usize::from(byte)]
}

/// A table, because each byte of each path is tested.
static PCHAR: [bool; 256] = {
    let mut table = [false; 256];
    let mut byte = 0_u8;
    while byte < 128 {
        table[byte as usize] = byte.is_ascii_alphanumeric();
        byte += 1;
    }
    let mut others: &[u8] = b"-._~!$&'()*+,=:@";
    while let [other, rest @ ..] = others {
        table[*other as usize] = true;
        others = rest;
    }
    table
};

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn targets_are_read_in_one_way_or_not_at_all() {
        use TargetError as E;
        let check = |target: &str, expected: Result<(), E>| {
            assert_eq!(Target::read(target).map(|_| ()), expected, "{target}");
        };
        for good in [
            "/",
            "/a",
            "/a/",
            "/a/b?x=/../%2e#".trim_end_matches('#'),
            "/a%20b",
            "/%C3%A9",
            "/a:b@c",
            "/..a",
            "/a?",
        ] {
            check(good, Ok(()));
        }
        check("a", Err(E::NoSlash));
        check("*", Err(E::NoSlash));
        check("/a#b", Err(E::Fragment));
        check("/a\\b", Err(E::Backslash));
        check("/a%5cb", Err(E::Backslash));
        check("/a%00", Err(E::Control));
        check("/a%7f", Err(E::Control));
        check("/a b", Err(E::Character));
        check("/\u{e9}", Err(E::Character));
        check("/a%", Err(E::Percent));
        check("/a%2", Err(E::Percent));
        check("/a%zz", Err(E::Percent));
        check("/a%252e", Err(E::Double));
        check("/%61", Err(E::Unreserved));
        check("/%2e%2e/a", Err(E::Unreserved));
        check("//a", Err(E::EmptySegment));
        check("/a//b", Err(E::EmptySegment));
        check("/a//", Err(E::EmptySegment));
        check("//", Err(E::EmptySegment));
        check("/a/../b", Err(E::DotSegment));
        check("/a/.", Err(E::DotSegment));
        check("/a/..;x=y/b", Err(E::DotSegment));
        for climbing in ["/a/..%2Fb", "/a/x%2f..%2fb", "/a/..%3bx/b", "/a/x%2f..;y", "/a/.%2Fb"] {
            check(climbing, Err(E::DotSegment));
        }
        for empty in ["/a/%2F", "/a%2F%2Fb", "/a/;x/b", "/a/%3Bx", "/a%2F"] {
            check(empty, Err(E::EmptySegment));
        }
        check("/a?b c", Err(E::Control));
        assert_eq!(normalize_segment("a%3ab%c3%2f%25"), "a:b%C3%2F%25");
        assert_eq!(
            lenient_interpretations("/a;x%2fb%3by"),
            ["/a", "/a/b", "/a;x%2fb;y", "/a;x/b;y"].map(str::to_owned)
        );
        assert!(
            lenient_interpretations("/a%20b").is_empty()
                && lenient_interpretations("/a").is_empty()
        );
        assert_eq!(
            Target::read("/a;b").unwrap().quirks,
            Quirks { semicolon: true, encoded_slash: false }
        );
        assert_eq!(
            Target::read("/a%3Bb").unwrap().quirks,
            Quirks { semicolon: true, encoded_slash: false }
        );
        assert_eq!(
            Target::read("/a%2Fb").unwrap().quirks,
            Quirks { semicolon: false, encoded_slash: true }
        );
    }

    #[test]
    fn a_resource_is_known_under_every_name() {
        let means = |path: &str| could_alias(path, "/oauth/Token");
        for path in [
            "/oauth/token",
            "/OAUTH/TOKEN/",
            "/oauth;a/token;b=c",
            "/oauth%2Ftoken",
            "/oauth/token%3bx",
            "/oauth/token;x%2Fy",
            "/oauth/token%3bx%2Fy",
            "/oauth/token.%20",
        ] {
            assert!(means(path), "{path}");
        }
        for path in ["/oauth", "/oauth/tokens", "/oauth/token/x", "/x/oauth/token", "/oauthtoken"] {
            assert!(!means(path), "{path}");
        }
        assert!(could_alias("/%C3%89/", "/\u{e9}"));
        assert!(could_alias("/K", "/\u{212a}"), "the Kelvin sign in small letters");
    }

    proptest! {
        /// Whatever is accepted reads the same to a server that decodes and one that does not.
        #[test]
        fn what_is_accepted_has_one_reading(target in "/[a-c./%0-9;\\\\?#]{0,24}") {
            if let Ok(read) = Target::read(&target)
                && !read.quirks.any()
            {
                let decoded = percent_encoding::percent_decode_str(read.path).collect::<Vec<u8>>();
                prop_assert_eq!(decoded.iter().filter(|byte| **byte == b'/').count(),
                    read.path.matches('/').count());
                prop_assert!(!read.path.contains("//"));
                prop_assert!(!decoded.contains(&b'\\') && !decoded.contains(&b'%'));
                prop_assert!(!decoded.split(|byte| *byte == b'/').any(|part| part == b"." || part == b".."));
            }
        }
    }
}
