//! Request targets and their readings.

use super::*;
use proptest::prelude::*;

fn canonical(target: &str) -> String {
    let read = Target::read(target).unwrap_or_else(|error| panic!("{target}: {error}"));
    assert_eq!(read.quirks, Quirks::default(), "{target}");
    read.path.into_owned()
}

/// The first quirk of a target: its kind, place and bytes.
fn quirk(target: &str) -> (Flaw, usize, String) {
    let read = Target::read(target).unwrap_or_else(|error| panic!("{target}: {error}"));
    let found = read.quirks.refused(QuirkSet::empty()).cloned();
    let found = found.unwrap_or_else(|| panic!("{target} has no quirk"));
    let text = found.to_string();
    let bytes = text.split('`').nth(1).unwrap_or_default().to_owned();
    (found.flaw, found.position, bytes)
}

#[test]
fn what_has_one_reading_is_canonical() {
    for path in
        ["/", "/a", "/a/", "/a%20b", "/%C3%A9", "/a:b@c", "/..a", "/rates/100%25", "/50%25off/x"]
    {
        assert_eq!(canonical(path), path);
    }
    assert_eq!(Target::read("/a/b?x=/../%2e//;").unwrap().path, "/a/b");
    assert_eq!(Target::read("/a?").unwrap().query, Some(""));
    for (received, expected) in [
        ("/%61", "/a"),
        ("/%7Euser", "/~user"),
        ("/a%2Db%5fc%39", "/a-b_c9"),
        ("/%70%61y/%25", "/pay/%25"),
        ("/%7e%20%3a", "/~%20%3a"),
        ("/1%25%7e", "/1%25~"),
    ] {
        assert_eq!(canonical(received), expected);
    }
}

#[test]
fn flaws_are_refused_with_their_place() {
    use Flaw as F;
    let check = |target: &str, flaw: Flaw, position: usize, bytes: &str| {
        let error = Target::read(target).err().unwrap_or_else(|| panic!("{target} is accepted"));
        assert_eq!((error.flaw, error.position), (flaw, position), "{target}");
        let text = error.to_string();
        assert!(flaw == F::NoSlash || text.contains(&format!("`{bytes}` at position")), "{text}");
        assert!(flaw == F::EmptySegment || !text.contains("two slashes"), "{text}");
    };
    check("a", F::NoSlash, 0, "");
    check("*", F::NoSlash, 0, "");
    check("", F::NoSlash, 0, "");
    check("/a#b", F::Fragment, 2, "#");
    check("/a?b c", F::ControlInQuery, 4, "\\x20");
    check("/a\\b", F::Backslash, 2, "\\");
    check("/a%5cb", F::Backslash, 2, "%5c");
    check("/a%255cb", F::Backslash, 2, "%255c");
    check("/a%00", F::Control, 2, "%00");
    check("/a%7f", F::Control, 2, "%7f");
    check("/a%250a", F::Control, 2, "%250a");
    check("/a b", F::Character, 2, "\\x20");
    check("/a[1]", F::Character, 2, "[");
    check("/\u{e9}", F::Character, 1, "\\xC3");
    check("/a%", F::Percent, 2, "%");
    check("/a%2", F::Percent, 2, "%2");
    check("/a%zz", F::Percent, 2, "%zz");
    check("/a%%32", F::Percent, 2, "%%3");
    check("/%61%2e%2e/a", F::EncodedDot, 4, "%2e");
    check("/a/file%2Ejson", F::EncodedDot, 7, "%2E");
    check("/a%252e", F::EncodedDot, 2, "%252e");
    check("/a/%25%32%65/b", F::EncodedDot, 3, "%25%32%65");
    check("/a%25252F", F::EncodedThrice, 2, "%25252F");
    check("/a/../b", F::DotSegment, 3, "..");
    check("/a/.", F::DotSegment, 3, ".");
    check("/a/..;x=y/b", F::DotSegment, 3, "..");
    check("/a/..%2Fb", F::DotSegment, 3, "..");
    check("/%61/x%2f..%2fb", F::DotSegment, 9, "..");
    check("/a/..%3bx/b", F::DotSegment, 3, "..");
    check("/a/x%2f..;y", F::DotSegment, 7, "..");
    check("/a/.%2Fb", F::DotSegment, 3, ".");
    check("/a/x%252f..%252fb", F::DotSegment, 9, "..");
    check("/a/..%253bb", F::DotSegment, 3, "..");
    check("/a//../b", F::DotSegment, 4, "..");
    check("/a/;x/b", F::NamelessParameters, 3, ";");
    check("/a/%3Bx", F::NamelessParameters, 3, "%3B");
    check("/a%2F;x", F::NamelessParameters, 5, ";");
}

