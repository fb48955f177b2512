//! Listeners: an address, a table that also has the clients and the certificate of the listener, or a
//! list of both.

use std::net::SocketAddr;
use std::path::PathBuf;

use super::clients::{self, IDS};
use super::tls::VERSIONS;
use crate::diagnostics::{Diagnostic, Item, Section};
use crate::listen::settings::{
    Account, AllowedPeers, ClientCertificates, Listen, ServerTls, UnixSocket,
};
use crate::net::tls::MinVersion;

/// One address of a listener, with the keys of its table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ParsedListener {
    pub(super) listen: Listen,
    pub(super) peers: AllowedPeers,
    pub(super) tls: Option<ServerTls>,
}

/// The longest path that fits into the address of a Unix socket on all systems.
const LONGEST_PATH: usize = 103;

const CLIENT_CERTIFICATES: [(&str, ClientCertificates); 2] =
    [("required", ClientCertificates::Required), ("optional", ClientCertificates::Optional)];

/// The addresses after `listen =`, one or a list of them, each with the item it was written in. Those
/// that cannot be used are left out.
pub(super) fn read<'c>(item: &Item<'c>) -> Vec<(ParsedListener, Item<'c>)> {
    let items = item.one_or_many();
    if item.is_list() && items.is_empty() {
        item.reject("an empty list listens nowhere; leave the key out for the default");
    }
    let mut all: Vec<(ParsedListener, Item<'c>)> = Vec::with_capacity(items.len());
    for item in items {
        let parsed = match item.is_table() {
            true => item.section().and_then(|section| table(&section)),
            false => address(&item).map(ParsedListener::plain),
        };
        let Some(parsed) = parsed else { continue };
        if is_taken(&parsed.listen, all.iter().map(|(other, _)| &other.listen)) {
            let problem = Diagnostic::error("the list has this address twice").label("also before");
            item.fail(problem.hint("leave one of them out"));
        }
        all.push((parsed, item));
    }
    all
}

/// Addresses that apps talk to, of which none may be taken by another listener. All who reach one
/// act with our tokens, so an address beyond loopback needs a second key.
pub(super) fn for_apps(item: &Item<'_>, remote: bool, taken: &[&Listen]) -> Vec<ParsedListener> {
    let all = read(item);
    for (parsed, item) in &all {
        if !parsed.listen.is_loopback() && !remote {
            item.fail(
                Diagnostic::error("whoever reaches this address could use the tokens")
                    .label("beyond loopback")
                    .hint("say who may in [clients.NAME], or write  clients = \"anyone\"  in [server] and let a firewall or network policy choose who reaches it"),
            );
        }
        if is_taken(&parsed.listen, taken.iter().copied()) {
            let problem = Diagnostic::error("another listener has this address").label("taken");
            item.fail(problem.hint(
                "give it a port of its own, or leave listen out and write mount = \"/prefix\"",
            ));
        }
    }
    all.into_iter().map(|(parsed, _)| parsed).collect()
}

/// Returns whether an address cannot be bound beside others.
pub(super) fn is_taken<'a>(listen: &Listen, others: impl IntoIterator<Item = &'a Listen>) -> bool {
    others.into_iter().any(|other| same_address(other, listen))
}

/// Returns whether two sockets cannot both be bound. Port 0 is a free port each time.
fn same_address(a: &Listen, b: &Listen) -> bool {
    match (a, b) {
        (Listen::Unix(a), Listen::Unix(b)) => a.path == b.path,
        (Listen::Systemd(a), Listen::Systemd(b)) => a == b,
        _ => port(a) == port(b) && port(a) != 0 && overlap(a, b),
    }
}

fn overlap(a: &Listen, b: &Listen) -> bool {
    match (a, b) {
        (Listen::Unix(_) | Listen::Systemd(_), _) | (_, Listen::Unix(_) | Listen::Systemd(_)) => {
            false
        }
        (Listen::All(_), _) | (_, Listen::All(_)) => true,
        (Listen::Localhost(_), Listen::Localhost(_)) => true,
        (Listen::Localhost(_), Listen::Tcp(tcp)) | (Listen::Tcp(tcp), Listen::Localhost(_)) => {
            tcp.ip().is_unspecified()
                || tcp.ip() == std::net::Ipv4Addr::LOCALHOST
                || tcp.ip() == std::net::Ipv6Addr::LOCALHOST
        }
        (Listen::Tcp(a), Listen::Tcp(b)) => {
            let family = a.is_ipv4() == b.is_ipv4();
            a.ip() == b.ip() || (family && (a.ip().is_unspecified() || b.ip().is_unspecified()))
        }
    }
}

fn port(listen: &Listen) -> u16 {
    match listen {
        Listen::Localhost(port) | Listen::All(port) => *port,
        Listen::Tcp(address) => address.port(),
        Listen::Unix(_) | Listen::Systemd(_) => 0,
    }
}

impl ParsedListener {
    pub(super) fn plain(listen: Listen) -> Self {
        Self { listen, peers: AllowedPeers::default(), tls: None }
    }
}

