//! The names in a client's certificate.
//!
//! webpki inside rustls has verified the chain before this reads it.

use rustls::pki_types::CertificateDer;
use webpki::EndEntityCert;

use crate::x509::distinguished_name;

/// A client's certificate, verified in the handshake.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerCertificate {
    /// The subject as RFC 4514 writes it, most specific part first: `CN=erp,O=Example Bank`.
    pub subject: String,
    /// DNS names of the subject alternative names; such a name may begin with `*.`.
    pub dns_names: Vec<String>,
    /// URIs of the subject alternative names, such as SPIFFE identities.
    pub uri_names: Vec<String>,
    /// The certificate itself.
    pub der: CertificateDer<'static>,
}

impl PeerCertificate {
    /// Parses a verified certificate; `None` if its names cannot be parsed.
    pub fn read(der: &CertificateDer<'_>) -> Option<Self> {
        let certificate = EndEntityCert::try_from(der).ok()?;
        Some(Self {
            subject: distinguished_name(certificate.subject())?,
            dns_names: certificate.valid_dns_names().map(str::to_owned).collect(),
            uri_names: certificate.valid_uri_names().map(str::to_owned).collect(),
            der: der.clone().into_owned(),
        })
    }
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, DnType, KeyPair, SanType};

    use super::*;

    fn certificate(edit: impl FnOnce(&mut CertificateParams)) -> CertificateDer<'static> {
        let mut params = CertificateParams::default();
        params.distinguished_name = rcgen::DistinguishedName::new();
        edit(&mut params);
        params.self_signed(&KeyPair::generate().unwrap()).unwrap().der().clone()
    }

    #[test]
    fn names_are_read() {
        let der = certificate(|params| {
            params.distinguished_name.push(DnType::CountryName, "DE");
            params.distinguished_name.push(DnType::OrganizationName, "Bank, Söhne & Co");
            params.distinguished_name.push(DnType::CommonName, " erp#1");
            let uri = SanType::URI("spiffe://bank.example/erp".try_into().unwrap());
            let dns = SanType::DnsName("erp.bank.example".try_into().unwrap());
            params.subject_alt_names = vec![uri, dns];
        });
        let read = PeerCertificate::read(&der).unwrap();
        assert_eq!(read.subject, "CN=\\ erp#1,O=Bank\\, Söhne & Co,C=DE");
        assert_eq!(read.dns_names, ["erp.bank.example"]);
        assert_eq!(read.uri_names, ["spiffe://bank.example/erp"]);
        assert_eq!(read.der, der);
    }

    #[test]
    fn unusual_attributes_have_numbers() {
        let der = certificate(|params| {
            let custom = DnType::CustomDnType(vec![1, 3, 6, 1, 4, 1, 99_999]);
            params.distinguished_name.push(custom, "x");
        });
        assert_eq!(PeerCertificate::read(&der).unwrap().subject, "1.3.6.1.4.1.99999=x");
    }

    #[test]
    fn nonsense_is_nothing() {
        assert_eq!(PeerCertificate::read(&CertificateDer::from(vec![0x30, 1, 2])), None);
    }
}
