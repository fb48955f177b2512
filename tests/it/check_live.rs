//! `check --live`: what it finds on the first day in a bank, and what it says about it.

use std::net::SocketAddr;

use bearer_proxy::sandbox::ScriptedResponse;
use rcgen::{CertificateParams, DnType, date_time_ymd};
use serde_json::Value;

use crate::support::corporate::{Corporate, Verdict};
use crate::support::secured::{Secured, Special};
use crate::support::tls::{Authority, Front, Identity};
use crate::support::{Proxy, client, raw_server, secret_file};
use crate::verbs::{Ended, verb};

/// Checks a configuration.
async fn live(bank: &Secured, config: &str, flags: &[&str]) -> Ended {
    let dir = bank.ca.file("");
    std::fs::write(dir.join("bearer-proxy.toml"), config).unwrap();
    verb(&dir, &[&["check", "--live"], flags].concat()).await
}

/// Its steps as JSON, for one part of the configuration.
async fn steps(bank: &Secured, config: &str, kind: &str) -> (i32, Vec<Value>) {
    let ended = live(bank, config, &["-o", "json"]).await;
    let all: Value =
        serde_json::from_str(&ended.stdout).unwrap_or_else(|_| panic!("{}", ended.stderr));
    assert_eq!(all["ok"], ended.code == 0);
    let part = all["checks"].as_array().unwrap().iter().find(|part| part["kind"] == kind).unwrap();
    (ended.code, part["steps"].as_array().unwrap().clone())
}

/// Checks that the last step of a part failed in these words.
async fn check_failure(bank: &Secured, config: &str, kind: &str, step: &str, words: &[&str]) {
    let (code, steps) = steps(bank, config, kind).await;
    let failed: Vec<_> = steps.iter().filter(|step| step["ok"] == false).collect();
    let (name, said) =
        (&failed[0]["step"], format!("{} / {}", failed[0]["found"], failed[0]["hint"]));
    assert_eq!((code, name.as_str()), (3, Some(step)), "{said}");
    assert!(failed[0]["hint"].is_string(), "{said}");
    for word in words {
        assert!(said.contains(word), "`{word}` is not in: {said}");
    }
}

/// The same, of an upstream that shows `identity`.
async fn check_upstream(make: impl FnOnce(&Authority) -> Identity, words: &[&str]) {
    let mut bank = Secured::start().await;
    bank.api = Front::start(&make(&bank.ca), None, bank.bank.api.addr()).await;
    check_failure(&bank, &bank.config(&Special::default()), "upstream", "tls", words).await;
    assert!(bank.bank.api.requests().is_empty());
}

fn common_name(name: &str) -> impl FnOnce(&mut CertificateParams) {
    move |params| {
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, name);
    }
}

#[tokio::test]
async fn likely_mistakes_in_a_secret_are_noted_beside_its_length() {
    let bank = Secured::start().await;
    let config = bank.config(&Special::default());
    let secret = bank.bank.auth.client_secret();
    for (content, words) in [
        (format!(" {secret}"), "blanks around it"),
        (format!("\"{secret}\""), "quotes around it"),
        (format!("SECRET={secret}"), "KEY=value"),
        (format!("{secret}\n\n"), "more than one newline"),
        ("-----BEGIN PRIVATE KEY-----".to_owned(), "PEM"),
    ] {
        secret_file(&bank.ca.file(""), "qbank_client_secret", &content);
        let (_, steps) = steps(&bank, &config, "credential").await;
        let step = steps.iter().find(|step| step["step"] == "client_secret").unwrap();
        let found = step["found"].as_str().unwrap();
        assert!(found.contains(" bytes, mode 0600; note: ") && found.contains(words), "{found}");
        assert_eq!((&step["ok"], &step["status"]), (&true.into(), &"warning".into()));
        assert!(!found.contains(secret));
    }
}

