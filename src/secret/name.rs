//! Detection of a secret that was written where its name belongs.
//!
//! An alphanumeric secret is also a valid name of a variable: typed after `.env =`, it would be looked
//! up, not found, and shown in the error. Names consist of words; keys do not.

use crate::sensitive::looks_random;

/// Shortest text, in bytes, without `_` or `-` that might be a password.
const SHORTEST_PASSWORD: usize = 8;

/// Tells whether messages may show a name under which nothing was found: it consists of several words
/// of one case, or is short.
pub(super) fn may_be_shown(name: &str) -> bool {
    let has = |class: fn(&char) -> bool| name.chars().any(|c| class(&c));
    let mixed = has(char::is_ascii_lowercase) && has(char::is_ascii_uppercase);
    let words = name.split(['_', '-', '.']).filter(|word| !word.is_empty()).count();
    !looks_random(name) && !mixed && (words > 1 || name.len() < SHORTEST_PASSWORD)
}

/// The name of a stored secret as messages show it, without a text that may be the secret itself.
pub(super) fn display_name(name: &str) -> &str {
    let path = || name.split('/').filter(|part| !part.is_empty()).count() > 1;
    let named = name.starts_with("arn:aws") || may_be_shown(name) || path() && !looks_random(name);
    if named { name } else { "(not named here: it may be the secret itself)" }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_stores() {
        for name in [
            "prod/qbank",
            "erp/prod/qbank-2026",
            "qbank-client-secret",
            "arn:aws:secretsmanager:eu-central-1:123456789012:secret:qbank-AbC12d",
        ] {
            assert_eq!(display_name(name), name);
        }
        for secret in ["hunterpassword", "sk_live_51HxQ2eJ", "wJalrXUtnFEMI/K7MDENG/bPxRfiCY"] {
            assert!(!display_name(secret).contains(secret), "{secret}");
        }
    }

    #[test]
    fn names_and_secrets() {
        let check = |text: &str, refused: bool, shown: bool| {
            assert_eq!(looks_random(text), refused, "{text}");
            assert_eq!(may_be_shown(text), shown, "{text}");
        };
        for name in [
            "QBANK_CLIENT_SECRET",
            "qbank_client_secret",
            "qbank-client-secret",
            "B2B_OAUTH2_ID",
            "X509_KEY_2026",
            "APIM",
            "AWS_S3_KEY_01",
        ] {
            check(name, false, true);
        }
        for maybe in ["THESECRET", "hunterpassword", "ClientSecret", "Sesame_Open", "PASSWORD1"] {
            check(maybe, false, false);
        }
        for secret in [
            "A8F3K2LQ9ZX0B7C1",
            "8f14e45fceea167a5a36dedd4bea2543",
            "xK9mQ2",
            "sk_live_51HxQ2eJ",
            "ABCDEFGHIJKLMNOPQRSTUVWXYZABCDEFGHIJKLM",
            "JBSWY3DPEHPK3PXP",
        ] {
            check(secret, true, false);
        }
    }
}
