//! Checks that references can be read: source, length, mode.

use std::path::Path;

use super::result::CheckResult;
use crate::admin::report::RENEW_CERTIFICATE_DAYS;
use crate::net::tls::{ClientCertificate, TlsSettings};
use crate::secret::{
    CredentialPart, EgressLogin, EgressProxy, Reference, SecretError, SecretFault,
};
use crate::sensitive::Sensitive;
use crate::token::Credential;
use crate::token::client_identity::load_identity;
use crate::token::credential::ClientIdSource;
use crate::x509::pem::{self, PemKind};

use super::network::validity;

/// A secret.
pub(super) async fn secret(name: &str, reference: &Reference) -> CheckResult {
    read(name, reference, reference.examine(CredentialPart::Secret).await)
}

/// A client id: not a secret, so its rules are looser.
pub(super) async fn id(name: &str, id: &ClientIdSource) -> CheckResult {
    let reference = match id {
        ClientIdSource::Referenced(reference) => reference,
        ClientIdSource::GrantKeyFile => {
            return CheckResult::ok(name, "the key file of the grant names it");
        }
        ClientIdSource::Absent => return CheckResult::ok(name, "the grant needs none"),
        ClientIdSource::Text(_) => return CheckResult::ok(name, "the configuration states it"),
    };
    read(name, reference, reference.examine(CredentialPart::Id).await)
}

/// A private key as a secret: on the first day it is often something else.
pub(super) async fn private_key(name: &str, reference: &Reference) -> CheckResult {
    let found = reference.examine(CredentialPart::PrivateKey).await;
    let path = match reference {
        Reference::File(path) => path.as_path(),
        _ => Path::new("FILE"),
    };
    let bytes = match (&found, reference) {
        (Ok((text, _)), _) => Some(zeroize::Zeroizing::new(text.expose().as_bytes().to_vec())),
        (Err(error), Reference::File(path)) if *error.fault() == SecretFault::NotUtf8 => {
            std::fs::read(path).ok().map(zeroize::Zeroizing::new)
        }
        _ => None,
    };
    match bytes.and_then(|bytes| pem::conversion_hint(path, &bytes, PemKind::PrivateKey)) {
        Some(instead) => {
            CheckResult::from_error(name, &format!("{} {instead}", reference.describe()))
        }
        None => read(name, reference, found),
    }
}

/// The certificates whose hash or chain client assertions carry.
pub(super) async fn assertion_certificate(reference: &Reference) -> CheckResult {
    let found = reference.examine(CredentialPart::Certificate).await;
    read("assertion.certificate_file", reference, found)
}

/// The outcome of one reading, with what may be a mistake in the value.
fn read(
    name: &str,
    reference: &Reference,
    found: Result<(Sensitive, Vec<&'static str>), SecretError>,
) -> CheckResult {
    let source = reference.describe();
    match found {
        Ok((value, notes)) => {
            let mode = reference.mode().map(|mode| format!(", mode {mode:04o}"));
            let unit = if value.len() == 1 { "byte" } else { "bytes" };
            let mode = mode.unwrap_or_default();
            let found = format!("{source}, {} {unit}{mode}", value.len());
            match notes.as_slice() {
                [] => CheckResult::ok(name, found),
                notes => CheckResult::ok(name, format!("{found}; note: {}", notes.join(", ")))
                    .warning()
                    .hint("it is sent as it is; if that is a mistake, write the value alone"),
            }
        }
        Err(error) => {
            let step = CheckResult::from_error(name, &error);
            match step.hint {
                Some(_) => step,
                None => {
                    step.hint("look at the source by hand, as the user that bearer-proxy runs as")
                }
            }
        }
    }
}

/// The login of an egress proxy, where there is one.
pub(super) async fn egress(steps: &mut Vec<CheckResult>, proxy: Option<&EgressProxy>) {
    match proxy.and_then(|proxy| proxy.login.as_ref()) {
        Some(EgressLogin::Referenced { username, password }) => {
            steps.push(secret("egress.username", username).await);
            steps.push(secret("egress.password", password).await);
        }
        Some(EgressLogin::Stated(_)) => {
            steps.push(CheckResult::ok("egress login", "a variable of the environment states it"));
        }
        None => {}
    }
}

/// The client certificate of a credential, where there is one. Without it no connection can be made:
/// then it is `false`.
pub(super) async fn presented_certificate(
    steps: &mut Vec<CheckResult>,
    credential: &Credential,
) -> bool {
    let Some(source) = &credential.client_certificate else {
        return client_certificate(steps, &credential.tls);
    };
    let name = "client certificate";
    let shown: Vec<_> = source.references().map(|(reference, _)| reference.describe()).collect();
    let shown = shown.join(", ");
    let step = match load_identity(credential, None).await {
        Ok(Some(identity)) => match identity.certificate() {
            Some(found) => {
                let about = format!("{shown}: {}", found.subject);
                validity(name, about, found, RENEW_CERTIFICATE_DAYS)
                    .unwrap_or_else(|step| step.hint("its issuer must renew it"))
            }
            None => CheckResult::failed(name, format!("{shown} is not a certificate")),
        },
        Ok(None) => return true,
        Err(error) => {
            steps.push(CheckResult::failed(name, error.to_string()));
            return false;
        }
    };
    steps.push(step);
    true
}

/// The client certificate, where there is one. Without its files no connection can be made: then it
/// is `false`.
pub(super) fn client_certificate(steps: &mut Vec<CheckResult>, tls: &TlsSettings) -> bool {
    let Some(files) = &tls.client_certificate else { return true };
    let step = certificate("client certificate", files, RENEW_CERTIFICATE_DAYS);
    let made = files.certificate().is_ok_and(|found| found.is_some());
    steps.push(step);
    made
}

/// A certificate of ours with its key: whose, and how long it is valid.
/// There is a warning from `renew` days before its end on.
pub(super) fn certificate(name: &str, files: &ClientCertificate, renew: u64) -> CheckResult {
    let shown = files.file().display();
    match files.certificate() {
        Ok(Some(found)) => validity(name, format!("{shown}: {}", found.subject), &found, renew)
            .unwrap_or_else(|step| step.hint("its issuer must renew it")),
        Ok(None) => CheckResult::failed(name, format!("{shown} is not a certificate")),
        Err(error) => CheckResult::from_error(name, &error),
    }
}
