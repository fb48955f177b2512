//! The peers, each set up for the job that `proxies` tells.

use std::fmt::Write as _;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::proxies::{self, Recipe, Site};

/// The peers that are installed here; for the others, a word.
///
/// `nginx-lua` and `haproxy-lua` do the whole job: they fetch their tokens themselves. The others
/// write a fixed one, but for Envoy, which has one for all routes.
pub fn installed(site: &Site<'_>) -> io::Result<Vec<Recipe>> {
    let mut found = Vec::new();
    for (name, program, write) in PEERS {
        match program() {
            Some(program) => {
                let port = proxies::free_port()?;
                let arguments = write(site, port)?;
                found.push(Recipe::peer(name, program, arguments, port));
            }
            None => eprintln!("{name} is not installed and left out"),
        }
    }
    Ok(found)
}

/// Name, where it is, and what writes its configuration.
type Peer = (&'static str, fn() -> Option<PathBuf>, Writer);

const PEERS: [Peer; 5] = [
    ("nginx", || program("nginx"), nginx),
    ("nginx-lua", nginx_with_lua, nginx_lua),
    ("haproxy", || program("haproxy"), haproxy),
    ("haproxy-lua", haproxy_with_lua, haproxy_lua),
    ("envoy", || program("envoy"), envoy),
];

type Writer = fn(&Site<'_>, u16) -> io::Result<Vec<String>>;

/// `ENVOY=/path` and the like say where a program is that is not on the path.
fn program(name: &str) -> Option<PathBuf> {
    if let Some(path) = std::env::var_os(name.to_uppercase()) {
        return Some(path.into());
    }
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|folder| folder.join(name)).find(|file| file.is_file())
}

/// nginx, where its module for Lua is installed.
fn nginx_with_lua() -> Option<PathBuf> {
    let there = LUA_MODULES.iter().all(|module| Path::new(MODULES).join(module).is_file());
    program("nginx").filter(|_| there)
}

/// Where Debian's libnginx-mod-http-lua is.
const MODULES: &str = "/usr/lib/nginx/modules";
/// What it consists of, in the order in which it is loaded.
const LUA_MODULES: [&str; 2] = ["ndk_http_module.so", "ngx_http_lua_module.so"];

/// HAProxy, where it was built with Lua.
fn haproxy_with_lua() -> Option<PathBuf> {
    let program = program("haproxy")?;
    let told = Command::new(&program).arg("-vv").output().ok()?;
    String::from_utf8_lossy(&told.stdout).contains("Built with Lua").then_some(program)
}

/// A token as long as ours.
const TOKEN: &str = "tok-0123456789abcdef-0123456789abcdefghijklmnopqrstuvwxyz";

fn nginx(site: &Site<'_>, port: u16) -> io::Result<Vec<String>> {
    let authorization = format!("proxy_set_header Authorization \"Bearer {TOKEN}\";");
    nginx_conf(site, port, "nginx", ["", ""], |_| authorization.clone())
}

/// Tokens are fetched by a timer, kept in a shared dictionary for as long as they live, and read for
/// each request; a route without one answers 503.
fn nginx_lua(site: &Site<'_>, port: u16) -> io::Result<Vec<String>> {
    let mut modules = String::new();
    for module in LUA_MODULES {
        let _ = writeln!(modules, "load_module {MODULES}/{module};");
    }
    let lua = r#"lua_shared_dict tokens 2m;
init_worker_by_lua_block {
  local function fetch(route)
    local call = ngx.socket.tcp()
    call:settimeout(3000)
    if not call:connect("127.0.0.1", TOKEN_PORT) then return nil end
    local form = "FORM" .. route
    call:send("POST TOKEN_PATH HTTP/1.1\r\nHost: localhost\r\n" ..
      "Content-Type: application/x-www-form-urlencoded\r\nContent-Length: " .. #form .. "\r\n\r\n" .. form)
    local length = 0
    repeat
      local line = call:receive("*l")
      if not line then return nil end
      length = tonumber(line:lower():match("^content%-length:%s*(%d+)")) or length
    until line == ""
    local answer = call:receive(length) or ""
    call:close()
    return answer:match(TOKEN_FIELD), tonumber(answer:match(LIFE_FIELD))
  end
  local function renew(premature)
    if premature then return end
    local pause = LIFE
    for route = 0, LAST do
      local token, life = fetch(route)
      if token and life then
        ngx.shared.tokens:set(route, "Bearer " .. token, life)
        pause = math.min(pause, 0.8 * life)
      else
        pause = 1
      end
    end
    ngx.timer.at(pause, renew)
  end
  ngx.timer.at(0, renew)
}
"#;
    nginx_conf(site, port, "nginx-lua", [&modules, &filled_in(lua, site)], |number| {
        format!(
            "set $bearer \"\"; access_by_lua_block {{ local token = ngx.shared.tokens:get({number}) \
             if not token then return ngx.exit(503) end ngx.var.bearer = token }} \
             proxy_set_header Authorization $bearer;"
        )
    })
}

/// A script with what it must know of the token endpoint and of the routes.
fn filled_in(script: &str, site: &Site<'_>) -> String {
    let form =
        "grant_type=client_credentials&client_id=bench&client_secret=only-for-this-run&scope=s";
    script
        .replace("TOKEN_PORT", &site.origin.http.to_string())
        .replace("TOKEN_PATH", &format!("/token/{}", site.token_life))
        .replace("TOKEN_FIELD", r#"'"access_token"%s*:%s*"([^"]+)"'"#)
        .replace("LIFE_FIELD", r#"'"expires_in"%s*:%s*(%d+)'"#)
        .replace("FORM", form)
        .replace("LIFE", &site.token_life.to_string())
        .replace("LAST", &(site.routes - 1).to_string())
}

/// nginx with lines at the beginning and in `http`, and for each route what attaches its token.
fn nginx_conf(
    site: &Site<'_>,
    port: u16,
    name: &str,
    [modules, in_http]: [&str; 2],
    authorization: impl Fn(usize) -> String,
) -> io::Result<Vec<String>> {
    let (folder, own) = (site.folder.display(), site.folder.join(name));
    fs::create_dir_all(&own)?;
    let own = own.display();
    let (http, https) = (site.origin.http, site.origin.https);
    let mut locations = String::new();
    for number in 0..site.routes {
        let authorization = authorization(number);
        for (kind, scheme) in [('r', "http"), ('t', "https")] {
            let _ = writeln!(
                locations,
                "location /{kind}{number}/ {{ proxy_pass {scheme}://{kind}; proxy_set_header Connection \"\"; \
                 {authorization} }}"
            );
        }
    }
    let text = format!(
        "{modules}daemon off; master_process off; pid {own}/nginx.pid; error_log {own}/nginx.log error;\n\
         events {{ worker_connections 12000; }}\n\
         http {{\n{in_http}\
         access_log off; keepalive_requests 1000000000; keepalive_timeout 1h; client_max_body_size 0;\n\
         client_body_temp_path {own}/body; proxy_temp_path {own}/proxy; fastcgi_temp_path {own}/f; \
         uwsgi_temp_path {own}/u; scgi_temp_path {own}/s;\n\
         proxy_http_version 1.1; proxy_request_buffering off; proxy_max_temp_file_size 0;\n\
         proxy_ssl_verify on; proxy_ssl_trusted_certificate {folder}/ca.pem; proxy_ssl_name localhost; \
         proxy_ssl_server_name on; proxy_ssl_protocols TLSv1.2 TLSv1.3;\n\
         upstream r {{ server 127.0.0.1:{http}; keepalive 128; keepalive_requests 1000000000; }}\n\
         upstream t {{ server 127.0.0.1:{https}; keepalive 128; keepalive_requests 1000000000; }}\n\
         server {{ listen 127.0.0.1:{port};\n{locations}}}\n}}\n"
    );
    let path = site.folder.join(format!("{name}.conf"));
    fs::write(&path, text)?;
    Ok(vec!["-p".into(), own.to_string(), "-c".into(), path.display().to_string()])
}

fn haproxy(site: &Site<'_>, port: u16) -> io::Result<Vec<String>> {
    let mut tokens = String::new();
    for number in 0..site.routes {
        for kind in ['r', 't'] {
            let _ = writeln!(tokens, "/{kind}{number}/ {TOKEN}");
        }
    }
    let map = site.folder.join("tokens.map");
    fs::write(&map, tokens)?;
    let attach = format!(
        "http-request set-header Authorization \"Bearer %[path,map_beg({})]\"",
        map.display()
    );
    haproxy_cfg(site, port, "haproxy", "", &attach)
}

/// Tokens are fetched by a task, put into a map by route, and read for each request; a route without
/// one answers 503.
fn haproxy_lua(site: &Site<'_>, port: u16) -> io::Result<Vec<String>> {
    let map = site.folder.join("fetched.map");
    fs::write(&map, "")?;
    let map = map.display().to_string();
    let lua = r#"local function fetch(route)
  local answer = core.httpclient():post{
    url = "http://127.0.0.1:TOKEN_PORTTOKEN_PATH",
    headers = { ["content-type"] = { "application/x-www-form-urlencoded" } },
    body = "FORM" .. route
  }
  local body = answer and answer.body or ""
  return body:match(TOKEN_FIELD), tonumber(body:match(LIFE_FIELD))
end

core.register_task(function()
  while true do
    local pause = LIFE
    for route = 0, LAST do
      local token, life = fetch(route)
      if token and life then
        core.set_map("MAP", "/r" .. route .. "/", token)
        core.set_map("MAP", "/t" .. route .. "/", token)
        pause = math.min(pause, 0.8 * life)
      else
        pause = 1
      end
    end
    core.sleep(math.max(1, math.floor(pause)))
  end
end)
"#;
    let script = site.folder.join("tokens.lua");
    fs::write(&script, filled_in(lua, site).replace("MAP", &map))?;
    let load = format!("  lua-load {}\n", script.display());
    let attach = format!(
        "http-request set-var(txn.token) path,map_beg({map})\n  \
         http-request deny deny_status 503 unless {{ var(txn.token) -m found }}\n  \
         http-request set-header Authorization \"Bearer %[var(txn.token)]\""
    );
    haproxy_cfg(site, port, "haproxy-lua", &load, &attach)
}

/// HAProxy with lines in `global`, and those that attach a token.
fn haproxy_cfg(
    site: &Site<'_>,
    port: u16,
    name: &str,
    in_global: &str,
    attach: &str,
) -> io::Result<Vec<String>> {
    let folder = site.folder.display();
    let (http, https) = (site.origin.http, site.origin.https);
    let mut backends = String::new();
    for number in 0..site.routes {
        for kind in ['r', 't'] {
            let _ = writeln!(backends, "/{kind}{number}/ {kind}");
        }
    }
    fs::write(site.folder.join("backends.map"), backends)?;
    let text = format!(
        "global\n  nbthread 1\n  maxconn 12000\n  no strict-limits\n  ssl-server-verify required\n{in_global}\
         defaults\n  mode http\n  no log\n  timeout client 1h\n  timeout server 1h\n  timeout connect 5s\n  \
         timeout http-keep-alive 1h\n  http-reuse always\n\
         frontend apps\n  bind 127.0.0.1:{port}\n  maxconn 12000\n  \
         {attach}\n  \
         use_backend %[path,map_beg({folder}/backends.map)]\n\
         backend r\n  server a 127.0.0.1:{http}\n\
         backend t\n  server a 127.0.0.1:{https} ssl verify required ca-file {folder}/ca.pem sni str(localhost) \
         verifyhost localhost alpn http/1.1\n"
    );
    let path = site.folder.join(format!("{name}.cfg"));
    fs::write(&path, text)?;
    Ok(vec!["-db".into(), "-f".into(), path.display().to_string()])
}

fn envoy(site: &Site<'_>, port: u16) -> io::Result<Vec<String>> {
    let folder = site.folder.display();
    let mut routes = String::new();
    for number in 0..site.routes {
        for kind in ['r', 't'] {
            let _ = writeln!(
                routes,
                "              - {{match: {{prefix: /{kind}{number}/}}, route: {{cluster: {kind}, timeout: 0s}}}}"
            );
        }
    }
    let cluster = |name: char, port: u16, tls: &str| {
        format!(
            "  - name: {name}\n    type: STATIC\n    \
             circuit_breakers: {{thresholds: [{{max_connections: 20000, max_requests: 20000, max_pending_requests: 20000}}]}}\n    \
             load_assignment: {{cluster_name: {name}, endpoints: [{{lb_endpoints: [{{endpoint: {{address: {{socket_address: \
             {{address: 127.0.0.1, port_value: {port}}}}}}}}}]}}]}}\n{tls}"
        )
    };
    let tls = format!(
        "    transport_socket:\n      name: envoy.transport_sockets.tls\n      typed_config:\n        \
         \"@type\": type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext\n        \
         sni: localhost\n        common_tls_context:\n          tls_params: {{tls_maximum_protocol_version: TLSv1_3}}\n          \
         validation_context: {{trusted_ca: {{filename: {folder}/ca.pem}}}}\n"
    );
    let injector = format!(
        "          - name: envoy.filters.http.credential_injector\n            typed_config:\n              \
         \"@type\": type.googleapis.com/envoy.extensions.filters.http.credential_injector.v3.CredentialInjector\n              \
         overwrite: true\n              credential:\n                name: envoy.http.injected_credentials.oauth2\n                \
         typed_config:\n                  \
         \"@type\": type.googleapis.com/envoy.extensions.http.injected_credentials.oauth2.v3.OAuth2\n                  \
         token_endpoint: {{cluster: r, uri: \"http://127.0.0.1:{}/token/3600\", timeout: 3s}}\n                  \
         client_credentials:\n                    client_id: bench\n                    \
         client_secret: {{name: secret, sds_config: {{path_config_source: {{path: {folder}/secret.yaml}}}}}}\n",
        site.origin.http
    );
    fs::write(
        site.folder.join("secret.yaml"),
        "resources:\n- \"@type\": type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret\n  \
         name: secret\n  generic_secret: {secret: {inline_string: \"only for this run\"}}\n",
    )?;
    let text = format!(
        "node: {{id: bench, cluster: bench}}\nstatic_resources:\n  listeners:\n  - name: apps\n    \
         address: {{socket_address: {{address: 127.0.0.1, port_value: {port}}}}}\n    filter_chains:\n    - filters:\n      \
         - name: envoy.filters.network.http_connection_manager\n        typed_config:\n          \
         \"@type\": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager\n          \
         stat_prefix: apps\n          codec_type: HTTP1\n          generate_request_id: false\n          http_filters:\n\
         {injector}          - name: envoy.filters.http.router\n            typed_config:\n              \
         \"@type\": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router\n              \
         suppress_envoy_headers: true\n          route_config:\n            virtual_hosts:\n            - name: all\n              \
         domains: [\"*\"]\n              routes:\n{routes}  clusters:\n{}{}",
        cluster('r', site.origin.http, ""),
        cluster('t', site.origin.https, &tls),
    );
    let path = site.folder.join("envoy.yaml");
    fs::write(&path, text)?;
    let flags = ["--concurrency", "1", "--disable-hot-restart", "--log-level", "error", "-c"];
    Ok(flags.map(str::to_owned).into_iter().chain([path.display().to_string()]).collect())
}
