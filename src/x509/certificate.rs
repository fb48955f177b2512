//! Subject, issuer and validity of a server's certificate, for people.
//!
//! Nothing here decides about trust: the verifier in rustls does.

use std::time::SystemTime;

use jiff::civil::DateTime;
use jiff::tz::TimeZone;

use super::der::Der;
use super::distinguished_name;

/// The fields of a certificate that a person asks for (RFC 5280 section 4.1).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Certificate {
    /// Subject as RFC 4514 writes it; `(no name)` if it is empty.
    pub subject: String,
    /// Issuer as RFC 4514 writes it; `(no name)` if it is empty.
    pub issuer: String,
    /// First moment of its validity.
    pub valid_from: SystemTime,
    /// Last moment of its validity.
    pub valid_until: SystemTime,
    /// True if it has subject alternative names, the only names that count (RFC 9525).
    pub has_names: bool,
    /// URL of the issuer's own certificate, if it states one (RFC 5280 section 4.2.2.1).
    pub issuer_url: Option<String>,
}

impl Certificate {
    /// Reads a certificate; `None` if the bytes are not one.
    #[must_use]
    pub fn read(der: &[u8]) -> Option<Self> {
        let mut fields = Der::new(der).enter(Der::SEQUENCE)?.enter(Der::SEQUENCE)?;
        if fields.peek() == Some(VERSION) {
            fields.value()?;
        }
        fields.take(Der::INTEGER)?; // serial number
        fields.take(Der::SEQUENCE)?; // signature algorithm
        let issuer = name(fields.take(Der::SEQUENCE)?)?;
        let mut validity = fields.enter(Der::SEQUENCE)?;
        let (valid_from, valid_until) = (time(&mut validity)?, time(&mut validity)?);
        let subject = name(fields.take(Der::SEQUENCE)?)?;
        let mut certificate =
            Self { subject, issuer, valid_from, valid_until, has_names: false, issuer_url: None };
        while !fields.is_empty() {
            let (tag, content, _) = fields.value()?;
            if tag == EXTENSIONS {
                certificate.read_extensions(Der::new(content).enter(Der::SEQUENCE)?)?;
            }
        }
        Some(certificate)
    }

    fn read_extensions(&mut self, mut extensions: Der<'_>) -> Option<()> {
        while !extensions.is_empty() {
            let mut extension = extensions.enter(Der::SEQUENCE)?;
            let oid = extension.take(Der::OID)?;
            if extension.peek() != Some(Der::OCTETS) {
                // The optional `critical` flag stands before the value.
                extension.value()?;
            }
            let content = extension.take(Der::OCTETS)?;
            match oid {
                SUBJECT_ALT_NAME => self.has_names = true,
                AUTHORITY_INFO_ACCESS => self.issuer_url = issuer_url(content),
                _ => {}
            }
        }
        Some(())
    }

    /// True if subject and issuer are equal, as for a root.
    #[must_use]
    pub fn is_self_issued(&self) -> bool {
        self.subject == self.issuer
    }

    /// Whole days until the certificate expires; `None` once it has expired.
    #[must_use]
    pub fn days_left(&self, now: SystemTime) -> Option<u64> {
        Some(self.valid_until.duration_since(now).ok()?.as_secs() / 86_400)
    }
}

/// The most specific part of a name, such as `CN=api.bank.example`.
#[must_use]
pub fn short(name: &str) -> &str {
    let mut escaped = false;
    let end = name.find(|c| {
        let found = c == ',' && !escaped;
        escaped = c == '\\' && !escaped;
        found
    });
    &name[..end.unwrap_or(name.len())]
}

const VERSION: u8 = 0xa0;
const EXTENSIONS: u8 = 0xa3;
/// Tag of a GeneralName that is a URI.
const URI: u8 = 0x86;
const SUBJECT_ALT_NAME: &[u8] = &[0x55, 0x1d, 17];
const AUTHORITY_INFO_ACCESS: &[u8] = &[0x2b, 6, 1, 5, 5, 7, 1, 1];
const CA_ISSUERS: &[u8] = &[0x2b, 6, 1, 5, 5, 7, 48, 2];

fn name(content: &[u8]) -> Option<String> {
    let text = distinguished_name(content)?;
    Some(if text.is_empty() { "(no name)".to_owned() } else { text })
}

