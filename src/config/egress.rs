//! `[egress]`, and the `egress` tables of credentials and upstreams: which proxy is on the way out.
//!
//! Variables of the environment count only if `proxy = "env"` says so: to set a variable
//! must not be enough to lead tokens elsewhere.

use super::references;
use crate::diagnostics::{Diagnostic, Item, Section};
use crate::net::Origin;
use crate::net::egress::ProxyAddress;
use crate::net::no_proxy::NoProxy;
use crate::net::tls::TlsSettings;
use crate::secret::{EgressLogin, EgressProxy, StoreHttpSettings};
use crate::sensitive::Sensitive;

/// The proxy of one part of the program, for any origin.
#[derive(Clone, Default)]
pub(super) struct EgressSettings<'c> {
    proxy: Option<EgressProxy>,
    no_proxy: NoProxy,
    /// The place of a proxy that is written in the part's own table.
    own: Option<Item<'c>>,
}

/// The default for all parts.
pub(super) fn root<'c>(root: &Section<'c>, http: &StoreHttpSettings) -> EgressSettings<'c> {
    let section = root.section("egress");
    if let (None, Some((name, _))) = (section.item("proxy"), variable(&section, &PROXY_VARIABLES)) {
        section.fail(
            Diagnostic::notice(format!("{name} is set and not used"))
                .label("the environment counts only where the file says so")
                .hint("write  proxy = \"env\"  in [egress] to go through it, or  proxy = \"none\"  to stay direct"),
        );
    }
    EgressSettings { own: None, ..read(&section, &EgressSettings::default(), http) }
}

/// One part's table, over the default. `http` reaches the stores that hold the proxy's login.
pub(super) fn read<'c>(
    section: &Section<'c>,
    base: &EgressSettings<'c>,
    http: &StoreHttpSettings,
) -> EgressSettings<'c> {
    let login = login(section, http);
    let no_proxy = section.item("no_proxy").map(|item| no_proxy(&item));
    let no_proxy = no_proxy.unwrap_or_else(|| base.no_proxy.clone());
    let Some(item) = section.item("proxy") else {
        if login.is_some() {
            section.missing("proxy", "username and password are for a proxy that is named here");
        }
        return EgressSettings { no_proxy, ..base.clone() };
    };
    chosen(section, item, login, no_proxy)
}

fn chosen<'c>(
    section: &Section<'c>,
    item: Item<'c>,
    login: Option<EgressLogin>,
    no_proxy: NoProxy,
) -> EgressSettings<'c> {
    let direct = EgressSettings { proxy: None, no_proxy, own: None };
    if item.is_word("none") || item.is_word("env") {
        if login.is_some() {
            item.reject(
                "username and password go with a proxy that is written as http://host:port",
            );
        }
        return if item.is_word("env") { from_environment(section, &item, direct) } else { direct };
    }
    let Some(text) = item.hidden_text() else { return direct };
    match ProxyAddress::parse(&text) {
        Ok(address) => {
            item.show();
            let proxy = Some(EgressProxy { address, login });
            EgressSettings { proxy, own: Some(item), ..direct }
        }
        Err(why) => {
            item.reject(item.advice(&text).unwrap_or(why));
            direct
        }
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
    direct: EgressSettings<'c>,
) -> EgressSettings<'c> {
    let unproxied = variable(section, &["no_proxy", "NO_PROXY"]).and_then(|(name, text)| {
        let why = |_| format!("{name} of the environment holds what is neither host nor address");
        NoProxy::parse(text.expose().split(',')).map_err(|at| item.reject(why(at))).ok()
    });
    let proxy = variable(section, &PROXY_VARIABLES).and_then(|(name, text)| {
        let why = |why| format!("{name} of the environment cannot be used: {why}");
        stated(text.expose()).map_err(|error| item.reject(why(error))).ok()
    });
    EgressSettings {
        proxy,
        no_proxy: direct.no_proxy.and(unproxied.unwrap_or_default()),
        own: None,
    }
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
    let (texts, items): (Vec<_>, Vec<_>) =
        items.into_iter().filter_map(|item| Some((item.text()?, item))).unzip();
    NoProxy::parse(texts.iter().map(String::as_str)).unwrap_or_else(|wrong| {
        if let Some(item) = items.get(wrong) {
            item.reject("expected a host, an address, or a block such as \"10.0.0.0/8\"");
        }
        NoProxy::default()
    })
}

fn login(section: &Section<'_>, http: &StoreHttpSettings) -> Option<EgressLogin> {
    let (username, password) = (section.item("username"), section.item("password"));
    match (&username, &password) {
        (Some(_), None) => section.missing("password", "a login has a username and a password"),
        (None, Some(_)) => section.missing("username", "a login has a username and a password"),
        _ => {}
    }
    let read = |item: Option<Item<'_>>| item.and_then(|item| references::read(&item, http));
    let (username, password) = (read(username), read(password));
    Some(EgressLogin::Referenced { username: username?, password: password? })
}

impl EgressSettings<'_> {
    /// The settings of connections to remote stores of secrets.
    pub(super) fn store_http(&self, tls: &TlsSettings) -> StoreHttpSettings {
        StoreHttpSettings {
            tls: tls.clone(),
            proxy: self.proxy.clone(),
            no_proxy: self.no_proxy.clone(),
            #[cfg(feature = "vault")]
            vault: None,
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
