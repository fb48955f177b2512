//! The fakes themselves, spoken to by hand: they are only as good as these stories.

use std::time::Duration;

use bearer_proxy::sandbox::{
    AuthOptions, AuthServer, CallOutcome, Fault, Persona, Sandbox, ScriptedResponse, TokenValidity,
};
use serde_json::{Value, json};

use crate::support::{Answer, auth_server, client, soon, upstream};

const JSON: (&str, &str) = ("Content-Type", "application/json");
const FORM: (&str, &str) = ("Content-Type", "application/x-www-form-urlencoded");

/// Asks for a token as the vendor's document says.
pub async fn ask(auth: &AuthServer, scope: &str) -> Answer {
    let (id, secret) = (auth.client_id(), auth.client_secret());
    let (kind, body) = match auth.persona() {
        Persona::QBank => {
            let secret: String = secret.bytes().map(|byte| format!("%{byte:02X}")).collect();
            let grant = "grant_type=client_credentials";
            (FORM, format!("{grant}&client_id={id}&client_secret={secret}&scope={scope}"))
        }
        Persona::CoreBanking => (JSON, json!({"clientId": id, "clientSecret": secret}).to_string()),
        Persona::Sqr | Persona::DataCrunch => {
            let grant = "client_credentials";
            let body = json!({"grant_type": grant, "client_id": id, "client_secret": secret});
            (JSON, body.to_string())
        }
    };
    post(auth, kind, &body).await
}

async fn post(auth: &AuthServer, kind: (&str, &str), body: &str) -> Answer {
    let path = auth.persona().token_path();
    client(auth.addr()).await.request("POST", path, &[kind], body.as_bytes()).await
}

fn bearer(token: &str) -> String {
    format!("Bearer {token}")
}

#[tokio::test]
async fn each_bank_issues_a_token_in_the_words_of_its_document() {
    let scope = "balances.read";
    let check = |persona: Persona, expected: Value| async move {
        let auth = auth_server(persona).await;
        let answer = ask(&auth, scope).await;
        assert_eq!(answer.status, 200, "{persona:?} {}", answer.text());
        assert_eq!(answer.header("cache-control"), Some("no-store"));
        let mut body = answer.json();
        let issued = auth.ledger().issued();
        let field = if persona == Persona::CoreBanking { "accessToken" } else { "access_token" };
        assert_eq!(body[field], issued[0].token.as_str());
        assert!(issued[0].token.starts_with(&format!("demo-{}-", persona.name())));
        let fields = body.as_object_mut().unwrap();
        fields.retain(|name, _| {
            !matches!(name.as_str(), "access_token" | "accessToken" | "refresh_token")
                && name != "expirationTime"
        });
        assert_eq!(body, expected, "{persona:?}");
    };
    let standard =
        |scope: &str| json!({"token_type": "Bearer", "expires_in": 3600, "scope": scope});
    check(Persona::QBank, standard(scope)).await;
    check(Persona::Sqr, standard("read:users write:logs")).await;
    check(Persona::CoreBanking, json!({"tokenType": "Bearer", "tokenValiditySec": 3600})).await;
    check(Persona::DataCrunch, standard("fullAccess")).await;
}

#[tokio::test]
async fn a_wrong_secret_is_told_apart_from_a_wrong_request() {
    let auth = auth_server(Persona::QBank).await;
    let body = "grant_type=client_credentials&client_id=x&client_secret=y&scope=balances.read";
    let answer = post(&auth, FORM, body).await;
    assert_eq!((answer.status, &answer.json()["error"]), (401, &json!("invalid_client")));
    let answer = post(&auth, FORM, "grant_type=client_credentials").await;
    assert_eq!((answer.status, &answer.json()["error"]), (400, &json!("invalid_request")));
    let calls = soon(auth.ledger().wait_answered(2)).await;
    assert!(matches!(calls[0].outcome, CallOutcome::Refused(401, _)));
    assert_eq!(calls[0].body, body);
}