/// RFC 5280 section 4.1.2.5: both forms end in seconds and `Z`; a year of two digits is 1950 to 2049.
fn time(validity: &mut Der<'_>) -> Option<SystemTime> {
    let (tag, content, _) = validity.value()?;
    let digits = std::str::from_utf8(content).ok()?.strip_suffix('Z')?;
    let text = match tag {
        Der::UTC_TIME => format!("{}{digits}", if digits < "50" { "20" } else { "19" }),
        Der::GENERALIZED_TIME => digits.to_owned(),
        _ => return None,
    };
    // `strptime` alone would also take fields of fewer digits.
    if text.len() != "YYYYMMDDhhmmss".len() || !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let datetime = DateTime::strptime("%Y%m%d%H%M%S", &text).ok()?;
    Some(datetime.to_zoned(TimeZone::UTC).ok()?.timestamp().into())
}

fn issuer_url(content: &[u8]) -> Option<String> {
    let mut descriptions = Der::new(content).enter(Der::SEQUENCE)?;
    while !descriptions.is_empty() {
        let mut description = descriptions.enter(Der::SEQUENCE)?;
        let method = description.take(Der::OID)?;
        let (tag, location, _) = description.value()?;
        let printable = location.iter().all(u8::is_ascii_graphic) && location.len() <= 200;
        if method == CA_ISSUERS && tag == URI && printable {
            return String::from_utf8(location.to_vec()).ok();
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use rcgen::{BasicConstraints, CertificateParams, CustomExtension, DnType, IsCa, KeyPair};

    use super::*;

    /// `SEQUENCE { SEQUENCE { caIssuers, [6] "http://ca.test/i.der" } }`
    const AUTHORITY_INFORMATION_CONTENT: &[u8] =
        b"\x30\x22\x30\x20\x06\x08\x2b\x06\x01\x05\x05\x07\x30\x02\x86\x14http://ca.test/i.der";

    fn made(change: impl FnOnce(&mut CertificateParams)) -> Vec<u8> {
        let mut params = CertificateParams::default();
        params.distinguished_name = rcgen::DistinguishedName::new();
        change(&mut params);
        params.self_signed(&KeyPair::generate().unwrap()).unwrap().der().to_vec()
    }

    #[test]
    fn a_certificate_is_read() {
        let der = made(|params| {
            params.distinguished_name.push(DnType::OrganizationName, "Bank");
            params.distinguished_name.push(DnType::CommonName, "api.bank.test");
            params.not_before = rcgen::date_time_ymd(1969, 12, 31);
            params.not_after = rcgen::date_time_ymd(2051, 2, 1);
            let oid = [1, 3, 6, 1, 5, 5, 7, 1, 1];
            let extension = AUTHORITY_INFORMATION_CONTENT.to_vec();
            params.custom_extensions = vec![CustomExtension::from_oid_content(&oid, extension)];
            params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        });
        let read = Certificate::read(&der).unwrap();
        assert_eq!(
            (read.subject.as_str(), read.is_self_issued()),
            ("CN=api.bank.test,O=Bank", true)
        );
        assert_eq!((short(&read.subject), read.has_names), ("CN=api.bank.test", false));
        assert_eq!(read.issuer_url.as_deref(), Some("http://ca.test/i.der"));
        let at = |seconds: u64| SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
        assert_eq!(read.valid_from, SystemTime::UNIX_EPOCH - Duration::from_secs(86_400));
        assert_eq!(read.valid_until, at(2_558_822_400)); // 2051-02-01
        assert_eq!(read.days_left(at(2_558_822_400 - 86_401)), Some(1));
        assert_eq!(read.days_left(at(2_558_822_401)), None);

        let named = made(|params| {
            let name = "api.bank.test".try_into().unwrap();
            params.subject_alt_names = vec![rcgen::SanType::DnsName(name)];
        });
        let read = Certificate::read(&named).unwrap();
        assert_eq!(
            (read.subject.as_str(), read.has_names, read.issuer_url),
            ("(no name)", true, None)
        );
    }

    #[test]
    fn names_are_shortened_at_their_first_comma() {
        let check = |name, expected| assert_eq!(short(name), expected);
        check("CN=a,O=b", "CN=a");
        check("CN=a\\, b,O=c", "CN=a\\, b");
        check("CN=a\\\\,O=c", "CN=a\\\\");
        check("", "");
    }

    #[test]
    fn no_bytes_make_it_panic() {
        let der = made(|params| params.distinguished_name.push(DnType::CommonName, "x"));
        for end in 0..der.len() {
            assert_eq!(Certificate::read(&der[..end]), None);
        }
        for at in 0..der.len() {
            for value in [0, 0x30, 0x7f, 0x80, 0x82, 0xff] {
                let mut broken = der.clone();
                broken[at] = value;
                let _any = Certificate::read(&broken);
            }
        }
    }
}
