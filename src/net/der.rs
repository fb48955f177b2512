//! The few steps of DER (X.690) that it takes to read names and dates out of a certificate.

/// Bytes that hold one value after the other.
#[derive(Debug, Clone, Copy)]
pub(super) struct Der<'a>(&'a [u8]);

impl<'a> Der<'a> {
    pub(super) const INTEGER: u8 = 0x02;
    pub(super) const OCTETS: u8 = 0x04;
    pub(super) const OID: u8 = 0x06;
    pub(super) const UTF8: u8 = 0x0c;
    pub(super) const PRINTABLE: u8 = 0x13;
    pub(super) const IA5: u8 = 0x16;
    pub(super) const UTC_TIME: u8 = 0x17;
    pub(super) const GENERALIZED_TIME: u8 = 0x18;
    pub(super) const SEQUENCE: u8 = 0x30;
    pub(super) const SET: u8 = 0x31;

    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The kind of the next value.
    pub(super) fn peek(&self) -> Option<u8> {
        self.0.first().copied()
    }

    /// The content of the next value, which must be of this kind.
    pub(super) fn take(&mut self, expected: u8) -> Option<&'a [u8]> {
        let (tag, content, _) = self.value()?;
        (tag == expected).then_some(content)
    }

    /// Tag, content, and both with the length between them.
    pub(super) fn value(&mut self) -> Option<(u8, &'a [u8], &'a [u8])> {
        let (tag, head, length) = match *self.0 {
            [tag, short @ 0..=0x7f, ..] => (tag, 2, usize::from(short)),
            [tag, 0x81, length, ..] => (tag, 3, usize::from(length)),
            [tag, 0x82, high, low, ..] => (tag, 4, usize::from(high) << 8 | usize::from(low)),
            // Certificates longer than 64 KiB do not come through a handshake.
            _ => return None,
        };
        let (whole, rest) = self.0.split_at_checked(head + length)?;
        self.0 = rest;
        Some((tag, &whole[head..], whole))
    }
}
