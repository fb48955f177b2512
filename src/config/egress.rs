//! `[egress]`, and the `egress` tables of credentials and upstreams: which proxy is on the way out.
//!
//! Variables of the environment count only where `proxy = "env"` says so: whoever sets them must not
//! be able to lead tokens elsewhere by it.

use crate::net::Origin;
use crate::net::egress::ProxyAddress;
use crate::net::no_proxy::NoProxy;
use crate::net::tls::TlsSettings;
use crate::secret::{EgressLogin, EgressProxy, StoreHttpSettings};
use crate::sensitive::Sensitive;

use super::references;
use crate::diagnostics::{Diagnostic, Item, Section, Severity};

/// What a table says, for any origin.
#[derive(Clone, Default)]
pub(super) struct EgressSettings<'c> {
    proxy: Option<EgressProxy>,
    no_proxy: NoProxy,
    /// Where a proxy is written in the table of the very part.
    own: Option<Item<'c>>,
}

pub(super) const ADVICE: &[(&str, &str)] = &[
    ("url", "write proxy"),
    ("https_proxy", "write proxy"),
    ("http_proxy", "write proxy"),
    ("user", "write  username.file = \"/path\"  or  username.env = \"NAME\""),
];

/// The default for all parts.
pub(super) fn root<'c>(root: &Section<'c>, http: &StoreHttpSettings) -> EgressSettings<'c> {
    let section = root.section("egress", "[egress]").advise(ADVICE);
    let written = section.item("proxy").is_some();
    let all = EgressSettings { own: None, ..read(&section, &EgressSettings::default(), http) };
    if let Some((name, _)) = variable(&section, &PROXY_VARIABLES).filter(|_| !written) {
        let diagnostic =
            Diagnostic::new(format!("{name} is set and not used")).severity(Severity::Note);
        section.fail(diagnostic.label("the environment counts only where the file says so").hint(
            "write  proxy = \"env\"  in [egress] to go through it, or  proxy = \"none\"  to stay direct",
        ));
    }
    all
}

/// One part's table, over the default. `http` reaches the stores that hold the login of the proxy.
pub(super) fn read<'c>(
    section: &Section<'c>,
    base: &EgressSettings<'c>,
    http: &StoreHttpSettings,
) -> EgressSettings<'c> {
    let login = login(section, http);
    let written = section.item("no_proxy").map(|item| no_proxy(&item));
    let no_proxy = written.unwrap_or_else(|| base.no_proxy.clone());
    let egress = match section.item("proxy") {
        None => {
            if login.is_some() {
                section
                    .missing("proxy", "username and password are for a proxy that is named here");
            }
            EgressSettings { no_proxy, ..base.clone() }
        }
        Some(item) => chosen(section, item, login, no_proxy),
    };
    section.finish();
    egress
}

fn chosen<'c>(
    section: &Section<'c>,
    item: Item<'c>,
    login: Option<EgressLogin>,
    no_proxy: NoProxy,
) -> EgressSettings<'c> {
    let direct = EgressSettings { proxy: None, no_proxy: no_proxy.clone(), own: None };
    let Some(text) = item.hidden_text() else { return direct };
    if !matches!(text.as_str(), "none" | "env") {
        let address = ProxyAddress::parse(text.as_str());
        let address = address.map_err(|why| item.reject(misread(text.as_str(), why)));
        let Ok(address) = address else { return direct };
        text.show();
        return EgressSettings {
            proxy: Some(EgressProxy { address, login }),
            no_proxy,
            own: Some(item),
        };
    }
    text.show();
    if login.is_some() {
        item.reject("username and password go with a proxy that is written as http://host:port");
    }
    match text.as_str() {
        "env" => from_environment(section, &item, no_proxy),
        _ => direct,
    }
}

