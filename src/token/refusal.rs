//! The part of a client's proof that a token server refuses: an assertion, a client certificate or a proof of
//! DPoP. The server's own words come first, then what was sent and when. For `check --live` and `token`.

use std::fmt::Write as _;
use std::time::{Duration, SystemTime};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::Value;

use super::clock_offset::ClockOffset;
use super::credential::ClientIdSource;
use super::endpoint_call::EndpointCall;
use crate::net::tls::ClientIdentity;
use crate::oauth::dialect::GrantAssertion;
use crate::oauth::error::{ErrorCode, TokenError};
use crate::oauth::jws::SigningKey;
use crate::oauth::thumbprint::thumbprint;
use crate::oauth::{ClientAuth, ClientRequest, GrantType, assertion};

/// A proof of DPoP may be this old: RFC 9449 section 11.1 speaks of seconds or minutes.
const PROOF_LIFE: Duration = Duration::from_secs(60);

/// An `iat` that is further ahead of the server's clock is the likely reason of a refusal. Servers differ:
/// some take none in the future, others take a minute.
const MAX_AHEAD: Duration = Duration::from_secs(30);

/// A part of a proof.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ProofPart {
    Replay,
    Nonce,
    Url,
    Audience,
    Certificate,
    CertificateTime,
    Clock,
    KeyId,
    Algorithm,
    Key,
    /// The key of `client_secret_jwt`.
    Secret,
    Registration,
    /// An assertion of another issuer.
    Federation,
    /// The answer does not say which part of an assertion or of a certificate it is.
    Unknown,
    /// The same of a proof of DPoP.
    UnknownDpop,
}

/// Words of servers' descriptions by the part that they are about. The first part with one counts: a text
/// that names a cause often names the client, its key or the signature beside it.
const WORDS: [(ProofPart, &str); 10] = [
    (ProofPart::Replay, "jti|replay|replayed|reuse|already used|already been used"),
    (ProofPart::Nonce, "nonce"),
    (ProofPart::Url, "htu|htm"),
    (ProofPart::Audience, "aud|audience"),
    (ProofPart::Certificate, "certificate|cert|x5t"),
    (
        ProofPart::Clock,
        "expired|exp|iat|nbf|clock|future|not recent|too old|not yet valid|time range|timeframe",
    ),
    (ProofPart::KeyId, "kid|key id|matching key|applicable key|key not found|no such key"),
    (ProofPart::Algorithm, "alg|algorithm"),
    (ProofPart::Key, "signature|signatures|public key|signing key|jwk|jwks"),
    (
        ProofPart::Registration,
        "unknown client|client not found|no such client|not registered|not found|not authorized|not allowed|approved|consent",
    ),
];

impl ProofPart {
    /// What is wrong, and the remedy. The parts as they were sent stand beside it.
    pub(super) fn hint(self) -> &'static str {
        match self {
            Self::Replay => {
                "replay: the server says that it has seen this jti, although each request has a new one; \
                 does something in between repeat requests?"
            }
            Self::Nonce => {
                "nonce: the server takes not even the nonce that it has just given; do its instances share \
                 their nonces?"
            }
            Self::Url => {
                "URL: the server sees another method or URL than htm and htu say; does a gateway in front \
                 of it change scheme, host or path?"
            }
            Self::Audience => {
                "audience: the server expects another aud; set assertion.audience or \
                 grant_assertion.audience to its issuer or its token endpoint, as its documents say"
            }
            Self::Certificate => {
                "certificate: the server does not take this client certificate; compare its x5t#S256 and \
                 subject with those that are registered for the client, as after a renewal"
            }
            Self::CertificateTime => {
                "certificate: by the server's clock it has expired or is not valid yet; its issuer must \
                 renew it"
            }
            Self::Clock => {
                "clock: by the server's clock this proof is too old or not valid yet; compare this \
                 machine's clock with the server's (NTP), and lifetime with what its documents say"
            }
            Self::KeyId => {
                "key id: the server knows no key of this client by this kid; compare it with the \
                 registered keys (jwks), and set assertion.key_id or grant_assertion.key_id"
            }
            Self::Algorithm => {
                "algorithm: the server expects another alg; compare it with the registration \
                 (token_endpoint_auth_signing_alg), and set signing_algorithm"
            }
            Self::Key => {
                "key: the signature is not that of a key which is registered for this client; register \
                 the public half of this key, or configure the private key that is registered"
            }
            Self::Secret => {
                "key: the signature is not that of this client's secret; check client_secret"
            }
            Self::Federation => {
                "the server does not trust this assertion for the client; compare its iss, sub and aud with \
                 the federation that is set up there, and its exp with the clock"
            }
            Self::Registration => {
                "registration: the server does not know this client, or does not allow it this \
                 client_auth or grant; compare the client id and token_endpoint_auth_method"
            }
            Self::Unknown => {
                "the answer does not say which part is wrong; compare what was sent with the registration \
                 in this order: client id, client_auth, certificate, key and kid, alg, aud, clock"
            }
            Self::UnknownDpop => {
                "the answer does not say which part of the proof is wrong; compare in this order: this \
                 machine's clock, alg, htu with the URL by which the server knows itself, and the key if \
                 the client's tokens are bound to a registered one"
            }
        }
    }
}

