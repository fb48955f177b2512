//! The vendors of the gallery: what `init` writes for each, against a server that behaves as the
//! vendor's document says, byte by byte in both directions.

use std::process::Command;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bearer_proxy::oauth::vendors::{VENDORS, Vendor};
use tempfile::TempDir;

use crate::support::{Proxy, client, raw_server, soon};
use crate::vendors::{answer_with, field, with_secrets};

/// How a client proves itself, in the words of the vendor's document.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Proof {
    /// Id and secret in base64, as they are.
    Basic,
    Body,
    Headers,
}
use Proof::{Basic, Body, Headers};

const ID_AND_SECRET: &str = "client_id=an%2Bid&client_secret=a+secret%26more";

/// What the vendor's document says: the proof, the body of the request (`{client}` stands for id and
/// secret), the answer, and the token in it.
const DOCUMENTED: [(&str, Proof, &str, &str, &str); VENDORS.len()] = [
    (
        "auth0",
        Body,
        "grant_type=client_credentials&{client}&audience=https%3A%2F%2FAPI.example.com",
        r#"{"access_token":"eyJz93a.k4laUWw","token_type":"Bearer","expires_in":86400}"#,
        "eyJz93a.k4laUWw",
    ),
    (
        "entra-v1",
        Body,
        "grant_type=client_credentials&{client}&resource=https%3A%2F%2Fmanagement.azure.com%2F",
        r#"{"access_token":"eyJhbGciOi.J9","token_type":"Bearer","expires_in":"3599","expires_on":"4102444800","not_before":"1388448867","resource":"https://management.azure.com/"}"#,
        "eyJhbGciOi.J9",
    ),
    (
        "entra-v2",
        Body,
        "grant_type=client_credentials&{client}&scope=https%3A%2F%2Fgraph.microsoft.com%2F.default",
        r#"{"token_type":"Bearer","expires_in":3599,"ext_expires_in":3599,"access_token":"eyJ0eXAi.W"}"#,
        "eyJ0eXAi.W",
    ),
    (
        "okta",
        Basic,
        "grant_type=client_credentials&scope=CUSTOM_SCOPE",
        r#"{"access_token":"eyJhbG.x","token_type":"Bearer","expires_in":3600,"scope":"CUSTOM_SCOPE"}"#,
        "eyJhbG.x",
    ),
    (
        "keycloak",
        Basic,
        "grant_type=client_credentials",
        r#"{"access_token":"2YotnFZFEjr1zCsicMWpAA","expires_in":60,"refresh_expires_in":0,"token_type":"Bearer","not-before-policy":0,"scope":"email profile"}"#,
        "2YotnFZFEjr1zCsicMWpAA",
    ),
    (
        "cognito",
        Basic,
        "grant_type=client_credentials&scope=RESOURCE_SERVER%2FSCOPE",
        r#"{"access_token":"eyJra1example","expires_in":3600,"token_type":"Bearer"}"#,
        "eyJra1example",
    ),
    (
        "ping",
        Basic,
        "grant_type=client_credentials",
        r#"{"access_token":"eyJhbGci.ping","token_type":"Bearer","expires_in":3600}"#,
        "eyJhbGci.ping",
    ),
    (
        "forgerock",
        Body,
        "grant_type=client_credentials&{client}&scope=write",
        r#"{"access_token":"A6yRkC8_-.","scope":"write","token_type":"Bearer","expires_in":3599}"#,
        "A6yRkC8_-.",
    ),
    (
        "salesforce",
        Body,
        "grant_type=client_credentials&{client}",
        r#"{"access_token":"00DE0X0A0M0PeLE!AQcAQH0dMHEXAMPLE","signature":"c2lnbg==","scope":"cdp_query_api api","instance_url":"https://mydomain.my.salesforce.com","id":"https://login.salesforce.com/id/00D/005","token_type":"Bearer","issued_at":"1278448384422"}"#,
        "00DE0X0A0M0PeLE!AQcAQH0dMHEXAMPLE",
    ),
    (
        "ebay",
        Basic,
        "grant_type=client_credentials&scope=https%3A%2F%2Fapi.ebay.com%2Foauth%2Fapi_scope",
        r#"{"access_token":"v^1.1#i^1#p^1#r^0#I^3#f^0#t^H4s","expires_in":7200,"token_type":"Application Access Token"}"#,
        "v^1.1#i^1#p^1#r^0#I^3#f^0#t^H4s",
    ),
    (
        "paypal",
        Basic,
        "grant_type=client_credentials",
        r#"{"scope":"https://uri.paypal.com/services/invoicing","access_token":"A21AAFEpH4PsADK7qSS7pSRsgz","token_type":"Bearer","app_id":"APP-80W284485P519543T","expires_in":31668,"nonce":"2020-04-03T15:35:36ZaYZlGvEkV4yVSz8g6bAKFoGSEzuy3CQcz3ljhibkOHg"}"#,
        "A21AAFEpH4PsADK7qSS7pSRsgz",
    ),
    (
        "xero",
        Basic,
        "grant_type=client_credentials&scope=accounting.contacts.read",
        r#"{"access_token":"eyJ.xero","expires_in":1800,"token_type":"Bearer","scope":"accounting.contacts.read"}"#,
        "eyJ.xero",
    ),
    (
        "sap-xsuaa",
        Body,
        "grant_type=client_credentials&{client}",
        r#"{"access_token":"eyJ.xsuaa","token_type":"bearer","expires_in":43199,"scope":"uaa.resource","jti":"8dd"}"#,
        "eyJ.xsuaa",
    ),
    (
        "sap-cpi",
        Basic,
        "grant_type=client_credentials",
        r#"{"access_token":"eyJ.cpi","token_type":"bearer","expires_in":4199,"scope":"uaa.resource it!b1.X","jti":"1"}"#,
        "eyJ.cpi",
    ),
    (
        "adobe-ims",
        Body,
        "grant_type=client_credentials&{client}&scope=openid%2CAdobeID%2Cuser_management_sdk",
        r#"{"access_token":"eyJ.adobe","token_type":"bearer","expires_in":86399}"#,
        "eyJ.adobe",
    ),
    (
        "zoom",
        Basic,
        "grant_type=account_credentials&account_id=ACCOUNT_ID",
        r#"{"access_token":"eyJ.zoom","token_type":"bearer","expires_in":3600,"scope":"user:read:list_users:admin","api_url":"https://api.zoom.us"}"#,
        "eyJ.zoom",
    ),
    (
        "gocardless",
        Body,
        r#"{"secret_id":"an+id","secret_key":"a secret&more"}"#,
        r#"{"access":"eyJ.gc","access_expires":86400,"refresh":"eyJ.r","refresh_expires":2592000}"#,
        "eyJ.gc",
    ),
    (
        "truelayer",
        Body,
        "grant_type=client_credentials&{client}&scope=payments",
        r#"{"access_token":"eyJ.tl","expires_in":3600,"token_type":"Bearer","scope":"payments"}"#,
        "eyJ.tl",
    ),
    (
        "tink",
        Body,
        "grant_type=client_credentials&{client}&scope=user%3Acreate",
        r#"{"access_token":"eyJ.tink","token_type":"bearer","expires_in":1800,"scope":"user:create","id_hint":"x"}"#,
        "eyJ.tink",
    ),
    (
        "fedex",
        Body,
        "grant_type=client_credentials&{client}",
        r#"{"access_token":"eyJ.fedex","token_type":"bearer","expires_in":3599,"scope":"CXS"}"#,
        "eyJ.fedex",
    ),
    (
        "ups",
        Basic,
        "grant_type=client_credentials",
        r#"{"token_type":"Bearer","issued_at":"1706710921672","client_id":"an+id","access_token":"eyJ.ups","expires_in":"14399","status":"approved"}"#,
        "eyJ.ups",
    ),
    (
        "amadeus",
        Body,
        "grant_type=client_credentials&{client}",
        r#"{"type":"amadeusOAuth2Token","username":"a@b.c","application_name":"x","client_id":"an+id","token_type":"Bearer","access_token":"CpjU0sEenniHCgPDrndzOSWFk5mN","expires_in":1799,"state":"approved","scope":""}"#,
        "CpjU0sEenniHCgPDrndzOSWFk5mN",
    ),
    (
        "dynatrace",
        Body,
        "grant_type=client_credentials&{client}&scope=account-idm-read&resource=urn%3Adtaccount%3AACCOUNT_UUID",
        r#"{"scope":"account-idm-read","token_type":"Bearer","expires_in":300,"access_token":"eyJ.dt","resource":"urn:dtaccount:ACCOUNT_UUID"}"#,
        "eyJ.dt",
    ),
    (
        "apigee",
        Basic,
        "grant_type=client_credentials",
        r#"{"issued_at":"1394646850171","application_name":"a","scope":"","status":"approved","api_product_list":"[Prod]","expires_in":"3599","developer.email":"a@b.c","organization_id":"0","token_type":"BearerToken","client_id":"an+id","access_token":"c8B1VGQtjuvlpkTVWqAELEJ2TEjs","organization_name":"o","refresh_token_expires_in":"0","refresh_count":"0"}"#,
        "c8B1VGQtjuvlpkTVWqAELEJ2TEjs",
    ),
    (
        "airwallex",
        Headers,
        "",
        r#"{"expires_at":"2099-01-01T00:00:00+0000","token":"eyJ.aw"}"#,
        "eyJ.aw",
    ),
    (
        "marketo",
        Body,
        "grant_type=client_credentials&{client}",
        r#"{"access_token":"cdf01657-110d-4155-99a7-f986b2ff13a0:int","token_type":"bearer","expires_in":3599,"scope":"apis@acmeinc.com"}"#,
        "cdf01657-110d-4155-99a7-f986b2ff13a0:int",
    ),
];

