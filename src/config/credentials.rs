//! `[credentials.NAME]`: one client registration each. No value of these tables is ever shown.

use std::num::NonZeroU32;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use crate::net::Origin;
use crate::net::tls::TlsSettings;
use crate::oauth::client_auth::{BasicEncoding, ClientAuth, SigningAlgorithm};
use crate::oauth::presets::{self, Preset};
use crate::oauth::{Dialect, TokenEndpoint};
use crate::token::Credential;
use crate::token::credential::{Grouping, MissingScopes, RefreshPolicy};

use super::egress::{self, EgressSettings};
use super::name::check_name;
use super::{dialect, references, server, tls};
use crate::diagnostics::{Diagnostic, Item, Section};

/// A credential that the file names, and its settings where they can be used.
pub(super) struct ParsedCredential<'c> {
    pub(super) name: String,
    pub(super) item: Item<'c>,
    pub(super) credential: Option<Credential>,
}

const ADVICE: &[(&str, &str)] = &[
    ("scope", "scopes belong to routes: [[upstreams.NAME.routes]] scopes = [\"…\"]"),
    ("scopes", "scopes belong to routes: [[upstreams.NAME.routes]] scopes = [\"…\"]"),
    ("client_id_env", "write  client_id.env = \"NAME\""),
    ("client_id_file", "write  client_id.file = \"/path\""),
    ("client_secret_env", "write  client_secret.env = \"NAME\""),
    ("client_secret_file", "write  client_secret.file = \"/path\""),
    ("secret", "write  client_secret.file = \"/path\""),
    ("password", "write  client_secret.file = \"/path\""),
    ("private_key", "write  client_secret.file = \"/path/to/key.pem\""),
    ("private_key_file", "write  client_secret.file = \"/path/to/key.pem\""),
    ("url", "write token_url"),
    ("token_endpoint", "write token_url"),
    ("auth", "write client_auth"),
    ("auth_method", "write client_auth"),
    ("token_endpoint_auth_method", "write client_auth"),
    ("grant_type", "client_credentials is the only grant; leave it out"),
    ("egress_proxy", "write  egress = { proxy = \"http://host:port\" }"),
    ("proxy", "write  egress = { proxy = \"http://host:port\" }"),
    ("budget", "write  token_budget = 50  for at most so many token calls in an hour"),
    ("lazy_idle", "write  lazy = \"10m\""),
    ("revocation_endpoint", "write revocation_url"),
    ("revoke_url", "write revocation_url"),
    ("timeout", "write  timeouts = { total = \"10s\" }"),
];

pub(super) fn read<'c>(
    root: &Section<'c>,
    tls: &TlsSettings,
    egress: &EgressSettings<'c>,
) -> Vec<ParsedCredential<'c>> {
    let mut found = Vec::new();
    for (name, item) in root.section("credentials", "[credentials]").entries() {
        let good = check_name(&name, &item, "a credential");
        let section = item.section("a credential").map(|section| section.private().advise(ADVICE));
        let read = section.and_then(|section| credential(&name, &section, tls, egress));
        found.push(ParsedCredential { name, item, credential: read.filter(|_| good) });
    }
    found
}

