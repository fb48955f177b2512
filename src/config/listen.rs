//! Where to listen: an address, a table that also says who may connect and with which certificate we
//! answer, or a list of both.

use std::net::SocketAddr;
use std::path::PathBuf;

use crate::listen::settings::{
    Account, AllowedPeers, ClientCertificates, Listen, ServerTls, UnixSocket,
};
use crate::net::tls::MinVersion;

use super::clients;
use crate::diagnostics::{Diagnostic, Item, Section};

/// One address of a listener, with what its table says of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ParsedListener {
    pub(super) listen: Listen,
    pub(super) peers: AllowedPeers,
    pub(super) tls: Option<ServerTls>,
}

/// The longest path that fits into the address of a Unix socket on all systems.
const LONGEST_PATH: usize = 103;

/// The addresses after `listen =`, one or a list of them, each with the item it was written in. Those
/// that cannot be used are left out.
pub(super) fn read<'c>(item: &Item<'c>) -> Vec<(ParsedListener, Item<'c>)> {
    let items = if item.is_list() { list(item) } else { vec![item.clone()] };
    let mut all: Vec<(ParsedListener, Item<'c>)> = Vec::with_capacity(items.len());
    for item in items {
        let Some(written) = one(&item) else { continue };
        let taken: Vec<_> = all.iter().map(|(other, _)| &other.listen).collect();
        if is_taken(&written.listen, taken) {
            let diagnostic =
                Diagnostic::new("the list has this address twice").label("also before");
            item.fail(diagnostic.hint("leave one of them out"));
        }
        all.push((written, item));
    }
    all
}

fn list<'c>(item: &Item<'c>) -> Vec<Item<'c>> {
    let items = item.list().unwrap_or_default();
    if items.is_empty() {
        item.reject("an empty list listens nowhere; leave the key out for the default");
    }
    items
}

fn one(item: &Item<'_>) -> Option<ParsedListener> {
    if item.is_table() {
        return table(&item.section("a listener")?.advise(ADVICE));
    }
    address(item).map(ParsedListener::plain)
}

/// Whether an address could not be bound beside these.
pub(super) fn is_taken<'a>(listen: &Listen, others: impl IntoIterator<Item = &'a Listen>) -> bool {
    others.into_iter().any(|other| same_address(other, listen))
}

/// Whether two sockets could not both be bound. Port 0 is a free one each time.
fn same_address(a: &Listen, b: &Listen) -> bool {
    match (a, b) {
        (Listen::Unix(a), Listen::Unix(b)) => a.path == b.path,
        _ => port(a) == port(b) && port(a) != 0 && overlap(a, b),
    }
}

fn overlap(a: &Listen, b: &Listen) -> bool {
    match (a, b) {
        (Listen::Unix(_), _) | (_, Listen::Unix(_)) => false,
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
        Listen::Unix(_) => 0,
    }
}

impl ParsedListener {
    pub(super) fn plain(listen: Listen) -> Self {
        Self { listen, peers: AllowedPeers::default(), tls: None }
    }
}

const ADVICE: &[(&str, &str)] = &[
    ("port", "it is part of address, such as \"localhost:6750\""),
    ("path", "write unix"),
    ("socket", "write unix"),
    ("uids", "write peer_uids"),
    ("gids", "write peer_gids"),
    ("user", "write owner"),
    ("certificate_file", "it belongs to  tls = { … }"),
    ("key_file", "it belongs to  tls = { … }"),
];

fn table(section: &Section<'_>) -> Option<ParsedListener> {
    let (place, path) = (section.item("address"), section.item("unix"));
    let keys = ["mode", "owner", "group", "peer_uids", "peer_gids"].map(|key| section.item(key));
    let tls = section.item("tls").and_then(|item| tls(&item));
    section.finish();
    let Some(path) = path else {
        let Some(place) = place else {
            let diagnostic = Diagnostic::new("where to listen is missing");
            section.fail(diagnostic.expected("address = \"localhost:6750\", or unix = \"/path\""));
            return None;
        };
        for item in keys.iter().flatten() {
            item.reject("it belongs to a Unix socket: with address, nobody knows the process");
        }
        return Some(ParsedListener {
            listen: address(&place)?,
            peers: AllowedPeers::default(),
            tls,
        });
    };
    if let Some(place) = place {
        place.reject("a listener has an address or a Unix socket, not both");
    }
    let [mode_item, owner, group, uids, gids] = &keys;
    let numbers =
        |item: &Option<Item<'_>>| item.as_ref().and_then(clients::ids).unwrap_or_default();
    let peers = AllowedPeers { uids: numbers(uids), gids: numbers(gids) };
    let socket = UnixSocket {
        mode: mode_item.as_ref().and_then(mode).unwrap_or(UnixSocket::MODE),
        owner: owner.as_ref().and_then(account),
        group: group.as_ref().and_then(account),
        path: socket_path(&path, path.text()?.as_str())?,
    };
    Some(ParsedListener { listen: Listen::Unix(socket), peers, tls })
}

