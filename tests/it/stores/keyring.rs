//! The keyring of a session that lives as long as its story.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, Command, Stdio};

use tempfile::TempDir;

use super::{bank, config, rotate, tool, verb};
use crate::support::{Proxy, soon};

/// A bus that starts nothing by itself: a keyring that it started would be a locked one.
const BUS: &str = r#"<!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN"
 "http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">
<busconfig>
  <type>session</type>
  <listen>unix:tmpdir=/tmp</listen>
  <policy context="default">
    <allow send_destination="*" eavesdrop="true"/>
    <allow eavesdrop="true"/>
    <allow own="*"/>
  </policy>
</busconfig>
"#;

/// A session bus with an unlocked gnome-keyring on it.
struct Session {
    bus: Child,
    keyring: Child,
    address: String,
    home: TempDir,
}

impl Session {
    /// `None` where no gnome-keyring is named.
    fn start() -> Option<Self> {
        let daemon = tool("BEARER_PROXY_GNOME_KEYRING")?;
        let home = tempfile::tempdir().unwrap();
        let file = home.path().join("bus.conf");
        std::fs::write(&file, BUS).unwrap();
        let mut bus = Command::new("dbus-daemon")
            .args(["--nofork", "--print-address", "--config-file"])
            .arg(&file)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut address = String::new();
        BufReader::new(bus.stdout.take().unwrap()).read_line(&mut address).unwrap();
        let address = address.trim().to_owned();
        let mut keyring = Command::new(daemon)
            .args(["--unlock", "--components=secrets", "--foreground"])
            .env("DBUS_SESSION_BUS_ADDRESS", &address)
            .env("HOME", home.path())
            .env("XDG_RUNTIME_DIR", home.path())
            .env("XDG_DATA_HOME", home.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        keyring.stdin.take().unwrap().write_all(b"login").unwrap();
        Some(Self { bus, keyring, address, home })
    }

    fn environment(&self) -> [(&str, &str); 2] {
        [("DBUS_SESSION_BUS_ADDRESS", &self.address), ("HOME", self.home.path().to_str().unwrap())]
    }

    /// `keyring set NAME`, as soon as the daemon is on the bus.
    async fn set(&self, name: &str, value: &str) {
        let set = async {
            while verb(&["keyring", "set", name], &self.environment(), value).await.code != 0 {}
        };
        soon(set).await;
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        for child in [&mut self.keyring, &mut self.bus] {
            // Both fail only when it has ended already.
            let _ended = child.kill();
            let _reaped = child.wait();
        }
    }
}

#[tokio::test]
async fn a_secret_of_the_keyring_is_written_read_rotated_and_deleted() {
    let Some(session) = Session::start() else { return };
    let bank = bank().await;
    session.set("bank-id", bank.auth.client_id()).await;
    session.set("bank-secret", &format!("{}\n", bank.auth.client_secret())).await;
    let id = "keyring = { service = \"bearer-proxy\", account = \"bank-id\" }";
    let text = config(&bank, "", id, "keyring = \"bank-secret\"");
    let proxy = Proxy::start_in(&text, &session.environment()).await;
    proxy.wait_ready().await;
    let new = |secret: &str| {
        let mut set = Command::new(env!("CARGO_BIN_EXE_bearer-proxy"));
        set.args(["keyring", "set", "bank-secret"]).envs(session.environment());
        let mut set = set.stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
        set.stdin.take().unwrap().write_all(secret.as_bytes()).unwrap();
        assert!(set.wait().unwrap().success());
    };
    rotate(&bank, &proxy, new).await;

    let check = async |args: &[&str], input: &str, code: i32, said: &str| {
        let ended = verb(&[&["keyring"], args].concat(), &session.environment(), input).await;
        assert_eq!(ended.code, code, "{args:?}: {}", ended.said);
        assert!(ended.said.contains(said), "{args:?}: {}", ended.said);
    };
    check(&["delete", "bank-secret"], "", 0, "deleted keyring entry bank-secret").await;
    check(&["delete", "bank-secret"], "", 1, "is not there").await;
    check(&["set", "bank-secret"], "\n", 1, "nothing was written").await;
    check(&["set", "bank-secret", "--service", "erp"], "v", 0, "bank-secret of erp").await;
    let nobody = verb(&["keyring", "set", "x"], &[("HOME", "/nowhere")], "v").await;
    assert!(nobody.code == 1 && nobody.said.contains("no keyring answers"), "{}", nobody.said);
}
