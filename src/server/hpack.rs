//! As much of HPACK (RFC 7541) as tells whether a request's path holds a `#`.
//!
//! The h2 crate cuts a path off there and says nothing of it, so that what the client sent and what a
//! route matched would differ. Nothing else is judged: a block that is no HPACK is that crate's to
//! refuse.

/// `:path` in the static table, which comes with two values.
const PATHS: [usize; 2] = [4, 5];

/// How many symbols have a code of so many bits (RFC 7541 appendix B). Codes of one length follow each
/// other and those of the length before, so that this alone tells where each ends.
const SYMBOLS: [u32; 31] = [
    0, 0, 0, 0, 0, 10, 26, 32, 6, 0, 5, 3, 2, 6, 2, 3, 0, 0, 0, 3, 8, 13, 26, 29, 12, 4, 15, 19,
    29, 0, 4,
];

/// Bits of the code of `#`, which is the first of that length.
const HASH: usize = 12;

/// Whether a header block brings a path with a `#`. One that refers to an earlier block does not
/// bring it.
pub(super) fn brings_fragment(mut block: &[u8]) -> bool {
    while !block.is_empty() {
        match field(&mut block) {
            Some(true) => return true,
            Some(false) => {}
            None => return false,
        }
    }
    false
}

/// Takes one field off the front; says whether it is a path with a `#`.
fn field(block: &mut &[u8]) -> Option<bool> {
    let bits = match block.first()? {
        0x80.. => 7,
        0x40.. => 6,
        0x20.. => 5,
        _ => 4,
    };
    let index = integer(block, bits)?;
    if bits == 7 || bits == 5 {
        return Some(false); // a whole field of a table, or a table's new size
    }
    let is_path = match index {
        0 => Text::take(block)?.is(b":path"),
        named => PATHS.contains(&named),
    };
    let value = Text::take(block)?;
    Some(is_path && value.holds_hash())
}

/// RFC 7541 section 5.1, with the prefix's bits.
fn integer(block: &mut &[u8], bits: u32) -> Option<usize> {
    let (first, mut rest) = block.split_first()?;
    let most = (1_usize << bits) - 1;
    let mut number = usize::from(*first) & most;
    if number == most {
        for shift in (0..28).step_by(7) {
            let (byte, after) = rest.split_first()?;
            rest = after;
            number += usize::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                *block = rest;
                return Some(number);
            }
        }
        return None;
    }
    *block = rest;
    Some(number)
}

/// A string, packed or not (RFC 7541 section 5.2).
struct Text<'a> {
    bytes: &'a [u8],
    packed: bool,
}

impl<'a> Text<'a> {
    fn take(block: &mut &'a [u8]) -> Option<Self> {
        let packed = block.first()? & 0x80 != 0;
        let length = integer(block, 7)?;
        let (bytes, rest) = block.split_at_checked(length)?;
        *block = rest;
        Some(Self { bytes, packed })
    }

    fn is(&self, name: &[u8]) -> bool {
        /// `:path`, packed.
        const PACKED: [u8; 4] = [0xb9, 0x58, 0xd3, 0x3f];
        if self.packed { self.bytes == PACKED } else { self.bytes == name }
    }

    fn holds_hash(&self) -> bool {
        if self.packed { unpacked_holds_hash(self.bytes) } else { self.bytes.contains(&b'#') }
    }
}

/// Follows the bits from symbol to symbol.
fn unpacked_holds_hash(bytes: &[u8]) -> bool {
    let (mut length, mut code, mut first) = (0, 0_u32, 0_u32);
    for byte in bytes {
        for shift in (0..8).rev() {
            let Some(shorter) = SYMBOLS.get(length) else { return false };
            (code, first) = (code << 1 | u32::from(byte >> shift & 1), (first + shorter) << 1);
            length += 1;
            let symbols = SYMBOLS.get(length).copied().unwrap_or_default();
            if code.wrapping_sub(first) < symbols {
                if length == HASH && code == first {
                    return true;
                }
                (length, code, first) = (0, 0, 0);
            }
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Packs a block as the h2 crate's own client does: strings Huffman-coded, with all its tricks.
    async fn packed(path: &str) -> Vec<u8> {
        use tokio::io::AsyncReadExt;
        let (client, mut server) = tokio::io::duplex(64 * 1024);
        let work = async {
            let (mut send, connection) = h2::client::handshake(client).await.unwrap();
            let uri = http::Uri::builder().scheme("http").authority("a").path_and_query(path);
            let request = http::Request::builder().uri(uri.build().unwrap()).body(()).unwrap();
            let _answer = send.send_request(request, true).unwrap();
            drop(send);
            let _ended = connection.await;
        };
        let read = async {
            let mut wire = Vec::new();
            loop {
                server.read_buf(&mut wire).await.unwrap();
                let mut rest = wire.get(24..).unwrap_or_default();
                while let [_, high, low, kind, _, _, _, _, _, payload @ ..] = rest {
                    let length = usize::from(*high) << 8 | usize::from(*low);
                    let Some((payload, after)) = payload.split_at_checked(length) else { break };
                    if *kind == 1 {
                        return payload.to_vec();
                    }
                    rest = after;
                }
            }
        };
        tokio::select! {
            () = work => panic!("the client ended"),
            block = read => block,
        }
    }

    #[tokio::test]
    async fn a_hash_is_found_in_a_path_and_nowhere_else() {
        let plain = |name: &str, value: &str| {
            let text = |text: &str| [&[text.len() as u8], text.as_bytes()].concat();
            [&[0][..], &text(name), &text(value)].concat()
        };
        let check = |block: &[u8], expected: bool| {
            assert_eq!(brings_fragment(block), expected, "{block:x?}");
            // Whatever is cut short is no fragment, and nothing panics.
            for end in 0..block.len() {
                assert!(!brings_fragment(&block[..end]) || expected);
            }
        };
        check(&plain(":path", "/a#b"), true);
        check(&plain(":path", "/a%23b"), false);
        check(&plain("x", "/a#b"), false);
        check(&[plain("x", "#"), plain(":path", "/#")].concat(), true);
        check(&[&[0x82, 0x86, 0x04, 2][..], b"/#"].concat(), true);
        check(&[&[0x3f, 0xe1, 0x1f, 0x44, 2][..], b"/#"].concat(), true);
        check(&[0xff; 64], false);
        // `/#` and `/>`, packed.
        check(&[0x04, 0x83, 0x63, 0xfe, 0xbf], true);
        check(&[0x04, 0x83, 0x63, 0xfe, 0xff], false);
        check(&[0x00, 0x84, 0xb9, 0x58, 0xd3, 0x3f, 0x83, 0x63, 0xfe, 0xbf], true);
        for (path, hash) in
            [("/a%23!?('~@$x", false), ("/", false), ("/v1/balances/42?a=b|c", false)]
        {
            check(&packed(path).await, hash);
        }
    }

    #[test]
    fn no_block_is_too_odd_to_be_looked_at() {
        let mut random = fastrand::Rng::with_seed(7541);
        for _ in 0..20_000 {
            let block: Vec<u8> = (0..random.usize(..40)).map(|_| random.u8(..)).collect();
            let _found = brings_fragment(&block);
            let _found = unpacked_holds_hash(&block);
        }
    }

    #[test]
    fn every_symbol_has_a_code() {
        assert_eq!(SYMBOLS.iter().sum::<u32>(), 257);
    }
}