#[tokio::test]
async fn what_is_well_is_told_step_by_step() {
    let bank = Secured::start().await;
    let ended = live(&bank, &bank.config(&Special::default()), &[]).await;
    assert_eq!(ended.code, 0, "{}{}", ended.stdout, ended.stderr);
    let id = bank.bank.auth.client_id();
    let secret = bank.bank.auth.client_secret();
    for part in [
        "credential qbank  https://localhost:",
        "√ client_id ",
        &format!("qbank_client_id, {} bytes, mode 0600", id.len()),
        &format!("qbank_client_secret, {} bytes, mode 0600", secret.len()),
        "√ dns ",
        "127.0.0.1",
        "√ tcp ",
        "√ tls            TLS 1.3",
        "issued by CN=Bank Test CA, ",
        " days left",
        "√ clock          as the server's",
        "valid for 3600 s, asked with balances.read",
        "granted: balances.read",
        "upstream qbank  https://localhost:",
        "everything answers",
    ] {
        assert!(ended.stdout.contains(part), "`{part}` is not in:\n{}", ended.stdout);
    }
    assert!(!ended.stdout.contains(secret) && !ended.stderr.contains(secret));
    for issued in bank.bank.auth.ledger().issued() {
        assert!(!ended.stdout.contains(&issued.token));
    }
    assert!(bank.bank.api.requests().is_empty(), "an upstream is connected to and asked nothing");
}

#[tokio::test]
async fn the_first_day_in_a_bank_has_words_of_its_own() {
    let inspector = Authority::new("Zscaler Intermediate Root CA");
    let words = ["your network inspects TLS", "CN=Zscaler Intermediate Root CA", "extra_ca_file"];
    check_upstream(|_| inspector.issue(&["localhost"], |_| {}), &words).await;
    let unknown = Authority::new("Example Corp Proxy CA");
    let words = ["CN=Example Corp Proxy CA", "may inspect TLS", "private CA", "extra_ca_file"];
    check_upstream(|_| unknown.issue(&["localhost"], |_| {}), &words).await;
    let words = ["only in its common name (CN=localhost)", "subject alternative name localhost"];
    check_upstream(|ca| ca.issue(&[], common_name("localhost")), &words).await;
    let words = ["issued by CN=Bank Test Sub CA", "leaves out an intermediate certificate"];
    check_upstream(
        |ca| ca.intermediate("Bank Test Sub CA").0.issue(&["localhost"], common_name("localhost")),
        &words,
    )
    .await;
    let ended = |params: &mut CertificateParams| {
        params.not_before = date_time_ymd(2020, 1, 1);
        params.not_after = date_time_ymd(2020, 2, 1);
    };
    check_upstream(|ca| ca.issue(&["localhost"], ended), &["has expired", "clock"]).await;
    let words = ["other.bank.test", "is the URL's host right?"];
    check_upstream(|ca| ca.issue(&["other.bank.test"], |_| {}), &words).await;
}

#[tokio::test]
async fn a_whole_chain_is_well_and_one_that_ends_soon_is_a_warning() {
    let mut bank = Secured::start().await;
    let (sub, shown) = bank.ca.intermediate("Bank Test Sub CA");
    let leaf = sub.issue(&["localhost"], |params| {
        params.not_after =
            (std::time::SystemTime::now() + std::time::Duration::from_secs(5 * 86_400)).into();
    });
    bank.api = Front::start(&leaf.with_chain(&[&shown]), None, bank.bank.api.addr()).await;
    let (code, steps) = steps(&bank, &bank.config(&Special::default()), "upstream").await;
    let tls = steps.iter().find(|step| step["step"] == "tls").unwrap();
    assert_eq!((code, tls["status"].as_str()), (0, Some("warning")), "{tls}");
    assert!(tls["found"].as_str().unwrap().contains("4 days left"), "{tls}");
}

/// A server that knows no cipher or version of ours, as bytes: rustls cannot be one.
#[tokio::test]
async fn a_server_of_old_is_told_by_how_it_refuses() {
    let check = async |answer: &'static [u8], words: &[&str]| {
        let (bank, server) = (Secured::start().await, raw_server().await);
        let port = server.addr.port();
        let old = tokio::spawn(async move {
            let mut client = server.accept().await;
            let head = client.read_bytes(5).await;
            client.read_bytes(usize::from(head[3]) << 8 | usize::from(head[4])).await;
            client.send(answer).await;
        });
        let origin = format!("https://localhost:{port}");
        let config = bank.config(&Special { api_origin: Some(&origin), ..<_>::default() });
        check_failure(&bank, &config, "upstream", "tls", words).await;
        old.await.unwrap();
    };
    // Fatal alerts: handshake_failure and protocol_version (RFC 8446 section 6).
    check(b"\x15\x03\x03\x00\x02\x02\x28", &["no cipher in common", "ECDHE", "TLS 1.1"]).await;
    check(b"\x15\x03\x02\x00\x02\x02\x46", &["TLS 1.1 and older", "RFC 8996"]).await;
    // A ServerHello of TLS 1.1 (RFC 4346 section 7.4.1.3) with TLS_RSA_WITH_AES_128_CBC_SHA.
    const HELLO: &[u8] = b"\x16\x03\x02\x00\x2a\x02\x00\x00\x26\x03\x02\
        0123456789abcdef0123456789abcdef\x00\x00\x2f\x00";
    check(HELLO, &["TLS 1.1 and older", "ask the API's owner"]).await;
    check(b"", &["hung up in the middle of the handshake", "[egress]"]).await;
}

