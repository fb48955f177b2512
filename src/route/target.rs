//! The one canonical reading of a request target.
//!
//! Servers disagree on encoded dots and slashes, doubled slashes, dot segments and parameters. A
//! target that two of them could read differently is refused, so that what was matched is what the
//! upstream will act on, byte for byte.

use std::borrow::Cow;
use std::{fmt, iter};

/// A target that can be read in one way only.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Target<'a> {
    /// The path, as it came.
    pub path: &'a str,
    /// The query without its question mark, as it came; it is never interpreted.
    pub query: Option<&'a str>,
    /// What needs a route's opt-in.
    pub quirks: Quirks,
}

/// Features of a path that servers read differently, and that a route may accept all the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Quirks {
    /// `;` stands in the path, plain or encoded.
    pub semicolon: bool,
    /// An encoded slash stands in the path.
    pub encoded_slash: bool,
}

impl Quirks {
    /// Whether any opt-in is needed.
    pub fn any(self) -> bool {
        self.semicolon || self.encoded_slash
    }
}

/// Why a target is refused. The words never repeat the target.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TargetError {
    /// It does not begin with a slash.
    NoSlash,
    /// It holds a fragment.
    Fragment,
    /// It holds a backslash, plain or encoded.
    Backslash,
    /// It holds a control byte, plain or encoded.
    Control,
    /// It holds a byte that RFC 3986 does not allow unencoded.
    Character,
    /// A percent sign is not followed by two hexadecimal digits.
    Percent,
    /// It is percent-encoded twice.
    Double,
    /// A character is percent-encoded that need not be.
    Unreserved,
    /// A segment is empty.
    EmptySegment,
    /// A segment is `.` or `..`.
    DotSegment,
}

impl<'a> Target<'a> {
    /// Reads a target in origin form.
    ///
    /// # Errors
    /// Whatever makes it ambiguous or malformed.
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
    // It was cut from a text at slashes, so that it is one.
    read_parts(std::str::from_utf8(segment).map_err(|_| TargetError::Character)?)
}

/// An opt-in accepts that servers read `;` and `%2F` differently, not that a path climbs: to a
/// server that decodes slashes and cuts parameters off, `..%2Fx` and `..;x` are dot segments too.
fn read_parts(segment: &str) -> Result<(), TargetError> {
    let plain = decoded(segment);
    for part in plain.split('/') {
        match part.split(';').next().unwrap_or_default() {
            "" => return Err(TargetError::EmptySegment),
            "." | ".." => return Err(TargetError::DotSegment),
            _ => {}
        }
    }
    Ok(())
}

/// Encoded slashes and semicolons written plainly.
fn decoded(text: &str) -> String {
    text.replace("%2F", "/").replace("%2f", "/").replace("%3B", ";").replace("%3b", ";")
}

/// Whether a path is ASCII, with nothing that servers decode or cut off.
fn is_plain(path: &str) -> bool {
    path.bytes().all(|byte| byte.is_ascii() && !matches!(byte, b'%' | b';'))
}

/// Parameters cut off every segment.
fn strip_parameters(text: &str) -> String {
    let names = text.split('/').map(|segment| segment.split(';').next().unwrap_or_default());
    names.collect::<Vec<_>>().join("/")
}

/// How servers read a canonical path that decode slashes, cut parameters off, or do both in either
/// order; none where all of that is the path itself.
pub(super) fn lenient_interpretations(path: &str) -> Vec<String> {
    if is_plain(path) {
        return Vec::new();
    }
    let plain = decoded(path);
    let semicolons = path.replace("%3B", ";").replace("%3b", ";");
    let (early, late) = (strip_parameters(path), strip_parameters(&semicolons));
    let mut all = vec![
        decoded(&early),
        decoded(&late),
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

/// Whether some server may take a canonical path for that of a resource: one that decodes it, cuts
/// parameters off, and ignores case, empty segments, and dots and spaces at the end of names.
pub fn could_alias(path: &str, resource: &str) -> bool {
    fn plain(text: &str) -> Cow<'_, str> {
        percent_encoding::percent_decode_str(text).decode_utf8_lossy()
    }
    if is_plain(path) && is_plain(resource) {
        return same_alphanumerics(path, resource) && fold(path).eq(fold(resource));
    }
    let meant = plain(resource);
    let means = |reading: &str| fold(&plain(reading)).eq(fold(&meant));
    means(path) || lenient_interpretations(path).iter().any(|reading| means(reading))
}

/// Whether the letters and digits of ASCII are the same; where they are not, no server takes one path
/// for the other, which is soon seen of nearly all.
fn same_alphanumerics(path: &str, other: &str) -> bool {
    let told = |byte: &u8| byte.is_ascii_alphanumeric();
    let (path, other) = (path.bytes().filter(told), other.bytes().filter(told));
    path.map(|byte| byte.to_ascii_lowercase()).eq(other.map(|byte| byte.to_ascii_lowercase()))
}

/// The names in a path, each after a slash, as the laxest of servers compares them.
fn fold(path: &str) -> impl Iterator<Item = char> {
    let names = path
        .split(['/', '\\'])
        .map(|segment| segment.split(';').next().unwrap_or_default().trim_end_matches(['.', ' ']));
    names
        .filter(|name| !name.is_empty())
        .flat_map(|name| iter::once('/').chain(name.chars().flat_map(char::to_lowercase)))
}

/// One spelling of a segment for comparing: RFC 3986 section 6.2.2 makes hexadecimal digits upper
/// case, and `%3A` is `:` to every server that finds resources by decoded names. Slashes, semicolons
/// and percent signs stay encoded.
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

/// RFC 3986 section 3.3, without the percent sign and the semicolon.
fn is_pchar(byte: u8) -> bool {
    PCHAR[usize::from(byte)]
}

/// A table, since each byte of each path is looked at.
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

impl fmt::Display for TargetError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NoSlash => "the path does not begin with a slash",
            Self::Fragment => "the target holds a fragment (`#`), which is never sent to a server",
            Self::Backslash => "the path holds a backslash, which some servers take for a slash",
            Self::Control => "the target holds a control byte, a space or a byte beyond ASCII",
            Self::Character => "the path holds a character that must be percent-encoded",
            Self::Percent => "a percent sign in the path is not followed by two hexadecimal digits",
            Self::Double => "the path is percent-encoded twice",
            Self::Unreserved => {
                "the path percent-encodes a letter, digit, `-`, `.`, `_` or `~`; write it plainly"
            }
            Self::EmptySegment => "the path holds two slashes in a row",
            Self::DotSegment => "the path holds a `.` or `..` segment",
        })
    }
}

impl std::error::Error for TargetError {}

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
