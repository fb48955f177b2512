//! Liveness, start-up and readiness, computed from the state of the program's parts.

use super::settings::ReadinessRule;
use std::future::Future;
use std::pin::Pin;

use super::bundle::BundleParts;
use super::report::StatusReport;
use crate::clock::Moment;
use crate::token::TokenStatus;

/// The state of the program, for probes and status.
pub trait Health: Send + Sync + 'static {
    /// True once the program shuts down; it is then not ready, whatever the state of its tokens.
    fn draining(&self) -> bool;
    /// True once the listeners are bound and the workers run.
    fn started(&self) -> bool;
    /// Every token of every credential, ordered by the credentials' names.
    fn tokens(&self) -> Vec<TokenStatus>;
    /// Makes the part of `/status` that is not tokens. It may wait for workers, within a bound.
    fn report(&self) -> Pin<Box<dyn Future<Output = StatusReport> + Send + '_>>;
    /// What a support bundle has beside the status.
    fn bundle_parts(&self) -> BundleParts;
    /// Requests the missing tokens of a credential, or of all that are not lazy.
    fn ask(&self, credential: Option<&str>);
    /// Forces a refresh of all tokens of a credential; returns their number.
    fn refresh(&self, credential: &str) -> usize;
    /// True if all workers are responsive. Liveness ignores tokens: a restart cannot fix an unavailable
    /// bank.
    fn alive(&self) -> bool {
        true
    }
}

/// The readiness of the program, or of one credential.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Readiness {
    /// Requests may be sent.
    Ready,
    /// The program is shutting down.
    Draining,
    /// The program is starting.
    Starting,
    /// These credentials have no usable token.
    Missing(Vec<String>),
    /// No credential has the requested name.
    Unknown,
}

/// The readiness of the program by this rule, or of one credential, which needs all its tokens whatever
/// the rule. A lazy credential counts only if requested.
pub fn readiness(health: &dyn Health, rule: ReadinessRule, credential: Option<&str>) -> Readiness {
    if health.draining() {
        return Readiness::Draining;
    }
    if !health.started() {
        return Readiness::Starting;
    }
    let tokens = health.tokens();
    if credential.is_some_and(|name| !tokens.iter().any(|token| *token.credential == *name)) {
        return Readiness::Unknown;
    }
    let now = Moment::now();
    let counts =
        |token: &&TokenStatus| credential.map_or(!token.lazy, |name| *token.credential == *name);
    let counted: Vec<&TokenStatus> = tokens.iter().filter(counts).collect();
    let absent = counted.iter().filter(|token| !token.usable(now));
    let mut missing: Vec<String> = absent.map(|token| token.credential.to_string()).collect();
    missing.dedup();
    let is_missing = |token: &&TokenStatus| missing.iter().any(|name| **name == *token.credential);
    let ready = match rule {
        _ if missing.is_empty() => true,
        _ if credential.is_some() => false,
        ReadinessRule::All => false,
        ReadinessRule::Any => !counted.iter().all(is_missing),
        ReadinessRule::Started => true,
    };
    if ready { Readiness::Ready } else { Readiness::Missing(missing) }
}

/// True once the listeners are bound and the first attempt for each token that is not lazy has ended,
/// with or without success.
pub fn is_started(health: &dyn Health) -> bool {
    health.started() && health.tokens().iter().all(|token| token.attempted || token.lazy)
}

#[cfg(test)]
pub(super) mod tests {
    use std::time::Duration;

    use super::*;

    #[derive(Default, Clone)]
    pub struct Fake {
        pub draining: bool,
        pub starting: bool,
        pub tokens: Vec<TokenStatus>,
    }