#[tokio::test]
async fn files_that_hold_something_else_are_told_with_the_command_that_converts_them() {
    let bank = Secured::start().await;
    let ours = bank.ca.issue(&["erp"], |_| {});
    bank.ca.write("erp", &ours);
    let file = |name: &str| bank.ca.file(name).display().to_string();
    std::fs::write(file("erp.p12"), b"\x30\x82\x0a\x00\x02\x01\x03\x30\x82\xff").unwrap();
    let encrypted =
        "-----BEGIN ENCRYPTED PRIVATE KEY-----\nMIIB\n-----END ENCRYPTED PRIVATE KEY-----\n";
    secret_file(&bank.ca.file(""), "encrypted.pem", encrypted);
    secret_file(&bank.ca.file(""), "key.p12", "");
    std::fs::write(file("key.p12"), b"\x30\x82\x0a\x00\x02\x01\x03\x30\x82\xff").unwrap();
    let mutual = |certificate: &str, key: &str| {
        let (certificate, key) = (file(certificate), file(key));
        let upstream = format!(
            "tls = {{ client_certificate_file = \"{certificate}\", client_key_file = \"{key}\" }}"
        );
        bank.config(&Special { upstream: &upstream, ..<_>::default() })
    };
    let check = async |config: String, words: &[&str]| {
        check_failure(&bank, &config, "upstream", "client certificate", words).await;
    };
    check(mutual("erp.pem", "erp.p12"), &["PKCS#12", "openssl pkcs12 -in", "-nocerts"]).await;
    check(mutual("erp.p12", "erp.key"), &["PKCS#12", "openssl pkcs12 -in", "-nokeys"]).await;
    check(mutual("erp.pem", "encrypted.pem"), &["under a passphrase", "openssl pkey -in"]).await;
    for (key, words) in [
        ("encrypted.pem", ["under a passphrase", "openssl pkey -in"]),
        ("key.p12", ["PKCS#12", "-nocerts -nodes -out key.pem (with -legacy"]),
    ] {
        let credential = format!(
            "client_auth = \"private_key_jwt\"\nsigning_algorithm = \"ES256\"\nclient_secret.file = \"{}\"",
            file(key)
        );
        let config = bank.config(&Special { credential: &credential, ..<_>::default() });
        check_failure(&bank, &config, "credential", "client_secret", &words).await;
    }
    let upstream = format!("tls = {{ extra_ca_file = \"{}\" }}", file("erp.p12"));
    let config = bank.config(&Special { upstream: &upstream, ..<_>::default() });
    check_failure(&bank, &config, "upstream", "tls files", &["PKCS#12", "-nokeys"]).await;
}

#[tokio::test]
async fn each_step_before_tls_fails_in_its_own_words() {
    let bank = Secured::start().await;
    let at = |origin: &str| bank.config(&Special { api_origin: Some(origin), ..<_>::default() });
    let check = async |config: String, step: &str, words: &[&str]| {
        check_failure(&bank, &config, "upstream", step, words).await;
    };
    check(at("https://nowhere.invalid"), "dns", &["nowhere.invalid", "DNS"]).await;
    check(at("https://127.0.0.1:9"), "tcp", &["127.0.0.1:9", "nothing listens there"]).await;
    let refuses = Corporate::start(|_| {
        Verdict::Say("HTTP/1.1 407 Log In\r\nProxy-Authenticate: Basic\r\n\r\n")
    });
    let refuses = refuses.await;
    let upstream = format!("egress = {{ proxy = \"http://{}\" }}", refuses.addr);
    let config = bank.config(&Special { upstream: &upstream, ..<_>::default() });
    check(config, "egress proxy", &["407 Log In", "set egress.username"]).await;
    let api: SocketAddr = bank.api.addr;
    let leads = Corporate::start(move |_| Verdict::Lead(api)).await;
    let upstream = format!("egress = {{ proxy = \"http://{}\" }}", leads.addr);
    let config = bank.config(&Special { upstream: &upstream, ..<_>::default() });
    let (code, steps) = steps(&bank, &config, "upstream").await;
    let egress = steps.iter().find(|step| step["step"] == "egress proxy").unwrap();
    assert_eq!(code, 0);
    assert!(egress["found"].as_str().unwrap().contains("200 Connection established"), "{egress}");
}

