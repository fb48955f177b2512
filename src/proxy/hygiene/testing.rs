//! What the tests of this folder share.

use bytes::BytesMut;

use crate::message::Fields;

/// A head of these fields, as it is read from a connection.
pub(crate) fn head(fields: &[(&str, &str)]) -> Fields {
    let mut lines = BytesMut::new();
    for (name, value) in fields {
        Fields::write_line(name.as_bytes(), value.as_bytes(), &mut lines);
    }
    lines.extend_from_slice(b"\r\n");
    Fields::read(lines, fields.len()).unwrap()
}

/// Its lines, sorted.
pub(crate) fn lines(fields: &Fields) -> Vec<String> {
    let line = |(name, value): (&[u8], &[u8])| {
        format!("{}: {}", String::from_utf8_lossy(name), String::from_utf8_lossy(value))
    };
    let mut lines: Vec<_> = fields.iter().map(line).collect();
    lines.sort_unstable();
    lines
}
