//! Properties of certificates: where the reader in `x509` and `x509-parser`, an independent one, both take
//! a certificate, they read the same; and no bytes make it panic.

use bearer_proxy::x509::certificate::Certificate;
use std::time::{Duration, SystemTime};
use x509_parser::asn1_rs::{Any, Class};
use x509_parser::prelude::{AttributeTypeAndValue, FromDer, X509Certificate, X509Name};
use x509_parser::time::ASN1Time;

/// Checks one certificate, which may be any bytes.
pub fn check(der: &[u8]) {
    let ours = Certificate::read(der);
    let Ok((_, theirs)) = X509Certificate::from_der(der) else { return };
    let (Some(valid_from), Some(valid_until)) =
        (time(theirs.validity().not_before), time(theirs.validity().not_after))
    else {
        return;
    };
    let Some(ours) = ours else { return };
    assert_eq!(ours.valid_from, valid_from);
    assert_eq!(ours.valid_until, valid_until);
    same_name(&ours.subject, theirs.subject());
    same_name(&ours.issuer, theirs.issuer());
    if theirs.subject().as_raw() == theirs.issuer().as_raw() {
        assert!(ours.is_self_issued());
    }
    let has_names = theirs
        .extensions()
        .iter()
        .any(|extension| extension.oid == x509_parser::oid_registry::OID_X509_EXT_SUBJECT_ALT_NAME);
    // `x509-parser` takes any tag of number 3 for the [3] of the extensions (RFC 5280 section 4.1).
    if has_extensions_tag(theirs.tbs_certificate.as_ref()) {
        assert_eq!(ours.has_names, has_names, "{der:02x?}");
    } else {
        assert!(!ours.has_names, "{der:02x?}");
    }
}

/// True if the field of the extensions, with its context-specific tag, is there.
fn has_extensions_tag(tbs: &[u8]) -> bool {
    let Ok((_, certificate)) = Any::from_der(tbs) else { return false };
    let mut rest = certificate.data;
    while let Ok((after, field)) = Any::from_der(rest) {
        let is_explicit = field.class() == Class::ContextSpecific && field.header.is_constructed();
        if is_explicit && field.tag().0 == 3 {
            return true;
        }
        rest = after;
    }
    false
}

fn time(time: ASN1Time) -> Option<SystemTime> {
    let seconds = time.timestamp();
    let span = Duration::from_secs(seconds.unsigned_abs());
    match seconds < 0 {
        true => SystemTime::UNIX_EPOCH.checked_sub(span),
        false => SystemTime::UNIX_EPOCH.checked_add(span),
    }
}

/// Reads a name back from its text, as RFC 4514 has it, and compares each value with the parsed name.
fn same_name(text: &str, name: &X509Name<'_>) {
    let mut expected: Vec<Vec<String>> =
        name.iter_rdn().map(|rdn| rdn.iter().map(written).collect()).collect();
    expected.reverse();
    let found = match text {
        "(no name)" => Vec::new(),
        text => split(text, ',').iter().map(|part| split(part, '+')).collect(),
    };
    let found: Vec<Vec<String>> = found
        .into_iter()
        .map(|part: Vec<String>| part.iter().map(|value| unescaped(value)).collect())
        .collect();
    // `x509-parser` takes the first byte of an OID for its first two arcs. Below 2 that is right (X.690
    // section 8.19.4); from 2.40 on it is not, and ours is what the standard says.
    let mut types = name.iter_attributes().map(|attribute| attribute.attr_type().as_bytes());
    let is_comparable = types.all(|oid| oid.first().is_some_and(|byte| *byte < 120));
    // A set without values leaves nothing to compare.
    if is_comparable && expected.iter().all(|set| !set.is_empty()) {
        assert_eq!(found, expected, "{text}");
    }
}

/// `type=value` with the value unescaped, or in hexadecimal where it is no string of UTF-8.
fn written(attribute: &AttributeTypeAndValue<'_>) -> String {
    let oid = attribute.attr_type().to_id_string();
    let kind = match oid.as_str() {
        "2.5.4.3" => "CN",
        "2.5.4.6" => "C",
        "2.5.4.7" => "L",
        "2.5.4.8" => "ST",
        "2.5.4.9" => "STREET",
        "2.5.4.10" => "O",
        "2.5.4.11" => "OU",
        "0.9.2342.19200300.100.1.1" => "UID",
        "0.9.2342.19200300.100.1.25" => "DC",
        // `x509-parser` writes the OID of one zero byte so, which is 0.0 (X.690 section 8.19.4).
        "0" => "0.0",
        oid => oid,
    };
    let value = attribute.attr_value();
    // UTF8String, PrintableString, IA5String.
    let is_universal = value.class() == Class::Universal && !value.header.is_constructed();
    let is_text = is_universal && matches!(value.tag().0, 12 | 19 | 22);
    match std::str::from_utf8(value.data) {
        Ok(text) if is_text => format!("{kind}={text}"),
        _ => format!("{kind}=#"),
    }
}

/// Splits a text at a character that no backslash stands before.
fn split(text: &str, at: char) -> Vec<String> {
    let mut parts = vec![String::new()];
    let mut escaped = false;
    for c in text.chars() {
        if c == at && !escaped {
            parts.push(String::new());
        } else if let Some(part) = parts.last_mut() {
            part.push(c);
        }
        escaped = c == '\\' && !escaped;
    }
    parts
}

/// Takes the escapes of RFC 4514 section 3 away; of a value in hexadecimal only its `#` stays.
fn unescaped(text: &str) -> String {
    let (kind, value) = text.split_once('=').unwrap();
    if value.starts_with('#') {
        return format!("{kind}=#");
    }
    let mut bytes = Vec::new();
    let mut rest = value.bytes();
    while let Some(byte) = rest.next() {
        match byte {
            b'\\' => {
                let next = rest.next().unwrap();
                match char::from(next).to_digit(16) {
                    Some(high) => {
                        let low = char::from(rest.next().unwrap()).to_digit(16).unwrap();
                        bytes.push(u8::try_from(high * 16 + low).unwrap());
                    }
                    None => bytes.push(next),
                }
            }
            byte => bytes.push(byte),
        }
    }
    format!("{kind}={}", String::from_utf8(bytes).unwrap())
}
