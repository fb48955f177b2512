//! The proxies that are compared, each set up for the same job: keep-alive both ways, ten routes to
//! a plain upstream (`/r0/` to `/r9/`) and ten to one behind TLS (`/t0/` to `/t9/`), an
//! Authorization attached to each request, bodies streamed, one worker.

use std::fmt::Write as _;
use std::fs;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::load::{self, Job, Until};
use crate::machine;
use crate::origin::Origin;

/// Where everything of one run is.
pub struct Site<'a> {
    /// The server behind the proxies.
    pub origin: &'a Origin,
    /// A folder for configurations.
    pub folder: &'a Path,
    /// Routes of each kind.
    pub routes: usize,
    /// Tokens that the routes need: their scopes, in turn.
    pub tokens: usize,
    /// Seconds that a token lives.
    pub token_life: u64,
    /// Threads that serve.
    pub workers: usize,
}

impl<'a> Site<'a> {
    /// Ten routes of each kind, one token, one worker.
    pub fn new(origin: &'a Origin, folder: &'a Path) -> Self {
        Self { origin, folder, routes: 10, tokens: 1, token_life: 3600, workers: 1 }
    }
}

/// What is run: the program, its arguments, and the environment it needs.
pub struct Recipe {
    pub name: &'static str,
    program: PathBuf,
    arguments: Vec<String>,
    environment: Vec<(&'static str, &'static str)>,
    port: u16,
    admin: u16,
}

/// A proxy that serves; it is ended when dropped.
pub struct Running {
    child: Child,
    pub address: SocketAddr,
    /// Where its metrics are; port 0: nowhere.
    pub admin: SocketAddr,
}

