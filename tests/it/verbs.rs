//! The verbs a person types: what they print, where, and the exit code, as a shell sees them.

use std::path::Path;
use std::process::Output;
use std::time::Duration;

use bearer_proxy::sandbox::{Persona, Sandbox};
use tempfile::TempDir;
use tokio::io::AsyncBufReadExt as _;

use crate::forwarding::sidecar;
use crate::support::{Proxy, client, config, secret_file, soon};

/// How a verb ended.
pub struct Ended {
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
}

/// Runs the program in `dir` until it ends.
pub async fn verb(dir: &Path, args: &[&str]) -> Ended {
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_bearer-proxy"));
    command.args(args).current_dir(dir).env_remove("BEARER_PROXY_CONFIG").env("HOME", dir);
    command.env_remove("XDG_CONFIG_HOME").stdin(std::process::Stdio::null());
    let ended = tokio::task::spawn_blocking(move || command.output().unwrap());
    let Output { status, stdout, stderr } = soon(ended).await.unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    let code = status.code().unwrap_or(-1);
    let ended = Ended { code, stdout: text(stdout), stderr: text(stderr) };
    assert!(!ended.stderr.contains("panicked"), "{args:?}: {}", ended.stderr);
    ended
}

#[tokio::test]
async fn a_first_configuration_is_written_checked_and_explained() {
    let dir = TempDir::new().unwrap();
    let check = |args: &'static [&'static str], code, stdout, stderr| {
        let dir = dir.path().to_owned();
        async move {
            let ended = verb(&dir, args).await;
            assert_eq!(ended.code, code, "{args:?}: {}{}", ended.stdout, ended.stderr);
            assert!(ended.stdout.contains(stdout), "{args:?}: {}", ended.stdout);
            assert!(ended.stderr.contains(stderr), "{args:?}: {}", ended.stderr);
        }
    };
    check(&["check"], 78, "", "no configuration found").await;
    check(&["init", "nonsense"], 2, "", "rfc6749").await;
    check(&["init", "sqr"], 0, "", "").await;
    check(&["init", "sqr"], 1, "", "exists").await;
    check(&["check"], 0, "bearer-proxy.toml: ok, 1 credential", "").await;
    let note = "note: `post` is read as POST";
    check(&["explain", "post", "/sqr/v1/user-status"], 0, "read:users", note).await;
    check(&["explain", "GET", "/nowhere"], 4, "404 no_route", "").await;
    check(&["explain", "GET", "/v1/user-status"], 4, "  missing     the mount /sqr", "").await;
    check(&["explain", "GET", "/sqr/v1/user-status"], 4, "405 method", "").await;
    check(&["explain", "GET", "/a//b"], 4, "400 bad_target", "").await;
    check(&["explain", "POST", "http://localhost:9/sqr/v1/user-status"], 0, "read:users", "").await;
    let foreign = ["explain", "POST", "http://bank.example/sqr/v1/user-status"];
    check(&["explain", "CONNECT", "/sqr/v1/user-status"], 4, "400 bad_target", "").await;
    assert_eq!(verb(dir.path(), &foreign).await.code, 4);
    assert!(verb(dir.path(), &foreign).await.stdout.contains("421 foreign_host"));
    check(&["presets"], 0, "core-banking", "").await;
    check(&["presets", "qbank"], 0, "https://auth.qbankconnect.com/token", "").await;
    check(&["completions", "bash"], 0, "bearer-proxy", "").await;
    check(&["man"], 0, ".TH bearer-proxy 1", "").await;
    check(&["schema", "server.workers"], 0, "workers = 1    # the default", "").await;
    check(&["schema", "workers"], 2, "", "did you mean `server.workers`?").await;
    check(&["schema"], 0, "\"$schema\"", "").await;
    check(&["--help"], 0, "First steps", "").await;
    check(&["--version"], 0, env!("CARGO_PKG_VERSION"), "").await;
    check(&["frobnicate"], 2, "", "unrecognized").await;
    check(&["check", "--config", "/nowhere.toml"], 78, "", "/nowhere.toml").await;
}