#[tokio::test]
async fn a_refresh_token_is_replaced_with_each_use() {
    let auth = auth_server(Persona::DataCrunch).await;
    let first = ask(&auth, "").await.json();
    let refresh =
        |token: &Value| json!({"grant_type": "refresh_token", "refresh_token": token}).to_string();
    let again = refresh(&first["refresh_token"]);
    let second = post(&auth, JSON, &again).await.json();
    assert_ne!(first["access_token"], second["access_token"]);
    assert_ne!(first["refresh_token"], second["refresh_token"]);
    let third = post(&auth, JSON, &again).await;
    assert_eq!((third.status, &third.json()["error"]), (400, &json!("invalid_grant")));
    assert_eq!(post(&auth, JSON, &refresh(&second["refresh_token"])).await.status, 200);
}

#[tokio::test]
async fn faults_follow_the_script_and_then_end() {
    let auth = auth_server(Persona::Sqr).await;
    let retry_after = Duration::from_secs(7);
    auth.set_faults([
        Fault::Html500,
        Fault::Malformed,
        Fault::InvalidClient,
        Fault::TooMany { retry_after },
        Fault::Status(503),
        Fault::NoExpiry,
        Fault::ShortLife(Duration::from_secs(3)),
        Fault::SameToken,
        Fault::Delay(Duration::from_millis(1)),
    ]);
    assert_eq!(ask(&auth, "").await.header("content-type"), Some("text/html"));
    assert!(serde_json::from_slice::<Value>(&ask(&auth, "").await.body).is_err());
    assert_eq!(ask(&auth, "").await.status, 401);
    assert_eq!(ask(&auth, "").await.header("retry-after"), Some("7"));
    assert_eq!(ask(&auth, "").await.status, 503);
    assert_eq!(ask(&auth, "").await.json().get("expires_in"), None);
    let short = ask(&auth, "").await.json();
    assert_eq!(short["expires_in"], 3);
    let same = ask(&auth, "").await.json();
    assert_eq!(same["access_token"], short["access_token"]);
    assert_eq!(ask(&auth, "").await.json()["expires_in"], 3600);
    assert_eq!(ask(&auth, "").await.status, 200);
    let outcomes = auth.ledger().calls().into_iter().map(|call| call.outcome);
    assert_eq!(outcomes.filter(|outcome| matches!(outcome, CallOutcome::Faulted(_))).count(), 5);
}

#[tokio::test]
async fn a_held_call_is_in_the_ledger_before_it_is_answered() {
    let auth = auth_server(Persona::Sqr).await;
    auth.set_faults([Fault::Hold]);
    let (answer, ()) = tokio::join!(ask(&auth, ""), async {
        let calls = soon(auth.ledger().wait_calls(1)).await;
        assert_eq!(calls[0].outcome, CallOutcome::Pending);
        auth.release(1);
    });
    assert_eq!(answer.status, 200);
}

#[tokio::test]
async fn connections_drop_when_the_script_says_so_or_the_server_is_down() {
    let auth = auth_server(Persona::Sqr).await;
    let mut kept = client(auth.addr()).await;
    let request = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n";
    auth.set_faults([Fault::DropConnection]);
    kept.send(request).await;
    assert_eq!(soon(kept.try_read("GET")).await, None);
    auth.set_down(true);
    assert_eq!(client(auth.addr()).await.read_to_close().await, b"");
    auth.set_down(false);
    assert_eq!(ask(&auth, "").await.status, 200);
    let addr = auth.addr();
    auth.shutdown().await;
    assert!(tokio::net::TcpStream::connect(addr).await.is_err());
}

