//! `[credentials.NAME]`: one client registration each. No free text of these tables is ever shown.

use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use super::egress::{self, EgressSettings};
use super::name::check_name;
use super::routes::scope_list;
use super::{attach, dialect, dpop, grant, references, tls};
use crate::cleartext::Cleartext;
use crate::diagnostics::units::POSITIVE;
use crate::diagnostics::{Diagnostic, Item, Section};
use crate::net::Origin;
use crate::net::origin::NOT_IN_CLUSTER;
use crate::net::tls::TlsSettings;
use crate::oauth::client_auth::{BasicEncoding, ClientAuth};
use crate::oauth::dialect::{Grant, KeyFormat};
use crate::oauth::jws::{MacAlgorithm, SigningAlgorithm};
use crate::oauth::metadata::{self, IssuerSettings};
use crate::oauth::presets::{self, Preset};
use crate::oauth::{ScopeSet, TokenEndpoint};
use crate::secret::{self, Reference, StoreHttpSettings};
use crate::sensitive::Sensitive;
use crate::token::Credential;
use crate::token::credential::{
    Binding, CertificateSource, ClientIdSource, Grouping, MissingScopes, RefreshPolicy, TokenSource,
};
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

const MISSING_SCOPES: [(&str, MissingScopes); 2] =
    [("warn", MissingScopes::Warn), ("refuse", MissingScopes::Refuse)];

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

const BINDINGS: [(&str, Binding); 2] =
    [("none", Binding::None), ("certificate", Binding::Certificate)];

const ENCODINGS: [(&str, BasicEncoding); 2] =
    [("rfc6749", BasicEncoding::Rfc6749), ("raw", BasicEncoding::Raw)];

const MAC_ALGORITHMS: [(&str, MacAlgorithm); 3] = [
    ("HS256", MacAlgorithm::Hs256),
    ("HS384", MacAlgorithm::Hs384),
    ("HS512", MacAlgorithm::Hs512),
];

pub(super) fn read<'c>(
    root: &Section<'c>,
    tls: &TlsSettings,
    egress: &EgressSettings<'c>,
) -> Vec<ParsedCredential<'c>> {
    let read = |(name, item): (String, Item<'c>)| {
        let good = check_name(&name, &item, "a credential");
        let section = item.section().map(Section::without_text);
        let via = section.as_ref().and_then(token_via);
        let credential = section.and_then(|section| credential(&name, &section, tls, egress));
        ParsedCredential { name, item, credential: credential.filter(|_| good), via }
    };
    root.section("credentials").entries().into_iter().map(read).collect()
}