#[tokio::test]
async fn a_reader_who_has_read_enough_is_no_failure() {
    let dir = TempDir::new().unwrap();
    let check = async |args: &'static [&'static str], code| {
        let (_, nobody) = std::io::pipe().unwrap();
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_bearer-proxy"));
        command.args(args).current_dir(dir.path()).env_remove("BEARER_PROXY_CONFIG");
        command.env_remove("XDG_CONFIG_HOME").stdin(std::process::Stdio::null());
        command.stdout(nobody.try_clone().unwrap()).stderr(nobody);
        let ended = tokio::task::spawn_blocking(move || command.status().unwrap());
        assert_eq!(soon(ended).await.unwrap().code(), Some(code), "{args:?}");
    };
    check(&["init", "qbank"], 0).await;
    check(&["init", "qbank"], 1).await;
    check(&["check"], 0).await;
    check(&["check", "-o", "json"], 0).await;
    check(&["check", "--live"], 3).await;
    check(&["check", "--live", "-o", "json"], 3).await;
    check(&["check", "--config", "/nowhere.toml"], 78).await;
    check(&["explain", "GET", "/qbank/v1/balances/1"], 0).await;
    check(&["presets"], 0).await;
    check(&["presets", "qbank"], 0).await;
    check(&["completions", "zsh"], 0).await;
    check(&["man"], 0).await;
    check(&["schema"], 0).await;
    check(&["token", "nobody"], 2).await;
    check(&["token", "qbank"], 1).await;
    check(&["status", "--admin", "127.0.0.1:9"], 69).await;
    check(&["frobnicate"], 2).await;
    check(&["--help"], 0).await;
}

#[tokio::test]
async fn a_running_instance_answers_wait_status_and_healthcheck() {
    let (sandbox, proxy, _secrets) = soon(sidecar(Duration::from_secs(60))).await;
    let (dir, admin) = (TempDir::new().unwrap(), proxy.admin_addr.to_string());
    assert_eq!(verb(dir.path(), &["wait", "--admin", &admin]).await.code, 0);
    assert_eq!(verb(dir.path(), &["healthcheck", "--admin", &admin]).await.code, 0);
    let status = verb(dir.path(), &["status", "--admin", &admin]).await;
    assert_eq!(status.code, 0);
    assert!(status.stdout.contains(": ready\n"), "{}", status.stdout);
    assert!(status.stdout.contains("balances.read"), "{}", status.stdout);
    let json = verb(dir.path(), &["status", "--admin", &admin, "-o", "json"]).await.stdout;
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json["ready"], true);
    for bank in sandbox.banks() {
        assert!(!status.stdout.contains(bank.auth.client_secret()));
    }
}

#[tokio::test]
async fn what_is_not_ready_or_not_there_ends_with_69() {
    let sandbox = Sandbox::start(Duration::from_secs(60)).await.unwrap();
    sandbox.bank(Persona::Sqr).auth.set_down(true);
    let secrets = TempDir::new().unwrap();
    let mut proxy = Proxy::start(&config(&sandbox, &secrets)).await;
    let (dir, admin) = (TempDir::new().unwrap(), proxy.admin_addr.to_string());
    let wait = ["wait", "--timeout", "300ms", "--admin", &admin];
    let ended = verb(dir.path(), &wait).await;
    assert_eq!(ended.code, 69, "{}", ended.stderr);
    assert!(ended.stderr.contains("not ready"), "{}", ended.stderr);
    proxy.signal(rustix::process::Signal::INT);
    soon(proxy.wait_exit()).await;
    for verb_name in ["status", "healthcheck"] {
        let ended = verb(dir.path(), &[verb_name, "--admin", &admin]).await;
        assert_eq!(ended.code, 69, "{verb_name}: {}", ended.stderr);
        assert!(ended.stderr.contains("is it running?"), "{}", ended.stderr);
    }
}

