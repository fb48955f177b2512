//! The tokens of each credential: those of the running instance, or new ones.

use std::time::Duration;

use super::instance;
use super::result::CheckResult;
use crate::cli::running_instance::RunningInstance;
use crate::oauth::ScopeSet;
use crate::token::Credential;
use crate::token::clock_offset::ClockOffset;
use crate::token::probe::{self, Probe, ProbeError};

/// A clock that is further off makes tokens and assertions look expired.
const MAX_OFFSET: Duration = Duration::from_secs(60);
/// A clock that is further off is worth a word.
const NOTED_OFFSET: Duration = Duration::from_secs(5);

/// All tokens of a credential; without `may_call` only those of the running instance. After the first refusal
/// of the client itself no other token is asked for: servers lock a client out after a few.
pub(super) async fn tokens(
    steps: &mut Vec<CheckResult>,
    credential: &Credential,
    sets: &[ScopeSet],
    running: Option<&RunningInstance>,
    may_call: bool,
) {
    let mut refused = false;
    for scopes in sets {
        let held = running.and_then(|running| Some((running, running.token(credential, scopes)?)));
        if let Some((running, token)) = held {
            instance::token(steps, token, &with(scopes), &running.address);
            continue;
        }
        if !may_call {
            continue;
        }
        if refused {
            let found = format!("not asked for: the server refuses the client{}", with(scopes));
            steps.push(CheckResult::ok("token", found).warning());
            continue;
        }
        refused = new_token(steps, credential, scopes).await;
    }
}

/// Asks for one token. Returns true if the server refused the client itself.
async fn new_token(
    steps: &mut Vec<CheckResult>,
    credential: &Credential,
    scopes: &ScopeSet,
) -> bool {
    match probe::probe(credential, scopes).await {
        Ok(probe) => {
            if credential.dpop.is_some() {
                let found = match probe.nonce_required {
                    true => "the proof is accepted; the server asks for a nonce",
                    false => "the proof is accepted; the server asks for no nonce",
                };
                steps.push(CheckResult::ok("dpop", found));
            }
            succeeded(steps, &probe, scopes);
        }
        Err(error) => {
            failed(steps, &error, scopes);
            return error.rejects_client();
        }
    }
    false
}

fn with(scopes: &ScopeSet) -> String {
    match scopes.is_empty() {
        true => String::new(),
        false => format!(", asked with {}", scopes.to_wire()),
    }
}

fn succeeded(steps: &mut Vec<CheckResult>, probe: &Probe, scopes: &ScopeSet) {
    clock(steps, probe.offset);
    let Some(life) = probe.life else {
        return steps
            .push(CheckResult::ok("static token", "it can be sent; its expiry is not known"));
    };
    let life = life.as_secs();
    steps.push(CheckResult::ok("token", format!("valid for {life} s{}", with(scopes))));
    let Some(granted) = &probe.granted else {
        let found = "the answer names none, so that what was asked for counts as granted";
        return steps.push(CheckResult::ok("scopes", found));
    };
    let missing: Vec<_> =
        scopes.missing_from(granted).iter().map(|scope| scope.as_str().to_owned()).collect();
    let found = match granted.is_empty() {
        true => "granted: none".to_owned(),
        false => format!("granted: {}", granted.to_wire()),
    };
    steps.push(match missing.as_slice() {
        [] => CheckResult::ok("scopes", found),
        missing => {
            CheckResult::failed("scopes", format!("{found}; not granted: {}", missing.join(" ")))
                .hint("ask the API's owner to approve these scopes for your client")
        }
    });
}

fn failed(steps: &mut Vec<CheckResult>, error: &ProbeError, scopes: &ScopeSet) {
    clock(steps, error.offset());
    let step = CheckResult::failed("token", format!("{error}{}", with(scopes)));
    let hint = error.hint().unwrap_or_else(|| "ask the API's owner, with time and status".into());
    steps.push(step.hint(hint));
    for (proof, parts) in error.sent() {
        steps.push(CheckResult::ok(*proof, format!("sent: {parts}")));
    }
}

/// Said once for each endpoint.
fn clock(steps: &mut Vec<CheckResult>, offset: Option<ClockOffset>) {
    let Some(offset) = offset.filter(|_| !steps.iter().any(|step| step.name == "clock")) else {
        return;
    };
    let (apart, seconds) = (offset.abs(), offset.abs().as_secs());
    let direction = match offset {
        ClockOffset::Behind(_) => "behind",
        ClockOffset::Ahead(_) => "ahead of",
    };
    // Date has whole seconds, and its answer was on its way for a while.
    let step = match apart > Duration::from_secs(2) {
        false => CheckResult::ok("clock", "as the server's"),
        true => {
            CheckResult::ok("clock", format!("this machine is {seconds} s {direction} the server"))
        }
    };
    let hint = "set this machine's clock (NTP), or tell the API's owner that the server's is wrong";
    steps.push(match apart {
        _ if apart > MAX_OFFSET => CheckResult::failed("clock", step.found).hint(hint),
        _ if apart > NOTED_OFFSET => step.warning().hint(hint),
        _ => step,
    });
}

#[cfg(test)]
mod tests {
    use super::super::result::CheckStatus;
    use super::*;

    #[test]
    fn a_clock_that_is_far_off_fails_once() {
        let check = |offset, outcome, found: &str| {
            let mut steps = Vec::new();
            clock(&mut steps, Some(offset));
            clock(&mut steps, Some(offset));
            assert_eq!(steps.len(), 1);
            assert_eq!((steps[0].outcome, steps[0].found.as_str()), (outcome, found));
        };
        let seconds = Duration::from_secs;
        check(ClockOffset::Behind(seconds(1)), CheckStatus::Ok, "as the server's");
        let within = Duration::from_millis(1035);
        check(ClockOffset::Ahead(within), CheckStatus::Ok, "as the server's");
        check(
            ClockOffset::Ahead(seconds(3)),
            CheckStatus::Ok,
            "this machine is 3 s ahead of the server",
        );
        check(
            ClockOffset::Behind(seconds(9)),
            CheckStatus::Warning,
            "this machine is 9 s behind the server",
        );
        check(
            ClockOffset::Behind(seconds(90)),
            CheckStatus::Failed,
            "this machine is 90 s behind the server",
        );
    }
}
