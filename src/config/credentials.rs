//! `[credentials.NAME]`: one client registration each. No free text of these tables is ever shown.

use std::sync::Arc;

use super::client_auth::{certificate, check_proof, client_auth, client_id, proof};
use super::client_certificate::{binding, certificate_source};
use super::egress::{self, EgressSettings};
use super::name::check_name;
use super::refresh_policy::policy;
use super::routes::scope_list;
use super::token_endpoint::{endpoint, issuer, origin, parse_endpoint, warn_of_cleartext};
use super::url::cleartext;
use super::{attach, dialect, dpop, grant, references, tls};
use crate::diagnostics::{Item, Section};
use crate::net::tls::TlsSettings;
use crate::oauth::ScopeSet;
use crate::oauth::client_auth::ClientAuth;
use crate::oauth::dialect::{Grant, KeyFormat};
use crate::oauth::metadata::IssuerSettings;
use crate::oauth::presets::{self, Preset};
use crate::secret::StoreHttpSettings;
use crate::token::Credential;
use crate::token::credential::{Binding, ClientIdSource, Grouping, TokenSource};
use crate::token::issuer::Issuer;

/// A credential that the file names, and its settings if they can be used.
pub(super) struct ParsedCredential<'c> {
    pub(super) name: String,
    pub(super) item: Item<'c>,
    pub(super) credential: Option<Credential>,
    /// The credential whose token authorizes its token requests.
    pub(super) via: Option<ParsedVia<'c>>,
}

/// The name of another credential, where it stands, and the scopes of its token.
pub(super) struct ParsedVia<'c> {
    pub(super) name: (String, Item<'c>),
    pub(super) scopes: ScopeSet,
}

const GROUPINGS: [(&str, Grouping); 2] =
    [("per_scope_set", Grouping::PerScopeSet), ("union", Grouping::Union)];

pub(super) fn read<'c>(
    root: &Section<'c>,
    tls: &TlsSettings,
    egress: &EgressSettings<'c>,
    stores: &StoreHttpSettings,
) -> Vec<ParsedCredential<'c>> {
    let read = |(name, item): (String, Item<'c>)| {
        let good = check_name(&name, &item, "a credential");
        let section = item.section().map(Section::without_text);
        let via = section.as_ref().and_then(token_via);
        let credential =
            section.and_then(|section| credential(&name, &section, tls, egress, stores));
        ParsedCredential { name, item, credential: credential.filter(|_| good), via }
    };
    root.section("credentials").entries().into_iter().map(read).collect()
}

