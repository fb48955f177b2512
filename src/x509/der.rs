//! The part of DER (X.690) that names and dates of a certificate need.

/// A sequence of DER values, read from front to back.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Der<'a>(&'a [u8]);

impl<'a> Der<'a> {
    pub(crate) const INTEGER: u8 = 0x02;
    pub(crate) const BITS: u8 = 0x03;
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

    /// The tag of the next value.
    pub(crate) fn peek(&self) -> Option<u8> {
        self.0.first().copied()
    }

    /// The content of the next value; `None` if its tag is not the expected one.
    pub(crate) fn take(&mut self, expected: u8) -> Option<&'a [u8]> {
        let (tag, content, _) = self.value()?;
        (tag == expected).then_some(content)
    }

    /// The next value constructed of other values, as a reader of these.
    pub(crate) fn enter(&mut self, expected: u8) -> Option<Self> {
        self.take(expected).map(Self)
    }

    /// Tag, content and whole encoding of the next value; `None` at the end, and for bytes that are not DER.
    pub(crate) fn value(&mut self) -> Option<(u8, &'a [u8], &'a [u8])> {
        // A tag number above 30 takes further bytes (X.690 section 8.1.2.4); certificates have none.
        if self.peek()? & 0x1f == 0x1f {
            return None;
        }
        let (tag, head, length) = match *self.0 {
            [tag, short @ 0..=0x7f, ..] => (tag, 2, usize::from(short)),
            [tag, 0x81, length, ..] => (tag, 3, usize::from(length)),
            [tag, 0x82, high, low, ..] => (tag, 4, usize::from(high) << 8 | usize::from(low)),
            // A TLS handshake carries no certificate longer than 64 KiB.
            _ => return None,
        };
        let (whole, rest) = self.0.split_at_checked(head + length)?;
        self.0 = rest;
        Some((tag, &whole[head..], whole))
    }
}
