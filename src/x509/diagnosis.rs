//! The usual causes of a failed TLS handshake, and their remedies.
//!
//! Most of them appear on the first day in a bank's network.

use std::borrow::Cow;
use std::io;

use rustls::{AlertDescription as Alert, CertificateError as Bad, Error, PeerIncompatible};

use super::certificate::{Certificate, short};
use super::verify::{UnpinnedKey, WeakKey};
use crate::body::plain_words;
use crate::clock::date;

type Hint = Cow<'static, str>;

/// Explains why rustls ended a handshake with `host`. `chain` is the server's chain, its own certificate
/// first; empty if it was not recorded.
pub(crate) fn of_tls(error: &Error, host: &str, chain: &[Certificate]) -> Option<Hint> {
    if let Error::InvalidCertificate(bad) = error {
        return of_certificate(bad, host, chain);
    }
    of_peer(error).map(Cow::Borrowed)
}

/// Explains an exchange that ended early: a TLS 1.3 server rejects a client certificate only after the
/// handshake.
pub(crate) fn of_exchange(error: &(dyn std::error::Error + 'static)) -> Option<&'static str> {
    tls_cause(error).and_then(of_peer)
}

/// The error of TLS that ended an exchange.
pub(crate) fn tls_cause<'a>(error: &'a (dyn std::error::Error + 'static)) -> Option<&'a Error> {
    let mut source = Some(error);
    while let Some(current) = source {
        if let Some(error) = current.downcast_ref() {
            return of_io(error);
        }
        source = current.source();
    }
    None
}

/// Explains an alert of the server, or a feature that it lacks.
fn of_peer(error: &Error) -> Option<&'static str> {
    Some(match error {
        Error::InvalidMessage(_) => {
            "the server does not speak TLS: is it http://? else check the port, and whether a proxy \
             is in between"
        }
        Error::PeerIncompatible(PeerIncompatible::ServerTlsVersionIsDisabledByOurConfig) => {
            "the server takes no TLS version that is accepted here; see tls.min_version"
        }
        Error::PeerIncompatible(_) => OLD_VERSION,
        Error::NoApplicationProtocol => OTHER_PROTOCOL,
        Error::AlertReceived(alert) => return of_alert(*alert),
        _ => return None,
    })
}

/// Explains an alert of the server (RFC 8446 section 6.2).
pub(crate) fn of_alert(alert: Alert) -> Option<&'static str> {
    Some(match alert {
        Alert::ProtocolVersion => OLD_VERSION,
        Alert::HandshakeFailure | Alert::InsufficientSecurity => OLD_CIPHERS,
        Alert::CertificateRequired => {
            "the server asks for a client certificate and was shown none, or wants another client \
             certificate; see tls.client_certificate_file"
        }
        Alert::UnknownCA => {
            "the server does not know the authority that issued our client certificate, or its file \
             lacks an intermediate; the server wants another client certificate; see \
             tls.client_certificate_file"
        }
        Alert::CertificateExpired => {
            "our client certificate has expired; renew it; see tls.client_certificate_file"
        }
        Alert::CertificateRevoked => {
            "our client certificate was revoked; the server wants another client certificate; see \
             tls.client_certificate_file"
        }
        Alert::BadCertificate | Alert::UnsupportedCertificate | Alert::CertificateUnknown => {
            "the server does not accept our client certificate; the server wants another client \
             certificate; see tls.client_certificate_file"
        }
        Alert::AccessDenied => {
            "the server knows our client certificate and gives it no access; ask the API's owner, or \
             use another client certificate; see tls.client_certificate_file"
        }
        Alert::DecryptError => {
            "the server could not verify our signature: do tls.client_certificate_file and \
             tls.client_key_file belong together?"
        }
        Alert::UnrecognisedName => "the server serves no such name; is the URL's host right?",
        Alert::NoApplicationProtocol => OTHER_PROTOCOL,
        Alert::BadRecordMac | Alert::DecodeError => {
            "what was sent did not arrive as it was; is something in between that changes it?"
        }
        Alert::InternalError => "the server failed within TLS; ask the API's owner",
        _ => return None,
    })
}

/// True for an alert by which a TLS 1.3 server refuses a handshake that the client has ended already: it
/// concerns the client's certificate or its Finished message, which a server checks before it reads a
/// request (RFC 8446 section 4.4).
pub(crate) fn refuses_handshake(alert: Alert) -> bool {
    matches!(
        alert,
        Alert::CertificateRequired
            | Alert::UnknownCA
            | Alert::CertificateExpired
            | Alert::CertificateRevoked
            | Alert::CertificateUnknown
            | Alert::BadCertificate
            | Alert::UnsupportedCertificate
            | Alert::AccessDenied
            | Alert::DecryptError
            | Alert::HandshakeFailure
    )
}

/// The name of an alert as RFC 8446 section 6 writes it, such as `certificate_required`.
pub(crate) fn alert_name(alert: Alert) -> String {
    let debug = format!("{alert:?}").replace("CA", "Ca").replace("Recognised", "Recognized");
    separated(&debug, '_')
}

/// The words for an error of TLS. rustls prints parts of them as the names of its variants.
pub(crate) fn tls_words(error: &Error) -> String {
    let words = |why: &dyn std::fmt::Debug| separated(&format!("{why:?}"), ' ');
    match error {
        Error::AlertReceived(alert) => format!("received fatal alert: {}", alert_name(*alert)),
        Error::InvalidCertificate(why) => {
            format!("invalid peer certificate: {}", certificate_words(why))
        }
        Error::InvalidMessage(why) => format!("received corrupt message: {}", words(why)),
        Error::PeerIncompatible(why) => format!("peer is incompatible: {}", words(why)),
        Error::PeerMisbehaved(why) => format!("peer misbehaved: {}", words(why)),
        other => other.to_string(),
    }
}

/// The message of an error of reading or writing: that of TLS in words.
pub(crate) fn io_words(error: &io::Error) -> String {
    of_io(error).map_or_else(|| plain_words(&error.to_string()), tls_words)
}

/// The error of TLS behind one of reading or writing.
pub(crate) fn of_io(error: &io::Error) -> Option<&Error> {
    error.get_ref().and_then(|inner| inner.downcast_ref())
}

/// The name of a variant in lower case, with this character between its words.
fn separated(name: &str, between: char) -> String {
    let mut words = String::new();
    for character in name.chars() {
        if character.is_ascii_uppercase() && !words.is_empty() {
            words.push(between);
        }
        words.push(character.to_ascii_lowercase());
    }
    words
}

/// Explains a connection that was closed during the handshake.
pub(crate) fn of_break(error: &io::Error) -> Option<Hint> {
    let broken = [
        io::ErrorKind::UnexpectedEof,
        io::ErrorKind::ConnectionReset,
        io::ErrorKind::ConnectionAborted,
        io::ErrorKind::BrokenPipe,
    ];
    broken.contains(&error.kind()).then_some(Cow::Borrowed(
        "it hung up in the middle of the handshake: a firewall that lets only an egress proxy \
         through (see [egress]), or a server that knows no TLS 1.2",
    ))
}

const OTHER_PROTOCOL: &str =
    "the server does not take the HTTP version that is offered; see http of the upstream";

const OLD_VERSION: &str = "the server takes no TLS version that is accepted here; TLS 1.1 and older \
     are broken (RFC 8996): ask the API's owner to switch TLS 1.2 or 1.3 on, or see tls.min_version";

const OLD_CIPHERS: &str = "the server and we have no cipher in common, or it wants a client \
     certificate: accepted are ECDHE with AES-GCM or ChaCha20-Poly1305; a server with only older \
     ciphers (CBC, RSA key exchange, 3DES) or only TLS 1.1 must be changed by the API's owner";

fn of_certificate(bad: &Bad, host: &str, chain: &[Certificate]) -> Option<Hint> {
    let fixed = match bad {
        Bad::UnknownIssuer => return Some(unknown_issuer(chain)),
        Bad::NotValidForName | Bad::NotValidForNameContext { .. } => {
            return Some(other_name(host, chain));
        }
        Bad::BadSignature => {
            "an issuer of this name is trusted, but with another key: was the private CA made \
             anew? then tls.extra_ca_file is old"
        }
        Bad::Expired | Bad::ExpiredContext { .. } => {
            "the server's certificate has expired, or this machine's clock is wrong"
        }
        Bad::NotValidYet | Bad::NotValidYetContext { .. } => {
            "the server's certificate is not valid yet, or this machine's clock is wrong"
        }
        Bad::Other(other) => return of_other(other.0.as_ref()),
        _ => return None,
    };
    Some(Cow::Borrowed(fixed))
}

fn of_other(other: &(dyn std::error::Error + Send + Sync + 'static)) -> Option<Hint> {
    if let Some(WeakKey { .. }) = other.downcast_ref() {
        return Some(Cow::Borrowed(
            "such a key can be broken: ask the API's owner for a certificate with an RSA key of 2048 \
             bits or more, or an elliptic one",
        ));
    }
    if let Some(UnpinnedKey { found }) = other.downcast_ref() {
        return Some(Cow::Owned(format!(
            "somebody is in between, or the server has a new key: ask the API's owner, and only \
             then write  pin_sha256 = \"{found}\""
        )));
    }
    // rustls has no variant of its own for this error of webpki.
    other.to_string().contains("CaUsedAsEndEntity").then_some(Cow::Borrowed(
        "the server shows a CA's certificate as its own, as `openssl req -x509` makes them: ask \
         the API's owner for one with basicConstraints CA:FALSE",
    ))
}

/// Parts of issuer names, in lower case, that products which inspect TLS sign with.
const INSPECTORS: [&str; 14] = [
    "zscaler",
    "netskope",
    "fortinet",
    "fortigate",
    "palo alto",
    "blue coat",
    "bluecoat",
    "symantec web",
    "sophos",
    "umbrella",
    "mcafee",
    "skyhigh",
    "forcepoint",
    "check point",
];

fn unknown_issuer(chain: &[Certificate]) -> Hint {
    let (Some(leaf), Some(last)) = (chain.first(), chain.last()) else {
        return Cow::Borrowed(
            "its issuer is not trusted here: your network may inspect TLS, or the API has a \
             private CA; set tls.extra_ca_file; `check --live` shows the issuer",
        );
    };
    if leaf.is_self_issued() {
        return Cow::Owned(format!(
            "the certificate is self-signed ({}): is this the right host? if it is, set \
             tls.extra_ca_file to this certificate",
            short(&leaf.subject)
        ));
    }
    let issuer = &last.issuer;
    let lower = issuer.to_lowercase();
    if INSPECTORS.iter().any(|name| lower.contains(name)) {
        return Cow::Owned(format!(
            "your network inspects TLS: the certificate was issued by {issuer}, not by a public \
             CA; set tls.extra_ca_file to the root certificate that your company gives out"
        ));
    }
    match (chain, &leaf.issuer_url) {
        ([_], Some(url)) => Cow::Owned(format!(
            "the server leaves out an intermediate certificate: it shows only its own, issued by \
             {issuer}; ask the API's owner to send the whole chain; until then fetch {url} and \
             name it, as PEM, in tls.extra_ca_file"
        )),
        ([_], None) => Cow::Owned(format!(
            "it was issued by {issuer}, which is not trusted here: if that is your company, your \
             network may inspect TLS; if it is the bank, the API has a private CA: set \
             tls.extra_ca_file to that CA's certificate; if it is a public CA, the server leaves \
             out an intermediate certificate, which the API's owner must add to its chain"
        )),
        _ => Cow::Owned(format!(
            "its chain ends at {issuer}, which is not trusted here: your network may inspect TLS, \
             or the API has a private CA; set tls.extra_ca_file to the certificate of that issuer"
        )),
    }
}

fn other_name(host: &str, chain: &[Certificate]) -> Hint {
    match chain.first() {
        Some(leaf) if !leaf.has_names => Cow::Owned(format!(
            "the certificate names its host only in its common name ({}), which no longer counts \
             (RFC 9525): ask the API's owner for one with the subject alternative name {host}",
            short(&leaf.subject)
        )),
        _ => Cow::Borrowed("the certificate is for another name; is the URL's host right?"),
    }
}

/// The reason for which a certificate is refused. rustls prints most of them as the names of its variants,
/// which stay in brackets for a search.
fn certificate_words(why: &Bad) -> Cow<'static, str> {
    let at = |time: &rustls::pki_types::UnixTime| {
        let time = std::time::Duration::from_secs(time.as_secs());
        date(std::time::UNIX_EPOCH.checked_add(time).unwrap_or(std::time::UNIX_EPOCH))
    };
    match why {
        Bad::Expired => "it has expired (Expired)".into(),
        Bad::ExpiredContext { not_after, .. } => {
            format!("it has expired at {} (Expired)", at(not_after)).into()
        }
        Bad::NotValidYet => "it is not valid yet (NotValidYet)".into(),
        Bad::NotValidYetContext { not_before, .. } => {
            format!("it is not valid before {} (NotValidYet)", at(not_before)).into()
        }
        Bad::NotValidForNameContext { expected, presented } => {
            // Each is written as `DnsName("bank.example")`.
            let names: Vec<&str> =
                presented.iter().map(|name| name.split('"').nth(1).unwrap_or(name)).collect();
            let (expected, only) = (expected.to_str(), names.join(", "));
            format!("certificate not valid for name {expected}, only for {only} (NotValidForName)")
                .into()
        }
        Bad::UnknownIssuer => "its issuer is not trusted (UnknownIssuer)".into(),
        Bad::BadSignature => "a signature in its chain is wrong (BadSignature)".into(),
        Bad::BadEncoding => "it cannot be read (BadEncoding)".into(),
        Bad::Revoked => "it was revoked (Revoked)".into(),
        // rustls prints foreign reasons with their inner structure.
        Bad::Other(other) => match other.to_string().as_str() {
            "CaUsedAsEndEntity" => {
                "a CA's certificate is used as that of a server (CaUsedAsEndEntity)".into()
            }
            other => other.to_owned().into(),
        },
        other => other.to_string().into(),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::SystemTime;

    use rustls::OtherError;

    use super::*;

    fn certificate(subject: &str, issuer: &str) -> Certificate {
        let (subject, issuer, now) = (subject.to_owned(), issuer.to_owned(), SystemTime::now());
        let (valid_from, valid_until, has_names) = (now, now, false);
        Certificate { subject, issuer, valid_from, valid_until, has_names, issuer_url: None }
    }

    #[test]
    fn an_unknown_issuer_is_named_with_what_it_most_likely_is() {
        let check = |chain: &[Certificate], parts: &[&str]| {
            let hint = of_tls(&Bad::UnknownIssuer.into(), "api.bank.test", chain).unwrap();
            assert!(parts.iter().all(|part| hint.contains(part)), "{hint}");
        };
        let leaf = |issuer| certificate("CN=api.bank.test", issuer);
        check(&[], &["check --live", "tls.extra_ca_file"]);
        check(&[leaf("CN=api.bank.test")], &["self-signed (CN=api.bank.test)"]);
        let zscaler = "CN=Zscaler Intermediate Root CA,O=Zscaler Inc.";
        check(&[leaf(zscaler)], &["your network inspects TLS", "O=Zscaler Inc."]);
        let url = Some("http://ca.test/i.der".to_owned());
        let public = Certificate { issuer_url: url, ..leaf("CN=Public CA") };
        check(&[public], &["leaves out an intermediate", "CN=Public CA", "http://ca.test/i.der"]);
        check(&[leaf("CN=Corp")], &["issued by CN=Corp", "inspect TLS", "an intermediate"]);
        let chain = [leaf("CN=Corp Sub"), certificate("CN=Corp Sub", "CN=Corp Root")];
        check(&chain, &["ends at CN=Corp Root", "inspect TLS", "private CA"]);
    }

    #[test]
    fn another_name_is_told_with_those_of_the_certificate() {
        let expected = rustls::pki_types::ServerName::try_from("localhost").unwrap();
        let presented = vec!["DnsName(\"a.test\")".to_owned(), "*.b.test".to_owned()];
        let words = tls_words(&Bad::NotValidForNameContext { expected, presented }.into());
        assert!(
            words.ends_with(
                "not valid for name localhost, only for a.test, *.b.test (NotValidForName)"
            ),
            "{words}"
        );
    }

    #[test]
    fn what_a_server_refuses_or_lacks_is_explained() {
        let check = |error: Error, expected: &str| {
            let hint = of_tls(&error, "api.bank.test", &[certificate("CN=api.bank.test", "CN=x")]);
            let hint = hint.unwrap_or_default();
            assert!(hint.contains(expected) && hint.is_empty() == expected.is_empty(), "{hint}");
        };
        check(Bad::NotValidForName.into(), "only in its common name (CN=api.bank.test)");
        check(Error::AlertReceived(Alert::HandshakeFailure), "no cipher in common");
        check(Error::AlertReceived(Alert::ProtocolVersion), "TLS 1.1 and older");
        let old = PeerIncompatible::ServerDoesNotSupportTls12Or13;
        check(Error::PeerIncompatible(old), "TLS 1.1 and older");
        check(Error::AlertReceived(Alert::CertificateRequired), "another client certificate");
        check(Error::AlertReceived(Alert::UnknownCA), "the authority that issued");
        check(Error::AlertReceived(Alert::CertificateExpired), "has expired");
        check(Error::AlertReceived(Alert::CertificateRevoked), "was revoked");
        check(Error::AlertReceived(Alert::AccessDenied), "gives it no access");
        check(Error::AlertReceived(Alert::DecryptError), "belong together");
        let clear = Error::InvalidMessage(rustls::InvalidMessage::InvalidContentType);
        check(clear, "the server does not speak TLS: is it http://?");
        check(Bad::Other(OtherError(Arc::new(WeakKey { bits: 1024 }))).into(), "2048 bits");
        check(Error::AlertReceived(Alert::UnrecognisedName), "serves no such name");
        assert_eq!(alert_name(Alert::UnknownCA), "unknown_ca");
        assert_eq!(alert_name(Alert::CertificateRequired), "certificate_required");
        let old = PeerIncompatible::ServerTlsVersionIsDisabledByOurConfig;
        for (error, words) in [
            (
                Error::AlertReceived(Alert::HandshakeFailure),
                "received fatal alert: handshake_failure",
            ),
            (
                Error::PeerIncompatible(old),
                "peer is incompatible: server tls version is disabled by our config",
            ),
            (
                Error::InvalidMessage(rustls::InvalidMessage::InvalidContentType),
                "received corrupt message: invalid content type",
            ),
            (Error::DecryptError, "cannot decrypt peer's message"),
        ] {
            assert_eq!(io_words(&io::Error::other(error)), words);
        }
        assert_eq!(io_words(&io::Error::other("plain")), "plain");
        let other = |text: &str| Bad::Other(OtherError(Arc::from(Box::from(text)))).into();
        check(other("CaUsedAsEndEntity"), "CA:FALSE");
        check(other("something"), "");
        check(Bad::Revoked.into(), "");
    }
}