fn credential<'c>(
    name: &str,
    section: &Section<'c>,
    base: &TlsSettings,
    egress: &EgressSettings<'c>,
) -> Option<Credential> {
    let preset = preset(section);
    let endpoint = endpoint(section, &preset);
    let stores = egress.store_http(base);
    let reference =
        |item: Option<Item<'_>>, key| item.and_then(|item| references::read(&item, key, &stores));
    let id = section
        .required("client_id", "write  client_id.env = \"NAME\"  or  client_id.file = \"/path\"");
    let client_id = reference(id, "client_id");
    let secret_item = section.item("client_secret");
    let has_secret = secret_item.is_some();
    let client_secret = reference(secret_item, "client_secret");
    let auth = client_auth(section, &preset);
    let dialect = dialect::read(section, &preset);
    let tls = tls::read(&section.section("tls", "tls of a credential").advise(tls::ADVICE), base);
    let way = section.section("egress", "egress of a credential").advise(egress::ADVICE);
    let egress = egress::read(&way, egress, &stores);
    let grouping = section.choice("tokens", &GROUPINGS, Grouping::default());
    let revocation = section.item("revocation_url");
    let revocation = revocation.and_then(|item| parse_endpoint(&item, item.text()?.as_str()));
    let policy = policy(section);
    section.finish();
    proof(section, auth?, has_secret, &tls);
    let (endpoint, client_id, auth) = (endpoint?, client_id?, auth?);
    let egress = Origin::of(endpoint.uri()).ok().and_then(|origin| egress.towards(&origin));
    Some(Credential {
        name: Arc::from(name),
        endpoint,
        client_id,
        client_secret,
        auth,
        dialect,
        tls,
        egress,
        grouping,
        revocation,
        policy,
    })
}

/// A token that is let go sooner would cost a call for each request.
const MIN_IDLE: Duration = Duration::from_secs(10);

const GROUPINGS: [(&str, Grouping); 2] =
    [("per_scope_set", Grouping::PerScopeSet), ("union", Grouping::Union)];

fn preset(section: &Section<'_>) -> Preset {
    let default = || {
        presets::preset("rfc6749").unwrap_or_else(|| Preset {
            name: "rfc6749",
            about: "",
            dialect: Dialect::default(),
            auth: ClientAuth::ClientSecretPost,
            token_url: None,
            token_path: None,
            api_url: None,
            client_id_fields: &[],
            notes: &[],
        })
    };
    let Some(text) = section.item("preset").and_then(|item| item.text()) else { return default() };
    presets::preset(text.as_str()).unwrap_or_else(|| {
        text.no_choice(&presets::NAMES, None);
        default()
    })
}

/// `token_url`, or `base_url` and a path, or what the preset knows.
fn endpoint(section: &Section<'_>, preset: &Preset) -> Option<TokenEndpoint> {
    let (url, base, path) =
        (section.item("token_url"), section.item("base_url"), section.item("token_path"));
    match (&url, &base, &path) {
        (Some(_), Some(base), _) => {
            base.reject(
                "token_url is written as well; one of the two says where tokens are asked from",
            );
            None
        }
        (Some(_), None, Some(path)) => {
            path.reject("token_url holds the path already; token_path goes with base_url");
            None
        }
        (Some(url), None, None) => parse_endpoint(url, url.text()?.as_str()),
        (None, Some(base), path) => below(base, path.as_ref(), preset),
        (None, None, Some(path)) => {
            path.reject("it is put after base_url, which is missing");
            None
        }
        (None, None, None) => known_endpoint(section, preset),
    }
}

fn known_endpoint(section: &Section<'_>, preset: &Preset) -> Option<TokenEndpoint> {
    if let Some(url) = preset.token_url {
        return TokenEndpoint::parse(url).ok();
    }
    match preset.token_path {
        Some(path) => section.missing(
            "base_url",
            &format!("write  base_url = \"https://host\"; {path} is put after it"),
        ),
        None => section.missing(
            "token_url",
            "write  token_url = \"https://host/path\", as the vendor's document names it",
        ),
    }
    None
}

fn below(base: &Item<'_>, path: Option<&Item<'_>>, preset: &Preset) -> Option<TokenEndpoint> {
    let path = match (path, preset.token_path) {
        (Some(item), _) => {
            let text = item.text()?;
            if !text.as_str().starts_with('/') {
                item.reject("a path begins with a slash");
                return None;
            }
            text.as_str().to_owned()
        }
        (None, Some(path)) => path.to_owned(),
        (None, None) => {
            base.reject(
                "this preset knows no token path; write token_path, or token_url in place of both",
            );
            return None;
        }
    };
    let text = base.text()?;
    if text.as_str().contains(['?', '#']) {
        base.reject("a base URL has neither query nor fragment");
        return None;
    }
    parse_endpoint(base, &format!("{}{path}", text.as_str().trim_end_matches('/')))
}

