//! Whole files: the examples, good ones, and bad ones beside the exact text their author reads.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use super::*;
use crate::diagnostics::{Report, Severity};
use crate::listen::settings::{Account, ClientCertificates, Listen};
use crate::oauth::{ClientAuth, FieldPath};
use crate::proxy::policy::settings::HeaderText;
use crate::secret::{self, Reference};
use crate::server::settings::HalfClosed;
#[cfg(feature = "vault")]
use crate::token::credential::ClientIdSource;

/// Part of every value of the fixtures that stands for a secret.
const CANARY: &str = "canary";

fn folder(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(name)
}

/// Name and text of each file of a folder, by name.
fn files(name: &str) -> Vec<(String, String)> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder(name)).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "toml") {
            let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
            found.push((name, fs::read_to_string(&path).unwrap()));
        }
    }
    found.sort();
    found
}

fn read(text: &str) -> Result<Loaded, Report> {
    parse(text, Path::new("bearer-proxy.toml"), &|_| None)
}

fn good(name: &str) -> Config {
    let text = fs::read_to_string(folder("tests/fixtures/config/good").join(name)).unwrap();
    read(&text).unwrap_or_else(|problems| panic!("{name}\n{problems}")).config
}

#[test]
fn examples_load_without_environment() {
    let examples = files("config");
    assert!(examples.len() >= 7);
    for (name, text) in examples {
        // A build that cannot share tokens says so.
        let store = match &*name {
            "shared-token" => secret::missing_feature("share"),
            "shared-token-kubernetes" => secret::missing_feature("kubernetes"),
            _ => None,
        };
        if store.is_some() {
            continue;
        }
        let loaded = read(&text).unwrap_or_else(|problems| panic!("{name}\n{problems}"));
        // The password grant is warned of, wherever it is.
        let expected = usize::from(name == "salesforce-password");
        assert_eq!(loaded.notes.warnings(), expected, "{name}\n{}", loaded.notes);
    }
}

#[test]
fn annotated_tells_the_defaults() {
    let text = fs::read_to_string(folder("config/annotated.toml")).unwrap();
    let expected = read(&text).unwrap().config;
    let mut tried = 0;
    for line in text.lines() {
        let Some(setting) = line.strip_prefix("# ").filter(|line| line.contains(" = ")) else {
            continue;
        };
        let changed = text.replace(line, setting);
        // An example may need others beside it, but its key must be known.
        match read(&changed) {
            Ok(loaded) if !line.contains("# example") => {
                let found = Config { sha256: Arc::clone(&expected.sha256), ..loaded.config };
                assert_eq!(found, expected, "{line}");
                tried += 1;
            }
            Ok(_) => {}
            Err(problems) => {
                assert!(line.contains("# example"), "{line}\n{problems}");
                assert!(!problems.render(false).contains("unknown key"), "{line}\n{problems}");
            }
        }
    }
    assert!(tried > 40, "{tried} defaults were tried");
}

#[test]
fn good_files_load() {
    for (name, text) in files("tests/fixtures/config/good") {
        if name == "vault" && secret::missing_feature("vault").is_some() {
            continue;
        }
        read(&text).unwrap_or_else(|problems| panic!("{name}\n{problems}"));
    }
}

