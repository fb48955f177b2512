//! Identification of clients by `[clients]`, and the rules that say which of them may use a route.
//!
//! Localhost is not a boundary of trust: any process that reaches the socket acts with the proxy's
//! tokens. A local key that a request carries decides alone, so that a wrong key is never another
//! client; without one the certificate of the connection decides, then the process at its other end.

use std::collections::HashMap;
use std::sync::Arc;

use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::digest::{Digest, SHA256, digest};
use http::{HeaderMap, HeaderName, HeaderValue};

use super::plan_error::PlanError;
use super::settings::{AllowedClients, CertificateName, ClientCredential, ClientSettings};
use crate::listen::{Peer, PeerCertificate};
use crate::proxy::rejection::{Code, Rejection};

/// Local keys, by the name of the client; `None` where the secret could not be read. Clients with
/// another credential have no entry.
pub type LocalKeys = HashMap<Arc<str>, Option<HeaderValue>>;

/// All clients of a configuration.
pub struct Clients(Box<[Client]>);

/// The index of a client in a configuration.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClientId(usize);

impl ClientId {
    /// The index in the order of the configuration.
    pub fn index(self) -> usize {
        self.0
    }
}

struct Client {
    name: Arc<str>,
    matcher: ClientMatcher,
}

/// The check that recognizes a client.
enum ClientMatcher {
    Key { header: HeaderName, key: Option<Key> },
    Certificate(CertificateName),
    Process { uids: Vec<u32>, gids: Vec<u32> },
}

/// The digest of a local key. All digests have one length, so that comparing them in constant time
/// reveals nothing about the key, not even its length.
struct Key(Digest);

impl Key {
    /// Space around the key is removed, since a header value cannot carry it.
    fn new(text: &HeaderValue) -> Self {
        Self(digest(&SHA256, text.as_bytes().trim_ascii()))
    }

    fn is(&self, shown: &[u8]) -> bool {
        verify_slices_are_equal(self.0.as_ref(), digest(&SHA256, shown).as_ref()).is_ok()
    }
}

impl Clients {
    /// The clients of a configuration with their local keys. A key that is `None` could not be read:
    /// requests that carry one in its header are refused.
    ///
    /// # Errors
    /// A client has a local key that `keys` does not include.
    pub fn new(settings: &[ClientSettings], keys: &LocalKeys) -> Result<Self, PlanError> {
        let client = |settings: &ClientSettings| {
            let matcher = match &settings.credential {
                ClientCredential::LocalKey { header, .. } => {
                    let key = keys.get(&settings.name).ok_or_else(|| PlanError::NoLocalKey {
                        client: Arc::clone(&settings.name),
                    })?;
                    ClientMatcher::Key { header: header.clone(), key: key.as_ref().map(Key::new) }
                }
                ClientCredential::Certificate(name) => ClientMatcher::Certificate(name.clone()),
                ClientCredential::Process { uids, gids } => {
                    ClientMatcher::Process { uids: uids.clone(), gids: gids.clone() }
                }
            };
            Ok(Client { name: Arc::clone(&settings.name), matcher })
        };
        settings.iter().map(client).collect::<Result<_, _>>().map(Self)
    }

    /// The client that sent a request; `None` if it is not a known one.
    ///
    /// # Errors
    /// The request carries a local key of no client, or one that cannot be checked.
    pub fn identify(
        &self,
        headers: &HeaderMap,
        peer: &Peer,
    ) -> Result<Option<ClientId>, Rejection> {
        if let Some(client) = self.by_key(headers)? {
            return Ok(Some(client));
        }
        Ok(self.0.iter().position(|client| client.matcher.matches(peer)).map(ClientId))
    }