/// The endpoint's own error may repeat parts of the URL, so that the reason is told here anew.
fn parse_endpoint(item: &Item<'_>, url: &str) -> Option<TokenEndpoint> {
    let reason = match () {
        () if url.starts_with("http://") => {
            "http:// would send the secret in the clear; write https:// (http:// is for loopback only)"
        }
        () if !url.starts_with("https://") => "expected a URL that begins with https://",
        () if url.contains('@') => {
            "a URL may hold no user name or password; name secrets by reference"
        }
        () if url.contains('#') => "a token URL has no fragment (#…); remove it",
        () if url.contains('?') => "its query holds a secret, or it is no valid URL",
        () => "this is no valid URL; write https://host/path",
    };
    TokenEndpoint::parse(url).map_err(|_| item.reject(reason)).ok()
}

fn client_auth(section: &Section<'_>, preset: &Preset) -> Option<ClientAuth> {
    let encodings = [("rfc6749", BasicEncoding::Rfc6749), ("raw", BasicEncoding::Raw)];
    let algorithms = [
        ("RS256", SigningAlgorithm::Rs256),
        ("PS256", SigningAlgorithm::Ps256),
        ("ES256", SigningAlgorithm::Es256),
        ("EdDSA", SigningAlgorithm::EdDsa),
    ];
    let method = section.item("client_auth");
    let (encoding, algorithm) = (section.item("basic_encoding"), section.item("signing_algorithm"));
    let auth = match &method {
        None => preset.auth,
        Some(item) => method_of(item)?,
    };
    match auth {
        ClientAuth::ClientSecretBasic(_) => {
            let chosen = encoding.and_then(|item| item.choice(&encodings)).unwrap_or_default();
            only_with(algorithm.as_ref(), "private_key_jwt");
            Some(ClientAuth::ClientSecretBasic(chosen))
        }
        ClientAuth::PrivateKeyJwt(_) => {
            only_with(encoding.as_ref(), "client_secret_basic");
            let Some(item) = algorithm else {
                section.missing("signing_algorithm", "write  signing_algorithm = \"RS256\", or PS256, ES256, EdDSA: what the key is registered for");
                return None;
            };
            item.choice(&algorithms).map(ClientAuth::PrivateKeyJwt)
        }
        other => {
            only_with(encoding.as_ref(), "client_secret_basic");
            only_with(algorithm.as_ref(), "private_key_jwt");
            Some(other)
        }
    }
}

fn only_with(item: Option<&Item<'_>>, method: &str) {
    if let Some(item) = item {
        item.reject(format!("it goes with  client_auth = \"{method}\"  only"));
    }
}

const METHODS: [(&str, ClientAuth); 7] = [
    ("client_secret_post", ClientAuth::ClientSecretPost),
    ("client_secret_basic", ClientAuth::ClientSecretBasic(BasicEncoding::Rfc6749)),
    ("client_secret_jwt", ClientAuth::ClientSecretJwt),
    ("private_key_jwt", ClientAuth::PrivateKeyJwt(SigningAlgorithm::Rs256)),
    ("tls_client_auth", ClientAuth::TlsClientAuth),
    ("self_signed_tls_client_auth", ClientAuth::SelfSignedTlsClientAuth),
    ("none", ClientAuth::None),
];

/// Words of other programs, and the registered names (RFC 7591 section 2, RFC 8705 section 2).
const FAMILIAR: [(&str, &str); 8] = [
    ("post", "the registered name is \"client_secret_post\""),
    ("body", "the registered name is \"client_secret_post\""),
    ("form", "the registered name is \"client_secret_post\""),
    ("basic", "the registered name is \"client_secret_basic\""),
    ("header", "the registered name is \"client_secret_basic\""),
    ("jwt", "the registered names are \"client_secret_jwt\" and \"private_key_jwt\""),
    ("mtls", "the registered names are \"tls_client_auth\" and \"self_signed_tls_client_auth\""),
    ("tls", "the registered names are \"tls_client_auth\" and \"self_signed_tls_client_auth\""),
];