#[test]
fn good_files_mean_what_they_say() {
    assert_eq!(good("ports-zero.toml").proxy.listeners[0].listen, Listen::Localhost(0));
    let off = good("admin-off.toml");
    assert_eq!((off.admin.listen, off.watch), (Vec::new(), None));
    let listeners = good("listeners.toml");
    let Listen::Unix(socket) = &listeners.proxy.listeners[1].listen else { panic!() };
    assert_eq!((socket.mode, &socket.owner), (0o666, &Some(Account::Id(0))));
    assert_eq!(socket.group, Some(Account::Name("erp".into())));
    assert_eq!(listeners.proxy.listeners[1].peers.uids, [1000]);
    let tls = listeners.proxy.listeners[2].tls.clone().unwrap();
    assert_eq!(tls.client_certificates, ClientCertificates::Optional);
    assert_eq!(tls.client_ca_files.len(), 2);
    let own = good("own-listener.toml");
    assert_eq!((own.proxy.listeners.len(), own.proxy.upstreams[0].listeners.clone()), (2, 1..2));
    let passed = good("systemd-sockets.toml");
    assert_eq!(passed.proxy.listeners[0].listen, Listen::Systemd("proxy".into()));
    assert_eq!(passed.proxy.listeners[2].listen, Listen::Systemd("qbank".into()));
    let lists = good("listen-lists.toml");
    let behind: Vec<_> =
        lists.proxy.upstreams.iter().map(|upstream| upstream.listeners.clone()).collect();
    assert_eq!((lists.proxy.listeners.len(), behind), (4, vec![0..2, 2..4]));
    assert_eq!(lists.proxy.listeners[2].listen, Listen::All(6760));
    assert!(lists.proxy.listeners[3].tls.is_some());
    assert_eq!((lists.admin.listen.len(), lists.admin.control.len()), (2, 2));
    let host = good("variables.toml").proxy.upstreams[0].connection.origin.host().to_owned();
    assert_eq!(host, "api.qbankconnect.com");
    let headers = good("headers.toml").proxy.upstreams[0].set_headers.clone();
    assert!(
        headers
            .iter()
            .any(|(_, text)| *text == HeaderText::Secret(Reference::Env("APIM_KEY".into())))
    );
    assert_eq!(good("mutual-tls.toml").credentials[0].auth, ClientAuth::TlsClientAuth);
    let core = good("core-banking-other-reading.toml").credentials[0].clone();
    assert_eq!(core.endpoint().unwrap().path(), "/auth");
    assert_eq!(core.dialect.request.client_id, "clientID");
    let made = good("hand-made-dialect.toml").credentials[0].dialect.clone();
    assert!(!made.send_grant_type && !made.send_scope);
    assert_eq!(made.response.expires_at, Some(FieldPath::name("expirationTime")));
    let jwt = good("private-key-jwt.toml").credentials[0].dialect.assertion.clone();
    assert_eq!(jwt.lifetime, Duration::from_secs(120));
}

#[cfg(feature = "vault")]
#[test]
fn a_vault_is_one_for_all_its_references() {
    let credential = good("vault.toml").credentials[0].clone();
    let secret = credential.client_secret.clone().unwrap();
    assert_eq!(secret.describe(), "field client_secret of Vault secret kv/banks/erp/qbank");
    assert_eq!(secret.cache_ttl(), Duration::from_secs(60));
    let Reference::Vault { secret, server } = secret else { panic!() };
    assert_eq!(secret.version, Some(3));
    assert_eq!(server.settings.address, "https://vault.example:8200");
    assert_eq!(server.settings.namespace.as_deref(), Some("banking/erp"));
    let service_account = "/var/run/secrets/kubernetes.io/serviceaccount/token";
    assert_eq!(server.login_secret, Reference::File(service_account.into()));
    let ClientIdSource::Referenced(Reference::Vault { server: other, .. }) = &credential.client_id
    else {
        panic!()
    };
    assert!(std::sync::Arc::ptr_eq(&server, other), "they share one login");
}

#[test]
fn bounds_hold_up_to_both_ends() {
    let config = good("bounds.toml");
    let apps = config.connections;
    assert_eq!((apps.max_headers, apps.max_header_bytes), (1000, 8 * 1024));
    assert_eq!((apps.preserve_header_case, apps.half_closed), (false, HalfClosed::Serve));
    assert_eq!(config.proxy.limits.max_uri_bytes, 65_534);
    let check = |index: usize, expected: (usize, usize, usize, bool)| {
        let upstream = &config.proxy.upstreams[index];
        let known = &upstream.connection;
        let (headers, bytes) = (known.max_response_headers, known.max_response_header_bytes);
        assert_eq!((known.max_connections, headers, bytes, upstream.rewrite_cookies), expected);
        // One key is for both sides.
        assert!(!known.preserve_header_case);
    };
    check(0, (1, 1, 8 * 1024, true));
    check(1, (1_000_000, 1000, 1024 * 1024, false));
}

