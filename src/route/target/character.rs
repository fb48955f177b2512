//! The characters that a path may hold as they are.

/// True for `pchar` of RFC 3986 section 3.3, without the percent sign and the semicolon.
pub(super) fn is_pchar(byte: u8) -> bool {
    PCHAR[usize::from(byte)]
}

/// A table, because each byte of each path is tested.
static PCHAR: [bool; 256] = {
    let mut table = [false; 256];
    let mut byte = 0_u8;
    while byte < 128 {
        table[byte as usize] = byte.is_ascii_alphanumeric();
        byte += 1;
    }
    let mut others: &[u8] = b"-._~!$&'()*+,=:@";
    while let [other, rest @ ..] = others {
        table[*other as usize] = true;
        others = rest;
    }
    table
};
