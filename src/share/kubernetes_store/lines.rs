//! `Lines`: the lines of a stream of bytes, each of a bounded length.

use bytes::Bytes;

use super::connection::MAX_BYTES;

/// The bytes that have arrived and belong to no whole line yet.
#[derive(Default)]
pub(super) struct Lines {
    rest: Vec<u8>,
}

/// A line is longer than an event may be.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct TooLong;

impl Lines {
    /// Takes further bytes, and returns the lines that they complete.
    pub(super) fn push(&mut self, bytes: &Bytes) -> Result<Vec<Vec<u8>>, TooLong> {
        let mut lines = Vec::new();
        let mut from = 0;
        for end in memchr::memchr_iter(b'\n', bytes) {
            let mut line = std::mem::take(&mut self.rest);
            self.extend(&mut line, &bytes[from..end])?;
            lines.push(line);
            from = end + 1;
        }
        let mut rest = std::mem::take(&mut self.rest);
        self.extend(&mut rest, &bytes[from..])?;
        self.rest = rest;
        Ok(lines)
    }

    fn extend(&self, line: &mut Vec<u8>, bytes: &[u8]) -> Result<(), TooLong> {
        if line.len() + bytes.len() > MAX_BYTES {
            return Err(TooLong);
        }
        line.extend_from_slice(bytes);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_come_whole_however_they_are_cut() {
        let text = b"{\"a\":1}\n\n{\"b\":2}\n{\"c\"";
        for size in 1..text.len() {
            let mut lines = Lines::default();
            let found: Vec<Vec<u8>> = text
                .chunks(size)
                .flat_map(|chunk| lines.push(&Bytes::copy_from_slice(chunk)).unwrap())
                .collect();
            assert_eq!(found, [&b"{\"a\":1}"[..], b"", b"{\"b\":2}"], "{size}");
        }
    }

    #[test]
    fn a_line_without_end_is_refused() {
        let mut lines = Lines::default();
        let chunk = Bytes::from(vec![b'x'; MAX_BYTES]);
        assert_eq!(lines.push(&chunk).map(|lines| lines.len()), Ok(0));
        assert_eq!(lines.push(&chunk), Err(TooLong));
    }
}
