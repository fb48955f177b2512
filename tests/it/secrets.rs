//! Secrets as they are kept and changed: rotation under load, sources that fail, what is never said.

use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bearer_proxy::sandbox::{Bank, CallOutcome, Fault, Persona};
use tempfile::TempDir;

use crate::support::{Proxy, client, issued, secret_file, soon};

/// A volume as the kubelet makes it: `client_secret -> ..data/client_secret`, `..data -> ..N`.
struct Volume {
    dir: TempDir,
    version: usize,
}

impl Volume {
    fn new(secret: &str) -> Self {
        let mut volume = Self { dir: TempDir::new().unwrap(), version: 0 };
        volume.swap(secret);
        symlink("..data/client_secret", volume.secret()).unwrap();
        volume
    }

    fn secret(&self) -> PathBuf {
        self.dir.path().join("client_secret")
    }

    /// Writes the next version beside the old one, puts a link to it in place of the old link, and
    /// removes the old version.
    fn swap(&mut self, secret: &str) {
        let at = |name: &str| self.dir.path().join(name);
        let (old, new) = (format!("..{}", self.version), format!("..{}", self.version + 1));
        std::fs::create_dir(at(&new)).unwrap();
        secret_file(&at(&new), "client_secret", secret);
        symlink(&new, at("..data_tmp")).unwrap();
        std::fs::rename(at("..data_tmp"), at("..data")).unwrap();
        // The first version replaces none.
        let _none = std::fs::remove_dir_all(at(&old));
        self.version += 1;
    }
}

fn config(bank: &Bank, secret: &Path) -> String {
    format!(
        r#"version = 1
server.listen = "127.0.0.1:0"
admin.listen = "127.0.0.1:0"
log.level = "info,bearer_proxy=trace"

[credentials.bank]
preset = "qbank"
token_url = "{}"
client_id.exec = ["/bin/echo", "{}"]
client_secret.file = "{}"

[upstreams.bank]
url = "{}"
credential = "bank"
routes = [{{ name = "balances", path = "/v1/balances/{{id}}", methods = ["GET"], scopes = ["balances.read"] }}]
"#,
        bank.auth.token_url(),
        bank.auth.client_id(),
        secret.display(),
        bank.api.base_url(),
    )
}

/// A bank with tokens of two seconds, and the program before it, with its secret in a volume.
async fn start() -> (Bank, Volume, Proxy) {
    let bank = Bank::start(Persona::QBank, Duration::from_secs(2)).await.unwrap();
    let volume = Volume::new(bank.auth.client_secret());
    let proxy = Proxy::start(&config(&bank, &volume.secret())).await;
    proxy.wait_ready().await;
    (bank, volume, proxy)
}

async fn metric(proxy: &Proxy, series: &str) -> Option<f64> {
    let metrics = client(proxy.admin_addr).await.get("/metrics").await;
    let value = |line: &str| line.strip_prefix(series)?.trim().parse().ok();
    metrics.text().lines().find_map(value)
}

#[tokio::test]
async fn a_secret_is_rotated_under_load_without_a_failed_request() {
    let (bank, mut volume, proxy) = start().await;
    let (stop, stopped) = tokio::sync::watch::channel(());
    // A thousand requests a second: one on each of eight connections every 8 ms.
    let apps: Vec<_> = (0..8)
        .map(|_| {
            let (addr, stopped) = (proxy.addr, stopped.clone());
            tokio::spawn(async move {
                let (mut app, mut served) = (client(addr).await, 0);
                let mut pace = tokio::time::interval(Duration::from_millis(8));
                while !stopped.has_changed().unwrap_or(true) {
                    pace.tick().await;
                    assert_eq!(app.get("/v1/balances/42").await.status, 200);
                    served += 1;
                }
                served
            })
        })
        .collect();
    let mut old = bank.auth.client_secret().to_owned();
    for version in 1..=2 {
        let new = format!("rotated-{version}+/%");
        bank.auth.accept_secrets([old, new.clone()]);
        volume.swap(&new);
        issued(&bank, 1).await;
        // A call may have been under way with the old secret; the next one is not.
        issued(&bank, 1).await;
        bank.auth.accept_secrets([new.clone()]);
        old = new;
    }
    issued(&bank, 1).await;
    stop.send_replace(());
    for app in apps {
        assert!(soon(app).await.unwrap() > 100);
    }
    let accepted = r#"bearer_proxy_secret_rotations_total{credential="bank",result="accepted"}"#;
    assert_eq!(metric(&proxy, accepted).await, Some(2.0));
    assert!(!proxy.log().contains("rotated-"), "{}", proxy.log());
}

#[tokio::test]
async fn a_refused_secret_is_read_again_at_once_and_the_changed_one_is_tried() {
    let (bank, mut volume, proxy) = start().await;
    // The secret changes on both sides while a call with the old one is on its way.
    let calls = bank.auth.ledger().calls().len();
    bank.auth.set_faults([Fault::Hold]);
    soon(bank.auth.ledger().wait_calls(calls + 1)).await;
    bank.auth.accept_secrets(["changed-meanwhile".to_owned()]);
    volume.swap("changed-meanwhile");
    bank.auth.release(1);
    let outcomes = soon(bank.auth.ledger().wait_answered(calls + 2)).await;
    assert!(matches!(outcomes[calls].outcome, CallOutcome::Refused(401, _)));
    assert!(matches!(outcomes[calls + 1].outcome, CallOutcome::Issued(_)));
    let mut app = client(proxy.addr).await;
    assert_eq!(app.get("/v1/balances/42").await.status, 200);
    proxy.wait_log(|line| line.contains("client secret is accepted").then_some(())).await;
}

#[tokio::test]
async fn a_wrong_new_secret_costs_no_request_while_the_old_token_lives() {
    let (bank, mut volume, proxy) = start().await;
    bank.auth.accept_secrets(["the-right-one".to_owned()]);
    volume.swap("the-wrong-one");
    proxy.wait_log(|line| line.contains("client secret is refused").then_some(())).await;
    let mut app = client(proxy.addr).await;
    assert_eq!(app.get("/v1/balances/42").await.status, 200, "the old token lives");
    let refused = r#"bearer_proxy_secret_rotations_total{credential="bank",result="refused"}"#;
    assert_eq!(metric(&proxy, refused).await, Some(1.0));
    let reads = r#"bearer_proxy_secret_reads_total{result="ok",source="exec"}"#;
    assert!(metric(&proxy, reads).await > Some(1.0));
    assert!(!proxy.log().contains("the-wrong-one"), "{}", proxy.log());
}

#[tokio::test]
async fn a_file_that_everybody_may_read_fails_its_credential_and_says_what_to_do() {
    use std::os::unix::fs::PermissionsExt as _;

    let bank = Bank::start(Persona::QBank, Duration::from_secs(60)).await.unwrap();
    let dir = TempDir::new().unwrap();
    let secret = secret_file(dir.path(), "client_secret", bank.auth.client_secret());
    let set = |mode| std::fs::set_permissions(&secret, std::fs::Permissions::from_mode(mode));
    set(0o644).unwrap();
    let proxy = Proxy::start(&config(&bank, &secret)).await;
    proxy.wait_log(|line| line.contains("run `chmod 600").then_some(())).await;
    assert_eq!(bank.auth.ledger().calls().len(), 0);
    set(0o600).unwrap();
    proxy.wait_ready().await;
}