    fn by_key(&self, headers: &HeaderMap) -> Result<Option<ClientId>, Rejection> {
        let (mut wrong_key, mut unreadable_key) = (false, false);
        for (index, client) in self.0.iter().enumerate() {
            let ClientMatcher::Key { header, key } = &client.matcher else { continue };
            let mut lines = headers.get_all(header).iter();
            let Some(line) = lines.next() else { continue };
            // Two lines are ambiguous, and count as a wrong key.
            let single = lines.next().is_none();
            match key {
                Some(key) if single && key.is(line.as_bytes()) => return Ok(Some(ClientId(index))),
                Some(_) => wrong_key = true,
                None => unreadable_key = true,
            }
        }
        if unreadable_key {
            return Err(Rejection::new(
                Code::SecretUnavailable,
                "the local key of a client could not be read; see the log",
            ));
        }
        if wrong_key {
            let detail = "the local key is not that of any client";
            return Err(Rejection::new(Code::LocalKey, detail));
        }
        Ok(None)
    }

    /// A client's name.
    pub fn name(&self, client: ClientId) -> Option<&Arc<str>> {
        self.0.get(client.0).map(|client| &client.name)
    }

    /// The rule for a route.
    pub fn admission(&self, allowed: &AllowedClients) -> Admission {
        match allowed {
            AllowedClients::Anyone => Admission::Anyone,
            AllowedClients::Known => self.matching(|_| true),
            AllowedClients::These(names) => self.matching(|client| names.contains(&client.name)),
        }
    }

    /// The rule for a listener with these routes. If no route is open to anyone, unknown clients are
    /// refused before they can find out which routes exist.
    pub fn for_listener<'a>(&self, mut routes: impl Iterator<Item = &'a Admission>) -> Admission {
        let open = self.0.is_empty() || routes.any(|route| *route == Admission::Anyone);
        if open { Admission::Anyone } else { self.matching(|_| true) }
    }

    fn matching(&self, is_allowed: impl Fn(&Client) -> bool) -> Admission {
        let allowed = || self.0.iter().enumerate().filter(|(_, client)| is_allowed(client));
        Admission::These {
            clients: allowed().map(|(index, _)| ClientId(index)).collect(),
            by_key: allowed()
                .any(|(_, client)| matches!(client.matcher, ClientMatcher::Key { .. })),
        }
    }
}

impl ClientMatcher {
    fn matches(&self, peer: &Peer) -> bool {
        match self {
            Self::Key { .. } => false,
            Self::Certificate(name) => {
                peer.certificate.as_deref().is_some_and(|certificate| certifies(name, certificate))
            }
            Self::Process { uids, gids } => peer
                .process()
                .is_some_and(|process| uids.contains(&process.uid) || gids.contains(&process.gid)),
        }
    }
}

/// True if a certificate has a name. DNS names are compared without case (RFC 4343), and a wildcard only
/// matches itself.
fn certifies(name: &CertificateName, certificate: &PeerCertificate) -> bool {
    match name {
        CertificateName::Subject(subject) => certificate.subject == *subject,
        CertificateName::Dns(dns) => {
            certificate.dns_names.iter().any(|known| known.eq_ignore_ascii_case(dns))
        }
        CertificateName::Uri(uri) => certificate.uri_names.contains(uri),
    }
}

/// The clients that may use a route or a listener.
#[derive(Debug, PartialEq, Eq)]
pub enum Admission {
    /// Any client.
    Anyone,
    /// Only these clients.
    These {
        /// The clients.
        clients: Box<[ClientId]>,
        /// Set if one of them has a local key, so that a missing key may be the reason of a refusal.
        by_key: bool,
    },
}

