//! `token_via`: credentials whose token requests another credential's token authorizes.

use std::sync::Arc;

use super::credentials::ParsedCredential;
use crate::diagnostics::Diagnostic;
use crate::token::Credential;
use crate::token::credential::{Binding, TokenVia};

/// Gives each credential the one that it names, after that one has its own. Names that lead nowhere are
/// reported elsewhere.
pub(super) fn resolve(credentials: &mut [ParsedCredential<'_>]) {
    let all: Vec<usize> = (0..credentials.len()).collect();
    for &at in &all {
        if is_in_circle(credentials, at) {
            if let Some(via) = &credentials[at].via {
                let problem = Diagnostic::error("credentials name each other in a circle");
                let label = "this one needs a token that needs a token of this one";
                via.name.1.fail(problem.label(label).hint("remove one token_via"));
            }
            credentials[at].credential = None;
        }
    }
    // A chain is as long as the list at most, so that as many rounds settle all.
    let mut settled: Vec<bool> = credentials.iter().map(|found| found.via.is_none()).collect();
    for _ in &all {
        for &at in &all {
            let Some(target) = target(credentials, at).filter(|target| settled[*target]) else {
                continue;
            };
            if !settled[at] {
                settle(credentials, at, target);
                settled[at] = true;
            }
        }
    }
    for (found, _) in credentials.iter_mut().zip(settled).filter(|(_, settled)| !settled) {
        found.credential = None;
    }
}

fn settle(credentials: &mut [ParsedCredential<'_>], at: usize, target: usize) {
    let inner = credentials[target].credential.clone();
    let found = &mut credentials[at];
    if let (Some(inner), Some(via)) = (&inner, &found.via)
        && (inner.binding != Binding::None || inner.dpop.is_some())
    {
        via.name.1.reject("its tokens are bound, and this request has no proof for them");
    }
    found.credential = found.credential.take().zip(inner).map(|(credential, inner)| Credential {
        via: found
            .via
            .as_ref()
            .map(|via| TokenVia { credential: Arc::new(inner), scopes: via.scopes.clone() }),
        ..credential
    });
}

/// The place of the credential that another one names.
fn target(credentials: &[ParsedCredential<'_>], at: usize) -> Option<usize> {
    let via = credentials[at].via.as_ref()?;
    credentials.iter().position(|found| found.name == via.name.0)
}

fn is_in_circle(credentials: &[ParsedCredential<'_>], start: usize) -> bool {
    let mut at = target(credentials, start);
    for _ in credentials {
        match at {
            Some(found) if found == start => return true,
            Some(found) => at = target(credentials, found),
            None => return false,
        }
    }
    false
}
