//! One bank whose token server and API speak TLS.

use bearer_proxy::sandbox::{Bank, Persona};
use rustls::RootCertStore;

use super::bank;
use super::tls::{Authority, Front};

/// A bank behind TLS. Its certificate names `auth.bank.test`, `api.bank.test` and localhost.
pub struct Secured {
    /// The fakes.
    pub bank: Bank,
    /// Who issued its certificates.
    pub ca: Authority,
    /// TLS before the token server.
    pub auth: Front,
    /// TLS before the API.
    pub api: Front,
}

/// What is special about a configuration: lines of TOML.
#[derive(Default)]
pub struct Special<'a> {
    /// The token URL's scheme and authority, in place of the front's.
    pub auth_origin: Option<&'a str>,
    /// The API's.
    pub api_origin: Option<&'a str>,
    /// Whole tables.
    pub tables: &'a str,
    /// Keys of the credential; an own `client_auth` goes without the secret's line.
    pub credential: &'a str,
    /// Keys of the upstream.
    pub upstream: &'a str,
}

impl Secured {
    /// Starts one whose servers ask no client for a certificate.
    pub async fn start() -> Self {
        Self::demanding(None).await
    }

    /// Starts one whose servers demand certificates of these authorities.
    pub async fn demanding(clients: Option<RootCertStore>) -> Self {
        let (bank, ca) = (bank(Persona::QBank).await, Authority::new("Bank Test CA"));
        let names = ["auth.bank.test", "api.bank.test", "localhost", "127.0.0.1"];
        let identity = ca.issue(&names, |_| {});
        ca.write("server", &identity);
        let auth = Front::start(&identity, clients.clone(), bank.auth.addr()).await;
        let api = Front::start(&identity, clients, bank.api.addr()).await;
        bank.write_secrets(ca.file("ca.pem").parent().unwrap()).unwrap();
        Self { bank, ca, auth, api }
    }

    /// A configuration for it.
    pub fn config(&self, special: &Special<'_>) -> String {
        let Special { auth_origin, api_origin, tables, credential, upstream } = special;
        let origin = |named: &Option<&str>, front: &Front| match named {
            Some(origin) => (*origin).to_owned(),
            None => format!("https://localhost:{}", front.addr.port()),
        };
        let path = self.bank.auth.token_url().replace(&self.bank.auth.base_url(), "");
        let file = |name: &str| self.ca.file(name).display().to_string();
        let secret = match credential.contains("client_auth") {
            true => String::new(),
            false => format!("client_secret.file = \"{}\"", file("qbank_client_secret")),
        };
        format!(
            "version = 1\n[server]\nlisten = \"127.0.0.1:0\"\n[admin]\nlisten = \"127.0.0.1:0\"\n\
             [tls]\nroots = \"only-extra\"\nextra_ca_file = \"{ca}\"\n{tables}\n\
             [credentials.qbank]\npreset = \"qbank\"\ntoken_url = \"{auth}{path}\"\n\
             client_id.file = \"{id}\"\n{secret}\n{credential}\n\
             [upstreams.qbank]\nurl = \"{api}\"\ncredential = \"qbank\"\n{upstream}\n\
             [[upstreams.qbank.routes]]\nname = \"balances\"\npath = \"/v1/balances/{{id}}\"\n\
             methods = [\"GET\"]\nscopes = [\"balances.read\"]\n",
            ca = file("ca.pem"),
            auth = origin(auth_origin, &self.auth),
            id = file("qbank_client_id"),
            api = origin(api_origin, &self.api),
        )
    }
}