#[test]
fn egress_proxies_are_chosen_for_each_origin() {
    let config = good("egress.toml");
    let shown = |proxy: &Option<crate::secret::EgressProxy>| {
        let login = |known: &crate::secret::EgressProxy| known.login.is_some();
        proxy.as_ref().map(|known| format!("{} {}", known.address, login(known)))
    };
    let credentials = config.credentials.iter();
    let found: Vec<_> = credentials
        .map(|known| &known.egress)
        .chain(config.proxy.upstreams.iter().map(|known| &known.connection.egress))
        .map(shown)
        .collect();
    let corporate = Some("http://proxy.corp.example:3128 true".to_owned());
    let (own, near) = ("http://[fd00::1]:8080 false", "http://localhost:3128 false");
    let own = (Some(own.to_owned()), Some(near.to_owned()));
    // inside and qbank; then qbank, inside, near, tunnelled.
    assert_eq!(found, [None, corporate, own.0, None, None, own.1]);
}

#[test]
fn the_environment_names_a_proxy_only_where_the_file_says_so() {
    let text = fs::read_to_string(folder("config/minimal.toml")).unwrap();
    let env = |name: &str| match name {
        "HTTPS_PROXY" => Some("http://erp:p%40ss@proxy.corp.example:3128/".to_owned()),
        "no_proxy" => Some("localhost,.internal.example".to_owned()),
        _ => None,
    };
    let read = |text: &str| parse(text, Path::new("bearer-proxy.toml"), &env).unwrap();
    let unused = read(&text);
    assert_eq!(unused.config.proxy.upstreams[0].connection.egress, None);
    assert!(unused.notes.render(false).contains("HTTPS_PROXY is set and not used"));
    let said = read(&format!("{text}\n[egress]\nproxy = \"env\"\n"));
    let proxy = said.config.proxy.upstreams[0].connection.egress.clone().unwrap();
    assert_eq!(proxy.address.to_string(), "http://proxy.corp.example:3128");
    let login = crate::sensitive::Sensitive::new("erp:p@ss");
    assert_eq!(proxy.login, Some(crate::secret::EgressLogin::Stated(login)));
    assert_eq!(said.notes.len(), 0, "{}", said.notes);
    let inside =
        text.replace("url = \"https://api.qbankconnect.com", "url = \"https://x.internal.example");
    let inside = read(&format!("{inside}\n[egress]\nproxy = \"env\"\n"));
    assert_eq!(inside.config.proxy.upstreams[0].connection.egress, None);
}