#[tokio::test]
async fn the_api_judges_tokens_as_rfc_6750_asks() {
    let auth = auth_server(Persona::QBank).await;
    let api = upstream(&auth).await;
    let mut client = client(api.addr()).await;
    let token =
        ask(&auth, "balances.read").await.json()["access_token"].as_str().unwrap().to_owned();
    let path = "/v1/balances/42?on=today";
    let good = client.request("GET", path, &[("Authorization", &bearer(&token))], b"").await;
    assert_eq!(good.status, 200);
    let echo = good.json();
    assert_eq!((&echo["path"], &echo["query"]), (&json!("/v1/balances/42"), &json!("on=today")));
    let end = &token[token.len() - 4..];
    let shown = format!("Bearer demo-…{end} (valid, scopes balances.read)");
    assert_eq!(echo["headers"]["authorization"], shown);
    assert!(!good.text().contains(&token), "an echo never shows a token");

    let other = "/v1/payments/ach/7";
    let answer = client.request("POST", other, &[("Authorization", &bearer(&token))], b"{}").await;
    assert_eq!(answer.status, 403);
    assert!(answer.header("www-authenticate").unwrap().contains("insufficient_scope"));
    let answer = client.get(path).await;
    assert_eq!(
        (answer.status, answer.header("www-authenticate")),
        (401, Some("Bearer realm=\"demo\""))
    );
    let answer = client.request("GET", path, &[("Authorization", "Bearer x")], b"").await;
    assert!(answer.header("www-authenticate").unwrap().contains("error=\"invalid_token\""));
    auth.ledger().revoke_all();
    let answer = client.request("GET", path, &[("Authorization", &bearer(&token))], b"").await;
    assert_eq!(answer.status, 401);

    let seen = soon(api.wait_requests(5)).await;
    assert_eq!(seen[0].token.as_deref(), Some(token.as_str()));
    assert_eq!(seen[4].validity, TokenValidity::Revoked);
    assert!(seen.iter().all(|seen| seen.connection == 0), "one connection carried all");
    assert_eq!((api.missing_tokens(), api.expired_tokens()), (1, 0));
}

#[tokio::test]
async fn a_token_past_its_life_is_expired_for_the_api() {
    let options = AuthOptions::for_persona(Persona::DataCrunch);
    let lifetime = Duration::ZERO;
    let auth = AuthServer::start(Persona::DataCrunch, AuthOptions { lifetime, ..options });
    let auth = auth.await.unwrap();
    let api = upstream(&auth).await;
    let token = ask(&auth, "").await.json()["access_token"].as_str().unwrap().to_owned();
    let header = bearer(&token);
    let mut client = client(api.addr()).await;
    let answer = client.request("GET", "/v1/balance", &[("Authorization", &header)], b"").await;
    assert_eq!((answer.status, api.expired_tokens()), (401, 1));
}

#[tokio::test]
async fn the_api_answers_by_script_too() {
    let auth = auth_server(Persona::CoreBanking).await;
    let api = upstream(&auth).await;
    let headers = vec![("X-One", "1".to_owned()), ("X-One", "2".to_owned())];
    let body = "busy".into();
    api.set_responses([
        ScriptedResponse::Exactly { status: 502, headers, body },
        ScriptedResponse::Challenge,
        ScriptedResponse::Hold,
        ScriptedResponse::DropConnection,
    ]);
    let mut client = client(api.addr()).await;
    let answer = client.get("/api/x").await;
    assert_eq!((answer.status, answer.text().as_str()), (502, "busy"));
    assert_eq!(answer.headers.iter().filter(|(name, _)| name == "x-one").count(), 2);
    assert_eq!(client.get("/api/x").await.status, 401);
    let (answer, ()) = tokio::join!(client.get("/api/x"), async {
        soon(api.wait_requests(3)).await;
        api.release(1);
    });
    assert_eq!(answer.status, 401);
    client.send("GET / HTTP/1.1\r\nHost: x\r\n\r\n").await;
    assert_eq!(soon(client.try_read("GET")).await, None);
}

#[tokio::test]
async fn the_sandbox_writes_a_configuration_for_all_banks() {
    let sandbox = Sandbox::start(Duration::from_secs(20)).await.unwrap();
    let dir = tempfile::tempdir().unwrap();
    let text = crate::support::config(&sandbox, &dir);
    let config: toml::Table = text.parse().unwrap();
    for persona in Persona::ALL {
        let mount = persona.mount();
        let bank = sandbox.bank(persona);
        let credential = &config["credentials"][mount];
        assert_eq!(credential["preset"].as_str(), Some(persona.name()));
        let file = credential["client_secret"]["file"].as_str().unwrap();
        assert_eq!(std::fs::read_to_string(file).unwrap(), bank.auth.client_secret());
        let upstream = &config["upstreams"][mount];
        assert_eq!(upstream["mount"].as_str(), Some(format!("/{mount}").as_str()));
        assert!(upstream["url"].as_str().unwrap().starts_with(&bank.api.base_url()));
    }
    sandbox.shutdown().await;
}