/// The first configuration, with addresses and the places of secrets of its own.
fn first_config(vendor: &Vendor, tokens: &str, api: &str, dir: &TempDir) -> String {
    let init = Command::new(env!("CARGO_BIN_EXE_bearer-proxy"))
        .args(["init", vendor.name, "-o", "-"])
        .output()
        .unwrap();
    let text = String::from_utf8(init.stdout).unwrap();
    assert!(text.contains(vendor.document), "{text}");
    let (name, path) = (vendor.name, path_of(vendor.token_url));
    let preset = format!("preset = \"{name}\"\n");
    let ours = format!("{preset}token_url = \"http://{tokens}{path}\"\n");
    let text = text.replace(&format!("token_url = \"{}\"\n", vendor.token_url), "");
    let text = text.replacen(&preset, &ours, 1);
    let text = text.replacen(
        &format!("url = \"{}\"", vendor.api.0),
        &format!("url = \"http://{api}\""),
        1,
    );
    let key = dir.path().join("secret").display().to_string();
    let text = text.replace("/run/secrets/airwallex_api_key", &key);
    let text = with_secrets(&text, dir);
    text + "[server]\nlisten = \"127.0.0.1:0\"\n[admin]\nlisten = \"127.0.0.1:0\"\n"
}

/// The path and the query of a URL.
fn path_of(url: &str) -> &str {
    let rest = url.split_once("//").unwrap().1;
    &rest[rest.find('/').unwrap()..]
}