#[tokio::test]
async fn who_may_use_a_route_is_explained() {
    let dir = TempDir::new().unwrap();
    let text = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/config/minimal.toml"));
    let check = async |clients: &str, route: &str, expected: &str| {
        let text = text.as_deref().unwrap().replace("scopes = [", &format!("{route}scopes = ["));
        std::fs::write(dir.path().join("bearer-proxy.toml"), format!("{text}\n{clients}")).unwrap();
        let ended = verb(dir.path(), &["explain", "GET", "/v1/balances/42"]).await;
        let line = ended.stdout.lines().find(|line| line.starts_with("  clients"));
        assert_eq!(line.unwrap_or_default(), expected, "{}{}", ended.stdout, ended.stderr);
    };
    let two = "[clients.erp]\nlocal_key = { header = \"X-Local-Key\", value.env = \"ERP_KEY\" }\n\
               [clients.batch]\npeer_uids = [1000]\n";
    check("", "", "").await;
    check(two, "", "  clients     erp, batch").await;
    check(two, "clients = [\"batch\"], ", "  clients     batch").await;
    check(two, "clients = \"anyone\", ", "  clients     anyone").await;
    let ended = verb(dir.path(), &["check"]).await;
    assert!(ended.stdout.contains("1 route, 2 clients"), "{}", ended.stdout);
}

#[tokio::test]
async fn every_preset_has_a_first_configuration_that_names_its_own_file() {
    let dir = TempDir::new().unwrap();
    for preset in bearer_proxy::oauth::presets::all() {
        let file = format!("{}-first.toml", preset.name);
        let ended = verb(dir.path(), &["init", preset.name, "-o", &file]).await;
        assert_eq!(ended.code, 0, "{}", ended.stderr);
        let text = std::fs::read_to_string(dir.path().join(&file)).unwrap();
        assert!(text.contains(&format!("check --config {file}\n")), "{text}");
        assert!(
            preset.name == "rfc6749" || text.contains(&format!("\"{}\"", preset.name)),
            "{text}"
        );
        let ended = verb(dir.path(), &["check", "-c", &file]).await;
        assert_eq!(ended.code, 0, "{file}: {}", ended.stderr);
    }
}

#[tokio::test]
async fn a_first_configuration_names_the_schema_that_is_written_beside_it() {
    let dir = TempDir::new().unwrap();
    let ended = verb(dir.path(), &["init", "qbank"]).await;
    assert!(ended.stdout.contains("wrote bearer-proxy.schema.json"), "{}", ended.stdout);
    let text = std::fs::read_to_string(dir.path().join("bearer-proxy.toml")).unwrap();
    let named = text.lines().next().unwrap().strip_prefix("#:schema ").unwrap();
    let schema = dir.path().join(named);
    let written = std::fs::read_to_string(&schema).unwrap();
    assert_eq!(written, verb(dir.path(), &["schema"]).await.stdout);
    // One that is there stays.
    std::fs::write(&schema, "{}").unwrap();
    let ended = verb(dir.path(), &["init", "sqr", "-o", "other.toml"]).await;
    assert_eq!((ended.code, ended.stdout.contains("schema")), (0, false), "{}", ended.stdout);
    assert_eq!(std::fs::read_to_string(&schema).unwrap(), "{}");
}

#[tokio::test]
async fn a_first_configuration_goes_to_stdout_or_to_the_file_of_config() {
    let dir = TempDir::new().unwrap();
    let ended = verb(dir.path(), &["init", "json", "-o", "-"]).await;
    assert_eq!((ended.code, ended.stderr.as_str()), (0, ""));
    assert!(
        ended.stdout.starts_with("# ") && ended.stdout.contains("[upstreams."),
        "{}",
        ended.stdout
    );
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    let ended = verb(dir.path(), &["init", "sqr", "-c", "mine.toml"]).await;
    assert!(ended.stdout.contains("check --config mine.toml"), "{}", ended.stdout);
    assert!(dir.path().join("mine.toml").exists());
}

