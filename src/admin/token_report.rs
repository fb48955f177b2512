//! One token as `/status` shows it; nothing in it is secret.

use serde_json::{Value, json};

use super::attention::{contended_cause, token_hint};
use crate::clock::{Moment, date, seconds};
use crate::token::TokenStatus;

/// The entry of a token in `tokens`.
pub(super) fn token_report(token: &TokenStatus, now: Moment) -> Value {
    #[cfg_attr(
        not(feature = "share"),
        expect(unused_mut, reason = "shared tokens alone add to it")
    )]
    let mut report = json!({
        "credential": *token.credential,
        "token": token.token,
        "scopes": token.scopes,
        "usable": token.usable(now),
        "lazy": token.lazy,
        "attempted": token.attempted,
        "state": token.state(now),
        "issued": token.last_success.map(date),
        "usable_until": token.expires.and(token.usable_until).map(|until| date(until.wall)),
        "expires": token.expires.map(date),
        "refresh_due": token.refresh_due.map(date),
        "failing_since": token.failing_since.map(date),
        "failures": token.failures,
        "last_error": token.last_error,
        "error_text": token.error_text,
        "error_hint": token.error_hint,
        "last_call_s": token.last_call.map(seconds),
        "call_under_way_s": token.call_under_way(now).map(seconds),
        "call_waits_s": token.call_waits(now).map(seconds),
        "life_s": token.life.map(|life| life.as_secs()),
        "hint": token_hint(token),
        "secret_refused": token.secret_refused,
        "secret_changed": token.secret_changed.map(date),
        "rate_limited_until": token.rate_limited_until.map(date),
        "token_url": token.token_url,
        "issuer": token.issuer,
        "missing_scopes": token.missing_scopes,
        "handing_over": token.handing_over,
        "contended": token.contended,
        "contended_cause": contended_cause(token),
        "server_clock_offset_s": token.clock_offset.map(|offset| (offset * 10.0).round() / 10.0),
        "budget": budget(token),
        "budget_left": token.budget_left,
    });
    #[cfg(feature = "share")]
    if let Some(share) = &token.share {
        report["share"] = json!({
            "replica": share.replica,
            "owner": share.owner,
            "generation": share.generation,
            "leads": share.leads(),
            "alone": share.trouble.is_some(),
            "text": share.to_string(),
        });
    }
    report
}

/// The hourly budget of the token's credential; null where there is none.
fn budget(token: &TokenStatus) -> Value {
    let (Some(limit), Some(left)) = (token.budget, token.budget_left) else { return Value::Null };
    json!({
        "limit": limit,
        "spent": limit.get().saturating_sub(left),
        "left": left,
        "until": token.budget_spent_until.map(date),
    })
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU32;

    use super::*;

    #[test]
    fn a_budget_is_told_with_what_is_left() {
        let now = Moment::now();
        assert_eq!(token_report(&TokenStatus::default(), now)["budget"], Value::Null);
        let token = TokenStatus {
            budget: NonZeroU32::new(5),
            budget_left: Some(0),
            budget_spent_until: Some(std::time::UNIX_EPOCH),
            ..TokenStatus::default()
        };
        let expected =
            json!({ "limit": 5, "spent": 5, "left": 0, "until": "1970-01-01T00:00:00Z" });
        assert_eq!(token_report(&token, now)["budget"], expected);
        assert!(token_report(&token, now)["hint"].as_str().unwrap().contains("token_budget"));
    }
}