fn method_of(item: &Item<'_>) -> Option<ClientAuth> {
    let text = item.text()?;
    let known = METHODS.iter().find(|(name, _)| *name == text.as_str());
    if known.is_none() {
        let advice =
            FAMILIAR.iter().find(|(word, _)| *word == text.as_str()).map(|(_, advice)| *advice);
        text.no_choice(&METHODS.map(|(name, _)| name), advice);
    }
    known.map(|(_, auth)| *auth)
}

/// Whether what the method needs is there.
fn proof(section: &Section<'_>, auth: ClientAuth, has_secret: bool, tls: &TlsSettings) {
    match auth {
        ClientAuth::TlsClientAuth | ClientAuth::SelfSignedTlsClientAuth
            if tls.client_certificate.is_none() =>
        {
            let hint = "this client_auth proves itself with a certificate";
            section.missing("tls.client_certificate_file", hint);
        }
        ClientAuth::TlsClientAuth | ClientAuth::SelfSignedTlsClientAuth | ClientAuth::None => {}
        ClientAuth::PrivateKeyJwt(_) if !has_secret => {
            section.missing(
                "client_secret",
                "write  client_secret.file = \"/path/to/key.pem\": the private key",
            );
        }
        _ if !has_secret => {
            section.missing(
                "client_secret",
                "write  client_secret.file = \"/path\"  or  client_secret.env = \"NAME\"",
            );
        }
        _ => {}
    }
}

fn policy(section: &Section<'_>) -> RefreshPolicy {
    let default = RefreshPolicy::default();
    let missing = [("warn", MissingScopes::Warn), ("refuse", MissingScopes::Refuse)];
    let timeouts = section.section("timeouts", "timeouts of a credential");
    let policy = RefreshPolicy {
        refresh_at: refresh_at(section, default.refresh_at, 0.1..0.95),
        jitter: default.jitter,
        connect_timeout: server::positive(&timeouts, "connect", default.connect_timeout),
        timeout: server::positive(&timeouts, "total", default.timeout),
        wait: timeouts.duration("wait", default.wait),
        missing_scopes: section.choice("missing_scopes", &missing, default.missing_scopes),
        budget: section.item("token_budget").and_then(|item| budget(&item)),
        lazy: lazy(section),
    };
    timeouts.finish();
    at_most_a_minute(&timeouts, policy.wait);
    if policy.connect_timeout > policy.timeout {
        timeouts.fail(
            Diagnostic::new("connect is longer than total")
                .label("connecting is a part of the whole"),
        );
    }
    policy
}

/// Token calls in any hour.
fn budget(item: &Item<'_>) -> Option<NonZeroU32> {
    let calls = item.integer(1..1_000_001)?;
    u32::try_from(calls).ok().and_then(NonZeroU32::new)
}

/// After how long without a use a token is let go, where it is fetched at its first use.
fn lazy(section: &Section<'_>) -> Option<Duration> {
    let item = section.item("lazy")?;
    if item.is_word("off") {
        return None;
    }
    let idle = item.duration()?;
    if idle < MIN_IDLE {
        item.reject(
            "a token is let go after \"10s\" without a use at the earliest; write more, or \"off\"",
        );
    }
    Some(idle)
}

/// Whoever waits holds one of the requests in flight.
fn at_most_a_minute(section: &Section<'_>, wait: Duration) {
    if wait > Duration::from_secs(60) {
        section.fail(
            Diagnostic::new("wait is longer than a minute")
                .label("requests would pile up; \"2s\" is usual"),
        );
    }
}

fn refresh_at(section: &Section<'_>, default: f64, range: Range<f64>) -> f64 {
    let Some(item) = section.item("refresh_at") else { return default };
    let Some(share) = item.share() else { return default };
    if !(range.start..=range.end).contains(&share) {
        item.reject("expected \"10%\" to \"95%\" of a token's life");
    }
    share
}