#[tokio::test]
async fn the_nearest_route_is_named_where_none_claims_a_request() {
    let dir = TempDir::new().unwrap();
    assert_eq!(verb(dir.path(), &["init", "qbank"]).await.code, 0);
    let check = async |path: &str, expected: &str| {
        let ended = verb(dir.path(), &["explain", "GET", path]).await;
        assert_eq!(ended.code, 4, "{}", ended.stdout);
        let line = ended.stdout.lines().find(|line| line.starts_with("  nearest"));
        assert_eq!(line.unwrap_or_default(), expected, "{}", ended.stdout);
    };
    let balances = "  nearest     qbank.balances (GET /qbank/v1/balances/{accountId})";
    check("/qbank/v1/balance/42", balances).await;
    check("/v1/balances/42", balances).await;
    check("/qbank/v1/balances/42/", balances).await;
    check("/completely/different", "").await;
}

/// The candidates that a shell offers for the last of `words`.
async fn completed(dir: &Path, shell: &str, words: &[&str]) -> Vec<String> {
    let program = env!("CARGO_BIN_EXE_bearer-proxy");
    let script = match shell {
        "bash" => {
            "source <(\"$0\" completions bash)
             COMP_WORDS=(bearer-proxy \"$@\"); COMP_CWORD=$#
             function=$(complete -p bearer-proxy | sed 's/.*-F \\([^ ]*\\) .*/\\1/')
             \"$function\" bearer-proxy \"${@: -1}\" x
             printf '%s\\n' \"${COMPREPLY[@]}\""
        }
        _ => {
            "source (\"$argv[1]\" completions fish | psub)
              complete --do-complete \"bearer-proxy $argv[2..]\" | cut -f1"
        }
    };
    let mut command = std::process::Command::new(shell);
    command.args(["-c", script, program]).args(words).current_dir(dir);
    command.env_remove("BEARER_PROXY_CONFIG").env("HOME", dir).stdin(std::process::Stdio::null());
    let ended = tokio::task::spawn_blocking(move || command.output().unwrap());
    let ended = soon(ended).await.unwrap();
    let text = String::from_utf8(ended.stdout).unwrap();
    assert!(ended.stderr.is_empty(), "{}", String::from_utf8_lossy(&ended.stderr));
    text.lines().map(ToOwned::to_owned).collect()
}

#[tokio::test]
async fn shells_complete_verbs_flags_and_what_the_configuration_names() {
    let dir = TempDir::new().unwrap();
    assert_eq!(verb(dir.path(), &["init", "qbank"]).await.code, 0);
    assert_eq!(verb(dir.path(), &["init", "sqr", "-o", "other.toml"]).await.code, 0);
    let shells = ["bash", "fish"].into_iter().filter(|shell| {
        let there = std::process::Command::new(shell).arg("--version").output().is_ok();
        assert!(there || *shell != "bash");
        there
    });
    for shell in shells {
        let check = async |words: &[&str], expected: &[&str]| {
            let found = completed(dir.path(), shell, words).await;
            let missing: Vec<_> =
                expected.iter().filter(|word| !found.iter().any(|one| one == **word)).collect();
            assert!(missing.is_empty(), "{shell} {words:?}: {missing:?} not in {found:?}");
        };
        check(&["che"], &["check"]).await;
        check(&["check", "--l"], &["--live"]).await;
        check(&["init", "core"], &["core-banking"]).await;
        check(&["presets", ""], &["rfc6749", "json", "datacrunch"]).await;
        check(&["token", ""], &["qbank"]).await;
        check(&["token", "--config", "other.toml", "s"], &["sqr"]).await;
        check(&["token", "--route", "q"], &["qbank.balances"]).await;
        check(&["explain", "G"], &["GET"]).await;
        check(&["explain", "GET", "/q"], &["/qbank/v1/balances/{accountId}"]).await;
        check(&["check", "-o", ""], &["json", "text"]).await;
        check(&["schema", "server.list"], &["server.listen"]).await;
        check(&["keyring", ""], &["set", "delete"]).await;
    }
}

#[tokio::test]
async fn a_start_in_a_terminal_says_what_is_served_and_what_to_try() {
    use std::os::unix::fs::OpenOptionsExt as _;

    use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
    let sandbox = Sandbox::start(Duration::from_secs(60)).await.unwrap();
    let secrets = TempDir::new().unwrap();
    let path = secret_file(secrets.path(), "bearer-proxy.toml", &config(&sandbox, &secrets));
    let terminal = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
    grantpt(&terminal).unwrap();
    unlockpt(&terminal).unwrap();
    let name = ptsname(&terminal, Vec::new()).unwrap();
    let side = std::fs::OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(OpenptFlags::NOCTTY.bits().cast_signed())
        .open(name.to_str().unwrap())
        .unwrap();
    let mut command = tokio::process::Command::new(env!("CARGO_BIN_EXE_bearer-proxy"));
    command.args(["run", "--config"]).arg(&path).stdin(std::process::Stdio::null());
    command.stdout(std::process::Stdio::null()).stderr(side).kill_on_drop(true);
    let _child = command.spawn().unwrap();
    // A thread of its own: the runtime would wait for a blocking task at the end of the test.
    let (sender, shown) = tokio::sync::oneshot::channel();
    std::thread::spawn(move || {
        let (mut terminal, mut text) = (std::fs::File::from(terminal), String::new());
        let mut some = [0; 512];
        while !text.contains("Ctrl-C") {
            match std::io::Read::read(&mut terminal, &mut some) {
                Ok(length @ 1..) => text += &String::from_utf8_lossy(&some[..length]),
                _ => break,
            }
        }
        let _ = sender.send(text);
    });
    let shown = soon(shown).await.unwrap();
    for part in ["/qbank  ", "http://127.0.0.1:", " explain GET /qbank/v1/balances/"] {
        assert!(shown.contains(part), "{part}: {shown}");
    }
}

#[tokio::test]
async fn the_demo_says_how_it_is_called_and_how_long_its_tokens_live() {
    let mut command = tokio::process::Command::new(env!("CARGO_BIN_EXE_bearer-proxy"));
    command.args(["demo", "--port", "0", "--lifetime", "40s"]).stdin(std::process::Stdio::null());
    command.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::null());
    let mut demo = command.kill_on_drop(true).spawn().unwrap();
    let mut shown = tokio::io::BufReader::new(demo.stdout.take().unwrap()).lines();
    let mut text = String::new();
    while let Some(line) = soon(shown.next_line()).await.unwrap() {
        text += &(line + "\n");
        if text.contains("Ctrl-C") {
            break;
        }
    }
    assert!(text.contains("tokens of 40 s") && text.contains("30 to 32 s"), "{text}");
    let line = text.lines().find(|line| line.contains("explain")).unwrap();
    let words: Vec<_> = line.split_whitespace().collect();
    assert_eq!(words[0], env!("CARGO_BIN_EXE_bearer-proxy"), "{text}");
    let dir = TempDir::new().unwrap();
    let ended = verb(dir.path(), &words[1..]).await;
    assert_eq!(ended.code, 0, "{line}: {}{}", ended.stdout, ended.stderr);
}