#[tokio::test]
async fn a_server_that_wants_a_client_certificate_is_told_although_it_objects_late() {
    let ours = Authority::new("Client CA");
    let bank = Secured::demanding(Some(ours.roots())).await;
    let config = bank.config(&Special::default());
    for kind in ["credential", "upstream"] {
        let words = ["fatal alert: certificate_required", "client_certificate_file"];
        check_failure(&bank, &config, kind, "tls", &words).await;
    }
}

#[tokio::test]
async fn secrets_and_tokens_fail_in_their_own_words() {
    let bank = Secured::start().await;
    let config = bank.config(&Special::default());
    let wrong = config.replace("balances.read", "payments.none");
    let check = async |config: &str, step: &str, words: &[&str]| {
        check_failure(&bank, config, "credential", step, words).await;
    };
    check(&wrong, "token", &["invalid_scope"]).await;
    check(
        &config.replace("qbank_client_secret", "absent"),
        "client_secret",
        &["does not exist", "create it"],
    )
    .await;
    secret_file(&bank.ca.file(""), "other", "not the secret");
    check(
        &config.replace("qbank_client_secret", "other"),
        "token",
        &["invalid_client", "client_secret"],
    )
    .await;
    secret_file(&bank.ca.file(""), "open", "x");
    use std::os::unix::fs::PermissionsExt as _;
    std::fs::set_permissions(bank.ca.file("open"), std::fs::Permissions::from_mode(0o644)).unwrap();
    check(
        &config.replace("qbank_client_secret", "open"),
        "client_secret",
        &["mode 0644", "chmod 600"],
    )
    .await;
}

#[tokio::test]
async fn a_running_instance_is_asked_before_its_token_server() {
    let bank = Secured::start().await;
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let config = bank.config(&Special::default());
    let admin = format!("[admin]\nlisten = \"{free}\"");
    let config = config.replace("[admin]\nlisten = \"127.0.0.1:0\"", &admin);
    let proxy = Proxy::start(&config).await;
    proxy.wait_ready().await;
    let calls = || bank.bank.auth.ledger().calls().len();
    let before = calls();
    let ended = live(&bank, &config, &[]).await;
    assert_eq!((ended.code, calls()), (0, before), "{}", ended.stdout);
    let held = format!("the instance at {free} holds a usable one until ");
    assert!(ended.stdout.contains(&held), "{}", ended.stdout);
    let ended = live(&bank, &config, &["--fresh"]).await;
    assert_eq!((ended.code, calls()), (0, before + 1), "{}", ended.stdout);
    assert!(ended.stderr.contains("may cost quota"), "{}", ended.stderr);
    assert!(ended.stdout.contains("valid for 3600 s"), "{}", ended.stdout);
    let before = calls();
    let route = ["token", "--route", "qbank.balances"];
    let ended = verb(&bank.ca.file(""), &route).await;
    assert_eq!((ended.code, calls()), (0, before), "{}", ended.stderr);
    assert!(
        ended.stdout.contains(&format!("held by     the instance at {free}\n")),
        "{}",
        ended.stdout
    );
    let ended = verb(&bank.ca.file(""), &[&route[..], &["--fresh"]].concat()).await;
    assert_eq!((ended.code, calls()), (0, before + 1), "{}", ended.stderr);
    assert!(ended.stdout.contains("granted     balances.read"), "{}", ended.stdout);
}