impl Running {
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Tells the process to end, and waits until it has.
    pub fn end(&mut self) {
        signal(self.pid(), "TERM");
        let _ = self.child.wait();
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Sends a signal by its name.
pub fn signal(pid: u32, name: &str) {
    let _ = Command::new("kill").args(["-s", name, &pid.to_string()]).status();
}

/// Has one of ours read its configuration again, and tells how long that took until it was in force.
pub fn reload(running: &Running) -> io::Result<Duration> {
    let asked = SystemTime::now();
    signal(running.pid(), "HUP");
    for _ in 0..500 {
        std::thread::sleep(Duration::from_millis(20));
        if let Some(done) = last_reload(running).filter(|done| *done > asked) {
            return done.duration_since(asked).map_err(io::Error::other);
        }
    }
    Err(io::Error::other("no reload within 10 s"))
}

fn last_reload(running: &Running) -> Option<SystemTime> {
    let mut admin = TcpStream::connect(running.admin).ok()?;
    admin.write_all(b"GET /metrics HTTP/1.0\r\nhost: localhost\r\n\r\n").ok()?;
    let mut text = String::new();
    admin.read_to_string(&mut text).ok()?;
    let name = "bearer_proxy_config_last_reload_success_timestamp_seconds ";
    let value = text.lines().find_map(|line| line.strip_prefix(name))?;
    Some(UNIX_EPOCH + Duration::from_secs_f64(value.parse().ok()?))
}

impl Recipe {
    /// Starts it on the proxy's core and waits for its first 200.
    pub fn start(&self) -> io::Result<Running> {
        self.start_under(&mut machine::pinned(machine::PROXY_CORE, &self.program))
    }

    /// Starts it as the argument of another program, such as a profiler.
    pub fn start_within(&self, wrapper: &mut Command) -> io::Result<Running> {
        self.start_under(wrapper.arg(&self.program))
    }

    fn start_under(&self, command: &mut Command) -> io::Result<Running> {
        command.args(&self.arguments).envs(self.environment.iter().copied());
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let [address, admin] = [self.port, self.admin].map(|port| ([127, 0, 0, 1], port).into());
        let mut running = Running { child: command.spawn()?, address, admin };
        let first = Job { close: true, ..Job::get(vec!["/r0/16".into()], 1) };
        let started = Instant::now();
        while started.elapsed() < Duration::from_secs(30) {
            if load::run(address, &first, Until::Requests(1)).answered == 1 {
                return Ok(running);
            }
            if let Some(status) = running.child.try_wait()? {
                return Err(io::Error::other(format!("{} ended early: {status}", self.name)));
            }
            std::thread::sleep(Duration::from_micros(500));
        }
        Err(io::Error::other(format!("{} did not serve within 30 s", self.name)))
    }

    /// Size of the program in MiB.
    pub fn size_mib(&self) -> f64 {
        fs::metadata(&self.program).map_or(0.0, |file| file.len() as f64 / f64::from(1 << 20))
    }

    /// A peer that serves at that port.
    pub fn peer(name: &'static str, program: PathBuf, arguments: Vec<String>, port: u16) -> Self {
        Self { name, program, arguments, environment: Vec::new(), port, admin: 0 }
    }
}

/// bearer-proxy as it is by default, but for limits that the load would meet, and for tokens that
/// are renewed after half of their life.
pub fn ours(site: &Site<'_>, program: PathBuf) -> io::Result<Recipe> {
    let (port, admin) = (free_port()?, free_port()?);
    let path = site.folder.join(format!("bearer-proxy-{port}.toml"));
    fs::write(&path, configuration(site, port, admin)?)?;
    let arguments = vec!["run".into(), "--config".into(), path.display().to_string()];
    let environment =
        vec![("BENCH_CLIENT_ID", "bench"), ("BENCH_CLIENT_SECRET", "only for this run")];
    Ok(Recipe { name: "bearer-proxy", program, arguments, environment, port, admin })
}

fn configuration(site: &Site<'_>, port: u16, admin: u16) -> io::Result<String> {
    let (folder, origin) = (site.folder, site.origin);
    fs::write(folder.join("ca.pem"), &origin.ca_pem)?;
    let mut text = format!(
        "version = 1\n\
         [server]\nlisten = \"127.0.0.1:{port}\"\nworkers = {}\nmax_connections = 12000\n\
         max_in_flight = 2000\nmax_request_body = \"200MiB\"\n\
         [admin]\nlisten = \"127.0.0.1:{admin}\"\n\
         [shutdown]\nlame_duck = \"0s\"\n\
         [credentials.c]\ntoken_url = \"http://127.0.0.1:{}/token/{}\"\nrefresh_at = \"50%\"\n\
         client_id.env = \"BENCH_CLIENT_ID\"\nclient_secret.env = \"BENCH_CLIENT_SECRET\"\n",
        site.workers, origin.http, site.token_life,
    );
    for (kind, url) in urls(origin) {
        let _ = writeln!(text, "[upstreams.{kind}]\nurl = \"{url}\"\ncredential = \"c\"");
        let _ = writeln!(text, "max_connections = 2000");
        let _ = writeln!(text, "tls = {{ extra_ca_file = \"{}/ca.pem\" }}", folder.display());
        for number in 0..site.routes {
            let scope = number % site.tokens;
            let _ = writeln!(
                text,
                "[[upstreams.{kind}.routes]]\nname = \"{kind}{number}\"\npath = \"/{kind}{number}/**\"\n\
                 methods = [\"GET\", \"POST\"]\nscopes = [\"s{scope}\"]"
            );
        }
    }
    Ok(text)
}

fn urls(origin: &Origin) -> [(char, String); 2] {
    let (http, https) = (origin.http, origin.https);
    [('r', format!("http://127.0.0.1:{http}")), ('t', format!("https://localhost:{https}"))]
}

/// A port that is free now, and not one of those that the kernel gives to connections, such as the
/// load's own: a connection that has it, even a closed one for a minute, keeps a proxy from listening.
pub fn free_port() -> io::Result<u16> {
    let tried = (0..100).map(|_| TcpListener::bind(("127.0.0.1", fastrand::u16(10_000..32_000))));
    let free = tried.flatten().next();
    Ok(free.map_or_else(|| TcpListener::bind("127.0.0.1:0"), Ok)?.local_addr()?.port())
}