fn credential<'c>(
    name: &str,
    section: &Section<'c>,
    base: &TlsSettings,
    egress: &EgressSettings<'c>,
    stores: &StoreHttpSettings,
) -> Option<Credential> {
    let known: Vec<_> = presets::all().into_iter().map(|preset| (preset.name, preset)).collect();
    let preset = section.choice("preset", &known, Preset::default());
    let Some(mut preset) = grant::read(section, preset) else {
        return static_token(name, section, base, stores);
    };
    // The token of the other credential is proof enough.
    let via = section.item("token_via");
    if via.is_some() && section.item("client_secret").is_none() {
        preset.auth = ClientAuth::None;
    }
    let cleartext = cleartext(section);
    let issuer = issuer(section, cleartext);
    let endpoint = match section.item("issuer") {
        Some(_) => None,
        None => endpoint(section, &preset, cleartext),
    };
    let reference = |item: Option<Item<'_>>| references::read(&item?, stores);
    let hint =
        "write  client_id = \"TEXT\", client_id.env = \"NAME\"  or  client_id.file = \"/path\"";
    let client_id = match &preset.dialect.grant {
        Grant::JwtBearer(grant) if grant.key_format == KeyFormat::GoogleServiceAccount => {
            if let Some(item) = section.item("client_id") {
                item.reject("the key file of the grant names the client, as client_email");
            }
            Some(ClientIdSource::GrantKeyFile)
        }
        Grant::TokenExchange(_) if section.item("client_id").is_none() => {
            Some(ClientIdSource::Absent)
        }
        _ if via.is_some() && section.item("client_id").is_none() => Some(ClientIdSource::Absent),
        _ => section.required("client_id", hint).and_then(|item| client_id(&item, stores)),
    };
    if client_id == Some(ClientIdSource::Absent) {
        preset.dialect.send_client_id = false;
    }
    let grant_parameters = grant::parameters(section, &preset.dialect.grant, stores);
    let grant_key = grant::key(section, &preset.dialect.grant, stores);
    let client_secret = reference(proof(section));
    let auth = client_auth(section, &preset);
    let (mut dialect, secret_headers) = dialect::read(section, &preset, auth, stores);
    let certificate = certificate(&section.section("assertion"), auth);
    let mut attach = attach::read(&section.section("attach"));
    let dpop = dpop::read(section, &mut dialect, &mut attach, stores);
    let tls = tls::read(&section.section("tls"), base);
    let egress = egress::read(&section.section("egress"), egress, stores);
    let grouping = section.choice("tokens", &GROUPINGS, Grouping::default());
    let revocation = section.item("revocation_url").filter(|item| !item.is_word("issuer"));
    let revokes = revocation.is_none() && section.item("revocation_url").is_some();
    let revocation = revocation.and_then(|item| {
        item.parse(|url| parse_endpoint(url, cleartext))
            .inspect(|url| warn_of_cleartext(&item, url))
    });
    let policy = policy(section);
    let auth = auth?;
    let source = certificate_source(section, &reference);
    let presents = tls.client_certificate.is_some() || section.item("client_certificate").is_some();
    check_proof(section, auth, presents);
    if let (Some(via), ClientAuth::ClientSecretBasic(_)) = (&via, auth) {
        via.reject("client_secret_basic and the other token both want the header Authorization");
    }
    let binding = binding(section, presents);
    if grant_key.is_none() && matches!(dialect.grant, Grant::JwtBearer(_)) {
        return None;
    }
    if let Some(item) = section.item("revocation_url").filter(|_| revokes)
        && section.item("issuer").is_none()
    {
        item.reject("without issuer there are no metadata that name it; write its URL");
    }
    let (client_id, grant_parameters) = (client_id?, grant_parameters?);
    let stated = |key: &str| section.item(key).is_some();
    let endpoint = match issuer {
        Some(settings) => {
            let by_certificate =
                matches!(auth, ClientAuth::TlsClientAuth | ClientAuth::SelfSignedTlsClientAuth);
            let by_secret =
                matches!(auth, ClientAuth::ClientSecretPost | ClientAuth::ClientSecretBasic(_));
            let settings = IssuerSettings {
                auth,
                chooses_auth: by_secret && !stated("client_auth"),
                presents_certificate: by_certificate || binding == Binding::Certificate,
                revokes,
                ..settings
            };
            TokenSource::Issuer(Issuer::new(settings))
        }
        None => TokenSource::Endpoint(endpoint?),
    };
    let source_url = match &endpoint {
        TokenSource::Issuer(issuer) => &issuer.settings.url,
        TokenSource::Endpoint(endpoint) => endpoint,
        TokenSource::Static(_) => return None,
    };
    let egress = origin(source_url).and_then(|origin| egress.towards(&origin));
    if binding == Binding::Certificate && origin(source_url).is_some_and(|to| !to.is_https()) {
        if let Some(item) = section.item("bound") {
            item.reject("the token endpoint is http://, where no certificate is shown");
        }
        return None;
    }
    Some(Credential {
        name: Arc::from(name),
        source: endpoint,
        via: None,
        client_id,
        client_secret,
        certificate,
        grant_key,
        grant_parameters,
        secret_headers,
        attach,
        auth,
        dialect,
        tls,
        client_certificate: source,
        binding,
        dpop,
        egress,
        grouping,
        revocation,
        policy,
    })
}

/// `token_via = "NAME"`, or a table with the name and the scopes.
fn token_via<'c>(section: &Section<'c>) -> Option<ParsedVia<'c>> {
    let item = section.item("token_via")?;
    if !item.is_table() {
        return Some(ParsedVia { name: (item.text()?, item), scopes: ScopeSet::default() });
    }
    let table = item.section()?;
    let hint = "write  token_via = \"NAME\"  of another [credentials.NAME]";
    let (name, scopes) = (table.required("credential", hint), scope_list(&table));
    let name = name?;
    Some(ParsedVia { name: (name.text()?, name), scopes })
}

/// Keys of a credential whose token is read from a source of secrets.
const STATIC_KEYS: [&str; 7] =
    ["attach", "default_lifetime", "grant", "lazy", "max_token_bytes", "timeouts", "token"];

/// A credential whose token somebody else obtains. No request is made for it, so that keys of token requests
/// are mistakes.
fn static_token(
    name: &str,
    section: &Section<'_>,
    tls: &TlsSettings,
    stores: &StoreHttpSettings,
) -> Option<Credential> {
    for (key, item) in section.entries() {
        if !STATIC_KEYS.contains(&key.as_str()) {
            item.reject("with  grant = \"static\"  no token is requested");
        }
    }
    let hint = "write  token.file = \"/path\": the file that holds the access token";
    let token = section.required("token", hint);
    let token = token.and_then(|item| references::read(&item, stores));
    let dialect = dialect::of_static_token(section);
    let (attach, policy) = (attach::read(&section.section("attach")), policy(section));
    Some(Credential {
        name: Arc::from(name),
        source: TokenSource::Static(token?),
        via: None,
        client_id: ClientIdSource::Absent,
        client_secret: None,
        certificate: None,
        grant_key: None,
        grant_parameters: Vec::new(),
        secret_headers: Vec::new(),
        attach,
        auth: ClientAuth::None,
        dialect,
        tls: tls.clone(),
        client_certificate: None,
        binding: Binding::None,
        dpop: None,
        egress: None,
        grouping: Grouping::default(),
        revocation: None,
        policy,
    })
}
