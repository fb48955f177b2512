//! `client_id`, `client_auth` and the keys that go with it: how a credential proves its client.

use super::{grant, references};
use crate::diagnostics::{Item, Section};
use crate::oauth::client_auth::{BasicEncoding, ClientAuth};
use crate::oauth::jws::{MacAlgorithm, SigningAlgorithm};
use crate::oauth::presets::Preset;
use crate::secret::{Reference, StoreHttpSettings};
use crate::sensitive::Sensitive;
use crate::token::credential::ClientIdSource;

/// The registered names: RFC 7591 section 2, RFC 8705 section 2.
const METHODS: [(&str, ClientAuth); 7] = [
    ("client_secret_post", ClientAuth::ClientSecretPost),
    ("client_secret_basic", ClientAuth::ClientSecretBasic(BasicEncoding::Rfc6749)),
    ("client_secret_jwt", ClientAuth::ClientSecretJwt(MacAlgorithm::Hs256)),
    ("private_key_jwt", ClientAuth::PrivateKeyJwt(SigningAlgorithm::Rs256)),
    ("tls_client_auth", ClientAuth::TlsClientAuth),
    ("self_signed_tls_client_auth", ClientAuth::SelfSignedTlsClientAuth),
    ("none", ClientAuth::None),
];

const ENCODINGS: [(&str, BasicEncoding); 2] =
    [("rfc6749", BasicEncoding::Rfc6749), ("raw", BasicEncoding::Raw)];

const MAC_ALGORITHMS: [(&str, MacAlgorithm); 3] = [
    ("HS256", MacAlgorithm::Hs256),
    ("HS384", MacAlgorithm::Hs384),
    ("HS512", MacAlgorithm::Hs512),
];

/// An id as text, or the reference of one. RFC 6749 appendix A.1: printable ASCII.
pub(super) fn client_id(item: &Item<'_>, http: &StoreHttpSettings) -> Option<ClientIdSource> {
    if item.is_table() {
        return references::read(item, http).map(ClientIdSource::Referenced);
    }
    let printable = |c: char| c == ' ' || c.is_ascii_graphic();
    let id = item.parse(|text| match text {
        _ if text.trim().is_empty() => Err("a client id is not empty"),
        _ if !text.chars().all(printable) => Err("a client id is printable ASCII"),
        _ => Ok(Sensitive::new(text)),
    });
    id.map(ClientIdSource::Text)
}

pub(super) fn client_auth(section: &Section<'_>, preset: &Preset) -> Option<ClientAuth> {
    let (encoding, algorithm) = (section.item("basic_encoding"), section.item("signing_algorithm"));
    let auth = match (section.item("client_auth"), section.item("client_assertion")) {
        (None, None) => preset.auth,
        (Some(item), None) => item.choice(&METHODS)?,
        (None, Some(_)) => ClientAuth::ClientAssertion,
        (Some(item), Some(_)) => {
            item.reject("client_assertion proves the client already; remove one of the two");
            return None;
        }
    };
    let only_with = |item: &Option<Item<'_>>, method: &str| {
        if let Some(item) = item {
            item.reject(format!("it goes with  client_auth = \"{method}\"  only"));
        }
    };
    if !matches!(auth, ClientAuth::ClientSecretBasic(_)) {
        only_with(&encoding, "client_secret_basic");
    }
    if !matches!(auth, ClientAuth::PrivateKeyJwt(_) | ClientAuth::ClientSecretJwt(_)) {
        only_with(&algorithm, "private_key_jwt");
    }
    match auth {
        ClientAuth::ClientSecretBasic(_) => {
            let usual = match preset.auth {
                ClientAuth::ClientSecretBasic(usual) => usual,
                _ => BasicEncoding::default(),
            };
            let chosen = encoding.and_then(|item| item.choice(&ENCODINGS)).unwrap_or(usual);
            Some(ClientAuth::ClientSecretBasic(chosen))
        }
        ClientAuth::ClientSecretJwt(_) => {
            let chosen = algorithm
                .map_or(Some(MacAlgorithm::default()), |item| item.choice(&MAC_ALGORITHMS));
            chosen.map(ClientAuth::ClientSecretJwt)
        }
        ClientAuth::PrivateKeyJwt(_) => {
            let hint = "write  signing_algorithm = \"RS256\", or another RS, PS or ES, EdDSA or Ed25519: the one that the key is registered for";
            let item = section.required("signing_algorithm", hint)?;
            item.choice(&grant::ALGORITHMS).map(ClientAuth::PrivateKeyJwt)
        }
        other => Some(other),
    }
}

/// The place of what proves the client: `client_assertion` or `client_secret`.
pub(super) fn proof<'c>(section: &Section<'c>) -> Option<Item<'c>> {
    let (assertion, secret) = (section.item("client_assertion"), section.item("client_secret"));
    if assertion.is_some()
        && let Some(secret) = &secret
    {
        secret.reject("client_assertion proves the client already; remove one of the two");
    }
    assertion.or(secret)
}

/// Reports what the client authentication needs and the file does not have.
pub(super) fn check_proof(section: &Section<'_>, auth: ClientAuth, presents: bool) {
    let (key, hint) = match auth {
        ClientAuth::None | ClientAuth::ClientAssertion => return,
        ClientAuth::TlsClientAuth | ClientAuth::SelfSignedTlsClientAuth => {
            if !presents {
                let hint = "this client_auth proves itself with a certificate";
                section.missing("tls.client_certificate_file", hint);
            }
            return;
        }
        ClientAuth::PrivateKeyJwt(_) => {
            ("client_secret", "write  client_secret.file = \"/path/to/key.pem\": the private key")
        }
        _ => (
            "client_secret",
            "write  client_secret.file = \"/path\"  or  client_secret.env = \"NAME\"",
        ),
    };
    section.required(key, hint);
}

/// The certificates of the private key that signs client assertions.
pub(super) fn certificate(assertion: &Section<'_>, auth: Option<ClientAuth>) -> Option<Reference> {
    let (file, headers) =
        (assertion.item("certificate_file"), assertion.item("certificate_headers"));
    if file.is_none()
        && let Some(headers) = headers
    {
        headers.reject("they are made of certificate_file, which is missing");
    }
    let file = file?;
    if let Some(auth) = auth
        && !matches!(auth, ClientAuth::PrivateKeyJwt(_))
    {
        file.reject("it goes with  client_auth = \"private_key_jwt\"  only");
        return None;
    }
    file.path().map(Reference::File)
}