fn table(section: &Section<'_>) -> Option<ParsedListener> {
    let tls = section.item("tls").and_then(|item| tls(&item));
    let ids = |key| section.item(key).and_then(|item| clients::ids(&item)).unwrap_or_default();
    let peers = AllowedPeers { uids: ids("peer_uids"), gids: ids("peer_gids") };
    let account = |key| section.item(key).and_then(|item| account(&item));
    let (owner, group) = (account("owner"), account("group"));
    let mode = section.item("mode").and_then(|item| mode(&item)).unwrap_or(UnixSocket::MODE);
    let (place, path) = (section.item("address"), section.item("unix"));
    if let Some(path) = path {
        if let Some(place) = place {
            place.reject("a listener has an address or a Unix socket, not both");
        }
        let socket = UnixSocket { mode, owner, group, path: path.parse(socket_path)? };
        return Some(ParsedListener { listen: Listen::Unix(socket), peers, tls });
    }
    let Some(place) = place else {
        if !section.is_misspelt("address") && !section.is_misspelt("unix") {
            let problem = Diagnostic::error("where to listen is missing");
            section.fail(problem.expected("address = \"localhost:6750\", or unix = \"/path\""));
        }
        return None;
    };
    for key in ["mode", "owner", "group", "peer_uids", "peer_gids"] {
        if let Some(item) = section.item(key) {
            item.reject("it belongs to a Unix socket: over TCP the process is not known");
        }
    }
    Some(ParsedListener { tls, ..ParsedListener::plain(address(&place)?) })
}

/// `localhost:PORT`, `IP:PORT`, `[IPv6]:PORT`, `*:PORT`, `unix:/PATH` or `systemd:NAME`.
fn address(item: &Item<'_>) -> Option<Listen> {
    item.parse(|text| {
        let listen = match text.split_once(':') {
            Some(("unix", path)) => {
                return socket_path(path).map(|path| Listen::Unix(UnixSocket::at(path)));
            }
            Some(("systemd", name)) => return socket_name(name).map(Listen::Systemd),
            Some(("localhost", port)) => plain_port(port).map(Listen::Localhost),
            Some(("*", port)) => plain_port(port).map(Listen::All),
            _ => text.parse::<SocketAddr>().ok().map(Listen::Tcp),
        };
        listen.ok_or(match text.starts_with(':') {
            true => "a host is missing: for all addresses, IPv4 and IPv6, write \"*:PORT\"",
            false => {
                "expected \"localhost:PORT\", \"IP:PORT\", \"[IPv6]:PORT\", \"*:PORT\", \"unix:/PATH\" or \"systemd:NAME\""
            }
        })
    })
}

/// A name as `FileDescriptorName=` of a socket unit takes it.
fn socket_name(name: &str) -> Result<String, &'static str> {
    let good = |byte: u8| byte.is_ascii_graphic() && byte != b':';
    match !name.is_empty() && name.len() <= 255 && name.bytes().all(good) {
        true => Ok(name.to_owned()),
        false => Err("expected the FileDescriptorName= of a socket unit after \"systemd:\""),
    }
}

fn plain_port(text: &str) -> Option<u16> {
    text.parse().ok().filter(|_| text.bytes().all(|byte| byte.is_ascii_digit()))
}

fn socket_path(path: &str) -> Result<PathBuf, &'static str> {
    match path {
        _ if !path.starts_with('/') => Err("the path of a socket is absolute"),
        _ if path.ends_with('/') => Err("this names a folder, not a file"),
        _ if path.len() > LONGEST_PATH => Err("no socket has a path of more than 103 bytes"),
        _ => Ok(PathBuf::from(path)),
    }
}

/// A mode as chmod(1) writes it. TOML would take a plain number for decimal.
fn mode(item: &Item<'_>) -> Option<u32> {
    const EXPECTED: &str = "expected octal digits in quotes, such as \"0660\"";
    if !item.is_text() {
        item.reject(EXPECTED);
        return None;
    }
    let octal = |text: &str| u32::from_str_radix(text, 8).ok().filter(|mode| *mode <= 0o777);
    item.parse(|text| octal(text).ok_or(EXPECTED))
}

/// A number, or a name that is looked up when the socket is made.
fn account(item: &Item<'_>) -> Option<Account> {
    if !item.is_text() {
        return item.integer(IDS).map(Account::Id);
    }
    let good = |byte: u8| byte.is_ascii_graphic() && byte != b':';
    item.parse(|text| match !text.is_empty() && text.bytes().all(good) {
        true => Ok(Account::Name(text.to_owned())),
        false => Err("expected the name or number of an account"),
    })
}

fn tls(item: &Item<'_>) -> Option<ServerTls> {
    let section = item.section()?;
    let certificate = section.required("certificate_file", "a PEM chain, our certificate first");
    let key = section.required("key_file", "the PEM private key of the certificate");
    let (authorities, requirement) =
        (section.item("client_ca_file"), section.item("client_certificates"));
    if let (None, Some(item)) = (&authorities, &requirement) {
        item.reject("which certificates are trusted is missing: client_ca_file");
    }
    let authorities = authorities.map(|item| item.one_or_many()).unwrap_or_default();
    let path = |item: Option<Item<'_>>| item.and_then(|item| item.path());
    let (certificate_file, key_file) = (path(certificate), path(key));
    Some(ServerTls {
        client_ca_files: authorities.iter().filter_map(Item::path).collect(),
        client_certificates: section.choice(
            "client_certificates",
            &CLIENT_CERTIFICATES,
            ClientCertificates::default(),
        ),
        min_version: section.choice("min_version", &VERSIONS, MinVersion::default()),
        certificate_file: certificate_file?,
        key_file: key_file?,
    })
}
