//! The settings of a credential that say when its tokens are requested, and how often at most.

use std::num::NonZeroU32;
use std::time::Duration;

use crate::diagnostics::units::POSITIVE;
use crate::diagnostics::{Diagnostic, Section};
use crate::token::credential::{MissingScopes, RefreshPolicy};

const MISSING_SCOPES: [(&str, MissingScopes); 2] =
    [("warn", MissingScopes::Warn), ("refuse", MissingScopes::Refuse)];

pub(super) fn policy(section: &Section<'_>) -> RefreshPolicy {
    let default = RefreshPolicy::default();
    let timeouts = section.section("timeouts");
    // A token that is dropped sooner would cost a call for each request.
    let idle = Duration::from_secs(10)..;
    // A waiting request holds one of those in flight.
    let wait = ..=Duration::from_secs(60);
    let lazy = section.item("lazy").and_then(|item| item.duration_or_off(idle));
    let budget = section.item("token_budget").and_then(|item| item.integer::<u32>(1..=1_000_000));
    let refresh_at = section.item("refresh_at").and_then(|item| item.share(0.1..=0.95));
    let policy = RefreshPolicy {
        refresh_at: refresh_at.unwrap_or(default.refresh_at),
        jitter: default.jitter,
        connect_timeout: timeouts.duration("connect", POSITIVE, default.connect_timeout),
        timeout: timeouts.duration("total", POSITIVE, default.timeout),
        wait: timeouts.duration("wait", wait, default.wait),
        missing_scopes: section.choice("missing_scopes", &MISSING_SCOPES, default.missing_scopes),
        budget: budget.and_then(NonZeroU32::new),
        lazy: lazy.flatten(),
        one_live_token: section.bool("one_live_token", default.one_live_token),
        share: section.bool("share", default.share),
    };
    if policy.connect_timeout > policy.timeout {
        let problem = Diagnostic::error("connect is longer than total");
        timeouts.fail(problem.label("connecting is a part of the whole"));
    }
    policy
}
