//! What a server's certificate says to a person: whose it is, who issued it, until when it is valid.
//!
//! Nothing here decides about trust; that is the verifier's.

use std::time::{Duration, SystemTime};

use super::der::Der;
use super::distinguished_name;

/// What is read of a certificate (RFC 5280 section 4.1).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Certificate {
    /// Whose it is, as RFC 4514 writes it; `(no name)` where it has none.
    pub subject: String,
    /// Who issued it.
    pub issuer: String,
    /// The first moment of its life.
    pub valid_from: SystemTime,
    /// The last moment of its life.
    pub valid_until: SystemTime,
    /// Whether it has subject alternative names, the only ones that count (RFC 9525).
    pub has_names: bool,
    /// Where its issuer's own certificate can be fetched, as it says (RFC 5280 section 4.2.2.1).
    pub issuer_url: Option<String>,
}

impl Certificate {
    /// Reads a certificate; `None` where it is none.
    #[must_use]
    pub fn read(der: &[u8]) -> Option<Self> {
        let mut fields =
            Der::new(Der::new(Der::new(der).take(Der::SEQUENCE)?).take(Der::SEQUENCE)?);
        if fields.peek() == Some(VERSION) {
            fields.value()?;
        }
        fields.take(Der::INTEGER)?; // serial number
        fields.take(Der::SEQUENCE)?; // signature algorithm
        let issuer = name(fields.take(Der::SEQUENCE)?)?;
        let mut validity = Der::new(fields.take(Der::SEQUENCE)?);
        let (valid_from, valid_until) = (time(&mut validity)?, time(&mut validity)?);
        let subject = name(fields.take(Der::SEQUENCE)?)?;
        let mut certificate =
            Self { subject, issuer, valid_from, valid_until, has_names: false, issuer_url: None };
        while let Some((tag, content, _)) = fields.value() {
            if tag == EXTENSIONS {
                certificate.extend(Der::new(Der::new(content).take(Der::SEQUENCE)?))?;
            }
        }
        Some(certificate)
    }

    fn extend(&mut self, mut extensions: Der<'_>) -> Option<()> {
        while !extensions.is_empty() {
            let mut extension = Der::new(extensions.take(Der::SEQUENCE)?);
            let oid = extension.take(Der::OID)?;
            let (mut tag, mut content, _) = extension.value()?;
            if tag != Der::OCTETS {
                // What stands between is whether the extension is critical.
                (tag, content, _) = extension.value()?;
            }
            match (oid, tag) {
                (SUBJECT_ALTERNATIVE_NAMES, Der::OCTETS) => self.has_names = true,
                (AUTHORITY_INFORMATION, Der::OCTETS) => self.issuer_url = issuer_url(content),
                _ => {}
            }
        }
        Some(())
    }

    /// Whether it is its own issuer, as roots are.
    #[must_use]
    pub fn is_self_issued(&self) -> bool {
        self.subject == self.issuer
    }

    /// Whole days until it ends, `None` where it has ended.
    #[must_use]
    pub fn days_left(&self, now: SystemTime) -> Option<u64> {
        Some(self.valid_until.duration_since(now).ok()?.as_secs() / 86_400)
    }
}

/// The most specific part of a name, which is how people call it: `CN=…`.
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
/// A GeneralName that is a URI.
const URI: u8 = 0x86;
const SUBJECT_ALTERNATIVE_NAMES: &[u8] = &[0x55, 0x1d, 17];
const AUTHORITY_INFORMATION: &[u8] = &[0x2b, 6, 1, 5, 5, 7, 1, 1];
const ISSUERS: &[u8] = &[0x2b, 6, 1, 5, 5, 7, 48, 2];

fn name(content: &[u8]) -> Option<String> {
    let text = distinguished_name(content)?;
    Some(if text.is_empty() { "(no name)".to_owned() } else { text })
}

/// RFC 5280 section 4.1.2.5: two digits of the year mean 1950 to 2049.
fn time(validity: &mut Der<'_>) -> Option<SystemTime> {
    let (tag, content, _) = validity.value()?;
    let text = std::str::from_utf8(content).ok()?.strip_suffix('Z')?;
    let (year, rest) = match tag {
        Der::UTC_TIME => {
            let year: i16 = text.get(..2)?.parse().ok()?;
            (year + if year < 50 { 2000 } else { 1900 }, text.get(2..)?)
        }
        Der::GENERALIZED_TIME => (text.get(..4)?.parse().ok()?, text.get(4..)?),
        _ => return None,
    };
    let part = |at: usize| rest.get(at..at + 2)?.parse::<i8>().ok();
    let (month, day) = (part(0)?, part(2)?);
    let date = jiff::civil::Date::new(year, month, day).ok()?;
    let clock = jiff::civil::Time::new(part(4)?, part(6)?, part(8)?, 0).ok()?;
    let zoned = date.to_datetime(clock).to_zoned(jiff::tz::TimeZone::UTC).ok()?;
    let seconds = zoned.timestamp().as_second();
    let away = Duration::from_secs(seconds.unsigned_abs());
    match seconds < 0 {
        true => SystemTime::UNIX_EPOCH.checked_sub(away),
        false => SystemTime::UNIX_EPOCH.checked_add(away),
    }
}

fn issuer_url(content: &[u8]) -> Option<String> {
    let mut descriptions = Der::new(Der::new(content).take(Der::SEQUENCE)?);
    while !descriptions.is_empty() {
        let mut description = Der::new(descriptions.take(Der::SEQUENCE)?);
        let method = description.take(Der::OID)?;
        let (tag, place, _) = description.value()?;
        let plain = place.iter().all(u8::is_ascii_graphic) && place.len() <= 200;
        if method == ISSUERS && tag == URI && plain {
            return String::from_utf8(place.to_vec()).ok();
        }
    }
    None
}

#[cfg(test)]
mod tests {
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
    fn what_people_ask_of_a_certificate() {
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