/// A refusal, and the circumstances of the request.
pub(super) struct Observation<'a> {
    pub(super) call: &'a EndpointCall<'a>,
    pub(super) error: &'a TokenError,
    /// The client certificate of the connection.
    pub(super) identity: Option<&'a ClientIdentity>,
    /// The issuer, where its metadata name the endpoint.
    pub(super) issuer: Option<&'a str>,
    pub(super) offset: Option<ClockOffset>,
}

/// The part that was refused; `None` if the refusal is about no proof.
pub(super) fn refused_part(seen: &Observation<'_>) -> Option<ProofPart> {
    let response = seen.error.response()?;
    let code = response.code;
    let dpop = matches!(code, Some(ErrorCode::InvalidDpopProof | ErrorCode::UseDpopNonce));
    let jwt = seen.assertion();
    let client = code.map_or(response.status == 401, |code| {
        matches!(code, ErrorCode::InvalidClient | ErrorCode::UnauthorizedClient)
    });
    let concerned = match dpop {
        true => seen.call.prover.is_some(),
        false => {
            client && (jwt.is_some() || seen.proves_by_certificate())
                || code == Some(ErrorCode::InvalidGrant) && jwt.is_some()
        }
    };
    if !concerned {
        return None;
    }
    if code == Some(ErrorCode::UseDpopNonce) {
        return Some(ProofPart::Nonce);
    }
    let said = response.description.as_ref().and_then(|text| part_of_words(text.text()));
    let said = match (said, seen.call.auth) {
        _ if dpop => said,
        (Some(ProofPart::Key | ProofPart::KeyId), ClientAuth::ClientSecretJwt(_)) => {
            Some(ProofPart::Secret)
        }
        (Some(ProofPart::Clock), ClientAuth::ClientAssertion) => said,
        (_, ClientAuth::ClientAssertion) => Some(ProofPart::Federation),
        _ => said,
    };
    Some(said.or_else(|| seen.wrong_by_facts(jwt.as_ref(), dpop)).unwrap_or(match (code, dpop) {
        (Some(ErrorCode::UnauthorizedClient), _) => ProofPart::Registration,
        (_, true) => ProofPart::UnknownDpop,
        (_, false) => ProofPart::Unknown,
    }))
}

/// The part that a description is about, by its words.
fn part_of_words(description: &str) -> Option<ProofPart> {
    let mut text = " ".to_owned();
    let letters = |c: char| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { ' ' };
    text.extend(description.chars().map(letters));
    text.push(' ');
    let is_said = |word: &str| {
        text.match_indices(word).any(|(at, _)| {
            let (before, after) = (&text[..at], &text[at + word.len()..]);
            before.ends_with(' ') && after.starts_with(' ')
        })
    };
    WORDS.iter().find(|(_, words)| words.split('|').any(is_said)).map(|(part, _)| *part)
}

