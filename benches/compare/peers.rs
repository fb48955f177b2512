//! The peers, each set up for the job that `proxies` tells.

use std::fmt::Write as _;
use std::fs;
use std::io;
use std::path::PathBuf;

use crate::proxies::{self, Recipe, Site};

/// The peers that are installed here; for the others, a word.
pub fn installed(site: &Site<'_>) -> io::Result<Vec<Recipe>> {
    let mut found = Vec::new();
    for (name, write) in [("nginx", nginx as Writer), ("haproxy", haproxy), ("envoy", envoy)] {
        match program(name) {
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

type Writer = fn(&Site<'_>, u16) -> io::Result<Vec<String>>;

/// `ENVOY=/path` and the like say where a program is that is not on the path.
fn program(name: &str) -> Option<PathBuf> {
    if let Some(path) = std::env::var_os(name.to_uppercase()) {
        return Some(path.into());
    }
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|folder| folder.join(name)).find(|file| file.is_file())
}

/// A token as long as ours.
const TOKEN: &str = "tok-0123456789abcdef-0123456789abcdefghijklmnopqrstuvwxyz";

fn nginx(site: &Site<'_>, port: u16) -> io::Result<Vec<String>> {
    let folder = site.folder.display();
    let (http, https) = (site.origin.http, site.origin.https);
    let mut locations = String::new();
    for number in 0..site.routes {
        for (kind, scheme) in [('r', "http"), ('t', "https")] {
            let _ = writeln!(
                locations,
                "location /{kind}{number}/ {{ proxy_pass {scheme}://{kind}; proxy_set_header Connection \"\"; \
                 proxy_set_header Authorization \"Bearer {TOKEN}\"; }}"
            );
        }
    }
    let text = format!(
        "daemon off; master_process off; pid {folder}/nginx.pid; error_log {folder}/nginx.log error;\n\
         events {{ worker_connections 12000; }}\n\
         http {{\n\
         access_log off; keepalive_requests 1000000000; keepalive_timeout 1h; client_max_body_size 0;\n\
         client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy; fastcgi_temp_path {folder}/f; \
         uwsgi_temp_path {folder}/u; scgi_temp_path {folder}/s;\n\
         proxy_http_version 1.1; proxy_request_buffering off; proxy_max_temp_file_size 0;\n\
         proxy_ssl_verify on; proxy_ssl_trusted_certificate {folder}/ca.pem; proxy_ssl_name localhost; \
         proxy_ssl_server_name on; proxy_ssl_protocols TLSv1.2 TLSv1.3;\n\
         upstream r {{ server 127.0.0.1:{http}; keepalive 128; keepalive_requests 1000000000; }}\n\
         upstream t {{ server 127.0.0.1:{https}; keepalive 128; keepalive_requests 1000000000; }}\n\
         server {{ listen 127.0.0.1:{port};\n{locations}}}\n}}\n"
    );
    let path = site.folder.join("nginx.conf");
    fs::write(&path, text)?;
    Ok(vec!["-p".into(), folder.to_string(), "-c".into(), path.display().to_string()])
}

fn haproxy(site: &Site<'_>, port: u16) -> io::Result<Vec<String>> {
    let folder = site.folder.display();
    let (http, https) = (site.origin.http, site.origin.https);
    let (mut backends, mut tokens) = (String::new(), String::new());
    for number in 0..site.routes {
        for kind in ['r', 't'] {
            let _ = writeln!(backends, "/{kind}{number}/ {kind}");
            let _ = writeln!(tokens, "/{kind}{number}/ {TOKEN}");
        }
    }
    fs::write(site.folder.join("backends.map"), backends)?;
    fs::write(site.folder.join("tokens.map"), tokens)?;
    let text = format!(
        "global\n  nbthread 1\n  maxconn 12000\n  no strict-limits\n  ssl-server-verify required\n\
         defaults\n  mode http\n  no log\n  timeout client 1h\n  timeout server 1h\n  timeout connect 5s\n  \
         timeout http-keep-alive 1h\n  http-reuse always\n\
         frontend apps\n  bind 127.0.0.1:{port}\n  maxconn 12000\n  \
         http-request set-header Authorization \"Bearer %[path,map_beg({folder}/tokens.map)]\"\n  \
         use_backend %[path,map_beg({folder}/backends.map)]\n\
         backend r\n  server a 127.0.0.1:{http}\n\
         backend t\n  server a 127.0.0.1:{https} ssl verify required ca-file {folder}/ca.pem sni str(localhost) \
         verifyhost localhost alpn http/1.1\n"
    );
    let path = site.folder.join("haproxy.cfg");
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
