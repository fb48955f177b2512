//! `demo`: four pretended vendors and the proxy in front of them, in one process: the first five
//! minutes of a newcomer.

use anyhow::Context;

use super::args::Demo;
use super::exit::Exit;
use super::output::{err, out};
use super::setup::{colors, runtime};
use crate::app::{App, RunOutcome};
use crate::config;
use crate::sandbox::Sandbox;
use crate::telemetry::log::{self, AccessLog, LogFormat, LogSettings};

/// Runs the sandbox and the proxy until told to stop.
pub fn demo(flags: &Demo) -> anyhow::Result<Exit> {
    let settings =
        LogSettings { format: LogFormat::Pretty, access: AccessLog::All, ..LogSettings::default() };
    let log = log::init(&settings, colors())?;
    runtime()?.block_on(async {
        let sandbox = Sandbox::start(flags.lifetime).await.context("the sandbox cannot start")?;
        let secrets = Secrets::new()?;
        sandbox.write_secrets(&secrets.0).context("the sandbox's secrets cannot be written")?;
        let text =
            sandbox.config_toml(&format!("localhost:{}", flags.port), "localhost:0", &secrets.0);
        let file = secrets.0.join("bearer-proxy.toml");
        std::fs::write(&file, &text).context("the demo's configuration cannot be written")?;
        let mut loaded = match config::parse(&text, &file, &|name| std::env::var(name).ok()) {
            Ok(loaded) => loaded,
            Err(problems) => {
                err!("{}", problems.render(colors()));
                return Ok(Exit::Config);
            }
        };
        loaded.config.watch = None;
        loaded.config.log.access = AccessLog::All;
        let app = App::build(loaded.config).await?;
        let proxy = app.addresses().first().and_then(|all| all.first().copied());
        let admin = app.admin_addresses().first().copied();
        let (proxy, admin) = proxy.zip(admin).context("the demo has no listeners")?;
        out!("{}", greeting(proxy.port(), admin.port(), flags, &file.display().to_string()))?;
        let ended = app.run(&log).await;
        sandbox.shutdown().await;
        Ok(match ended {
            RunOutcome::Drained | RunOutcome::Command(_) => Exit::Done,
            RunOutcome::Interrupted => Exit::Interrupted,
            RunOutcome::Failed => Exit::Failed,
        })
    })
}

fn greeting(proxy: u16, admin: u16, flags: &Demo, file: &str) -> String {
    let lifetime = flags.lifetime.as_secs_f64();
    format!(
        "\
bearer-proxy demo: four pretended banks with tokens of {lifetime:.0} s, and the proxy in front of them.
Paste these into another terminal; no token is in them, yet each arrives with the right one:

  curl http://localhost:{proxy}/qbank/v1/balances/42
  curl -X POST http://localhost:{proxy}/sqr/v1/user-status -H 'Content-Type: application/json' -d '{{\"user\":\"7\"}}'
  curl http://localhost:{proxy}/corebank/accounts
  curl http://localhost:{proxy}/datacrunch/v1/balance

  curl http://localhost:{proxy}/qbank/v1/secret-admin    # no route claims it: 404, and no token leaves
  curl -s http://localhost:{admin}/metrics | grep token_expiry
  bearer-proxy explain --config {file} POST /qbank/v1/payments/ach

The log below shows each token renewed at 80 % of its life. Ctrl-C ends the demo.

"
    )
}

/// A private folder for the demo's secrets, removed at the end.
struct Secrets(std::path::PathBuf);

impl Secrets {
    fn new() -> anyhow::Result<Self> {
        let name = format!("bearer-proxy-demo-{:016x}", fastrand::u64(..));
        let path = std::env::temp_dir().join(name);
        let mut builder = std::fs::DirBuilder::new();
        std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
        builder.create(&path).with_context(|| format!("cannot create {}", path.display()))?;
        Ok(Self(path))
    }
}

impl Drop for Secrets {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
