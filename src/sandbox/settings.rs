//! The configuration text with which the program talks to the fakes.

use std::path::Path;

use super::bank::Bank;
use super::persona::Persona;

/// Listeners; `127.0.0.1:0` takes a free port.
pub(super) fn head(proxy_listen: &str, admin_listen: &str) -> String {
    let (proxy, admin) = (quoted(proxy_listen), quoted(admin_listen));
    format!("version = 1\n\n[server]\nlisten = {proxy}\n\n[admin]\nlisten = {admin}\n")
}

/// The credential, upstream and routes of one bank.
pub(super) fn bank(bank: &Bank, dir: &Path) -> String {
    let persona = bank.persona();
    let name = persona.mount();
    let file =
        |what: &str| quoted(&dir.join(format!("{}_{what}", persona.name())).display().to_string());
    format!(
        "\n[credentials.{name}]\npreset = {preset}\n{endpoint}\nclient_id.file = {id}\n\
         client_secret.file = {secret}\n\
         \n[upstreams.{name}]\nmount = \"/{name}\"\nurl = {url}\ncredential = \"{name}\"\n{routes}",
        preset = quoted(persona.name()),
        endpoint = endpoint(bank),
        id = file("client_id"),
        secret = file("client_secret"),
        url = quoted(&(bank.api.base_url() + base_path(persona))),
        routes = routes(persona),
    )
}

/// The core bank's preset knows the path and asks for the base only.
fn endpoint(bank: &Bank) -> String {
    match bank.persona() {
        Persona::CoreBanking => format!("base_url = {}", quoted(&bank.auth.base_url())),
        _ => format!("token_url = {}", quoted(&bank.auth.token_url())),
    }
}

fn base_path(persona: Persona) -> &'static str {
    match persona {
        Persona::CoreBanking => "/api",
        _ => "",
    }
}

fn routes(persona: Persona) -> String {
    let routes: &[(&str, &str, &str, &str)] = match persona {
        Persona::QBank => &[
            ("balances", "/v1/balances/{accountId}", r#"["GET"]"#, r#"["balances.read"]"#),
            ("transactions", "/v1/transactions/**", r#"["GET"]"#, r#"["transactions.read"]"#),
            (
                "ach-payments",
                "/v1/payments/ach/**",
                r#"["GET", "POST"]"#,
                r#"["payments.ach.write"]"#,
            ),
        ],
        Persona::Sqr => &[("user-status", "/v1/user-status", r#"["POST"]"#, r#"["read:users"]"#)],
        Persona::CoreBanking => &[("all", "/**", r#"["GET", "POST", "PUT"]"#, "[]")],
        Persona::DataCrunch => &[("balance", "/v1/balance", r#"["GET"]"#, r#"["fullAccess"]"#)],
    };
    let route = |&(name, path, methods, scopes): &(&str, &str, &str, &str)| {
        let table = persona.mount();
        format!(
            "\n[[upstreams.{table}.routes]]\nname = \"{name}\"\npath = \"{path}\"\n\
             methods = {methods}\nscopes = {scopes}\n"
        )
    };
    routes.iter().map(route).collect()
}

/// A TOML basic string. JSON's escapes are TOML's, except that TOML also forbids a raw DEL.
fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string().replace('\u{7f}', "\\u007f")
}
