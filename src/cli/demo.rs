//! `demo`: four fake vendors and the proxy in front of them, in one process: the first five minutes of
//! a newcomer.

use std::io::ErrorKind;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};
use std::path::Path;

use anyhow::Context;

use super::args::Demo;
use super::exit::Exit;
use super::output::{err, errln, out};
use super::setup::{colors, program, quoted, runtime};
use crate::app::App;
use crate::config;
use crate::sandbox::Sandbox;
use crate::telemetry::log::{self, AccessLog, LogFormat, LogSettings, RequestLog};

/// Runs the sandbox and the proxy until a signal stops them.
pub(super) fn demo(flags: &Demo) -> anyhow::Result<Exit> {
    let settings = LogSettings {
        format: LogFormat::Pretty,
        requests: RequestLog { access: AccessLog::All, ..RequestLog::default() },
        ..LogSettings::default()
    };
    let log = log::init(&settings, colors())?;
    runtime()?.block_on(async {
        let sandbox = Sandbox::start(flags.lifetime).await.context("the sandbox cannot start")?;
        // Only this user may enter it, and it is removed at the end.
        let secrets = tempfile::Builder::new().prefix("bearer-proxy-demo-").tempdir()?;
        sandbox.write_secrets(secrets.path()).context("the sandbox's secrets cannot be written")?;
        let port = flags.port.unwrap_or_else(|| unused(6750));
        let text = sandbox.config_toml(
            &format!("localhost:{port}"),
            &format!("localhost:{}", unused(6751)),
            secrets.path(),
        );
        let file = secrets.path().join("bearer-proxy.toml");
        std::fs::write(&file, &text).context("the demo's configuration cannot be written")?;
        let mut loaded = match config::parse(&text, &file, &|name| std::env::var(name).ok()) {
            Ok(loaded) => loaded,
            Err(problems) => {
                err!("{}", problems.render(colors()));
                return Ok(Exit::Config);
            }
        };
        loaded.config.watch = None;
        loaded.config.log.requests.access = AccessLog::All;
        let app = match App::build(loaded.config).await {
            Err(error) if error.is_address() => {
                errln!("error: {error}\n  another port:  {} demo --port 6760", quoted(&program()));
                return Ok(Exit::Address);
            }
            app => app?,
        };
        let proxy = app.addresses().first().and_then(|all| all.first().copied());
        let admin = app.admin_addresses().first().copied();
        let (proxy, admin) = proxy.zip(admin).context("the demo has no listeners")?;
        out!("{}", greeting(proxy.port(), admin.port(), flags.lifetime.as_secs(), &file))?;
        let ended = app.run(&log).await;
        sandbox.shutdown().await;
        Ok(ended.into())
    })
}

/// This port where both loopback addresses have it to give, else 0, for which the system finds one.
fn unused(port: u16) -> u16 {
    let addresses: [SocketAddr; 2] =
        [(Ipv4Addr::LOCALHOST, port).into(), (Ipv6Addr::LOCALHOST, port).into()];
    let is_taken = |address: &SocketAddr| {
        TcpListener::bind(address).is_err_and(|error| error.kind() == ErrorKind::AddrInUse)
    };
    if addresses.iter().any(is_taken) { 0 } else { port }
}

/// The text before the log: commands to paste, and the time after which the log shows renewals. Tokens
/// are renewed at 80 % of their life, up to 5 % of it earlier.
fn greeting(proxy: u16, admin: u16, life: u64, file: &Path) -> String {
    let (first, last) = (life * 75 / 100, life * 80 / 100);
    let (program, file) = (quoted(&program()), quoted(file));
    format!(
        "\
bearer-proxy demo: four fake banks with tokens of {life} s, and the proxy in front of them.
Paste these into another terminal; no token is in them, yet each arrives with the right one:

  curl http://localhost:{proxy}/qbank/v1/balances/42
  curl -X POST http://localhost:{proxy}/sqr/v1/user-status -H 'Content-Type: application/json' -d '{{\"user\":\"7\"}}'
  curl http://localhost:{proxy}/corebank/accounts
  curl http://localhost:{proxy}/datacrunch/v1/balance

  curl http://localhost:{proxy}/qbank/v1/secret-admin    # no route claims it: 404, and no token leaves
  curl -s http://localhost:{admin}/metrics | grep token_expiry
  {program} explain --config {file} POST /qbank/v1/payments/ach

The log below shows each token renewed {first} to {last} s after it was issued. Ctrl-C ends the demo.

"
    )
}
