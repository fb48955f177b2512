//! Distinguished names of certificates as text (RFC 4514).

use std::fmt::Write;

use super::der::Der;

/// A name as RFC 4514 writes it, most specific part first; `None` if the bytes are not one.
///
/// `content` is the content of the SEQUENCE of relative distinguished names.
pub fn distinguished_name(content: &[u8]) -> Option<String> {
    let mut parts = Vec::new();
    let mut names = Der::new(content);
    while !names.is_empty() {
        let mut set = names.enter(Der::SET)?;
        let mut values = Vec::new();
        while !set.is_empty() {
            let mut pair = set.enter(Der::SEQUENCE)?;
            let oid = pair.take(Der::OID)?;
            values.push(format!("{}={}", attribute_type(oid)?, attribute_value(&mut pair)?));
        }
        parts.push(values.join("+"));
    }
    parts.reverse();
    Some(parts.join(","))
}

/// The short name of an attribute type (RFC 4514 section 3), or its OID in dotted decimal.
fn attribute_type(oid: &[u8]) -> Option<String> {
    let name = match oid {
        [0x55, 4, 3] => "CN",
        [0x55, 4, 6] => "C",
        [0x55, 4, 7] => "L",
        [0x55, 4, 8] => "ST",
        [0x55, 4, 9] => "STREET",
        [0x55, 4, 10] => "O",
        [0x55, 4, 11] => "OU",
        [0x09, 0x92, 0x26, 0x89, 0x93, 0xf2, 0x2c, 0x64, 1, 1] => "UID",
        [0x09, 0x92, 0x26, 0x89, 0x93, 0xf2, 0x2c, 0x64, 1, 25] => "DC",
        _ => return dotted_decimal(oid),
    };
    Some(name.to_owned())
}

/// An OID in dotted decimal (X.690 section 8.19): base 128, the first two arcs in one number. `None` if an
/// arc is cut off, padded or longer than 64 bits: its text could be that of another OID.
fn dotted_decimal(oid: &[u8]) -> Option<String> {
    let mut arcs: Vec<u64> = Vec::new();
    for arc in oid.split_inclusive(|byte| byte & 0x80 == 0) {
        if arc.first() == Some(&0x80) || arc.last().is_none_or(|byte| byte & 0x80 != 0) {
            return None;
        }
        let digit = |number: u64, byte: &u8| {
            number.checked_mul(128).map(|number| number | u64::from(byte & 0x7f))
        };
        let number = arc.iter().try_fold(0, digit)?;
        if arcs.is_empty() {
            let first = (number / 40).min(2);
            arcs.extend([first, number - first * 40]);
        } else {
            arcs.push(number);
        }
    }
    (!arcs.is_empty()).then(|| arcs.iter().map(u64::to_string).collect::<Vec<_>>().join("."))
}

/// RFC 4514 section 2.4: a string is escaped; other values are `#` and the hexadecimal of their DER.
fn attribute_value(pair: &mut Der<'_>) -> Option<String> {
    let (tag, content, whole) = pair.value()?;
    let is_text = matches!(tag, Der::UTF8 | Der::PRINTABLE | Der::IA5);
    match std::str::from_utf8(content) {
        Ok(text) if is_text => Some(escape(text)),
        _ => {
            let mut out = "#".to_owned();
            whole.iter().for_each(|byte| {
                // Writing to a `String` cannot fail.
                let _ = write!(out, "{byte:02x}");
            });
            Some(out)
        }
    }
}

/// Escapes special characters as RFC 4514 asks, and control characters so that a terminal is safe.
fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for (at, c) in text.char_indices() {
        let last = at + c.len_utf8() == text.len();
        match c {
            '"' | '+' | ',' | ';' | '<' | '>' | '\\' => out.extend(['\\', c]),
            ' ' if at == 0 || last => out.extend(['\\', c]),
            '#' if at == 0 => out.extend(['\\', c]),
            c if c.is_control() => c.encode_utf8(&mut [0; 4]).bytes().for_each(|byte| {
                let _ = write!(out, "\\{byte:02x}");
            }),
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_escaped() {
        let check = |text: &str, expected: &str| assert_eq!(escape(text), expected);
        check("plain", "plain");
        check("a+b=c;d", "a\\+b=c\\;d");
        check("#1", "\\#1");
        check("end ", "end\\ ");
        check("a\0\nb", "a\\00\\0ab");
        check("\u{9b}31m", "\\c2\\9b31m");
    }

    #[test]
    fn malformed_names_are_rejected() {
        for broken in [&[0x31][..], &[0x31, 5, 0x30], &[0x31, 2, 0x30, 0], &[0x31, 0x84, 255]] {
            assert_eq!(distinguished_name(broken), None, "{broken:?}");
        }
    }

    #[test]
    fn an_oid_has_one_text_or_none() {
        let check = |oid: &[u8], expected: Option<&str>| {
            assert_eq!(dotted_decimal(oid).as_deref(), expected, "{oid:?}");
        };
        check(&[0x2b, 6, 1, 4, 1, 0x86, 0x8d, 0x1f], Some("1.3.6.1.4.1.99999"));
        check(&[0x81, 4, 7], Some("2.52.7"));
        check(&[0x55, 4, 0x83], None); // cut off
        check(&[0x55, 4, 0x80, 3], None); // padded
        let long = [0x82, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 3];
        check(&[&[0x55, 4][..], &long].concat(), None);
        check(&[], None);
    }
}
