//! `grant` and the keys that go with one: the authorization grant of a credential, and the assertion, the
//! tokens or the user that it is.

use std::time::Duration;

use serde_json::Value;

use super::references;
use crate::diagnostics::{Diagnostic, Item, Section};
use crate::oauth::dialect::{Grant, GrantAssertion, GrantKind, GrantParameter, KeyFormat};
use crate::oauth::jws::SigningAlgorithm;
use crate::oauth::token_exchange::{TokenExchange, requested_token_type, token_type};
use crate::oauth::{ClientAuth, Preset};
use crate::secret::{Reference, StoreHttpSettings};

/// Signature algorithms of private keys.
pub(super) const ALGORITHMS: [(&str, SigningAlgorithm); 11] = [
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
    ("Ed25519", SigningAlgorithm::Ed25519),
];

/// Claims that have keys of their own, or that each assertion has anew.
const OURS: [&str; 8] = ["aud", "exp", "iat", "iss", "jti", "nbf", "scope", "sub"];

/// Keys that go with one grant only.
const OWN_KEYS: [(&str, GrantKind); 8] = [
    ("grant_assertion", GrantKind::JwtBearer),
    ("subject_token", GrantKind::TokenExchange),
    ("subject_token_type", GrantKind::TokenExchange),
    ("actor_token", GrantKind::TokenExchange),
    ("actor_token_type", GrantKind::TokenExchange),
    ("requested_token_type", GrantKind::TokenExchange),
    ("username", GrantKind::Password),
    ("password", GrantKind::Password),
];

/// `None` stands for no grant at all: the token is read from a source of secrets.
const KINDS: [(&str, Option<GrantKind>); 5] = [
    ("client_credentials", Some(GrantKind::ClientCredentials)),
    ("jwt_bearer", Some(GrantKind::JwtBearer)),
    ("token_exchange", Some(GrantKind::TokenExchange)),
    ("password", Some(GrantKind::Password)),
    ("static", None),
];

/// The preset with the grant of the file in place of its own; `None` for a static token.
pub(super) fn read(section: &Section<'_>, mut preset: Preset) -> Option<Preset> {
    let base = std::mem::take(&mut preset.dialect.grant);
    let kind = section.choice("grant", &KINDS, Some(base.kind()))?;
    reject_keys_of_other_grants(section, kind);
    // Without client authentication an assertion or a token alone proves the client (RFC 7521
    // section 4.1, RFC 8693 section 2.1).
    let proven = section.item("client_secret").is_some() || kind == base.kind();
    match kind {
        GrantKind::JwtBearer if base.kind() != kind => preset.auth = ClientAuth::None,
        GrantKind::TokenExchange | GrantKind::Password if !proven => preset.auth = ClientAuth::None,
        _ => {}
    }
    preset.dialect.grant = match (kind, base) {
        (GrantKind::JwtBearer, base) => {
            let base = match base {
                Grant::JwtBearer(base) => *base,
                _ => GrantAssertion::default(),
            };
            Grant::JwtBearer(Box::new(assertion(&section.section("grant_assertion"), base)))
        }
        (GrantKind::TokenExchange, _) => Grant::TokenExchange(Box::new(exchange(section))),
        (GrantKind::Password, _) => {
            warn_of_password(section);
            Grant::Password
        }
        (GrantKind::ClientCredentials | GrantKind::RefreshToken, _) => Grant::ClientCredentials,
    };
    Some(preset)
}

fn reject_keys_of_other_grants(section: &Section<'_>, kind: GrantKind) {
    if let Some(token) = section.item("token") {
        token.reject("it goes with  grant = \"static\"  only");
    }
    for (key, of) in OWN_KEYS.into_iter().filter(|(_, of)| *of != kind) {
        let Some(item) = section.item(key) else { continue };
        let name = KINDS.iter().find(|(_, kind)| *kind == Some(of)).map_or("", |(name, _)| *name);
        let why = format!("it goes with  grant = \"{name}\"  only");
        match key {
            "grant_assertion" => {
                if let Some((_, first)) = section.section(key).entries().first() {
                    first.reject(why);
                }
            }
            "password" => {
                item.reject(format!("{why}; for the client write  client_secret.file = \"/path\""))
            }
            _ => item.reject(why),
        }
    }
}

fn exchange(section: &Section<'_>) -> TokenExchange {
    let hint = "write  subject_token_type = \"jwt\", or another type: what the subject token is";
    let subject = section.required("subject_token_type", hint);
    let actor = match section.item("actor_token") {
        Some(_) => {
            let hint =
                "write  actor_token_type = \"jwt\", or another type: what the actor token is";
            section.required("actor_token_type", hint)
        }
        None => {
            if let Some(item) = section.item("actor_token_type") {
                item.reject("it is the type of actor_token, which is missing");
            }
            None
        }
    };
    TokenExchange {
        subject_token_type: subject.and_then(|item| item.parse(token_type)).unwrap_or_default(),
        actor_token_type: actor.and_then(|item| item.parse(token_type)),
        requested_token_type: section.parse("requested_token_type", requested_token_type),
    }
}

/// RFC 9700 section 2.4: this grant must not be used.
fn warn_of_password(section: &Section<'_>) {
    let Some(item) = section.item("grant").or_else(|| section.item("username")) else { return };
    let hint = "RFC 9700 section 2.4 forbids this grant: it shows a user's password to the client \
                and knows no second factor; use it only where the vendor has nothing else";
    item.warn("the password grant is insecure", "a user's password is the grant", hint);
}

/// The sources of the parameters of the grant whose values are secret; `None` if one is missing or
/// cannot be read.
pub(super) fn parameters(
    section: &Section<'_>,
    grant: &Grant,
    http: &StoreHttpSettings,
) -> Option<Vec<(GrantParameter, Reference)>> {
    let (required, optional): (&[_], _) = match grant {
        Grant::ClientCredentials | Grant::JwtBearer(_) => return Some(Vec::new()),
        Grant::TokenExchange(_) => {
            (&[GrantParameter::SubjectToken], Some(GrantParameter::ActorToken))
        }
        Grant::Password => (&[GrantParameter::Username, GrantParameter::Password], None),
    };
    let mut missing = false;
    let mut found = Vec::new();
    for name in required.iter().copied().chain(optional) {
        let key = name.as_str();
        let item = match required.contains(&name) {
            true => section.required(key, &format!("write  {key}.file = \"/path\"")),
            false => section.item(key),
        };
        missing |= item.is_none() && required.contains(&name);
        let Some(item) = item else { continue };
        match references::read(&item, http) {
            Some(reference) => found.push((name, reference)),
            None => missing = true,
        }
    }
    (!missing).then_some(found)
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
        KeyFormat::PrivateKey => "write  key.file = \"/path/to/key.pem\": the private key",
        KeyFormat::GoogleServiceAccount => {
            "write  key.file = \"/path/to/key.json\": the key file as it was downloaded"
        }
    };
    let item: Item<'_> = section.section("grant_assertion").required("key", hint)?;
    references::read(&item, http)
}