    impl Health for Fake {
        fn draining(&self) -> bool {
            self.draining
        }
        fn started(&self) -> bool {
            !self.starting
        }
        fn tokens(&self) -> Vec<TokenStatus> {
            self.tokens.clone()
        }
        fn report(&self) -> Pin<Box<dyn Future<Output = StatusReport> + Send + '_>> {
            Box::pin(std::future::ready(StatusReport::default()))
        }
        fn bundle_parts(&self) -> BundleParts {
            BundleParts::default()
        }
        fn ask(&self, _: Option<&str>) {}
        fn refresh(&self, credential: &str) -> usize {
            self.tokens.iter().filter(|token| *token.credential == *credential).count()
        }
    }

    /// A token from `"name"`, with `+` usable, `~` lazy, `?` not yet attempted.
    pub fn token(text: &str) -> TokenStatus {
        let usable_until = Moment::now().after(Duration::from_secs(60));
        TokenStatus {
            credential: text.trim_end_matches(['+', '~', '?']).into(),
            token: "0".into(),
            usable_until: text.contains('+').then_some(usable_until),
            lazy: text.contains('~'),
            attempted: !text.contains('?'),
            ..TokenStatus::default()
        }
    }

    pub fn fake(tokens: &[&str]) -> Fake {
        Fake { tokens: tokens.iter().map(|text| token(text)).collect(), ..Fake::default() }
    }

    #[test]
    fn readiness_is_every_credential_that_is_not_lazy() {
        let check = |tokens: &[&str], name: Option<&str>, expected: Readiness| {
            let found = readiness(&fake(tokens), ReadinessRule::All, name);
            assert_eq!(found, expected, "{tokens:?} {name:?}");
        };
        let missing = |name: &str| Readiness::Missing(vec![name.into()]);
        check(&[], None, Readiness::Ready);
        check(&["a+", "b+"], None, Readiness::Ready);
        check(&["a+", "b", "b"], None, missing("b"));
        check(&["a+", "b+", "b"], None, missing("b"));
        check(&["a+", "b~"], None, Readiness::Ready);
        check(&["a+", "b~"], Some("b"), missing("b"));
        check(&["a+", "b"], Some("a"), Readiness::Ready);
        check(&["a+"], Some("c"), Readiness::Unknown);
    }

    #[test]
    fn a_bank_that_is_out_decides_by_the_rule() {
        use ReadinessRule::{All, Any, Started};
        let rows: &[(&[&str], [bool; 3])] = &[
            (&[], [true, true, true]),
            (&["a+", "b"], [false, true, true]),
            (&["a", "b"], [false, false, true]),
            // Half of its tokens is no usable credential.
            (&["a+", "a"], [false, false, true]),
            (&["a~", "b~"], [true, true, true]),
            // A lazy credential stands for no other.
            (&["a", "b~+"], [false, false, true]),
        ];
        for (tokens, expected) in rows {
            let found = [All, Any, Started]
                .map(|rule| readiness(&fake(tokens), rule, None) == Readiness::Ready);
            assert_eq!(found, *expected, "{tokens:?}");
        }
        let missing = Readiness::Missing(vec!["b".into()]);
        assert_eq!(readiness(&fake(&["a+", "b"]), Any, Some("b")), missing);
        assert_eq!(readiness(&fake(&["a+", "b"]), Started, Some("b")), missing);
    }

    #[test]
    fn leaving_and_starting_are_not_ready() {
        let draining = Fake { draining: true, ..fake(&["a+"]) };
        let starting = Fake { starting: true, ..fake(&["a+"]) };
        for rule in [ReadinessRule::All, ReadinessRule::Any, ReadinessRule::Started] {
            assert_eq!(readiness(&draining, rule, Some("a")), Readiness::Draining);
            assert_eq!(readiness(&draining, rule, None), Readiness::Draining);
            assert_eq!(readiness(&starting, rule, None), Readiness::Starting);
        }
    }

    #[test]
    fn the_start_is_over_when_each_first_attempt_is() {
        let check = |tokens: &[&str], expected: bool| {
            assert_eq!(is_started(&fake(tokens)), expected, "{tokens:?}");
        };
        check(&[], true);
        check(&["a", "b+"], true);
        check(&["a?", "b+"], false);
        check(&["a~?", "b+"], true);
        assert!(!is_started(&Fake { starting: true, ..Fake::default() }));
    }
}