/// A word that is no URL is most likely meant as one of the two that are known.
fn misread(text: &str, why: &'static str) -> &'static str {
    match text {
        "environment" | "system" => "write \"env\" for the variables of the environment",
        "off" | "direct" | "" => "write \"none\" for no proxy",
        _ => why,
    }
}

/// The order of curl. `HTTP_PROXY` is for plain http, which never goes through a proxy here.
const PROXY_VARIABLES: [&str; 4] = ["https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"];

fn variable(section: &Section<'_>, names: &[&'static str]) -> Option<(&'static str, Sensitive)> {
    let found = names.iter().find_map(|name| Some((*name, section.variable(name)?)));
    found.filter(|(_, text)| !text.is_empty()).map(|(name, text)| (name, Sensitive::new(text)))
}

fn from_environment<'c>(
    section: &Section<'c>,
    item: &Item<'c>,
    listed: NoProxy,
) -> EgressSettings<'c> {
    let names = ["no_proxy", "NO_PROXY"];
    let unproxied = variable(section, &names).map(|(name, text)| {
        NoProxy::parse(text.expose().split(',')).unwrap_or_else(|_| {
            item.reject(format!(
                "{name} of the environment holds what is neither host nor address"
            ));
            NoProxy::default()
        })
    });
    let proxy = variable(section, &PROXY_VARIABLES).and_then(|(name, text)| {
        stated(text.expose())
            .map_err(|why| item.reject(format!("{name} of the environment cannot be used: {why}")))
            .ok()
    });
    EgressSettings { proxy, no_proxy: listed.and(unproxied.unwrap_or_default()), own: None }
}

/// A proxy as variables state it: the scheme may be missing, a login may stand before the host.
fn stated(text: &str) -> Result<EgressProxy, &'static str> {
    let (scheme, rest) = text.split_once("://").unwrap_or(("http", text));
    let (login, host) = match rest.rsplit_once('@') {
        Some((login, host)) => (Some(login), host),
        None => (None, rest),
    };
    let address = ProxyAddress::parse(&format!("{scheme}://{host}"))?;
    let login = login.map(|login| {
        let bytes = percent_encoding::percent_decode_str(login);
        EgressLogin::Stated(Sensitive::new(bytes.decode_utf8_lossy()))
    });
    Ok(EgressProxy { address, login })
}

fn no_proxy(item: &Item<'_>) -> NoProxy {
    let items = item.list().unwrap_or_default();
    let texts: Vec<_> = items.iter().filter_map(Item::text).collect();
    NoProxy::parse(texts.iter().map(|text| text.as_str())).unwrap_or_else(|wrong| {
        if let Some(text) = texts.get(wrong) {
            text.item.reject("expected a host, an address, or a block such as \"10.0.0.0/8\"");
        }
        NoProxy::default()
    })
}

fn login(section: &Section<'_>, http: &StoreHttpSettings) -> Option<EgressLogin> {
    let (username, password) = (section.item("username"), section.item("password"));
    match (&username, &password) {
        (Some(_), None) => section.missing("password", "Basic credentials are both"),
        (None, Some(_)) => section.missing("username", "Basic credentials are both"),
        _ => {}
    }
    let username = references::read(&username?, "username", http);
    let password = references::read(&password?, "password", http);
    Some(EgressLogin::Referenced { username: username?, password: password? })
}

impl EgressSettings<'_> {
    /// How remote stores of secrets are reached.
    pub(super) fn store_http(&self, tls: &TlsSettings) -> StoreHttpSettings {
        StoreHttpSettings {
            tls: tls.clone(),
            proxy: self.proxy.clone(),
            no_proxy: self.no_proxy.clone(),
        }
    }

    /// The proxy on the way to one origin. This machine itself is reached directly, unless the
    /// part's own table says otherwise.
    pub(super) fn towards(&self, origin: &Origin) -> Option<EgressProxy> {
        if let (Some(item), false) = (&self.own, origin.is_https()) {
            item.reject(
                "an http:// URL never goes through a proxy, which would read the token; \
                 only https:// does, inside a tunnel",
            );
            return None;
        }
        let nearby = !origin.is_https() || (origin.is_loopback() && self.own.is_none());
        let direct = nearby || self.no_proxy.covers(origin);
        self.proxy.clone().filter(|_| !direct)
    }
}
