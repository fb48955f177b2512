//! Broken files: each problem has a place, and nothing secret is shown.

use std::path::Path;

use super::parse;

const GOOD: &str = include_str!("../../config/all-four.toml");
const CANARY: &str = "canary7Secret";

fn problems(text: &str) -> (String, String) {
    let found = parse(text, Path::new("x.toml"), &|_| None).expect_err(text);
    (found.render(false), found.to_json())
}

#[test]
fn every_example_loads() {
    for entry in std::fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/config")).unwrap() {
        let path = entry.unwrap().path();
        if let Err(problems) = super::load(&path) {
            panic!("{}", problems.render(false));
        }
    }
}

#[test]
fn broken_files_are_explained_where_they_are_broken() {
    let check = |from: &str, to: &str, expected: &str| {
        assert!(GOOD.contains(from), "{from}");
        let (text, _) = problems(&GOOD.replacen(from, to, 1));
        assert!(text.contains(expected), "{to}: {text}");
        assert!(text.contains("--> x.toml:"), "{text}");
    };
    check("scopes = [\"balances.read\"]", "scope = [\"balances.read\"]", "did you mean `scopes`?");
    check("preset = \"qbank\"", "preset = \"qbnk\"", "did you mean \"qbank\"?");
    check("version = 1", "version = 2", "expected 1");
    check("version = 1", "", "`version` is missing");
    check("credential = \"qbank\"", "credential = \"qbnk\"", "did you mean \"qbank\"?");
    check(
        "url = \"https://api.qbankconnect.com\"",
        "url = \"http://api.qbankconnect.com\"",
        "write https",
    );
    check("path = \"/v1/balances/{accountId}\"", "path = \"/v1//x\"", "two slashes");
    check("methods = [\"GET\"]", "methods = [\"get\"]", "in capitals");
    check("methods = [\"GET\"]", "methods = []", "names none");
    check("name = \"transactions\"", "name = \"balances\"", "share a name");
    check("mount = \"/sqr\"", "mount = \"/sqr/\"", "without a slash");
    check(
        "client_id.env = \"SQR_CLIENT_ID\"",
        "client_id = \"x\"",
        "may not be written into this file",
    );
    check("client_id.env = \"SQR_CLIENT_ID\"", "client_id.envv = \"x\"", "did you mean `env`?");
    check("path = \"/v1/user-status\"", "path = \"/v1/oauth/token\"", "names a token endpoint");
    check(
        "mount = \"/sqr\"",
        "mount = \"/sqr\"\ntimeouts = { response = \"30\" }",
        "with its unit",
    );
    check("mount = \"/sqr\"", "mount = \"/sqr\"\nnonsense = [", "not valid TOML");
    check("base_url = \"https://core.example-bank.test\"", "", "`base_url` is missing");
    check("version = 1", "version = 1\n[server]\nlisten = \"0.0.0.0:80\"", "clients = \"anyone\"");
    check("version = 1", "version = 1\n[admin]\nlisten = \"0.0.0.0:80\"", "allow_remote = true");
    check("version = 1", "version = 1\n[admin]\nlisten = \"localhost:6750\"", "share an address");
}

#[test]
fn all_problems_come_at_once() {
    let broken = GOOD
        .replace("version = 1", "version = 1\nunknown = 1")
        .replace("preset = \"sqr\"", "preset = \"x\"");
    let (text, json) = problems(&broken);
    assert!(
        text.contains("unknown key `unknown`") && text.contains("`preset` has no such choice"),
        "{text}"
    );
    assert!(json.contains("\"line\"") && json.contains("\"column\""));
}

#[test]
fn what_is_secret_is_never_shown() {
    let places = [
        "client_secret = \"CANARY\"",
        "client_secret = CANARY",
        "client_secret = 'CANARY",
        "client_secret = \"\"\"\nCANARY=\n\"\"\"",
        "client_secret = { value = \"CANARY\" }",
        "client_secret.value = \"CANARY\"",
        "client_secret = [\"CANARY\"]",
        "client_secrt = \"CANARY\"",
        "secret = \"CANARY\" # CANARY",
        "password = \"CANARY\"",
        "client_secret.env = \"a=CANARY\"",
        "client_secret.file = [\"CANARY\"]",
        "token_url = \"https://user:CANARY@bank.example\"",
        "token_url = \"https://bank.example/?client_secret=CANARY\"",
        "client_secret = \"CANARY\" client_id = \"x\"",
    ];
    let original = "client_secret.file = \"/run/secrets/sqr_client_secret\"";
    assert!(GOOD.contains(original));
    for place in places {
        let place = place.replace("CANARY", CANARY);
        let (text, json) = problems(&GOOD.replace(original, &place));
        assert!(!text.contains(CANARY) && !json.contains(CANARY), "{place}: {text}");
        assert!(text.contains("--> x.toml:"), "{text}");
    }
}