impl Observation<'_> {
    fn proves_by_certificate(&self) -> bool {
        let auth = self.call.auth;
        self.identity.is_some()
            && matches!(auth, ClientAuth::TlsClientAuth | ClientAuth::SelfSignedTlsClientAuth)
    }

    /// The settings of the assertion that is the grant, unless the client itself was refused.
    fn grant(&self) -> Option<&GrantAssertion> {
        match self.call.grant {
            GrantType::JwtBearer(settings) => {
                (self.error.code() != Some(ErrorCode::InvalidClient)).then_some(settings)
            }
            _ => None,
        }
    }

    /// The header and claims of the assertion that the server judged: of one like it, which differs in its
    /// times and its `jti` alone. An assertion of another issuer is the same one.
    fn assertion(&self) -> Option<(Value, Value)> {
        let EndpointCall { credential, endpoint, auth, client, .. } = *self.call;
        let (dialect, now) = (&credential.dialect, SystemTime::now());
        let signed = match self.grant() {
            Some(settings) => assertion::sign_grant(settings, endpoint, client, None, now).ok(),
            None => {
                ClientRequest { endpoint, dialect, auth, client, now }.assertion().ok().flatten()
            }
        };
        let signed = signed?;
        let mut parts = signed.expose().split('.');
        let mut part = || {
            let bytes = URL_SAFE_NO_PAD.decode(parts.next()?).ok()?;
            serde_json::from_slice::<Value>(&bytes).ok()
        };
        Some((part()?, part()?))
    }

    /// The thumbprint of the key that signed it; `None` for a secret, and for another issuer's key.
    fn key_thumbprint(&self) -> Option<String> {
        let client = self.call.client;
        let key = match (self.grant(), self.call.auth) {
            (Some(settings), _) => {
                SigningKey::Private(settings.algorithm, &client.grant_key.as_ref()?.private_key)
            }
            (None, ClientAuth::PrivateKeyJwt(algorithm)) => {
                SigningKey::Private(algorithm, client.secret.as_ref()?)
            }
            _ => return None,
        };
        thumbprint(key)
    }

    /// A defect that shows without the server's words: a time, or an audience that the metadata do not name.
    fn wrong_by_facts(&self, jwt: Option<&(Value, Value)>, dpop: bool) -> Option<ProofPart> {
        let server_now = SystemTime::now();
        let server_now = match self.offset {
            Some(ClockOffset::Behind(by)) => server_now + by,
            Some(ClockOffset::Ahead(by)) => server_now.checked_sub(by)?,
            None => server_now,
        };
        let certificate = self.identity.and_then(ClientIdentity::certificate);
        if self.proves_by_certificate()
            && certificate
                .is_some_and(|one| !(one.valid_from..=one.valid_until).contains(&server_now))
        {
            return Some(ProofPart::CertificateTime);
        }
        let life = match jwt {
            Some((_, claims)) if !dpop => {
                let seconds = |name: &str| claims[name].as_u64();
                Duration::from_secs(seconds("exp")?.saturating_sub(seconds("iat")?))
            }
            _ => PROOF_LIFE,
        };
        let timed = dpop || jwt.is_some();
        let late = match self.offset {
            Some(ClockOffset::Behind(by)) => by >= life,
            Some(ClockOffset::Ahead(by)) => by > MAX_AHEAD,
            None => false,
        };
        if timed && late {
            return Some(ProofPart::Clock);
        }
        let (issuer, (_, claims)) = (self.issuer?, jwt?);
        let endpoint = self.call.endpoint.uri().to_string();
        let audience = &claims["aud"];
        (!dpop && *audience != issuer && *audience != *endpoint).then_some(ProofPart::Audience)
    }
}

/// The proofs that were sent, by kind, each with its parts in words.
pub(super) fn sent(seen: &Observation<'_>) -> Vec<(&'static str, String)> {
    let mut sent = Vec::new();
    if let Some((header, claims)) = seen.assertion() {
        sent.push(("assertion", assertion_in_words(seen, &header, &claims)));
    }
    if let Some(prover) = seen.call.prover {
        let algorithm = seen.call.credential.dpop.as_ref().map(|dpop| dpop.algorithm.name());
        let mut text = String::new();
        push(&mut text, "alg", algorithm);
        push(&mut text, "jkt", prover.thumbprint().as_deref());
        push(&mut text, "htm", Some(if seen.call.credential.dialect.get { "GET" } else { "POST" }));
        let url = seen.call.connector.origin().to_string() + seen.call.endpoint.uri().path();
        push(&mut text, "htu", Some(&url));
        push_time(&mut text, seen.offset);
        sent.push(("proof of DPoP", text));
    }
    if let Some(identity) = seen.identity {
        let mut text = String::new();
        let subject = identity.certificate().map(|certificate| certificate.subject.as_str());
        push(&mut text, "subject", subject);
        push(&mut text, "x5t#S256", Some(identity.thumbprint()));
        sent.push(("certificate", text));
    }
    sent
}

