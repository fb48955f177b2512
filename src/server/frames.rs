//! What of HTTP/2 must be seen on the wire, because hyper does not tell it: heads that do not come
//! to their end, streams that are cancelled by the hundred, and paths that hold a fragment.
//!
//! Of heads all is read, of other frames the nine bytes before each (RFC 9113 section 4.1). Frames
//! that are out of order are the h2 crate's to refuse.

use std::time::Duration;

use tokio::time::Instant;

use super::hpack::brings_fragment;

const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const CONTINUATION: u8 = 9;
const END_HEADERS: u8 = 4;
const PADDED: u8 = 8;
const PRIORITY: u8 = 0x20;

/// Bytes of a head that are looked at; the h2 crate refuses longer ones.
const LONGEST_HEAD: usize = 64 * 1024;
/// Bytes of room for a head that a connection keeps.
const KEPT: usize = 1024;

/// Bytes of the connection preface, which comes before the first frame.
const PREFACE: usize = 24;

/// The time over which cancelled streams are counted.
const RESET_WINDOW: Duration = Duration::from_secs(10);

/// Follows the frames that a client sends.
#[derive(Debug)]
pub(super) struct Frames {
    header: [u8; 9],
    /// Bytes of `header` that have come.
    filled: usize,
    /// Bytes of the present frame that are yet to come.
    payload: usize,
    /// Whether a head has begun; at first that is the client's greeting.
    in_head: bool,
    /// Whether it ends with the present frame.
    ends_head: bool,
    head_since: Option<Instant>,
    /// What has come of a head, still packed.
    block: Vec<u8>,
    /// Where in it the present frame begins.
    frame: usize,
    fragment: bool,
    resets: u32,
    counted_from: Instant,
}

impl Frames {
    /// Nothing has come, not even the preface.
    pub(super) fn new() -> Self {
        let now = Instant::now();
        Self {
            header: [0; 9],
            filled: 0,
            payload: PREFACE,
            in_head: true,
            ends_head: false,
            head_since: Some(now),
            block: Vec::new(),
            frame: 0,
            fragment: false,
            resets: 0,
            counted_from: now,
        }
    }

    /// Since when the client has been sending a head.
    pub(super) fn head_since(&self) -> Option<Instant> {
        self.head_since
    }

    /// Streams that the client cancelled of late.
    pub(super) fn resets(&self) -> u32 {
        self.resets
    }

    /// Whether a path with a fragment has come. What refers to it later does not tell, so that this
    /// holds for the rest of the connection.
    pub(super) fn fragment(&self) -> bool {
        self.fragment
    }

    /// Takes note of bytes that came.
    pub(super) fn follow(&mut self, mut bytes: &[u8]) {
        while let Some(first) = bytes.first() {
            if self.payload > 0 {
                let (part, rest) = bytes.split_at(self.payload.min(bytes.len()));
                if self.is_of_head() && self.block.len() < LONGEST_HEAD {
                    self.block.extend_from_slice(part);
                }
                self.payload -= part.len();
                bytes = rest;
            } else {
                if let Some(place) = self.header.get_mut(self.filled) {
                    *place = *first;
                }
                bytes = bytes.get(1..).unwrap_or_default();
                self.filled += 1;
                if self.filled < self.header.len() {
                    continue;
                }
                self.begin();
            }
            if self.payload == 0 && self.filled == 0 {
                self.end();
            }
        }
        self.head_since = match self.in_head {
            true => self.head_since.or_else(|| Some(Instant::now())),
            false => None,
        };
    }

    fn begin(&mut self) {
        let [long, middle, short, kind, flags, ..] = self.header;
        self.filled = 0;
        self.frame = self.block.len();
        self.payload = usize::from(long) << 16 | usize::from(middle) << 8 | usize::from(short);
        match kind {
            HEADERS | CONTINUATION => {
                (self.in_head, self.ends_head) = (true, flags & END_HEADERS != 0);
            }
            SETTINGS => self.ends_head = true,
            RST_STREAM => self.count_reset(Instant::now()),
            _ => {}
        }
    }

    fn is_of_head(&self) -> bool {
        matches!(self.header, [_, _, _, HEADERS | CONTINUATION, ..])
    }

    /// The present frame has come whole, and perhaps its head with it.
    fn end(&mut self) {
        if let [_, _, _, HEADERS, flags, ..] = self.header {
            trim(&mut self.block, self.frame, flags);
        }
        if self.ends_head {
            self.fragment |= brings_fragment(&self.block);
            self.block.clear();
            self.block.shrink_to(KEPT);
            (self.in_head, self.ends_head) = (false, false);
        }
        self.header = [0; 9];
    }