fn credential<'c>(
    name: &str,
    section: &Section<'c>,
    base: &TlsSettings,
    egress: &EgressSettings<'c>,
) -> Option<Credential> {
    let known: Vec<_> = presets::all().into_iter().map(|preset| (preset.name, preset)).collect();
    let preset = section.choice("preset", &known, Preset::default());
    let Some(mut preset) = grant::read(section, preset) else {
        return static_token(name, section, base, egress);
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
    let stores = egress.store_http(base);
    let reference = |item: Option<Item<'_>>| references::read(&item?, &stores);
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
        _ => section.required("client_id", hint).and_then(|item| client_id(&item, &stores)),
    };
    if client_id == Some(ClientIdSource::Absent) {
        preset.dialect.send_client_id = false;
    }
    let grant_parameters = grant::parameters(section, &preset.dialect.grant, &stores);
    let grant_key = grant::key(section, &preset.dialect.grant, &stores);
    let client_secret = reference(proof(section));
    let auth = client_auth(section, &preset);
    let (mut dialect, secret_headers) = dialect::read(section, &preset, auth, &stores);
    let certificate = certificate(&section.section("assertion"), auth);
    let mut attach = attach::read(&section.section("attach"));
    let dpop = dpop::read(section, &mut dialect, &mut attach, &stores);
    let tls = tls::read(&section.section("tls"), base);
    let egress = egress::read(&section.section("egress"), egress, &stores);
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

/// `client_certificate`: the client certificate by reference, in place of the files of `tls`.
fn certificate_source(
    section: &Section<'_>,
    reference: &dyn Fn(Option<Item<'_>>) -> Option<Reference>,
) -> Option<CertificateSource> {
    let item = section.item("client_certificate")?;
    if section.section("tls").item("client_certificate_file").is_some() {
        item.reject("tls.client_certificate_file names a certificate too; remove one of the two");
        return None;
    }
    let own = section.section("client_certificate");
    let password = own.item("password");
    let (pkcs12, certificate, key) = (own.item("pkcs12"), own.item("certificate"), own.item("key"));
    if let Some(container) = pkcs12 {
        for other in certificate.into_iter().chain(key) {
            other.reject("the PKCS#12 container holds it already; remove one of the two");
        }
        if let Some(feature) = secret::missing_feature("pkcs12") {
            let problem = Diagnostic::error("this build cannot open PKCS#12 containers");
            let hint = format!(
                "take the container image, or build with  cargo build --features {feature}"
            );
            let label = format!("it lacks the feature `{feature}`");
            container.fail_at_key(problem.label(label).hint(hint));
        }
        let password = password.and_then(|item| reference(Some(item)));
        return Some(CertificateSource::Pkcs12 {
            container: reference(Some(container))?,
            password,
        });
    }
    let hint = "write  pkcs12.file = \"/path\",  or  certificate.file = \"/path\"  and  key.file = \"/path\"";
    let certificate = own.required("certificate", hint);
    let key = own.required("key", hint);
    let password = password.and_then(|item| reference(Some(item)));
    let (certificate, key) = (reference(certificate), reference(key));
    let (certificate, key) = (certificate?, key?);
    Some(CertificateSource::Pem { certificate, key, password })
}

/// The binding of the tokens, which needs a client certificate.
fn binding(section: &Section<'_>, presents: bool) -> Binding {
    let binding = section.choice("bound", &BINDINGS, Binding::default());
    if binding == Binding::Certificate && !presents {
        let hint = "the certificate to which the tokens of this credential are bound";
        section.missing("tls.client_certificate_file", hint);
    }
    binding
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
    egress: &EgressSettings<'_>,
) -> Option<Credential> {
    for (key, item) in section.entries() {
        if !STATIC_KEYS.contains(&key.as_str()) {
            item.reject("with  grant = \"static\"  no token is requested");
        }
    }
    let hint = "write  token.file = \"/path\": the file that holds the access token";
    let token = section.required("token", hint);
    let token = token.and_then(|item| references::read(&item, &egress.store_http(tls)));
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

/// The place of what proves the client: `client_assertion` or `client_secret`.
fn proof<'c>(section: &Section<'c>) -> Option<Item<'c>> {
    let (assertion, secret) = (section.item("client_assertion"), section.item("client_secret"));
    if assertion.is_some()
        && let Some(secret) = &secret
    {
        secret.reject("client_assertion proves the client already; remove one of the two");
    }
    assertion.or(secret)
}

/// An id as text, or the reference of one. RFC 6749 appendix A.1: printable ASCII.
fn client_id(item: &Item<'_>, http: &StoreHttpSettings) -> Option<ClientIdSource> {
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

/// `issuer`, in place of the address of the token endpoint.
fn issuer(section: &Section<'_>, cleartext: Cleartext) -> Option<IssuerSettings> {
    let hosts = section.one_or_many("token_hosts");
    let Some(item) = section.item("issuer") else {
        if let Some(item) = section.item("token_hosts") {
            item.reject("it goes with  issuer = \"https://…\"  only");
        }
        return None;
    };
    for key in ["token_url", "base_url", "token_path"] {
        if let Some(other) = section.item(key) {
            other.reject("the metadata of issuer name the token endpoint; remove one of the two");
        }
    }
    let token_hosts = hosts.iter().filter_map(|host| host.parse(metadata::token_host)).collect();
    let (issuer, url) = item.parse(|text| {
        let url = parse_endpoint(text, cleartext)?;
        // RFC 8414 section 2.
        match text.contains('?') {
            true => Err("an issuer has no query"),
            false => Ok((text.into(), url)),
        }
    })?;
    warn_of_cleartext(&item, &url);
    Some(IssuerSettings {
        issuer,
        url,
        token_hosts,
        auth: ClientAuth::default(),
        chooses_auth: false,
        presents_certificate: false,
        revokes: false,
    })
}

/// `token_url`, or `base_url` and a path, or the address that the preset knows.
fn endpoint(section: &Section<'_>, preset: &Preset, cleartext: Cleartext) -> Option<TokenEndpoint> {
    let (url, base, path) =
        (section.item("token_url"), section.item("base_url"), section.item("token_path"));
    match (url, base, path) {
        (Some(url), None, None) => {
            let endpoint = url.parse(|url| parse_endpoint(url, cleartext))?;
            warn_of_cleartext(&url, &endpoint);
            warn_of_doubled_path(&url, "", endpoint.path());
            Some(endpoint)
        }
        (None, Some(base), path) => below(&base, path.as_ref(), preset, cleartext),
        (Some(_), Some(base), _) => {
            base.reject("token_url is written as well; one of the two is the token endpoint");
            None
        }
        (Some(_), None, Some(path)) => {
            path.reject("token_url holds the path already; token_path goes with base_url");
            None
        }
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

fn below(
    base: &Item<'_>,
    path: Option<&Item<'_>>,
    preset: &Preset,
    cleartext: Cleartext,
) -> Option<TokenEndpoint> {
    let rooted = |path: &str| match path.starts_with('/') {
        true => Ok(path.to_owned()),
        false => Err("a path begins with a slash"),
    };
    let path = match (path, preset.token_path) {
        (Some(item), _) => item.parse(rooted)?,
        (None, Some(path)) => path.to_owned(),
        (None, None) => {
            base.reject(
                "this preset knows no token path; write token_path, or token_url in place of both",
            );
            return None;
        }
    };
    let endpoint = base.parse(|text| match text.trim_end_matches('/') {
        text if text.contains(['?', '#']) => Err("a base URL has neither query nor fragment"),
        text => parse_endpoint(&format!("{text}{path}"), cleartext),
    })?;
    warn_of_cleartext(base, &endpoint);
    let above = endpoint.path().strip_suffix(&path).unwrap_or_default();
    warn_of_doubled_path(base, above, &path);
    Some(endpoint)
}

/// Warns of a path that no server has: a slash or a segment is there twice where two parts meet.
pub(super) fn warn_of_doubled_path(item: &Item<'_>, above: &str, path: &str) {
    let first = path.trim_start_matches('/').split('/').next().unwrap_or_default();
    let repeats = !first.is_empty() && above.rsplit('/').next() == Some(first);
    if repeats || path.contains("//") {
        let label =
            if repeats { format!("/{first} is there twice") } else { "// in it".to_owned() };
        let hint = "write each part of the path once";
        item.warn("no server is likely to have the path that this makes", label, hint);
    }
}

/// Reads a token endpoint. Its own error may repeat parts of the URL, so the reason is found again
/// here.
fn parse_endpoint(url: &str, cleartext: Cleartext) -> Result<TokenEndpoint, &'static str> {
    TokenEndpoint::with_cleartext(url, cleartext).map_err(|_| match () {
        () if url.starts_with("http://") => {
            let in_cluster = TokenEndpoint::with_cleartext(url, Cleartext::InCluster).is_ok();
            no_cleartext(cleartext, in_cluster)
        }
        () if !url.starts_with("https://") => "expected a URL that begins with https://",
        () if url.contains('@') => {
            "a URL may hold no user name or password; name secrets by reference"
        }
        () if url.contains('#') => "a token URL has no fragment (#…); remove it",
        () if url.contains('?') => "its query holds a secret, or it is not a valid URL",
        () => "this is not a valid URL; write https://host/path",
    })
}

/// The destinations that `http://` may have.
pub(super) fn cleartext(section: &Section<'_>) -> Cleartext {
    let choices = [("loopback", Cleartext::Loopback), ("in-cluster", Cleartext::InCluster)];
    section.choice("allow_cleartext", &choices, Cleartext::default())
}

/// The answer to an `http://` URL of another machine, with the ways out in a service mesh. `in_cluster`
/// is true if `allow_cleartext` would accept the URL.
pub(super) fn no_cleartext(cleartext: Cleartext, in_cluster: bool) -> &'static str {
    match (cleartext, in_cluster) {
        (Cleartext::Loopback, true) => {
            "http:// sends secrets in the clear: write https://, or in a service mesh \
             http://127.0.0.1:PORT, a listener of its sidecar, or allow_cleartext = \"in-cluster\""
        }
        (Cleartext::Loopback, false) => {
            "http:// sends secrets in the clear: write https://, or in a service mesh \
             http://127.0.0.1:PORT, a listener of its sidecar"
        }
        (Cleartext::InCluster, _) => NOT_IN_CLUSTER,
    }
}

fn origin(endpoint: &TokenEndpoint) -> Option<Origin> {
    Origin::with_cleartext(endpoint.uri(), endpoint.cleartext()).ok()
}

fn warn_of_cleartext(item: &Item<'_>, endpoint: &TokenEndpoint) {
    if origin(endpoint).is_some_and(|origin| origin.is_cleartext()) {
        warn_in_clear(item);
    }
}

/// Warns of an `http://` URL that leads beyond this machine.
pub(super) fn warn_in_clear(item: &Item<'_>) {
    let message = "secrets and tokens leave this machine in the clear";
    let hint = "write https://, unless a service mesh encrypts on the way";
    item.warn(message, "http:// within the cluster", hint);
}

fn client_auth(section: &Section<'_>, preset: &Preset) -> Option<ClientAuth> {
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
            let hint = "write  signing_algorithm = \"RS256\", or another RS, PS or ES, or EdDSA: the one that the key is registered for";
            let item = section.required("signing_algorithm", hint)?;
            item.choice(&grant::ALGORITHMS).map(ClientAuth::PrivateKeyJwt)
        }
        other => Some(other),
    }
}