#[test]
fn quirks_are_left_to_the_route() {
    use Flaw as F;
    let check = |target: &str, flaw: Flaw, position: usize, bytes: &str| {
        assert_eq!(quirk(target), (flaw, position, bytes.to_owned()), "{target}");
    };
    check("/a;b", F::Semicolon, 2, ";");
    check("/a%3Bb", F::Semicolon, 2, "%3B");
    check("/a%2Fb", F::EncodedSlash, 2, "%2F");
    check("/api/queues/%2F/q", F::EncodedSlash, 12, "%2F");
    check("/a%2f%2Fb", F::EncodedSlash, 2, "%2f");
    check("/a%2F", F::EncodedSlash, 2, "%2F");
    check("/%61%2F", F::EncodedSlash, 4, "%2F");
    check("//a", F::EmptySegment, 0, "//");
    check("/a//b", F::EmptySegment, 2, "//");
    check("/a///", F::EmptySegment, 2, "//");
    check("//", F::EmptySegment, 0, "//");
    check("/a%252Fb", F::EncodedPercent, 2, "%252F");
    check("/a/100%2525", F::EncodedPercent, 6, "%2525");
    check("/a%25%34%31", F::EncodedPercent, 2, "%25%34%31");
    check("/a;b%2Fc//d", F::Semicolon, 2, ";");
    let both = Target::read("/a%2Fb;c").unwrap().quirks;
    assert_eq!(both.kinds(), QuirkSet::ENCODED_SLASH | QuirkSet::SEMICOLON);
    let second = both.refused(QuirkSet::ENCODED_SLASH).map(|found| found.flaw);
    assert_eq!(second, Some(F::Semicolon));
    assert_eq!(both.refused(both.kinds()), None);
}

#[test]
fn readings_of_lenient_servers_are_known() {
    assert_eq!(normalize_segment("a%3ab%c3%2f%25"), "a:b%C3%2F%25");
    let check = |path: &str, expected: &[&str]| {
        let Interpretations { decoded, merged } = lenient_interpretations(path);
        let mut all = [decoded, merged].concat();
        all.sort_unstable();
        assert_eq!(all, expected, "{path}");
    };
    check("/a;x%2fb%3by", &["/a", "/a/b", "/a;x%2fb;y", "/a;x/b;y"]);
    check("/a%20b", &[]);
    check("/a", &[]);
    check("/a//b/", &["/a/b/"]);
    check("/a%2F", &["/a/"]);
    check("/q/%2F/x", &["/q///x", "/q/x"]);
    check("/a%252Fb", &["/a%2Fb", "/a/b"]);
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
        "/oauth%252Ftoken",
        "/oauth/tok%2565n",
        "//oauth//token//",
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
            && read.quirks == Quirks::default()
        {
            let decoded = percent_encoding::percent_decode_str(&read.path).collect::<Vec<u8>>();
            prop_assert_eq!(decoded.iter().filter(|byte| **byte == b'/').count(),
                read.path.matches('/').count());
            prop_assert!(!read.path.contains("//"));
            prop_assert!(!decoded.contains(&b'\\'));
            let again = percent_encoding::percent_decode(&decoded).collect::<Vec<u8>>();
            prop_assert_eq!(&again, &decoded);
            prop_assert!(!decoded.split(|byte| *byte == b'/').any(|part| part == b"." || part == b".."));
        }
    }
}
