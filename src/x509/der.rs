//! The few steps of DER (X.690) that it takes to read names and dates out of a certificate.

/// Bytes that hold one value after the other.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Der<'a>(&'a [u8]);

impl<'a> Der<'a> {
    pub(crate) const INTEGER: u8 = 0x02;
    pub(crate) const OCTETS: u8 = 0x04;
    pub(crate) const OID: u8 = 0x06;
    pub(crate) const UTF8: u8 = 0x0c;
    pub(crate) const PRINTABLE: u8 = 0x13;
    pub(crate) const IA5: u8 = 0x16;
    pub(crate) const UTC_TIME: u8 = 0x17;
    pub(crate) const GENERALIZED_TIME: u8 = 0x18;
    pub(crate) const SEQUENCE: u8 = 0x30;
    pub(crate) const SET: u8 = 0x31;

    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The kind of the next value.
    pub(crate) fn peek(&self) -> Option<u8> {
        self.0.first().copied()
    }

    /// The content of the next value, which must be of this kind.
    pub(crate) fn take(&mut self, expected: u8) -> Option<&'a [u8]> {
        let (tag, content, _) = self.value()?;
        (tag == expected).then_some(content)
    }

    /// Tag, content, and both with the length between them.
    pub(crate) fn value(&mut self) -> Option<(u8, &'a [u8], &'a [u8])> {
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