/// The certificates of the private key that signs client assertions.
fn certificate(assertion: &Section<'_>, auth: Option<ClientAuth>) -> Option<Reference> {
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

/// Reports what the client authentication needs and the file does not have.
fn check_proof(section: &Section<'_>, auth: ClientAuth, presents: bool) {
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

fn policy(section: &Section<'_>) -> RefreshPolicy {
    let default = RefreshPolicy::default();
    let timeouts = section.section("timeouts");
    // A token that is dropped sooner would cost a call for each request.
    let idle = Duration::from_secs(10)..;
    // A waiting request holds one of those in flight.
    let wait = ..=Duration::from_secs(60);
    let lazy = section.item("lazy").and_then(|item| item.duration_or_off(idle));
    let budget = section.item("token_budget").and_then(|item| item.integer::<u32>(1..=1_000_000));
    let refresh_at = section.item("refresh_at").and_then(|item| item.share(0.1..=0.95));
    let policy = RefreshPolicy {
        refresh_at: refresh_at.unwrap_or(default.refresh_at),
        jitter: default.jitter,
        connect_timeout: timeouts.duration("connect", POSITIVE, default.connect_timeout),
        timeout: timeouts.duration("total", POSITIVE, default.timeout),
        wait: timeouts.duration("wait", wait, default.wait),
        missing_scopes: section.choice("missing_scopes", &MISSING_SCOPES, default.missing_scopes),
        budget: budget.and_then(NonZeroU32::new),
        lazy: lazy.flatten(),
        one_live_token: section.bool("one_live_token", default.one_live_token),
    };
    if policy.connect_timeout > policy.timeout {
        let problem = Diagnostic::error("connect is longer than total");
        timeouts.fail(problem.label("connecting is a part of the whole"));
    }
    policy
}