#[tokio::test]
async fn a_demo_life_that_no_answer_can_state_is_refused() {
    let dir = TempDir::new().unwrap();
    for life in ["500ms", "1500ms"] {
        let ended = verb(dir.path(), &["demo", "--lifetime", life]).await;
        assert_eq!(ended.code, 2, "{}", ended.stderr);
        assert!(ended.stderr.contains("whole seconds"), "{}", ended.stderr);
    }
}

#[tokio::test]
async fn a_running_instance_answers_while_its_file_is_broken() {
    let sandbox = Sandbox::start(Duration::from_secs(60)).await.unwrap();
    let secrets = TempDir::new().unwrap();
    let admin = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    sandbox.write_secrets(secrets.path()).unwrap();
    let text = sandbox.config_toml("127.0.0.1:0", &admin.to_string(), secrets.path());
    let proxy = Proxy::start(&text).await;
    proxy.wait_ready().await;
    for (old, new) in [
        ("[server]", "[server]\nlisten ="),
        ("version = 1", "version = 2\nnonsense = true"),
        ("credential = \"sqr\"", "credential = \"nobody\""),
        ("[server]", "[[[server"),
    ] {
        let broken = text.replacen(old, new, 1);
        assert_ne!(broken, text, "{old}");
        std::fs::write(&proxy.config_path, broken).unwrap();
        let dir = proxy.config_path.parent().unwrap();
        assert_eq!(verb(dir, &["check"]).await.code, 78, "{new}");
        for args in [&["status"][..], &["healthcheck"], &["wait", "--timeout", "1s"]] {
            let ended = verb(dir, args).await;
            assert_eq!(ended.code, 0, "{new}: {args:?}: {}", ended.stderr);
        }
        let file = proxy.config_path.to_str().unwrap();
        assert_eq!(verb(secrets.path(), &["status", "-c", file]).await.code, 0, "{new}");
    }
}