fn assertion_in_words(seen: &Observation<'_>, header: &Value, claims: &Value) -> String {
    let EndpointCall { credential, client, .. } = *seen.call;
    let id = client.id.expose();
    let stated = matches!(credential.client_id, ClientIdSource::Text(_));
    let mut text = String::new();
    push(&mut text, "alg", header["alg"].as_str());
    push(&mut text, "kid", Some(header["kid"].as_str().unwrap_or("(none)")));
    push(&mut text, "x5t#S256", header["x5t#S256"].as_str());
    push(&mut text, "key thumbprint", seen.key_thumbprint().as_deref());
    for name in ["iss", "sub"] {
        let claim = claims[name].as_str();
        // An id that comes from a source of secrets is not shown.
        let is_id = claim == Some(id) && !stated;
        push(&mut text, name, if is_id { Some("(the client id)") } else { claim });
    }
    let audience = &claims["aud"];
    push(&mut text, "aud", audience.as_str().or(Some(&audience.to_string())));
    if seen.call.auth != ClientAuth::ClientAssertion {
        push_time(&mut text, seen.offset);
    }
    text
}

/// Appends one part, if there is one.
fn push(text: &mut String, name: &str, value: Option<&str>) {
    let Some(value) = value else { return };
    let separator = if text.is_empty() { "" } else { ", " };
    // A String takes any text.
    let _written = write!(text, "{separator}{name} {value}");
}

/// Appends the time at which a proof was made, by the server's clock.
fn push_time(text: &mut String, offset: Option<ClockOffset>) {
    let (word, apart) = match offset {
        Some(ClockOffset::Behind(apart)) => ("before", apart.as_secs()),
        Some(ClockOffset::Ahead(apart)) => ("after", apart.as_secs()),
        None => return,
    };
    let _written = match apart {
        // Date has whole seconds, and its answer was on its way for a while.
        0..=2 => text.write_str(", iat equal to the server's Date"),
        _ => write!(text, ", iat {apart} s {word} the server's Date"),
    };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_words_of_servers_name_a_part() {
        use ProofPart::{
            Algorithm, Audience, Certificate, Clock, Key, KeyId, Nonce, Registration, Replay, Url,
        };
        for (description, expected) in [
            ("Invalid JWT Signature.", Some(Key)),
            (
                "Invalid JWT: Token must be in a reasonable timeframe. Check your iat and exp values",
                Some(Clock),
            ),
            ("Invalid grant: account not found", Some(Registration)),
            (
                "AADSTS700027: The certificate used to sign the client assertion is not registered",
                Some(Certificate),
            ),
            ("AADSTS700024: Client assertion is not within its valid time range.", Some(Clock)),
            (
                "The audience claim for client_assertion must be the endpoint you are invoking",
                Some(Audience),
            ),
            ("Token audience doesn't match domain. Expected one of: [https://x]", Some(Audience)),
            ("The client_assertion signature is invalid.", Some(Key)),
            ("no key with kid k1; signature not verified", Some(KeyId)),
            ("The client_assertion token has expired.", Some(Clock)),
            ("Token reuse detected", Some(Replay)),
            ("no_valid_keys_or_signatures", Some(Key)),
            ("alg RS256 is not registered", Some(Algorithm)),
            ("DPoP proof iat is not recent enough", Some(Clock)),
            ("DPoP proof htu mismatch", Some(Url)),
            ("DPoP nonce is required", Some(Nonce)),
            ("client authentication failed", None),
            ("a fraud was expected in Kidderminster", None),
            ("", None),
        ] {
            assert_eq!(part_of_words(description), expected, "{description}");
        }
    }
}
