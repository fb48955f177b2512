//! Ready, started, alive: what probes ask, computed from what `app` lets us see.

use std::time::SystemTime;

/// What the rest of the program tells about itself.
pub trait Health: Send + Sync + 'static {
    /// Whether it is leaving: no longer ready, whatever the tokens are.
    fn draining(&self) -> bool;
    /// Whether the listeners are bound and the workers run.
    fn started(&self) -> bool;
    /// Every token of every credential, in the order of the credentials' names.
    fn tokens(&self) -> Vec<TokenHealth>;
    /// Somebody waits for the tokens of a credential, or for all that are not lazy.
    fn ask(&self, credential: Option<&str>);
    /// Has the tokens of a credential fetched anew; says how many they are.
    fn refresh(&self, credential: &str) -> usize;
    /// Whether the parts that carry requests still move. Never a matter of tokens: a restart
    /// repairs no bank.
    fn alive(&self) -> bool {
        true
    }
}

/// One token as operators see it: nothing in it is secret.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct TokenHealth {
    /// The credential's name.
    pub credential: String,
    /// The token's number among those of its credential.
    pub token: String,
    /// The scopes it is asked with.
    pub scopes: Vec<String>,
    /// Whether a request could use it now.
    pub usable: bool,
    /// Fetched only when a request needs it, so that its absence says nothing.
    pub lazy: bool,
    /// Whether the first attempt has ended, either way.
    pub attempted: bool,
    /// In a word: `fresh`, `ageing`, `expired`, `none`.
    pub state: &'static str,
    /// When it ends.
    pub expires: Option<SystemTime>,
    /// When its successor is to be fetched.
    pub refresh_due: Option<SystemTime>,
    /// Since when fetching fails.
    pub failing_since: Option<SystemTime>,
    /// Failures in a row.
    pub failures: u32,
    /// What the last failure was, in a fixed word.
    pub last_error: Option<&'static str>,
    /// Where it is asked from.
    pub token_url: String,
    /// Scopes that it was asked with and that were not granted.
    pub missing_scopes: Vec<String>,
    /// Another instance seems to revoke what we obtain.
    pub contended: bool,
    /// How far the token server's clock is ahead of ours, in seconds.
    pub clock_offset: Option<f64>,
    /// Calls that the credential's hourly budget leaves.
    pub budget_left: Option<u32>,
}

/// The answer to "may requests be sent here?".
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Readiness {
    /// Yes.
    Ready,
    /// No: the program is leaving.
    Draining,
    /// No: it has only begun to start.
    Starting,
    /// Not all of it: these credentials lack a usable token.
    Missing(Vec<String>),
    /// There is no credential of that name.
    Unknown,
}

/// Readiness as a whole, or of one credential. A lazy credential counts only when asked for.
pub fn readiness(health: &dyn Health, credential: Option<&str>) -> Readiness {
    if health.draining() {
        return Readiness::Draining;
    }
    if !health.started() {
        return Readiness::Starting;
    }
    let tokens = health.tokens();
    if credential.is_some_and(|name| !tokens.iter().any(|token| token.credential == name)) {
        return Readiness::Unknown;
    }
    let asked =
        |token: &TokenHealth| credential.map_or(!token.lazy, |name| token.credential == name);
    let mut missing: Vec<String> = tokens
        .into_iter()
        .filter(|token| asked(token) && !token.usable)
        .map(|token| token.credential)
        .collect();
    missing.dedup();
    if missing.is_empty() { Readiness::Ready } else { Readiness::Missing(missing) }
}

/// Whether the start is over: listeners bound, and the first attempt for each token has ended,
/// either way. Lazy tokens are not waited for.
pub fn is_started(health: &dyn Health) -> bool {
    health.started() && health.tokens().iter().all(|token| token.attempted || token.lazy)
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    #[derive(Default, Clone)]
    pub struct Fake {
        pub draining: bool,
        pub starting: bool,
        pub tokens: Vec<TokenHealth>,
    }

    impl Health for Fake {
        fn draining(&self) -> bool {
            self.draining
        }
        fn started(&self) -> bool {
            !self.starting
        }
        fn tokens(&self) -> Vec<TokenHealth> {
            self.tokens.clone()
        }
        fn ask(&self, _: Option<&str>) {}
        fn refresh(&self, credential: &str) -> usize {
            self.tokens.iter().filter(|token| token.credential == credential).count()
        }
    }

    /// A token from `"name"`, with `+` usable, `~` lazy, `?` not yet attempted.
    pub fn token(text: &str) -> TokenHealth {
        TokenHealth {
            credential: text.trim_end_matches(['+', '~', '?']).into(),
            token: "0".into(),
            usable: text.contains('+'),
            lazy: text.contains('~'),
            attempted: !text.contains('?'),
            state: "none",
            ..TokenHealth::default()
        }
    }

    pub fn fake(tokens: &[&str]) -> Fake {
        Fake { tokens: tokens.iter().map(|text| token(text)).collect(), ..Fake::default() }
    }

    #[test]
    fn readiness_is_every_credential_that_is_not_lazy() {
        let check = |tokens: &[&str], asked: Option<&str>, expected: Readiness| {
            assert_eq!(readiness(&fake(tokens), asked), expected, "{tokens:?} {asked:?}");
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
    fn leaving_and_starting_are_not_ready() {
        let draining = Fake { draining: true, ..fake(&["a+"]) };
        let starting = Fake { starting: true, ..fake(&["a+"]) };
        assert_eq!(readiness(&draining, Some("a")), Readiness::Draining);
        assert_eq!(readiness(&starting, None), Readiness::Starting);
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
