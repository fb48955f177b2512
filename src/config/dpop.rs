//! `dpop`: the key to which the tokens of a credential are bound (RFC 9449).

use super::references;
use crate::diagnostics::Section;
use crate::oauth::Dialect;
use crate::oauth::dialect::TokenType;
use crate::oauth::dpop::DpopAlgorithm;
use crate::secret::StoreHttpSettings;
use crate::token::TokenHeader;
use crate::token::dpop::DpopSettings;

const ALGORITHMS: [(&str, DpopAlgorithm); 3] = [
    ("ES256", DpopAlgorithm::Es256),
    ("EdDSA", DpopAlgorithm::EdDsa),
    ("Ed25519", DpopAlgorithm::Ed25519),
];

/// The settings; `None` for a credential without `dpop`. They demand tokens of type DPoP, and settle the
/// header that carries them.
pub(super) fn read(
    section: &Section<'_>,
    dialect: &mut Dialect,
    attach: &mut TokenHeader,
    http: &StoreHttpSettings,
) -> Option<DpopSettings> {
    section.item("dpop")?;
    for key in ["attach", "accept_token_types"] {
        if let Some(item) = section.item(key) {
            item.reject("dpop settles it: tokens of type DPoP, in Authorization (RFC 9449)");
        }
    }
    dialect.token_type = TokenType::Dpop;
    attach.scheme = "DPoP ".into();
    let table = section.section("dpop");
    let algorithm = table.choice("algorithm", &ALGORITHMS, DpopAlgorithm::default());
    let key = table.item("key").and_then(|item| references::read(&item, http));
    Some(DpopSettings { algorithm, key })
}