    fn count_reset(&mut self, now: Instant) {
        if now.duration_since(self.counted_from) > RESET_WINDOW {
            (self.resets, self.counted_from) = (0, now);
        }
        self.resets = self.resets.saturating_add(1);
    }
}

/// Takes padding and priority off a frame that begins here (RFC 9113 section 6.2).
fn trim(block: &mut Vec<u8>, start: usize, flags: u8) {
    let frame = block.get(start..).unwrap_or_default();
    let (before, after) = match (flags & PADDED, frame) {
        (0, _) | (_, []) => (0, 0),
        (_, [padding, ..]) => (1, usize::from(*padding)),
    };
    let before = before + if flags & PRIORITY == 0 { 0 } else { 5 };
    block.truncate(block.len().saturating_sub(after).max(start));
    block.drain(start..(start + before).min(block.len()));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(kind: u8, flags: u8, payload: &[u8]) -> Vec<u8> {
        let length = u8::try_from(payload.len()).unwrap();
        [&[0, 0, length, kind, flags, 0, 0, 0, 1][..], payload].concat()
    }

    fn greeted() -> Frames {
        let mut frames = Frames::new();
        frames.follow(&[0; PREFACE]);
        assert!(frames.head_since().is_some());
        frames.follow(&frame(SETTINGS, 0, b"123456"));
        assert_eq!(frames.head_since(), None);
        frames
    }

    #[tokio::test]
    async fn a_head_lasts_from_its_first_frame_to_the_end_of_its_last() {
        let check = |wire: &[u8], open_at: &[usize]| {
            let mut frames = greeted();
            for (at, byte) in wire.iter().enumerate() {
                frames.follow(&[*byte]);
                let expected = open_at.first().is_some_and(|first| at >= *first)
                    && open_at.last().is_some_and(|last| at < *last);
                assert_eq!(frames.head_since().is_some(), expected, "at {at} of {wire:?}");
            }
            let mut frames = greeted();
            frames.follow(wire);
            assert_eq!(frames.head_since().is_some(), open_at.last() == Some(&usize::MAX));
        };
        check(&frame(HEADERS, END_HEADERS, b"head"), &[8, 12]);
        check(&frame(HEADERS, END_HEADERS, b""), &[]);
        check(&frame(HEADERS, 0, b"he"), &[8, usize::MAX]);
        let two = [frame(HEADERS, 0, b"he"), frame(CONTINUATION, END_HEADERS, b"ad")].concat();
        check(&two, &[8, 21]);
        check(&frame(0, END_HEADERS, b"data"), &[]);
    }

    #[tokio::test]
    async fn a_fragment_is_found_however_its_head_comes() {
        let path = [&[0x82, 0x04, 4][..], b"/a#b"].concat();
        let check = |wire: &[u8], expected: bool| {
            for piece in [1, 2, 7, 4096] {
                let mut frames = greeted();
                wire.chunks(piece).for_each(|piece| frames.follow(piece));
                assert_eq!(frames.fragment(), expected, "{wire:x?} by {piece}");
            }
        };
        check(&frame(HEADERS, END_HEADERS, &path), true);
        check(&frame(HEADERS, 0, &path), false);
        let two = [frame(HEADERS, 0, &path[..4]), frame(CONTINUATION, END_HEADERS, &path[4..])];
        check(&two.concat(), true);
        let padded = [&[2][..], &[0; 5], &path, &[0; 2]].concat();
        check(&frame(HEADERS, END_HEADERS | PADDED | PRIORITY, &padded), true);
        check(&frame(HEADERS, END_HEADERS | PADDED, &[9, 0x82]), false);
        check(&frame(0, END_HEADERS, &path), false);
        let clean = frame(HEADERS, END_HEADERS, &[&[0x82, 0x04, 2][..], b"/a"].concat());
        check(&clean, false);
        check(&[frame(HEADERS, END_HEADERS, &path), clean].concat(), true);
    }

    #[tokio::test(start_paused = true)]
    async fn cancelled_streams_are_counted_over_a_while() {
        let mut frames = greeted();
        for _ in 0..7 {
            frames.follow(&frame(RST_STREAM, 0, b"1234"));
        }
        assert_eq!(frames.resets(), 7);
        tokio::time::advance(RESET_WINDOW + Duration::from_secs(1)).await;
        frames.follow(&frame(RST_STREAM, 0, b"1234"));
        assert_eq!(frames.resets(), 1);
    }
}