#[tokio::test]
async fn keys_of_clients_and_certificates_of_listeners_are_read_too() {
    let bank = Secured::start().await;
    let file = |name: &str| bank.ca.file(name).display().to_string();
    let listen = format!(
        "listen = {{ address = \"127.0.0.1:0\", tls = {{ certificate_file = \"{}\", key_file = \"{}\" }} }}",
        file("server.pem"),
        file("server.key"),
    );
    secret_file(&bank.ca.file(""), "local", "a local key of this story");
    let client = format!(
        "[clients.erp]\nlocal_key = {{ header = \"X-Local-Key\", value.file = \"{}\" }}\n",
        file("local")
    );
    let config = bank.config(&Special { tables: &client, ..<_>::default() });
    let config = config.replacen("listen = \"127.0.0.1:0\"", &listen, 1);
    let (code, steps) = steps(&bank, &config, "listener").await;
    assert_eq!((code, steps[0]["status"].as_str()), (0, Some("ok")), "{steps:?}");
    assert!(steps[0]["found"].as_str().unwrap().ends_with("days left"), "{steps:?}");
    let words = ["does not exist", "create it"];
    check_failure(&bank, &config.replace("/local\"", "/absent\""), "client", "local_key", &words)
        .await;
    let words = ["server.absent", "cannot be read"];
    let config = config.replace("server.key", "server.absent");
    check_failure(&bank, &config, "listener", "certificate", &words).await;
}