/// `localhost:PORT`, `IP:PORT`, `[IPv6]:PORT`, `*:PORT` or `unix:/PATH`.
fn address(item: &Item<'_>) -> Option<Listen> {
    let text = item.text()?;
    if let Some(path) = text.as_str().strip_prefix("unix:") {
        return socket_path(item, path).map(|path| Listen::Unix(UnixSocket::at(path)));
    }
    let read = match text.as_str().split_once(':') {
        Some(("localhost", port)) => plain_port(port).map(Listen::Localhost),
        Some(("*", port)) => plain_port(port).map(Listen::All),
        _ => text.as_str().parse::<SocketAddr>().ok().map(Listen::Tcp),
    };
    if read.is_none() {
        let why = match text.as_str().starts_with(':') {
            true => "a host is missing: for all addresses, IPv4 and IPv6, write \"*:PORT\"",
            false => {
                "expected \"localhost:PORT\", \"IP:PORT\", \"[IPv6]:PORT\", \"*:PORT\" or \"unix:/PATH\""
            }
        };
        item.reject(why);
    }
    read
}

fn plain_port(text: &str) -> Option<u16> {
    text.parse().ok().filter(|_| text.bytes().all(|byte| byte.is_ascii_digit()))
}

fn socket_path(item: &Item<'_>, path: &str) -> Option<PathBuf> {
    let why = match path {
        _ if !path.starts_with('/') => "the path of a socket is absolute",
        _ if path.ends_with('/') => "this names a folder, not a file",
        _ if path.len() > LONGEST_PATH => "no socket has a path of more than 103 bytes",
        _ => return Some(PathBuf::from(path)),
    };
    item.reject(why);
    None
}

/// As chmod(1) writes it. A plain number would be taken for decimal by TOML.
fn mode(item: &Item<'_>) -> Option<u32> {
    let text = if item.is_text() { Some(item.text()?) } else { None };
    let digits = text.as_ref().and_then(|text| u32::from_str_radix(text.as_str(), 8).ok());
    let mode = digits.filter(|mode| *mode <= 0o777);
    if mode.is_none() {
        item.reject("expected octal digits in quotes, such as \"0660\"");
    }
    mode
}

/// A number, or a name that is looked up when the socket is made.
fn account(item: &Item<'_>) -> Option<Account> {
    if !item.is_text() {
        return id(item).map(Account::Id);
    }
    let text = item.text()?;
    let good = |byte: u8| byte.is_ascii_graphic() && byte != b':';
    if text.as_str().is_empty() || !text.as_str().bytes().all(good) {
        item.reject("expected the name or number of an account");
        return None;
    }
    Some(Account::Name(text.as_str().to_owned()))
}

/// The last number means "nobody in particular" to the kernel.
fn id(item: &Item<'_>) -> Option<u32> {
    item.integer(0..u64::from(u32::MAX)).and_then(|id| u32::try_from(id).ok())
}

fn tls(item: &Item<'_>) -> Option<ServerTls> {
    let section = item.section("tls of a listener")?.advise(&[
        ("cert_file", "write certificate_file"),
        ("certificate", "write certificate_file"),
        ("key", "write key_file"),
        ("ca_file", "write client_ca_file"),
        ("client_auth", "write client_certificates"),
    ]);
    let certificate = section.required("certificate_file", "a PEM chain, our certificate first");
    let key = section.required("key_file", "the PEM private key of the certificate");
    let authorities = section.item("client_ca_file");
    let asked = section.item("client_certificates");
    let versions = [("1.2", MinVersion::Tls12), ("1.3", MinVersion::Tls13)];
    let min_version = section.choice("min_version", &versions, MinVersion::default());
    section.finish();
    if let (None, Some(asked)) = (&authorities, &asked) {
        asked.reject("which certificates are trusted is missing: client_ca_file");
    }
    let choices =
        [("required", ClientCertificates::Required), ("optional", ClientCertificates::Optional)];
    let asked = asked.and_then(|item| item.choice(&choices)).unwrap_or_default();
    let authorities = authorities.and_then(|item| item.one_or_many()).unwrap_or_default();
    Some(ServerTls {
        certificate_file: certificate?.path()?,
        key_file: key?.path()?,
        client_ca_files: authorities.iter().filter_map(Item::path).collect(),
        client_certificates: asked,
        min_version,
    })
}
