//! `grant` and `grant_assertion`: the authorization grant of a credential, and the assertion that it is.

use std::time::Duration;

use serde_json::Value;

use super::references;
use crate::diagnostics::{Diagnostic, Item, Section};
use crate::oauth::dialect::{Dialect, Grant, GrantAssertion, KeyFormat};
use crate::oauth::jws::SigningAlgorithm;
use crate::oauth::{ClientAuth, Preset};
use crate::secret::{Reference, StoreHttpSettings};

/// Signature algorithms of private keys.
pub(super) const ALGORITHMS: [(&str, SigningAlgorithm); 10] = [
    ("RS256", SigningAlgorithm::Rs256),
    ("RS384", SigningAlgorithm::Rs384),
    ("RS512", SigningAlgorithm::Rs512),
    ("PS256", SigningAlgorithm::Ps256),
    ("PS384", SigningAlgorithm::Ps384),
    ("PS512", SigningAlgorithm::Ps512),
    ("ES256", SigningAlgorithm::Es256),
    ("ES384", SigningAlgorithm::Es384),
    ("ES512", SigningAlgorithm::Es512),
    ("EdDSA", SigningAlgorithm::EdDsa),
];

/// Claims that have keys of their own, or that each assertion has anew.
const OURS: [&str; 8] = ["aud", "exp", "iat", "iss", "jti", "nbf", "scope", "sub"];

/// The preset with the grant of the file in place of its own.
pub(super) fn read(section: &Section<'_>, mut preset: Preset) -> Preset {
    let signed = matches!(preset.dialect.grant, Grant::JwtBearer(_));
    let wanted =
        section.choice("grant", &[("client_credentials", false), ("jwt_bearer", true)], signed);
    let table = section.section("grant_assertion");
    if !wanted {
        if let Some((_, item)) = table.entries().first() {
            item.reject("it goes with  grant = \"jwt_bearer\"  only");
        }
        preset.dialect.grant = Grant::ClientCredentials;
        return preset;
    }
    // Without client authentication the assertion alone proves the client (RFC 7521 section 4.1).
    let (base, auth) = match std::mem::take(&mut preset.dialect.grant) {
        Grant::JwtBearer(base) => (*base, preset.auth),
        Grant::ClientCredentials => (GrantAssertion::default(), ClientAuth::None),
    };
    let grant = Grant::JwtBearer(Box::new(assertion(&table, base)));
    Preset { auth, dialect: Dialect { grant, ..preset.dialect }, ..preset }
}

fn assertion(table: &Section<'_>, base: GrantAssertion) -> GrantAssertion {
    let google = base.key_format == KeyFormat::GoogleServiceAccount;
    let text = |key: &str, base: Option<String>| table.text(key).or(base);
    let issuer = text("issuer", base.issuer);
    let subject = match google {
        true => text("subject", base.subject),
        false => {
            let hint = "write  subject = \"…\": whose token it is (RFC 7523 section 3)";
            table.required("subject", hint).and_then(|item| item.text())
        }
    };
    if google && let Some(item) = table.item("issuer") {
        item.reject("the key file names the issuer, as client_email");
    }
    let lifetimes = Duration::from_secs(10)..=Duration::from_secs(3600);
    GrantAssertion {
        algorithm: table.choice("signing_algorithm", &ALGORITHMS, base.algorithm),
        key_format: base.key_format,
        issuer,
        subject,
        audience: text("audience", base.audience),
        key_id: text("key_id", base.key_id),
        lifetime: table.duration("lifetime", lifetimes, base.lifetime),
        scope_claim: table.bool("scope_claim", base.scope_claim),
        claims: claims(&table.section("claims"), base.claims),
    }
}

fn claims(table: &Section<'_>, mut claims: Vec<(String, Value)>) -> Vec<(String, Value)> {
    for (name, item) in table.entries() {
        if OURS.contains(&name.as_str()) {
            let problem = Diagnostic::error(format!("the claim `{name}` cannot be written here"));
            item.fail_at_key(problem.label("bearer-proxy writes it").hint(
                "issuer, subject, audience and lifetime have keys of their own, and routes have scopes",
            ));
            continue;
        }
        if let Some(value) = item.json() {
            claims.retain(|(known, _)| *known != name);
            claims.push((name, value));
        }
    }
    claims
}

/// The source of the key that signs the assertion.
pub(super) fn key(
    section: &Section<'_>,
    grant: &Grant,
    http: &StoreHttpSettings,
) -> Option<Reference> {
    let Grant::JwtBearer(assertion) = grant else { return None };
    let hint = match assertion.key_format {
        KeyFormat::Pem => "write  key.file = \"/path/to/key.pem\": the private key",
        KeyFormat::GoogleServiceAccount => {
            "write  key.file = \"/path/to/key.json\": the key file as it was downloaded"
        }
    };
    let item: Item<'_> = section.section("grant_assertion").required("key", hint)?;
    references::read(&item, http)
}