#[tokio::test]
async fn what_is_explained_is_what_run_does() {
    let sandbox = Sandbox::start(Duration::from_secs(60)).await.unwrap();
    let secrets = TempDir::new().unwrap();
    let bank = sandbox.bank(Persona::QBank);
    // The API's origin is that of the token server too, and its route covers the token endpoint.
    let text = format!(
        "version = 1\n[server]\nlisten = \"127.0.0.1:0\"\nmax_uri = \"1KiB\"\n\
         [admin]\nlisten = \"127.0.0.1:0\"\n[credentials.qbank]\npreset = \"qbank\"\n\
         token_url = \"{token_url}\"\nclient_id.file = {id:?}\nclient_secret.file = {key:?}\n\
         [upstreams.qbank]\nurl = \"{origin}\"\ncredential = \"qbank\"\n\
         query_access_token = \"reject\"\n[[upstreams.qbank.routes]]\nname = \"all\"\n\
         path = \"/**\"\nmethods = [\"GET\", \"POST\"]\nscopes = [\"balances.read\"]\n\
         [[upstreams.qbank.routes]]\nname = \"balances\"\npath = \"/v1/balances/{{id}}\"\n\
         methods = [\"GET\"]\nscopes = [\"balances.read\"]\n",
        token_url = bank.auth.token_url(),
        origin = bank.auth.base_url(),
        id = secret_file(secrets.path(), "id", bank.auth.client_id()),
        key = secret_file(secrets.path(), "key", bank.auth.client_secret()),
    );
    let proxy = Proxy::start(&text).await;
    proxy.wait_ready().await;
    let dir = proxy.config_path.parent().unwrap();
    let token_path = bank.auth.token_url().replace(&bank.auth.base_url(), "");
    let long = format!("/{}", "a".repeat(2000));
    for (method, target) in [
        ("GET", "/v1/balances/42"),
        ("GET", "/v1/balances/4%2e2"),
        ("GET", "/v1/balances/4%2F2"),
        ("GET", "/v1/balances/..%2f"),
        ("GET", "/v1/a;b"),
        ("GET", "/v1//b"),
        ("GET", "/v1/a?access_token=x"),
        ("POST", &token_path),
        ("DELETE", "/v1/x"),
        ("GET", &long),
    ] {
        let explained = verb(dir, &["explain", method, target]).await;
        let mut app = client(proxy.addr).await;
        let answer = soon(app.request(method, target, &[], b"")).await;
        let problem = answer.header("content-type") == Some("application/problem+json");
        let expected = match problem {
            true => {
                let problem = answer.json();
                format!("refused with {} {}", answer.status, problem["code"].as_str().unwrap())
            }
            false => format!("forwarded   {method} "),
        };
        assert!(explained.stdout.contains(&expected), "{target}: {expected}: {}", explained.stdout);
        assert_eq!(explained.code, if problem { 4 } else { 0 }, "{target}");
    }
}
