//! Whether a server's words repeat the secret that it was shown: some tell what was wrong by quoting
//! the request.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use percent_encoding::percent_decode_str;

use crate::oauth::dialect::ClientCredentials;
use crate::sensitive::Sensitive;

/// A part of a secret of this many bytes is as good as all of it.
const PART: usize = 8;

/// Whether the words hold the secret or a part of it: as it is, form-encoded, or as Basic
/// credentials.
pub(super) fn contains_secret(words: &str, client: &ClientCredentials) -> bool {
    let Some(secret) = &client.secret else { return false };
    let pair = Sensitive::new(format!("{}:{}", client.id.expose(), secret.expose()));
    let basic = Sensitive::new(STANDARD.encode(pair.expose()));
    let plain: Vec<u8> = percent_decode_str(words).collect();
    holds(words.as_bytes(), secret) || holds(&plain, secret) || holds(words.as_bytes(), &basic)
}

fn holds(words: &[u8], secret: &Sensitive) -> bool {
    let size = secret.len().clamp(1, PART);
    let mut parts = secret.expose().as_bytes().windows(size);
    parts.any(|part| words.windows(size).any(|word| word == part))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quotations() {
        let (id, secret) = (Sensitive::new("erp"), Some(Sensitive::new("s3cr+t/with%more")));
        let client = ClientCredentials { id, secret };
        for (words, expected) in [
            ("AADSTS7000215: invalid client secret", false),
            ("the secret of erp has expired", false),
            ("no client has the secret s3cr+t/with%more", true),
            ("cut off: s3cr+t/w", true),
            ("client_id=erp&client_secret=s3cr%2Bt%2Fwith%25more", true),
            ("Authorization: Basic ZXJwOnMzY3IrdC93aXRoJW1vcmU=", true),
        ] {
            assert_eq!(contains_secret(words, &client), expected, "{words}");
        }
        let client = ClientCredentials { secret: Some(Sensitive::new("x9")), ..client };
        assert!(
            contains_secret("bad secret x9", &client) && !contains_secret("bad secret", &client)
        );
        assert!(!contains_secret("erp", &ClientCredentials { secret: None, ..client }));
    }
}