/// An instance that hangs may hold a live token, which a call could end.
#[tokio::test]
async fn an_admin_address_that_gives_no_status_is_a_failure_and_costs_no_call() {
    let bank = Secured::start().await;
    let at = |address: SocketAddr| {
        let admin = format!("[admin]\nlisten = \"{address}\"");
        let config = bank.config(&Special::default());
        config.replace("[admin]\nlisten = \"127.0.0.1:0\"", &admin)
    };
    let calls = || bank.bank.auth.ledger().calls().len();
    let hanging = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let server = raw_server().await;
    let other = server.addr;
    tokio::spawn(async move {
        loop {
            let mut caller = server.accept().await;
            caller.read_head().await;
            caller.send(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n").await;
        }
    });
    for (address, words) in [
        (hanging.local_addr().unwrap(), "does not answer: no answer in time"),
        (other, "answers /status with 404, and not as bearer-proxy does"),
    ] {
        let ended = live(&bank, &at(address), &[]).await;
        assert_eq!((ended.code, calls()), (3, 0), "{}", ended.stdout);
        let instance =
            format!("instance {address}\n  × running  what listens at {address} {words}");
        assert!(ended.stdout.contains(&instance), "{}", ended.stdout);
        assert!(ended.stdout.contains("‼ token"), "{}", ended.stdout);
        let ended = verb(&bank.ca.file(""), &["token", "--route", "qbank.balances"]).await;
        assert_eq!((ended.code, calls()), (1, 0), "{}", ended.stdout);
        assert!(
            ended.stderr.contains(words) && ended.stderr.contains("--fresh"),
            "{}",
            ended.stderr
        );
    }
    let ended = live(&bank, &at(hanging.local_addr().unwrap()), &["--fresh"]).await;
    assert_eq!((ended.code, calls()), (0, 1), "{}", ended.stdout);
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let ended = live(&bank, &at(nobody), &[]).await;
    assert_eq!((ended.code, calls()), (0, 2), "{}", ended.stdout);
    let note = format!("note: no running instance was asked: nothing listens at {nobody}\n");
    assert!(ended.stderr.contains(&note), "{}", ended.stderr);
    assert!(ended.stdout.ends_with("everything answers\n"), "{}", ended.stdout);
}

/// A proxy before the bank whose admin address is in its configuration, with further routes.
async fn instance(bank: &Secured, routes: &str) -> (Proxy, String) {
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let config = bank.config(&Special::default());
    let admin = format!("[admin]\nlisten = \"{free}\"");
    let config = config.replace("[admin]\nlisten = \"127.0.0.1:0\"", &admin) + routes;
    let proxy = Proxy::start(&config).await;
    proxy.wait_ready().await;
    (proxy, config)
}

const PAYMENTS: &str = "[[upstreams.qbank.routes]]\nname = \"pay\"\npath = \"/v1/payments/ach\"\n\
                        methods = [\"POST\"]\nscopes = [\"payments.ach.write\"]\n";

#[tokio::test]
async fn what_a_running_instance_knows_fails_the_check_and_costs_no_call() {
    let bank = Secured::start().await;
    let (proxy, config) = instance(&bank, PAYMENTS).await;
    bank.bank.auth.accept_secrets([]);
    let mut admin = client(proxy.admin_addr).await;
    assert_eq!(admin.request("POST", "/refresh?credential=qbank", &[], b"").await.status, 202);
    proxy.wait_log(|line| line.contains("renewal failed").then_some(())).await;
    for _ in 0..2 {
        bank.bank.api.set_responses([ScriptedResponse::Challenge, ScriptedResponse::Challenge]);
        let mut app = client(proxy.addr).await;
        assert_eq!(app.get("/v1/balances/1").await.status, 401);
    }
    let calls = || bank.bank.auth.ledger().calls().len();
    let before = calls();
    let ended = live(&bank, &config, &[]).await;
    assert_eq!((ended.code, calls()), (3, before), "{}", ended.stdout);
    for part in [
        "instance 127.0.0.1:",
        "√ running  bearer-proxy ",
        "× renewal",
        "invalid_client",
        "× secret",
        "× answers",
        "nothing but 401, 2 times in a row, and says: Bearer",
    ] {
        assert!(ended.stdout.contains(part), "`{part}` is not in:\n{}", ended.stdout);
    }
    let again = ended.stdout.split("these steps failed").nth(1).unwrap();
    assert_eq!(again.matches("credential qbank: secret: ").count(), 2, "at each token: {again}");
    assert!(again.contains("upstream qbank: answers: it answers nothing but 401"), "{again}");
    let ended = live(&bank, &config, &["-o", "json"]).await;
    let json: Value = serde_json::from_str(&ended.stdout).unwrap();
    assert_eq!((ended.code, &json["ok"], calls()), (3, &false.into(), before));
    let failures = json["failures"].as_array().unwrap();
    let named = |step: &str| failures.iter().filter(|failure| failure["step"] == step).count();
    assert_eq!((named("secret"), named("answers")), (2, 1), "{failures:?}");
}

#[tokio::test]
async fn an_upstream_or_a_route_that_fails_is_a_failed_step() {
    let bank = Secured::start().await;
    let (proxy, config) = instance(&bank, PAYMENTS).await;
    let mut app = client(proxy.addr).await;
    let failure = || {
        let (headers, body) = (Vec::new(), Default::default());
        ScriptedResponse::Exactly { status: 500, headers, body }
    };
    for _ in 0..2 {
        bank.bank.api.set_responses([failure()]);
        let answer = app.request("POST", "/v1/payments/ach", &[], b"{}").await;
        assert_eq!(answer.status, 500);
        assert_eq!(app.get("/v1/balances/1").await.status, 200);
    }
    let ended = live(&bank, &config, &[]).await;
    assert_eq!(ended.code, 3, "{}", ended.stdout);
    let words = "× route pay  the last 2 unsafe requests (POST) failed since 2";
    assert!(ended.stdout.contains(words), "{}", ended.stdout);
    assert!(!ended.stdout.contains("× requests"), "{}", ended.stdout);
    bank.bank.api.set_responses([failure()]);
    assert_eq!(app.get("/v1/balances/1").await.status, 500);
    let ended = live(&bank, &config, &[]).await;
    assert_eq!(ended.code, 3, "{}", ended.stdout);
    assert!(ended.stdout.contains("× requests"), "{}", ended.stdout);
    assert!(ended.stdout.contains("ask what was booked"), "{}", ended.stdout);
    assert!(!ended.stdout.contains("everything answers"), "{}", ended.stdout);
    let answer = app.request("POST", "/v1/payments/ach", &[], b"{}").await;
    assert!(answer.status < 500, "{}", answer.status);
    let ended = live(&bank, &config, &[]).await;
    assert_eq!(ended.code, 0, "{}", ended.stdout);
}

#[tokio::test]
async fn a_client_that_is_refused_is_tried_once() {
    let bank = Secured::start().await;
    bank.bank.auth.accept_secrets([]);
    let config = bank.config(&Special::default()) + PAYMENTS;
    let ended = live(&bank, &config, &[]).await;
    assert_eq!((ended.code, bank.bank.auth.ledger().calls().len()), (3, 1), "{}", ended.stdout);
    assert!(ended.stdout.contains("‼ token"), "{}", ended.stdout);
    assert!(ended.stdout.contains("not asked for"), "{}", ended.stdout);
}