/// Compares the text for each file of a folder with the `.txt` beside it. `BLESS=1 cargo test` writes
/// the texts; read the difference before committing it.
fn check_texts(folder_name: &str, least: usize, loads: bool) {
    let files = files(folder_name);
    assert!(files.len() >= least);
    let mut wrong = Vec::new();
    for (name, text) in files {
        // A source that this build has and another lacks.
        if name.strip_prefix("feature-").is_some_and(|kind| secret::missing_feature(kind).is_none())
        {
            continue;
        }
        // A build without Vault reads neither its section nor its references.
        if name.starts_with("vault-") && secret::missing_feature("vault").is_some() {
            continue;
        }
        let outcome = parse(&text, &PathBuf::from(format!("{name}.toml")), &|_| None);
        assert_eq!(outcome.is_ok(), loads, "{name}");
        let report = outcome.map_or_else(|report| report, |loaded| loaded.notes);
        let (file, drawn) = (folder(folder_name).join(format!("{name}.txt")), report.render(false));
        if std::env::var_os("BLESS").is_some() {
            fs::write(&file, &drawn).unwrap();
        }
        if fs::read_to_string(&file).unwrap_or_default() != drawn {
            wrong.push(format!("{name}\n{drawn}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn bad_files_are_explained() {
    check_texts("tests/fixtures/config/bad", 40, false);
}

#[test]
fn files_that_never_work_as_meant_are_warned_of() {
    check_texts("tests/fixtures/config/warned", 6, true);
}

/// The methods that IANA registers, and the common ones: none of them is taken for a misspelt one.
#[test]
fn registered_methods_give_no_warning() {
    let methods = "ACL BASELINE-CONTROL BIND CHECKIN CHECKOUT COPY DELETE GET HEAD LABEL LINK LOCK \
                   MERGE MKACTIVITY MKCALENDAR MKCOL MKREDIRECTREF MKWORKSPACE MOVE OPTIONS \
                   ORDERPATCH PATCH POST PRI PROPFIND PROPPATCH PUT QUERY REBIND REPORT SEARCH \
                   UNBIND UNCHECKOUT UNLINK UNLOCK UPDATE UPDATEREDIRECTREF VERSION-CONTROL";
    let minimal = fs::read_to_string(folder("config/minimal.toml")).unwrap();
    for method in methods.split_whitespace() {
        let text = minimal.replace("methods = [\"GET\"]", &format!("methods = [\"{method}\"]"));
        let loaded = read(&text).unwrap_or_else(|report| panic!("{method}\n{report}"));
        assert_eq!(loaded.notes.warnings(), 0, "{}", loaded.notes);
    }
}

#[test]
fn a_covered_token_endpoint_is_noted() {
    let text = fs::read_to_string(folder("config/core-banking.toml")).unwrap();
    let notes = read(&text).unwrap().notes;
    assert_eq!(notes.len(), 1);
    assert_eq!(
        (notes[0].severity, notes[0].at.as_str()),
        (Severity::Note, "upstreams.corebank.routes[0].path")
    );
}

#[test]
fn an_unused_credential_is_a_warning() {
    let text = fs::read_to_string(folder("config/minimal.toml")).unwrap()
        + "\n[credentials.spare]\npreset = \"sqr\"\nclient_id.env = \"A\"\nclient_secret.env = \"B\"\n";
    let notes = read(&text).unwrap().notes;
    assert_eq!((notes.warnings(), notes[0].at.as_str()), (1, "credentials.spare"));
}

#[test]
fn a_key_in_the_clear_is_a_warning() {
    let check = |listen: &str, warnings: usize| {
        let text = fs::read_to_string(folder("config/minimal.toml")).unwrap()
            + "\n[clients.erp]\nlocal_key = { header = \"X-Key\", value.env = \"ERP_KEY\" }\n"
            + &format!("[server]\nlisten = {listen}\n");
        assert_eq!(read(&text).unwrap().notes.warnings(), warnings, "{listen}");
    };
    check("\"localhost:0\"", 0);
    check("\"unix:/run/proxy.sock\"", 0);
    check("\"10.0.0.7:6750\"", 1);
    let tls = "tls = { certificate_file = \"/a.crt\", key_file = \"/a.key\" }";
    check(&format!("{{ address = \"10.0.0.7:6750\", {tls} }}"), 0);
}

#[test]
fn problems_are_data() {
    let text = fs::read_to_string(folder("tests/fixtures/config/bad/log-format.toml")).unwrap();
    let json = read(&text).unwrap_err().to_json();
    let first = &json["problems"][0];
    assert_eq!(
        (&first["at"], &first["found"], &first["line"]),
        (&"log.format".into(), &"text".into(), &4.into())
    );
    assert_eq!(json["errors"], 1);
}

#[test]
fn a_file_in_another_encoding_is_refused_where_it_begins_to_be() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("latin1.toml");
    fs::write(&path, b"version = 1\nname = \"M\xfcller\"\n").unwrap();
    let problems = load(&path).unwrap_err();
    assert_eq!((problems[0].line, problems[0].column), (2, 10));
    assert!(!problems.render(false).contains("ller"), "nothing is known, nothing is shown");
}

#[test]
fn a_secret_pasted_where_none_belongs_is_not_shown() {
    let secret = "sk_live_51HxQ9CaNaRy7+=zz";
    for key in [
        "[server]\nlisten",
        "[server]\nmax_headers",
        "[server]\nvia",
        "[shutdown]\ndrain_timeout",
        "[credentials.a]\nrefresh_at",
        "[log]\nlevel",
        "[upstreams.a]\ncredential",
        "[[upstreams.a.routes]]\nname",
        "[[upstreams.a.routes]]\npath",
    ] {
        for value in [
            format!("\"{secret}\""),
            format!("[\"{secret}\"]"),
            format!("[5, [\"{secret}\"]]"),
            format!("{{ a = \"{secret}\" }}"),
        ] {
            let text = format!("version = 1\n{key} = {value}\n");
            let outcome = parse(&text, Path::new("x.toml"), &|_| None);
            assert!(!said(&outcome).contains(secret), "{}", said(&outcome));
        }
    }
}

#[test]
fn a_missing_file_is_a_problem() {
    let problems = load(Path::new("/nowhere/bearer-proxy.toml")).unwrap_err();
    assert!(problems.render(false).contains("cannot be read"), "{problems}");
}

/// Everything that could reach a screen, a log or a debugger.
fn said(outcome: &Result<Loaded, Report>) -> String {
    let problems = match outcome {
        Ok(loaded) => &loaded.notes,
        Err(problems) => problems,
    };
    format!("{}{}{}{problems:?}", problems.render(false), problems.render(true), problems.to_json())
}

fn check_silence(what: &str, text: &str, env: &dyn Fn(&str) -> Option<String>) {
    let said = said(&parse(text, Path::new("bearer-proxy.toml"), env));
    assert!(!said.contains(CANARY), "{what}\n{text}\n{said}");
}

#[test]
fn no_secret_of_a_bad_file_is_shown() {
    for (name, text) in files("tests/fixtures/config/bad") {
        // Two of them name what is no secret: an unset variable's neighbour is.
        check_silence(&name, &text, &|_| Some(format!("{CANARY}-from-environment")));
    }
}

/// Each line of a file with all credentials is broken in many ways, with a secret in its place.
#[test]
fn no_secret_of_a_broken_file_is_shown() {
    let text = fs::read_to_string(folder("config/all-four.toml")).unwrap();
    let breaks: [fn(&str) -> String; 20] = [
        |key| format!("{key} = \"{CANARY}\""),
        |key| format!("{key} = '{CANARY}'"),
        |key| format!("{key} = {CANARY}"),
        |key| format!("{key} = \"{CANARY}"),
        |key| format!("{key} = \"\"\"\n{CANARY}\n{CANARY}=x"),
        |key| format!("{key} = \"\"\"\n{CANARY}\n\"\"\""),
        |key| format!("{key}x = \"{CANARY}\""),
        |key| format!("{key} \"{CANARY}\""),
        |key| format!("{key} = [\"{CANARY}\", {CANARY}]"),
        |key| format!("{key} = {{ env = \"{CANARY} x\" }}"),
        |key| format!("{key} = {{ {CANARY} = 1 }}"),
        |_| format!("secret = \"{CANARY}\" # {CANARY}"),
        |key| format!("{key} = \"${{{CANARY}\""),
        |key| format!("{key} = \"https://u:{CANARY}@h/\""),
        |_| format!("{CANARY}=="),
        |key| format!("{key} = {{ {CANARY} = 1, {CANARY}2 = {{ {CANARY} = 3 }} }}"),
        |key| format!("{key}x = {{ {CANARY} = \"{CANARY}\", y = {CANARY} }}"),
        |key| format!("{key}x = {{ {CANARY} = \"{CANARY}\" }}"),
        |key| format!("{key} = \"{CANARY}\"\n{key} = \"{CANARY}\""),
        |key| format!("{key}.file = \"{CANARY}\""),
    ];
    let mut tried = 0;
    for (number, line) in text.lines().enumerate() {
        let Some(key) = line.split(" = ").next().filter(|key| is_secret_like(key)) else {
            continue;
        };
        for change in breaks {
            let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
            lines[number] = change(key.trim_end_matches(".env").trim_end_matches(".file"));
            check_silence(line, &lines.join("\n"), &|_| Some(CANARY.to_owned()));
            tried += 1;
        }
    }
    assert!(tried >= 100, "{tried} files were tried");
}

fn is_secret_like(key: &str) -> bool {
    key.starts_with("client_id.") || key.starts_with("client_secret.") || key == "base_url"
}

#[test]
fn filled_in_values_are_never_shown() {
    let text = fs::read_to_string(folder("config/annotated.toml")).unwrap();
    let mut tried = 0;
    for line in text.lines() {
        let setting = line.strip_prefix("# ").unwrap_or(line);
        let Some((key, _)) = setting.split_once(" = ").filter(|(key, _)| !key.contains(' ')) else {
            continue;
        };
        let changed = text.replace(line, &format!("{key} = \"${{SECRET}}\""));
        check_silence(line, &changed, &|_| Some(format!("{CANARY}://{CANARY}:x")));
        tried += 1;
    }
    assert!(tried > 60, "{tried} keys were tried");
}

/// Files of builds that can share tokens.
#[cfg(feature = "redis")]
mod share {
    use super::*;
    use crate::share::redis_store::{ServerAddress, Servers, StoreOptions};
    use crate::share::settings::StoreSettings;
    use crate::token::sharing::settings::WhenUnreachable;

    const GOOD: &str = r#"
        store = "redis"
        url = "rediss://valkey.erp.svc/1"
        encryption = [{ id = "new", key.file = "/run/new" }, { id = "old", key.file = "/run/old" }]
        name_key.file = "/run/name"
    "#;

    const REVOKES: &str = "revocation_url = \"https://auth.qbankconnect.com/revoke\"";

    fn redis(store: StoreSettings) -> StoreOptions {
        match store {
            StoreSettings::Redis(options) => options,
            #[cfg(feature = "kubernetes")]
            other => panic!("{other:?}"),
        }
    }

    fn with(share: &str, credential: &str) -> Result<Loaded, Report> {
        let minimal = fs::read_to_string(folder("config/minimal.toml")).unwrap();
        let head = "[credentials.qbank]\n";
        assert!(minimal.contains(head));
        let text = minimal.replace(head, &format!("{head}share = true\n{credential}\n"));
        read(&format!("{text}\n[share]\n{share}\n"))
    }

    #[test]
    fn a_store_is_read_with_its_defaults() {
        let loaded = with(GOOD, "").unwrap_or_else(|report| panic!("{report}"));
        assert_eq!(loaded.notes.len(), 0, "{}", loaded.notes);
        assert!(loaded.config.credentials[0].policy.share);
        let share = loaded.config.share.unwrap();
        let server = |url: &str| ServerAddress::parse(url).unwrap().0;
        let store = redis(share.store);
        assert_eq!(store.servers, Servers::Standalone(server("rediss://valkey.erp.svc:6379")));
        assert_eq!((store.database, &*store.key_prefix), (1, "bearer-proxy"));
        assert_eq!(share.encryption[1].id, "old");
        assert_eq!(share.when_unreachable, WhenUnreachable::LastLeader);
        assert_eq!((share.takeover_after.as_secs(), share.poll.as_secs()), (30, 5));
        assert_eq!(store.operation_timeout, Duration::from_millis(500));
        let sentinel = GOOD.replace(
            "url = \"rediss://valkey.erp.svc/1\"",
            "sentinel = { urls = [\"rediss://s1\"], service = \"tokens\", password.env = \"S\" }",
        );
        let share = with(&sentinel, "").unwrap_or_else(|report| panic!("{report}")).config.share;
        let store = redis(share.unwrap().store);
        let Servers::Sentinel(sentinels) = store.servers else { panic!() };
        assert_eq!(sentinels.addresses, [server("rediss://s1:26379")]);
        assert!(sentinels.login.password.is_some());
    }

    #[test]
    fn unsafe_settings_are_refused() {
        let changed = |from: &str, to: &str| {
            assert!(GOOD.contains(from), "{from}");
            GOOD.replace(from, to)
        };
        let own = format!("{GOOD}\nwhen_unreachable = \"own\"");
        for (share, credential, at, words) in [
            (changed("rediss", "redis"), "", "share.url", "in the clear"),
            (changed("rediss://", "rediss://u:canary@"), "", "share.url", "user information"),
            (changed("encryption", "#"), "", "share", "`encryption` is missing"),
            (changed("name_key", "#"), "", "share", "`name_key` is missing"),
            (changed("\"old\", key", "\"new\", key"), "", "share.encryption[1]", "has this id"),
            (
                changed("{ id = \"old\", key", "{ id = \"old\", cipher"),
                "",
                "share.encryption[1]",
                "key",
            ),
            (changed("\"redis\"", "\"etcd\""), "", "share.store", "redis"),
            (changed("store", "key_prefix = \"a{b\"\nstore"), "", "share.key_prefix", "letters"),
            (changed("url", "cluster = true\n#"), "", "share", "`url` is missing"),
            (own.clone(), "one_live_token = true", "share.when_unreachable", "revoke each other"),
            (GOOD.to_owned(), "dpop = {}", "credentials.qbank.share", "key of this process"),
            (GOOD.to_owned(), REVOKES, "credentials.qbank.share", "when one of them stops"),
        ] {
            let report = with(&share, credential).map(|_| ()).unwrap_err();
            let found = report.iter().any(|problem| problem.at == at);
            assert!(found && report.render(false).contains(words), "{at} {words}\n{report}");
            assert!(!report.render(false).contains(CANARY), "{report}");
        }
        assert!(with(&own, "").is_ok());
    }

    #[test]
    fn a_lazy_shared_token_is_noted() {
        let notes = with(GOOD, "lazy = \"10m\"").unwrap_or_else(|report| panic!("{report}")).notes;
        assert_eq!((notes.len(), notes[0].severity), (1, Severity::Note), "{notes}");
    }
}

/// Files of builds that can share tokens through a Kubernetes Secret.
#[cfg(feature = "kubernetes")]
mod share_kubernetes {
    use super::*;
    use crate::secret::Reference;
    use crate::share::settings::StoreSettings;

    const GOOD: &str = r#"
        store = "kubernetes"
        encryption = [{ id = "new", key.file = "/run/new" }]
        name_key.file = "/run/name"
    "#;

    fn with(share: &str) -> Result<Loaded, Report> {
        let minimal = fs::read_to_string(folder("config/minimal.toml")).unwrap();
        read(&format!("{minimal}\n[share]\n{share}\n"))
    }

    fn options(share: &str) -> crate::share::kubernetes_store::KubernetesOptions {
        let loaded = with(share).unwrap_or_else(|report| panic!("{report}"));
        match loaded.config.share.unwrap().store {
            StoreSettings::Kubernetes(options) => options,
            #[cfg(feature = "redis")]
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_store_is_read_with_the_defaults_of_a_pod() {
        let found = options(GOOD);
        assert_eq!((found.server, found.namespace), (None, None));
        assert_eq!(found.secret, "bearer-proxy-tokens");
        let folder = Path::new("/var/run/secrets/kubernetes.io/serviceaccount");
        assert_eq!(found.token, Reference::File(folder.join("token")));
        assert_eq!(found.tls.extra_ca_files, [folder.join("ca.crt")]);
        let stated = "url = \"https://10.96.0.1\"\nsecret = \"a.b\"\nnamespace = \"erp\"\n\
                      token.env = \"T\"\ntls.roots = \"bundled\"\ntimeouts.operation = \"2s\"";
        let found = options(&format!("{GOOD}\n{stated}"));
        assert_eq!(found.to_string(), "https://10.96.0.1 erp/a.b");
        assert!(found.tls.extra_ca_files.is_empty(), "the pod's CA file is not added");
        assert_eq!(
            (found.token, found.operation_timeout.as_secs()),
            (Reference::Env("T".into()), 2)
        );
    }

    #[test]
    fn keys_of_another_store_are_refused() {
        let check = |share: &str, at: &str, words: &str| {
            let report = with(share).map(|_| ()).unwrap_err();
            let found = report.iter().any(|problem| problem.at == at);
            assert!(found && report.render(false).contains(words), "{at} {words}\n{report}");
            assert!(report.render(false).contains(".toml:"), "{report}");
            assert!(!report.render(false).contains(CANARY), "{report}");
        };
        for (line, at) in [
            ("sentinel = { urls = [\"rediss://s1\"], service = \"t\" }", "share.sentinel"),
            ("cluster = true", "share.cluster"),
            ("username = \"canary\"", "share.username"),
            ("password = \"canary\"", "share.password"),
            ("password.file = \"/run/canary\"", "share.password"),
            ("key_prefix = \"p\"", "share.key_prefix"),
        ] {
            check(&format!("{GOOD}\n{line}"), at, "it goes with  store = \"redis\"  only");
        }
        check(&format!("{GOOD}\nurl = \"rediss://valkey\""), "share.url", "API server");
        check(&format!("{GOOD}\nurl = \"http://10.96.0.1\""), "share.url", "API server");
        check(&format!("{GOOD}\nurl = \"https://10.96.0.1/api\""), "share.url", "API server");
        check(&format!("{GOOD}\nsecret = \"Tokens\""), "share.secret", "name of a Secret");
        check(&format!("{GOOD}\nnamespace = \"a/b\""), "share.namespace", "name of a namespace");
        #[cfg(feature = "redis")]
        for (line, at) in [
            ("secret = \"tokens\"", "share.secret"),
            ("namespace = \"erp\"", "share.namespace"),
            ("token.file = \"/run/canary\"", "share.token"),
        ] {
            let redis = GOOD.replace("\"kubernetes\"", "\"redis\"\nurl = \"rediss://valkey\"");
            check(&format!("{redis}\n{line}"), at, "it goes with  store = \"kubernetes\"  only");
        }
    }
}