impl Admission {
    /// Checks the client of a request.
    ///
    /// # Errors
    /// 403 for a client that is not allowed. It is never 401, which would ask the app for HTTP
    /// credentials.
    pub fn admit(&self, client: Option<ClientId>, peer: &Peer) -> Result<(), Rejection> {
        let Self::These { clients, by_key } = self else { return Ok(()) };
        match client {
            Some(client) if clients.contains(&client) => Ok(()),
            Some(_) => Err(Rejection::new(
                Code::PeerNotAllowed,
                "this client may not use this route; see clients of the route",
            )),
            None if *by_key => Err(Rejection::new(
                Code::LocalKey,
                "no client of [clients] is known by this request: it shows no local key",
            )),
            None => Err(Rejection::new(
                Code::PeerNotAllowed,
                format!("the other end of this connection, {peer}, is no client of [clients]"),
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::listen::UnixPeer;
    use crate::secret::Reference;

    fn client(name: &str, credential: ClientCredential) -> ClientSettings {
        ClientSettings { name: Arc::from(name), credential }
    }

    fn key(name: &str, header: &'static str) -> ClientSettings {
        let value = Reference::Env("UNUSED".into());
        client(name, ClientCredential::LocalKey { header: HeaderName::from_static(header), value })
    }

    fn process(uid: u32, gid: u32) -> Peer {
        Peer::unix(UnixPeer { uid, gid, pid: None })
    }

    fn certified(subject: &str, dns: &[&str], uris: &[&str]) -> Peer {
        let certificate = PeerCertificate {
            subject: subject.into(),
            dns_names: dns.iter().map(|&name| name.into()).collect(),
            uri_names: uris.iter().map(|&name| name.into()).collect(),
            der: Vec::new().into(),
        };
        Peer { certificate: Some(Box::new(certificate)), ..tcp() }
    }

    fn tcp() -> Peer {
        Peer::tcp("127.0.0.1:7".parse().unwrap())
    }

    /// Clients known in every way there is.
    fn clients() -> Clients {
        Clients::new(&settings(), &keys()).unwrap()
    }

    fn settings() -> Vec<ClientSettings> {
        let subject = CertificateName::Subject("CN=erp,O=Bank".into());
        let dns = CertificateName::Dns("erp.bank.example".into());
        let uri = CertificateName::Uri("spiffe://bank/erp".into());
        vec![
            key("first", "x-key"),
            key("second", "x-key"),
            key("third", "x-other"),
            key("unread", "x-unread"),
            client("subject", ClientCredential::Certificate(subject)),
            client("dns", ClientCredential::Certificate(dns)),
            client("uri", ClientCredential::Certificate(uri)),
            client("process", ClientCredential::Process { uids: vec![1000], gids: vec![50, 51] }),
        ]
    }

    fn keys() -> LocalKeys {
        let read = [("first", "k1"), ("second", "k2"), ("third", "k3")];
        let key = |(name, key)| (Arc::from(name), Some(HeaderValue::from_static(key)));
        let unread = (Arc::from("unread"), None);
        read.map(key).into_iter().chain([unread]).collect()
    }

    #[test]
    fn a_key_belongs_to_the_client_of_its_name() {
        let (mut settings, mut keys) = (settings(), keys());
        settings.reverse();
        let clients = Clients::new(&settings, &keys).unwrap();
        for (header, shown, expected) in
            [("x-key", "k1", "first"), ("x-key", "k2", "second"), ("x-other", "k3", "third")]
        {
            let mut fields = HeaderMap::new();
            fields.append(HeaderName::from_static(header), HeaderValue::from_str(shown).unwrap());
            let found = clients.identify(&fields, &tcp()).unwrap();
            assert_eq!(found.and_then(|id| clients.name(id)).map(|name| &**name), Some(expected));
        }
        keys.remove("second");
        let missing = PlanError::NoLocalKey { client: Arc::from("second") };
        assert_eq!(Clients::new(&settings, &keys).err(), Some(missing));
    }

    #[test]
    fn clients_are_told_apart() {
        let clients = clients();
        let check = |fields: &[(&'static str, &str)], peer: Peer, expected: Result<&str, Code>| {
            let mut headers = HeaderMap::new();
            for (name, value) in fields {
                headers
                    .append(HeaderName::from_static(name), HeaderValue::from_str(value).unwrap());
            }
            let found = clients.identify(&headers, &peer);
            let found = found.map(|found| found.and_then(|id| clients.name(id)));
            let found = found.map(|name| name.map_or("", |name| name));
            assert_eq!(found.map_err(|rejection| rejection.code), expected, "{fields:?} {peer}");
        };
        check(&[], tcp(), Ok(""));
        check(&[("x-key", "k1")], tcp(), Ok("first"));
        check(&[("x-key", "k2")], tcp(), Ok("second"));
        check(&[("x-other", "k3")], tcp(), Ok("third"));
        check(&[("x-other", "k3"), ("x-key", "nonsense")], tcp(), Ok("third"));
        for wrong in ["", "k", "k11", "K1", "k3", "k1, k1"] {
            check(&[("x-key", wrong)], tcp(), Err(Code::LocalKey));
        }
        check(&[("x-key", "k1"), ("x-key", "k1")], tcp(), Err(Code::LocalKey));
        check(&[("x-unread", "k")], tcp(), Err(Code::SecretUnavailable));
        check(&[("x_key", "k1")], tcp(), Ok(""));
        check(&[], certified("CN=erp,O=Bank", &[], &[]), Ok("subject"));
        for other in ["CN=erp", "CN=erp,O=Bank,C=DE", "CN=ERP,O=Bank", "O=Bank,CN=erp", ""] {
            check(&[], certified(other, &[], &[]), Ok(""));
        }
        check(&[], certified("", &["a.example", "ERP.bank.example"], &[]), Ok("dns"));
        check(&[], certified("", &["*.bank.example"], &[]), Ok(""));
        check(&[], certified("", &[], &["spiffe://bank/erp"]), Ok("uri"));
        check(&[], certified("", &["spiffe://bank/erp"], &["erp.bank.example"]), Ok(""));
        check(&[], process(1000, 1), Ok("process"));
        check(&[], process(1, 51), Ok("process"));
        check(&[], process(50, 1000), Ok(""));
        check(&[], process(0, 0), Ok(""));
        check(&[("x-key", "k1")], process(1000, 1), Ok("first"));
        check(&[("x-key", "wrong")], process(1000, 1), Err(Code::LocalKey));
    }

    #[test]
    fn routes_choose_among_them() {
        let clients = clients();
        let names = |names: &[&str]| {
            AllowedClients::These(names.iter().map(|&name| Arc::from(name)).collect())
        };
        let check = |allowed: &AllowedClients, who: Option<&str>, expected: Result<(), Code>| {
            let client = who.and_then(|who| clients.0.iter().position(|one| &*one.name == who));
            let admitted = clients.admission(allowed).admit(client.map(ClientId), &tcp());
            assert_eq!(
                admitted.map_err(|rejection| rejection.code),
                expected,
                "{allowed:?} {who:?}"
            );
        };
        let (anyone, known) = (AllowedClients::Anyone, AllowedClients::Known);
        check(&anyone, None, Ok(()));
        check(&anyone, Some("first"), Ok(()));
        check(&known, Some("process"), Ok(()));
        check(&known, None, Err(Code::LocalKey));
        let some = names(&["first", "uri"]);
        check(&some, Some("first"), Ok(()));
        check(&some, Some("second"), Err(Code::PeerNotAllowed));
        check(&some, None, Err(Code::LocalKey));
        check(&names(&["uri"]), None, Err(Code::PeerNotAllowed));
    }

    #[test]
    fn strangers_learn_of_no_routes() {
        let clients = clients();
        let some = || clients.admission(&AllowedClients::These(vec![Arc::from("uri")]));
        let listener = clients.for_listener([some(), some()].iter());
        assert!(listener.admit(None, &tcp()).is_err());
        assert!(listener.admit(Some(ClientId(0)), &tcp()).is_ok());
        let listener = clients.for_listener([some(), Admission::Anyone].iter());
        assert!(listener.admit(None, &tcp()).is_ok());
    }

    #[test]
    fn space_around_a_key_is_not_part_of_it() {
        assert!(Key::new(&HeaderValue::from_static(" a b\t")).is(b"a b"));
    }
}