#[tokio::test]
async fn each_vendor_is_spoken_to_as_its_document_says() {
    for (vendor, (name, proof, body, document, token)) in VENDORS.iter().zip(DOCUMENTED) {
        assert_eq!(vendor.name, name);
        let (tokens, api, dir) = (raw_server().await, raw_server().await, TempDir::new().unwrap());
        let text = first_config(vendor, &tokens.addr.to_string(), &api.addr.to_string(), &dir);
        let proxy = Proxy::start(&text).await;
        let mut call = soon(tokens.accept()).await;
        let head = call.read_head().await;
        let length = field(&head, "content-length").unwrap().parse().unwrap();
        let sent = String::from_utf8(call.read_bytes(length).await).unwrap();
        let line = format!("POST {} HTTP/1.1", path_of(vendor.token_url));
        assert_eq!(head.lines().next(), Some(&*line), "{name}");
        assert_eq!(sent, body.replace("{client}", ID_AND_SECRET), "{name}");
        let json = proof == Headers || body.starts_with('{');
        let kind = if json { "application/json" } else { "application/x-www-form-urlencoded" };
        assert_eq!(field(&head, "content-type"), Some(kind), "{name}");
        let basic = format!("Basic {}", STANDARD.encode("an+id:a secret&more"));
        let expected = (proof == Basic).then_some(basic.as_str());
        assert_eq!(field(&head, "authorization"), expected, "{name}");
        if proof == Headers {
            assert_eq!(field(&head, "x-client-id"), Some("CLIENT_ID"));
            assert_eq!(field(&head, "x-api-key"), Some("a secret&more"));
        }
        if name == "ups" {
            assert_eq!(field(&head, "x-merchant-id"), Some("ACCOUNT_NUMBER"));
        }
        let status = if proof == Headers { "201 Created" } else { "200 OK" };
        answer_with(&mut call, status, document).await;
        let path =
            vendor.api.1.split('/').map(|part| if part.starts_with('{') { "1" } else { part });
        let path = path.collect::<Vec<_>>().join("/");
        let mut app = client(proxy.addr).await;
        let method = vendor.method;
        app.send(format!(
            "{method} /{name}{path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n"
        ))
        .await;
        let mut seen = soon(api.accept()).await;
        let head = seen.read_head().await;
        seen.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await;
        assert_eq!(soon(app.read(method)).await.text(), "ok", "{name}");
        assert!(head.starts_with(&format!("{method} {path} HTTP/1.1\r\n")), "{name}: {head}");
        assert_eq!(field(&head, "authorization"), Some(&*format!("Bearer {token}")), "{name}");
    }
}
