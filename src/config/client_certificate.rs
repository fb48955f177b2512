//! The client certificate of a credential by reference, and the binding of its tokens to it.

use super::missing_feature;
use crate::diagnostics::{Item, Section};
use crate::secret::{self, Reference};
use crate::token::credential::{Binding, CertificateSource};

const BINDINGS: [(&str, Binding); 2] =
    [("none", Binding::None), ("certificate", Binding::Certificate)];

/// `client_certificate`: the client certificate by reference, in place of the files of `tls`.
pub(super) fn certificate_source(
    section: &Section<'_>,
    reference: &dyn Fn(Option<Item<'_>>) -> Option<Reference>,
) -> Option<CertificateSource> {
    let item = section.item("client_certificate")?;
    let files = section.section("tls");
    for name in ["client_certificate_file", "client_pkcs12_file"] {
        if files.item(name).is_some() {
            item.reject(format!("tls.{name} names a certificate too; remove one of the two"));
            return None;
        }
    }
    let own = section.section("client_certificate");
    let password = own.item("password");
    let (pkcs12, certificate, key) = (own.item("pkcs12"), own.item("certificate"), own.item("key"));
    if let Some(container) = pkcs12 {
        for other in certificate.into_iter().chain(key) {
            other.reject("the PKCS#12 container holds it already; remove one of the two");
        }
        needs_pkcs12(&container);
        let password = password.and_then(|item| reference(Some(item)));
        return Some(CertificateSource::Pkcs12 {
            container: reference(Some(container))?,
            password,
        });
    }
    let hint = "write  pkcs12.file = \"/path\",  or  certificate.file = \"/path\"  and  key.file = \"/path\"";
    let certificate = own.required("certificate", hint);
    let key = own.required("key", hint);
    let password = password.and_then(|item| reference(Some(item)));
    let (certificate, key) = (reference(certificate), reference(key));
    let (certificate, key) = (certificate?, key?);
    Some(CertificateSource::Pem { certificate, key, password })
}

/// Refuses a container if this build cannot open one.
pub(super) fn needs_pkcs12(container: &Item<'_>) {
    if let Some(feature) = secret::missing_feature("pkcs12") {
        missing_feature::refuse(container, "this build cannot open PKCS#12 containers", feature);
    }
}

/// The binding of the tokens, which needs a client certificate.
pub(super) fn binding(section: &Section<'_>, presents: bool) -> Binding {
    let binding = section.choice("bound", &BINDINGS, Binding::default());
    if binding == Binding::Certificate && !presents {
        let hint = "the certificate to which the tokens of this credential are bound";
        section.missing("tls.client_certificate_file", hint);
    }
    binding
}
